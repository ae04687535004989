"""HPGD: the guiding term from the centred gradient of the follower's values, (1/β) E Σ_t γ_L^t B (∇Q_F - ∇V_F).

Both gradients are needed at the same state. Five ways to get them:

- "oracle": a fresh trajectory from (s_t, a_t) and another from s_t, for every visit. Given the path, what is fresh is
  independent of it, so with an exact benefit, or a return that the suffixes share nothing with, and with suffixes that
  are not cut the estimator has no bias. Since E_π[B] = 0 its expectation is that of BC-HG.
- "oracle_batch": one extra batch from uniformly drawn start states supplies all tables; pairs that it missed count 0.
- "monte_carlo": averages over the visits in the batch itself, of returns for the benefit, of derivatives for the rest.
- "sarsa": as "monte_carlo", with the benefit of a learned table.

These three average over the n visits of a pair, and of a state, inside a batch,

      Ĝ_Q(s,a) = (1/n) Σ_{t: (s_t,a_t) = (s,a)} Σ_{k≥t} γ_F^{k-t} ( ∇r_F + γ_F V_F(s_{k+1}) ∇log P ),                (1)

and Ĝ_V(s) alike, which `estimators/terms/batch_tables` does. They multiply averages of the same samples, or divide by
random counts: their bias is measured, not declared.

- "critic", in configurable LQRs: ∇Q_F from the rest of the trajectory, as BC-HG, less a critic b of ∇V_F,

      (1/β) Σ_t γ_L^t F_t [ Σ_{k≥t} γ_F^{k-t} ( ∇r_F + γ_F V_F(x_{k+1}) ∇log P ) - b(x_t) ],     b ≈ ∇V_F.       (2)

  With F the leader's benefit, which has mean zero over the policy, any b leaves the expectation alone: it is that of
  BC-HG. With F the raw Q_L, as published, it is off by `E Σ γ_L^t V_L(x_t) (∇V_F - b)(x_t) / β`, ∇V_F being what is
  still observed of it; with F the raw return of the same suffix, samples are used twice, on top of that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from bilevelrl.estimators.critics.quadratic_gradients import gradient_critic
from bilevelrl.estimators.critics.sarsa import learnt_from
from bilevelrl.estimators.critics.tables import CriticReading, expected_fresh_steps, monte_carlo_reading, read_critic
from bilevelrl.estimators.estimator import Claim, Context, Contribution, EstimatorEntry, LeaderCritic
from bilevelrl.estimators.expectations.along_trajectories import expected_parts
from bilevelrl.estimators.expectations.impulses import expected_impulses, reaches_target
from bilevelrl.estimators.expectations.linear_quadratic import uncentred_bias
from bilevelrl.estimators.methods.bchg import BCHG
from bilevelrl.estimators.sampling.tabular import TabularSimulator
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.sums.traces import backward_sum
from bilevelrl.estimators.terms.along_trajectories import exact_critic_kind
from bilevelrl.estimators.terms.batch_tables import averaged_guiding_term, monte_carlo_benefit
from bilevelrl.estimators.terms.fresh_suffixes import fresh_guiding_term, own_generator
from bilevelrl.estimators.terms.suffix_moments import expected_suffix_steps, gradient_sum_means, gradient_sum_moments
from bilevelrl.reference import ConfigurableLQR, ConfigurableMDP
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import Count, checked
from bilevelrl.reference.errors import EstimatorError, InvalidInputError, UnsupportedError
from bilevelrl.reference.problem import Part

__all__ = ["HPGD", "GuidingFactor", "HPGDVariant"]

HPGDVariant: TypeAlias = Literal["oracle", "oracle_batch", "monte_carlo", "sarsa", "critic"]
"""Where the gradients of the follower's values come from; see the module."""

GuidingFactor: TypeAlias = Literal["benefit", "action_value", "return"]
"""What multiplies the centred gradient: B, the raw Q_L, or the raw discounted return from the step on."""


