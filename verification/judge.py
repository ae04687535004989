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

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from bilevelrl.reference import hypergradient
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import InvalidInputError, ShapeError, UnknownNameError, refusal
from bilevelrl.reference.storage import software_versions
from bilevelrl.tasks import Scenario, Truth, scenario
from bilevelrl.verification.error_budget import ErrorBudget
from bilevelrl.verification.judge_causes import Evidence, Explanation, explain
from bilevelrl.verification.statistics import (
    ERROR_RATE,
    POWER,
    CosineInterval,
    MeanTest,
    SampleMoments,
    cosine_interval,
    draws_needed,
    mean_test,
)
from bilevelrl.verification.verdicts import POWER_LIMIT, Outcome, Verdict, judge_sampled, unjudged

__all__ = ["Judgement", "comparison_directions", "judge_draws", "read_draws", "scenario_truth"]

SampledClaim: TypeAlias = Literal["unbiased", "ascent"]
"""What draws may be claimed to be: "unbiased" estimates, or on average of a positive product with the truth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What draws say about a claim.

    Attributes
    ----------
    scenario, claim : str
        What was judged; the claim in words.
    verdict : Verdict
        Passed, failed, no power; refused where the draws depend on each other.
    test : MeanTest
        All comparisons, in the order of `names`.
    names : tuple of str
        What each comparison is called.
    truth, mean, standard_deviation : (N,)
        The truth, and moments of one draw.
    draws, draws_needed : int
        How many there are; how many a bias of `POWER_LIMIT` of the truth needs, by Student's interval.
    cosine : CosineInterval
        Mean cosine of one draw with the truth.
    explanation : Explanation or None
        The nearest known mistake, where the claim was refused.
    budget : str
        What was spent on false alarms.
    """

    scenario: str
    claim: str
    verdict: Verdict
    test: MeanTest
    names: tuple[str, ...]
    truth: FloatArray
    mean: FloatArray
    standard_deviation: FloatArray
    draws: int
    draws_needed: int
    cosine: CosineInterval
    explanation: Explanation | None
    budget: str

    @property
    def passed(self) -> bool:
        """Whether the claim was judged and held."""
        return self.verdict.outcome is Outcome.PASSED

    def __str__(self) -> str:
        """The verdict, what it could see, and the worst comparisons."""
        lines = [
            f"{self.verdict.outcome.value.upper()}: {self.draws:,} draws on {self.scenario!r}, claimed {self.claim}",
            f"  {self.verdict.reason}",
        ]
        if self.explanation is not None:
            lines.append(f"  {self.explanation}")
        if self.verdict.outcome is Outcome.NO_POWER:
            lines.append(f"  a bias of {POWER_LIMIT:.0%} of the truth needs about {self.draws_needed:,} draws")
        with np.errstate(divide="ignore", invalid="ignore"):
            strength = np.nan_to_num(np.abs(self.test.bias) / self.test.half_width)
        for i in np.argsort(-strength)[:5]:
            lines.append(
                f"  {self.names[i]:<28} bias {self.test.bias[i]:+.3g} ± {self.test.half_width[i]:.2g}"
                f"{'  REJECTED' if self.test.rejected[i] else ''}"
            )
        lines.append(
            f"  mean cosine with the truth {self.cosine.mean:+.3f} [{self.cosine.low:+.3f}, {self.cosine.high:+.3f}]"
        )
        lines.append(f"  {self.budget}; power {self.test.power:g}")
        return "\n".join(lines)

    def to_json(self) -> str:
        """Everything as JSON, with versions; what is not finite becomes null."""
        record = {
            "scenario": self.scenario,
            "claim": self.claim,
            "outcome": self.verdict.outcome.value,
            "reason": self.verdict.reason,
            "detectable": self.verdict.detectable,
            "draws": self.draws,
            "draws_needed": self.draws_needed,
            "truth": self.truth.tolist(),
            "mean": self.mean.tolist(),
            "standard_deviation": self.standard_deviation.tolist(),
            "cosine": [self.cosine.low, self.cosine.mean, self.cosine.high],
            "likely_cause": None if self.explanation is None else self.explanation.cause,
            "comparisons": [
                {"name": name, "bias": float(b), "half_width": float(h), "rejected": bool(r)}
                for name, b, h, r in zip(
                    self.names, self.test.bias, self.test.half_width, self.test.rejected, strict=True
                )
            ],
            "error_rate": self.test.error_rate,
            "power": self.test.power,
            "versions": software_versions(),
        }
        return json.dumps(_finite(record), indent=1)


