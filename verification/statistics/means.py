"""Tests of means where nothing is known of the draws beforehand: Student's interval, or the median of means.

Student-t intervals hold for Gaussian draws and, by the central limit theorem, for means of many others. Error rates of
1e-6 ask for a tail where the theorem fails first for skewed draws: to first order the tail of Student's statistic at z
is off by the factor

    exp(|γ| z³ / (3 √n)),                                                                                          (1)

γ the skewness (Wang, Electronic J. Probab. 10, 2005). The critical value is raised until the corrected tail has the
declared rate. Where the factor exceeds 20 the correction is not to be trusted, and the median of means of k blocks
takes over, which needs a variance and nothing else: a block mean is off by more than c σ √(k/n) with probability at
most 1/c² (Chebyshev), and the median only if half the blocks are, which has probability at most

    exp(-k KL(1/2 ‖ 1/c²)).                                                                                        (2)

Its interval is about three times wider. Both know σ from the sample only. Where it rests on fewer draws than there are
blocks, as where one rare draw is most of it, the true σ may be several times larger, and the comparison is not judged.

Events too rare to have occurred are in no sample: n draws miss an event of probability p with probability
`(1 − p)^n`, whatever it would have added to the mean. Of draws whose law is known to have no such events nothing more
is asked. Others (`unknown_law`) are judged from so many draws on that no event of probability `MISSED` was missed, but
for the error rate, and only where they vary and the variance rests on `CARRYING` draws or more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import Count, Positive, Real, checked
from bilevelrl.reference.errors import ShapeError, refusal
from bilevelrl.verification.statistics.designs import (
    ERROR_RATE,
    POWER,
    MeanDesign,
    MeanTest,
    check_rate,
    uncertainty,
)
from bilevelrl.verification.statistics.stream import SampleMoments
from bilevelrl.verification.statistics.tails import chi2_isf, normal_isf, student_isf

__all__ = ["CARRYING", "MISSED", "MeanTest", "MedianOfMeans", "SampleMoments", "StudentDesign", "mean_test"]

# Largest factor by which the tail of Student's statistic is corrected for skewness.
TAIL_DISTORTION = 20.0
# Of a law that nothing is known of: what probability of an event may have been missed, and by how many draws its
# variance must be carried. What comes of it is counted in `docs/judging.md`.
MISSED = 0.02
CARRYING = 20.0


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class StudentDesign(MeanDesign):
    """A test of means of draws with a variance, of which nothing else is known beforehand.

    `detectable_bias` is that of Gaussian draws, b = δ σ/√n with δ the noncentrality at which Student's statistic
    exceeds the critical value as often as `power` says.

    Parameters
    ----------
    error_rate, power, comparisons
        As in every `MeanDesign`.
    unknown_law
        Whether rare events are to be reckoned with: too few draws, and a variance of few draws, are not judged.

    Examples
    --------
    >>> design = StudentDesign(error_rate=1e-6, power=0.999)
    >>> round(design.detectable_bias(10_000, 1.0), 3)
    0.08
    >>> n = design.draws_needed(0.08, 1.0)
    >>> design.detectable_bias(n, 1.0) <= 0.08 < design.detectable_bias(n - 1, 1.0)
    True
    >>> rows = np.random.default_rng(0).standard_normal((10_000, 2)) + np.array([0.0, 0.2])
    >>> design.test(rows, np.zeros(2)).rejected.tolist()
    [False, True]
    """

    unknown_law: bool = False

    @checked
    def draws_expected(self, bias: Positive, sample: SampleMoments) -> int:
        """Return about how many draws see a bias of the first coordinate, going by the moments of some.

        By the cheaper of the two intervals, from the draws on where it can be trusted.

        Raises
        ------
        TooLargeError
            As `draws_needed`.
        """
        spread, least = float(sample.standard_deviation[0]), 0
        if self.unknown_law:
            kurtosis = sample.draws / float(sample.carrying[0])
            least = max(self.draws_to_miss_nothing(), math.ceil(CARRYING * kurtosis))
        medians = (self.medians().reach * spread / bias) ** 2
        student = max(self.draws_needed(bias, spread), self.draws_for_tail(float(sample.skewness[0])))
        return max(least, math.ceil(min(student, medians)))

    @checked
    def draws_for_tail(self, skewness: float, *, coordinates: Count = 1) -> float:
        """Return the number of draws from which Student's interval, corrected for skewness, can be trusted.

        Examples
        --------
        >>> round(StudentDesign().draws_for_tail(2.0))
        678
        """
        z = float(normal_isf(0.5 * self.error_rate / self._family(coordinates)))
        root = abs(skewness) * z**3 / (3.0 * math.log(TAIL_DISTORTION))
        return root * root  # where (1) is 20; infinite beyond what a double holds

    @checked
    def draws_to_miss_nothing(self, *, coordinates: Count = 1) -> int:
        """Return how many draws miss no event of probability `MISSED`, but for the error rate.

        Examples
        --------
        >>> [StudentDesign(error_rate=a, comparisons=k).draws_to_miss_nothing() for a, k in ((0.05, 1), (1e-6, 10))]
        [149, 798]
        """
        return math.ceil(math.log(self.error_rate / self._family(coordinates)) / math.log1p(-MISSED))

    @checked
    def medians(self, *, coordinates: Count = 1) -> MedianOfMeans:
        """Return the interval that takes over where draws are too skewed for Student's."""
        return MedianOfMeans.design(error_rate=self.error_rate, power=self.power, comparisons=self._family(coordinates))

    @checked
    def blocks(self, coordinates: Count) -> int:
        """Return how many blocks of draws the median of means has."""
        return self.medians(coordinates=coordinates).blocks

    @checked
    def test_of(
        self,
        sample: SampleMoments,
        expected: FloatArray,
        *,
        medians: FloatArray | None,
        known_error: Real | FloatArray = 0.0,
    ) -> MeanTest:
        """Hold a mean against an expected mean (K,), from moments of the draws and medians of means of `blocks`.

        Examples
        --------
        >>> rows = np.random.default_rng(0).standard_normal((30, 1))  # fewer than there are blocks
        >>> StudentDesign().test_of(SampleMoments.of(rows), np.zeros(1), medians=None).rejected.tolist()
        [False]
        """
        size, draws = sample.mean.size, sample.draws
        if medians is not None and medians.shape != sample.mean.shape:
            raise ShapeError(refusal("medians.shape", medians.shape, f"{sample.mean.shape}", "one for each mean"))
        error = sample.standard_deviation / math.sqrt(draws)
        gaussian = self.draws_for_tail(1.0, coordinates=size) * sample.skewness**2 <= draws
        rates = _corrected_rates(sample.skewness, draws, self.error_rate / self._family(size))
        radius = student_isf(0.5 * rates, draws - 1)
        # The noncentrality of Gaussian draws, and what the correction adds on either side.
        quantile = self._quantile(draws, size)
        missed = _corrected_rates(sample.skewness, draws, 2.0 * (1.0 - self.power))
        short = normal_isf(0.5 * missed) - float(normal_isf(1.0 - self.power))
        reach = _noncentrality(quantile, draws, self.power) + (radius - quantile) + short
        robust = self.medians(coordinates=size)
        enough = medians is not None
        centre = sample.mean if medians is None else np.where(gaussian, sample.mean, medians)
        used = (draws // robust.blocks) * robust.blocks
        wider = math.sqrt(draws / used) if enough else math.inf
        known = uncertainty(sample, centre, expected, known_error)
        # A variance carried by fewer draws than there are blocks may be several times larger: nothing is known then.
        told = gaussian | (sample.carrying >= robust.blocks) | (error == 0.0)
        if self.unknown_law:
            seen = draws >= self.draws_to_miss_nothing(coordinates=size)
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
            error_rate=self.error_rate,
            power=self.power,
        )

    def _quantile(self, draws: int, coordinates: int = 1) -> float:
        return float(student_isf(0.5 * self.error_rate / self._family(coordinates), draws - 1))

    def _detectable(self, draws: int, standard_deviation: float) -> float:
        delta = _noncentrality(self._quantile(draws), draws, self.power)
        return delta * standard_deviation / math.sqrt(draws)


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


