"""Answers of configurable MDPs; those of configurable LQRs share the leader's terms and the reading."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import numpy as np

from bilevelrl.estimators.critics.joint_tables import Baseline, Operator
from bilevelrl.estimators.critics.tables import CriticReading, ExactCritic, read_critic
from bilevelrl.estimators.estimator import Context, LeaderCritic
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.problem import Objective, Part, Term, TransitionBatch

__all__ = ["ALLOWED", "WEIGHED", "Scores", "exact_critic", "follower_terms", "leader_terms", "read"]

Scores: TypeAlias = Literal["value", "td_error"]
"""What scores of transitions are weighted with: values ahead, or temporal-difference errors (a baseline)."""

WEIGHED = False

ALLOWED: dict[str, tuple[Any, ...]] = {
    "baseline": ("state_value",),
    "behaviour_theta": (None,),
    "influence_baseline": (None,),
    "same_step": (False,),
}


def exact_critic(context: Context, objective: Objective, *, target: Objective, operator: Operator) -> LeaderCritic:
    """Return Q_L under the follower's policy."""
    horizon, discounted = objective.horizon, objective.discounted
    problem, theta, policy = context.problem, context.theta, context.follower.policy
    return ExactCritic.solve(problem, theta, policy, horizon=horizon, discounted=discounted)


def read(
    context: Context, critic: LeaderCritic, trajectories: Trajectories, *, horizon: int | None, baseline: Baseline
) -> CriticReading:
    """Return V_L, and Q_L - V_L."""
    return read_critic(critic, trajectories, horizon=horizon)


def follower_terms(
    context: Context, batch: TransitionBatch, *, centred: bool | None = None
) -> tuple[int, dict[Term, FloatArray | float]]:
    """Return ∇r_F + γ_F V_F(s') ∇log P from the same step on; `centred`: less the expectation of the value ahead."""
    return transition_terms(context, batch, _mean_ahead if centred else None)


def transition_terms(
    context: Context, batch: TransitionBatch, mean_ahead: Callable[[Context, TransitionBatch], FloatArray] | None
) -> tuple[int, dict[Term, FloatArray | float]]:
    """Answer `follower_terms` where the follower's kernel depends on θ, given the expectation to be subtracted."""
    ahead = context.problem.discount_follower * context.follower.value_at(batch.state_tp1)
    if mean_ahead is not None:
        ahead = ahead - mean_ahead(context, batch)
    return 0, {"reward_follower": 1.0, "log_transition": ahead}


def _mean_ahead(context: Context, batch: TransitionBatch) -> FloatArray:
    """Return Q_F - r_F, the expectation of γ_F V_F(state_tp1) where the follower has converged."""
    ahead = context.follower.action_value - context.problem.tables_at(context.theta).reward_follower
    result: FloatArray = np.asarray(ahead)[batch.state_t, batch.action_t]
    return result


def leader_terms(
    context: Context, batch: TransitionBatch, reading: CriticReading, *, discount: float, centred: bool
) -> Mapping[Part, Mapping[Term, FloatArray | float]]:
    """Return V_L ∇log μ at starts and ∇r_L + γ_L V_L(s') ∇log P; `centred`: less the expectation of the value ahead."""
    ahead = discount * reading.value_tp1
    if centred:
        ahead = ahead - reading.ahead_t
    return {
        "initial": {"log_initial": reading.value_t},
        "direct": {"reward_leader": 1.0},
        "transition": {"log_transition": ahead},
    }
