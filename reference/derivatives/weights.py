"""What probes look at closely: weights that make every entry count alike, and parameters that move little on their own.

Sums hide small slopes behind large ones; what is a thousandth of the largest and less is therefore looked at alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from bilevelrl.reference.arrays import BoolArray, FloatArray
from bilevelrl.reference.derivatives.probes import STEPS, Probe, signs_of

__all__ = ["hidden_probes", "random_weights"]

SMALL = 1e-3
"""Of the largest slope: what is smaller is compared on its own."""

LEVELS = 8
"""How often, at most: beyond, slopes are 1e-24 of the largest."""

_LEAST = 1e-290  # of a slope: its inverse is a number


def random_weights(probe: Probe, name: str, *, draws: int = 1) -> Iterator[FloatArray]:
    """Yield pseudo-random weights of a table's entries that make each count alike in the derivative along v.

    First those of all entries, several times if errors may cancel; then, as long as there are any, of those alone
    whose slopes are a thousandth of the largest and less, which the large ones hide.
    """
    shape = np.shape(probe.base[name])
    slope, (ahead, behind) = probe.by_complex_step(name), probe.sides
    if (slope is None or not np.any(slope)) and ahead is not None and behind is not None:
        slope = (np.asarray(ahead[name]) - np.asarray(behind[name])) / (2.0 * STEPS[0])
    size = np.ones(shape) if slope is None else np.abs(slope)
    largest = float(np.max(size, initial=0.0))
    if not math.isfinite(largest):
        largest = float(np.max(size, initial=0.0, where=np.isfinite(size)))
        size = np.where(np.isfinite(size), size, largest)
    if 0.0 < largest < 1e24 * _LEAST:
        largest, size = max(largest, _LEAST), np.where(size > 0.0, np.fmax(size, _LEAST), size)
    signs = signs_of(shape)
    for draw in range(draws):
        some = signs_of(shape, draw)
        yield some / (size + SMALL * largest) if largest > 0.0 else some
    for below in _smaller(size, largest):
        yield np.where(below, signs, 0.0) / (size + SMALL * float(size[below].max()))


def hidden_probes(probe: Probe, moved: FloatArray, *, still: bool) -> Iterator[Probe]:
    """Yield probes along the parameters alone that move a table by a thousandth of what others do, or less.

    `moved` is how much each does, (N,), as claimed; those that do nothing are looked at, last, if asked for.
    """
    largest = float(moved.max(initial=0.0))
    masks = _smaller(moved, largest) if math.isfinite(largest) else []
    if still and largest > 0.0 and not moved.all():
        masks.append(moved == 0.0)
    if masks:
        probe.release()
    for mask in masks:
        along = np.where(mask.reshape(probe.theta.shape), probe.direction, 0.0)
        one = Probe(probe.function, probe.theta, probe.label, probe.base, along=along)
        one.base = probe.base  # a copy already
        yield one
        one.release()


def _smaller(size: FloatArray, largest: float) -> list[BoolArray]:
    """Which are a thousandth of the largest and less, a millionth, ..., but not nothing."""
    found: list[BoolArray] = []
    floor = SMALL * largest
    while len(found) < LEVELS:
        below = size < floor
        if not np.count_nonzero(below) or not np.count_nonzero(below := below & (size > 0.0)):
            break
        found.append(below)
        floor *= SMALL
    return found
