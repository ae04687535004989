"""What estimators along trajectories share: target, critic, stopping, averaging, and the leader's own terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from bilevelrl.estimators.critics.tables import (
    CriticReading,
    ExactCritic,
    expected_fresh_steps,
    independent_reading,
    leader_discount,
    monte_carlo_reading,
    read_critic,
)
from bilevelrl.estimators.estimator import Claim, Context, Contribution, Draw, LeaderCritic
from bilevelrl.estimators.sampling.kinds import kind_of
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.sums.clipping import check_positive_or_infinite
from bilevelrl.estimators.sums.single_transitions import clipped_scores
from bilevelrl.estimators.sums.suffix_moments import return_moments
from bilevelrl.estimators.terms.along_trajectories import AlongTrajectories
from bilevelrl.estimators.terms.leader_terms import (
    Scores,
    finished_episodes,
    leader_contributions,
    start_visit_contributions,
)
from bilevelrl.reference import MarkovGame
from bilevelrl.reference.arrays import FloatArray, store_floats
from bilevelrl.reference.doors import Real, checked
from bilevelrl.reference.errors import EstimatorError, InvalidInputError, UnknownNameError, UnsupportedError

__all__ = ["CriticKind", "LeaderSide", "Normalisation"]

CriticKind: TypeAlias = Literal["exact", "exact_truncated", "monte_carlo", "independent", "context"]
"""Where the leader's values come from; see `LeaderSide`."""

Normalisation: TypeAlias = Literal["streams", "episodes"]
"""What a sum over the batch is divided by."""

OPTIONS: dict[str, tuple[Any, ...]] = {
    "critic": ("exact", "exact_truncated", "monte_carlo", "independent", "context"),
    "stopping": (None, "single", "sum"),
    "normalisation": ("streams", "episodes"),
    "leader_average": ("trajectory", "start_visits"),
    "scores": ("value", "td_error"),
}


