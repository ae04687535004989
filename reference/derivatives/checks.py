"""Derivatives held against differences of the function itself, along one fixed pseudo-random direction.

With v the direction and T a table, `(T(θ + hv) - T(θ)) / h` and `(T(θ) - T(θ - hv)) / h` tell three things apart: they
meet as h shrinks where T is differentiable, stay apart at a kink, and their mean is the derivative that a trace or a
closed form has to show. Steps shrink until truncation and rounding are both small beside the derivative; where the
function takes a complex θ, `Im T(θ + ihv) / h` settles what differences cannot resolve. Nothing here has units: all
tolerances are relative to the table's own derivative.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.exceptions import ComplexWarning

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import DerivativeError, InvalidInputError

__all__ = ["STEPS", "Finding", "Probe", "bends", "check_direction", "compare", "describe", "kink", "numerical_jacobian"]

STEPS = tuple(2.0**-k for k in range(10, 32, 3))
"""Steps of the differences, largest first; truncation falls by 64 from one to the next, and a bend by 8."""

AGREEMENT = 1e-6
"""Relative to the derivative: what central differences must confirm."""

EXACT_AGREEMENT = 1e-9
"""The same for the complex step, which has no truncation."""

_COMPLEX_STEP = 1e-100
_NUDGES = (-3e-14, -1e-14, 1e-14, 3e-14)  # of the direction: other roundings of the same derivative
_ROUNDINGS = 20.0  # how many times the rounding seen in a few samples a claim may be off
_ULPS = 4.0 * float(np.finfo(np.float64).eps)  # rounding of one table entry, relative to it

Values = Mapping[str, Any]


def check_direction(theta: FloatArray) -> FloatArray:
    """Return the direction of every check at θ: pseudo-random, no entry small, in units of max(1, |θ_j|).

    Examples
    --------
    >>> bool(np.all(abs(check_direction(np.array([0.0, -100.0]))) >= [0.5, 50.0]))
    True
    """
    rng = np.random.default_rng(20261130)
    size = rng.uniform(0.5, 1.5, theta.shape) * rng.choice([-1.0, 1.0], theta.shape)
    result: FloatArray = size * np.maximum(1.0, np.abs(theta))
    return result


@dataclass(slots=True)
class Probe:
    """Values of a function θ → {name: array} at θ and on both sides of it along a direction, each computed once.

    Attributes
    ----------
    function, theta, direction
        What is probed, where and along what.
    label : str
        Name of the function in messages.
    """

    function: Callable[[Any], Values]
    theta: FloatArray
    direction: FloatArray
    label: str
    base: dict[str, Any] = field(init=False)
    _sides: dict[int, Values | None] = field(default_factory=dict, init=False)
    _slopes: list[Values | None] = field(default_factory=list, init=False)
    complex_failure: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        read = self.function(self.theta)
        # A copy: functions that fill the same array again would compare it with itself.
        self.base = {name: value if _is_constant(value) else np.array(value) for name, value in read.items()}
        ahead = self.side(1)
        for name, value in read.items():
            if (
                ahead is not None
                and ahead[name] is value
                and not np.array_equal(value, self.base[name], equal_nan=True)
            ):
                raise InvalidInputError(
                    f"{self.label}(theta): {name} is the same array object at every θ, filled again; expected a new "
                    "array from each call; return a copy"
                )

    @property
    def sides(self) -> tuple[Values | None, Values | None]:
        """The values one step ahead and one behind."""
        return self.side(1), self.side(-1)

    def side(self, k: int) -> Values | None:
        """Return the values at θ ± STEPS[|k| - 1] v, the sign that of k; None where there are none."""
        if k not in self._sides:
            self._sides[k] = self._at(self.theta + np.sign(k) * STEPS[abs(k) - 1] * self.direction)
        return self._sides[k]

    def _at(self, point: Any) -> Values | None:
        try:
            with np.errstate(all="ignore"):
                return self.function(point)
        except Exception:  # outside where the function is defined; what it raises at θ itself is the user's to see
            return None

    def by_complex_step(self, name: str) -> FloatArray | None:
        """Return the derivative along v by the complex step, None where the function does not take a complex θ."""
        if not self._slopes:
            with warnings.catch_warnings():
                warnings.simplefilter("error", ComplexWarning)  # a cast that loses the derivative
                try:
                    with np.errstate(all="ignore"):
                        self._slopes.append(self.function(self.theta + 1j * _COMPLEX_STEP * self.direction))
                except Exception as error:  # many functions take real numbers only; who needs ℂ reads why
                    self._slopes.append(None)
                    self.complex_failure = str(error)  # the error itself would keep its frames
        found = self._slopes[0]
        if found is None or np.shape(found[name]) != np.shape(self.base[name]):
            return None
        value, base = np.asarray(found[name]), np.asarray(self.base[name])
        if not np.allclose(value.real, base, rtol=1e-12, atol=1e-90 + 1e-12 * float(np.abs(base).max(initial=0.0))):
            return None
        slope: FloatArray = value.imag / _COMPLEX_STEP
        return slope

    def rounding(self, name: str, weights: FloatArray | None) -> FloatArray:
        """Return what roundings can do to a derivative along v.

        That is how far the complex step's moves beside θ, which is much where it cancels, and an ulp of the table.
        """
        exact = _contracted(self.by_complex_step(name), weights)
        size = _ULPS * np.abs(np.ravel(self.base[name]))
        ulp = size if weights is None else np.array([np.abs(weights) @ size])
        moved: FloatArray = np.zeros(ulp.size)
        for nudge in _NUDGES:
            beside = None if exact is None else self._at(self.theta + (nudge + 1j * _COMPLEX_STEP) * self.direction)
            slope = None if beside is None else _contracted(np.asarray(beside[name]).imag / _COMPLEX_STEP, weights)
            if slope is not None and exact is not None:
                moved = np.fmax(moved, np.abs(slope - exact))
        return np.asarray(np.fmax(_ROUNDINGS * moved, ulp))

    def weights(self, name: str) -> FloatArray:
        """Return pseudo-random weights of a table's entries that make each count alike in the derivative along v."""
        shape = np.shape(self.base[name])
        slope, (ahead, behind) = self.by_complex_step(name), self.sides
        if (slope is None or not np.any(slope)) and ahead is not None and behind is not None:
            slope = (np.asarray(ahead[name]) - np.asarray(behind[name])) / (2.0 * STEPS[0])
        size = np.ones(shape) if slope is None else np.abs(slope)
        largest = float(np.max(size, initial=0.0, where=np.isfinite(size)))
        size = np.where(np.isfinite(size), size, largest)
        signs = check_direction(np.zeros(shape))
        result: FloatArray = signs / (size + 1e-3 * largest) if largest > 0.0 else signs
        return result

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

    def still(self, name: str) -> Any:
        """Return which entries of a table do not move from θ to either side of it."""
        same = [np.asarray(side[name]) == self.base[name] for side in self.sides if side is not None]
        return np.logical_and.reduce(same) if same else np.zeros(np.shape(self.base[name]), dtype=np.bool_)

    def has_slope(self, name: str) -> bool:
        """Whether the complex step shows a derivative, be it too small to move the table by an ulp."""
        slope = self.by_complex_step(name)
        return slope is not None and bool(np.any(slope))

    def moves(self, name: str) -> bool:
        """Whether a table is another one anywhere near θ."""
        for k in range(1, len(STEPS) + 1):
            sides = self.side(k), self.side(-k)
            if any(side is not None for side in sides):
                return not all(_same(side, name, self.base[name]) for side in sides)
        return False


