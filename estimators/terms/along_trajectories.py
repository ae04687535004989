"""Estimators that sum along trajectories: what counts, how much, in which values, and the leader's own terms.

With per-step derivatives x of the leader's terms and y of the follower's values, both answered by the kind of problem
(`terms.answers`), estimates along trajectories are

    Σ_t w_t x_t  +  (1/β) Σ_t w_t B_t Σ_{k≥t} γ_F^{k-t} y_k,      w_t = γ_L^t or its form at geometric times.        (1)

The first sum is the partial gradient, with the follower's response held fixed; the second, the guiding term, is what
methods differ in. In configurable problems x is V_L(s_0) ∇log μ(s_0) once, and ∇r_L + γ_L V_L(s_{t+1}) ∇log P at each
step; in games it is the leader's score times its advantage.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.critics.joint_tables import Baseline, Operator
from bilevelrl.estimators.critics.tables import (
    CriticReading,
    expected_fresh_steps,
    independent_reading,
    monte_carlo_reading,
)
from bilevelrl.estimators.estimator import Claim, Context, Contribution, Draw, Estimator, LeaderCritic
from bilevelrl.estimators.sampling.linear_quadratic import LQRSimulator
from bilevelrl.estimators.sampling.sample import SampledProblem, sample_trajectories
from bilevelrl.estimators.sampling.stopping import geometric_times, sample_stopped_trajectories
from bilevelrl.estimators.sampling.tabular import TabularSimulator
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.sums.clipping import check_positive_or_infinite
from bilevelrl.estimators.sums.single_transitions import clipped_scores
from bilevelrl.estimators.sums.traces import average_over_visits, continues, discount_powers, forward_trace
from bilevelrl.estimators.terms.answers import Reading, answers_of
from bilevelrl.estimators.terms.suffix_moments import return_moments
from bilevelrl.estimators.terms.tabular import Scores
from bilevelrl.reference.arrays import FloatArray, store_floats
from bilevelrl.reference.doors import Real, as_is, checked
from bilevelrl.reference.errors import EstimatorError, InvalidInputError, UnsupportedError, refusal
from bilevelrl.reference.problem import Objective

__all__ = ["AlongTrajectories", "Baseline", "CriticKind", "Normalisation", "Stopping", "exact_critic_kind"]

Stopping: TypeAlias = Literal["single", "sum"]
"""Geometric stopping: one leader step at the time τ, or all leader steps up to τ."""

CriticKind: TypeAlias = Literal["exact", "exact_truncated", "monte_carlo", "independent", "context"]
"""Where the leader's values come from; see `AlongTrajectories`."""

Normalisation: TypeAlias = Literal["streams", "episodes"]
"""What a sum over the batch is divided by."""


def exact_critic_kind(target: Objective) -> Literal["exact", "exact_truncated"]:
    """Return the critic that is the target's truth: by steps to go where it has a horizon."""
    return "exact" if target.horizon is None else "exact_truncated"


