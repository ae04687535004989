"""Arrays that public functions are given, checked before anything is done with them."""

from __future__ import annotations

from typing import Any

import numpy as np
from autograd.tracer import isbox

from bilevelrl.reference.arrays.types import FloatArray, IntArray, Traced, is_differentiated, refuse_differentiation
from bilevelrl.reference.errors import IndependenceError, InvalidInputError, ShapeError, refusal

__all__ = [
    "check_array",
    "check_indices",
    "check_joined",
    "check_numbers",
    "check_pairs",
    "check_parameter",
    "check_rows_chosen",
    "check_shape",
    "check_steps_to_go",
    "check_theta",
    "check_thetas",
    "check_vectors",
]


def check_theta(theta: object, theta_shape: tuple[int, ...] | None) -> FloatArray:
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
    try:
        array = np.asarray(theta)
    except Exception as error:  # whatever an object's own conversion raises
        remedy = f"it does not convert ({error})"
        raise ShapeError(refusal("theta", type(theta).__name__, "an array of float64", remedy)) from error
    if isinstance(theta, np.ma.MaskedArray):
        raise ShapeError(refusal("theta", "a masked array", "an array of float64", "fill or drop masked entries"))
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


def check_shape(name: str, value: Traced, shape: tuple[int | None, ...], remedy: str = "reshape it") -> None:
    """Refuse an array whose shape is another one; None stands for any length.

    Examples
    --------
    >>> check_shape("rows", np.zeros((5, 2)), (None, 2))
    """
    try:
        found = np.shape(value)
    except (TypeError, ValueError) as error:
        raise ShapeError(refusal(name, value, "an array", f"lists of equal lengths ({error})")) from error
    if len(found) != len(shape) or any(right not in (None, length) for length, right in zip(found, shape, strict=True)):
        expected = f"({', '.join('any' if length is None else str(length) for length in shape)})"
        raise ShapeError(refusal(f"{name}.shape", found, expected, remedy))


def check_numbers(name: str, value: object) -> Any:
    """Return integers as an array of int64, other real numbers as one of float64, or raise; padding may be NaN."""
    try:
        return check_array(name, value, dtype=np.int64)
    except ShapeError:
        return check_array(name, value, finite=False)


def check_parameter(name: str, value: object, shape: tuple[int, ...]) -> Any:
    """Return a parameter that may be an autograd tracer or complex; else real numbers, of a given shape.

    Examples
    --------
    >>> check_parameter("theta", [1, 2], (2,))
    array([1., 2.])
    """
    if not is_differentiated(value):
        value = check_array(name, value)
    check_shape(name, value, shape)
    return value


def check_indices(name: str, value: object, limit: int) -> IntArray:
    """Return states or actions as an array of integers in [0, limit), or raise.

    Examples
    --------
    >>> check_indices("state", [0, 1], 2)
    array([0, 1])
    """
    array: IntArray = check_array(name, value, dtype=np.int64)
    if array.size and (array.min() < 0 or array.max() >= limit):
        wrong = array[(array < 0) | (array >= limit)].flat[0]
        raise InvalidInputError(refusal(name, int(wrong), f"integers in [0, {limit})", "number from 0"))
    return array


def check_rows_chosen(name: str, value: Any, rows: int) -> Any:
    """Return a slice, or an array of row numbers or one boolean per row, at least one, or raise.

    Examples
    --------
    >>> check_rows_chosen("streams", [0, 1], 2)
    array([0, 1])
    """
    if isinstance(value, slice):
        return value
    try:
        marked = np.shape(value) == (rows,) and np.asarray(value).dtype.kind == "b"
    except ValueError:  # ragged lists
        marked = False
    chosen = check_array(name, value, dtype=np.bool_) if marked else check_indices(name, value, rows)
    if chosen.ndim != 1 or not (chosen.any() if marked else chosen.size):
        raise ShapeError(refusal(f"{name}.shape", chosen.shape, "one axis with at least one row", "list them"))
    return chosen


def check_steps_to_go(value: object, longest: int, shape: tuple[int, ...] | None = None) -> Any:
    """Return the row of each number of steps to go, clipped to the longest there is; None is the longest.

    `shape` is that of the states they go with, which they must broadcast against.

    Examples
    --------
    >>> check_steps_to_go(None, 3), check_steps_to_go(np.array([0, 5]), 3).tolist()
    (3, [0, 3])
    """
    if value is None:
        return longest
    steps = check_array("steps_to_go", value, dtype=np.int64)
    if shape is not None:
        try:
            np.broadcast_shapes(steps.shape, shape)
        except ValueError as error:
            raise ShapeError(refusal("steps_to_go.shape", steps.shape, f"{shape}", "one per state, or one")) from error
    return steps.clip(0, longest)


