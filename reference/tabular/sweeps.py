"""How many sweeps a route that only sweeps must make, from the tolerance and the problem's own mixing.

After the values have settled, what `k` sweeps leave of an initial error is at most the discounted mass that has not
terminated, `γ^k max_s (P_π^k 1)(s)`. It is `γ^k` at worst, and far less where episodes end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import TooLargeError
from bilevelrl.reference.problem import AnswerBounds, Objective
from bilevelrl.reference.tabular.error_bounds import tabular_error_bound
from bilevelrl.reference.tabular.fixed_point import state_scale
from bilevelrl.reference.tabular.follower import tabular_operator
from bilevelrl.reference.tabular.model import TabularAt
from bilevelrl.reference.tabular.value_errors import ValueErrors, value_errors

__all__ = [
    "SWEEP_LIMIT",
    "TOLERANCE",
    "SweepPlan",
    "check_sweeps",
    "leader_sweeps",
    "mixing_sweeps",
    "plan_sweeps",
    "settle",
]

SWEEP_LIMIT = 400_000

TOLERANCE = 1e-13
"""What the sweeps may leave, relative to the largest term."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlan:
    """Sweeps for the follower (values, then derivatives) and for the leader, and what they leave.

    Attributes
    ----------
    follower, leader : int
        Numbers of sweeps.
    centre_follower, centre_leader : float
        Constants to subtract from the rewards, which moves no derivative.
    remainder : float
        Largest relative truncation error that is left.
    residual : float
        The follower's last change.
    value, policy : (S,), (S, A)
        Where the follower's sweeps ended, without the constant.
    """

    follower: int
    leader: int
    centre_follower: float
    centre_leader: float
    remainder: float
    residual: float
    value: FloatArray
    policy: FloatArray

    def error_bound(self, at: TabularAt, objective: Objective) -> AnswerBounds:
        """Return the bounds on the hypergradient's error for a route that makes these sweeps."""
        return tabular_error_bound(
            at,
            policy=self.policy,
            follower_value=self.value,
            objective=objective,
            errors=self.errors(at),
            remainder=self.remainder,
        )

    def errors(self, at: TabularAt) -> ValueErrors:
        """Return the bounds on what the follower's sweeps leave."""
        problem, tables = at.problem, at.tables
        reward = np.asarray(tables.reward_follower, dtype=np.float64) - self.centre_follower
        operator = tabular_operator(tables, reward, problem.discount_follower, problem.temperature)
        return value_errors(operator, self.value)


def plan_sweeps(at: TabularAt) -> SweepPlan:
    """Sweep once without derivatives and count what the tolerance needs.

    Raises
    ------
    TooLargeError
        If more than `SWEEP_LIMIT` sweeps are needed.
    """
    problem, tables, kernel = at.problem, at.tables, at.kernel
    discount, temperature = problem.discount_follower, problem.temperature
    centre_follower, centre_leader = at.centres
    states, actions, _ = kernel.shape
    rows = kernel.reshape(states * actions, states)
    reward = np.asarray(tables.reward_follower, dtype=np.float64) - centre_follower

    def sweep(value: FloatArray) -> tuple[FloatArray, FloatArray]:
        action_value = reward + discount * (rows @ value).reshape(states, actions)
        top = action_value.max(axis=1)
        weights = np.exp((action_value - top[:, None]) / temperature)
        mass = weights.sum(axis=1)
        return top + temperature * np.log(mass), weights / mass[:, None]

    def level(value: FloatArray, policy: FloatArray) -> FloatArray:
        size = np.abs(reward) + discount * (rows @ np.abs(value)).reshape(states, actions)
        noise: FloatArray = 64 * (states + actions) * float(np.finfo(np.float64).eps) * (policy * size).sum(axis=1)
        return noise

    value, policy, residual, sweeps = settle(
        sweep, np.zeros(states), discount=discount, temperature=temperature, level=level
    )
    chain = np.einsum("sa,sat->st", policy, kernel)
    extra, left_follower = mixing_sweeps(chain, discount)
    leader, left_leader = leader_sweeps(chain, problem.discount_leader)
    return SweepPlan(
        follower=sweeps + extra,
        leader=leader,
        centre_follower=centre_follower,
        centre_leader=centre_leader,
        remainder=max(left_follower, left_leader),
        residual=residual,
        value=value,
        policy=policy,
    )


def settle(
    sweep: Callable[[FloatArray], tuple[FloatArray, FloatArray]],
    value: FloatArray,
    *,
    discount: float,
    temperature: float,
    level: Callable[[FloatArray, FloatArray], FloatArray],
) -> tuple[FloatArray, FloatArray, float, int]:
    """Sweep until the values of every state settle: far below β, or to where its own rounding keeps them moving.

    Parameters
    ----------
    sweep
        value → (value backed up, policy).
    value
        Where to start.
    discount, temperature
        The follower's.
    level
        (value, policy) → the change (S,) that rounding alone can leave.

    Returns
    -------
    value, policy, residual, sweeps

    Raises
    ------
    TooLargeError
        If more than `SWEEP_LIMIT` sweeps are needed.
    """
    best, stalled, sweeps = math.inf, 0, 0
    while True:
        backed_up, policy = sweep(value)
        change = np.abs(backed_up - value)
        value = backed_up
        sweeps += 1
        if (change <= TOLERANCE * (1.0 - discount) * temperature).all():
            break
        scale = state_scale(value, temperature)
        relative = float((change / scale).max())
        stalled = 0 if relative < 0.999 * best else stalled + 1
        best = min(best, relative)
        if stalled > 20 and (change <= level(value, policy) + 64 * float(np.finfo(np.float64).eps) * scale).all():
            break
        check_sweeps(sweeps)
    return value, policy, float(change.max()), sweeps


def mixing_sweeps(chain: FloatArray, discount: float) -> tuple[int, float]:
    """Return how many sweeps leave less than the tolerance of the discounted mass, and what they leave of it."""
    mass, count = np.ones(chain.shape[0]), 0
    while float(mass.max()) > TOLERANCE * (1.0 - discount):
        mass = discount * chain @ mass
        count += 1
        check_sweeps(count)
    return count + 1, float(mass.max()) / (1.0 - discount)


def leader_sweeps(chain: FloatArray, discount: float) -> tuple[int, float]:
    """Return the same for the leader's values and their derivatives."""
    count, left = mixing_sweeps(chain, discount)
    # The leader's derivatives sweep along with the values that they are derivatives of, whose own tails add up.
    return count, left * (1.0 + count * (1.0 - discount))


def check_sweeps(count: int) -> None:
    """Refuse more than `SWEEP_LIMIT` sweeps."""
    if count > SWEEP_LIMIT:
        raise TooLargeError(
            f"sweeps={count}: expected at most {SWEEP_LIMIT}; use route='implicit', whose cost is free of mixing"
        )
