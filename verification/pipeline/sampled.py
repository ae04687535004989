"""Estimators on larger problems, held against the exact hypergradient by many independent draws.

Formula level: a draw is one trajectory. Practical level: a draw is one batch as experiments use it, one stream of a
hundred steps with episodes that follow each other, and a critic that SARSA has learnt from earlier batches. A pilot
tells how many draws a bias of half the power limit needs; the check takes that many, up to a budget of steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators import (
    Claim,
    Context,
    Draw,
    Estimator,
    EstimatorEntry,
    Objective,
    SarsaCritic,
    Trajectories,
    estimators_for,
)
from bilevelrl.estimators.sampling import LQRSimulator, TabularSimulator
from bilevelrl.reference import ConfigurableLQR, ConfigurableMDP, LQRGame, MarkovGame, named_stream
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import EstimatorError, SupportError, TooLargeError, UnsupportedError
from bilevelrl.tasks import Scenario
from bilevelrl.tasks.scenarios import Truth
from bilevelrl.verification.checks.deterministic import evaluated_once, exact_critic, shown
from bilevelrl.verification.checks.truncation import truncated_truths
from bilevelrl.verification.checks.verdicts import POWER_LIMIT, Outcome, Verdict, judge_sampled, unjudged
from bilevelrl.verification.enumeration.limits import TookTooLongError
from bilevelrl.verification.pipeline.given import GivenEstimator
from bilevelrl.verification.pipeline.rows import EstimatorRow, described
from bilevelrl.verification.statistics.cosine import cosine_interval
from bilevelrl.verification.statistics.designs import ERROR_RATE, POWER, MeanTest
from bilevelrl.verification.statistics.means import SampleMoments, StudentDesign, mean_test

__all__ = ["SamplingPlan", "check_by_sampling", "sampled_estimators", "sampled_row", "share"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingPlan:
    """How much to sample.

    Attributes
    ----------
    seed : int
        Root entropy; every estimator and temperature has a stream of its own.
    horizon : int
        Steps of a formula-level trajectory.
    step_budget : int
        Environment steps that one formula-level check may take.
    batches, batch_budget : int
        Replicates of a practical-level batch, and the steps that they may take, oracle steps included.
    batch_streams, batch_steps, step_limit : int
        Shape of a practical batch, and where its episodes are truncated.
    critic_batches : int
        Batches that SARSA learns from before the first replicate; the table is then carried unchanged.
    checks : int
        Checks of the whole run. Half the error rate is split over their comparisons along the truth, where power is
        wanted most, and half over all others.
    """

    seed: int
    horizon: int = 100
    step_budget: int = 6_000_000
    batches: int = 250
    batch_budget: int = 300_000
    batch_streams: int = 1
    batch_steps: int = 100
    step_limit: int = 200
    critic_batches: int = 200
    checks: int = 1


# Draws from which the cost of one is read.
PROBE = 32
# Single draws, at most: what standard deviation, cosine and the number of draws to take are read from.
PILOT = 4096
# Draws per vector-Jacobian product, at most, where only means are needed; and the number of such means, at least:
# a variance is relied on where it rests on more draws than a median of means has blocks, and even Gaussian means carry
# only a third of their number.
GROUP = 256
LEAST_GROUPS = 256
CHUNK_STEPS = 400_000
# Of so few draws each and so few parameters, means cost less from single draws, of many streams together.
FEW = 16
# Bias along the truth that a check is made to see, relative to the truth: somewhat below the limit.
WANTED = 0.8 * POWER_LIMIT


def sampled_estimators(on: Scenario) -> Mapping[str, EstimatorEntry]:
    """Return the registered estimators that may say something of a scenario by draws; in games, of formula level."""
    game = isinstance(on.problem, MarkovGame)
    listed = estimators_for(type(on.problem))
    return {name: entry for name, entry in listed.items() if entry.level == "formula" or not game}


def check_by_sampling(name: str, on: Scenario, plan: SamplingPlan) -> EstimatorRow:
    """Return sampled bias, standard deviation, cosine and cost of a registered estimator on a scenario."""
    entry = sampled_estimators(on)[name]
    estimator = entry.make(Objective(horizon=plan.horizon if entry.level == "formula" else None))
    return replace(sampled_row(estimator, on, plan, level=entry.level, name=name)[0], estimator=name)


def sampled_row(
    estimator: Estimator, on: Scenario, plan: SamplingPlan, *, level: str = "yours", name: str = ""
) -> tuple[EstimatorRow, MeanTest | None]:
    """Return the same of any estimator, with all comparisons, the last N at each parameter."""
    with evaluated_once(on):
        return _sampled_row(estimator, on, plan, level, name or estimator.name)


def _sampled_row(
    estimator: Estimator, on: Scenario, plan: SamplingPlan, level: str, name: str
) -> tuple[EstimatorRow, MeanTest | None]:
    started = time.perf_counter()
    batch = f"batch of {plan.batch_streams} × {plan.batch_steps} steps"
    row = described(estimator, on, level=level, method="sampling", batch=batch)
    try:
        sampler = _Sampler(name, estimator, on, plan)
        sampler.hold_contract()
        truth = on.truth_of(estimator.target)
        rare = estimator.rests_on_rare_draws
        try:
            expected = None if rare or estimator.claim is Claim.MEASURED else sampler.expected(truth)
        except UnsupportedError as refused:  # a declared expectation, but not on this kind of problem
            expected, unsaid = None, str(refused)
        else:
            unsaid = "no expectation is claimed"
            if rare:  # all of a sample can miss them, and its own spread then does not say so
                unsaid = "rests on rare draws, which a sample can miss without a sign; enumeration holds its mean"
        cut = 0.0
        if estimator.claim is Claim.UNBIASED:
            means = truncated_truths(on, estimator.target).values()
            cut = max((float(np.linalg.norm(mean.value - truth.value)) for mean in means), default=0.0)
        return _row(row, sampler, truth, expected, plan, started, unsaid=unsaid, cut=cut)
    except (UnsupportedError, SupportError) as refused:
        return replace(row, verdict=unjudged(Outcome.NOT_APPLICABLE, str(refused))), None
    except TookTooLongError:
        raise
    except EstimatorError as broken:
        return replace(row, verdict=Verdict(outcome=Outcome.FAILED, detectable=0.0, reason=str(broken))), None


class _Sampler:
    """Independent draws of one estimator."""

    def __init__(self, name: str, estimator: Estimator, on: Scenario, plan: SamplingPlan) -> None:
        self.estimator, self._plan = estimator, plan
        self._problem, self._theta = on.problem, on.theta
        self._follower: Any = on.solved(estimator.target).follower
        self._batched = estimator.draw is Draw.BATCH
        first, *rest = on.name.split()
        self._rng = named_stream(plan.seed, first, name, *rest)
        self._simulator = _simulator(on.problem, plan.step_limit if self._batched else None)
        self._critic: Any = (
            self._learnt_critic(named_stream(plan.seed, "critic", name, *rest))
            if self._batched
            else exact_critic(on, estimator.target)
        )
        self.budget = share(on) * plan.step_budget
        self.steps = 0
        self.drawn = 0

    @property
    def horizon(self) -> int:
        """Steps of a stream."""
        return self._plan.horizon

    @property
    def context(self) -> Context:
        """What the estimator is told."""
        return Context(
            problem=self._problem,
            theta=self._theta,
            follower=self._follower,
            critic=self._critic,
            simulator=self._simulator,
            rng=self._rng,
        )

    def hold_contract(self) -> None:
        """Hold a function's answers on a few streams of their own against the contract."""
        if isinstance(self.estimator, GivenEstimator):
            few = self._sample(8, self._plan.horizon, named_stream(self._plan.seed, "contract"))
            self.estimator.hold_contract(few, self.context)

    def expected(self, truth: Truth) -> FloatArray:
        """Return the expectation that the estimator claims."""
        if self.estimator.claim is Claim.UNBIASED:
            return truth.value
        declared = self.estimator.expectation(self.context, horizon=self._plan.horizon)
        return sum(declared.values(), np.zeros(self._theta.size))

    def rows(self, draws: int) -> FloatArray:
        """Return single draws (draws, N)."""
        if self._batched:
            return np.array([self._mean(batch) for batch in self._batches(draws, self._rng)])
        each = max(self._plan.horizon, self.steps // max(self.drawn, 1))
        chunk = max(1, CHUNK_STEPS // each)
        pieces = []
        for first in range(0, draws, chunk):
            trajectories = self._sample(min(chunk, draws - first), self._plan.horizon, self._rng)
            pieces.append(self._checked(self.estimator(trajectories, self.context), trajectories.streams))
            self._count(trajectories, sum(self.estimator.cost(trajectories, self.context).values()))
        return np.concatenate(pieces)

    def group_means(self, groups: int, size: int) -> FloatArray:
        """Return means of `size` draws each (groups, N): one vector-Jacobian product per group, unless all is small."""
        if max(size, self._theta.size) <= FEW:
            means: FloatArray = self.rows(groups * size).reshape(groups, size, -1).mean(axis=1)
            return means
        return np.array([self._mean(self._sample(size, self._plan.horizon, self._rng)) for _ in range(groups)])

    def _mean(self, trajectories: Trajectories) -> FloatArray:
        estimate = self.estimator.estimate(trajectories, self.context)
        self._count(trajectories, sum(estimate.cost.values()))
        mean: FloatArray = self._checked(estimate.mean[None], 1)[0]
        return mean

    def _checked(self, rows: FloatArray, draws: int) -> FloatArray:
        if rows.shape != (draws, self._theta.size) or not np.isfinite(rows).all():
            raise EstimatorError(f"{self.estimator.name}: expected finite rows {(draws, self._theta.size)}")
        return rows

    def _count(self, trajectories: Trajectories, steps: int) -> None:
        self.steps += steps
        self.drawn += 1 if self._batched else trajectories.streams

    def _batches(self, count: int, rng: Generator) -> list[Trajectories]:
        """Draw independent batches, all their streams at once."""
        size = self._plan.batch_streams
        together = self._sample(count * size, self._plan.batch_steps, rng)
        return [together.select(slice(first, first + size)) for first in range(0, count * size, size)]

    def _sample(self, streams: int, steps: int, rng: Generator) -> Trajectories:
        if self._simulator is None:
            own = getattr(self._problem, "sample", None)
            if own is None:
                kind = type(self._problem).__name__
                raise UnsupportedError(
                    f"problem of type {kind}: expected a method sample(theta, follower, *, streams, steps, rng) → "
                    "Trajectories, for it is of no kind of this package; add it, or judge draws"
                )
            drawn: Trajectories = own(self._theta, self._follower, streams=streams, steps=steps, rng=rng)
            return drawn
        return self.estimator.sample(
            self._problem,
            self._theta,
            self._follower,
            streams=streams,
            steps=steps,
            rng=rng,
            simulator=self._simulator,
        )

    def _learnt_critic(self, rng: Generator) -> SarsaCritic:
        critic = SarsaCritic.start(self._follower, self._problem.discount_leader, rng=rng)
        for batch in self._batches(self._plan.critic_batches, rng):
            critic = critic.updated(batch, rng=rng)
        return critic


def _simulator(problem: Any, step_limit: int | None) -> Any:
    """Where samples come from; with a limit, episodes of so many steps follow each other in a stream."""
    if isinstance(problem, (ConfigurableLQR, LQRGame)):
        return LQRSimulator()
    if not isinstance(problem, (ConfigurableMDP, MarkovGame)):
        return None  # a kind of one's own brings its samples
    return TabularSimulator(step_limit=step_limit, single_episode=step_limit is None)


def share(on: Scenario) -> float:
    """Return the share of a plan's budget of steps that a scenario gets."""
    return 1.0 if isinstance(on.problem, ConfigurableMDP) else 0.3


def _row(
    row: EstimatorRow,
    sampler: _Sampler,
    truth: Truth,
    expected: FloatArray | None,
    plan: SamplingPlan,
    started: float,
    *,
    unsaid: str,
    cut: float,
) -> tuple[EstimatorRow, MeanTest]:
    norm = float(np.linalg.norm(truth.value)) or 1.0
    directions, names = _directions(truth, plan.seed)
    batched = sampler.estimator.draw is Draw.BATCH
    if batched:
        sampler.rows(2)
        each = sampler.steps / sampler.drawn
        single = means = sampler.rows(int(min(plan.batches, max(16, plan.batch_budget / each))))
        group, per_draw = 1, sampler.steps / sampler.drawn
    else:
        sampler.rows(PROBE)
        per_draw = sampler.steps / sampler.drawn
        affordable = sampler.budget / per_draw
        least = min(max(affordable / 32, 128.0), 16_384.0)
        # The single draws choose how many more are taken, so they are not among those that are judged.
        single = sampler.rows(min(PILOT, int(least)))
        pilot = SampleMoments.of(single @ directions[:, :1])
        seen = max(norm - cut / WANTED, 0.25 * norm)  # what is cut counts as unknown
        wanted = _draws_wanted(pilot, seen, plan, affordable=affordable)
        if wanted > affordable:
            # The tail may be better than the pilot let fear; but without the power itself little is worth taking.
            wanted = affordable if _draws_for_power(pilot, seen, plan) <= affordable else least
        draws = max(least, wanted)
        group = min(GROUP, max(1, int(draws / LEAST_GROUPS)))
        means = sampler.group_means(math.ceil(draws / group), group)
    projected = means @ directions
    sample = SampleMoments.of(projected)
    claimed = truth.value if expected is None else expected
    test = _tested(projected, claimed @ directions, truth.error_bound + cut, plan)
    verdict = (
        unjudged(Outcome.MEASURED, unsaid)
        if expected is None
        else judge_sampled(test, along=0, scale=norm, names=names)
    )
    if cut > 0.0:
        said = f"truncation at {sampler.horizon} steps takes at most {cut / norm:.2g} of the truth away; beyond that "
        verdict = replace(verdict, reason=f"{said}{verdict.reason}")
    if verdict.outcome is Outcome.NO_POWER:
        needed = group * _draws_wanted(sample, norm, plan)
        verdict = replace(verdict, reason=f"{verdict.reason}; about {needed:.1g} draws are needed")
    mean = means.mean(axis=0)
    # For reading, beside the verdict: a single 95 % interval along the truth.
    interval = mean_test(projected[:, :1], truth.value @ directions[:, :1], error_rate=0.05)
    along, half = float(interval.bias[0]) / norm, float(interval.half_width[0]) / norm
    noise = float(means.var(axis=0, ddof=1).sum()) / sample.draws
    cosine = cosine_interval(single, truth.value)
    measured = replace(
        row,
        draws=sample.draws * group,
        truth_norm=norm,
        bias=(
            # The squared norm of a noisy mean is too large by its variance.
            math.sqrt(max(0.0, float(np.linalg.norm(mean - truth.value)) ** 2 - noise)) / norm
            if expected is None
            else float(np.linalg.norm(expected - truth.value)) / norm
        ),
        bias_along=along,
        bias_low=along - half,
        bias_high=along + half,
        deviation=math.nan if expected is None else float(np.linalg.norm(mean - expected)) / norm,
        standard_deviation=math.sqrt(float(single.var(axis=0, ddof=1).sum())) / norm,
        cosine=cosine.mean,
        cosine_low=cosine.low,
        cosine_high=cosine.high,
        steps_per_draw=per_draw,
        tested={} if expected is None else shown(truth, truth.error_bound),
        seconds=time.perf_counter() - started,
        verdict=verdict,
    )
    return measured, test


def _tested(projected: FloatArray, expected: FloatArray, known_error: float, plan: SamplingPlan) -> MeanTest:
    """Test along the truth, the first comparison, with half the error rate, and everything else with the other half."""
    halves = [
        mean_test(
            projected[:, chosen],
            expected[chosen],
            error_rate=0.5 * ERROR_RATE,
            comparisons=plan.checks * expected[chosen].size,
            known_error=known_error,
        )
        for chosen in (slice(0, 1), slice(1, None))
    ]
    arrays = ("bias", "half_width", "detectable", "gaussian", "rejected")
    joined = {name: np.concatenate([getattr(half, name) for half in halves]) for name in arrays}
    return MeanTest(**joined, error_rate=ERROR_RATE, power=POWER)


def _draws_wanted(pilot: SampleMoments, norm: float, plan: SamplingPlan, *, affordable: float = 0.0) -> float:
    """Draws that see a bias somewhat below the power limit along the truth.

    By the median of means where that can be had, for it does not ask how skewed the draws are, which small samples
    understate; else by the cheaper of the two intervals.
    """
    spread = float(pilot.standard_deviation[0])
    if spread == 0.0:
        return 0.0
    design = _along_the_truth(plan)
    robust = (design.medians().reach * spread / (WANTED * norm)) ** 2
    if robust <= affordable:
        return robust
    # A small sample of a skewed law shows less than its skewness.
    tail = design.draws_for_tail(2.0 * float(pilot.skewness[0]))
    return min(max(_draws_for_power(pilot, norm, plan), tail), robust)


def _draws_for_power(pilot: SampleMoments, norm: float, plan: SamplingPlan) -> float:
    """Draws that see the wanted bias if their mean is as good as Gaussian."""
    spread = float(pilot.standard_deviation[0])
    try:
        return float(_along_the_truth(plan).draws_needed(WANTED * norm, spread))
    except TooLargeError:
        return math.inf


def _along_the_truth(plan: SamplingPlan) -> StudentDesign:
    return StudentDesign(error_rate=0.5 * ERROR_RATE, comparisons=plan.checks)


def _directions(truth: Truth, seed: int) -> tuple[FloatArray, list[str]]:
    """Comparisons of a mean: along the truth first, along its parts, along random signs, and each coordinate.

    A wrong estimator usually shows along the truth or a part of it, where many coordinates add up; the draws of a
    single coordinate may be too rare for a limit theorem.
    """
    size = truth.value.size
    columns, names = [truth.value], ["along the truth"]
    for part, value in truth.parts.items():
        if np.any(value) and not np.array_equal(value, truth.value):
            columns.append(value)
            names.append(f"along the {part} part")
    signs = named_stream(seed, "directions").choice([-1.0, 1.0], size=(4, size))
    columns.extend(signs)
    names.extend(f"along random signs {i}" for i in range(len(signs)))
    unit = [column / (np.linalg.norm(column) or 1.0) for column in columns]
    names.extend(f"at parameter {i}" for i in range(size))
    return np.concatenate([np.array(unit).T, np.eye(size)], axis=1), names