def judge_draws(
    draws: Any,
    on: Scenario | str,
    *,
    claim: SampledClaim | Sequence[float] | FloatArray = "unbiased",
    horizon: int | None = None,
    tolerated_bias: float = 0.0,
    error_rate: float = ERROR_RATE,
    power: float = POWER,
) -> Judgement:
    """Judge independent estimates of a scenario's hypergradient.

    Guarantee: (a) where the claim is right and draws are independent, it is refused with probability at most
    `error_rate` (by the central limit theorem, or medians of means where draws are skewed); (b) a comparison that is
    off by its `detectable` or more is refused with probability at least `power`. "passed" is only said where a bias of
    `POWER_LIMIT` of the truth, along the truth, would have been seen.

    Parameters
    ----------
    draws : (R, N)
        One independent estimate per row: a NumPy array, or anything that converts to one (JAX, PyTorch).
    on
        A scenario or its name.
    claim
        "unbiased"; or (N,), the expectation that a biased estimator declares; or "ascent": the expectation has a
        positive product with the truth.
    horizon
        Of the objective that the draws estimate; None: infinite.
    tolerated_bias
        Bias per comparison that is no reason for refusal, relative to the truth's norm.
    error_rate, power
        For the whole judgement; power of each comparison.

    Raises
    ------
    ShapeError
        If the draws are not (R, N) with R >= 4.
    InvalidInputError
        If a draw is not finite.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> truth = scenario("layered").truth
    >>> noise = np.random.default_rng(0).standard_normal((20_000, 3))
    >>> judge_draws(truth.value + noise, "layered").verdict.outcome.value
    'passed'
    >>> judged = judge_draws(truth.value - truth.parts["direct"] + noise, "layered")
    >>> judged.verdict.outcome.value, judged.explanation.cause
    ('failed', 'the direct part is missing')
    """
    at = scenario(on) if isinstance(on, str) else on
    rows = _checked_draws(draws, at.theta.size)
    if not 0.0 <= tolerated_bias < math.inf:
        raise InvalidInputError(
            refusal("tolerated_bias", tolerated_bias, "a finite number >= 0", "relative to the truth's norm")
        )
    truth = scenario_truth(at, horizon)
    stated, expected = _claimed(claim, truth)
    ascent = isinstance(claim, str) and claim == "ascent"
    norm = float(np.linalg.norm(truth.value))
    directions, names = comparison_directions(truth)
    if ascent:
        directions, names = directions[:, :1], names[:1]
    budget = ErrorBudget(error_rate)
    rates = budget.split({"independence": 1, "mean": len(names)})
    projected = rows @ directions
    test = mean_test(
        projected,
        expected @ directions,
        error_rate=rates["mean"],
        power=power,
        known_error=truth.error_bound + tolerated_bias * norm,
    )
    single = SampleMoments.of(rows)
    verdict = judge_ascent(test, norm) if ascent else judge_sampled(test, along=0, scale=norm, names=list(names))
    dependence = _dependence(projected[:, 0], error_rate=rates["independence"])
    if dependence is not None:
        verdict = unjudged(Outcome.REFUSED, dependence)
    explanation = None
    if verdict.failed and not ascent:
        coordinates = slice(len(names) - at.theta.size, None)
        explanation = explain(
            [
                Evidence(
                    scenario=at,
                    truth=truth,
                    difference=test.bias[coordinates] + expected - truth.value,
                    uncertainty=test.half_width[coordinates],
                )
            ]
        )
    spread = float(projected[:, 0].std(ddof=1))
    bias = POWER_LIMIT * norm
    needed = (
        draws_needed(bias, spread, error_rate=rates["mean"], power=power, comparisons=len(names)) if bias > 0 else 0
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
        draws=rows.shape[0],
        draws_needed=needed,
        cosine=cosine_interval(rows, truth.value),
        explanation=explanation,
        budget=str(budget),
    )


def judge_ascent(test: MeanTest, norm: float) -> Verdict:
    """Judge a claim of ascent from the single comparison along the truth, made against zero."""
    low, high = float(test.bias[0] - test.half_width[0]), float(test.bias[0] + test.half_width[0])
    detectable = float(test.detectable[0]) / norm if norm > 0.0 else math.inf
    said = f"mean product with the truth's direction in [{low:+.3g}, {high:+.3g}]"
    if high < 0.0:
        return Verdict(outcome=Outcome.FAILED, detectable=detectable, reason=f"{said}: descent")
    outcome = Outcome.PASSED if low > 0.0 else Outcome.NO_POWER
    return Verdict(outcome=outcome, detectable=detectable, reason=said)


