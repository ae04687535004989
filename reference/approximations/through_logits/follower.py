"""A follower as a table of logits φ, and what a total derivative through them is made of.

With π = softmax(φ) and F the follower's own regularised return from the initial law, `d = (I - γ_F P_πᵀ)^{-1} μ` its
visits, V its value under π and `A = Q - β log π - V`,

    G = ∂F/∂φ = d π A,                                                                                           (1)
    ∂V(s)/∂φ(t,b) = N(s,t) π(b|t) A(t,b),   ∂d(s)/∂φ(t,b) = γ_F d(t) π(b|t) ((P(t,b) - P_π(t)) N)(s),            (2)
    ∂A(s,a)/∂φ(t,b) = γ_F P(s,a) ∂V - ∂V(s) - β [s=t] ([a=b] - π(b|s)),    N = (I - γ_F P_π)^{-1}.               (3)

At the best response A = 0 and the Hessian is block diagonal, `-β B` with the Fisher information

    B = d (diag π - π πᵀ):                                                                                       (4)

there the Fisher information *is* the Hessian, over β. The response of the leader's return is `pᵀ (-H)^{-1} ∂²_φθF`
with p = ∂J/∂φ, and at the best response every approximate inverse y of p enters through `B y` alone, the cotangent of
∇Q_F: exact is B y = p/β.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np

from bilevelrl.reference.approximations.adjoints import adjoint_gradient, exact_adjoint
from bilevelrl.reference.arrays import ComplexArray, FloatArray
from bilevelrl.reference.nudged import kernel_layout
from bilevelrl.reference.problem import Objective
from bilevelrl.reference.tabular.fixed_point import soft_bellman
from bilevelrl.reference.tabular.follower import TabularFollower, solve_tabular
from bilevelrl.reference.tabular.leader import LeaderEvaluation, evaluate_leader, visited_next
from bilevelrl.reference.tabular.model import TabularAt

__all__ = [
    "FollowerAt",
    "Inverse",
    "fisher_blocks",
    "follower_after",
    "follower_at",
    "mixed_slope",
    "partial_at",
    "solved_scores",
    "through_inverse",
]

Inverse: TypeAlias = Callable[[FloatArray, FloatArray, float], FloatArray]
"""(B (S, A, A), p (S, A), β) → y (S, A), in place of (β B)^{-1} p."""


class FollowerAt(NamedTuple):
    """A follower that plays any policy: visits d (S,), value V (S,), advantage A (S, A), N (S, S)."""

    policy: FloatArray
    visits: FloatArray
    value: FloatArray
    advantage: FloatArray
    inverse: FloatArray


def follower_at(at: TabularAt, policy: FloatArray) -> FollowerAt:
    """Return what a policy (S, A) is to the follower itself: of these (1) to (3) are made."""
    discount, beta = at.problem.discount_follower, at.problem.temperature
    chain = discount * np.matmul(policy[:, None, :], at.kernel)[:, 0, :]
    inverse = np.linalg.inv(np.eye(len(chain)) - chain)
    log_policy = np.log(np.where(policy > 0.0, policy, 1.0))
    soft = np.asarray(at.tables.reward_follower) - at.centres[0] - beta * log_policy
    value = inverse @ np.vecdot(policy, soft)
    advantage = soft + discount * (at.kernel @ value) - value[:, None]
    visits = inverse.T @ np.asarray(at.tables.initial)
    return FollowerAt(policy, visits, value, np.where(policy > 0.0, advantage, 0.0), inverse)


def follower_after(at: TabularAt, sweeps: int) -> FollowerAt:
    """Return the follower that stops after so many sweeps of its values from zero."""
    reward, value = np.asarray(at.tables.reward_follower) - at.centres[0], np.zeros(at.tables.states)
    policy = np.zeros(reward.shape)
    for _ in range(sweeps):
        value, _, policy = soft_bellman(
            at.tables.transition, reward, at.problem.discount_follower, at.problem.temperature, value
        )
    return follower_at(at, policy)


def fisher_blocks(visits: FloatArray, policy: FloatArray) -> FloatArray:
    """Return B of (4), (S, A, A)."""
    blocks: FloatArray = -policy[:, :, None] * policy[:, None, :]
    blocks[:, range(policy.shape[1]), range(policy.shape[1])] += policy
    return visits[:, None, None] * blocks


def solved_scores(at: TabularAt, objective: Objective, inverse: Inverse) -> FloatArray:
    """Return y (S, A) less its mean over the policy: what scores of a solved follower are weighed with."""
    follower, evaluation = _solved(at, objective)
    blocks = fisher_blocks(follower_at(at, follower.policy).visits, follower.policy)
    if not blocks.any():  # nothing is chosen
        return np.zeros(follower.policy.shape)
    solved = inverse(blocks, evaluation.benefit_weight, at.problem.temperature)
    result: FloatArray = solved - np.vecdot(follower.policy, solved)[:, None]
    return result


def _solved(at: TabularAt, objective: Objective) -> tuple[TabularFollower, LeaderEvaluation]:
    follower = solve_tabular(at)
    return follower, evaluate_leader(
        at.tables, follower.policy, at.problem.discount_leader, objective=objective, centre=at.centres[1]
    )


def through_inverse(at: TabularAt, objective: Objective, inverse: Inverse) -> FloatArray:
    """Return the gradient at a solved follower, with something else in place of the inverse of its Hessian."""
    follower, evaluation = _solved(at, objective)
    blocks = fisher_blocks(follower_at(at, follower.policy).visits, follower.policy)
    cotangent = np.zeros(follower.policy.shape)
    if blocks.any():  # else nothing is chosen
        solved = inverse(blocks, evaluation.benefit_weight, at.problem.temperature)
        cotangent = np.matmul(blocks, solved[:, :, None])[:, :, 0]
    return adjoint_gradient(at, follower, follower.policy, evaluation, cotangent, exact_adjoint)


def partial_at(at: TabularAt, policy: FloatArray, objective: Objective) -> tuple[FloatArray, FloatArray]:
    """Return the leader's partial gradient (N,) and p (S, A) at any policy of the follower's."""
    found = evaluate_leader(at.tables, policy, at.problem.discount_leader, objective=objective, centre=at.centres[1])
    own = at.pullback(
        {
            "initial": found.value,
            "reward_leader": found.occupancy[:, None] * policy,
            "transition": visited_next(at.tables, found.state_factor, policy, found.value_factor),
            "regulariser": np.ones(()),
        }
    )
    return own, found.benefit_weight


_STEP = 1e-30


def mixed_slope(at: TabularAt, policy: FloatArray, direction: FloatArray) -> FloatArray:
    """Return `yᵀ ∂²_φθF` (N,) at any policy: the slope along y of ∂_θF, by a complex step in the logits."""
    discount, beta = at.problem.discount_follower, at.problem.temperature
    moved: ComplexArray = policy * (1.0 + 1j * _STEP * (direction - np.vecdot(policy, direction)[:, None]))
    chain = discount * np.matmul(moved[:, None, :], at.kernel)[:, 0, :]
    system = np.eye(len(chain)) - chain
    log_moved = np.log(np.where(policy > 0.0, moved, 1.0))
    soft = np.asarray(at.tables.reward_follower) - at.centres[0] - beta * log_moved
    value = np.linalg.solve(system, (moved * soft).sum(axis=1))
    visits = np.linalg.solve(system.T, np.asarray(at.tables.initial) + 0j)[:, None] * moved
    carried = discount * visits[:, :, None] * value
    return at.pullback(
        {
            "initial": value.imag / _STEP,
            "reward_follower": visits.imag / _STEP,
            "transition": kernel_layout(at, carried.imag / _STEP),
        }
    )
