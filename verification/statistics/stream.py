"""Moments and block means of independent draws, from draws that come piece by piece.

Central moments of pieces are merged as Chan, Golub & LeVeque (1983) and Pébay (Sandia SAND2008-6212) do: nothing is
subtracted that was not centred first, so no digit is lost where the mean is large beside the spread. Every column is
held in units of a power of two at its largest draw, which costs no rounding, so that fourth powers of draws of any
size neither overflow nor vanish.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked, checked_record
from bilevelrl.reference.errors import InvalidInputError, ShapeError, refusal

__all__ = ["BlockMeans", "RunningMoments", "SampleMoments"]


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True)
class SampleMoments:
    """First moments of independent draws, per coordinate.

    Attributes
    ----------
    draws : int
        Number of draws n.
    mean, standard_deviation, skewness : (K,)
        Of one draw; skewness is zero where nothing varies.
    carrying : (K,)
        How many draws the variance rests on: n over the kurtosis; one where a single draw makes all of it, n where
        nothing varies.
    """

    draws: int
    mean: FloatArray
    standard_deviation: FloatArray
    skewness: FloatArray
    carrying: FloatArray

    @classmethod
    @checked
    def of(cls, rows: FloatArray) -> SampleMoments:
        """Compute them from draws (n, K).

        Raises
        ------
        ShapeError
            If there are fewer than two draws.
        InvalidInputError
            If a draw is not finite.

        Examples
        --------
        >>> SampleMoments.of(np.array([[0.0], [2.0]])).standard_deviation.tolist()
        [1.4142135623730951]
        """
        if rows.ndim != 2 or rows.shape[0] < 2:
            raise ShapeError(refusal("rows.shape", rows.shape, "(n, K) with n >= 2", "draw more replicates"))
        return RunningMoments.start(rows.shape[1]).updated(rows).sample()

    @checked
    def columns(self, chosen: slice) -> SampleMoments:
        """Return the moments of some coordinates."""
        return SampleMoments(
            draws=self.draws,
            mean=self.mean[chosen],
            standard_deviation=self.standard_deviation[chosen],
            skewness=self.skewness[chosen],
            carrying=self.carrying[chosen],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningMoments:
    """Sums of powers of centred draws under way; `updated` returns them after more draws.

    Attributes
    ----------
    draws : int
        Seen so far.
    largest : (K,)
        Largest |draw| so far.
    exponent : (K,) int
        Of two, at `largest`; mean and powers are in its unit.
    mean, second, third, fourth : (K,)
        Mean, and sums of powers of the centred draws.

    Examples
    --------
    >>> running = RunningMoments.start(1)
    >>> for piece in ([[1.0], [2.0]], [[6.0]]):
    ...     running = running.updated(np.array(piece))
    >>> running.sample().mean.tolist(), running.sample().standard_deviation.round(9).tolist()
    ([3.0], [2.645751311])
    """

    draws: int
    largest: FloatArray
    exponent: NDArray[np.int32]
    mean: FloatArray
    second: FloatArray
    third: FloatArray
    fourth: FloatArray

    @classmethod
    def start(cls, columns: int) -> RunningMoments:
        """Return the sums before any draw."""
        zero = np.zeros(columns)
        return cls(
            draws=0,
            largest=zero,
            exponent=np.zeros(columns, dtype=np.int32),
            mean=zero,
            second=zero,
            third=zero,
            fourth=zero,
        )

    def updated(self, rows: FloatArray) -> RunningMoments:
        """Return the sums after more draws (n, K).

        Raises
        ------
        InvalidInputError
            If a draw is not finite.
        """
        count = rows.shape[0]
        if count == 0:
            return self
        largest = np.maximum(self.largest, np.maximum(rows.max(axis=0), -rows.min(axis=0)))
        if not np.isfinite(largest).all():
            raise InvalidInputError("rows: expected finite draws; check the estimator")
        exponent = np.frexp(largest)[1]
        scaled = np.ldexp(rows, -exponent)
        # From the first draw on: what never varies has exactly its own mean.
        centred = scaled - scaled[0]
        off = centred.mean(axis=0)
        centre = scaled[0] + off
        centred -= off
        square = centred * centred
        second, third = square.sum(axis=0), np.einsum("ij,ij->j", square, centred)
        fourth = np.einsum("ij,ij->j", square, square)
        shift = self.exponent - exponent
        mean_a, second_a = np.ldexp(self.mean, shift), np.ldexp(self.second, 2 * shift)
        third_a, fourth_a = np.ldexp(self.third, 3 * shift), np.ldexp(self.fourth, 4 * shift)
        n_a, n_b = float(self.draws), float(count)
        n = n_a + n_b
        # Pébay (2008), equations 2.1 and 3.1 with two sets: δ the difference of their means.
        delta = centre - mean_a
        step = delta / n
        return RunningMoments(
            draws=self.draws + count,
            largest=largest,
            exponent=exponent,
            mean=mean_a + delta * (n_b / n),
            second=second_a + second + delta * step * n_a * n_b,
            third=third_a
            + third
            + delta * step**2 * n_a * n_b * (n_a - n_b)
            + 3.0 * step * (n_a * second - n_b * second_a),
            fourth=fourth_a
            + fourth
            + delta * step**3 * n_a * n_b * (n_a**2 - n_a * n_b + n_b**2)
            + 6.0 * step**2 * (n_a**2 * second + n_b**2 * second_a)
            + 4.0 * step * (n_a * third - n_b * third_a),
        )

    def sample(self) -> SampleMoments:
        """Return the moments of the draws so far, two or more."""
        variance = self.second / self.draws
        # A coordinate that varies by rounding only is constant.
        largest = np.ldexp(self.largest, -self.exponent)
        constant = np.sqrt(variance) <= 8 * np.finfo(np.float64).eps * largest
        safe = np.where(constant, 1.0, variance)
        deviation = np.sqrt(self.second / (self.draws - 1))
        fourth = np.where(constant, 1.0, self.fourth)
        return SampleMoments(
            draws=self.draws,
            mean=np.ldexp(self.mean, self.exponent),
            standard_deviation=np.where(constant, 0.0, np.ldexp(deviation, self.exponent)),
            skewness=np.where(constant, 0.0, self.third / self.draws / safe**1.5),
            carrying=np.where(constant, float(self.draws), self.second**2 / fourth),
        )


class BlockMeans:
    """Means of k consecutive blocks of ⌊n/k⌋ draws each, and their median; draws beyond are not used.

    Examples
    --------
    >>> means = BlockMeans(blocks=2, draws=5, columns=1)
    >>> for piece in ([[1.0]], [[3.0], [5.0]], [[7.0], [100.0]]):
    ...     means.add(np.array(piece))
    >>> means.median().tolist()
    [4.0]
    """

    def __init__(self, *, blocks: int, draws: int, columns: int) -> None:
        self._size = draws // blocks
        self._sums = np.zeros((blocks, columns))
        self._seen = 0

    def add(self, rows: FloatArray) -> None:
        """Take in the next draws (n, K)."""
        used = 0
        last = self._size * len(self._sums)
        while used < len(rows) and self._seen < last:
            block = self._seen // self._size
            take = min(len(rows) - used, (block + 1) * self._size - self._seen)
            self._sums[block] += rows[used : used + take].sum(axis=0)
            used += take
            self._seen += take

    def median(self) -> FloatArray | None:
        """Return their median (K,), once all n draws were taken in; None where there are fewer draws than blocks."""
        if self._size == 0:
            return None
        result: FloatArray = np.median(self._sums / self._size, axis=0)
        return result
