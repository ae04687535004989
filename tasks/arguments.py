"""Checks of arguments that several tasks share."""

from __future__ import annotations

import math

from bilevelrl.reference.arrays import as_float
from bilevelrl.reference.errors import InvalidInputError, refusal

__all__ = ["check_finite", "check_probability"]


def check_probability(name: str, value: float) -> float:
    """Return a number in [0, 1], or raise `InvalidInputError`.

    Examples
    --------
    >>> check_probability("slip", 0.1)
    0.1
    """
    expected, remedy = "a probability in [0, 1]", "pass a fraction, not a percentage"
    number = as_float(name, value, expected, remedy)
    if not 0.0 <= number <= 1.0:
        raise InvalidInputError(refusal(name, value, expected, remedy))
    return number


def check_finite(name: str, value: float) -> float:
    """Return a finite number, or raise `InvalidInputError`.

    Examples
    --------
    >>> check_finite("coefficient", 5.0)
    5.0
    """
    expected, remedy = "a finite number", "check where it comes from"
    number = as_float(name, value, expected, remedy)
    if math.isinf(number):
        raise InvalidInputError(refusal(name, value, expected, remedy))
    return number
