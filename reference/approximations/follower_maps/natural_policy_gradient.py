"""Natural policy gradient with entropy and exact values: a softmax policy moves its logits towards its own values.

    log π_{j+1} = (1 - η) log π_j + η Q^j / β    up to normalisation,                                            (1)
    V^j = (I - γ_F P_{π_j})^{-1} Σ_a π_j (r_F - β log π_j),    Q^j = r_F + γ_F P V^j.                            (2)

η = 1 is soft policy iteration. With C = max|Q^0 - Q*| + 2β(1-η) max|log π_0 - log π*| and ρ = 1 - η (1 - γ_F),

    |log π_k - log π*| ≤ 2 C ρ^(k-1) / β.                                                                        (3)

The derivative of V^j in the policy is the policy gradient, one transposed system for each update.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bilevelrl.reference.approximations.follower_maps.follower_map import (
    FollowerMap,
    Learning,
    Learnt,
    centred_reward,
    cotangent_of_logits,
    register_map,
    start_logits,
)
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.tabular.follower import solve_tabular
from bilevelrl.reference.tabular.leader import visited_next
from bilevelrl.reference.tabular.model import TabularAt
from bilevelrl.reference.tabular.transitions import DiscountedSystem, expected_next, policy_transition

__all__ = ["natural_policy_gradient"]


def natural_policy_gradient(at: TabularAt, learning: Learning) -> Learnt:
    """Return π_k of (1) and its pullback."""
    tables, beta, discount, share = at.tables, at.problem.temperature, at.problem.discount_follower, learning.step_size
    reward, log_policy = centred_reward(at), start_logits(at, learning.start)
    visited = []
    for _ in range(learning.updates):
        value, action_value, system = _values(at, reward, log_policy)
        visited.append((log_policy, value, action_value, system))
        log_policy = _normalised((1.0 - share) * log_policy + share / beta * action_value)  # (1)
    played = np.exp(log_policy)

    def pullback(weight: FloatArray) -> Mapping[str, FloatArray]:
        by_reward, moving = np.zeros(reward.shape), np.zeros(())
        rows = at.kernel.reshape(-1, tables.states)
        on_log, policy = weight, played
        for log_before, value, action_value, system in reversed(visited):
            on_logits = cotangent_of_logits(on_log, policy)
            policy = np.exp(log_before)
            on_values = share / beta * on_logits
            adjoint = system.solve_transposed(discount * (on_values.ravel() @ rows))
            flow = on_values + adjoint[:, None] * policy
            by_reward += flow
            if "transition" in at.varying:
                moving = moving + visited_next(tables, np.full((1, tables.states), discount), flow, value[None])
            advantage = action_value - beta * log_before - value[:, None]
            on_log = (1.0 - share) * on_logits + adjoint[:, None] * policy * advantage
        return {"reward_follower": by_reward, "transition": moving}

    return Learnt(policy=played, pullback=pullback)


def _variation(at: TabularAt, learning: Learning) -> float:
    problem, best, start = at.problem, solve_tabular(at), start_logits(at, learning.start)
    beta, share = problem.temperature, learning.step_size
    target = best.action_value - at.constant
    _, first, _ = _values(at, centred_reward(at), start)
    apart = float(np.abs(first - target).max())
    apart += 2.0 * beta * (1.0 - share) * float(np.abs(start - _normalised(target / beta)).max())
    rate = 1.0 - share * (1.0 - problem.discount_follower)
    return 0.5 * float(np.expm1(min(2.0 * apart / beta * rate ** (learning.updates - 1), 700.0)))  # (3)


def _values(
    at: TabularAt, reward: FloatArray, log_policy: FloatArray
) -> tuple[FloatArray, FloatArray, DiscountedSystem]:
    """Return V, Q of (2) and the system."""
    problem, kernel, policy = at.problem, at.tables.transition, np.exp(log_policy)
    system = DiscountedSystem.factorise(policy_transition(kernel, policy), problem.discount_follower)
    value = system.solve((policy * (reward - problem.temperature * log_policy)).sum(axis=1))
    return value, reward + problem.discount_follower * expected_next(kernel, value), system  # (2)


def _normalised(logits: FloatArray) -> FloatArray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    found: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found


register_map(
    FollowerMap(
        name="natural_policy_gradient",
        summary="natural policy gradient with entropy and exact values",
        source="Cen et al. (2022), arXiv:2007.06558, Algorithm 1 and Theorem 1, with η as their η τ/(1 - γ)",
        learn=natural_policy_gradient,
        variation=_variation,
    )
)
