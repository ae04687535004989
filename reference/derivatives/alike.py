"""Arrays held against each other, and derivatives made flat."""

from __future__ import annotations

import numpy as np

from bilevelrl.reference.arrays import AnyArray, FloatArray

__all__ = ["contracted", "is_near", "same"]


def same(value: object, base: object) -> bool:
    """Whether two arrays are the same object, or have the same entries; NaN is the same as NaN."""
    if value is base:
        return True
    value, base = np.asarray(value), np.asarray(base)
    if value.shape != base.shape:
        return False
    other = value != base
    return not other.any() or bool(((value != value) & (base != base))[other].all())


def is_near(value: AnyArray, base: AnyArray, within: float) -> bool:
    """Whether two arrays have one shape, and entries no further apart; NaN is the same as NaN."""
    return np.shape(value) == np.shape(base) and np.allclose(value, base, 0.0, within, equal_nan=True)


def contracted(slope: FloatArray | None, weights: FloatArray | None) -> FloatArray | None:
    """Return derivatives flat, or their weighted sum; None where there are none."""
    if slope is None or weights is None:
        return None if slope is None else slope.ravel()
    return np.array([np.vdot(weights, slope)])
