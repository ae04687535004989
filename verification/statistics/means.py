"""Tests of means from independent draws, with a declared rate of false alarms and a declared power.

A check of an expectation by sampling can only say: the bias is not larger than so much. Three functions go together,
and each is the inverse of another:

    mean_test                       judges draws against an expected mean
    smallest_detectable_bias        what a given number of draws would have seen
    draws_needed                    how many draws would see a given bias

Student-t intervals hold for Gaussian draws and, by the central limit theorem, for means of many others. Error rates of
1e-6 ask for a tail where the theorem fails first for skewed draws: to first order the tail of Student's statistic at z
is off by the factor `exp(|γ| z³ / (3 √n))`, γ the skewness (Wang, Electronic J. Probab. 10, 2005). The critical value
is raised until the corrected tail has the declared rate. Where the factor exceeds 20 the correction is not to be
trusted, and the median of means of k blocks takes over, which needs a variance and nothing else: a block mean is off by
more than c σ √(k/n) with probability at most 1/c² (Chebyshev), and the median only if half the blocks are, which has
probability at most `exp(-k KL(1/2 ‖ 1/c²))`. Its interval is about three times wider. Both know σ from the sample only.
Where it rests on fewer draws than there are blocks, as where one rare draw is most of it, the true σ may be several
times larger, and the comparison is not judged.

Events too rare to have occurred are in no sample: n draws miss an event of probability p with probability
`(1 − p)^n`, whatever it would have added to the mean. Of draws whose law is known to have no such events nothing more
is asked. Others (`unknown_law`) are judged from so many draws on that no event of probability `MISSED` was missed, but
for the error rate, and only where they vary and the variance rests on `CARRYING` draws or more.

All rates are of the whole family of comparisons and are split evenly over it (Bonferroni).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import numpy as np
from scipy import special

from bilevelrl.reference.arrays import BoolArray, FloatArray, as_float, check_shape
from bilevelrl.reference.doors import Count, Positive, Spread, checked, checked_record
from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.verification.statistics.search import smallest_count
from bilevelrl.verification.statistics.stream import BlockMeans, SampleMoments
from bilevelrl.verification.statistics.tails import chi2_isf, normal_isf, student_isf

__all__ = [
    "MeanTest",
    "MedianOfMeans",
    "SampleMoments",
    "TestRate",
    "check_rate",
    "critical_value",
    "draws_for_tail",
    "draws_needed",
    "draws_to_miss_nothing",
    "mean_test",
    "mean_test_of",
    "smallest_detectable_bias",
]

ERROR_RATE = 1e-6
POWER = 1.0 - 1e-3
# Largest factor by which the tail of Student's statistic is corrected for skewness.
TAIL_DISTORTION = 20.0
# Of a law that nothing is known of: what probability of an event may have been missed, and by how many draws its
# variance must be carried. What comes of it is counted in `docs/judging.md`.
MISSED = 0.02
CARRYING = 20.0


def check_rate(name: str, value: float) -> float:
    """Return a rate, or refuse what is none."""
    # Far below, quantiles and the searches for numbers of draws leave what doubles can tell.
    expected, remedy = "a number strictly between 1e-120 and 1", "e.g. 1e-6 or 0.999"
    rate = as_float(name, value, expected, remedy)
    if not 1e-120 < rate < 1.0:
        raise InvalidInputError(refusal(name, value, expected, remedy))
    return rate


TestRate = Annotated[float, check_rate]
"""A rate of false alarms, or a power."""


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True)
class MeanTest:
    """Outcome of holding a sample mean against an expected mean, coordinate by coordinate.

    Attributes
    ----------
    bias : (K,)
        Estimate of the mean − expected: the sample mean, or the median of means where that is used.
    half_width : (K,)
        Half the simultaneous confidence interval of the bias; inf where a coordinate is not testable.
    detectable : (K,)
        Bias that the test would have seen with the stated power; inf where it is not testable.
    gaussian : (K,) bool
        Where Student's interval is used; elsewhere the median of means.
    rejected : (K,) bool
        Where the interval does not contain the expected mean.
    error_rate, power : float
        Of the whole family, and of each comparison.
    """

    bias: FloatArray
    half_width: FloatArray
    detectable: FloatArray
    gaussian: BoolArray
    rejected: BoolArray
    error_rate: float
    power: float


def critical_value(draws: int, *, error_rate: float = ERROR_RATE, comparisons: int = 1) -> float:
    """Return the two-sided Student quantile at `error_rate / comparisons` with n − 1 degrees of freedom.

    Raises
    ------
    InvalidInputError
        If a rate is not in (0, 1) or there are fewer than two draws or no comparison.

    Examples
    --------
    >>> round(critical_value(1_000_000, error_rate=0.05), 2)
    1.96
    """
    check_rate("error_rate", error_rate)
    if draws < 2 or comparisons < 1:
        raise InvalidInputError(f"draws={draws}, comparisons={comparisons}: expected draws >= 2 and comparisons >= 1")
    return float(student_isf(0.5 * error_rate / comparisons, draws - 1))


@checked
def smallest_detectable_bias(
    draws: Count,
    standard_deviation: Spread,
    *,
    error_rate: TestRate = ERROR_RATE,
    power: TestRate = POWER,
    comparisons: Count = 1,
) -> float:
    """Return the smallest |bias| that the test sees with probability `power` or more.

    For Gaussian draws that is b = δ σ/√n with δ the noncentrality at which Student's statistic exceeds the critical
    value with that probability.

    Examples
    --------
    >>> round(smallest_detectable_bias(10_000, 1.0, error_rate=1e-6, power=0.999), 3)
    0.08
    """
    return _detectable(draws, standard_deviation, error_rate, power, comparisons)


def _detectable(draws: int, standard_deviation: float, error_rate: float, power: float, comparisons: int) -> float:
    quantile = critical_value(draws, error_rate=error_rate, comparisons=comparisons)
    return _noncentrality(quantile, draws, power) * standard_deviation / math.sqrt(draws)


@lru_cache(maxsize=1024)
def _noncentrality(quantile: float, draws: int, power: float) -> float:
    """Return δ with Pr(T_{n-1}(δ) > quantile) ≥ power, T the noncentral Student law; equal from thirty draws on."""
    # Either S is above its quantile or the mean falls short of its own, each with half of 1 − power at most.
    spread = math.sqrt(float(chi2_isf(0.5 * (1.0 - power), draws - 1)) / (draws - 1))
    enough = quantile * spread + float(normal_isf(0.5 * (1.0 - power)))
    if draws < 30:
        return enough  # the noncentral law's distribution function cannot be evaluated that far out

    def missed(delta: float) -> float:
        return float(special.nctdtr(draws - 1, delta, quantile)) - (1.0 - power)

    from scipy.optimize import brentq  # slow to import, and seldom needed

    return float(brentq(missed, 0.5 * enough, enough, xtol=1e-12))


@checked
def draws_needed(
    bias: Positive,
    standard_deviation: Spread,
    *,
    error_rate: TestRate = ERROR_RATE,
    power: TestRate = POWER,
    comparisons: Count = 1,
) -> int:
    """Return the smallest number of draws whose `smallest_detectable_bias` is at most `bias`.

    Raises
    ------
    InvalidInputError
        If the bias is not > 0, or the spread not finite.
    TooLargeError
        If no number of draws up to `LARGEST_COUNT` is enough.

    Examples
    --------
    >>> n = draws_needed(0.08, 1.0)
    >>> smallest_detectable_bias(n, 1.0) <= 0.08 < smallest_detectable_bias(n - 1, 1.0)
    True
    """
    return smallest_count(lambda draws: _detectable(draws, standard_deviation, error_rate, power, comparisons) <= bias)


def draws_for_tail(skewness: float, *, error_rate: float = ERROR_RATE, comparisons: int = 1) -> float:
    """Return the number of draws from which Student's interval, corrected for skewness, can be trusted.

    Parameters
    ----------
    skewness
        γ of one draw.
    error_rate, comparisons
        As in `mean_test`.

    Examples
    --------
    >>> round(draws_for_tail(2.0))
    678
    """
    z = float(normal_isf(0.5 * error_rate / comparisons))
    return (abs(skewness) * z**3 / (3.0 * math.log(TAIL_DISTORTION))) ** 2


def draws_to_miss_nothing(*, error_rate: float = ERROR_RATE, comparisons: int = 1) -> int:
    """Return how many draws miss no event of probability `MISSED`, but for the error rate.

    Examples
    --------
    >>> draws_to_miss_nothing(error_rate=0.05), draws_to_miss_nothing(error_rate=1e-6, comparisons=10)
    (149, 798)
    """
    check_rate("error_rate", error_rate)
    return math.ceil(math.log(error_rate / comparisons) / math.log1p(-MISSED))


def _corrected_rates(skewness: FloatArray, draws: int, rate: float) -> FloatArray:
    """Two-sided rates p at which `p exp(|γ| z(p)³ / (3 √n)) = rate`: what to ask of a symmetric tail instead."""
    slope = np.abs(skewness) / (3.0 * math.sqrt(draws))
    # A fixed point: one step shrinks the error by 3 slope z, below 1/4 wherever the correction is used.
    exponent = np.minimum(slope * float(normal_isf(0.5 * rate)) ** 3, math.log(TAIL_DISTORTION))
    for _ in range(20):
        z = -special.ndtri(0.5 * rate * np.exp(-exponent))
        exponent = np.minimum(slope * z**3, 2.0 * math.log(TAIL_DISTORTION))
    result: FloatArray = rate * np.exp(-exponent)
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class MedianOfMeans:
    """The design of a median-of-means interval: `|median − E| ≤ radius σ/√n` but for the error rate.

    Attributes
    ----------
    blocks : int
        Number of blocks k that n draws are cut into.
    radius, reach : float
        Half-width, and half-width plus what the median may fall short of at the stated power, in units of σ/√n.
    """

    blocks: int
    radius: float
    reach: float

    @classmethod
    def design(cls, *, error_rate: float = ERROR_RATE, power: float = POWER, comparisons: int = 1) -> MedianOfMeans:
        """Choose the number of blocks for an error rate, split over comparisons.

        Examples
        --------
        >>> design = MedianOfMeans.design(error_rate=1e-6)
        >>> design.blocks, round(design.radius, 1)
        (33, 16.6)
        """
        check_rate("error_rate", error_rate)
        check_rate("power", power)
        # P(|block mean − E| > c σ √(k/n)) ≤ 1/c² = p; p = .12 makes the interval nearly as short as any.
        p = 0.12
        blocks = math.ceil(math.log(comparisons / error_rate) / _divergence_from_half(p))
        radius = math.sqrt(blocks / p)
        # At the power's own rate the median of the same blocks falls short by less.
        wanted = -math.log(1.0 - power) / blocks
        p_power = 0.5 * (1.0 - math.sqrt(1.0 - math.exp(-2.0 * wanted)))
        return cls(blocks=blocks, radius=radius, reach=radius + math.sqrt(blocks / p_power))

    def estimate(self, rows: FloatArray) -> FloatArray | None:
        """Return the median (K,) of the means of k consecutive blocks of rows (n, K); None where n < k."""
        means = BlockMeans(blocks=self.blocks, draws=rows.shape[0], columns=rows.shape[1])
        means.add(rows)
        return means.median()


def _divergence_from_half(p: float) -> float:
    """KL(1/2 ‖ p) = −½ log(4 p (1 − p))."""
    return -0.5 * math.log(4.0 * p * (1.0 - p))


@checked
def mean_test(
    rows: FloatArray,
    expected: FloatArray,
    *,
    error_rate: TestRate = ERROR_RATE,
    power: TestRate = POWER,
    comparisons: Count | None = None,
    known_error: float | FloatArray = 0.0,
    unknown_law: bool = False,
) -> MeanTest:
    """Hold the mean of independent draws against an expected mean.

    Guarantee: (a) where the expectation is right, some coordinate is rejected with probability at most `error_rate`;
    (b) a coordinate whose expectation is off by `detectable` or more is rejected with probability at least `power`.
    `detectable` shrinks as 1/√n and grows as the square root of the logarithm of comparisons over error rate.

    Parameters
    ----------
    rows : (n, K)
        Independent draws.
    expected : (K,)
        What their expectation should be.
    error_rate, power
        Rate of false alarms over all comparisons; power of each.
    comparisons
        Size of the family; default K.
    known_error
        How far `expected` itself may be off (an error bound), added to the interval.
    unknown_law
        Whether rare events are to be reckoned with: too few draws, and a variance of few draws, are not judged.

    Raises
    ------
    ShapeError
        If shapes differ.

    Examples
    --------
    >>> rows = np.random.default_rng(0).standard_normal((10_000, 2)) + np.array([0.0, 0.2])
    >>> mean_test(rows, np.zeros(2)).rejected.tolist()
    [False, True]
    """
    sample = SampleMoments.of(rows)
    family = rows.shape[1] if comparisons is None else comparisons
    return mean_test_of(
        sample,
        expected,
        medians=MedianOfMeans.design(error_rate=error_rate, power=power, comparisons=family).estimate(rows),
        error_rate=error_rate,
        power=power,
        comparisons=comparisons,
        known_error=known_error,
        unknown_law=unknown_law,
    )


def mean_test_of(
    sample: SampleMoments,
    expected: FloatArray,
    *,
    medians: FloatArray | None,
    error_rate: float = ERROR_RATE,
    power: float = POWER,
    comparisons: int | None = None,
    known_error: float | FloatArray = 0.0,
    unknown_law: bool = False,
) -> MeanTest:
    """Hold a mean against an expected mean, from moments of the draws: `mean_test` without the draws.

    Parameters
    ----------
    sample
        Moments of K coordinates.
    expected : (K,)
        What their expectation should be.
    medians : (K,) or None
        `MedianOfMeans.estimate` of the same family; None where there are fewer draws than blocks.
    error_rate, power, comparisons, known_error, unknown_law
        As in `mean_test`.

    Examples
    --------
    >>> rows = np.random.default_rng(0).standard_normal((30, 1))  # fewer than there are blocks
    >>> mean_test_of(SampleMoments.of(rows), np.zeros(1), medians=None).rejected.tolist()
    [False]
    """
    check_rate("error_rate", error_rate)
    check_rate("power", power)
    check_shape("expected", expected, sample.mean.shape, "one per coordinate of rows")
    if np.ndim(known_error):
        check_shape("known_error", known_error, sample.mean.shape, "one per coordinate of rows")
    family = sample.mean.size if comparisons is None else comparisons
    error = sample.standard_deviation / math.sqrt(sample.draws)
    gaussian = draws_for_tail(1.0, error_rate=error_rate, comparisons=family) * sample.skewness**2 <= sample.draws
    rates = _corrected_rates(sample.skewness, sample.draws, error_rate / family)
    radius = student_isf(0.5 * rates, sample.draws - 1)
    # The noncentrality of Gaussian draws, and what the correction adds on either side.
    quantile = critical_value(sample.draws, error_rate=error_rate, comparisons=family)
    missed = _corrected_rates(sample.skewness, sample.draws, 2.0 * (1.0 - power))
    short = normal_isf(0.5 * missed) - float(normal_isf(1.0 - power))
    reach = _noncentrality(quantile, sample.draws, power) + (radius - quantile) + short
    robust = MedianOfMeans.design(error_rate=error_rate, power=power, comparisons=family)
    enough = medians is not None
    centre = sample.mean if medians is None else np.where(gaussian, sample.mean, medians)
    used = (sample.draws // robust.blocks) * robust.blocks
    wider = math.sqrt(sample.draws / used) if enough else math.inf
    known = known_error + 4 * np.finfo(np.float64).eps * (np.abs(centre) + np.abs(expected))
    # A variance carried by fewer draws than there are blocks may be several times larger: nothing is known then.
    told = gaussian | (sample.carrying >= robust.blocks) | (error == 0.0)
    if unknown_law:
        seen = sample.draws >= draws_to_miss_nothing(error_rate=error_rate, comparisons=family)
        told &= seen & (sample.carrying >= CARRYING) & (error > 0.0)
    half_width = np.where(gaussian, radius * error, _times(robust.radius * wider, error)) + known
    half_width = np.where(told, half_width, np.inf)
    detectable = np.where(gaussian, reach * error, _times(robust.reach * wider, error)) + 2 * known
    detectable = np.where(told, detectable, np.inf)
    bias = centre - expected
    return MeanTest(
        bias=bias,
        half_width=half_width,
        detectable=detectable,
        gaussian=gaussian,
        rejected=np.abs(bias) > half_width,
        error_rate=error_rate,
        power=power,
    )


def _times(factor: float, error: FloatArray) -> FloatArray:
    return factor * error if math.isfinite(factor) else np.full_like(error, np.inf)
