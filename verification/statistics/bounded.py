"""Tests of means of bounded draws that hold at every number of draws: no limit theorem, no moment assumed.

For draws in [low, high] of width w the empirical Bernstein bound (Maurer & Pontil 2009, Theorem 4, both sides) says

    |mean - E| ≤ s √(2 L / n) + 7 w L / (3 (n - 1)),   L = log(4 K / α),                                           (1)

but for probability α over K comparisons, s the sample's standard deviation. What it would have seen is bounded by the
same paper's Theorem 10 and by Bernstein's inequality for the mean itself, each at half of 1 - power: with L' = log(2 /
(1 - power))

    s ≤ σ + w √(2 L' / (n - 1)),                                                                                   (2)
    |mean - E| ≤ σ √(2 L' / n) + w L' / (3 n).                                                                     (3)

All three are theorems; the price against Student's interval is about 1.2 in width once n is large.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import Count, Real, checked
from bilevelrl.reference.errors import InvalidInputError, ShapeError, refusal
from bilevelrl.verification.statistics.designs import Draws, MeanDesign, MeanTest, uncertainty
from bilevelrl.verification.statistics.stream import SampleMoments

__all__ = ["BoundedDesign", "check_bounds"]


@checked
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BoundedDesign(MeanDesign):
    """A test of means of draws that never leave an interval: it holds for every distribution there and every n.

    Parameters
    ----------
    error_rate, power, comparisons
        As in every `MeanDesign`.
    low, high : float or (K,)
        Bounds known beforehand, not read from the draws; with several, the widest counts where one bias is asked for.

    Raises
    ------
    InvalidInputError
        If the bounds are no interval; from `test`, if a draw is outside.

    Examples
    --------
    >>> design = BoundedDesign(low=0.0, high=1.0)
    >>> round(design.detectable_bias(100_000, 0.5), 4)
    0.0155
    >>> n = design.draws_needed(0.05, 0.5)
    >>> design.detectable_bias(n, 0.5) <= 0.05 < design.detectable_bias(n - 1, 0.5)
    True
    >>> coin = (np.random.default_rng(0).random((4000, 1)) < 0.5).astype(float)
    >>> [design.test(coin, np.array([p])).rejected.tolist() for p in (0.5, 0.65)]
    [[False], [True]]
    """

    low: float | FloatArray
    high: float | FloatArray

    def __post_init__(self) -> None:
        if not (np.asarray(self.low) <= self.high).all():
            raise InvalidInputError(
                f"low={self.low}, high={self.high}: expected low <= high; bound the estimator beforehand"
            )

    @checked
    def along(self, directions: FloatArray) -> BoundedDesign:
        """Return the design for projections (n, K) of such draws (n, N) on directions (N, K).

        Examples
        --------
        >>> design = BoundedDesign(low=-1.0, high=3.0).along(np.array([[1.0, 0.5], [0.0, -0.5]]))
        >>> design.low.tolist(), design.high.tolist()
        ([-1.0, -2.0], [3.0, 2.0])
        """
        entries = max(np.size(self.low), np.size(self.high))
        if directions.ndim != 2 or entries not in (1, directions.shape[0]):
            wanted = f"({entries if entries > 1 else 'N'}, K)"
            raise ShapeError(refusal("directions.shape", directions.shape, wanted, "one column per direction"))
        up, down = np.maximum(directions, 0.0).T, np.minimum(directions, 0.0).T
        low, high = (np.broadcast_to(end, directions.shape[:1]) for end in (self.low, self.high))
        return replace(self, low=up @ low + down @ high, high=up @ high + down @ low)

    @checked
    def test(self, rows: FloatArray, expected: FloatArray, *, known_error: Real | FloatArray = 0.0) -> MeanTest:
        """Hold the mean of draws (n, K) within the bounds against an expectation (K,); see `MeanDesign.test`."""
        check_bounds(rows, self.low, self.high)
        return MeanDesign.test(self, rows, expected, known_error=known_error)

    @checked
    def test_of(
        self,
        sample: SampleMoments,
        expected: FloatArray,
        *,
        medians: FloatArray | None = None,
        known_error: Real | FloatArray = 0.0,
    ) -> MeanTest:
        """Hold a mean against an expected mean (K,), from moments of draws within the bounds."""
        known, family = uncertainty(sample, sample.mean, expected, known_error), self._family(sample.mean.size)
        half_width = self._half_width(sample.draws, sample.standard_deviation, family) + known
        bias = sample.mean - expected
        return MeanTest(
            bias=bias,
            half_width=half_width,
            detectable=self._reach(sample.draws, sample.standard_deviation, family) + 2 * known,
            gaussian=np.ones(bias.shape, dtype=np.bool_),
            rejected=np.abs(bias) > half_width,
            error_rate=self.error_rate,
            power=self.power,
        )

    @checked
    def half_width(self, draws: Draws, standard_deviation: float | FloatArray, *, comparisons: Count = 1) -> FloatArray:
        """Return half the interval of each mean, at the sample's standard deviations."""
        return self._half_width(draws, standard_deviation, comparisons)

    def _half_width(self, draws: int, standard_deviation: float | FloatArray, comparisons: int) -> FloatArray:
        logarithm = math.log(4.0 / (self.error_rate / comparisons))
        sampled = np.asarray(standard_deviation) * math.sqrt(2.0 * logarithm / draws)
        half: FloatArray = sampled + 7.0 * self._width * logarithm / (3.0 * (draws - 1))  # (1)
        return half

    def _detectable(self, draws: int, standard_deviation: float) -> float:
        return float(np.max(self._reach(draws, standard_deviation, self._family())))

    @property
    def _width(self) -> FloatArray:
        width: FloatArray = np.asarray(self.high) - np.asarray(self.low)
        return width

    def _reach(self, draws: int, standard_deviation: float | FloatArray, comparisons: int) -> FloatArray:
        logarithm = math.log(2.0 / (1.0 - self.power))
        spread = standard_deviation + self._width * math.sqrt(2.0 * logarithm / (draws - 1))  # (2)
        sampled = np.asarray(standard_deviation) * math.sqrt(2.0 * logarithm / draws)
        short = sampled + self._width * logarithm / (3.0 * draws)  # (3)
        reach: FloatArray = self._half_width(draws, spread, comparisons) + short
        return reach


def check_bounds(rows: FloatArray, low: float | FloatArray, high: float | FloatArray) -> None:
    """Refuse draws (n, K) outside [low, high]."""
    entries = max(np.size(low), np.size(high))
    if rows.ndim != 2 or entries not in (1, rows.shape[1]):
        wanted = f"(n, {entries if entries > 1 else 'K'})"
        raise ShapeError(
            refusal("rows.shape", rows.shape, wanted, "one row per draw, bounds for each coordinate or all")
        )
    outside = (rows < low) | (rows > high)
    if outside.any():
        draw, coordinate = (int(i) for i in np.argwhere(outside)[0])
        least, most = (float(np.broadcast_to(end, rows.shape)[draw, coordinate]) for end in (low, high))
        raise InvalidInputError(
            refusal(
                f"rows[{draw}, {coordinate}]",
                float(rows[draw, coordinate]),
                f"a number in [{least:g}, {most:g}]",
                "give bounds `low` and `high` that hold for every draw",
            )
        )