def _is_constant(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, np.ndarray) and not value.flags.writeable)


def _same(values: Values | None, name: str, base: Any) -> bool:
    return values is None or values[name] is base or bool(np.array_equal(values[name], base, equal_nan=True))


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a claimed derivative.

    Attributes
    ----------
    kind : str
        "kink", "edge" (no values to both sides), "not finite" or "wrong".
    index : int
        Flat index of the entry, -1 for a weighted sum of all.
    claimed, found, error : float
        The claim, what differences show, and their own error.
    """

    kind: str
    index: int
    claimed: float
    found: float
    error: float


def compare(
    claimed: FloatArray,
    probe: Probe,
    name: str,
    weights: FloatArray | None = None,
    rounding: Callable[[], float] = lambda: 0.0,
) -> Finding | None:
    """Hold derivatives along the probe's direction against differences; None where they agree.

    Parameters
    ----------
    claimed
        Derivative of each entry of the table, flat; with `weights` one number, the weighted sum.
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
    pending = np.arange(claimed.size)
    if (
        weights is None
        and not claimed.any()
        and all(side is not None and _same(side, name, probe.base[name]) for side in probe.sides)
    ):
        return None
    history = _History([], [], [])
    with np.errstate(all="ignore"):
        exact = _contracted(probe.by_complex_step(name), weights)
        for k in range(1, len(STEPS) + 1):
            history.add(probe, name, k, weights)
            pending = pending[~history.agrees(claimed, exact)[pending]]
            if pending.size == 0:
                return None
        finding = history.verdict(
            claimed, exact, pending, lambda: probe.rounding(name, weights) + _ROUNDINGS * rounding()
        )
    return finding if weights is None or finding is None else replace(finding, index=-1)


