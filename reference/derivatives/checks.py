"""Derivatives held against differences of the function itself, along one fixed pseudo-random direction.

With v the direction and T a table, `(T(θ + hv) - T(θ)) / h` and `(T(θ) - T(θ - hv)) / h` tell three things apart: they
meet as h shrinks where T is differentiable, stay apart at a kink, and their mean is the derivative that a trace or a
closed form has to show. Steps shrink until truncation and rounding are both small beside the derivative; where the
function takes a complex θ, `Im T(θ + ihv) / h` settles what differences cannot resolve. Nothing here has units: all
tolerances are relative to the table's own derivative.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from bilevelrl.reference.arrays import BoolArray, FloatArray, IntArray
from bilevelrl.reference.derivatives.alike import contracted, same
from bilevelrl.reference.derivatives.findings import Finding
from bilevelrl.reference.derivatives.probes import (
    DEEPER,
    EXACT_AGREEMENT,
    ROUNDINGS,
    STEPS,
    ULPS,
    Probe,
)
from bilevelrl.reference.derivatives.stairs import stairs

__all__ = ["History", "bends", "compare", "jumps", "kink", "settled_slope"]

AGREEMENT = 1e-6
"""Relative to the derivative: what central differences must confirm."""

_ROUGHLY = 1e-3  # of the slope: what the first step leaves of all but the most curved functions
_ONE_SLOPE = 1e-5  # of the slope: what those of the two sides may differ by for routes that take differences


def compare(
    claimed: FloatArray | None,
    probe: Probe,
    name: str,
    weights: FloatArray | None = None,
    rounding: Callable[[], float | FloatArray] = lambda: 0.0,
) -> Finding | None:
    """Hold derivatives along the probe's direction against differences; None where they agree.

    Parameters
    ----------
    claimed
        Derivative of each entry of the table, flat; with `weights` one number, the weighted sum. None: all are zero.
    probe
        The function, at θ.
    name
        The table.
    weights
        Of the entries, flat.
    rounding
        How far the claim is off by its own roundings alone, asked for only where it seems wrong: the derivative of
        `[1 - p, p]` at p = 1e-28 is 1e-28, and a cotangent that makes it count loses it among roundings of one.
    """
    if claimed is None:
        if all(side is not None and same(side[name], probe.base[name]) for side in probe.sides):
            still = probe.far is None or same(probe.far[name], probe.base[name])
            finding = None if still else stairs(probe, name)
            probe.release(far_only=True)
            return finding
        claimed = np.zeros(np.size(probe.base[name]))
    pending = np.arange(claimed.size)
    history = History()
    with np.errstate(all="ignore"):
        exact = contracted(probe.by_complex_step(name), weights)
        for k in range(1, len(STEPS) + 1):
            history.add(probe, name, k, weights)
            if k <= len(STEPS) - DEEPER:
                pending = pending[~history.agrees(claimed, exact)[pending]]
            if pending.size == 0:
                del history  # of many states: memory
                return _stairs(claimed, probe, name, weights)
            if k == 1 and not history.is_near(claimed)[pending].all() and not probe.repeats(name):
                return Finding("random", -1, np.nan, np.nan, np.inf)
        finding = history.verdict(
            claimed,
            exact,
            pending,
            lambda: probe.rounding(name, weights) + ROUNDINGS * rounding(),
            grain=lambda: probe.grain(name) if weights is None else np.array([np.abs(weights) @ probe.grain(name)]),
        )
    if finding is None:
        return _stairs(claimed, probe, name, weights)
    return replace(finding, along=probe.direction, index=finding.index if weights is None else -1)


def _stairs(claimed: FloatArray, probe: Probe, name: str, weights: FloatArray | None) -> Finding | None:
    """Entry by entry where the complex step knows them, which has confirmed the claim; else as claimed."""
    exact = probe.by_complex_step(name)
    found = stairs(probe, name, claimed, weights) if exact is None else stairs(probe, name, exact.ravel())
    probe.release(far_only=True)
    return found


def _quotient(ahead: FloatArray, behind: FloatArray, step: float) -> FloatArray:
    quotient: FloatArray = np.subtract(ahead, behind)
    quotient /= step
    return quotient


def kink(probe: Probe, name: str) -> Finding | None:
    """Return where a table has no derivative along the probe's direction; None where it has one in every entry."""
    pending = np.arange(np.size(probe.base[name]))
    history = History()
    with np.errstate(all="ignore"):
        for k in range(1, len(STEPS) + 1):
            history.add(probe, name, k, None)
            if k <= len(STEPS) - DEEPER:
                pending = pending[~history.meets()[pending]]
            if pending.size == 0:
                return None
            if k == 1 and not history.smooth()[pending].all() and not probe.repeats(name):
                return Finding("random", -1, np.nan, np.nan, np.inf)
        nothing = np.full(np.size(probe.base[name]), np.nan)
        finding = history.verdict(nothing, None, pending, grain=lambda: probe.grain(name))
    return None if finding is None or finding.kind == "not finite" else finding


