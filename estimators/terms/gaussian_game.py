"""Answers of LQR games, whose follower sees the leader's action."""

from __future__ import annotations

from bilevelrl.estimators.critics.gaussian_game import LQRGameCritic
from bilevelrl.estimators.critics.joint_tables import Operator
from bilevelrl.estimators.estimator import Context, LeaderCritic
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.terms.joint_actions import ALLOWED, WEIGHED, check_horizon, leader_terms, read
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.problem import Objective, Term

__all__ = ["ALLOWED", "WEIGHED", "exact_critic", "follower_terms", "leader_terms", "read"]


def exact_critic(context: Context, objective: Objective, *, target: Objective, operator: Operator) -> LeaderCritic:
    """Return Q_L under both players' policies."""
    check_horizon(objective, target)
    return LQRGameCritic.solve(context, objective)


def follower_terms(
    context: Context, batch: Trajectories, *, centred: bool | None = None
) -> tuple[int, dict[Term, FloatArray | float]]:
    """Return the score of the leader's action times V_F(x, l), less its mean over l where `centred`."""
    worth = context.follower.value_at(batch.state_t, batch.leader_action_t)
    if centred is None or centred:
        worth = worth - context.follower.value_at(batch.state_t)
    return int(context.problem.follower_sees_leader_action), {"log_policy_leader": worth}
