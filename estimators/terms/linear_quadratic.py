"""How estimators along trajectories read configurable LQRs: samples, critic, follower's values, expectations."""

from __future__ import annotations

from typing import Any

import numpy as np

from bilevelrl.estimators.critics.quadratic import QuadraticCritic
from bilevelrl.estimators.estimator import Context
from bilevelrl.estimators.expectations.linear_quadratic import lqr_expected_parts
from bilevelrl.estimators.sampling.kinds import ProblemKind, register_kind
from bilevelrl.estimators.sampling.linear_quadratic import LQRSimulator
from bilevelrl.reference import ConfigurableLQR, LQRGame
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import UnsupportedError
from bilevelrl.reference.problem import TransitionBatch

__all__ = ["follower_td_baseline", "follower_value_tp1"]


def follower_value_tp1(context: Context, visits: TransitionBatch) -> FloatArray:
    """Return V_F(state_tp1), (streams, steps)."""
    result: FloatArray = context.follower.value_at(visits.state_tp1)
    return result


def follower_td_baseline(context: Context, visits: TransitionBatch) -> FloatArray:
    """Return γ_F E[V_F(state_tp1) | state_t, action_t], (streams, steps)."""
    matrices: Any = context.problem.matrices_at(context.theta)
    mean = visits.state_t @ matrices.dynamics_state.T + visits.action_t @ matrices.dynamics_action.T
    noise = float(np.vdot(context.follower.cost_to_go, matrices.noise_covariance))
    result: FloatArray = context.problem.discount_follower * (context.follower.value_at(mean) - noise)
    return result


register_kind(
    ConfigurableLQR,
    ProblemKind(
        simulator=LQRSimulator,
        exact_critic=QuadraticCritic.solve,
        follower_value_tp1=follower_value_tp1,
        follower_td_baseline=follower_td_baseline,
        expected_parts=lqr_expected_parts,
    ),
)


def _only_for_configurable(*arguments: Any, **options: Any) -> Any:
    raise UnsupportedError("an LQRGame has game estimators of its own; expected BCHGGame or PolicyGradient")


register_kind(
    LQRGame,
    ProblemKind(
        simulator=LQRSimulator,
        exact_critic=_only_for_configurable,
        follower_value_tp1=_only_for_configurable,
        follower_td_baseline=_only_for_configurable,
        expected_parts=_only_for_configurable,
    ),
)