@dataclass(slots=True)
class History:
    """Slopes, bends and rounding of each step so far, one row of entries each.

    Noise is what an ulp of the entry itself makes; the roof, of the largest entry of the table: `1 - p` at p next to 1.
    """

    slope: list[FloatArray] = field(default_factory=list)
    bend: list[FloatArray] = field(default_factory=list)
    noise: list[FloatArray] = field(default_factory=list)
    roof: list[FloatArray] = field(default_factory=list)
    _size: FloatArray = field(default_factory=lambda: np.zeros(1), init=False)

    def add(self, probe: Probe, name: str, k: int, weights: FloatArray | None) -> None:
        """Take the k-th step of a table, or of a weighted sum of its entries."""
        base, step = np.ravel(probe.base[name]), STEPS[k - 1]
        ahead, behind = (
            np.full(base.size, np.nan) if side is None else np.ravel(side[name])
            for side in (probe.side(k), probe.side(-k))
        )

        def summed(values: FloatArray, by: FloatArray | None) -> FloatArray:
            return values if by is None else np.array([by @ values])

        # One array at a time: for many states these are what a gradient's memory is made of.
        forward, backward = (summed(_quotient(*ends, step), weights) for ends in ((ahead, base), (base, behind)))
        size = np.abs(base)
        largest = float(size.max(initial=0.0))
        for side in (ahead, behind):
            np.maximum(size, np.abs(side), out=size)
        size *= ULPS / step
        absolute = None if weights is None else np.abs(weights)
        noise = summed(size, absolute)
        highest = (ULPS / step) * largest * (1.0 if absolute is None else float(absolute.sum()))
        roof: FloatArray = np.broadcast_to(highest, noise.shape)
        slope = 0.5 * (forward + backward)
        if self.slope:
            # Not a step moved where larger ones did, and the slope had not faded: the function has fewer digits.
            last = np.abs(self.slope[-1])
            slope[(forward == 0.0) & (backward == 0.0) & ~(last < 0.125 * np.abs(self.slope[0]))] = np.nan
            slope[(self.slope[0] == 0.0) & np.isnan(slope)] = 0.0
        size = np.abs(slope)
        self._size = size + 1e-6 * np.fmax.reduce(size, initial=0.0)
        self.slope.append(slope)
        self.bend.append(np.abs(forward - backward))
        self.noise.append(noise)
        self.roof.append(roof)

    def scale(self, claimed: FloatArray | float = 0.0) -> FloatArray:
        """The size that errors are relative to: the derivative's own, and not less than rounding of the largest."""
        return np.abs(claimed) + self._size

    def smooth(self) -> BoolArray:
        """Whether one-sided slopes meet at the last step, or close in on each other."""
        bend, noise = self.bend[-1], self.noise[-1]
        meet = bend <= 0.02 * self._size + 4.0 * noise
        return meet if len(self.bend) < 2 else meet | (bend <= 0.25 * self.bend[-2] + 4.0 * noise)

    def is_near(self, claimed: FloatArray) -> BoolArray:
        """Whether the last step shows roughly the claimed derivative, as a function of θ alone does."""
        off = np.abs(claimed - self.slope[-1])
        return self.smooth() & (off <= _ROUGHLY * self.scale(claimed) + self.noise[-1])

    def meets(self) -> BoolArray:
        """Whether one-sided slopes are one at the last step, as far as rounding lets it be seen."""
        return self.bend[-1] <= _ONE_SLOPE * self._size + 4.0 * self.noise[-1]

    def agrees(self, claimed: FloatArray, exact: FloatArray | None) -> BoolArray:
        """Whether the last step shows a smooth entry with the claimed derivative."""
        slope, noise, scale, smooth = self.slope[-1], self.noise[-1], self.scale(claimed), self.smooth()
        settled = smooth & (np.abs(claimed - slope) <= AGREEMENT * scale + noise)
        if exact is None:
            return settled
        # Differences have to see the same derivative: a function may lose a part of θ for trace and complex step alike.
        largest = float(np.abs(exact).max(initial=0.0))
        close = np.abs(claimed - exact) <= EXACT_AGREEMENT * (np.abs(claimed) + np.abs(exact)) + 1e-14 * largest
        dropped = ~(np.abs(exact - slope) <= 0.02 * scale + noise)
        return settled & (close | dropped)

    def verdict(
        self,
        claimed: FloatArray,
        exact: FloatArray | None,
        pending: IntArray,
        rounding: Callable[[], FloatArray] = lambda: np.zeros(1),
        *,
        grain: Callable[[], FloatArray],
    ) -> Finding | None:
        """What is wrong with the first entry that never agreed; None where differences, or roundings, cannot tell."""
        slope, bend, noise = np.array(self.slope), np.array(self.bend), np.array(self.noise)
        steps = np.array(STEPS[: len(noise)])[:, None]
        # The quantum of an entry: what its sides scatter by at last, or do not move by where the slope says they would.
        stuck = np.where(np.isnan(slope), np.abs(slope[0]) * steps, 0.0)
        scattered = np.fmin(np.fmax.reduce((bend * steps)[-3:], axis=0) / steps, np.array(self.roof))
        scattered = np.fmax(scattered, 2.0 * stuck.max(axis=0) / steps)
        lost: FloatArray | None = None
        grains: FloatArray | None = None
        for i in pending.tolist():
            heard = np.fmax(noise[:, i], scattered[:, i])
            finding = self._entry(i, claimed, exact, slope[:, i], bend[:, i], noise[:, i], heard)
            if finding is not None:
                grains = grain() if grains is None else grains
                if grains[i] > 0.0:
                    coarse = grains[i] / steps[:, 0]
                    heard = np.fmax(heard, coarse)
                    least = np.fmax(noise[:, i], coarse)
                    finding = self._entry(i, claimed, exact, slope[:, i], bend[:, i], least, heard)
            if finding is not None and finding.kind == "wrong" and not self._is_seen(finding, slope[:, i], heard):
                lost = np.broadcast_to(rounding(), claimed.shape) if lost is None else lost
                if abs(finding.claimed - finding.found) <= lost[i]:
                    continue
            if finding is not None:
                return finding
        return None

    def _is_seen(self, finding: Finding, slope: FloatArray, noise: FloatArray) -> bool:
        """Whether differences alone refute a claim: then what the complex step scatters is a branch, not a rounding."""
        found, error = settled_slope(slope, noise)
        return abs(finding.claimed - found) > 20.0 * error + AGREEMENT * (abs(finding.claimed) + abs(found))

    def _entry(
        self,
        i: int,
        claimed: FloatArray,
        exact: FloatArray | None,
        slope: FloatArray,
        bend: FloatArray,
        noise: FloatArray,
        heard: FloatArray,
    ) -> Finding | None:
        claim = float(claimed[i])
        if bends(bend, noise):
            seen = np.flatnonzero(bend > 8.0 * noise)[-1]
            return Finding("kink", i, claim, float(slope[seen]), float(bend[seen]))
        if jumps(slope, noise):
            return Finding("jump", i, claim, float(slope[-1]), float("inf"))
        if not np.isfinite(slope).any():
            return Finding("edge", i, claim, float("nan"), float("nan"))
        found, error = settled_slope(slope, heard)
        if not np.isfinite(claim):
            return Finding("not finite", i, claim, found, error)
        scale = abs(claim) + abs(found)
        if exact is not None and abs(exact[i] - found) <= 20.0 * error + AGREEMENT * scale and exact[i] != 0.0:
            largest = float(np.abs(exact).max())
            found, error = float(exact[i]), EXACT_AGREEMENT * (abs(claim) + abs(float(exact[i]))) + 1e-14 * largest
            return Finding("wrong", i, claim, found, error) if abs(claim - found) > error else None
        if abs(claim - found) > 20.0 * error + AGREEMENT * scale:
            return Finding("wrong", i, claim, found, error)
        return None