def kink(probe: Probe, name: str) -> Finding | None:
    """Return where a table has no derivative along the probe's direction; None where it has one in every entry."""
    pending = np.arange(np.size(probe.base[name]))
    history = _History([], [], [])
    with np.errstate(all="ignore"):
        for k in range(1, len(STEPS) + 1):
            history.add(probe, name, k, None)
            pending = pending[~history.smooth()[pending]]
            if pending.size == 0:
                return None
        finding = history.verdict(np.full(np.size(probe.base[name]), np.nan), None, pending)
    return None if finding is None or finding.kind == "not finite" else finding


def _contracted(slope: FloatArray | None, weights: FloatArray | None) -> FloatArray | None:
    if slope is None or weights is None:
        return None if slope is None else slope.ravel()
    return np.array([np.vdot(weights, slope)])


@dataclass(slots=True)
class _History:
    """Slopes, bends and rounding of each step so far, one row of entries each."""

    slope: list[FloatArray]
    bend: list[FloatArray]
    noise: list[FloatArray]

    def add(self, probe: Probe, name: str, k: int, weights: FloatArray | None) -> None:
        base, step = np.ravel(probe.base[name]), STEPS[k - 1]
        nothing = np.full(base.size, np.nan)
        sides = [nothing if side is None else np.ravel(side[name]) for side in (probe.side(k), probe.side(-k))]
        forward, backward = (sides[0] - base) / step, (base - sides[1]) / step
        noise = _ULPS * np.maximum(np.abs(base), np.maximum(np.abs(sides[0]), np.abs(sides[1]))) / step
        if weights is not None:
            forward, backward = np.array([weights @ forward]), np.array([weights @ backward])
            noise = np.array([np.abs(weights) @ noise])
        slope = 0.5 * (forward + backward)
        if self.slope:
            # Not a step moved where larger ones did, and the slope had not faded: the function has fewer digits.
            last = np.abs(self.slope[-1])
            slope[(forward == 0.0) & (backward == 0.0) & ~(last < 0.125 * np.abs(self.slope[0]))] = np.nan
            slope[(self.slope[0] == 0.0) & np.isnan(slope)] = 0.0
        self.slope.append(slope)
        self.bend.append(np.abs(forward - backward))
        self.noise.append(noise)

    def scale(self, claimed: FloatArray | float = 0.0) -> Any:
        """The size that errors are relative to: the derivative's own, and not less than rounding of the largest."""
        slope = np.abs(self.slope[-1])
        return np.abs(claimed) + slope + 1e-6 * np.nanmax(slope, initial=0.0)

    def smooth(self) -> Any:
        """Whether one-sided slopes meet at the last step, or close in on each other."""
        bend, noise = self.bend[-1], self.noise[-1]
        meet = bend <= 0.02 * self.scale() + 4.0 * noise
        return meet if len(self.bend) < 2 else meet | (bend <= 0.25 * self.bend[-2] + 4.0 * noise)

    def agrees(self, claimed: FloatArray, exact: FloatArray | None) -> Any:
        """Whether the last step shows a smooth entry with the claimed derivative."""
        slope, noise, scale, smooth = self.slope[-1], self.noise[-1], self.scale(claimed), self.smooth()
        if exact is None:
            return smooth & (np.abs(claimed - slope) <= AGREEMENT * scale + noise)
        # Differences have to see the same derivative roughly: a function may drop the imaginary part unheard.
        largest = float(np.abs(exact).max(initial=0.0))
        close = np.abs(claimed - exact) <= EXACT_AGREEMENT * (np.abs(claimed) + np.abs(exact)) + 1e-14 * largest
        seen = np.abs(claimed - slope) <= 0.02 * scale + noise
        settled = np.abs(claimed - slope) <= AGREEMENT * scale + noise
        dropped = ~(np.abs(exact - slope) <= 0.02 * scale + noise)
        return smooth & ((close & seen) | (settled & dropped))

    def verdict(
        self,
        claimed: FloatArray,
        exact: FloatArray | None,
        pending: Any,
        rounding: Callable[[], FloatArray] = lambda: np.zeros(1),
    ) -> Finding | None:
        """What is wrong with the first entry that never agreed; None where differences, or roundings, cannot tell."""
        slope, bend, noise = np.array(self.slope), np.array(self.bend), np.array(self.noise)
        lost: FloatArray | None = None
        for i in pending.tolist():
            finding = self._entry(i, claimed, exact, slope[:, i], bend[:, i], noise[:, i])
            if finding is not None and finding.kind == "wrong":
                lost = np.broadcast_to(rounding(), claimed.shape) if lost is None else lost
                if abs(finding.claimed - finding.found) <= lost[i]:
                    continue
            if finding is not None:
                return finding
        return None

    def _entry(
        self, i: int, claimed: FloatArray, exact: FloatArray | None, slope: Any, bend: Any, noise: Any
    ) -> Finding | None:
        claim = float(claimed[i])
        if bends(bend, noise):
            seen = np.flatnonzero(bend > 8.0 * noise)[-1]
            return Finding("kink", i, claim, float(slope[seen]), float(bend[seen]))
        if not np.isfinite(slope).any():
            return Finding("edge", i, claim, float("nan"), float("nan"))
        found, error = settled_slope(slope, noise)
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


