"""Ranges of arguments, as annotations: what an integer or a number of a public function may be."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bilevelrl.reference.arrays import check_discount, check_number, check_numbers, check_positive
from bilevelrl.reference.errors import InvalidInputError, refusal

Check: TypeAlias = Callable[[str, Any], Any]  # (name, value) → the value to go on with, or a refusal

LARGEST_COUNT = 2**53  # counts are also used as floats
LARGEST_ITERATIONS = 10**6


def check_integer(name: str, value: object, *, low: float = -LARGEST_COUNT, high: float = LARGEST_COUNT) -> int:
    """Return an integer between two bounds, or raise `InvalidInputError`; a boolean is none."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        bounds = f">= {low}" if high in (math.inf, LARGEST_COUNT) else f"in [{low}, {high}]"
        raise InvalidInputError(
            refusal(name, value, f"an integer {'' if low == -LARGEST_COUNT else bounds}".strip(), "pass a Python int")
        )
    return int(value)


def check_count(name: str, value: object, *, minimum: int = 1) -> int:
    """Return an integer ≥ minimum, or raise `InvalidInputError`.

    Examples
    --------
    >>> check_count("states", 3)
    3
    """
    return check_integer(name, value, low=minimum)


def check_steps(name: str, value: object) -> int | None:
    """Return None or an integer ≥ 1, or raise `InvalidInputError`."""
    if value is None or (isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= 1):
        return None if value is None else check_integer(name, value)
    raise InvalidInputError(refusal(name, value, "None or an integer >= 1", "count the steps of an episode"))


def check_stream_steps(name: str, value: object) -> int:
    """Return how many steps an exact sum over time adds one by one, in [1, 1,000,000], or raise `InvalidInputError`."""
    return check_integer(name, value, low=1, high=LARGEST_ITERATIONS)


def check_seed(name: str, value: object) -> int:
    """Return an integer ≥ 0 of any length, or raise `InvalidInputError`."""
    return check_integer(name, value, low=0, high=math.inf)


def _between(low: float, high: float, expected: str, remedy: str, *, ends: bool = True) -> Check:
    def check(name: str, value: object) -> float:
        number = check_number(name, value)
        if not (low <= number <= high if ends else low < number < high):
            raise InvalidInputError(refusal(name, value, expected, remedy))
        return number

    return check


def check_real(name: str, value: object) -> float:
    """Return a real number that may be infinite, or NaN for what was not measured, or raise `InvalidInputError`."""
    return check_number(name, value, finite=False)


Numbers = Annotated[NDArray[Any], check_numbers]
"""An array of integers or of real numbers."""
Count = Annotated[int, check_count]
"""An integer ≥ 1."""
Natural = Annotated[int, functools.partial(check_count, minimum=0)]
"""An integer ≥ 0."""
Iterations = Annotated[int, functools.partial(check_integer, low=0, high=LARGEST_ITERATIONS)]
"""An integer in [0, 1,000,000]."""
Steps = Annotated[int, check_stream_steps]
"""An integer in [1, 1,000,000]: of what is gone through one by one."""
Horizon = Annotated[int | None, check_steps]
"""None, or an integer ≥ 1: the steps of an episode."""
Seed = Annotated[int, check_seed]
"""An integer ≥ 0 of any length."""
Real = Annotated[float, check_real]
"""A real number; inf and NaN are allowed."""
Deviation = Annotated[float, _between(-1e150, 1e150, "a number whose square is finite", "check its unit")]
"""A number whose square is a variance."""
Spread = Annotated[float, _between(0.0, 1e150, "a number >= 0 whose square is finite", "check the draws")]
"""A standard deviation."""
Discount = Annotated[float, check_discount]
"""A number in [0, 1)."""
Positive = Annotated[float, functools.partial(check_positive, remedy="check its sign and unit")]
"""A finite number > 0."""
Temperature = Annotated[
    float, functools.partial(check_positive, remedy="for a greedy follower use a small temperature such as 1e-4")
]
"""β, a finite number > 0."""
NonNegative = Annotated[float, _between(0.0, math.inf, "a finite number >= 0", "check its sign")]
"""A finite number ≥ 0."""
Probability = Annotated[float, _between(0.0, 1.0, "a probability in [0, 1]", "pass a fraction, not a percentage")]
"""A number in [0, 1]."""
Rate = Annotated[float, _between(0.0, 1.0, "a number in (0, 1)", "pass a fraction, not a percentage", ends=False)]
"""A number strictly between 0 and 1."""
Share = Annotated[float, _between(math.ulp(0.0), 1.0, "a number in (0, 1]", "1 takes all of it")]
"""A number > 0 and at most 1: a step size, or a share of a whole."""