@dataclass(frozen=True, kw_only=True)
class AlongTrajectories(Estimator):
    """Base of estimators along trajectories: everything but the guiding term.

    Options that a kind of problem has no use for must keep their defaults there.

    Parameters
    ----------
    target
        The truth it is held against.
    stopping
        None: discounted sums over all observed steps. "single", "sum": geometric stopping, see
        `sample_stopped_trajectories`; unbiased over an infinite horizon.
    critic
        "exact": Q_L over an infinite horizon, in games where the target has no other; "exact_truncated": by steps to go
        of the target's horizon; "context": `context.critic`. In configurable problems also "monte_carlo": returns of
        the same suffix (it biases the guiding term), less V_L of `context.critic`, or the exact one where there is
        none; "independent": returns of fresh suffixes, which need a generator in the context.
    normalisation
        "streams": the mean over streams. "episodes": sums over the batch divided by the number of finished episodes (a
        ratio, a cause of bias). In configurable problems.
    leader_average
        "trajectory": the leader's terms along each episode. "start_visits": averaged over all visits of start states,
        as the published experiments do, to the last observed step; then over the episode starts. In configurable MDPs.
    scores
        "value", or "td_error": values ahead minus their expectation given state and action, for the same mean. In
        configurable problems.
    largest_score, score_blocks
        Shorten the score of every single transition to this norm, by blocks of θ of these sizes, in the transition
        part alone, as the published building does: another expectation, which nothing but measurement knows.
    baseline
        In games, of the leader's term Σ γ_L^t ∇log f (Q_L - b): "state_value": V_L(s). "none". "action_dependent": the
        published Σ_l f Q_L(s, l, a), which biases the term if the follower has seen l, on which its action depends.
    behaviour_theta
        In games, the θ whose leader policy made the trajectories; None: the context's own. Nothing is reweighted, as in
        the published off-policy runs: visits are those of another leader, which biases every term.

    Raises
    ------
    UnknownNameError
        If an option is not known.
    InvalidInputError
        If options contradict each other.
    """

    target: Objective = field(default_factory=Objective)
    stopping: Stopping | None = None
    critic: CriticKind = "exact"
    normalisation: Normalisation = "streams"
    leader_average: Literal["trajectory", "start_visits"] = "trajectory"
    scores: Scores = "value"
    largest_score: Real | None = None
    score_blocks: tuple[int, ...] = ()
    baseline: Baseline = "state_value"
    behaviour_theta: FloatArray | None = None
    draw: Draw = field(init=False)
    claim: Claim = field(init=False)

    def __post_init__(self) -> None:
        store_floats(self)
        if self.largest_score is not None:
            check_positive_or_infinite("largest_score", self.largest_score)
            if self.leader_average == "start_visits":
                raise InvalidInputError("largest_score: expected leader_average='trajectory'; it counts single steps")
        elif self.score_blocks:
            raise InvalidInputError("score_blocks: expected a largest_score to shorten to; pass largest_score=1.0")
        if self.critic == "exact_truncated" and self.target.horizon is None:
            raise InvalidInputError("critic='exact_truncated': expected a target with a horizon; use critic='exact'")
        if self.critic == "exact" and not self.target.discounted:
            raise InvalidInputError(
                "critic='exact': undiscounted values diverge over an infinite horizon; use critic='exact_truncated'"
            )
        if self.stopping is not None and (self.target.horizon is not None or self.critic == "monte_carlo"):
            raise InvalidInputError(
                f"stopping={self.stopping!r}: expected target horizon None and a critic other than 'monte_carlo'; "
                "geometric times replace the horizon, and they cut the returns of the same suffix"
            )
        ratio = self.normalisation == "episodes" or self.leader_average == "start_visits"
        if ratio and self.stopping is not None:
            raise InvalidInputError(
                f"stopping={self.stopping!r}: expected normalisation='streams' and leader_average='trajectory'; "
                "ratios over a batch would bring a bias back"
            )

    def _declare(self, *, biased: bool, in_batch: bool = False) -> None:
        """Set the draw and the claim that follow from the options."""
        batch = in_batch or self.normalisation == "episodes" or self.leader_average == "start_visits"
        exact = self.critic in ("exact", "independent") and self.target.horizon is None
        exact = exact and self.baseline != "action_dependent" and self.behaviour_theta is None
        clipped = self.largest_score is not None
        claim = Claim.MEASURED if batch or clipped else Claim.UNBIASED if exact and not biased else Claim.DECLARED
        object.__setattr__(self, "draw", Draw.BATCH if batch else Draw.TRAJECTORY)
        object.__setattr__(self, "claim", claim)

    @checked
    def check_problem(self, context: Context) -> None:
        """Refuse a kind of problem that it does not serve, and options that the kind has no use for.

        Raises
        ------
        UnsupportedError
            Naming the option.
        """
        super().check_problem(context)
        kind = type(context.problem).__name__
        for option, allowed in answers_of(context.problem).ALLOWED.items():
            value = getattr(self, option, allowed[0])
            if value is not allowed[0] and (isinstance(value, np.ndarray) or value not in allowed):
                names = " or ".join(repr(name) for name in allowed)
                raise UnsupportedError(f"{self.name}: {option}={value!r}: expected {names} for a {kind}")

    @checked
    def serves_weights(self, context: Context) -> bool:
        """Return whether trajectories may carry weights of their own: in games."""
        return answers_of(context.problem).WEIGHED

    @checked
    def sample(
        self,
        problem: Annotated[SampledProblem, as_is],
        theta: Any,
        follower: Any,
        *,
        streams: int,
        steps: int,
        rng: Generator,
        simulator: TabularSimulator | LQRSimulator | None = None,
    ) -> Trajectories:
        """Draw trajectories of the kind that the claim is about: stopped where the estimator says so, or off-policy."""
        acting = theta if self.behaviour_theta is None else self.behaviour_theta
        if self.stopping is not None:
            return sample_stopped_trajectories(problem, acting, follower, streams=streams, rng=rng, simulator=simulator)
        return sample_trajectories(
            problem, acting, follower, streams=streams, steps=steps, rng=rng, simulator=simulator
        )

    @checked
    def leader_weight(self, trajectories: Trajectories, context: Context) -> FloatArray:
        """Return (streams, steps): the weight with which the leader counts a step, γ_L^t or its stopped form.

        The trajectories' own weights come before γ_L^t.
        """
        if trajectories.weight_t is not None:
            return np.where(trajectories.valid, trajectories.weight_t, 0.0)
        discount = self.target.discount(context.problem.discount_leader)
        if self.stopping is None:
            return discount_powers(trajectories, discount, horizon=self.target.horizon)
        assert trajectories.stopping is not None  # `stopped` has seen to it
        tau = trajectories.stopping[:, :1]
        if self.stopping == "single":
            return np.where(trajectories.valid & (trajectories.time_in_episode == tau), 1.0 / (1.0 - discount), 0.0)
        return np.where(trajectories.valid & (trajectories.time_in_episode <= tau), 1.0, 0.0)

    @checked
    def stopped(self, trajectories: Trajectories, context: Context) -> Trajectories:
        """Return the trajectories with geometric times, drawn now if they have none, where the estimator needs them.

        Raises
        ------
        EstimatorError
            If a stream was cut before its time, or has weights of its own.
        UnsupportedError
            If a stream holds several episodes.
        """
        if self.stopping is None:
            return trajectories
        if trajectories.weight_t is not None:
            raise EstimatorError(
                f"{self.name}: weight_t: expected None with geometric times, which weigh steps already"
            )
        if trajectories.stopping is None:
            if context.rng is None:
                raise EstimatorError(f"{self.name}: trajectories without stopping times; draw them by `sample`")
            times = geometric_times(context.problem, trajectories.streams, context.rng)
            trajectories = trajectories.with_stopping(times)
        assert trajectories.stopping is not None
        seen = trajectories.valid.sum(axis=1)
        needed = trajectories.stopping.sum(axis=1) + 1
        cut = (seen < needed) & ~(trajectories.valid & trajectories.terminated).any(axis=1)
        if cut.any():
            stream = int(np.argmax(cut))
            raise EstimatorError(
                f"{self.name}: stream {stream} was observed for {int(seen[stream])} steps, its geometric times need "
                f"{int(needed[stream])}; draw trajectories by `sample`, which stop where they must"
            )
        if (trajectories.valid[:, 1:] & ~continues(trajectories)[:, 1:]).any():
            raise UnsupportedError(f"{self.name}: expected one episode per stream; use single_episode=True")
        return trajectories

    @property
    def operator(self) -> Operator:
        """The operator whose fixed point a game's exact critic is."""
        return "expected"

    @checked
    def leader_critic(self, context: Context) -> LeaderCritic:
        """Return the critic that is read, or that is the baseline of sampled returns.

        Raises
        ------
        EstimatorError
            If the context has none where it should.
        """
        if self.critic == "context" or (self.critic == "monte_carlo" and context.critic is not None):
            if context.critic is None:
                raise EstimatorError(f"{self.name}: context.critic=None: expected a LeaderCritic; pass critic=...")
            return context.critic
        objective = Objective() if self.critic == "exact" else self.target
        return answers_of(context.problem).exact_critic(context, objective, target=self.target, operator=self.operator)

    @checked
    def read(self, trajectories: Trajectories, context: Context) -> Reading:
        """Return the leader's values along the trajectories."""
        reading = self._critic_reading(trajectories, context)
        if isinstance(reading, CriticReading) and self.critic == "monte_carlo":
            discount = self.target.discount(context.problem.discount_leader)
            return monte_carlo_reading(trajectories, reading, discount=discount, horizon=self.target.horizon)
        if isinstance(reading, CriticReading) and self.critic == "independent":
            return independent_reading(trajectories, context, reading, target=self.target)
        return reading

    def _critic_reading(self, trajectories: Trajectories, context: Context) -> Reading:
        answers, critic = answers_of(context.problem), self.leader_critic(context)
        horizon = self.target.horizon
        reading: Reading = answers.read(context, critic, trajectories, horizon=horizon, baseline=self.baseline)
        return reading

    @checked
    def benefit_moments(self, trajectories: Trajectories, context: Context) -> tuple[Reading, FloatArray, FloatArray]:
        """Return the leader's values, and mean and variance (streams, steps) of the benefit given the trajectories.

        Only fresh suffixes vary; they are integrated out by dynamic programming.
        """
        if self.critic != "independent":
            reading = self.read(trajectories, context)
            return reading, reading.benefit_t, np.zeros_like(reading.benefit_t)
        horizon, time = self.target.horizon, trajectories.time_in_episode
        discount = self.target.discount(context.problem.discount_leader)
        reading = self._critic_reading(trajectories, context)
        assert isinstance(reading, CriticReading)  # games have no fresh suffixes
        mean, variance = np.zeros_like(reading.benefit_t), np.zeros_like(reading.benefit_t)
        for t in range(1 if horizon is None else min(horizon, int(time.max()) + 1)):
            here = trajectories.valid if horizon is None else trajectories.valid & (time == t)
            steps = None if horizon is None else horizon - t
            moments = return_moments(context, steps=steps, discount=discount)
            pair = trajectories.state_t[here], trajectories.action_t[here]
            mean[here] = moments.pair_mean[..., 0][pair] - reading.value_t[here]
            variance[here] = moments.pair_covariance[..., 0, 0][pair]
        return reading, mean, variance

    @checked
    def cost(self, trajectories: Trajectories, context: Context) -> dict[str, int]:
        """Return environment steps, and the expected number of steps of fresh suffixes."""
        fresh = 0.0
        if self.critic == "independent":
            fresh = expected_fresh_steps(trajectories, context, target=self.target)
        return {"environment_steps": int(trajectories.valid.sum()), "oracle_steps": round(fresh)}

    @checked
    def scale(self, trajectories: Trajectories) -> float | FloatArray:
        """Return the factor of sums over streams that the draw leaves to the estimator; (streams, 1) by batch."""
        if self.normalisation == "episodes":
            # The unfinished episode at the end of a stream of several is not among them.
            return 1.0 / trajectories.count_in_batch(
                trajectories.valid & (trajectories.terminated | trajectories.truncated)
            )
        if trajectories.weight_t is None and (trajectories.episode_starts.sum(axis=1) > 1).any():
            several = int(np.argmax(trajectories.episode_starts.sum(axis=1) > 1))
            raise UnsupportedError(
                refusal(
                    f"{self.name}: trajectories.time_in_episode[{several}]", "several episodes in one stream",
                    "one episode per stream with normalisation='streams', whose sums would count each of them",
                    "sample with single_episode=True, or average with normalisation='episodes'",
                )
            )  # fmt: skip
        return 1.0 / trajectories.streams_per_batch if self.draw is Draw.BATCH else 1.0

    @checked
    def partial_gradient(self, trajectories: Trajectories, context: Context, reading: Reading) -> list[Contribution]:
        """Return the leader's own terms (arXiv:2603.14867, (5) and (8) without their guiding terms)."""
        discount, starts = self.target.discount(context.problem.discount_leader), trajectories.episode_starts
        if self.leader_average == "start_visits":
            first = starts / trajectories.count_in_batch(starts)
            # Σ_starts average over visits of s_0  =  Σ_visits (share of starts among the visits of that state).
            impulses = average_over_visits(first, trajectories.state_t, trajectories.valid)
            weight = forward_trace(trajectories, impulses, discount)
        else:
            first = np.where(starts, self.scale(trajectories), 0.0)
            weight = self.scale(trajectories) * self.leader_weight(trajectories, context)
        terms = answers_of(context.problem).leader_terms(
            context, trajectories, reading, discount=discount, centred=self.scores == "td_error"
        )
        items = []
        for part, units in terms.items():
            counted = first if part == "initial" else weight
            weights = {term: counted * unit for term, unit in units.items()}  # (1), its first sum
            item = Contribution(part=part, batch=trajectories, weights=weights)
            if self.largest_score is not None and "log_transition" in weights:
                item = clipped_scores(context, item, self.largest_score, self.score_blocks)
            items.append(item)
        return items