def scenario_truth(on: Scenario, horizon: int | None) -> Truth:
    """Return the truth for a horizon: the stored one where there is one, else an exact route's.

    Examples
    --------
    >>> at = scenario("random")
    >>> scenario_truth(at, None) is at.truth, scenario_truth(at, at.horizon) is at.truncated
    (True, True)
    """
    if horizon is None or (on.ends and horizon >= on.horizon):
        return on.truth
    if horizon == on.horizon:
        return on.truncated
    exact = hypergradient(on.problem, on.theta, horizon=horizon)
    return Truth.of(objective=exact.objective, parts=exact.parts, error_bound=exact.error_bound)


def comparison_directions(truth: Truth) -> tuple[FloatArray, list[str]]:
    """Return unit directions (N, K) to compare means along, and their names: truth, parts, parameters.

    Examples
    --------
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


def read_draws(path: str | Path) -> FloatArray:
    """Read draws (R, N) from a .csv (one row per draw, an optional line of names), .npy, or .npz with one array.

    Raises
    ------
    InvalidInputError
        If the file cannot be read, or holds something else.
    """
    file = Path(path)
    try:
        if file.suffix == ".npy":
            found = np.load(file)
        elif file.suffix == ".npz":
            with np.load(file) as archive:
                if len(archive.files) != 1:
                    raise InvalidInputError(f"{file}: holds {archive.files}; expected one array of draws (R, N)")
                found = archive[archive.files[0]]
        elif file.suffix == ".csv":
            with file.open(encoding="utf-8") as lines:
                header = not _is_numeric(lines.readline())
            found = np.loadtxt(file, delimiter=",", skiprows=int(header), ndmin=2)
        else:
            raise InvalidInputError(refusal("draws", str(file), "a .csv, .npy or .npz file", "save one row per draw"))
    except (OSError, ValueError) as broken:
        if isinstance(broken, InvalidInputError):
            raise
        raise InvalidInputError(f"{file}: cannot be read ({broken}); expected one row of numbers per draw") from None
    return np.asarray(found)


def _is_numeric(line: str) -> bool:
    try:
        [float(entry) for entry in line.split(",")]
    except ValueError:
        return False
    return True


def _checked_draws(draws: Any, parameters: int) -> FloatArray:
    rows = np.asarray(draws)
    if rows.ndim == 1 and parameters == 1:
        rows = rows[:, None]
    if rows.ndim != 2 or rows.shape[1] != parameters or rows.shape[0] < 4:
        hint = "one independent estimate per row; a mean of them cannot be judged"
        raise ShapeError(refusal("draws.shape", rows.shape, f"(R, {parameters}) with R >= 4", hint))
    if rows.dtype.kind not in "fiu":
        raise InvalidInputError(refusal("draws.dtype", str(rows.dtype), "real numbers", "convert them"))
    if not np.isfinite(rows).all():
        draw, parameter = (int(i) for i in np.argwhere(~np.isfinite(rows))[0])
        raise InvalidInputError(
            refusal(f"draws[{draw}, {parameter}]", float(rows[draw, parameter]), "finite draws", "check the estimator")
        )
    return rows.astype(np.float64)


def _claimed(claim: Any, truth: Truth) -> tuple[str, FloatArray]:
    if isinstance(claim, str):
        if claim == "unbiased":
            return "unbiased", truth.value
        if claim == "ascent":
            return "of positive product with the truth", np.zeros_like(truth.value)
        raise UnknownNameError("claim", claim, ("unbiased", "ascent"))
    expected = np.asarray(claim, dtype=np.float64)
    if expected.shape != truth.value.shape or not np.isfinite(expected).all():
        raise ShapeError(refusal("claim", claim, f"finite {truth.value.shape}", "pass the declared expectation"))
    return "to have a declared expectation", expected


def _dependence(values: FloatArray, *, error_rate: float) -> str | None:
    """Say so where consecutive draws are correlated: products of disjoint pairs have mean zero if they are not."""
    centred = values - values.mean()
    pairs = centred.size // 2
    if pairs < 2 or not centred.any():
        return None
    products = (centred[0 : 2 * pairs : 2] * centred[1 : 2 * pairs : 2])[:, None]
    # Centring by the sample's own mean takes one part in R of the variance from each product.
    known = float(np.mean(centred**2)) / centred.size
    test = mean_test(products, np.zeros(1), error_rate=error_rate, known_error=known)
    if not test.rejected[0]:
        return None
    correlation = float(products.mean() / np.mean(centred**2))
    return (
        f"consecutive draws are correlated ({correlation:+.2f}), so no interval holds; "
        "expected independent estimates, one fresh seed each"
    )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
