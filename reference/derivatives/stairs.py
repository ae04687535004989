"""Arrays that move in steps: rounded arguments, caches keyed by a rounded θ, lookups in a grid.

Near θ they stand still, or keep to the slope of what is not rounded, and so do differences; what they lose shows from
one stair to the next. With v the direction and u in units of it,

    m_j = (T(u_{j+1}) - T(u_j)) / (u_{j+1} - u_j),    l_j = (T(u_j + δ) - T(u_j)) / δ                           (1)

are slopes across and on the stairs. Of a smooth function, of one with a few kinks or jumps, and of one that
oscillates, most m_j are no further from the l_j than these from each other; of stairs the l_j are alike and the m_j are
not among them. Nor are they of a law that underflows but for one place, however smooth; but its steps part when they
are halved, and

    |T(u + w) - T(u)| as w is halved around a jump                                                                 (3)

stays what it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bilevelrl.reference.arrays import AnyArray, BoolArray, FloatArray, IntArray
from bilevelrl.reference.derivatives.alike import contracted, same
from bilevelrl.reference.derivatives.findings import Finding
from bilevelrl.reference.derivatives.probes import FAR, STEPS, ULPS, Probe

__all__ = ["stairs"]

_SPANS = (2.0**-5, 0.25, 2.0, 16.0)  # each of four parts; three of them must hold a jump
_PLACES = (0.0, 0.23, 0.51, 0.72, 1.0)  # of a span, uneven: no period fits them
_MORE = tuple((0.618033988749895 * j) % 1.0 for j in range(1, 13))  # where what was found must hold too
_HALVED = 8  # entries whose jumps are looked at, 45 values each, before a table is refused
_CLOSE = 2.0**-43  # halved to what arguments near one still resolve
_WHOLE = 4  # of the last halvings
_ON = 2.0**-32  # on a stair: beside an argument rounded to eight digits and fewer
_NEAR = 1e-3  # of a slope: what a smooth function's differences over the first step are off by at most
_BEYOND = 0.05  # the same over the far one
_MOST = 2**12  # entries that are looked at again
_WIDEST = 64.0  # of a slope: what it changes by up to the far point, in functions that are no coin tosses


def stairs(
    probe: Probe, name: str, claimed: FloatArray | None = None, weights: FloatArray | None = None
) -> Finding | None:
    """Return where an array goes up or down in steps that its claimed derivative does not know; None: nowhere.

    One more value of the function is looked at, away from θ, and others only where it is not on the tangent.

    Parameters
    ----------
    probe, name, claimed, weights
        As of `compare`: derivatives of each entry along the probe's direction, or one weighted sum; None: all are zero.
    """
    base = probe.base[name]
    if claimed is None:
        if all(value is None or same(value[name], base) for value in (probe.far, *probe.sides)):
            return None
        claimed = np.zeros(np.size(base))
    with np.errstate(all="ignore"):
        if weights is None and _is_plainly_straight(base, None if probe.far is None else probe.far[name], claimed):
            probe.release(far_only=True)
            if probe.is_analytic(name):
                return None
        around = [None if other is None else other[name] for other in (probe.far, *probe.sides)]
        suspects = np.flatnonzero(_suspects(np.asarray(base), around, claimed, weights))
        del around
        if suspects.size:
            probe.release()
        if suspects.size > _MOST:
            suspects = suspects[:: -(-suspects.size // _MOST)]
        looked = _Looked(probe, name, suspects, weights)
        suspects = suspects[~_bends(looked, claimed[suspects])] if suspects.size else suspects
        if suspects.size and not probe.repeats(name):
            return Finding("random", -1, np.nan, np.nan, np.inf)
        looked, claimed = _Looked(probe, name, suspects, weights), claimed[suspects]
        for span in _SPANS if suspects.size else ():
            for sign in (1.0, -1.0):
                slopes = looked.slopes(sign * span, _PLACES)
                if slopes is None:
                    continue
                across, on, noise = slopes
                middle = np.median(on, axis=0)
                jumps = np.abs(across - middle) > 4.0 * np.ptp(on, axis=0) + noise
                found = np.median(across, axis=0)
                unknown = np.abs(claimed - middle) < 0.5 * np.abs(claimed - found)
                where = np.flatnonzero(unknown & (np.count_nonzero(jumps, axis=0) >= 3))
                if where.size:
                    more = looked.slopes(sign * span, _MORE)
                    if more is None:
                        continue
                    spread = np.ptp(np.concatenate([on, more[1]]), axis=0)
                    where = where[(np.abs(found - middle) > 4.0 * spread + noise)[where]]
                where = looked.whole(where, sign * span)
                if where.size:
                    i = int(where[0])
                    index = int(suspects[i]) if weights is None else -1
                    error = float(np.ptp(across[:, i]))
                    return Finding("stairs", index, float(claimed[i]), float(found[i]), error, probe.direction)
                break
    return None


@dataclass(frozen=True, slots=True)
class _Looked:
    """The entries of an array that are looked at, or its weighted sum, along a probe's direction."""

    probe: Probe
    name: str
    entries: IntArray
    weights: FloatArray | None

    def at(self, step: float) -> FloatArray | None:
        """Return them a step away; None where there are none."""
        base = self.probe.base[self.name]
        values = self.probe.base if step == 0.0 else self.probe.far if step == FAR else self.probe.at(step)
        if values is None or np.shape(values[self.name]) != np.shape(base):
            return None
        value = np.asarray(values[self.name])
        found = np.ravel(value)[self.entries] if self.weights is None else contracted(value, self.weights)
        return None if found is None else np.asarray(found, dtype=np.float64)

    def size(self, values: FloatArray) -> FloatArray:
        """Return of what size the numbers are that make the values, (n, entries): rounding is relative to it."""
        size: FloatArray = np.abs(values).max(axis=0)
        if self.weights is None:
            return size
        return size + float(np.abs(self.weights) @ np.abs(np.ravel(np.asarray(self.probe.base[self.name]))))

    def whole(self, entries: IntArray, span: float) -> IntArray:
        """Return those of some entries, as counted here, whose jump within a span stays whole however it is halved (3).

        Entries of one array may jump at places of their own; a few are looked at.
        """
        found = []
        for i in entries[:_HALVED].tolist():
            values: dict[float, FloatArray | None] = {}

            def at(place: float, i: int = i, values: dict[float, FloatArray | None] = values) -> float:
                if place not in values:
                    values[place] = self.at(place * span)
                value = values[place]
                return np.nan if value is None else float(value[i])

            places = [(at(a), at(b), a, b) for a, b in itertools.pairwise(_PLACES)]
            _, _, low, high = max(places, key=lambda pair: abs(pair[1] - pair[0]))
            shares = []
            while high - low > _CLOSE / abs(span):
                middle = 0.5 * (low + high)
                before, after = abs(at(middle) - at(low)), abs(at(high) - at(middle))
                low, high = (low, middle) if before > after else (middle, high)
                shares.append(max(before, after) / (before + after) if before + after > 0.0 else 0.0)
            if min(shares[-_WHOLE:], default=0.0) > 0.9:
                found.append(i)
        return np.array(found, dtype=np.intp)

    def slopes(self, span: float, places: tuple[float, ...]) -> tuple[FloatArray, FloatArray, FloatArray] | None:
        """Return (1): across, on, both by place, and the latter's rounding."""
        rows = []
        for place in places:
            for nudge in (0.0, _ON):
                values = self.at(place * span + nudge)
                if values is None:
                    return None
                rows.append(values)
        stacked = np.array(rows)
        across = np.diff(stacked[::2], axis=0) / (span * np.diff(places)[:, np.newaxis])  # (1)
        on = (stacked[1::2] - stacked[::2]) / _ON
        return across, on, np.asarray(ULPS / _ON * self.size(stacked))


