"""Imitation: a softmax policy that climbs the likelihood of the best response's actions, observed without end.

    z_{j+1} = z_j + α (π* - π_j),     π_j = softmax(z_j),                                                         (1)

with a step of its own in every state, whatever the state's share of the visits. The likelihood is concave and its
gradient has the Lipschitz constant 1/2, so that for α ≤ 1

    KL(π*(·|s) ‖ π_k(·|s)) ≤ Σ_a (z_0 - z*)² / (2 α k),     z* = log π* with the mean of z_0.                     (2)

It follows θ through the best response that it watches, whose derivative is that of the exact routes: with p the
cotangent of π*, `q = (p π* - π* Σ p π*)/β` is that of Q_F.                                                      (3)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bilevelrl.reference.approximations.follower_maps.follower_map import (
    FollowerMap,
    Learning,
    Learnt,
    cotangent_of_logits,
    register_map,
    soft_tables,
    start_logits,
)
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.tabular.follower import solve_tabular
from bilevelrl.reference.tabular.leader import visited_next
from bilevelrl.reference.tabular.linearise import follower_adjoint, follower_system
from bilevelrl.reference.tabular.model import TabularAt

__all__ = ["imitation"]


def imitation(at: TabularAt, learning: Learning) -> Learnt:
    """Return π_k of (1) and its pullback."""
    best, logits = solve_tabular(at), start_logits(at, learning.start)
    share, policies = learning.step_size, [soft_tables(logits, 1.0)[1]]
    for _ in range(learning.updates):
        logits = logits + share * (best.policy - policies[-1])  # (1)
        policies.append(soft_tables(logits, 1.0)[1])

    def pullback(weight: FloatArray) -> Mapping[str, FloatArray]:
        on_logits, watched = cotangent_of_logits(weight, policies[-1]), np.zeros(weight.shape)
        for policy in reversed(policies[:-1]):
            watched += share * on_logits
            on_logits = on_logits - share * cotangent_of_logits(policy * on_logits, policy)
        cotangent = cotangent_of_logits(watched * best.policy, best.policy) / at.problem.temperature  # (3)
        flow = follower_adjoint(at.tables, best.policy, cotangent, follower_system(at, best.policy))
        discount = np.full((1, at.tables.states), at.problem.discount_follower)
        values = best.value_without(at.constant)[None]
        return {"reward_follower": flow, "transition": visited_next(at.tables, discount, flow, values)}

    return Learnt(policy=policies[-1], pullback=pullback)


def _variation(at: TabularAt, learning: Learning) -> float:
    start = start_logits(at, learning.start)
    policy = solve_tabular(at).policy
    target = np.log(policy, out=np.full(policy.shape, -np.inf), where=policy > 0.0)
    apart = (target - target.mean(axis=1, keepdims=True)) - (start - start.mean(axis=1, keepdims=True))
    divergence = float((apart**2).sum(axis=1).max()) / (2.0 * learning.step_size * learning.updates)  # (2)
    return float(np.sqrt(0.5 * divergence))


register_map(
    FollowerMap(
        name="imitation",
        summary="a softmax policy that climbs the likelihood of the best response's actions",
        source="behavioural cloning, in expectation",
        learn=imitation,
        variation=_variation,
    )
)
