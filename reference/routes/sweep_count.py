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
from bilevelrl.reference.configurable_mdp import ConfigurableMDP
from bilevelrl.reference.error_bounds import tabular_error_bound
from bilevelrl.reference.errors import TooLargeError
from bilevelrl.reference.fixed_point import rounding_level
from bilevelrl.reference.leader import gradient_centres
from bilevelrl.reference.transitions import to_dense

__all__ = ["SWEEP_LIMIT", "TOLERANCE", "SweepPlan", "check_sweeps", "mixing_sweeps", "plan_sweeps", "settle"]

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
    value_error : float
        Bound on the error of the follower's values, rounding included.
    value, policy : (S,), (S, A)
        Where the follower's sweeps ended, without the constant.
    """

    follower: int
    leader: int
    centre_follower: float
    centre_leader: float
    remainder: float
    residual: float
    value_error: float
    value: FloatArray
    policy: FloatArray

    def error_bound(self, problem: ConfigurableMDP, theta: FloatArray, horizon: int | None, discounted: bool) -> float:
        """Return the bound on the hypergradient's error for a route that makes these sweeps."""
        return tabular_error_bound(
            problem,
            theta,
            policy=self.policy,
            follower_value=self.value,
            horizon=horizon,
            discounted=discounted,
            value_error=self.value_error,
            remainder=self.remainder,
        )


def plan_sweeps(problem: ConfigurableMDP, theta: FloatArray) -> SweepPlan:
    """Sweep once without derivatives and count what the tolerance needs.

    Raises
    ------
    TooLargeError
        If more than `SWEEP_LIMIT` sweeps are needed.
    """
    tables = problem.tables_at(theta)
    discount, temperature = problem.discount_follower, problem.temperature
    centre_follower, centre_leader = gradient_centres(problem, theta, tables)
    kernel = to_dense(tables.transition)
    states, actions, _ = kernel.shape
    rows = kernel.reshape(states * actions, states)
    reward = np.asarray(tables.reward_follower, dtype=np.float64) - centre_follower

    def sweep(value: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        action_value = reward + discount * (rows @ value).reshape(states, actions)
        top = action_value.max(axis=1)
        weights = np.exp((action_value - top[:, None]) / temperature)
        return top + temperature * np.log(weights.sum(axis=1)), action_value, weights

    value, action_value, weights, residual, sweeps = settle(
        sweep,
        np.zeros(states),
        discount=discount,
        temperature=temperature,
        rounding=lambda scale: 64 * (states + actions) * float(np.finfo(np.float64).eps) * scale,
    )
    policy = weights / weights.sum(axis=1, keepdims=True)
    chain = np.einsum("sa,sat->st", policy, kernel)
    extra, left_follower = mixing_sweeps(chain, discount)
    leader, left_leader = mixing_sweeps(chain, problem.discount_leader)
    # The leader's derivatives sweep along with the values that they are derivatives of, whose own tails add up.
    left_leader *= 1.0 + leader * (1.0 - problem.discount_leader)
    largest = max(float(np.abs(action_value).max()), float(np.abs(value).max()))
    return SweepPlan(
        follower=sweeps + extra,
        leader=leader,
        centre_follower=centre_follower,
        centre_leader=centre_leader,
        remainder=max(left_follower, left_leader),
        residual=residual,
        value_error=(residual + rounding_level(tables, largest)) / (1.0 - discount),
        value=value,
        policy=policy,
    )


def settle(
    sweep: Callable[[FloatArray], tuple[FloatArray, FloatArray, FloatArray]],
    value: FloatArray,
    *,
    discount: float,
    temperature: float,
    rounding: Callable[[float], float],
) -> tuple[FloatArray, FloatArray, FloatArray, float, int]:
    """Sweep until the values settle: to the tolerance, or to where rounding keeps them moving.

    Parameters
    ----------
    sweep
        value → (value backed up, action values, unnormalised policy).
    value
        Where to start.
    discount, temperature
        The follower's.
    rounding
        Size of the values → the residual that rounding alone can leave.

    Returns
    -------
    value, action_value, weights, residual, sweeps

    Raises
    ------
    TooLargeError
        If more than `SWEEP_LIMIT` sweeps are needed.
    """
    best, stalled, sweeps = math.inf, 0, 0
    while True:
        backed_up, action_value, weights = sweep(value)
        residual = float(np.abs(backed_up - value).max())
        value = backed_up
        sweeps += 1
        scale = max(1.0, float(np.abs(value).max()))
        if residual <= TOLERANCE * (1.0 - discount) * min(1.0, temperature) * scale:
            break
        stalled = 0 if residual < 0.999 * best else stalled + 1
        best = min(best, residual)
        if stalled > 20 and residual <= rounding(scale):
            break
        check_sweeps(sweeps)
    return value, action_value, weights, residual, sweeps


def mixing_sweeps(chain: FloatArray, discount: float) -> tuple[int, float]:
    """Return how many sweeps leave less than the tolerance of the discounted mass, and what they leave of it."""
    mass, count = np.ones(chain.shape[0]), 0
    while float(mass.max()) > TOLERANCE * (1.0 - discount):
        mass = discount * chain @ mass
        count += 1
        check_sweeps(count)
    return count + 1, float(mass.max()) / (1.0 - discount)


def check_sweeps(count: int) -> None:
    """Refuse more than `SWEEP_LIMIT` sweeps."""
    if count > SWEEP_LIMIT:
        raise TooLargeError(
            f"sweeps={count}: expected at most {SWEEP_LIMIT}; use route='implicit', whose cost is free of mixing"
        )
