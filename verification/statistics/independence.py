"""Draws that depend on each other: correlated neighbours and copied blocks, by tests that hold for every law.

Neighbours. Pair draw 1 with 2, 3 with 4, …, and call a pair mixed where one of the two lies above the sample's mean and
the other does not. If the order of the draws says nothing, each way of pairing them is as likely as any other, and with
N pairs and m draws above the number of mixed pairs has the law

    P(J = j) = 2^j N! / (((m − j)/2)! j! (N − (m + j)/2)!) / C(2N, m)                                              (1)

whatever the law of a draw is: few mixed pairs mean positive, many negative correlation.

Copies. If the likeliest draw has probability p, a stretch of L independent draws equals a later one, which may overlap
with it, with probability p^L at most, and some stretch of R draws does with probability at most

    R² p^L / 2,                                                                                                    (2)

where p² is at most the probability that two neighbours are equal.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.verification.statistics.stream import SampleMoments

__all__ = ["Independence", "mixed_pairs_tails"]

_ODD = np.uint64(0x9E3779B97F4A7C15)
_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 2**64))


class Independence:
    """Whether consecutive draws are correlated, or blocks of draws are copies of others.

    Parameters
    ----------
    sample
        Moments of the draws along one direction.
    error_rate
        Probability of finding dependence in independent draws.

    Examples
    --------
    >>> values = np.repeat(np.random.default_rng(0).standard_normal((500, 1)), 10, axis=0)
    >>> found = Independence(SampleMoments.of(values), error_rate=1e-6)
    >>> found.add(values[:, 0], values)
    >>> found.refusal().partition(", so")[0]
    'consecutive draws are correlated (0 of 2,500 pairs on different sides of the mean where 1,250 are expected)'
    """

    def __init__(self, sample: SampleMoments, *, error_rate: float) -> None:
        self._sample, self._error_rate = sample, error_rate
        self._above: list[NDArray[np.bool_]] = []
        self._marks: list[NDArray[np.uint64]] = []

    def add(self, values: FloatArray, rows: FloatArray) -> None:
        """Take in the next draws, along the direction (n,) and whole (n, N)."""
        self._above.append(values > self._sample.mean[0])
        self._marks.append(_marks(rows))

    def refusal(self) -> str | None:
        """Return a sentence where they are; None where nothing is seen, or nothing varies."""
        if float(self._sample.standard_deviation[0]) == 0.0 or not self._above:
            return None
        return self._copies(np.concatenate(self._marks)) or self._correlation(np.concatenate(self._above))

    def _correlation(self, above: NDArray[np.bool_]) -> str | None:
        pairs = above.size // 2
        first, second = above[: 2 * pairs].reshape(pairs, 2).T
        mixed, high = int((first != second).sum()), int(first.sum() + second.sum())
        if min(mixed_pairs_tails(mixed, pairs, high)) > 0.25 * self._error_rate:  # a quarter each, and half for copies
            return None
        expected = round(high * (2 * pairs - high) / (2 * pairs - 1))
        return (
            f"consecutive draws are correlated ({mixed:,} of {pairs:,} pairs on different sides of the mean where "
            f"{expected:,} are expected), so no interval holds; expected independent estimates, one fresh seed each"
        )

    def _copies(self, marks: NDArray[np.uint64]) -> str | None:
        draws = marks.size
        pairs = draws // 2
        equal = int((marks[0 : 2 * pairs : 2] == marks[1 : 2 * pairs : 2]).sum())
        rate = 0.25 * self._error_rate
        if equal == pairs:
            return None
        # Neighbours tell how often independent draws are equal, but for the rate (Clopper and Pearson).
        likeliest = np.sqrt(special.betainccinv(equal + 1, pairs - equal, rate))
        length = math.floor(math.log(2.0 * rate / draws**2) / math.log(likeliest)) + 1  # (2)
        found = _repeated_stretch(marks, length)
        if found is None:
            return None
        first, second = found
        differ = np.flatnonzero(marks[second:] != marks[first : first + draws - second])
        run = int(differ[0]) if differ.size else draws - second
        return (
            f"draws {second} to {second + run - 1} are copies of draws {first} to {first + run - 1}; "
            "expected independent estimates, one fresh seed each (workers that share a seed return the same)"
        )


def mixed_pairs_tails(mixed: int, pairs: int, high: int) -> tuple[float, float]:
    """Return P(J ≤ mixed) and P(J ≥ mixed) of law (1), with `high` of 2 × `pairs` draws above.

    Examples
    --------
    >>> mixed_pairs_tails(0, 2, 2)  # of the three pairings of two and two, one has no mixed pair
    (0.333..., 1.0)
    """
    j = np.arange(high % 2, min(high, 2 * pairs - high) + 1, 2, dtype=np.float64)
    log = j * np.log(2.0) + special.gammaln(pairs + 1.0)
    for factorial in ((high - j) / 2, j, pairs - (high + j) / 2):
        log -= special.gammaln(factorial + 1.0)
    mass = np.exp(log - special.logsumexp(log))  # (1), divided by its own sum in place of C(2N, m)
    return float(mass[j <= mixed].sum()), float(min(1.0, mass[j >= mixed].sum()))


def _marks(rows: FloatArray) -> NDArray[np.uint64]:
    """One number per row, equal for equal rows and, but for a chance of some 2^-64, for no others."""
    bits = np.ascontiguousarray(rows + 0.0).view(np.uint64)  # + 0.0: minus zero is zero
    odd = np.random.Generator(np.random.PCG64(0)).integers(2**64, size=rows.shape[1], dtype=np.uint64) | np.uint64(1)
    # Small whole numbers differ in their first bits only: these are brought down before and after.
    marks: NDArray[np.uint64] = (bits ^ (bits >> np.uint64(32))) @ odd
    for _ in range(2):
        marks = (marks ^ (marks >> np.uint64(32))) * _ODD
    return marks ^ (marks >> np.uint64(32))


def _repeated_stretch(marks: NDArray[np.uint64], length: int) -> tuple[int, int] | None:
    """First draws of the first stretch of this length that comes twice, and of the next that equals it."""
    if length >= marks.size:
        return None
    powers = np.cumprod(np.full(marks.size, _ODD), dtype=np.uint64)
    sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(marks * powers, dtype=np.uint64)])
    back = np.cumprod(np.full(marks.size - length + 1, _INVERSE), dtype=np.uint64)
    stretches = (sums[length:] - sums[:-length]) * back  # Σ_j marks[i + j] odd^j modulo 2^64
    order = np.argsort(stretches, kind="stable")
    again = np.flatnonzero(stretches[order[1:]] == stretches[order[:-1]])
    if again.size == 0:
        return None
    first = again[np.argmin(order[again])]
    return int(order[first]), int(order[first + 1])