@dataclass(frozen=True, kw_only=True)
class LeaderSide(AlongTrajectories):
    """Base of estimators along trajectories: everything but the guiding term.

    Parameters
    ----------
    target
        The truth it is held against.
    critic
        "exact": Q_L over an infinite horizon; "exact_truncated": by steps to go of the target's horizon;
        "monte_carlo": returns of the same suffix (it biases the guiding term), less V_L of `context.critic`, or the
        exact one where there is none; "independent": returns of fresh suffixes, which need a generator in the
        context; "context": `context.critic`.
    stopping
        None: discounted sums over all observed steps. "single", "sum": geometric stopping, see
        `sample_stopped_trajectories`; unbiased over an infinite horizon.
    normalisation
        "streams": the mean over streams. "episodes": sums over the batch divided by the number of finished episodes (a
        ratio, a cause of bias).
    leader_average
        "trajectory": the leader's terms along each episode. "start_visits": averaged over all visits of start states,
        as the published experiments do.
    scores
        "value", or "td_error": values ahead minus their expectation given state and action, for the same mean.
    largest_score, score_blocks
        Shorten the score of every single transition to this norm, by blocks of θ of these sizes, in the transition
        part alone, as the published building does: another expectation, which nothing but measurement knows.

    Raises
    ------
    UnknownNameError
        If an option is not known.
    InvalidInputError
        If options contradict each other.
    """

    critic: CriticKind = "exact"
    normalisation: Normalisation = "streams"
    leader_average: Literal["trajectory", "start_visits"] = "trajectory"
    scores: Scores = "value"
    largest_score: Real | None = None
    score_blocks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        store_floats(self)
        if self.largest_score is not None:
            check_positive_or_infinite("largest_score", self.largest_score)
            if self.leader_average == "start_visits":
                raise InvalidInputError("largest_score: expected leader_average='trajectory'; it counts single steps")
        elif self.score_blocks:
            raise InvalidInputError("score_blocks: expected a largest_score to shorten to; pass largest_score=1.0")
        for option, known in OPTIONS.items():
            if getattr(self, option) not in known:
                raise UnknownNameError(option, getattr(self, option), [str(name) for name in known])
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

    def _declare(self, *, biased: bool, in_batch: bool) -> None:
        """Set the draw and the claim that follow from the options."""
        batch = in_batch or self.normalisation == "episodes" or self.leader_average == "start_visits"
        exact = self.critic in ("exact", "independent") and self.target.horizon is None
        clipped = self.largest_score is not None
        claim = Claim.MEASURED if batch or clipped else Claim.UNBIASED if exact and not biased else Claim.DECLARED
        object.__setattr__(self, "draw", Draw.BATCH if batch else Draw.TRAJECTORY)
        object.__setattr__(self, "claim", claim)

    @checked
    def leader_critic(self, context: Context) -> LeaderCritic:
        """Return the critic that is read, or that is the baseline of sampled returns.

        Raises
        ------
        UnsupportedError
            If the problem is a Markov game, which has estimators of its own.
        """
        if isinstance(context.problem, MarkovGame):
            raise UnsupportedError(f"{self.name}: expected a configurable MDP; for Markov games use BCHGGame")
        if self.critic == "context" or (self.critic == "monte_carlo" and context.critic is not None):
            if context.critic is None:
                raise EstimatorError(f"{self.name}: context.critic=None: expected a LeaderCritic; pass critic=...")
            return context.critic
        horizon = None if self.critic == "exact" else self.target.horizon
        kind = kind_of(context.problem)
        if kind is not None:
            critic: LeaderCritic = kind.exact_critic(context, horizon=horizon, discounted=self.target.discounted)
            return critic
        return ExactCritic.solve(
            context.problem,
            context.theta,
            context.follower.policy,
            horizon=horizon,
            discounted=self.target.discounted,
        )

    @checked
    def read(self, trajectories: Trajectories, context: Context) -> CriticReading:
        """Return the leader's values along the trajectories."""
        reading = read_critic(self.leader_critic(context), trajectories, horizon=self.target.horizon)
        if self.critic == "monte_carlo":
            discount = leader_discount(context.problem, self.target)
            return monte_carlo_reading(trajectories, reading, discount=discount, horizon=self.target.horizon)
        if self.critic == "independent":
            return independent_reading(trajectories, context, reading, target=self.target)
        return reading

    @checked
    def benefit_moments(
        self, trajectories: Trajectories, context: Context
    ) -> tuple[CriticReading, FloatArray, FloatArray]:
        """Return the leader's values, and mean and variance (streams, steps) of the benefit given the trajectories.

        Only fresh suffixes vary; they are integrated out by dynamic programming.
        """
        if self.critic != "independent":
            reading = self.read(trajectories, context)
            return reading, reading.benefit_t, np.zeros_like(reading.benefit_t)
        horizon, time = self.target.horizon, trajectories.time_in_episode
        discount = leader_discount(context.problem, self.target)
        reading = read_critic(self.leader_critic(context), trajectories, horizon=horizon)
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
            return 1.0 / finished_episodes(trajectories)
        return 1.0 / trajectories.streams_per_batch if self.draw is Draw.BATCH else 1.0

    @checked
    def partial_gradient(
        self, trajectories: Trajectories, context: Context, reading: CriticReading
    ) -> list[Contribution]:
        """Return the leader's own terms."""
        discount = leader_discount(context.problem, self.target)
        if self.leader_average == "start_visits":
            return start_visit_contributions(trajectories, reading, discount=discount, scores=self.scores)
        items = leader_contributions(
            trajectories,
            reading,
            leader_weight=self.leader_weight(trajectories, context),
            discount=discount,
            scores=self.scores,
            scale=self.scale(trajectories),
        )
        if self.largest_score is None:
            return items
        return [
            clipped_scores(context, item, self.largest_score, self.score_blocks) if item.part == "transition" else item
            for item in items
        ]
