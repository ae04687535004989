"""The slopes of f(θ, π, d) in its three arguments, traced or given, held against differences of f.

Each argument is moved alone, so that a message can name it. θ is moved as it is; policy and occupancy are moved
relative to themselves, `π (1 + h v)` with v pseudo-random: they stay positive, and a logarithm stays what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import autograd
import autograd.numpy as anp
import numpy as np

from bilevelrl.reference.arrays import FloatArray, Traced, check_shape
from bilevelrl.reference.derivatives.array_values import tracing
from bilevelrl.reference.derivatives.checks import compare
from bilevelrl.reference.derivatives.findings import Finding
from bilevelrl.reference.derivatives.probes import Probe
from bilevelrl.reference.derivatives.weights import hidden_probes
from bilevelrl.reference.errors import DerivativeError, InvalidInputError, UnknownNameError, refusal

__all__ = ["ARGUMENTS", "Slopes", "checked_slopes", "confirm_analytic"]

ARGUMENTS = ("theta", "policy", "occupancy")

Value = Callable[[Traced, Traced, Traced], Traced]
Given = Callable[[FloatArray, FloatArray, FloatArray], Mapping[str, FloatArray]]


class Slopes(NamedTuple):
    """∂f/∂θ (θ's shape), ∂f/∂π (S, A) and ∂f/∂d (S,)."""

    theta: FloatArray
    policy: FloatArray
    occupancy: FloatArray


def checked_slopes(
    value: Value, given: Given | None, point: tuple[FloatArray, FloatArray, FloatArray], *, verify: bool
) -> Slopes:
    """Return the slopes of f at (θ, π, d)."""
    found = _traced(value, point) if given is None else _as_given(given, point)
    for name, slope in zip(ARGUMENTS, found, strict=True):
        if not np.isfinite(slope).all():
            remedy = "f has no derivative there, or its trace has none: give cotangents"
            raise DerivativeError(refusal(f"slope of objective by {name}", "not finite", "finite numbers", remedy))
    if verify:
        source = "autograd" if given is None else "cotangents"
        for k, (slope, argument) in enumerate(zip(found, point, strict=True)):
            if argument.size:
                _hold(k, slope, argument, _moved(value, point, k), source)
    return found


def confirm_analytic(value: Value, point: tuple[FloatArray, FloatArray, FloatArray]) -> None:
    """Refuse an f that does not take complex arguments, or drops their imaginary parts.

    Raises
    ------
    InvalidInputError
        Naming the argument.
    """
    for k, name in enumerate(ARGUMENTS):
        probe = _moved(value, point, k)
        if probe.moves("objective") and not probe.is_analytic("objective"):
            reason = probe.complex_failure or "its imaginary part is not the derivative"
            raise InvalidInputError(
                f"objective(theta, policy, occupancy) with a complex {name}: {reason}; expected a function analytic in "
                "it, without abs, max or casts to float; use another route"
            )


def _traced(value: Value, point: tuple[FloatArray, FloatArray, FloatArray]) -> Slopes:
    def known(*arguments: Traced) -> Traced:
        return value(*arguments) + 0.0 * sum(anp.sum(argument) for argument in arguments)

    with tracing("objective"), np.errstate(all="ignore"):
        slopes = autograd.grad(known, (0, 1, 2))(*point)
    return Slopes(*(np.asarray(slope, dtype=np.float64) for slope in slopes))


def _as_given(given: Given, point: tuple[FloatArray, FloatArray, FloatArray]) -> Slopes:
    found: object = given(*(argument.copy() for argument in point))
    if not isinstance(found, Mapping):
        label, wanted = "cotangents(theta, policy, occupancy)", f"a mapping of {ARGUMENTS}"
        raise InvalidInputError(refusal(label, type(found).__name__, wanted, "return a dictionary"))
    for name in found:
        if name not in ARGUMENTS:
            raise UnknownNameError("cotangents(theta, policy, occupancy)", name, ARGUMENTS)
    slopes = []
    for name, argument in zip(ARGUMENTS, point, strict=True):
        slope = np.array(found.get(name, np.zeros(argument.shape)), dtype=np.float64)
        check_shape(f"cotangents[{name!r}]", slope, argument.shape, f"one slope for each entry of {name}")
        slopes.append(slope)
    return Slopes(*slopes)


def _moved(value: Value, point: tuple[FloatArray, FloatArray, FloatArray], k: int) -> Probe:
    """Return f as a function of one argument's move, the others at rest."""
    argument = point[k]

    def function(x: Traced) -> dict[str, Traced]:
        arguments: list[Traced] = list(point)
        arguments[k] = x if k == 0 else argument * (1.0 + np.reshape(x, argument.shape))
        return {"objective": value(*arguments)}

    return Probe(function, argument if k == 0 else np.zeros(argument.size), "objective")


def _hold(k: int, slope: FloatArray, argument: FloatArray, probe: Probe, source: str) -> None:
    """Hold one argument's slopes against differences, all entries at once and then those that others hide."""
    own = (slope if k == 0 else slope * argument).ravel()
    with np.errstate(all="ignore"):
        for one in (probe, *hidden_probes(probe, np.abs(own * probe.direction.ravel()), still=True)):
            finding = compare(np.array([own @ one.direction.ravel()]), one, "objective")
            if finding is not None:
                raise DerivativeError(_sentence(ARGUMENTS[k], finding, one.direction, source))


def _sentence(name: str, finding: Finding, direction: FloatArray, source: str) -> str:
    moved = np.array2string(direction, threshold=8, precision=3)
    along = f"{name} + h {moved}" if name == "theta" else f"{name} (1 + h {moved})"
    if finding.kind in ("kink", "jump", "edge"):
        return (
            f"objective(theta, policy, occupancy) along {along}: expected a differentiable function, found a "
            f"{finding.kind} at h = 0; smooth it, or move θ"
        )
    return (
        f"cotangents[{name!r}]: the slope of f along {along} is {finding.claimed:.10g} by {source}, expected "
        f"{finding.found:.10g}, which differences of f show (± {finding.error:.1g}); correct it, or leave "
        "cotangents out to have them traced"
    )
