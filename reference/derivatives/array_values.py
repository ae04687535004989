"""What a user's function of θ may return, made into arrays that derivatives can be taken of, or refused by name.

Lists become arrays, traced where their entries are; arrays of other libraries become NumPy's where they are float64. An
object array that holds traced values is refused at once: it is not itself traced, and would be taken for a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import autograd.numpy as anp
import numpy as np
from autograd.tracer import getval, isbox

from bilevelrl.reference.arrays import Traced
from bilevelrl.reference.doors.given_code import point_text
from bilevelrl.reference.errors import (
    BilevelRLError,
    DerivativeError,
    InvalidInputError,
    ShapeError,
    UnknownNameError,
    refusal,
)

__all__ = ["called", "check_changes", "differentiable_array", "tracing"]

_Result = TypeVar("_Result")


def differentiable_array(name: str, value: object) -> Traced:
    """Return a float64 or complex128 array, a float, or a traced array.

    Raises
    ------
    DerivativeError
        If traced values are hidden in an object array.
    ShapeError
        If no array of real or complex numbers can be made of the value.

    Examples
    --------
    >>> differentiable_array("reward_leader", [[1, 0]])
    array([[1., 0.]])
    """
    if isinstance(value, np.ndarray) and value.dtype in (np.float64, np.complex128) and type(value) is np.ndarray:
        return value
    if type(value) is float or (isbox(value) and isinstance(_plain(value), (np.ndarray, np.generic, float))):
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise ShapeError(refusal(name, "a masked array", "an array without a mask", "fill the masked entries"))
    try:
        array: Traced = anp.array(value) if isinstance(value, (list, tuple)) or isbox(value) else np.asarray(value)
    except Exception as error:
        raise ShapeError(
            f"{name}={type(value).__name__}: expected an array of real numbers, and NumPy cannot read this "
            f"({type(error).__name__}: {error}); return NumPy arrays, and tables_jacobian or tables_pullback with them "
            "where another library computes the derivatives"
        ) from error
    if isbox(array):
        return array
    if array.dtype == object and any(isbox(entry) for entry in array.flat):
        raise DerivativeError(
            f"{name}: an array of objects that holds traced values, whose dependence on θ would be lost; expected an "
            "array made by autograd.numpy: write autograd.numpy.array, .dot, .stack for NumPy's, or give closed-form "
            "derivatives beside the plain NumPy"
        )
    foreign = not isinstance(value, (np.ndarray, np.generic, list, tuple, int, complex))
    if foreign and array.dtype.kind == "f" and array.dtype != np.float64:
        raise ShapeError(
            refusal(f"{name}.dtype", f"{array.dtype} of {type(value).__name__}", "float64", "compute it in float64")
        )
    try:
        return np.asarray(array, dtype=np.complex128 if array.dtype.kind == "c" else np.float64)
    except (TypeError, ValueError) as error:
        raise ShapeError(
            refusal(name, f"{type(value).__name__} of dtype {array.dtype}", "an array of real numbers", "return floats")
        ) from error


def check_changes(changes: Mapping[str, object], names: Collection[str]) -> dict[str, Traced]:
    """Return the entries that replace some of a record of arrays: known names, of what derivatives can be taken of.

    Examples
    --------
    >>> check_changes({"regulariser": 1}, ["regulariser"])
    {'regulariser': array(1.)}
    """
    for name in changes:
        if name not in names:
            raise UnknownNameError("changes", name, names)
    return {name: differentiable_array(f"changes[{name!r}]", value) for name, value in changes.items()}


def called(label: str, function: Callable[[Traced], _Result], theta: Traced) -> _Result:
    """Return function(theta), with what it raises reported as an error of this package that says at which θ.

    Raises
    ------
    InvalidInputError
        Naming the exception and θ; errors of this package pass.
    """
    plain = isinstance(theta, np.ndarray) and theta.dtype.kind == "f"
    if plain and (isinstance(theta, np.ma.MaskedArray) or not np.isfinite(theta).all()):
        raise InvalidInputError(refusal("theta", theta.tolist(), "finite numbers", "check θ's origin"))
    try:
        # A copy each time: a function that writes into its argument moves nobody else's θ.
        return function(theta.copy() if isinstance(theta, np.ndarray) else theta)
    except (BilevelRLError, MemoryError):
        raise
    except Exception as error:
        traced = isbox(theta)
        if traced and isinstance(
            error, NotImplementedError
        ):  # a rule that autograd does not have: there may be another
            raise
        remedy = (
            "autograd was tracing it: write it with autograd.numpy, without item assignment or casts, or give "
            "closed-form derivatives, or use route='finite_difference'"
            if traced
            else "check the function at this θ"
        )
        point = point_text(_plain(theta))
        raise InvalidInputError(
            f"{label}(theta) raised {type(error).__name__}: {error}; at theta={point}; {remedy}"
        ) from error


@contextmanager
def tracing(label: str) -> Iterator[None]:
    """Report what autograd raises on its way through a user's function as an error of this package.

    Raises
    ------
    DerivativeError
        Naming the exception; errors of this package pass, and so does a missing rule.
    """
    try:
        yield
    except (BilevelRLError, MemoryError, NotImplementedError):
        raise
    except Exception as error:
        raise DerivativeError(
            f"{label}(theta): autograd failed on it with {type(error).__name__}: {error}; expected a function of its "
            "argument alone, written with autograd.numpy; do not keep traced values between calls, or give closed forms"
        ) from error


def _plain(value: Traced) -> Traced:
    while isbox(value):
        value = getval(value)
    return value
