"""What the plain formula of samples reads of a configurable MDP at θ."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.verification.checks.identity import Identity
from bilevelrl.verification.mutants.exact import DenseTables, dense_tables, follower_fixed_point, follower_gradients

__all__ = ["SampleModel", "leader_gradients", "ratio", "sample_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleModel:
    """What the formula reads of a problem: tables, scores with a column for termination, ∇V_F and ∇Q_F."""

    tables: DenseTables
    score: FloatArray
    score_initial: FloatArray
    d_value: FloatArray
    d_leader_value: dict[str, FloatArray]


@lru_cache(maxsize=256)
def sample_model(key: Identity, flat: bytes, mixing: float) -> SampleModel:
    """Return the model at θ, of a problem that is held by identity."""
    problem: Any = key.objects[0]
    theta = np.frombuffer(flat)
    tables = dense_tables(problem, theta)
    kernel, slope = tables.transition, tables.d_transition
    if mixing:
        kernel = (1.0 - mixing) * kernel + mixing * kernel.mean(axis=1, keepdims=True)
        slope = (1.0 - mixing) * slope + mixing * slope.mean(axis=1, keepdims=True)
    kernel = np.concatenate([kernel, 1.0 - kernel.sum(axis=2, keepdims=True)], axis=2)
    slope = np.concatenate([slope, -slope.sum(axis=2, keepdims=True)], axis=2)
    value, policy = follower_fixed_point(tables, problem.discount_follower, problem.temperature)
    d_value, d_action_value = follower_gradients(tables, value, policy, problem.discount_follower)
    return SampleModel(
        tables=tables,
        score=ratio(slope, kernel),
        score_initial=ratio(tables.d_initial, tables.initial),
        d_value=d_value,
        d_leader_value=leader_gradients(problem, tables, policy, d_action_value),
    )


def leader_gradients(
    problem: Any, tables: DenseTables, policy: FloatArray, d_action_value: FloatArray
) -> dict[str, FloatArray]:
    """{part: (S + 1, N)}: the parts of ∇V_L from each state, 0 after the end."""
    discount = problem.discount_leader
    chain = np.einsum("sa,sap->sp", policy, tables.transition)
    system = np.eye(policy.shape[0]) - discount * chain
    value = np.linalg.solve(system, (policy * tables.reward_leader).sum(axis=1))
    benefit = tables.reward_leader + discount * tables.transition @ value - value[:, None]
    impulses = {
        "direct": tables.d_reward_leader,
        "transition": discount * np.einsum("sapn,p->san", tables.d_transition, value),
        "response": benefit[..., None] * d_action_value / problem.temperature,
    }
    return {
        part: np.pad(np.linalg.solve(system, np.einsum("sa,san->sn", policy, impulse)), ((0, 1), (0, 0)))
        for part, impulse in impulses.items()
    }


def ratio(slope: FloatArray, law: FloatArray) -> FloatArray:
    """∇p/p on the support, 0 elsewhere; a rounded zero is not support."""
    support = law > 1e-14
    result: FloatArray = np.where(support[..., None], slope, 0.0) / np.where(support, law, 1.0)[..., None]
    return result
