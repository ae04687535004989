"""Array types, and the checks that public functions make first."""

from __future__ import annotations

import math
import numbers
from dataclasses import fields
from decimal import Decimal
from typing import Any, TypeAlias

import numpy as np
from autograd.tracer import isbox
from numpy.typing import NDArray

from bilevelrl.reference.errors import IndependenceError, InvalidInputError, ShapeError, refusal

__all__ = [
    "BoolArray",
    "ComplexArray",
    "FloatArray",
    "IntArray",
    "as_float",
    "check_discount",
    "check_positive",
    "check_theta",
    "is_differentiated",
    "refuse_differentiation",
    "store_floats",
    "store_problem_scalars",
]

FloatArray: TypeAlias = NDArray[np.float64]
ComplexArray: TypeAlias = NDArray[np.complex128]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]


def is_differentiated(value: Any) -> bool:
    """Whether a value carries a derivative: an autograd tracer or a complex number.

    Examples
    --------
    >>> is_differentiated(np.ones(2)), is_differentiated(np.ones(2) + 1e-30j)
    (False, True)
    """
    return isbox(value) or np.iscomplexobj(value)


def refuse_differentiation(where: str, *values: Any) -> None:
    """Raise if a tracer or a complex number enters code that promises not to be differentiated through.

    Raises
    ------
    IndependenceError
        If any value is an autograd tracer or complex.
    """
    for value in values:
        if is_differentiated(value):
            raise IndependenceError(
                f"{where}: a value of type {type(value).__name__} carries a derivative; expected real numbers. "
                "Routes that differentiate must bring their own Bellman sweeps (route='unrolled' or 'complex_step')"
            )


def check_theta(theta: Any, theta_shape: tuple[int, ...] | None) -> FloatArray:
    """Return θ as a float64 array of the right shape.

    Raises
    ------
    IndependenceError
        If θ is an autograd tracer or complex.
    ShapeError
        If dtype or shape are wrong.
    InvalidInputError
        If an entry is not finite.

    Examples
    --------
    >>> check_theta([1.0, 2.0], (2,))
    array([1., 2.])
    """
    refuse_differentiation("theta", theta)
    array = np.asarray(theta)
    if array.dtype != np.float64:
        raise ShapeError(
            refusal("theta.dtype", str(array.dtype), "float64", "convert with numpy.asarray(theta, float)")
        )
    if theta_shape is None and array.ndim != 1:
        raise ShapeError(refusal("theta.shape", array.shape, "one axis (N,)", "or give the problem a theta_shape"))
    if theta_shape is not None and array.shape != theta_shape:
        raise ShapeError(
            refusal("theta.shape", array.shape, f"{theta_shape}", "reshape θ to the problem's theta_shape")
        )
    if not np.isfinite(array).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InvalidInputError(
            refusal(f"theta{list(index)}", float(array[index]), "a finite number", "check θ's origin")
        )
    result: FloatArray = array
    return result


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


def check_discount(name: str, value: Any) -> float:
    """Return a discount in [0, 1) as a Python float, or raise `InvalidInputError`."""
    expected = "a number in [0, 1)"
    remedy = "undiscounted returns need a horizon: discounted=False, horizon=T"
    number = as_float(name, value, expected, remedy)
    if not 0.0 <= number < 1.0:
        raise InvalidInputError(refusal(name, value, expected, remedy))
    return number


def check_positive(name: str, value: Any, remedy: str) -> float:
    """Return a finite number > 0 as a Python float, or raise `InvalidInputError`."""
    expected = "a finite number > 0"
    number = as_float(name, value, expected, remedy)
    if not 0.0 < number < math.inf:
        raise InvalidInputError(refusal(name, value, expected, remedy))
    return number
