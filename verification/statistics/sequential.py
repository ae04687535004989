"""Means tested in stages, as Gandy & Scott (2020) test Monte Carlo code: cheap where right, powerful where wrong.

A stage draws afresh and computes a p-value. With k stages, α the rate of false alarms of the whole test and
γ = (α/k)^{1/k}, stage i = 0, ..., k-1 rejects where p ≤ β_i = γ^k / γ^i, stops with "nothing found" where
p > γ + β_i, and hands on to the next stage otherwise. Under a right claim stage i is reached with probability at most
γ^i, so it rejects with probability at most γ^i β_i = α/k, and the whole test at most α. At α = 1e-6 and k = 7 nine of
ten right estimators are done after the first stage, while each stage on the way asks for less and less evidence.
(A p-value that is too large, as Bonferroni's is, only lowers the rate of rejection.)

    staged_mean_test            draws, judges, and says after how many stages
    staged_detectable_bias      what a design sees with stated power
    staged_draws_needed         first-stage draws that a bias needs

p-values are Student's, each enlarged by the first-order effect of skewness on a tail, `exp(|γ₃| z³ / (3 √n))` where
that expansion still grows with z: they hold for means by the central limit theorem and that correction, with moments
read from the sample. `statistics_anytime` needs less where a bound is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bilevelrl.reference.arrays import BoolArray, FloatArray, check_array, check_shape, store_floats
from bilevelrl.reference.doors import check_integer, checked
from bilevelrl.reference.errors import EstimatorError, InvalidInputError, refusal
from bilevelrl.verification.statistics.means import ERROR_RATE, POWER, SampleMoments, TestRate
from bilevelrl.verification.statistics.search import smallest_count, smallest_size
from bilevelrl.verification.statistics.tails import student_cdf, student_isf, student_sf

__all__ = [
    "StagedDesign",
    "StagedTest",
    "mean_p_values",
    "staged_detectable_bias",
    "staged_draws_needed",
    "staged_mean_test",
    "staged_rejection_probability",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedDesign:
    """Stages, draws and thresholds.

    Parameters
    ----------
    first_draws
        Draws of the first stage.
    stages
        k, at least 1.
    growth
        All later stages draw so many times more.
    error_rate
        α of the whole test, over all coordinates.
    comparisons
        Number of coordinates K.

    Examples
    --------
    >>> design = StagedDesign(first_draws=1000)
    >>> [f"{design.reject_below(i):.1e}" for i in (0, 6)], f"{design.continue_probability:.2f}"
    (['1.4e-07', '1.1e-01'], '0.11')
    """

    first_draws: int
    stages: int = 7
    growth: int = 2
    error_rate: float = ERROR_RATE
    comparisons: int = 1

    def __post_init__(self) -> None:
        store_floats(self)
        for name, least in (("first_draws", 2), ("stages", 1), ("growth", 1), ("comparisons", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidInputError(refusal(name, value, f"an integer >= {least}", "see StagedDesign"))
        if not 0.0 < self.error_rate < 1.0:
            raise InvalidInputError(
                refusal("error_rate", self.error_rate, "a number strictly between 0 and 1", "e.g. 1e-6")
            )

    @property
    def continue_probability(self) -> float:
        """γ: how often a right estimator is handed on by a stage."""
        return float((self.error_rate / self.stages) ** (1.0 / self.stages))

    def reject_below(self, stage: int) -> float:
        """β_i: stage i = 0, ... rejects at p-values up to it."""
        return self.continue_probability ** (self.stages - self._checked(stage))

    def stop_above(self, stage: int) -> float:
        """γ + β_i: stage i finds nothing at p-values above it; the last stage hands nothing on."""
        last = self._checked(stage) == self.stages - 1
        return self.reject_below(stage) + (0.0 if last else self.continue_probability)

    def draws(self, stage: int) -> int:
        """Return the number of draws of a stage."""
        return self.first_draws * (self.growth if self._checked(stage) > 0 else 1)

    def _checked(self, stage: int) -> int:
        return check_integer("stage", stage, low=0, high=self.stages - 1)

    @property
    def expected_draws(self) -> float:
        """Draws that a right estimator with exact p-values costs on average."""
        reached = [self.continue_probability**stage for stage in range(self.stages)]
        return math.fsum(p * self.draws(stage) for stage, p in enumerate(reached))


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedTest:
    """What a staged test found.

    Attributes
    ----------
    rejected : bool
        Whether the claim was rejected.
    coordinate : int
        Where the last stage saw most.
    bias, p_values : (K,)
        Sample mean minus expected mean, and p-values of the last stage.
    stages, draws : int
        Stages run, and draws over all of them.
    detectable : (K,)
        Bias that the design sees with the stated power, at the last stage's standard deviations.
    error_rate, power : float
        As declared.
    """

    rejected: bool
    coordinate: int
    bias: FloatArray
    p_values: FloatArray
    stages: int
    draws: int
    detectable: FloatArray
    error_rate: float
    power: float


@checked
def staged_mean_test(
    draw: Callable[[int], FloatArray], expected: FloatArray, *, design: StagedDesign, power: TestRate = POWER
) -> StagedTest:
    """Hold the mean of an estimator against an expected mean, stage by stage.

    Parameters
    ----------
    draw
        n → (n, K): fresh independent draws at every call.
    expected : (K,)
        What their expectation should be.
    design
        Stages and rates.
    power
        At which `detectable` is stated.

    Raises
    ------
    EstimatorError, ShapeError, InvalidInputError
        If `draw` raises, or returns another number of draws than asked for, or what is no finite number.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> test = staged_mean_test(lambda n: rng.standard_normal((n, 1)), np.array([0.2]),
    ...                         design=StagedDesign(first_draws=1000))
    >>> test.rejected, test.stages, test.draws
    (True, 1, 1000)
    """
    check_shape("expected", expected, (None,), "one per coordinate")
    total = 0
    for stage in range(design.stages):
        wanted = design.draws(stage)
        rows = check_array(f"draw({wanted})", draw(wanted))
        if rows.shape != (wanted, expected.size):
            raise EstimatorError(f"draw({wanted}) returned shape {rows.shape}; expected {(wanted, expected.size)}")
        total += wanted
        sample = SampleMoments.of(rows)
        p_values = mean_p_values(sample, expected)
        smallest = min(1.0, design.comparisons * float(p_values.min()))
        rejected = smallest <= design.reject_below(stage)
        if rejected or smallest > design.stop_above(stage):
            break
    unit = staged_detectable_bias(design, 1.0, power=power)
    return StagedTest(
        rejected=rejected,
        coordinate=int(np.argmin(p_values)),
        bias=sample.mean - expected,
        p_values=p_values,
        stages=stage + 1,
        draws=total,
        detectable=unit * sample.standard_deviation,
        error_rate=design.error_rate,
        power=power,
    )


def mean_p_values(sample: SampleMoments, expected: FloatArray) -> FloatArray:
    """Return two-sided p-values (K,) of claimed means, enlarged where draws are skewed.

    Examples
    --------
    >>> rows = np.random.default_rng(0).standard_normal((1000, 1))
    >>> bool(mean_p_values(SampleMoments.of(rows), np.zeros(1))[0] > 1e-3)
    True
    """
    difference = np.abs(sample.mean - expected)
    # Rounding of a mean is no evidence.
    rounding = 4 * np.finfo(np.float64).eps * (np.abs(sample.mean) + np.abs(expected))
    constant: BoolArray = sample.standard_deviation == 0.0
    error = np.where(constant, 1.0, sample.standard_deviation) / math.sqrt(sample.draws)
    z = np.maximum(difference - rounding, 0.0) / error
    skewness = np.abs(sample.skewness)
    # Beyond √n/γ the expansion would take back what larger deviations show; the tail only falls.
    with np.errstate(divide="ignore"):
        turn = np.where(skewness > 0.0, math.sqrt(sample.draws) / skewness, np.inf)
    reach = np.minimum(z, turn)
    from scipy import stats  # whose import takes a third of the package's

    log_p = math.log(2.0) + stats.t.logsf(reach, sample.draws - 1)
    log_p = log_p + skewness * reach**3 / (3.0 * math.sqrt(sample.draws))
    p_values = np.exp(np.minimum(log_p, 0.0))
    return np.where(constant, np.where(difference > rounding, 0.0, 1.0), p_values)


def staged_rejection_probability(design: StagedDesign, shift: float) -> float:
    """Return the probability that a design rejects where one mean is off by `shift` standard deviations of a draw.

    For Gaussian draws with known variance; the other coordinates only add to it.

    Examples
    --------
    >>> design = StagedDesign(first_draws=1000)
    >>> f"{staged_rejection_probability(design, 0.0):.2e}", staged_rejection_probability(design, 0.2) > 0.99
    ('1.00e-06', True)
    """
    reached, rejected = 1.0, 0.0
    for stage in range(design.stages):
        draws = design.draws(stage)
        reject = _exceeds(design.reject_below(stage), design.comparisons, shift * math.sqrt(draws), draws)
        stay = _exceeds(min(1.0, design.stop_above(stage)), design.comparisons, shift * math.sqrt(draws), draws)
        rejected += reached * reject
        reached *= max(0.0, stay - reject)
    return rejected


def staged_detectable_bias(design: StagedDesign, standard_deviation: float, *, power: float = POWER) -> float:
    """Return the smallest |bias| that a design rejects with probability `power` or more.

    Examples
    --------
    >>> round(staged_detectable_bias(StagedDesign(first_draws=10_000), 1.0), 3)
    0.047
    """
    if standard_deviation == 0.0:
        return 0.0
    return standard_deviation * _detectable_shift(design, power)


def staged_draws_needed(
    bias: float,
    standard_deviation: float,
    *,
    stages: int = 7,
    growth: int = 2,
    error_rate: float = ERROR_RATE,
    power: float = POWER,
    comparisons: int = 1,
) -> StagedDesign:
    """Return the design with the fewest first-stage draws that sees a bias with probability `power`.

    Examples
    --------
    >>> design = staged_draws_needed(0.05, 1.0)
    >>> staged_detectable_bias(design, 1.0) <= 0.05
    True
    """
    if not (bias > 0.0 and standard_deviation > 0.0):
        raise InvalidInputError(f"bias={bias}, standard_deviation={standard_deviation}: expected numbers > 0")

    def design(first: int) -> StagedDesign:
        return StagedDesign(
            first_draws=first, stages=stages, growth=growth, error_rate=error_rate, comparisons=comparisons
        )

    shift = bias / standard_deviation
    return design(smallest_count(lambda first: staged_rejection_probability(design(first), shift) >= power))


@lru_cache(maxsize=256)
def _detectable_shift(design: StagedDesign, power: float) -> float:
    return smallest_size(
        lambda shift: staged_rejection_probability(design, shift) >= power, guess=1.0 / math.sqrt(design.first_draws)
    )


def _exceeds(level: float, comparisons: int, mean: float, draws: int) -> float:
    """P(K p ≤ level) for a t statistic around `mean`."""
    if level >= 1.0:
        return 1.0
    threshold = float(student_isf(0.5 * level / comparisons, draws - 1))
    return float(student_sf(threshold - mean, draws - 1) + student_cdf(-threshold - mean, draws - 1))
