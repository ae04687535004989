"""HPGD on configurable LQRs: BC-HG's guiding term less a learnt ∇V_F at every visited state.

    (1/β) Σ_t γ_L^t F_t [ Σ_{k≥t} γ_F^{k-t} ( ∇r_F + γ_F V_F(x_{k+1}) ∇log P ) - b(x_t) ],     b ≈ ∇V_F.

With F the leader's benefit, which has mean zero over the policy, any b leaves the expectation alone: it is that of
BC-HG. With F the raw Q_L, as published, the expectation is off by `E Σ γ_L^t V_L(x_t) (∇V_F - b)(x_t) / β`, ∇V_F being
what is still observed of it; with F the raw return of the same suffix, samples are used twice, on top of that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from bilevelrl.estimators.critics.quadratic_gradients import QuadraticGradientCritic
from bilevelrl.estimators.critics.tables import CriticReading, leader_discount
from bilevelrl.estimators.estimator import Claim, Context, Contribution, EstimatorEntry, FollowerGradientCritic
from bilevelrl.estimators.expectations.linear_quadratic import uncentred_bias
from bilevelrl.estimators.methods.bchg import BCHG
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.sums.traces import backward_sum
from bilevelrl.reference import ConfigurableLQR
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError, UnsupportedError
from bilevelrl.reference.problem import Part

__all__ = ["LQRHPGD", "GuidingFactor", "gradient_critic"]

GuidingFactor: TypeAlias = Literal["benefit", "action_value", "return"]
"""What multiplies the centred gradient: B, the raw Q_L, or the raw discounted return from the step on."""


def gradient_critic(name: str, context: Context) -> FollowerGradientCritic:
    """Return the context's critic of ∇V_F, or the exact one.

    Raises
    ------
    UnsupportedError
        If the problem is not a configurable LQR.
    """
    if not isinstance(context.problem, ConfigurableLQR):
        raise UnsupportedError(f"{name}: expected a ConfigurableLQR; for tables use HPGD")
    if context.follower_gradient is None:
        return QuadraticGradientCritic.solve(context)
    critic: FollowerGradientCritic = context.follower_gradient
    return critic


@checked
@dataclass(frozen=True, kw_only=True)
class LQRHPGD(BCHG):
    """HPGD with a function approximator of ∇V_F (arXiv:2603.14867, equation (7), and its HPGD (MC) and HPGD (TD)).

    `context.follower_gradient` supplies b; without it the exact ∇V_F is used.

    Parameters
    ----------
    target, critic, stopping, normalisation, scores, largest_score, score_blocks
        As in `LeaderSide`; geometric stopping is not offered.
    factor
        "benefit"; "action_value" and "return" as published.

    Raises
    ------
    UnknownNameError, InvalidInputError
        As `BCHG`, or if the factor is not known.

    Examples
    --------
    >>> from bilevelrl.reference import solve_follower
    >>> from bilevelrl.tasks import random_lqr
    >>> problem, theta = random_lqr(seed=0), np.zeros(3)
    >>> context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    >>> batch = LQRHPGD().sample(
    ...     problem, theta, context.follower, streams=500, steps=40, rng=np.random.default_rng(0))
    >>> centred, plain = (estimator.parts_per_draw(batch, context)["response"].std() for estimator in (
    ...     LQRHPGD(scores="td_error"), BCHG(scores="td_error")))
    >>> bool(centred < plain)
    True
    """

    factor: GuidingFactor = "benefit"
    name: str = field(default="HPGD (LQR)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.factor not in ("benefit", "action_value", "return"):
            raise UnknownNameError("factor", self.factor, ("benefit", "action_value", "return"))
        if self.stopping is not None:
            raise InvalidInputError(f"stopping={self.stopping!r}: expected None; a baseline of a whole suffix is taken")
        if self.factor == "return":
            object.__setattr__(self, "claim", Claim.MEASURED)
        elif self.factor == "action_value" and self.claim is Claim.UNBIASED:
            object.__setattr__(self, "claim", Claim.DECLARED)

    @checked
    def contributions(self, trajectories: Trajectories, context: Context) -> Sequence[Contribution]:
        """Return the weights of BC-HG with another factor, and what the baseline takes away."""
        critic = gradient_critic(self.name, context)
        reading = self.read(trajectories, context)
        factor = self._factor(trajectories, context, reading)
        weight = self.scale(trajectories) * self.leader_weight(trajectories, context)
        weight = np.where(trajectories.valid, weight * factor, 0.0) / context.problem.temperature
        taken = np.einsum("mt,mtn->mn", weight, critic.value(trajectories.state_t))
        return [
            *self.partial_gradient(trajectories, context, reading),
            self._guiding_term(trajectories, context, factor),
            Contribution(part="response", batch=trajectories, weights={}, rows=-taken),
        ]

    def _factor(self, trajectories: Trajectories, context: Context, reading: CriticReading) -> FloatArray:
        if self.factor == "benefit":
            return reading.benefit_t
        if self.factor == "action_value":
            return reading.benefit_t + reading.value_t
        discount = leader_discount(context.problem, self.target)
        paid = trajectories.reward_leader_t
        if self.target.horizon is not None:
            paid = np.where(trajectories.time_in_episode < self.target.horizon, paid, 0.0)
        return backward_sum(trajectories, paid, discount)

    @checked
    def expectation(self, context: Context, *, horizon: int) -> Mapping[Part, FloatArray]:
        """Return the exact expectation for streams of `horizon` steps.

        Raises
        ------
        EstimatorError
            For returns of the same suffix, averages inside a batch, and shortened scores.
        UnsupportedError
            If a raw Q_L meets a critic of ∇V_F that is not quadratic.
        """
        parts = dict(super().expectation(context, horizon=horizon))
        if self.factor == "action_value":
            parts["response"] = parts["response"] + uncentred_bias(
                self, context, gradient_critic(self.name, context), horizon
            )
        return parts


def _configuration(factor: GuidingFactor, what: str) -> EstimatorEntry:
    return EstimatorEntry(
        name=f"lqr_hpgd_{factor}",
        summary=f"HPGD with the exact gradient of the follower's values, times {what}",
        level="formula",
        kinds=(ConfigurableLQR,),
        make=lambda target: LQRHPGD(
            target=target, critic="exact" if target.horizon is None else "exact_truncated", factor=factor
        ),
    )


CONFIGURATIONS = (
    _configuration("benefit", "the benefit"),
    _configuration("action_value", "the raw action value, as published in HPGD (TD)"),
    _configuration("return", "the raw return of the same suffix, as published in HPGD (MC)"),
)
