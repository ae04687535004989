"""Soft Q-learning in expectation: every pair moves a share α of the way to its backup.

    Q_{j+1} = (1 - α) Q_j + α (r_F + γ_F P V_j),     V_j = β log Σ exp(Q_j/β),     π_k = exp((Q_k - V_k)/β),       (1)

which contracts to Q* at the rate ρ = 1 - α (1 - γ_F) in the largest norm, so that
`|log π_k - log π*| ≤ 2 ρ^k max|Q_0 - Q*| / β`.                                                                  (2)

A learner that draws one pair out of S·A uniformly, and one successor, moves in expectation as (1) does with α/(S·A):
its tables after n samples tend to (1) as its own step size falls, n of it times S·A being k times α. α = 1 from a
constant table are the sweeps of `hypergradient_through_sweeps`.
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
    soft_tables,
    started_at,
)
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.tabular.follower import solve_tabular
from bilevelrl.reference.tabular.leader import visited_next
from bilevelrl.reference.tabular.model import TabularAt
from bilevelrl.reference.tabular.transitions import expected_next

__all__ = ["soft_q_learning"]


def soft_q_learning(at: TabularAt, learning: Learning) -> Learnt:
    """Return π_k of (1) and its pullback."""
    tables, beta, discount, share = at.tables, at.problem.temperature, at.problem.discount_follower, learning.step_size
    reward, table = centred_reward(at), _start(at, learning)
    values, policies = [], []
    for _ in range(learning.updates):
        value, policy = soft_tables(table, beta)
        values.append(value)
        policies.append(policy)
        table = (1.0 - share) * table + share * (reward + discount * expected_next(tables.transition, value))  # (1)
    _, played = soft_tables(table, beta)

    def pullback(weight: FloatArray) -> Mapping[str, FloatArray]:
        cotangent = cotangent_of_logits(weight, played) / beta  # of Q_k
        by_reward, moving = np.zeros(reward.shape), np.zeros(())
        rows, ones = at.kernel.reshape(-1, tables.states), np.full((1, tables.states), discount)
        for value, policy in zip(reversed(values), reversed(policies), strict=True):
            target = share * cotangent
            by_reward += target
            if "transition" in at.varying:
                moving = moving + visited_next(tables, ones, target, value[None])
            ahead = discount * (target.ravel() @ rows)
            cotangent = (1.0 - share) * cotangent + ahead[:, None] * policy
        return {"reward_follower": by_reward, "transition": moving}

    return Learnt(policy=played, pullback=pullback)


def _variation(at: TabularAt, learning: Learning) -> float:
    problem, best = at.problem, solve_tabular(at)
    apart = float(np.abs(_start(at, learning) - (best.action_value - at.constant)).max())
    rate = 1.0 - learning.step_size * (1.0 - problem.discount_follower)
    return 0.5 * float(np.expm1(min(2.0 * rate**learning.updates * apart / problem.temperature, 700.0)))  # (2)


def _start(at: TabularAt, learning: Learning) -> FloatArray:
    if learning.start is None:
        return np.zeros((at.tables.states, at.tables.actions))
    return started_at(at, learning.start, "action_value") - at.constant


register_map(
    FollowerMap(
        name="soft_q_learning",
        summary="expected soft Q-learning: every pair moves a share of the way to its backup",
        source="Haarnoja et al. (2017), arXiv:1702.08165, tabular and in expectation",
        learn=soft_q_learning,
        variation=_variation,
    )
)
