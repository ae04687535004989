"""Values of a function θ → {name: array} at θ and around it, along one fixed pseudo-random direction.

Steps shrink until truncation and rounding of differences are both small beside the derivative; where the function takes
a complex θ, `Im T(θ + ihv) / h` has no truncation at all. Whatever is asked twice is computed once.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.exceptions import ComplexWarning

from bilevelrl.reference.arrays import AnyArray, BoolArray, FloatArray, Traced, is_frozen
from bilevelrl.reference.derivatives.alike import contracted, is_near, same
from bilevelrl.reference.errors import InvalidInputError

__all__ = [
    "DEEPER",
    "EXACT_AGREEMENT",
    "FAR",
    "NOISE",
    "ROUNDINGS",
    "STEPS",
    "ULPS",
    "Entries",
    "Probe",
    "check_direction",
    "check_directions",
    "signs_of",
]

STEPS = tuple(2.0**-k for k in range(10, 38, 3))
"""Steps of the differences, largest first; truncation falls by 64 from one to the next, and a bend by 8."""

DEEPER = 2
"""How many of them, the last, only refute: rounding leaves them too little to confirm with."""

FAR = 2.0**-4
"""Step to where another value shows what a function does beyond those steps."""

ULPS = 4.0 * float(np.finfo(np.float64).eps)
"""Rounding of one entry of an array, relative to it."""

EXACT_AGREEMENT = 1e-9
"""Relative to the derivative: what the complex step, which has no truncation, must confirm."""

ROUNDINGS = 20.0
"""How many times the rounding seen in a few samples a claim may be off."""

NOISE = 1e-11
"""Of an array, relative to its largest entry: rounding leaves 1e-16, float32 1e-8."""

_AGAIN = 8
_LAST = 5  # steps, of which the longest leaves a second difference of 1e-15: what is more scatters
_COMPLEX_STEP = 1e-100
_NUDGES = (-3e-14, -1e-14, 1e-14, 3e-14)  # of the direction: other roundings of the same derivative
_KEPT = 2**16  # entries; larger arrays are drawn anew
_MANY = 2**14  # entries of all arrays: then memory counts, and another look at the function does not

Values: TypeAlias = Mapping[str, Traced]
Entries: TypeAlias = Callable[[Traced], Values]


def check_direction(theta: FloatArray) -> FloatArray:
    """Return the direction of every check at θ: pseudo-random, no entry small, in units of max(1, |θ_j|).

    Examples
    --------
    >>> bool(np.all(abs(check_direction(np.array([0.0, -100.0]))) >= [0.5, 50.0]))
    True
    """
    result: FloatArray = signs_of(theta.shape) * np.maximum(1.0, np.abs(theta))
    return result


def check_directions(thetas: FloatArray) -> FloatArray:
    """Return `check_direction` of each of many θ, (R, *theta_shape)."""
    result: FloatArray = signs_of(thetas.shape[1:]) * np.maximum(1.0, np.abs(thetas))
    return result


def signs_of(shape: tuple[int, ...], draw: int = 0) -> FloatArray:
    """Return pseudo-random numbers between 1/2 and 3/2 of either sign, always the same."""
    return _drawn(shape, draw) if math.prod(shape) <= _KEPT else _drawn.__wrapped__(shape, draw)


@functools.lru_cache(maxsize=32)
def _drawn(shape: tuple[int, ...], draw: int) -> FloatArray:
    rng = np.random.default_rng(20261130 + draw)
    size: FloatArray = rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape)
    size.setflags(write=False)
    return size


@dataclass(slots=True)
class Probe:
    """Values of a function θ → {name: array} at θ and on both sides of it along a direction, each computed once.

    Attributes
    ----------
    function, theta
        What is probed, and where.
    label : str
        Name of the function in messages.
    read
        The values at θ, where they are known already.
    along
        The direction; None: `check_direction`.
    again
        Which arrays were the same when they were asked for again at θ; empty: not asked.
    base
        A copy of the values at θ: functions that fill the same array again would compare it with itself.
    """

    function: Entries
    theta: FloatArray
    label: str
    read: Values | None = None
    along: FloatArray | None = None
    again: dict[str, bool] = field(default_factory=dict)
    base: dict[str, AnyArray | float] = field(init=False)
    complex_failure: str | None = field(default=None, init=False)
    _sides: dict[int, Values | None] = field(default_factory=dict, init=False)
    _complex: list[Values | None] = field(default_factory=list, init=False)
    _slopes: dict[str, FloatArray | None] = field(default_factory=dict, init=False)
    _analytic: dict[str, bool] = field(default_factory=dict, init=False)
    _far: list[Values | None] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.read = self.function(self.theta) if self.read is None else self.read
        self.base = {name: value if _is_constant(value) else np.array(value) for name, value in self.read.items()}

    @property
    def direction(self) -> FloatArray:
        """Along what the function is probed."""
        if self.along is None:
            self.along = check_direction(self.theta)
        return self.along

    @property
    def sides(self) -> tuple[Values | None, Values | None]:
        """The values one step ahead and one behind."""
        kept = self._sides
        return kept[1] if 1 in kept else self.side(1), kept[-1] if -1 in kept else self.side(-1)

    def side(self, k: int) -> Values | None:
        """Return the values at θ ± STEPS[|k| - 1] v, the sign that of k; None where there are none.

        Raises
        ------
        InvalidInputError
            If the function fills one array again and again.
        """
        if k not in self._sides:
            first = not self._sides
            if self._is_large:
                self._sides = {known: side for known, side in self._sides.items() if abs(known) == abs(k)}
            found = self._at(self.theta + np.sign(k) * STEPS[abs(k) - 1] * self.direction)
            if found is not None and first:
                self._refuse_filled(found)
            self._sides[k] = found
        return self._sides[k]

    def repeats(self, name: str) -> bool:
        """Whether a table is the same eight times more at θ itself; asked where differences look as if it were not."""
        if not self.again:
            self.again.update(dict.fromkeys(self.base, True))
            for _ in range(_AGAIN):
                found = self._at(self.theta.copy())
                if found is None:
                    continue
                for other, value in self.base.items():
                    base = np.asarray(value)
                    size = float(np.abs(base).max(initial=0.0, where=np.isfinite(base)))
                    self.again[other] &= same(found[other], base) or is_near(found[other], base, NOISE * size)
        return self.again[name]

    def small_slope(self, name: str) -> FloatArray | None:
        """Return each entry's derivative along v, flat, by the complex step or differences over a few millionths."""
        exact, (ahead, behind) = self.by_complex_step(name), (self.side(4), self.side(-4))
        if exact is not None or ahead is None or behind is None:
            return None if exact is None else exact.ravel()
        return np.ravel((np.asarray(ahead[name]) - np.asarray(behind[name])) / (2.0 * STEPS[3]))

    @property
    def far(self) -> Values | None:
        """The values at θ + FAR v; None where there are none."""
        if not self._far:
            self._far.append(self.at(FAR))
        return self._far[0]

    def at(self, step: float) -> Values | None:
        """Return the values at θ + step v, computed now; None where there are none."""
        return self._at(self.theta + step * self.direction)

    def _refuse_filled(self, ahead: Values) -> None:
        assert self.read is not None
        for name, value in self.read.items():
            if np.may_share_memory(ahead[name], value) and not same(value, self.base[name]):
                raise InvalidInputError(
                    f"{self.label}(theta): {name} is the same memory at every θ, filled again; expected a new array "
                    "from each call; return a copy"
                )

    def _at(self, point: AnyArray) -> Values | None:
        try:
            with np.errstate(all="ignore"):
                return self.function(point)
        except Exception:  # outside where the function is defined; what it raises at θ itself is the user's to see
            return None

    def by_complex_step(self, name: str) -> FloatArray | None:
        """Return the derivative along v by the complex step, None where the function does not take a complex θ."""
        if name not in self._slopes:
            with np.errstate(all="ignore"):
                found = self._beside()
                self._slopes[name] = self._slope(found, name)
                if self._is_large:  # one array less for each that moves
                    self._complex.clear()
        return self._slopes[name]

    @property
    def _is_large(self) -> bool:
        return sum(np.size(value) for value in self.base.values()) > _MANY

    def release(self, *, far_only: bool = False) -> None:
        """Forget, where they are many, the values that are had again by asking."""
        if self._is_large:
            for kept in (self._far,) if far_only else (self._sides, self._complex, self._slopes, self._far):
                kept.clear()

    def is_analytic(self, name: str) -> bool:
        """Whether every entry moves as the complex step has it: then that misses no part of 2e-6 and more."""
        if name not in self._analytic:
            self._analytic[name] = self._is_analytic(name)
        return self._analytic[name]

    def _is_analytic(self, name: str) -> bool:
        slope, (ahead, behind) = self.by_complex_step(name), self.sides
        if slope is None or ahead is None or behind is None:
            return False
        off = np.subtract(ahead[name], behind[name])
        off /= 2.0 * STEPS[0]
        off -= slope
        off = np.abs(off)
        off -= 2e-6 * np.abs(slope)
        smallest = 1e-9 * np.abs(slope).max(initial=0.0) + (ULPS / STEPS[0]) * np.abs(self.base[name]).max(initial=0.0)
        return bool(off.max(initial=0.0) <= smallest)

    def is_same_beside_imaginary_part(self) -> bool:
        """Whether the function, asked again for the complex step, has the same real parts but for rounding."""
        found = self._beside()
        return found is not None and all(
            found[name] is base or self.by_complex_step(name) is not None for name, base in self.base.items()
        )

    def confirms(self, name: str, weights: FloatArray, claimed: float) -> bool:
        """Whether a weighted sum of slopes is that of the complex step, and those of the two sides are one.

        Quicker than `compare`, for arrays that are analytic.
        """
        slope, (ahead, behind) = self.by_complex_step(name), self.sides
        assert slope is not None
        assert ahead is not None
        assert behind is not None
        exact = float(np.vdot(weights, slope))
        if not abs(claimed - exact) <= EXACT_AGREEMENT * (abs(claimed) + abs(exact)):
            return False
        base = self.base[name]
        bend = np.add(ahead[name], behind[name]) - np.multiply(2.0, base)
        noise = 4.0 * ULPS * float(np.vdot(np.abs(weights), np.abs(base)))
        return abs(float(np.vdot(weights, bend))) <= 0.02 * STEPS[0] * abs(claimed) + noise

    def _beside(self) -> Values | None:
        """The values an imaginary step away."""
        if not self._complex:
            with warnings.catch_warnings():
                warnings.simplefilter("error", ComplexWarning)  # a cast that loses the derivative
                try:
                    with np.errstate(all="ignore"):
                        self._complex.append(self.function(self.theta + 1j * _COMPLEX_STEP * self.direction))
                except Exception as error:  # many functions take real numbers only; who needs ℂ reads why
                    self._complex.append(None)
                    self.complex_failure = str(error)  # the error itself would keep its frames
        return self._complex[0]

    def _slope(self, found: Values | None, name: str) -> FloatArray | None:
        base = np.asarray(self.base[name])
        if found is None or np.shape(found[name]) != base.shape:
            return None
        value = np.asarray(found[name])
        if not same(value.real, base):
            size = np.abs(base)
            if not np.all(np.abs(value.real - base) <= 1e-90 + 1e-12 * (size + size.max(initial=0.0))):
                return None
        slope: FloatArray = value.imag / _COMPLEX_STEP
        return slope

    def rounding(self, name: str, weights: FloatArray | None) -> FloatArray:
        """Return what roundings can do to a derivative along v.

        That is how far the complex step's moves beside θ, which is much where it cancels, and an ulp of the table.
        """
        exact = contracted(self.by_complex_step(name), weights)
        size = ULPS * np.abs(np.ravel(self.base[name]))
        ulp = size if weights is None else np.array([np.abs(weights) @ size])
        moved: FloatArray = np.zeros(ulp.size)
        for nudge in _NUDGES:
            beside = None if exact is None else self._at(self.theta + (nudge + 1j * _COMPLEX_STEP) * self.direction)
            slope = None if beside is None else contracted(np.asarray(beside[name]).imag / _COMPLEX_STEP, weights)
            if slope is not None and exact is not None:
                moved = np.fmax(moved, np.abs(slope - exact))
        return np.asarray(np.fmax(ROUNDINGS * moved, ulp))

    def grain(self, name: str) -> FloatArray:
        """Return by how much each entry moves at least, flat: more than its own ulp if it is made of larger numbers.

        `cdf(b) - cdf(a)` in a tail stands still over steps at which its slope would have moved it, or scatters by an
        ulp of one. No grain is more than rounding of the largest entry; those that show none are taken at their word.
        """
        base, exact = np.ravel(self.base[name]), self.by_complex_step(name)
        grain, slope = np.zeros(base.size), np.zeros(base.size) if exact is None else np.abs(exact.ravel())
        for k, step in enumerate(STEPS, start=1):
            ahead, behind = self.side(k), self.side(-k)
            if ahead is None or behind is None:
                continue
            forward, backward = np.ravel(ahead[name]) - base, base - np.ravel(behind[name])
            stuck = (forward == 0.0) & (backward == 0.0)
            grain = np.fmax(grain, np.where(stuck, 8.0 * slope * step, 0.0))  # it moved over a step eight times as long
            if k > len(STEPS) - _LAST:
                grain = np.fmax(grain, np.abs(forward - backward))
            slope = np.where(stuck, slope, np.abs(forward + backward) / (2.0 * step))
        largest = float(np.abs(base).max(initial=0.0))
        return np.asarray(np.where(grain > ULPS * np.abs(base), np.fmin(grain, ULPS * largest), 0.0))

    def noise(self, name: str) -> float:
        """Return the noise of a table, relative to its largest entry: what sixth differences leave on either side of θ.

        A smooth function leaves none at some step; one that is computed in float32 leaves 1e-8 wherever it moves at
        all, and a kink beside θ leaves none on the other side.
        """
        size = float(np.abs(self.base[name]).max(initial=0.0))
        found = [np.inf]
        for step in (2.0**-8, 2.0**-14, 2.0**-20):
            for sign in (1.0, -1.0):
                values = [self._at(self.theta + sign * k * step * self.direction) for k in range(1, 8)]
                if all(value is not None for value in values):
                    rows = np.array([np.asarray(value[name]) for value in values if value is not None])
                    if np.any(np.ptp(rows, axis=0)):
                        found.append(float(np.abs(np.diff(rows, 6, axis=0)).max(initial=0.0)) / 924.0**0.5)
        return min(found) / size if size > 0.0 and np.isfinite(min(found)) else 0.0

    def still(self, name: str) -> BoolArray:
        """Return which entries of a table do not move from θ to either side of it."""
        sides = [np.asarray(side[name]) == self.base[name] for side in self.sides if side is not None]
        return np.logical_and.reduce(sides) if sides else np.zeros(np.shape(self.base[name]), dtype=np.bool_)

    def has_slope(self, name: str) -> bool:
        """Whether the complex step shows a derivative, be it too small to move the table by an ulp."""
        slope = self.by_complex_step(name)
        return slope is not None and bool(np.any(slope))

    def moves(self, name: str) -> bool:
        """Whether a table is another one anywhere near θ."""
        for k in range(1, len(STEPS) + 1):
            ahead, behind = self.sides if k == 1 else (self.side(k), self.side(-k))
            if ahead is not None or behind is not None:
                base = self.base[name]
                return not all(side is None or same(side[name], base) for side in (ahead, behind))
        return False


def _is_constant(value: object) -> bool:
    return isinstance(value, float) or is_frozen(value)