def _bends(looked: _Looked, claimed: FloatArray) -> BoolArray:
    """Return which slopes to the far point are a bend's (2); two more values of the function."""
    values = [looked.at(step) for step in (0.0, _ON, FAR, FAR + _ON)]
    if any(value is None for value in values):
        return np.zeros(claimed.size, dtype=np.bool_)
    here, beside, far, beyond = (np.asarray(value) for value in values)
    on = np.array([beside - here, beyond - far]) / _ON
    across = (far - here) / FAR
    rounding = ULPS / _ON * looked.size(np.array([here, far]))
    low, high = on.min(axis=0), on.max(axis=0)
    moderate = high - low <= _WIDEST * (np.abs(across) + np.abs(claimed))
    known = (low - rounding <= claimed) & (claimed <= high + rounding)
    bends: BoolArray = moderate & known & (low <= across) & (across <= high)  # (2)
    return bends


def _is_plainly_straight(base: AnyArray | float, far: AnyArray | None, claimed: FloatArray) -> bool:
    """Whether the far value is on the tangent, and the same to the last bit where that is level; quickly."""
    if far is None:
        return True
    here, there = np.ravel(np.asarray(base)), np.ravel(far)
    allowed = FAR * _BEYOND * np.abs(claimed).max(initial=0.0)
    for part in _blocks(claimed.size):
        off = there[part] - here[part]
        if off[claimed[part] == 0.0].any():
            return False
        off -= FAR * claimed[part]
        if np.abs(off).max(initial=0.0) > allowed:
            return False
    return True


