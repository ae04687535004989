"""Tests of means of bounded draws that hold at every number of draws: no limit theorem, no moment assumed.

For draws in [low, high] of width w the empirical Bernstein bound (Maurer & Pontil 2009, Theorem 4, both sides) says

    |mean - E| ≤ s √(2 L / n) + 7 w L / (3 (n - 1)),   L = log(4 K / α),

but for probability α over K comparisons, s the sample's standard deviation. What it would have seen is bounded by the
same paper's Theorem 10, `s ≤ σ + w √(2 L' / (n - 1))`, and by Bernstein's inequality for the mean itself, each at half
of 1 - power. All three are theorems; the price against Student's interval is about 1.2 in width once n is large.
"""

from __future__ import annotations

import math

import numpy as np

from bilevelrl.reference.arrays import FloatArray, check_shape
from bilevelrl.reference.doors import Count, checked
from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.verification.statistics.means import ERROR_RATE, POWER, MeanTest, SampleMoments, TestRate
from bilevelrl.verification.statistics.search import smallest_count

__all__ = ["bounded_mean_test", "draws_needed_bounded", "smallest_detectable_bounded_bias"]


@checked
def bounded_mean_test(
    rows: FloatArray,
    expected: FloatArray,
    *,
    low: float,
    high: float,
    error_rate: TestRate = ERROR_RATE,
    power: TestRate = POWER,
    comparisons: Count | None = None,
) -> MeanTest:
    """Hold the mean of independent draws in [low, high] against an expected mean.

    Guarantee: (a) where the expectation is right, some coordinate is rejected with probability at most `error_rate`,
    for every law on [low, high] and every n; (b) a coordinate that is off by
    `smallest_detectable_bounded_bias(n, σ, high - low)` is rejected with probability at least `power`; `detectable`
    is that number at the sample's own σ.

    Parameters
    ----------
    rows : (n, K)
        Independent draws.
    expected : (K,)
        What their expectation should be.
    low, high
        Bounds known beforehand, not read from the draws.
    error_rate, power, comparisons
        As in `mean_test`.

    Raises
    ------
    InvalidInputError
        If a draw is outside the bounds.

    Examples
    --------
    >>> coin = (np.random.default_rng(0).random((4000, 1)) < 0.5).astype(float)
    >>> found = [bounded_mean_test(coin, np.array([p]), low=0, high=1).rejected.tolist() for p in (0.5, 0.65)]
    >>> found
    [[False], [True]]
    """
    sample = SampleMoments.of(rows)
    check_shape("expected", expected, sample.mean.shape, "one per coordinate of rows")
    check_bounds(rows, low, high)
    family = sample.mean.size if comparisons is None else comparisons
    half_width = np.array(
        [_half_width(sample.draws, s, high - low, error_rate / family) for s in sample.standard_deviation]
    )
    detectable = np.array(
        [
            smallest_detectable_bounded_bias(
                sample.draws, float(s), high - low, error_rate=error_rate, power=power, comparisons=family
            )
            for s in sample.standard_deviation
        ]
    )
    bias = sample.mean - expected
    return MeanTest(
        bias=bias,
        half_width=half_width,
        detectable=detectable,
        gaussian=np.zeros(bias.shape, dtype=np.bool_),
        rejected=np.abs(bias) > half_width,
        error_rate=error_rate,
        power=power,
    )


def smallest_detectable_bounded_bias(
    draws: int,
    standard_deviation: float,
    width: float,
    *,
    error_rate: float = ERROR_RATE,
    power: float = POWER,
    comparisons: int = 1,
) -> float:
    """Return the smallest |bias| that `bounded_mean_test` is proven to see with probability `power` or more.

    Examples
    --------
    >>> round(smallest_detectable_bounded_bias(100_000, 0.5, 1.0), 4)
    0.0155
    """
    miss = 0.5 * (1.0 - power)
    spread = standard_deviation + width * math.sqrt(2.0 * math.log(1.0 / miss) / (draws - 1))
    logarithm = math.log(1.0 / miss)
    short = standard_deviation * math.sqrt(2.0 * logarithm / draws) + width * logarithm / (3.0 * draws)
    return _half_width(draws, spread, width, error_rate / comparisons) + short


def draws_needed_bounded(
    bias: float,
    standard_deviation: float,
    width: float,
    *,
    error_rate: float = ERROR_RATE,
    power: float = POWER,
    comparisons: int = 1,
) -> int:
    """Return the smallest number of draws whose `smallest_detectable_bounded_bias` is at most `bias`.

    Examples
    --------
    >>> n = draws_needed_bounded(0.05, 0.5, 1.0)
    >>> smallest_detectable_bounded_bias(n, 0.5, 1.0) <= 0.05 < smallest_detectable_bounded_bias(n - 1, 0.5, 1.0)
    True
    """
    if not bias > 0.0:
        raise InvalidInputError(refusal("bias", bias, "a number > 0", "no number of draws sees a bias of zero"))
    return smallest_count(
        lambda draws: (
            smallest_detectable_bounded_bias(
                draws, standard_deviation, width, error_rate=error_rate, power=power, comparisons=comparisons
            )
            <= bias
        )
    )


def check_bounds(rows: FloatArray, low: float, high: float) -> None:
    """Refuse draws outside [low, high], and bounds that are no interval."""
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InvalidInputError(f"low={low}, high={high}: expected finite low < high; bound the estimator beforehand")
    outside = (rows < low) | (rows > high) | ~np.isfinite(rows)
    if outside.any():
        draw, coordinate = (int(i) for i in np.argwhere(outside)[0])
        raise InvalidInputError(
            refusal(
                f"rows[{draw}, {coordinate}]",
                float(rows[draw, coordinate]),
                f"a number in [{low}, {high}]",
                "give bounds `low` and `high` that hold for every draw",
            )
        )


def _half_width(draws: int, standard_deviation: float, width: float, rate: float) -> float:
    logarithm = math.log(4.0 / rate)
    return standard_deviation * math.sqrt(2.0 * logarithm / draws) + 7.0 * width * logarithm / (3.0 * (draws - 1))
