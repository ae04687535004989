"""Judging draws of an estimator that is not ours to call: a file of numbers against the stored truth of a scenario.

Whoever makes rollouts elsewhere (another library, another language) needs only the scenario and R independent
estimates of its hypergradient. What can be said from them is statistical: a verdict with a declared rate of false
alarms, the smallest bias it could have seen, and the draws that a bias of a tenth of the truth would need. Comparisons
are made along the truth, along each of its parts, and at each parameter; a wrong estimator usually shows along the
truth or a part, where many coordinates add up.

Draws that depend on each other (successive states of one long run, repeated seeds) make every interval too short. So
consecutive draws are first tested for correlation along the truth, from the same error budget.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from bilevelrl.reference import Problem
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import NonNegative, Positive, as_is, checked
from bilevelrl.reference.errors import InvalidInputError, ShapeError, TooLargeError, UnknownNameError, refusal
from bilevelrl.reference.problem import Objective
from bilevelrl.tasks import Scenario
from bilevelrl.tasks.scenarios import Truth
from bilevelrl.verification.causes.explain import EXPLAIN_SECONDS, explain
from bilevelrl.verification.causes.explanation import Evidence
from bilevelrl.verification.checks.own_scenarios import chosen_scenarios
from bilevelrl.verification.checks.results import shown
from bilevelrl.verification.checks.verdicts import POWER_LIMIT, ROUNDED, Outcome, Verdict, judge_sampled, unjudged
from bilevelrl.verification.processes.jobs import Progress
from bilevelrl.verification.reading.draws import open_draws, read_array
from bilevelrl.verification.statistics.bounded import BoundedDesign, check_bounds
from bilevelrl.verification.statistics.cosine import cosine_interval_of, cosines
from bilevelrl.verification.statistics.designs import ERROR_RATE, POWER, MeanDesign, MeanTest, TestRate
from bilevelrl.verification.statistics.error_budget import ErrorBudget
from bilevelrl.verification.statistics.independence import Independence
from bilevelrl.verification.statistics.means import CARRYING, MISSED, StudentDesign
from bilevelrl.verification.statistics.stream import BlockMeans, RunningMoments, SampleMoments
from bilevelrl.verification.testing.judgement import ASCENT, Judgement, SampledClaim

__all__ = ["comparison_directions", "judge", "judge_draws", "read_draws"]


@checked
def judge(
    draws: Any,
    on: Scenario | str | None = None,
    *,
    problem: Annotated[Problem | None, as_is] = None,
    theta: Any = None,
    claim: SampledClaim | Sequence[float] | FloatArray = "unbiased",
    horizon: int | None = None,
    tolerated_bias: NonNegative = 0.0,
    accuracy: NonNegative | None = None,
    bounds: tuple[float, float] | None = None,
    error_rate: TestRate = ERROR_RATE,
    power: TestRate = POWER,
    causes: bool = True,
    explain_seconds: Positive = EXPLAIN_SECONDS,
    progress: Progress | None = None,
) -> Judgement:
    """Judge independent estimates of the hypergradient of a scenario, or of any problem at θ.

    Guarantee: (a) where the claim is right and draws are independent, it fails with probability at most
    `error_rate` (by the central limit theorem, or medians of means where draws are skewed; nothing fails where so
    few draws could have missed an event of probability 0.02, where they do not vary, or where a handful makes their
    variance); (b) a comparison that is off by its `detectable` or more fails with probability at least `power`.
    "passed" is only said where a bias of `POWER_LIMIT` of the truth, along the truth, would have been seen.

    Parameters
    ----------
    draws : (R, N)
        One independent estimate per row: a NumPy array, or anything that converts to one (JAX, PyTorch); the path of a
        .csv, .npy or .npz file; or an iterator over blocks (r, N). They are worked on in blocks, so that files and
        iterators may hold more than memory does.
    on
        A scenario or its name.
    problem, theta
        Instead: your own problem of any kind, at θ; its truth is computed.
    claim
        "unbiased"; or (N,), the expectation that a biased estimator declares; or "ascent": the expectation has a
        positive product with the truth.
    horizon
        Of the objective that the draws estimate; None: infinite.
    tolerated_bias
        Bias per comparison that is no reason to fail, relative to the truth's norm.
    accuracy
        Rounding of the draws' mean, relative to the truth's norm; None: 4096 units of the last place of their dtype
        (9e-13 for doubles and files, 5e-4 for float32).
    bounds : (low, high) or None
        Bounds of every number in the draws, known beforehand: then tests are used that hold for every distribution
        within them and any number of draws (`BoundedDesign`).
    error_rate, power
        For the whole judgement; power of each comparison.
    causes
        Look for the known mistake that agrees, or comes nearest, where the claim fails.
    explain_seconds
        That this search may take; what it cuts off is said.
    progress
        Told after each block: (draws done, draws in all, what is done).

    Raises
    ------
    ShapeError
        If the draws are not (R, N) with R >= 4.
    InvalidInputError
        If a draw is not a finite real number, or a file cannot be read.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> truth = scenario("layered").truth
    >>> noise = np.random.default_rng(0).standard_normal((20_000, 3))
    >>> judge(truth.value + noise, "layered").verdict.outcome.value
    'passed'
    >>> judged = judge(truth.value - truth.parts["direct"] + noise, "layered")
    >>> judged.verdict.outcome.value, judged.explanation.cause
    ('failed', 'the direct part is missing')

    Draws that are known never to leave [-2, 2]:

    >>> judge(truth.value + 0.1 * np.clip(noise, -5.0, 5.0), "layered", bounds=(-2.0, 2.0)).passed
    True

    Any problem of your own:

    >>> from bilevelrl.reference import hypergradient
    >>> from bilevelrl.tasks import toy_game_theta, toy_markov_game
    >>> game, theta = toy_markov_game(), toy_game_theta(0.3)
    >>> judge(hypergradient(game, theta).value + 0.1 * noise, problem=game, theta=theta).verdict.outcome.value
    'passed'
    """
    found = chosen_scenarios(on, problem=problem, theta=theta)
    if found is None:
        raise InvalidInputError("on and problem: expected one of them; name where the draws are from")
    (at,) = found
    truth = at.truth_of(Objective(horizon=horizon))
    stated, expected = _claimed(claim, truth)
    ascent = isinstance(claim, str) and claim == "ascent"
    norm = float(np.linalg.norm(truth.value))
    directions, names = comparison_directions(truth)
    size = at.theta.size
    parts = directions[:, : len(names) - size]
    if ascent:
        names = names[:1]
    compared = slice(0, len(names))
    budget = ErrorBudget(error_rate)
    rates = budget.split({"independence": 1, "mean": len(names)})
    with open_draws(draws, size, progress=progress) as opened:
        running = RunningMoments.start(parts.shape[1] + size + 1)
        for rows in opened.blocks("moments of the draws"):
            running = running.updated(np.concatenate([rows @ parts, rows, cosines(rows, truth.value)], axis=1))
        sample = running.sample()
        rounding = ROUNDED * opened.epsilon if accuracy is None else accuracy
        independence = Independence(sample.columns(slice(0, 1)), error_rate=rates["independence"])
        design: MeanDesign = StudentDesign(
            error_rate=rates["mean"], power=power, comparisons=len(names), unknown_law=True
        )
        if bounds is not None:
            low, high = bounds
            design = BoundedDesign(
                error_rate=rates["mean"], power=power, comparisons=len(names), low=low, high=high
            ).along(directions[:, compared])
        means = BlockMeans(blocks=design.blocks(len(names)), draws=sample.draws, columns=len(names))
        for rows in opened.blocks("dependence of the draws"):
            if bounds is not None:
                check_bounds(rows, *bounds)
            projected = np.concatenate([rows @ parts, rows], axis=1)[:, compared]
            means.add(projected)
            independence.add(projected[:, 0], rows)
    test = design.test_of(
        sample.columns(compared),
        (expected @ directions)[compared],
        medians=means.median(),
        known_error=truth.error_bound + (tolerated_bias + rounding) * norm,
    )
    single = sample.columns(slice(parts.shape[1], -1))
    seen = shown(truth, truth.error_bound) if stated == "unbiased" else {}
    verdict = judge_ascent(test, norm) if ascent else judge_sampled(test, along=0, scale=norm, names=list(names))
    dependence = independence.refusal()
    if dependence is not None:
        verdict = unjudged(Outcome.NOT_APPLICABLE, dependence)
    elif not np.isfinite(test.half_width).all() and not verdict.failed:
        verdict = replace(verdict, reason=f"{verdict.reason}; {_untold(test, sample.columns(compared), design)}")
    explanation = None
    if causes and verdict.failed and not ascent:
        coordinates = slice(len(names) - size, None)
        explanation = explain(
            [
                Evidence(
                    scenario=at,
                    truth=truth,
                    difference=test.bias[coordinates] + expected - truth.value,
                    uncertainty=test.half_width[coordinates],
                )
            ],
            seconds=explain_seconds,
            progress=progress,
        )
    return Judgement(
        scenario=at.name,
        claim=stated,
        verdict=verdict,
        test=test,
        names=tuple(names),
        truth=truth.value,
        mean=single.mean,
        standard_deviation=single.standard_deviation,
        draws=sample.draws,
        draws_needed=_draws_for_power(sample, norm, design),
        cosine=cosine_interval_of(sample.columns(slice(-1, None))),
        explanation=explanation,
        budget=str(budget),
        untested=tuple(str(part) for part, size in seen.items() if size == 0.0),
    )


judge_draws = judge
"""The same under its first name."""


def judge_ascent(test: MeanTest, norm: float) -> Verdict:
    """Judge a claim of ascent from the single comparison along the truth, made against zero."""
    low, high = float(test.bias[0] - test.half_width[0]), float(test.bias[0] + test.half_width[0])
    detectable = float(test.detectable[0]) / norm if norm > 0.0 else math.inf
    said = f"mean product with the truth's direction in [{low:+.3g}, {high:+.3g}]"
    if high < 0.0:
        return Verdict(outcome=Outcome.FAILED, detectable=detectable, reason=f"{said}: descent")
    if not math.isfinite(high):
        said = f"mean product with the truth's direction {float(test.bias[0]):+.3g}, of unknown accuracy"
    outcome = Outcome.PASSED if low > 0.0 else Outcome.NO_POWER
    return Verdict(outcome=outcome, detectable=detectable, reason=said)


def comparison_directions(truth: Truth) -> tuple[FloatArray, list[str]]:
    """Return unit directions (N, K) to compare means along, and their names: truth, parts, parameters.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> directions, names = comparison_directions(scenario("toll").truth)
    >>> names
    ['along the truth', 'along the direct part', 'along the response part', 'at parameter 0']
    """
    size = truth.value.size
    columns, names = [truth.value], ["along the truth"]
    for part, value in truth.parts.items():
        if value.any() and not np.array_equal(value, truth.value):
            columns.append(value)
            names.append(f"along the {part} part")
    lengths = [max(float(np.linalg.norm(column)), np.finfo(np.float64).tiny) for column in columns]
    unit = [column / length for column, length in zip(columns, lengths, strict=True)]
    names.extend(f"at parameter {i}" for i in range(size))
    return np.concatenate([np.array(unit).T, np.eye(size)], axis=1), names


@checked
def read_draws(path: str | Path) -> FloatArray:
    """Read draws (R, N) from a .csv (one row per draw, an optional line of names), .npy, or .npz with one array.

    Raises
    ------
    InvalidInputError
        If the file cannot be read, or holds something else.
    """
    return read_array(path, "path")


def _claimed(claim: Any, truth: Truth) -> tuple[str, FloatArray]:
    if isinstance(claim, str):
        if claim == "unbiased":
            return "unbiased", truth.value
        if claim == "ascent":
            return ASCENT, np.zeros_like(truth.value)
        raise UnknownNameError("claim", claim, ("unbiased", "ascent"))
    expected = np.asarray(claim, dtype=np.float64)
    if expected.shape != truth.value.shape or not np.isfinite(expected).all():
        raise ShapeError(refusal("claim", claim, f"finite {truth.value.shape}", "pass the declared expectation"))
    return "to have a declared expectation", expected


def _untold(test: MeanTest, sample: SampleMoments, design: MeanDesign) -> str:
    """Why some comparisons were not made."""
    assert isinstance(design, StudentDesign)  # within bounds, all are
    family, still = test.bias.size, sample.standard_deviation == 0.0
    fewest = design.draws_to_miss_nothing()
    few = int((~np.isfinite(test.half_width) & ~still).sum())
    said = []
    if still.any():
        off = np.abs(test.bias[still]).max()
        said.append(
            f"{int(still.sum())} of {family} comparisons never varied, and are off by {off:.2g} at most (one row of a "
            "deterministic gradient is checked by `check_gradient`)"
        )
    if few and sample.draws < fewest:
        said.append(f"{sample.draws:,} draws may have missed events of probability {MISSED:g}: {fewest:,} would not")
    elif few:
        said.append(f"{few} of {family} comparisons rest on fewer than {CARRYING:g} large draws")
    return "; ".join(said)


def _draws_for_power(sample: SampleMoments, norm: float, design: MeanDesign) -> int | None:
    """Draws that a bias of `POWER_LIMIT` of the truth needs; None where no feasible number is enough."""
    if norm == 0.0:
        return 0
    if sample.standard_deviation[0] == 0.0:
        return None
    try:
        return design.draws_expected(POWER_LIMIT * norm, sample)
    except TooLargeError:
        return None
