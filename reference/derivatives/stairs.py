"""Arrays that move in steps: rounded arguments, caches keyed by a rounded θ, lookups in a grid.

Near θ they stand still, or keep to the slope of what is not rounded, and so do differences; what they lose shows from
one stair to the next. With v the direction and u in units of it,

    m_j = (T(u_{j+1}) - T(u_j)) / (u_{j+1} - u_j),    l_j = (T(u_j + δ) - T(u_j)) / δ                           (1)

are slopes across and on the stairs. Of a smooth function, of one with a few kinks or jumps, and of one that
oscillates, most m_j are no further from the l_j than these from each other; of stairs the l_j are alike and the m_j are
not among them.
"""

from __future__ import annotations

import numpy as np

from bilevelrl.reference.arrays import AnyArray, BoolArray, FloatArray
from bilevelrl.reference.derivatives.findings import Finding
from bilevelrl.reference.derivatives.probes import FAR, STEPS, ULPS, Probe, contracted, same

__all__ = ["stairs"]

_SPANS = (2.0**-5, 0.25, 2.0, 16.0)  # each of four parts; three of them must hold a jump
_PLACES = (0.0, 0.23, 0.51, 0.72, 1.0)  # of a span, uneven: no period fits them
_MORE = tuple((0.618033988749895 * j) % 1.0 for j in range(1, 13))  # where what was found must hold too
_ON = 2.0**-32  # on a stair: beside an argument rounded to eight digits and fewer
_NEAR = 1e-3  # of a slope: what a smooth function's differences over the first step are off by at most
_BEYOND = 0.05  # the same over the far one
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
    base, far, sides = probe.base[name], probe.far, probe.sides
    values = [None if other is None else other[name] for other in (far, *sides)]
    if claimed is None:
        if all(value is None or same(value, base) for value in values):
            return None
        claimed = np.zeros(np.size(base))
    with np.errstate(all="ignore"):
        if weights is None and _is_plainly_straight(base, values[0], claimed) and probe.is_analytic(name):
            return None
        suspects = _suspects(np.asarray(base), values, claimed, weights)
        if suspects.any():
            suspects &= ~_bends(probe, name, claimed, weights)
        if suspects.any() and not probe.repeats(name):
            return Finding("random", -1, np.nan, np.nan, np.inf)
        for span in _SPANS if suspects.any() else ():
            for sign in (1.0, -1.0):
                slopes = _slopes(probe, name, sign * span, _PLACES, weights)
                if slopes is None:
                    continue
                across, on, noise = slopes
                middle = np.median(on, axis=0)
                jumps = np.abs(across - middle) > 4.0 * np.ptp(on, axis=0) + noise
                found = np.median(across, axis=0)
                unknown = np.abs(claimed - middle) < 0.5 * np.abs(claimed - found)
                where = np.flatnonzero(suspects & unknown & (np.count_nonzero(jumps, axis=0) >= 3))
                if where.size:
                    more = _slopes(probe, name, sign * span, _MORE, weights)
                    if more is None:
                        continue
                    spread = np.ptp(np.concatenate([on, more[1]]), axis=0)
                    where = where[(np.abs(found - middle) > 4.0 * spread + noise)[where]]
                if where.size:
                    i = int(where[0])
                    index = i if weights is None else -1
                    error = float(np.ptp(across[:, i]))
                    return Finding("stairs", index, float(claimed[i]), float(found[i]), error, probe.direction)
                break
    return None


def _is_plainly_straight(base: AnyArray | float, far: AnyArray | None, claimed: FloatArray) -> bool:
    """Whether the far value is on the tangent, and the same to the last bit where that is level; quickly."""
    if far is None:
        return True
    off = np.subtract(far, base).ravel()
    if off[claimed == 0.0].any():
        return False
    off -= FAR * claimed
    return bool(np.abs(off).max(initial=0.0) <= FAR * _BEYOND * np.abs(claimed).max(initial=0.0))


def _suspects(
    base: AnyArray, values: list[AnyArray | None], claimed: FloatArray, weights: FloatArray | None
) -> BoolArray:
    """Which slopes to the far point, or over the first step, are not those that are claimed."""
    far, ahead, behind = values
    largest = float(np.abs(base).max(initial=0.0))
    noise = ULPS * largest * (1.0 if weights is None else float(np.abs(weights).sum()))
    suspects = np.zeros(claimed.size, dtype=np.bool_)
    if ahead is not None and behind is not None:
        near = contracted(_slope(ahead, behind, 2.0 * STEPS[0]), weights)
        assert near is not None
        suspects |= np.abs(near - claimed) > _NEAR * (np.abs(near) + np.abs(claimed)) + noise / STEPS[0]
    if far is not None:
        entries = _slope(far, base, FAR)
        beyond = contracted(entries, weights)
        assert beyond is not None
        size = np.abs(claimed).max(initial=0.0) if weights is None else np.linalg.norm(weights * entries.ravel())
        off = np.abs(beyond - claimed)
        suspects |= off > _BEYOND * (np.abs(beyond) + np.abs(claimed) + size) + noise / FAR
        suspects |= (claimed == 0.0) & ~suspects & (off > noise / FAR)
    return suspects


def _bends(probe: Probe, name: str, claimed: FloatArray, weights: FloatArray | None) -> BoolArray:
    """Return which slopes to the far point are a bend's (2); two more values of the function."""
    values = (probe.base, probe.at(_ON), probe.far, probe.at(FAR + _ON))
    rows = []
    for value in values:
        if value is None or np.shape(value[name]) != np.shape(probe.base[name]):
            return np.zeros(claimed.size, dtype=np.bool_)
        rows.append(np.ravel(np.asarray(value[name], dtype=np.float64)))
    here, beside, far, beyond = rows
    on = np.array([contracted(_slope(beside, here, _ON), weights), contracted(_slope(beyond, far, _ON), weights)])
    across = contracted(_slope(far, here, FAR), weights)
    assert across is not None
    low, high = on.min(axis=0), on.max(axis=0)
    moderate = high - low <= _WIDEST * (np.abs(across) + np.abs(claimed))
    rounding = ULPS / _ON * np.maximum(np.abs(here).max(initial=0.0), np.abs(far).max(initial=0.0))
    if weights is not None:
        rounding = rounding * np.abs(weights).sum()
    known = (low - rounding <= claimed) & (claimed <= high + rounding)
    bends: BoolArray = moderate & known & (low <= across) & (across <= high)  # (2)
    return bends


def _slope(ahead: AnyArray, behind: AnyArray, step: float) -> FloatArray:
    slope: FloatArray = np.subtract(ahead, behind)
    slope /= step
    return slope


def _slopes(
    probe: Probe, name: str, span: float, places: tuple[float, ...], weights: FloatArray | None
) -> tuple[FloatArray, FloatArray, FloatArray] | None:
    """Return (1) of each entry, or of the weighted sum: across, on, both by place, and the latter's rounding."""
    rows = []
    for place in places:
        for nudge in (0.0, _ON):
            values = probe.at(place * span + nudge)
            if values is None or np.shape(values[name]) != np.shape(probe.base[name]):
                return None
            rows.append(contracted(np.asarray(values[name]), weights))
    stacked = np.array(rows)
    across = np.diff(stacked[::2], axis=0) / (span * np.diff(places)[:, np.newaxis])  # (1)
    on = (stacked[1::2] - stacked[::2]) / _ON
    size = np.abs(stacked).max(axis=0)
    if weights is not None:
        size = np.abs(weights) @ np.abs(np.ravel(probe.base[name])) + size
    return across, on, ULPS / _ON * size