def settled_slope(slope: FloatArray, noise: FloatArray) -> tuple[float, float]:
    """Return the slope at the step where its neighbours agree best, and how well they do, rounding included.

    What larger steps agree on and smaller ones contradict spans a kink beside θ: then only the smaller ones count.
    """
    change = np.abs(np.diff(slope))
    error = np.maximum(change[:-1], change[1:]) + noise[1:-1]
    if not np.isfinite(error).any():
        if not np.isfinite(slope).any():
            return float("nan"), float("inf")
        last = np.flatnonzero(np.isfinite(slope))[-1]
        return float(slope[last]), float("inf")
    first = 0
    for k in range(1, len(error)):
        best = first + int(np.nanargmin(error[first:k])) if np.isfinite(error[first:k]).any() else k
        if abs(slope[k + 1] - slope[best + 1]) > 20.0 * (error[k] + error[best]):
            first = k
    best = first + int(np.nanargmin(error[first:]))
    return float(slope[best + 1]), float(error[best])


def jumps(slope: FloatArray, noise: FloatArray) -> bool:
    """Whether the slope through both sides grows as steps shrink by 8, to the last: an odd jump, an infinite slope.

    Examples
    --------
    >>> h = 2.0 ** -np.arange(10, 38, 3)
    >>> jumps(1.0 + 1.0 / h, 1e-16 / h), jumps(1.0 + h, 1e-16 / h)
    (True, False)
    """
    last = np.abs(np.asarray(slope)[-5:])
    return bool((last > 8.0 * np.asarray(noise)[-5:]).all() and (last[1:] >= 3.5 * last[:-1]).all())


def bends(bend: FloatArray, noise: FloatArray) -> bool:
    """Whether one-sided slopes stay apart by as much, however small the step: a kink, a jump or an infinite slope.

    Parameters
    ----------
    bend
        |forward - backward slope| at steps that shrink by 8; a twice differentiable function's falls by 8 too.
    noise
        Rounding of these slopes.

    Examples
    --------
    >>> h = 2.0 ** -np.arange(10, 32, 3)
    >>> bends(2.0 + 0 * h, 1e-16 / h), bends(h, 1e-16 / h), bends(h ** -0.5, 1e-16 / h)
    (True, False, True)
    """
    seen = np.flatnonzero(np.isfinite(bend) & (bend > 8.0 * noise))
    if seen.size < 3 or (bend[seen[1:]] <= 0.5 * bend[seen[:-1]]).any():
        return False
    # One that is not there any more at smaller steps, where rounding would have let it be seen, lies beside θ.
    return not (noise[seen[-1] + 1 :] < bend[seen[-1]] / 16.0).any()
