"""Stackelberg PPO's log-derivative form from samples: scores of θ times scores and advantages of the follower.

With the Fisher information for the follower's Hessian, y = (β B)^{-1} p from a model, a stream says of the response

    Σ_t γ_F^t (∇log μ + Σ_{j<t} ∇log P_j) (y(s_t, a_t) - ȳ(s_t)) A(s_t, a_t),                                    (1)

A the follower's advantages of its own policy. At the best response they are zero, and (1) with them: what is left is
the partial gradient, whatever the response. It needs a follower that has not arrived, and is then another follower's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bilevelrl.estimators.estimator import Context, Contribution, EstimatorEntry
from bilevelrl.estimators.rivals.own_law import WithResponse
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.sums.traces import backward_sum, discount_powers
from bilevelrl.estimators.terms.along_trajectories import exact_critic_kind
from bilevelrl.estimators.terms.answers import Reading
from bilevelrl.reference.approximations import follower_at, weighed_advantages
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked
from bilevelrl.reference.nudged import kernel_layout

__all__ = ["LogDerivative"]


@checked
@dataclass(frozen=True, kw_only=True)
class LogDerivative(WithResponse):
    """The partial gradient and the log-derivative form of the response, at whatever follower plays.

    Parameters
    ----------
    target, critic, scores
        As in `AlongTrajectories`, for the leader's own terms; one row per stream, no geometric times.

    Raises
    ------
    UnknownNameError, InvalidInputError
        As `AlongTrajectories`.

    Examples
    --------
    >>> from bilevelrl.estimators import Context
    >>> from bilevelrl.reference import solve_follower
    >>> from bilevelrl.tasks import layered_mdp
    >>> problem, theta = layered_mdp(seed=0), np.zeros(3)
    >>> context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    >>> bool(np.abs(LogDerivative().expectation(context, horizon=3)["response"]).max() < 1e-12)
    True
    """

    name: str = field(default="log-derivative form")

    def _weighed(self, context: Context) -> FloatArray:
        at = context.problem.at(context.theta)
        return weighed_advantages(at, self.target, follower_at(at, context.follower.policy))

    def _added_terms(self, trajectories: Trajectories, context: Context, reading: Reading) -> Sequence[Contribution]:
        discount, valid = context.problem.discount_follower, trajectories.valid
        state, action = (np.where(valid, each, 0) for each in (trajectories.state_t, trajectories.action_t))
        ahead = backward_sum(trajectories, self._weighed(context)[state, action], discount)
        later = np.where(valid, np.append(ahead[:, 1:], np.zeros((trajectories.streams, 1)), axis=1), 0.0)
        first = np.where(trajectories.episode_starts, ahead, 0.0)
        moved = discount * discount_powers(trajectories, discount) * later
        return [
            Contribution(part="response", batch=trajectories, weights={"log_initial": first, "log_transition": moved})
        ]  # (1)

    def _expected_response(self, context: Context, horizon: int) -> FloatArray:
        """Return it by what is ahead of each step."""
        at, policy = context.problem.at(context.theta), context.follower.policy
        discount = context.problem.discount_follower
        weighed, rows = self._weighed(context), at.kernel.reshape(-1, len(policy))
        ahead = [np.zeros(len(policy))]
        for _ in range(horizon):
            ahead.append(np.vecdot(policy, weighed + discount * (rows @ ahead[-1]).reshape(policy.shape)))
        law, moving = np.asarray(at.tables.initial), np.zeros(at.kernel.shape)
        for t in range(horizon):
            visits = law[:, None] * policy
            moving += discount * visits[:, :, None] * ahead[horizon - 1 - t]
            law = discount * (visits.ravel() @ rows)
        found: FloatArray = at.pullback({"initial": ahead[horizon], "transition": kernel_layout(at, moving)})
        return found


CONFIGURATIONS = (
    EstimatorEntry(
        name="log_derivative",
        summary="Stackelberg PPO's form, scores times advantages: the partial gradient at a solved follower",
        level="formula",
        make=lambda target: LogDerivative(target=target, critic=exact_critic_kind(target)),
    ),
)
