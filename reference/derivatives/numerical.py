"""Derivatives without a trace: the complex step, or differences where the function does not take a complex θ."""

from __future__ import annotations

import autograd.numpy as anp
import numpy as np

from bilevelrl.reference.arrays import FloatArray, Traced
from bilevelrl.reference.derivatives.checks import History, kink, settled_slope
from bilevelrl.reference.derivatives.probes import STEPS, Entries, Probe
from bilevelrl.reference.errors import DerivativeError

__all__ = ["linearised", "numerical_jacobian"]


def numerical_jacobian(function: Entries, theta: FloatArray, label: str) -> dict[str, FloatArray]:
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
        probe = Probe(function, theta, label, along=direction.reshape(theta.shape))
        moving = [name for name in probe.base if probe.moves(name) or probe.has_slope(name)]
        columns.append({name: _slope(probe, name) / direction[j] for name in moving})
    names = {name for column in columns for name in column}
    shapes = {name: np.shape(value) for name, value in function(theta).items()}
    return {name: np.stack([column.get(name, np.zeros(shapes[name])) for column in columns], axis=-1) for name in names}


def _slope(probe: Probe, name: str) -> FloatArray:
    if kink(probe, name) is not None:
        raise DerivativeError(f"{probe.label}(theta): {name} has a kink at this θ; expected a differentiable function")
    history = History()
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


def linearised(entries: Entries, theta: FloatArray, label: str) -> Entries:
    """Return the function that is affine in θ and has the same values and derivatives at one θ, without a trace.

    Derivatives are those of the complex step or of differences: for what needs them to a few digits, such as a bound.

    Examples
    --------
    >>> affine = linearised(lambda x: {"y": np.square(x)}, np.array([1.0, 2.0]), "tables")
    >>> affine(np.array([1.0, 3.0]))["y"]
    array([1., 8.])
    """
    values, jacobian = entries(theta), numerical_jacobian(entries, theta, label)

    def affine(x: Traced) -> dict[str, Traced]:
        moved = anp.reshape(x, (-1,)) - theta.ravel()
        return {
            name: value + anp.dot(jacobian[name], moved) if name in jacobian else value
            for name, value in values.items()
        }

    return affine