@checked
@dataclass(frozen=True, kw_only=True)
class HPGD(BCHG):
    """Hyper policy gradient descent (Thoma et al. 2024, arXiv:2406.01575), in the form (7) of arXiv:2603.14867.

    Parameters
    ----------
    target, critic, stopping, normalisation, leader_average, scores, largest_score, score_blocks
        As in `AlongTrajectories`; variants other than "oracle" and "critic" bring their own critic, and "critic" has no
        geometric stopping.
    variant
        "oracle", "oracle_batch", "monte_carlo", "sarsa"; in configurable LQRs "critic", of `context.follower_gradient`
        or the exact one: see the module.
    factor
        Of "critic": "benefit"; "action_value" and "return" as published.
    suffix
        Of the oracle's fresh trajectories. "geometric": undiscounted and stopped at a geometric time, for gradients
        over an infinite horizon without bias. "steps": discounted, over a fixed number of steps.
    suffix_steps
        That number; None: as many as the streams have.
    oracle_batch_steps, oracle_batch_streams
        Steps of the extra batch, shared out among so many streams; None: as many as the batch has, as published.
    delayed
        "sarsa": read `context.critic` as it is. Otherwise a pass over the batch comes first, so that benefit and
        gradients share samples; the caller still updates its own table afterwards. A critic that is not a `SarsaCritic`
        is copied into a table for that pass, which then goes forward in time.

    Raises
    ------
    UnknownNameError, InvalidInputError
        If options are unknown or contradict each other.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevelrl.estimators import BCHG, HPGD, Context, Objective
    >>> from bilevelrl.reference import hypergradient, solve_follower
    >>> from bilevelrl.tasks import random_mdp
    >>> problem, theta = random_mdp(seed=0), np.zeros(3)
    >>> context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    >>> estimator = HPGD(target=Objective(horizon=5), critic="exact_truncated")
    >>> expected = sum(estimator.expectation(context, horizon=5).values())
    >>> bool(np.allclose(expected, hypergradient(problem, theta, horizon=5).value, rtol=1e-12))
    True
    >>> from bilevelrl.tasks import random_lqr
    >>> problem = random_lqr(seed=0)
    >>> context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    >>> batch = HPGD().sample(problem, theta, context.follower, streams=500, steps=40, rng=np.random.default_rng(0))
    >>> centred, plain = (estimator.parts_per_draw(batch, context)["response"].std() for estimator in (
    ...     HPGD(variant="critic", scores="td_error"), BCHG(scores="td_error")))
    >>> bool(centred < plain)
    True
    """

    kinds: ClassVar[tuple[type, ...]] = (ConfigurableMDP, ConfigurableLQR)
    variant: HPGDVariant = "oracle"
    factor: GuidingFactor = "benefit"
    suffix: Literal["geometric", "steps"] = "geometric"
    suffix_steps: Count | None = None
    oracle_batch_steps: Count = 10_000
    oracle_batch_streams: Count | None = None
    delayed: bool = False
    name: str = field(default="HPGD")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.suffix == "geometric" and self.suffix_steps is not None:
            raise InvalidInputError("suffix_steps: expected None with suffix='geometric'; use suffix='steps'")
        if self.variant == "critic":
            self._check_critic_variant()
            return
        if self.factor != "benefit" or self.guiding_average != "trajectory":
            raise InvalidInputError(
                f"factor={self.factor!r}, guiding_average={self.guiding_average!r} with variant={self.variant!r}: "
                "expected the defaults; variants other than 'critic' have their own averages of the benefit"
            )
        if self.variant != "oracle":
            self._check_batch_variant()
        elif self.normalisation == "episodes" or self.leader_average == "start_visits":
            raise InvalidInputError(
                "variant='oracle': expected normalisation='streams' and leader_average='trajectory'; "
                "averages in a batch belong to the other variants"
            )
        self._declare(biased=False, in_batch=self.variant != "oracle")
        if self.claim is not Claim.MEASURED:
            unbiased = self.suffix == "geometric" and reaches_target(self)
            object.__setattr__(self, "claim", Claim.UNBIASED if unbiased else Claim.DECLARED)

    def _check_critic_variant(self) -> None:
        if self.stopping is not None:
            raise InvalidInputError(f"stopping={self.stopping!r}: expected None; a baseline of a whole suffix is taken")
        if self.factor == "return":
            object.__setattr__(self, "claim", Claim.MEASURED)
        elif self.factor == "action_value" and self.claim is Claim.UNBIASED:
            object.__setattr__(self, "claim", Claim.DECLARED)

    def _check_batch_variant(self) -> None:
        if self.critic != "exact" or self.stopping is not None or self.suffix == "steps":
            raise InvalidInputError(
                f"variant={self.variant!r}: brings its own critic and no fresh suffixes; expected the default "
                "critic, stopping=None and suffix='geometric'; use variant='oracle'"
            )
        if self.scores == "td_error" and self.variant != "sarsa":
            raise InvalidInputError(
                f"variant={self.variant!r}: returns come without Q_L as a baseline; expected scores='value'"
            )

    @checked
    def check_problem(self, context: Context) -> None:
        """Refuse a variant that the kind of problem does not have.

        Raises
        ------
        UnsupportedError
            Naming it.
        """
        super().check_problem(context)
        if isinstance(context.problem, ConfigurableLQR) != (self.variant == "critic"):
            raise UnsupportedError(
                f"{self.name}: variant={self.variant!r}: problem of type {type(context.problem).__name__}: expected "
                "a ConfigurableLQR for 'critic', a ConfigurableMDP for the other variants"
            )

    @checked
    def contributions(self, trajectories: Trajectories, context: Context) -> Sequence[Contribution]:
        """Return the weights of the leader's terms and of the guiding term."""
        if self.variant == "critic":
            return self._less_a_critic(trajectories, context)
        trajectories = self.stopped(trajectories, context)
        source = self._extra_batch(trajectories, context) if self.variant == "oracle_batch" else trajectories
        reading = self.read(trajectories, context)
        benefit = reading.benefit_t
        if self.variant in ("monte_carlo", "oracle_batch"):
            benefit = monte_carlo_benefit(trajectories, source, context)
        weight = self.scale(trajectories) * self.leader_weight(trajectories, context)
        factors = weight * benefit / context.problem.temperature
        if self.variant == "oracle":
            rng = own_generator(self.name, context.rng)
            steps = self._suffix_steps(trajectories.steps)
            guiding = fresh_guiding_term(trajectories, factors, context, steps=steps, scores=self.scores, rng=rng)
        else:
            guiding = averaged_guiding_term(trajectories, factors, source, context, self.scores)  # (1)
        return [*self.partial_gradient(trajectories, context, reading), guiding]

    def _less_a_critic(self, trajectories: Trajectories, context: Context) -> Sequence[Contribution]:
        """BC-HG's weights with another factor, and what the baseline takes away."""
        critic, reading = gradient_critic(self.name, context), self.read(trajectories, context)
        factor = self._factor(trajectories, context, reading)
        weight = self.scale(trajectories) * self.leader_weight(trajectories, context)
        weight = np.where(trajectories.valid, weight * factor, 0.0) / context.problem.temperature
        taken = np.einsum("mt,mtn->mn", weight, critic.value(trajectories.state_t))  # (2)
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
        discount = self.target.discount(context.problem.discount_leader)
        paid = trajectories.reward_leader_t
        if self.target.horizon is not None:
            paid = np.where(trajectories.time_in_episode < self.target.horizon, paid, 0.0)
        return backward_sum(trajectories, paid, discount)

    @checked
    def read(self, trajectories: Trajectories, context: Context) -> CriticReading:
        """Return the leader's values along the trajectories; the variants without a critic read returns."""
        if self.variant in ("oracle", "critic"):
            reading = super().read(trajectories, context)
            assert isinstance(reading, CriticReading)  # `check_problem` has seen to it
            return reading
        if self.variant == "sarsa":
            return read_critic(self._table(trajectories, context), trajectories, horizon=self.target.horizon)
        nothing = np.zeros(np.shape(trajectories.reward_leader_t))
        baseline = CriticReading(benefit_t=nothing, value_t=nothing, value_tp1=nothing, ahead_t=nothing)
        discount = self.target.discount(context.problem.discount_leader)
        return monte_carlo_reading(trajectories, baseline, discount=discount, horizon=self.target.horizon)

    def _table(self, trajectories: Trajectories, context: Context) -> LeaderCritic:
        critic = context.critic
        if critic is None:
            raise EstimatorError(
                f"{self.name}: context.critic=None: expected a LeaderCritic; SarsaCritic.start makes one"
            )
        return critic if self.delayed else learnt_from(critic, trajectories, context)

    def _extra_batch(self, trajectories: Trajectories, context: Context) -> Trajectories:
        """Episodes from uniformly drawn states, following each other, with the simulator's step limit."""
        given = context.simulator if context.simulator is not None else TabularSimulator()
        streams, steps = self._extra_shape(trajectories)
        rng = own_generator(self.name, context.rng)
        return replace(given, restart="uniform", single_episode=False).sample(
            context.problem, context.theta, context.follower, streams=streams, steps=steps, rng=[rng]
        )

    def _extra_shape(self, trajectories: Trajectories) -> tuple[int, int]:
        """Streams and steps of the extra batch, of each batch where there are several."""
        streams = trajectories.streams_per_batch if self.oracle_batch_streams is None else self.oracle_batch_streams
        return streams, max(1, self.oracle_batch_steps // streams)

    def _suffix_steps(self, steps: int) -> int | None:
        if self.suffix == "geometric":
            return None
        return steps if self.suffix_steps is None else self.suffix_steps

    @checked
    def conditional_moments(self, trajectories: Trajectories, context: Context) -> tuple[FloatArray, FloatArray]:
        """Return mean (M, N) and covariance (M, N, N) of each row given the path: fresh suffixes integrated out.

        Raises
        ------
        EstimatorError
            For the variants that average in a batch, and where stopping times are still to be drawn.
        """
        self._only_oracle("conditional moments")
        if self.stopping is not None and trajectories.stopping is None:
            raise EstimatorError(f"{self.name}: conditional moments need trajectories with stopping times")
        trajectories = self.stopped(trajectories, context)
        moments = gradient_sum_moments(context, steps=self._suffix_steps(trajectories.steps), scores=self.scores)
        reading, mean_benefit, variance = self.benefit_moments(trajectories, context)
        weight = self.scale(trajectories) * self.leader_weight(trajectories, context) / context.problem.temperature
        mean, covariance = moments.of_guiding_term(trajectories, weight, mean_benefit, variance)
        for item in self.partial_gradient(trajectories, context, reading):
            mean = mean + item.per_stream(context)
        return mean + context.problem.regulariser_gradient(context.theta), covariance

    def _only_oracle(self, what: str) -> None:
        if self.variant != "oracle":
            raise UnsupportedError(
                f"{self.name} (variant={self.variant!r}): {what}: averages inside a batch are ratios; "
                "their bias can only be measured"
            )

    @checked
    def expectation(self, context: Context, *, horizon: int) -> Mapping[Part, FloatArray]:
        """Return the exact expectation of "oracle" and "critic" for streams of `horizon` steps; with stopping, of any.

        Raises
        ------
        UnsupportedError
            For the variants that average in a batch, and a raw Q_L with a critic of ∇V_F that is not quadratic.
        EstimatorError
            For returns of the same suffix, and shortened scores.
        """
        if self.variant == "critic":
            parts = dict(super().expectation(context, horizon=horizon))
            if self.factor == "action_value":
                bias = uncentred_bias(self, context, gradient_critic(self.name, context), horizon)
                parts["response"] = parts["response"] + bias
            return parts
        self._only_oracle("expectation")
        parts = dict(expected_parts(self, context, horizon=horizon, guiding=False))
        pair, state = gradient_sum_means(context, steps=self._suffix_steps(horizon), scores=self.scores)
        impulses = expected_impulses(self, context, horizon=horizon) / context.problem.temperature
        parts["response"] = np.einsum("sa,san->n", impulses, pair - state[:, None])
        return parts

    @checked
    def cost(self, trajectories: Trajectories, context: Context) -> dict[str, int]:
        """Return what an estimate costs; `oracle_steps` is the expected number of steps after resets."""
        cost = super().cost(trajectories, context)
        if self.variant == "oracle_batch":
            streams, steps = self._extra_shape(trajectories)
            cost["oracle_steps"] = streams * steps
        if self.variant == "oracle":
            problem = context.problem
            visits = trajectories.valid & (self.leader_weight(self.stopped(trajectories, context), context) != 0.0)
            steps_each = self._suffix_steps(trajectories.steps)
            pair, state = expected_suffix_steps(context, steps=steps_each, discount=problem.discount_follower)
            expected = (pair + state[:, None])[trajectories.state_t[visits], trajectories.action_t[visits]].sum()
            if self.critic == "independent":
                expected += expected_fresh_steps(trajectories, context, target=self.target, wanted=visits)
            cost["oracle_steps"] = round(float(expected))
        return cost


def _centred_by_the_exact(factor: GuidingFactor, what: str) -> EstimatorEntry:
    return EstimatorEntry(
        name=f"lqr_hpgd_{factor}",
        summary=f"HPGD with the exact gradient of the follower's values, times {what}",
        level="formula",
        kinds=(ConfigurableLQR,),
        make=lambda target: HPGD(target=target, critic=exact_critic_kind(target), variant="critic", factor=factor),
    )


def _in_a_batch(name: str, summary: str, *, title: str, **options: Any) -> EstimatorEntry:
    options.update(normalisation="episodes", leader_average="start_visits", name=title)
    return EstimatorEntry(
        name=name, summary=summary, level="practical", make=lambda target: HPGD(target=target, **options)
    )


CONFIGURATIONS = (
    EstimatorEntry(
        name="hpgd_oracle",
        summary="HPGD, fresh trajectories from every visited pair and state, exact benefit",
        level="formula",
        make=lambda target: HPGD(target=target, critic=exact_critic_kind(target), name="HPGD (oracle)"),
    ),
    EstimatorEntry(
        name="hpgd_oracle_independent",
        summary="HPGD, fresh trajectories from every visited pair and state, another one for the benefit",
        level="formula",
        make=lambda target: HPGD(target=target, critic="independent", name="HPGD (oracle, independent benefit)"),
    ),
    _in_a_batch(
        "hpgd_oracle_batch",
        "HPGD as published with an oracle: all averages from 10,000 extra steps from uniformly drawn starts",
        variant="oracle_batch",
        oracle_batch_streams=50,
        title="HPGD (oracle batch)",
    ),
    _in_a_batch(
        "hpgd_mc",
        "HPGD as published: benefit and gradients from averages over the visits in the same batch",
        variant="monte_carlo",
        title="HPGD (MC)",
    ),
    _in_a_batch(
        "hpgd_sa",
        "HPGD as published: gradients from averages in the batch, benefit from a table learnt by SARSA",
        variant="sarsa",
        title="HPGD (SA)",
    ),
    _centred_by_the_exact("benefit", "the benefit"),
    _centred_by_the_exact("action_value", "the raw action value, as published in HPGD (TD)"),
    _centred_by_the_exact("return", "the raw return of the same suffix, as published in HPGD (MC)"),
)