def settled_slope(slope: Any, noise: Any) -> tuple[float, float]:
    """Return the slope at the step where its neighbours agree best, and how well they do, rounding included."""
    change = np.abs(np.diff(slope))
    error = np.maximum(change[:-1], change[1:]) + noise[1:-1]
    if not np.isfinite(error).any():
        if not np.isfinite(slope).any():
            return float("nan"), float("inf")
        last = np.flatnonzero(np.isfinite(slope))[-1]
        return float(slope[last]), float("inf")
    best = int(np.nanargmin(error))
    return float(slope[best + 1]), float(error[best])


def bends(bend: Any, noise: Any) -> bool:
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
    bend, noise = np.asarray(bend), np.asarray(noise)
    seen = np.flatnonzero(np.isfinite(bend) & (bend > 8.0 * noise))
    if seen.size < 3 or (bend[seen[1:]] <= 0.5 * bend[seen[:-1]]).any():
        return False
    # One that is not there any more at smaller steps, where rounding would have let it be seen, lies beside θ.
    return not (noise[seen[-1] + 1 :] < bend[seen[-1]] / 16.0).any()


_REASONS = {
    "the complex step": (
        "the function is not analytic (abs, conj, max) or drops the imaginary part (real, a cast); use another route"
    ),
    "constant": (
        "the trace of θ is lost in it (plain NumPy on object arrays, a cast to float, `.item()`, values kept from "
        "another call), or an `if` on values decides; write it with autograd.numpy, or give the closed form"
    ),
    "autograd": (
        "a rule of the automatic differentiation library that is wrong for this call (autograd 1.9.1 has one: "
        "linalg.solve of a stack of matrices and one vector; write b[..., None]), or plain NumPy or an `if` on values "
        "on part of the way; rewrite that step or give the closed form"
    ),
    "not finite": (
        "the function is differentiable there and autograd's rule for one of its steps is not (norm(x)**2 at 0, prod "
        "with a factor 0, where() with an infinite slope in the branch not taken); rewrite it or give the closed form"
    ),
}


