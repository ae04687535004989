"""Estimators on larger problems, held against the exact hypergradient by many independent draws.

Formula level: a draw is one trajectory. Practical level: a draw is one batch as experiments use it, one stream of a
hundred steps with episodes that follow each other, and a critic that SARSA has learnt from earlier batches. A pilot
tells how many draws a bias of half the power limit needs; the check takes that many, up to a budget of steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from bilevelrl.estimators import (
    Claim,
    Draw,
    Estimator,
    EstimatorEntry,
    Objective,
    estimators_for,
)
from bilevelrl.reference import MarkovGame, named_stream
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import EstimatorError, SupportError, TooLargeError, UnsupportedError
from bilevelrl.tasks import Scenario
from bilevelrl.tasks.scenarios import Truth
from bilevelrl.verification.checks.once import evaluated_once
from bilevelrl.verification.checks.results import shown
from bilevelrl.verification.checks.truncation import truncated_truths
from bilevelrl.verification.checks.verdicts import POWER_LIMIT, Outcome, Verdict, judge_sampled, unjudged
from bilevelrl.verification.enumeration.limits import TookTooLongError
from bilevelrl.verification.pipeline.rows import EstimatorRow, described
from bilevelrl.verification.pipeline.sampling import Sampler, SamplingPlan
from bilevelrl.verification.statistics.cosine import cosine_interval
from bilevelrl.verification.statistics.designs import ERROR_RATE, POWER, MeanTest
from bilevelrl.verification.statistics.means import SampleMoments, StudentDesign, mean_test

__all__ = ["check_by_sampling", "sampled_estimators", "sampled_row"]


# Draws from which the cost of one is read.
PROBE = 32
# Single draws, at most: what standard deviation, cosine and the number of draws to take are read from.
PILOT = 4096
# Draws per vector-Jacobian product, at most, where only means are needed; and the number of such means, at least:
# a variance is relied on where it rests on more draws than a median of means has blocks, and even Gaussian means carry
# only a third of their number.
GROUP = 256
LEAST_GROUPS = 256


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
    estimator: Estimator,
    on: Scenario,
    plan: SamplingPlan,
    *,
    level: str = "yours",
    name: str = "",
    accuracy: float = 0.0,
) -> tuple[EstimatorRow, MeanTest | None]:
    """Return the same of any estimator, with all comparisons, the last N at each parameter.

    `accuracy` is the error of an entry of the mean, relative to the largest part of the truth, that is allowed.
    """
    with evaluated_once(on):
        return _sampled_row(estimator, on, plan, level, name or estimator.name, accuracy)


def _sampled_row(
    estimator: Estimator, on: Scenario, plan: SamplingPlan, level: str, name: str, accuracy: float
) -> tuple[EstimatorRow, MeanTest | None]:
    started = time.perf_counter()
    batch = f"batch of {plan.batch_streams} × {plan.batch_steps} steps"
    row = described(estimator, on, level=level, method="sampling", batch=batch)
    try:
        sampler = Sampler(name, estimator, on, plan)
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
        return _row(row, sampler, truth, expected, plan, started, unsaid=unsaid, cut=cut, accuracy=accuracy)
    except (UnsupportedError, SupportError) as refused:
        return replace(row, verdict=unjudged(Outcome.NOT_APPLICABLE, str(refused))), None
    except TookTooLongError:
        raise
    except EstimatorError as broken:
        verdict = Verdict(outcome=Outcome.FAILED, detectable=0.0, reason=str(broken))
        return replace(row, check="contract", verdict=verdict), None


def _row(
    row: EstimatorRow,
    sampler: Sampler,
    truth: Truth,
    expected: FloatArray | None,
    plan: SamplingPlan,
    started: float,
    *,
    unsaid: str,
    cut: float,
    accuracy: float,
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
    size = max((float(np.abs(part).max()) for part in truth.parts.values()), default=norm)
    allowed = (accuracy + sampler.rounding) * size * np.abs(directions).sum(axis=0)
    test = _tested(projected, claimed @ directions, truth.error_bound + cut + allowed, plan)
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


def _tested(projected: FloatArray, expected: FloatArray, known_error: FloatArray, plan: SamplingPlan) -> MeanTest:
    """Test along the truth, the first comparison, with half the error rate, and everything else with the other half."""
    halves = [
        mean_test(
            projected[:, chosen],
            expected[chosen],
            error_rate=0.5 * ERROR_RATE,
            comparisons=plan.checks * expected[chosen].size,
            known_error=known_error[chosen],
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
