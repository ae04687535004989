"""Numbers of Python and NumPy, checked and made Python floats."""

from __future__ import annotations

import math
import numbers
from dataclasses import fields
from decimal import Decimal
from typing import Any

import numpy as np

from bilevelrl.reference.errors import InvalidInputError, refusal

__all__ = ["as_float", "check_discount", "check_number", "check_positive", "store_floats", "store_problem_scalars"]


def as_float(
    name: str, value: Any, expected: str = "a real number", remedy: str = "pass a Python or NumPy number"
) -> float:
    """Return a real number as the Python float nearest to it, or raise `InvalidInputError`.

    A float32 of 0.9 is 0.8999999761581421 from here on, and not equal to 0.9: what compares scalars compares values.

    Examples
    --------
    >>> as_float("discount", np.float32(0.9)), as_float("discount", np.array(1))
    (0.8999999761581421, 1.0)
    """
    entry = value[()] if isinstance(value, np.ndarray) and value.ndim == 0 else value
    try:
        # A bool is a number to Python, and a mistake here.
        known = isinstance(entry, (numbers.Real, Decimal)) and not isinstance(entry, bool)
        number = float(entry) if known else math.nan
    except (OverflowError, TypeError, ValueError):  # beyond the largest float; a span of time; a signalling NaN
        number = math.nan
    if math.isnan(number):
        raise InvalidInputError(refusal(name, value, expected, remedy))
    return number


def check_number(name: str, value: Any, *, finite: bool = True) -> float:
    """Return a real number as a Python float, or raise `InvalidInputError`; a boolean is none.

    Examples
    --------
    >>> check_number("coefficient", 5)
    5.0
    """
    expected = "a finite number" if finite else "a real number"
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    single = isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray) and value.shape == ()
    if not real and not (single and value.dtype.kind in "iuf"):
        raise InvalidInputError(refusal(name, value, expected, "check where it comes from"))
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    except TypeError as error:  # a span of time is an integer to NumPy
        raise InvalidInputError(refusal(name, value, expected, "check where it comes from")) from error
    if finite and not math.isfinite(number):
        raise InvalidInputError(refusal(name, value, expected, "check where it comes from"))
    return number


def store_floats(instance: Any) -> None:
    """Turn the fields of a dataclass that are annotated `float` into Python floats; None stays where it may be.

    For the head of `__post_init__`: what a class computes with is then float64, whatever type it was given.

    Raises
    ------
    InvalidInputError
        Naming the field that is no real number.
    """
    for entry in fields(instance):
        if entry.type in ("float", "float | None"):
            value = getattr(instance, entry.name)
            if value is not None or entry.type == "float":
                object.__setattr__(instance, entry.name, as_float(entry.name, value))


def store_problem_scalars(problem: Any) -> None:
    """Check a problem's discounts and temperature, and store them as Python floats."""
    for name in ("discount_leader", "discount_follower"):
        object.__setattr__(problem, name, check_discount(name, getattr(problem, name)))
    remedy = "for a greedy follower use a small temperature such as 1e-4"
    object.__setattr__(problem, "temperature", check_positive("temperature", problem.temperature, remedy))


def check_discount(name: str, value: object) -> float:
    """Return a discount in [0, 1) as a Python float, or raise `InvalidInputError`."""
    expected = "a number in [0, 1)"
    remedy = "undiscounted returns need a horizon: discounted=False, horizon=T"
    number = as_float(name, value, expected, remedy)
    if not 0.0 <= number < 1.0:
        raise InvalidInputError(refusal(name, value, expected, remedy))
    return number


def check_positive(name: str, value: object, remedy: str) -> float:
    """Return a finite number > 0 as a Python float, or raise `InvalidInputError`."""
    expected = "a finite number > 0"
    number = as_float(name, value, expected, remedy)
    if not 0.0 < number < math.inf:
        raise InvalidInputError(refusal(name, value, expected, remedy))
    return number