def describe(label: str, name: str, shape: tuple[int, ...], finding: Finding, source: str, theta: FloatArray) -> str:
    """Return the message of a finding: the table, the direction, both numbers and the likely reason.

    Parameters
    ----------
    label, name, shape
        The function and its table.
    finding
        What is wrong.
    source
        "autograd", "constant" (not traced at all) or the name of a closed form.
    theta
        Where.
    """
    entry = name
    if finding.index >= 0 and shape:
        entry = f"{name}{[int(i) for i in np.unravel_index(finding.index, shape)]}"
    elif shape:
        entry = f"a weighted sum of {name}"
    point = np.array2string(theta, threshold=8)
    direction = np.array2string(check_direction(theta), threshold=8, precision=3)
    start = f"{label}(theta): the derivative of {entry} at theta={point} along {direction}"
    if finding.kind == "kink":
        return (
            f"{start} does not exist: slopes to the two sides differ by {finding.error:.6g} however small the step, "
            "a kink (or a jump, or an infinite slope) exactly at this θ; expected a differentiable function; move θ "
            "off the kink or smooth the function"
        )
    if finding.kind == "edge":
        return (
            f"{start} cannot be formed: there are no finite values on one side of this θ, the edge of where the "
            "function is defined, or a kink with an infinite slope; expected a differentiable function; move θ inside"
        )
    reason = _REASONS.get("not finite" if finding.kind == "not finite" else source)
    if reason is None:
        reason = f"{source} is wrong, or belongs to another function"
    claimed = "0 (the table does not depend on θ)" if source == "constant" else f"{finding.claimed:.10g} by {source}"
    return (
        f"{start} is {claimed} and {finding.found:.10g} by differences (± {finding.error:.1g}); likely reason: "
        f"{reason}. route='finite_difference' needs no derivative of the function; verify_derivatives=False turns "
        "this check off"
    )


def numerical_jacobian(function: Callable[[Any], Values], theta: FloatArray, label: str) -> dict[str, FloatArray]:
    """Return {name: (*shape, N)} of the tables that move, by the complex step or central differences.

    Raises
    ------
    DerivativeError
        At a kink.
    """
    columns: list[dict[str, FloatArray]] = []
    for j in range(theta.size):
        direction = np.zeros(theta.size)
        direction[j] = max(1.0, abs(float(theta.flat[j])))
        probe = Probe(function, theta, direction.reshape(theta.shape), label)
        moving = [name for name in probe.base if probe.moves(name) or probe.has_slope(name)]
        columns.append({name: _slope(probe, name) / direction[j] for name in moving})
    names = {name for column in columns for name in column}
    shapes = {name: np.shape(value) for name, value in function(theta).items()}
    return {name: np.stack([column.get(name, np.zeros(shapes[name])) for column in columns], axis=-1) for name in names}


def _slope(probe: Probe, name: str) -> FloatArray:
    if kink(probe, name) is not None:
        raise DerivativeError(f"{probe.label}(theta): {name} has a kink at this θ; expected a differentiable function")
    history = _History([], [], [])
    exact = probe.by_complex_step(name)
    with np.errstate(all="ignore"):
        for k in range(1, len(STEPS) + 1):
            history.add(probe, name, k, None)
            # Differences know the derivative roughly; the complex step, where it is the same one, to rounding.
            if exact is not None and history.agrees(exact.ravel(), exact.ravel()).all():
                return exact
    slope, noise = np.array(history.slope), np.array(history.noise)
    found = np.array([settled_slope(slope[:, i], noise[:, i])[0] for i in range(slope.shape[1])])
    return found.reshape(np.shape(probe.base[name]))
