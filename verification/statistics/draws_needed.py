"""Inverting a design: the smallest number of draws with which a test sees a bias."""

from __future__ import annotations

from collections.abc import Callable

from bilevelrl.reference.errors import TooLargeError

__all__ = ["LARGEST_COUNT", "smallest_count"]

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