def _suspects(
    base: AnyArray, values: list[AnyArray | None], claimed: FloatArray, weights: FloatArray | None
) -> BoolArray:
    """Which slopes to the far point, or over the first step, are not those that are claimed."""
    here = np.ravel(base)
    far, ahead, behind = (None if value is None else np.ravel(value) for value in values)
    noise = ULPS * float(np.abs(here).max(initial=0.0))
    if weights is not None:
        weighed = [np.zeros(1), np.zeros(1)]
        size = 0.0
        for part in _blocks(here.size):
            for total, (one, other, step) in zip(
                weighed, ((ahead, behind, 2.0 * STEPS[0]), (far, here, FAR)), strict=True
            ):
                if one is not None and other is not None:
                    total += weights[part] @ ((one[part] - other[part]) / step)
            if far is not None:
                size += float(np.sum((weights[part] * (far[part] - here[part]) / FAR) ** 2))
        near, beyond = (None if one is None else total for one, total in zip((ahead, far), weighed, strict=True))
        noise *= float(np.abs(weights).sum())
        return _off(claimed, None if behind is None else near, beyond, noise, float(np.sqrt(size)))
    suspects, size = np.zeros(claimed.size, dtype=np.bool_), float(np.abs(claimed).max(initial=0.0))
    for part in _blocks(here.size):
        near = None if ahead is None or behind is None else (ahead[part] - behind[part]) / (2.0 * STEPS[0])
        beyond = None if far is None else (far[part] - here[part]) / FAR
        suspects[part] = _off(claimed[part], near, beyond, noise, size)
    return suspects


def _off(
    claimed: FloatArray, near: FloatArray | None, beyond: FloatArray | None, noise: float, size: float
) -> BoolArray:
    suspects = np.zeros(claimed.size, dtype=np.bool_)
    if near is not None:
        suspects |= np.abs(near - claimed) > _NEAR * (np.abs(near) + np.abs(claimed)) + noise / STEPS[0]
    if beyond is not None:
        off = np.abs(beyond - claimed)
        suspects |= off > _BEYOND * (np.abs(beyond) + np.abs(claimed) + size) + noise / FAR
        suspects |= (claimed == 0.0) & ~suspects & (off > noise / FAR)
    return suspects


def _blocks(size: int) -> Iterator[slice]:
    """Yield slices: for many states a few arrays are what a gradient's memory is made of."""
    return (slice(start, start + _MOST) for start in range(0, size, _MOST))
