"""Checks of arguments that several tasks share."""

from __future__ import annotations

import math

import numpy as np

from bilevelrl.reference.errors import InvalidInputError, refusal

__all__ = ["check_count", "check_finite", "check_probability"]


def check_count(name: str, value: int, *, minimum: int = 1) -> int:
    """Return an integer ≥ minimum, or raise `InvalidInputError`.

    Examples
    --------
    >>> check_count("states", 3)
    3
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < minimum:
        raise InvalidInputError(refusal(name, value, f"an integer >= {minimum}", "pass a larger size"))
    return int(value)


def check_probability(name: str, value: float) -> float:
    """Return a number in [0, 1], or raise `InvalidInputError`.

    Examples
    --------
    >>> check_probability("slip", 0.1)
    0.1
    """
    if not isinstance(value, (int, float, np.floating)) or not 0.0 <= value <= 1.0:
        raise InvalidInputError(refusal(name, value, "a probability in [0, 1]", "pass a fraction, not a percentage"))
    return float(value)


def check_finite(name: str, value: float) -> float:
    """Return a finite number, or raise `InvalidInputError`.

    Examples
    --------
    >>> check_finite("coefficient", 5.0)
    5.0
    """
    if not isinstance(value, (int, float, np.floating, np.integer)) or not math.isfinite(value):
        raise InvalidInputError(refusal(name, value, "a finite number", "check where it comes from"))
    return float(value)
