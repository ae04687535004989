"""Total derivatives through the follower's logits from samples: LOLA and its k steps, damped and Nyström inverses.

The response is `pᵀ (β B)^{-1} ∂²_φθF`, B the Fisher information of the solved follower's logits, and with any
y in place of `(β B)^{-1} p`, from a model, a stream says of it

    Σ_t γ_F^t (y(s_t, a_t) - ȳ(s_t)) Σ_{j≥t} γ_F^{j-t} (∇r_F + γ_F V_F(s_{j+1}) ∇log P),                          (1)

the suffix standing for ∇Q_F as in BC-HG, whose impulse γ_L^t B/β (1) replaces. With the exact inverse both have one
mean; with k policy-gradient steps (LOLA: k = 1), a damped inverse or few columns, (1) is off by what the inverse is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from bilevelrl.estimators.estimator import Context, Contribution, EstimatorEntry
from bilevelrl.estimators.rivals.own_law import WithResponse
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.sums.traces import discount_powers, forward_trace
from bilevelrl.estimators.terms.along_trajectories import exact_critic_kind
from bilevelrl.estimators.terms.answers import Reading, follower_terms
from bilevelrl.reference.approximations import INVERSES, solved_scores
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked
from bilevelrl.reference.nudged import kernel_layout

__all__ = ["LogitSteps"]


@checked
@dataclass(frozen=True, kw_only=True)
class LogitSteps(WithResponse):
    """BC-HG's suffix behind an approximate inverse of the follower's Hessian: biased by what the inverse is off.

    Parameters
    ----------
    inverse, knob
        "steps": k policy-gradient steps of the follower, LOLA is k = 1. "damped": λ over the largest entry.
        "columns": r of a Nyström inverse.
    target, critic, scores
        As in `AlongTrajectories`, for the leader's own terms; one row per stream, no geometric times.

    Raises
    ------
    UnknownNameError, InvalidInputError
        If the knob is none, or as `AlongTrajectories`.

    Examples
    --------
    >>> from bilevelrl.estimators import BCHG, Context
    >>> from bilevelrl.reference import solve_follower
    >>> from bilevelrl.tasks import layered_mdp
    >>> problem, theta = layered_mdp(seed=0), np.zeros(3)
    >>> context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    >>> whole = BCHG().expectation(context, horizon=3)["response"]
    >>> lola, many = (LogitSteps(knob=k).expectation(context, horizon=3)["response"] for k in (1, 10_000))
    >>> bool(np.allclose(lola, whole, rtol=1e-2)), bool(np.allclose(many, whole, rtol=1e-10))
    (False, True)
    """

    inverse: Literal["steps", "damped", "columns"] = "steps"
    knob: float = 1.0
    name: str = field(default="through logits")

    def __post_init__(self) -> None:
        super().__post_init__()
        INVERSES[self.inverse](self.knob)

    def _scores(self, context: Context) -> FloatArray:
        return solved_scores(context.problem.at(context.theta), self.target, INVERSES[self.inverse](self.knob))

    def _added_terms(self, trajectories: Trajectories, context: Context, reading: Reading) -> Sequence[Contribution]:
        discount = context.problem.discount_follower
        state = np.where(trajectories.valid, trajectories.state_t, 0)
        met = self._scores(context)[state, np.where(trajectories.valid, trajectories.action_t, 0)]
        trace = forward_trace(trajectories, discount_powers(trajectories, discount) * met, discount)
        _, steps = follower_terms(context, trajectories, centred=self.scores == "td_error" or None)
        weights = {term: trace * unit for term, unit in steps.items()}  # (1)
        return [Contribution(part="response", batch=trajectories, weights=weights)]

    def _expected_response(self, context: Context, horizon: int) -> FloatArray:
        """Return it by the law of the state over time."""
        at, policy = context.problem.at(context.theta), context.follower.policy
        discount = context.problem.discount_follower
        scores, rows = self._scores(context), at.kernel.reshape(-1, len(policy))
        law, carried, total = np.asarray(at.tables.initial), np.zeros(len(policy)), np.zeros(policy.shape)
        for t in range(horizon):
            visits = law[:, None] * policy
            trace = discount * carried[:, None] * policy + discount**t * visits * scores
            total += trace
            carried, law = trace.ravel() @ rows, visits.ravel() @ rows
        ahead = discount * total[:, :, None] * context.follower.value_without(at.constant)
        found: FloatArray = at.pullback({"reward_follower": total, "transition": kernel_layout(at, ahead)})
        return found


CONFIGURATIONS = (
    EstimatorEntry(
        name="lola",
        summary="LOLA: through one policy-gradient step of the follower's logits, k = 1",
        level="formula",
        make=lambda target: LogitSteps(target=target, critic=exact_critic_kind(target)),
    ),
)
