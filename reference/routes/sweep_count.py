"""How many sweeps a route that only sweeps must make, from the tolerance and the problem's own mixing.

After the values have settled, what `k` sweeps leave of an initial error is at most the discounted mass that has not
terminated, `γ^k max_s (P_π^k 1)(s)`. It is `γ^k` at worst, and far less where episodes end.
"""

from __future__ import annotations

import math

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import TooLargeError
from bilevelrl.reference.tables import Tables
from bilevelrl.reference.transitions import to_dense

__all__ = ["SWEEP_LIMIT", "SweepPlan", "plan_sweeps"]

SWEEP_LIMIT = 400_000


class SweepPlan:
    """Sweeps for the follower (values, then derivatives) and for the leader, and the mass they leave.

    Attributes
    ----------
    follower, leader : int
        Numbers of sweeps.
    remainder : float
        Largest relative truncation error that is left.
    """

    __slots__ = ("follower", "leader", "remainder", "residual")

    def __init__(self, follower: int, leader: int, remainder: float, residual: float) -> None:
        self.follower = follower
        self.leader = leader
        self.remainder = remainder
        self.residual = residual


def plan_sweeps(
    tables: Tables, discount_leader: float, discount_follower: float, temperature: float, tolerance: float
) -> SweepPlan:
    """Sweep once without derivatives and count what the tolerance needs.

    Raises
    ------
    TooLargeError
        If more than `SWEEP_LIMIT` sweeps are needed.
    """
    kernel = to_dense(tables.transition)
    states, actions, _ = kernel.shape
    rows = kernel.reshape(states * actions, states)
    reward = np.asarray(tables.reward_follower, dtype=np.float64)
    value = np.zeros(states)
    eps = float(np.finfo(np.float64).eps)
    best, stalled, sweeps, residual = math.inf, 0, 0, math.inf
    while True:
        action_value = reward + discount_follower * (rows @ value).reshape(states, actions)
        top = action_value.max(axis=1)
        weights = np.exp((action_value - top[:, None]) / temperature)
        backed_up = top + temperature * np.log(weights.sum(axis=1))
        residual = float(np.abs(backed_up - value).max())
        value = backed_up
        sweeps += 1
        scale = max(1.0, float(np.abs(value).max()))
        if residual <= tolerance * (1.0 - discount_follower) * min(1.0, temperature) * scale:
            break
        stalled = 0 if residual < 0.999 * best else stalled + 1
        best = min(best, residual)
        if stalled > 20 and residual <= 64 * (states + actions) * eps * scale:
            break
        _limit(sweeps)
    policy = weights / weights.sum(axis=1, keepdims=True)
    chain = np.einsum("sa,sat->st", policy, kernel)
    extra, left_follower = _mixing(chain, discount_follower, tolerance)
    leader, left_leader = _mixing(chain, discount_leader, tolerance)
    return SweepPlan(sweeps + extra, leader, max(left_follower, left_leader), residual)


def _mixing(chain: FloatArray, discount: float, tolerance: float) -> tuple[int, float]:
    mass, count = np.ones(chain.shape[0]), 0
    while float(mass.max()) > tolerance * (1.0 - discount):
        mass = discount * chain @ mass
        count += 1
        _limit(count)
    return count + 1, float(mass.max()) / (1.0 - discount)


def _limit(count: int) -> None:
    if count > SWEEP_LIMIT:
        raise TooLargeError(
            f"sweeps={count}: expected at most {SWEEP_LIMIT}; use route='implicit', whose cost is free of mixing"
        )
