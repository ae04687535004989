"""Estimators on Four-Rooms, held against the exact hypergradient by many independent draws.

Formula level: a draw is one trajectory. Practical level: a draw is one batch as experiments use it, one stream of a
hundred steps with episodes that follow each other, and a critic that SARSA has learnt from earlier batches. A pilot
tells how many draws a bias of half the power limit needs; the check takes that many, up to a budget of steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators import ESTIMATORS, Claim, Context, Draw, Estimator, Target, Trajectories
from bilevelrl.estimators.critics import ExactCritic
from bilevelrl.estimators.sampling import TabularSimulator, sample_trajectories
from bilevelrl.estimators.sarsa import SarsaCritic
from bilevelrl.reference import ConfigurableMDP, Hypergradient, hypergradient, named_stream, solve_follower
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import EstimatorError, SupportError, UnsupportedError
from bilevelrl.tasks import four_rooms, initial_theta
from bilevelrl.verification.results import EstimatorRow
from bilevelrl.verification.small_problems import target_name
from bilevelrl.verification.statistics import (
    ERROR_RATE,
    SampleMoments,
    cosine_interval,
    critical_value,
    draws_needed,
    mean_test,
)
from bilevelrl.verification.verdicts import POWER_LIMIT, Outcome, Verdict, judge_sampled, unjudged

__all__ = ["FOUR_ROOMS_TEMPERATURES", "SamplingPlan", "check_by_sampling"]

FOUR_ROOMS_TEMPERATURES = (0.001, 0.003, 0.005)


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
    batches : int
        Replicates of a practical-level batch, at most.
    batch_streams, batch_steps, step_limit : int
        Shape of a practical batch, and where its episodes are truncated.
    critic_batches : int
        Batches that SARSA learns from before the first replicate; the table is then carried unchanged.
    comparisons : int
        Size of the whole family that the error rate is split over.
    """

    seed: int
    horizon: int = 100
    step_budget: int = 4_000_000
    batches: int = 1500
    batch_streams: int = 1
    batch_steps: int = 100
    step_limit: int = 200
    critic_batches: int = 200
    comparisons: int = 1


PILOT = 2048
CHUNK_STEPS = 400_000


def check_by_sampling(name: str, temperature: float, plan: SamplingPlan) -> EstimatorRow:
    """Return sampled bias, standard deviation, cosine and cost of a registered estimator on Four-Rooms."""
    started = time.perf_counter()
    entry = ESTIMATORS[name]
    problem = four_rooms(temperature=temperature)
    theta = initial_theta(named_stream(plan.seed, "theta"))
    formula = entry.level == "formula"
    estimator = entry.make(Target(horizon=plan.horizon if formula else None))
    batched = estimator.draw is Draw.BATCH
    described: dict[str, Any] = {
        "problem": "Four-Rooms",
        "temperature": temperature,
        "estimator": name,
        "level": entry.level,
        "claim": estimator.claim.name.lower(),
        "draw": f"batch of {plan.batch_streams} × {plan.batch_steps} steps" if batched else "trajectory",
        "target": target_name(estimator.target),
        "method": "sampling",
    }
    try:
        sampler = _Sampler(name, estimator, problem, theta, plan)
        truth = hypergradient(problem, theta, horizon=estimator.target.horizon, discounted=estimator.target.discounted)
        expected = None if estimator.claim is Claim.MEASURED else sampler.expected(truth)
        return _row(described, sampler, truth, expected, plan, started)
    except (UnsupportedError, SupportError) as refused:
        return EstimatorRow(**described, verdict=unjudged(Outcome.REFUSED, str(refused)))
    except EstimatorError as broken:
        verdict = Verdict(outcome=Outcome.FAILED, detectable=0.0, reason=str(broken))
        return EstimatorRow(**described, verdict=verdict)