def check_pairs(*entries: tuple[str, object, int]) -> tuple[IntArray, ...]:
    """Return indices that broadcast against each other, given as (name, value, limit), or raise.

    Examples
    --------
    >>> check_pairs(("state", [0, 1], 2), ("action", 0, 3))
    (array([0, 1]), array(0))
    """
    found = tuple(check_indices(*entry) for entry in entries)
    try:
        np.broadcast_shapes(*(indices.shape for indices in found))
    except ValueError as error:
        names, shapes = ", ".join(entry[0] for entry in entries), [indices.shape for indices in found]
        raise ShapeError(refusal(f"shapes of {names}", shapes, "one shape", "give one of each per sample")) from error
    return found


def check_vectors(name: str, value: object, dimension: int) -> FloatArray:
    """Return vectors as an array (..., dimension) of finite numbers, or raise.

    Examples
    --------
    >>> check_vectors("state", [[0, 1]], 2)
    array([[0., 1.]])
    """
    array: FloatArray = check_array(name, value)
    if array.shape[-1:] != (dimension,):
        raise ShapeError(refusal(f"{name}.shape", array.shape, f"(..., {dimension})", "vectors along the last axis"))
    return array


def check_thetas(thetas: Any, theta_shape: tuple[int, ...] | None) -> FloatArray:
    """Return several θ, (B, *theta_shape) with B >= 1, as a float64 array, or raise."""
    try:
        array = np.asarray(thetas)
    except Exception as error:  # whatever an object's own conversion raises
        raise ShapeError(refusal("thetas", thetas, "an array (B, *theta_shape)", "one θ per row")) from error
    if array.ndim < 1 or not len(array):
        raise ShapeError(refusal("thetas.shape", array.shape, "(B, *theta_shape) with B >= 1", "pass at least one"))
    shape = theta_shape if theta_shape is not None else array.shape[1:]
    fits = (
        array.dtype == np.float64
        and array.shape[1:] == shape
        and len(shape) == len((0,) if theta_shape is None else theta_shape)
    )
    if fits and not isinstance(thetas, np.ma.MaskedArray) and np.isfinite(array).all():
        return array
    for index, theta in enumerate(thetas):
        try:
            check_theta(theta, theta_shape)
        except (InvalidInputError, IndependenceError) as error:
            raise type(error)(f"thetas[{index}]: {error}") from error
    raise ShapeError(refusal("thetas", thetas, "an array (B, *theta_shape) of float64", "stack them"))


def check_joined(state: object, action: object, gain_shape: tuple[int, ...], name: str = "action") -> FloatArray:
    """Return vectors (state, action) side by side, (..., n + m), for a gain (m, n)."""
    x, a = check_vectors("state", state, gain_shape[1]), check_vectors(name, action, gain_shape[0])
    try:
        return np.concatenate([x, a], axis=-1)
    except ValueError as error:
        raise ShapeError(refusal(f"{name}.shape", a.shape, f"one action per state {x.shape}", "reshape it")) from error


def check_array(name: str, value: object, *, dtype: Any = np.float64, finite: bool = True) -> Any:
    """Return numbers as an array of a dtype, or raise; nothing is dropped: no mask, imaginary part or fraction.

    Raises
    ------
    ShapeError
        If it is no array, or its dtype does not convert without loss of meaning.
    InvalidInputError
        If an entry is not finite where `finite`.

    Examples
    --------
    >>> check_array("values", [1, 2])
    array([1., 2.])
    """
    if isbox(value):
        return value
    kinds, described = _ARRAY_KINDS.get(np.dtype(dtype).kind, ("iufc", "numbers"))
    if isinstance(value, np.ma.MaskedArray):
        raise ShapeError(refusal(name, "a masked array", f"an array of {described}", "fill or drop masked entries"))
    try:
        array = np.asarray(value)
    except Exception as error:  # whatever an object's own conversion raises: ragged lists, tensors with gradients
        raise ShapeError(
            refusal(name, type(value).__name__, f"an array of {described}", f"it does not convert ({error})")
        ) from error
    if array.dtype.kind not in kinds:
        remedy = "convert it to that dtype" if isinstance(value, np.ndarray) else "pass an array"
        shown = str(array.dtype) if isinstance(value, np.ndarray) else value
        raise ShapeError(refusal(f"{name}.dtype" if shown is not value else name, shown, described, remedy))
    if finite and array.dtype.kind == "f" and not np.isfinite(array).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InvalidInputError(
            refusal(f"{name}{list(index) or ''}", float(array[index]), "a finite number", "check where it comes from")
        )
    return array.astype(dtype, copy=False)


_ARRAY_KINDS = {"f": ("iuf", "real numbers"), "i": ("iu", "integers"), "b": ("b", "booleans")}
