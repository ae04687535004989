"""A single-loop penalty method: two followers that are swept once per iteration while the pay is attenuated.

At θ held fixed, iteration j pays w_j = β / √j and sweeps both tables once,

    V⁺ ← T_{w_j} V⁺,   V⁰ ← T_0 V⁰   from zero,                                                                  (1)

and after k of them the gradient is the penalty's at the policies that the tables play, each evaluated for ever,

    ∂_θR(π⁺) + (∂_θF(π⁺) - ∂_θF(π⁰)) / w_k.                                                                      (2)

Off by O(w_k), as every one-sided penalty, and by what the tables lag behind over w_k: the pay must not be attenuated
faster than the followers come after it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bilevelrl.reference.approximations.adjoints import steps_of
from bilevelrl.reference.approximations.approximation import Approximation, register_approximation
from bilevelrl.reference.approximations.through_logits.follower import follower_at
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import UnsupportedError
from bilevelrl.reference.nudged import kernel_layout
from bilevelrl.reference.problem import Objective
from bilevelrl.reference.tabular.fixed_point import soft_bellman
from bilevelrl.reference.tabular.model import TabularAt

__all__ = ["SweptFollower", "attenuated_penalty", "swept_followers"]


class SweptFollower(NamedTuple):
    """A follower that was swept and stopped: its pay, what it plays (S, A), what that is worth to it, paid (S,)."""

    pay: float
    policy: FloatArray
    worth: FloatArray


def swept_followers(at: TabularAt, objective: Objective, steps: int) -> tuple[SweptFollower, SweptFollower]:
    """Return the paid and the unpaid follower after k iterations of (1).

    Raises
    ------
    UnsupportedError
        If the discounts differ, or for episodes of T steps: a pay that is constant in time answers for neither.
    """
    problem = at.problem
    discount = problem.discount_follower
    if objective.horizon is not None or problem.discount_leader != discount:
        raise UnsupportedError(
            f"horizon={objective.horizon}, discount_leader={problem.discount_leader}, discount_follower={discount}: "
            "expected no horizon and one discount; the pay of a stationary policy does not change in time"
        )
    reward, bonus = np.asarray(at.tables.reward_follower), np.asarray(at.tables.reward_leader)
    reward, bonus = reward - at.centres[0], bonus - at.centres[1]
    paid, unpaid = np.zeros(at.tables.states), np.zeros(at.tables.states)
    policies = (np.zeros(reward.shape), np.zeros(reward.shape))
    pay = problem.temperature
    for j in range(1, steps + 1):
        pay = problem.temperature / np.sqrt(j)
        paid, _, one = soft_bellman(at.tables.transition, reward + pay * bonus, discount, problem.temperature, paid)
        unpaid, _, other = soft_bellman(at.tables.transition, reward, discount, problem.temperature, unpaid)
        policies = (one, other)  # (1)
    found = []
    for policy, side in zip(policies, (float(pay), 0.0), strict=True):
        follower = follower_at(at, policy)
        earned = follower.value + side * (follower.inverse @ np.vecdot(policy, bonus))
        found.append(SweptFollower(side, policy, earned))
    return found[0], found[1]


def attenuated_penalty(at: TabularAt, objective: Objective, knob: float) -> FloatArray:
    """Return (2) after k iterations of (1); refused as `swept_followers`."""
    followers = swept_followers(at, objective, steps_of(knob))
    pay, discount = followers[0].pay, at.problem.discount_follower
    found = np.zeros(at.theta.size)
    for side, policy, earned in followers:
        visits = follower_at(at, policy).visits[:, None] * policy
        sign = 1.0 if side else -1.0
        found = found + sign / pay * at.pullback(
            {
                "initial": earned,
                "reward_follower": visits,
                "reward_leader": side * visits,
                "transition": kernel_layout(at, discount * visits[:, :, None] * earned),
            }
        )  # (2)
    return found + at.problem.regulariser_gradient(at.theta)


register_approximation(
    Approximation(
        name="attenuated_penalty",
        summary="single-loop value penalty: one sweep of both followers per iteration, pay β/√k",
        knob="iterations",
        knobs=(1, 10, 100, 1000, 10_000),
        geometric=False,
        rate=lambda at: -0.5,
        source="single-loop PBRL, arXiv:2402.06886; attenuated, arXiv:2601.16399",
        function=attenuated_penalty,
    )
)