class _Sampler:
    """Independent draws of one estimator."""

    def __init__(
        self, name: str, estimator: Estimator, problem: ConfigurableMDP, theta: FloatArray, plan: SamplingPlan
    ) -> None:
        self.estimator, self._plan = estimator, plan
        self._problem, self._theta = problem, theta
        self._follower = solve_follower(problem, theta)
        self._batched = estimator.draw is Draw.BATCH
        self._rng = named_stream(plan.seed, "four_rooms", name, str(problem.temperature))
        self._simulator = (
            TabularSimulator(step_limit=plan.step_limit, single_episode=False) if self._batched else TabularSimulator()
        )
        self._critic: Any = (
            self._learnt_critic(named_stream(plan.seed, "critic", name, str(problem.temperature)))
            if self._batched
            else ExactCritic.solve(
                problem,
                theta,
                self._follower.policy,
                horizon=estimator.target.horizon,
                discounted=estimator.target.discounted,
            )
        )
        self.steps = 0
        self.drawn = 0

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

    def expected(self, truth: Hypergradient) -> FloatArray:
        """Return the expectation that the estimator claims."""
        if self.estimator.claim is Claim.UNBIASED:
            return truth.value
        declared = self.estimator.expectation(self.context, horizon=self._plan.horizon)
        return sum(declared.values(), np.zeros(self._theta.size))

    def rows(self, draws: int) -> Iterator[FloatArray]:
        """Yield rows (some, N) until `draws` of them have been drawn."""
        if self._batched:
            for _ in range(draws):
                yield self._count(self._batch(), 1)
            return
        chunk = max(1, CHUNK_STEPS // self._plan.horizon)
        for first in range(0, draws, chunk):
            streams = min(chunk, draws - first)
            yield self._count(self._sample(streams, self._plan.horizon, self._rng), streams)

    def _batch(self) -> Trajectories:
        return self._sample(self._plan.batch_streams, self._plan.batch_steps, self._rng)

    def _sample(self, streams: int, steps: int, rng: Generator) -> Trajectories:
        return sample_trajectories(
            self._problem,
            self._theta,
            self._follower,
            streams=streams,
            steps=steps,
            rng=rng,
            simulator=self._simulator,
        )

    def _count(self, trajectories: Trajectories, draws: int) -> FloatArray:
        context = self.context
        if self._batched:
            rows = self.estimator.estimate(trajectories, context).mean[None]
        else:
            rows = self.estimator(trajectories, context)
        if rows.shape != (draws, self._theta.size) or not np.isfinite(rows).all():
            raise EstimatorError(f"{self.estimator.name}: expected finite rows {(draws, self._theta.size)}")
        self.steps += sum(self.estimator.cost(trajectories, context).values())
        self.drawn += draws
        return rows

    def _learnt_critic(self, rng: Generator) -> SarsaCritic:
        critic = SarsaCritic.start(self._follower, self._problem.discount_leader, rng=rng)
        for _ in range(self._plan.critic_batches):
            critic = critic.updated(self._sample(self._plan.batch_streams, self._plan.batch_steps, rng), rng=rng)
        return critic


def _row(
    described: dict[str, Any],
    sampler: _Sampler,
    truth: Hypergradient,
    expected: FloatArray | None,
    plan: SamplingPlan,
    started: float,
) -> EstimatorRow:
    norm = float(np.linalg.norm(truth.value))
    directions, names = _directions(truth, plan.seed)
    batched = sampler.estimator.draw is Draw.BATCH
    pilot = plan.batches if batched else PILOT
    collected = [rows @ directions for rows in sampler.rows(pilot)]
    if not batched:
        spread = float(np.concatenate(collected)[:, 0].std(ddof=1))
        most = max(PILOT, int(plan.step_budget * sampler.drawn / max(sampler.steps, 1)))
        wanted = draws_needed(0.5 * POWER_LIMIT * norm, max(spread, 1e-300), comparisons=plan.comparisons)
        # The pilot chose the number of draws, so it is not counted among them.
        sampler.steps = sampler.drawn = 0
        collected = [rows @ directions for rows in sampler.rows(min(most, max(PILOT, wanted)))]
    projected = np.concatenate(collected)
    sample = SampleMoments.of(projected)
    rows = projected[:, _coordinates(projected, truth)]
    cosine = cosine_interval(rows, truth.value)
    claimed = truth.value if expected is None else expected
    test = mean_test(
        sample, claimed @ directions, error_rate=ERROR_RATE, comparisons=plan.comparisons, known_error=truth.error_bound
    )
    verdict = (
        unjudged(Outcome.MEASURED, "no expectation is claimed")
        if expected is None
        else judge_sampled(test, along=0, scale=norm, names=names)
    )
    mean = rows.mean(axis=0)
    along = float((mean - truth.value) @ truth.value) / norm**2
    half = critical_value(sample.draws, error_rate=0.05) * float(sample.standard_deviation[0]) / math.sqrt(sample.draws)
    noise = float(rows.var(axis=0, ddof=1).sum()) / sample.draws
    found = float(np.linalg.norm(mean - truth.value)) ** 2
    known = None if expected is None else float(np.linalg.norm(expected - truth.value)) / norm
    return EstimatorRow(
        **described,
        draws=sample.draws,
        truth_norm=norm,
        # The squared norm of a noisy mean is too large by its variance.
        bias=math.sqrt(max(0.0, found - noise)) / norm if known is None else known,
        bias_along=along,
        bias_low=along - half / norm,
        bias_high=along + half / norm,
        deviation=math.nan if expected is None else float(np.linalg.norm(mean - expected)) / norm,
        standard_deviation=math.sqrt(noise * sample.draws) / norm,
        cosine=cosine.mean,
        cosine_low=cosine.low,
        cosine_high=cosine.high,
        steps_per_draw=sampler.steps / sampler.drawn,
        seconds=time.perf_counter() - started,
        verdict=verdict,
    )


def _directions(truth: Hypergradient, seed: int) -> tuple[FloatArray, list[str]]:
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
    unit = [column / np.linalg.norm(column) for column in columns]
    names.extend(f"at parameter {i}" for i in range(size))
    return np.concatenate([np.array(unit).T, np.eye(size)], axis=1), names


def _coordinates(projected: FloatArray, truth: Hypergradient) -> slice:
    return slice(projected.shape[1] - truth.value.size, None)


def comparisons_of(estimators: int, parameters: int) -> int:
    """Return the size of the family of comparisons over estimators and temperatures."""
    return estimators * len(FOUR_ROOMS_TEMPERATURES) * (parameters + 10)
