"""Answers of Markov games; those of LQR games share the leader's term and the reading.

If the follower sees the leader's action, only later leader actions can change what it does now, and each is worth V_F
to it: the inner sum of the guiding term is Σ_{k>t} γ_F^{k-t} ∇log f(l_k|s_k) [V_F(s_k, l_k) - Σ_l f V_F(s_k, l)]. If it
does not, it averages over the leader's present action too, and each is worth Q_F to it: the sum starts at k = t with
[Q_F(s_k, l_k, a_k) - Σ_l f Q_F(s_k, l, a_k)]. Both brackets subtract a function that does not depend on l_k, which
changes the variance and not the mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bilevelrl.estimators.critics.joint_tables import Baseline, GameCritic, JointCritic, JointReading, Operator
from bilevelrl.estimators.estimator import Context, LeaderCritic
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import EstimatorError, InvalidInputError, refusal
from bilevelrl.reference.problem import Objective, Part, Term

__all__ = ["ALLOWED", "WEIGHED", "exact_critic", "follower_influence", "follower_terms", "leader_terms", "read"]

WEIGHED = True

ALLOWED: dict[str, tuple[Any, ...]] = {
    "critic": ("exact", "exact_truncated", "context"),
    "normalisation": ("streams",),
    "leader_average": ("trajectory",),
    "guiding_average": ("trajectory",),
    "scores": ("value",),
    "largest_score": (None,),
}


def exact_critic(context: Context, objective: Objective, *, target: Objective, operator: Operator) -> LeaderCritic:
    """Return Q_L under both players' policies, or the fixed point of another operator."""
    check_horizon(objective, target)
    return GameCritic.solve(context.problem, context.theta, context.follower, operator=operator, target=objective)


def check_horizon(objective: Objective, target: Objective) -> None:
    """Refuse values of an infinite horizon for a target with another.

    Raises
    ------
    InvalidInputError
        Naming the critic to ask for.
    """
    if objective != target:
        remedy = "use critic='exact_truncated', as for configurable problems"
        raise InvalidInputError(refusal("critic", "exact", f"values by steps to go of {target.horizon} steps", remedy))


def read(
    context: Context, critic: Any, trajectories: Trajectories, *, horizon: int | None, baseline: Baseline
) -> JointReading:
    """Return B, and Q_L less a baseline.

    Raises
    ------
    EstimatorError
        If the critic is no game's, or the trajectories hold no leader actions.
    """
    if not isinstance(critic, (GameCritic, JointCritic)):  # the class first: protocols are slow to ask
        raise EstimatorError(
            refusal("context.critic", type(critic).__name__, "a GameCritic", "see GameCritic.solve, learn_game_critic")
        )
    if trajectories.leader_action_t is None:
        raise EstimatorError("leader_action_t=None: expected the leader's actions; sample them anew")
    to_go = None if horizon is None else np.maximum(horizon - trajectories.time_in_episode, 0)
    return JointReading(critic=critic, batch=trajectories, steps_to_go=to_go, baseline=baseline)


def follower_influence(context: Context, *, centred: bool = True) -> FloatArray:
    """Return what a leader action is worth to the follower, (S, L, A): V_F(s, l) if it sees it, else Q_F(s, l, a).

    Parameters
    ----------
    context
        Game, θ and follower.
    centred
        Subtract the mean over the leader's actions.
    """
    follower, policy = context.follower, context.problem.policy_at(context.theta)
    if context.problem.follower_sees_leader_action:
        worth = np.broadcast_to(follower.value[:, :, None], follower.policy.shape)
    else:
        worth = follower.action_value
    if not centred:
        return worth
    result: FloatArray = worth - np.einsum("sl,sla->sa", policy, worth)[:, None]
    return result


def follower_terms(
    context: Context, batch: Trajectories, *, centred: bool | None = None
) -> tuple[int, dict[Term, FloatArray | float]]:
    """Return the score of the leader's action times what the action is worth to the follower."""
    influence = follower_influence(context, centred=centred is None or centred)
    state = np.where(batch.valid, batch.state_t, 0)
    worth = influence[state, batch.leader_action_t, batch.action_t]
    return int(context.problem.follower_sees_leader_action), {"log_policy_leader": worth}


def leader_terms(
    context: Context, batch: Trajectories, reading: JointReading, *, discount: float, centred: bool
) -> Mapping[Part, Mapping[Term, FloatArray | float]]:
    """Return the score of the leader's action times its advantage."""
    return {"policy": {"log_policy_leader": reading.advantage_t}}
