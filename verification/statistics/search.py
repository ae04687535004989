"""Inverting a design: the smallest number of draws, or the smallest bias, that a test sees."""

from __future__ import annotations

import math
from collections.abc import Callable

from bilevelrl.reference.errors import TooLargeError

__all__ = ["LARGEST_COUNT", "smallest_count", "smallest_size"]

LARGEST_COUNT = 2**60


def smallest_count(sees: Callable[[int], bool], *, start: int = 2) -> int:
    """Return the smallest n ≥ start with `sees(n)`, for a property that holds for all larger n once it holds.

    Raises
    ------
    TooLargeError
        If no number of draws up to `LARGEST_COUNT` = 2^60 is enough.

    Examples
    --------
    >>> smallest_count(lambda n: n * n >= 1000)
    32
    """
    if sees(start):
        return start
    high = max(2 * start, 2)
    while not sees(high):
        high *= 2
        if high > LARGEST_COUNT:
            raise TooLargeError(
                "draws needed: more than 2^60; ask for a larger bias, a smaller standard_deviation or power, or fewer "
                "comparisons"
            )
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if sees(middle) else (middle, high)
    return high


def smallest_size(sees: Callable[[float], bool], *, guess: float) -> float:
    """Return the smallest x > 0 with `sees(x)`, to a relative 1e-12, for a property that holds for all larger x; inf if
    none up to 2^60 guesses.

    Examples
    --------
    >>> round(smallest_size(lambda x: x * x >= 2.0, guess=1.0), 9)
    1.414213562
    """
    high = guess
    for _ in range(60):
        if sees(high):
            break
        high *= 2.0
    else:
        return math.inf
    low = 0.5 * high
    while sees(low) and low > guess * 2.0**-60:
        low, high = 0.5 * low, low
    while high - low > 1e-12 * high:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if sees(middle) else (middle, high)
    return high
