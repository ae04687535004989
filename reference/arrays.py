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
    "AnyArray",
    "BoolArray",
    "ComplexArray",
    "FloatArray",
    "IntArray",
    "Traced",
    "as_float",
    "check_array",
    "check_discount",
    "check_indices",
    "check_joined",
    "check_number",
    "check_numbers",
    "check_pairs",
    "check_parameter",
    "check_positive",
    "check_rows_chosen",
    "check_shape",
    "check_steps_to_go",
    "check_theta",
    "check_thetas",
    "check_vectors",
    "is_differentiated",
    "is_frozen",
    "refuse_differentiation",
    "store_floats",
    "store_problem_scalars",
]

FloatArray: TypeAlias = NDArray[np.float64]
ComplexArray: TypeAlias = NDArray[np.complex128]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]
AnyArray: TypeAlias = NDArray[Any]
Traced: TypeAlias = Any
"""An array or a number that may carry a derivative: float64, complex, or autograd's tracer, which has no types."""


def is_differentiated(value: Traced) -> bool:
    """Whether a value carries a derivative: an autograd tracer or a complex number.

    Examples
    --------
    >>> is_differentiated(np.ones(2)), is_differentiated(np.ones(2) + 1e-30j)
    (False, True)
    """
    if isbox(value):
        return True
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    if kind is None:
        try:
            return bool(np.iscomplexobj(value))
        except Exception:  # ragged lists and the like: no numbers at all
            return False
    return bool(kind == "c")


def is_frozen(value: object) -> bool:
    """Tell whether an array stays as it is: neither through it nor through what it is a view of can it be written to.

    Examples
    --------
    >>> buffer = np.zeros(3)
    >>> is_frozen(np.broadcast_to(buffer, (2, 3))), is_frozen(np.frombuffer(bytes(8)))
    (False, True)
    """
    if not isinstance(value, np.ndarray):
        return False
    owner: object = value
    while isinstance(owner, np.ndarray):
        if owner.flags.writeable:
            return False
        owner = owner.base
    return owner is None or isinstance(owner, bytes)


def refuse_differentiation(where: str, *values: object) -> None:
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
        raise ShapeError(refusal("theta", type(theta).__name__, "an array of float64", "list its numbers")) from error
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
    fits = array.dtype == np.float64 and array.shape[1:] == shape and len(shape) == len(theta_shape or (0,))
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
