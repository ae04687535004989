"""Array types; what carries a derivative, and what stays as it is."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from autograd.tracer import isbox
from numpy.typing import NDArray

from bilevelrl.reference.errors import IndependenceError

__all__ = [
    "AnyArray",
    "BoolArray",
    "ComplexArray",
    "FloatArray",
    "IntArray",
    "Traced",
    "is_differentiated",
    "is_frozen",
    "refuse_differentiation",
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
