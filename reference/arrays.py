"""Array types, and the checks that public functions make first."""

from __future__ import annotations

import math
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
    "check_discount",
    "check_positive",
    "check_theta",
    "is_differentiated",
    "refuse_differentiation",
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


def check_discount(name: str, value: float) -> float:
    """Return a discount in [0, 1), or raise `InvalidInputError`."""
    if not (isinstance(value, (int, float, np.floating)) and math.isfinite(value) and 0.0 <= value < 1.0):
        raise InvalidInputError(
            refusal(
                name, value, "a number in [0, 1)", "undiscounted returns need a horizon: discounted=False, horizon=T"
            )
        )
    return float(value)


def check_positive(name: str, value: float, remedy: str) -> float:
    """Return a finite number > 0, or raise `InvalidInputError`."""
    if not (isinstance(value, (int, float, np.floating)) and math.isfinite(value) and value > 0.0):
        raise InvalidInputError(refusal(name, value, "a finite number > 0", remedy))
    return float(value)