def _corrected_rates(skewness: FloatArray, draws: int, rate: float) -> FloatArray:
    """Two-sided rates p at which `p exp(|γ| z(p)³ / (3 √n)) = rate`: what to ask of a symmetric tail instead."""
    slope = np.abs(skewness) / (3.0 * math.sqrt(draws))
    # A fixed point: one step shrinks the error by 3 slope z, below 1/4 wherever the correction is used.
    exponent = np.minimum(slope * float(normal_isf(0.5 * rate)) ** 3, math.log(TAIL_DISTORTION))
    for _ in range(20):
        z = -special.ndtri(0.5 * rate * np.exp(-exponent))
        exponent = np.minimum(slope * z**3, 2.0 * math.log(TAIL_DISTORTION))
    result: FloatArray = rate * np.exp(-exponent)  # (1)
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
        blocks = math.ceil(math.log(comparisons / error_rate) / _divergence_from_half(p))  # (2)
        radius = math.sqrt(blocks / p)
        # At the power's own rate the median of the same blocks falls short by less.
        wanted = -math.log(1.0 - power) / blocks
        p_power = 0.5 * (1.0 - math.sqrt(1.0 - math.exp(-2.0 * wanted)))
        return cls(blocks=blocks, radius=radius, reach=radius + math.sqrt(blocks / p_power))


def _divergence_from_half(p: float) -> float:
    """KL(1/2 ‖ p) = −½ log(4 p (1 − p))."""
    return -0.5 * math.log(4.0 * p * (1.0 - p))


def mean_test(
    rows: FloatArray,
    expected: FloatArray,
    *,
    error_rate: float = ERROR_RATE,
    power: float = POWER,
    comparisons: int | None = None,
    known_error: Real | FloatArray = 0.0,
    unknown_law: bool = False,
) -> MeanTest:
    """Hold the mean of independent draws (n, K) against an expected mean (K,): `StudentDesign(...).test`.

    Parameters
    ----------
    rows, expected, known_error
        As in `MeanDesign.test`.
    error_rate, power, comparisons, unknown_law
        As in `StudentDesign`.

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
    design = StudentDesign(error_rate=error_rate, power=power, comparisons=comparisons, unknown_law=unknown_law)
    return design.test(rows, expected, known_error=known_error)


def _times(factor: float, error: FloatArray) -> FloatArray:
    return factor * error if math.isfinite(factor) else np.full_like(error, np.inf)
