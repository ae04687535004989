"""What every design of a test of means answers, its rates, and the outcome.

A check of an expectation by sampling can only say: the bias is not larger than so much. A design is a frozen dataclass
of rates and of what is known beforehand, and answers three questions, each the inverse of another:

    test                judges draws against an expected mean
    detectable_bias     what a given number of draws would have seen
    draws_needed        how many draws would see a given bias

All rates are of the whole family of comparisons and are split evenly over it (Bonferroni).
"""

from __future__ import annotations

import abc
import functools
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from bilevelrl.reference.arrays import BoolArray, FloatArray, as_float, check_shape
from bilevelrl.reference.doors import Count, Positive, Real, Spread, check_count, checked, checked_record
from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.verification.statistics.draws_needed import smallest_count
from bilevelrl.verification.statistics.stream import BlockMeans, SampleMoments

__all__ = ["ERROR_RATE", "POWER", "Draws", "MeanDesign", "MeanTest", "TestRate", "check_rate", "uncertainty"]

ERROR_RATE = 1e-6
POWER = 1.0 - 1e-3


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
Draws = Annotated[int, functools.partial(check_count, minimum=2)]
"""A number of draws that shows a variance."""


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
        Where the sample mean is used, with Student's interval or a bound's; elsewhere the median of means.
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


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class MeanDesign(abc.ABC):
    """A test of means of independent draws.

    Guarantee: (a) where the expectation is right, some coordinate is rejected with probability at most `error_rate`;
    (b) a coordinate whose expectation is off by `MeanTest.detectable` or more is rejected with probability at least
    `power`. `detectable` shrinks as 1/√n and grows as the square root of the logarithm of comparisons over error rate.

    Parameters
    ----------
    error_rate, power
        Rate of false alarms over all comparisons; power of each.
    comparisons
        Size of the family; None: as many as coordinates are tested, and one in questions about a single bias.
    """

    error_rate: TestRate = ERROR_RATE
    power: TestRate = POWER
    comparisons: Count | None = None

    @checked
    def detectable_bias(self, draws: Draws, standard_deviation: Spread) -> float:
        """Return the smallest |bias| that so many draws show with probability `power` or more."""
        return self._detectable(draws, standard_deviation)

    @checked
    def draws_needed(self, bias: Positive, standard_deviation: Spread) -> int:
        """Return the smallest number of draws whose `detectable_bias` is at most `bias`.

        Raises
        ------
        InvalidInputError
            If the bias is not > 0, or the spread not finite.
        TooLargeError
            If no number of draws up to `LARGEST_COUNT` is enough.
        """
        return smallest_count(lambda draws: self._detectable(draws, standard_deviation) <= bias)

    @checked
    def draws_expected(self, bias: Positive, sample: SampleMoments) -> int:
        """Return about how many draws see a bias of the first coordinate, going by the moments of some.

        Raises
        ------
        TooLargeError
            As `draws_needed`.
        """
        return self.draws_needed(bias, float(sample.standard_deviation[0]))

    @checked
    def blocks(self, coordinates: Count) -> int:
        """Return how many blocks of draws `test_of` takes the means of."""
        return 1

    @checked
    def test(self, rows: FloatArray, expected: FloatArray, *, known_error: Real | FloatArray = 0.0) -> MeanTest:
        """Hold the mean of draws (n, K) against an expectation (K,), itself known up to `known_error`.

        Raises
        ------
        ShapeError
            If shapes differ.
        """
        sample = SampleMoments.of(rows)
        means = BlockMeans(blocks=self.blocks(rows.shape[1]), draws=rows.shape[0], columns=rows.shape[1])
        means.add(rows)
        return self.test_of(sample, expected, medians=means.median(), known_error=known_error)

    @abc.abstractmethod
    def test_of(
        self,
        sample: SampleMoments,
        expected: FloatArray,
        *,
        medians: FloatArray | None,
        known_error: Real | FloatArray = 0.0,
    ) -> MeanTest:
        """Do the same from moments of draws, and the medians (K,) of the means of `blocks`; None: of too few draws."""

    @abc.abstractmethod
    def _detectable(self, draws: int, standard_deviation: float) -> float: ...

    def _family(self, coordinates: int = 1) -> int:
        return coordinates if self.comparisons is None else self.comparisons


def uncertainty(
    sample: SampleMoments, centre: FloatArray, expected: FloatArray, known_error: float | FloatArray
) -> FloatArray:
    """Return what is not known of a difference of means (K,) beside sampling: `known_error`, and rounding.

    Raises
    ------
    ShapeError, InvalidInputError
        If shapes differ, or an error is no number >= 0.
    """
    check_shape("expected", expected, sample.mean.shape, "one per coordinate of rows")
    if np.ndim(known_error):
        check_shape("known_error", known_error, sample.mean.shape, "one per coordinate of rows")
    if not np.all(np.asarray(known_error) >= 0.0):
        raise InvalidInputError(refusal("known_error", known_error, "numbers >= 0, or inf", "pass an error bound"))
    known: FloatArray = known_error + 4 * np.finfo(np.float64).eps * (np.abs(centre) + np.abs(expected))
    return known
