"""Answers of configurable LQRs."""

from __future__ import annotations

from typing import Any

import numpy as np

from bilevelrl.estimators.critics.joint_tables import Operator
from bilevelrl.estimators.critics.quadratic import QuadraticCritic
from bilevelrl.estimators.estimator import Context, LeaderCritic
from bilevelrl.estimators.terms import tabular
from bilevelrl.estimators.terms.tabular import leader_terms, read, transition_terms
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.problem import Objective, Term, TransitionBatch

__all__ = ["ALLOWED", "WEIGHED", "exact_critic", "follower_terms", "leader_terms", "read"]

WEIGHED = False

ALLOWED: dict[str, tuple[Any, ...]] = {
    **tabular.ALLOWED,
    "critic": ("exact", "exact_truncated", "monte_carlo", "context"),  # nobody resets a continuous state
    "leader_average": ("trajectory",),  # no state is visited twice
    "guiding_average": ("trajectory",),
}


def exact_critic(context: Context, objective: Objective, *, target: Objective, operator: Operator) -> LeaderCritic:
    """Return Q_L under the follower's policy."""
    return QuadraticCritic.solve(context, horizon=objective.horizon, discounted=objective.discounted)


def follower_terms(
    context: Context, batch: TransitionBatch, *, centred: bool | None = None
) -> tuple[int, dict[Term, FloatArray | float]]:
    """Return ∇r_F + γ_F V_F(x') ∇log P from the same step on; `centred`: less the expectation of the value ahead."""
    return transition_terms(context, batch, _mean_ahead if centred else None)


def _mean_ahead(context: Context, batch: TransitionBatch) -> FloatArray:
    """Return γ_F E[V_F(state_tp1) | state_t, action_t]."""
    matrices: Any = context.problem.matrices_at(context.theta)
    mean = batch.state_t @ matrices.dynamics_state.T + batch.action_t @ matrices.dynamics_action.T
    noise = float(np.vdot(context.follower.cost_to_go, matrices.noise_covariance))
    result: FloatArray = context.problem.discount_follower * (context.follower.value_at(mean) - noise)
    return result
