"""Derivatives of several arrays that depend on θ: which of them do, their Jacobians, and pullbacks of cotangents.

A function θ → {name: array}, written with `autograd.numpy`, or closed-form Jacobians in its place. One trace serves
all cotangents that are pulled back at the same θ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import autograd
import autograd.numpy as anp
import numpy as np
from autograd.tracer import isbox

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.autodiff import directional_derivatives

__all__ = ["Entries", "Jacobian", "entries_jacobian", "pull_streams", "pullback_at", "varying_entries"]

Entries = Callable[[Any], Mapping[str, Any]]
Jacobian = Callable[[FloatArray], Mapping[str, FloatArray]]


def varying_entries(entries: Entries, theta: FloatArray) -> frozenset[str]:
    """Return the names of the arrays that depend on θ, read from the traced computation.

    Examples
    --------
    >>> sorted(varying_entries(lambda x: {"moves": x ** 2, "stays": np.ones(3)}, np.ones(2)))
    ['moves']
    """
    found: set[str] = set()

    def traced(x: Any) -> Any:
        found.update(name for name, value in entries(x).items() if isbox(value))
        return 0.0 * anp.sum(x)

    autograd.make_vjp(traced)(theta)
    return frozenset(found)


def entries_jacobian(entries: Entries, theta: FloatArray, names: frozenset[str]) -> dict[str, FloatArray]:
    """Return {name: (*shape, N)} for the named arrays, by forward mode.

    Examples
    --------
    >>> entries_jacobian(lambda x: {"y": x ** 2}, np.array([1.0, 2.0]), frozenset({"y"}))["y"]
    array([[2., 0.],
           [0., 4.]])
    """
    if not names:
        return {}
    return directional_derivatives(
        lambda x: {name: value for name, value in entries(x).items() if name in names}, theta
    )


def pullback_at(
    entries: Entries, theta: FloatArray, names: frozenset[str], jacobian: Jacobian | None = None
) -> Callable[[Mapping[str, Any]], FloatArray]:
    """Return a function of cotangents {name: array of that shape}: Σ ⟨cotangent, ∂array/∂θ⟩, shape (N,).

    Parameters
    ----------
    entries, theta, names
        The arrays, the point, and which of them depend on θ; cotangents of others weigh nothing.
    jacobian
        Closed form to use instead of a trace.

    Examples
    --------
    >>> pull = pullback_at(lambda x: {"y": x ** 2}, np.array([1.0, 2.0]), frozenset({"y"}))
    >>> pull({"y": np.ones(2)}), pull({})
    (array([2., 4.]), array([0., 0.]))
    """
    if jacobian is not None:
        columns = {name: np.reshape(value, (-1, theta.size)) for name, value in jacobian(theta).items()}

        def by_jacobian(cotangents: Mapping[str, Any]) -> FloatArray:
            total = np.zeros(theta.size)
            for name, cotangent in cotangents.items():
                if name in columns:
                    total += np.ravel(cotangent) @ columns[name]
            return total

        return by_jacobian
    if not names:
        return lambda cotangents: np.zeros(theta.size)
    order = sorted(names)
    sizes: dict[str, int] = {}

    def flat(x: Any) -> Any:
        values = entries(x)
        sizes.update((name, int(np.prod(np.shape(values[name]), dtype=np.int64))) for name in order)
        return anp.concatenate([anp.reshape(values[name], (-1,)) for name in order])

    pull, _ = autograd.make_vjp(flat)(theta)

    def by_trace(cotangents: Mapping[str, Any]) -> FloatArray:
        if not names.intersection(cotangents):
            return np.zeros(theta.size)
        pieces = [np.ravel(cotangents[name]) if name in cotangents else np.zeros(sizes[name]) for name in order]
        result: FloatArray = np.ravel(np.asarray(pull(np.concatenate(pieces)), dtype=np.float64))
        return result

    return by_trace


def pull_streams(
    cotangents: Mapping[str, FloatArray], jacobian: Mapping[str, FloatArray], streams: int, size: int
) -> FloatArray:
    """Return (streams, N) from cotangents with a leading axis of streams and the arrays' Jacobians (*shape, N)."""
    total = np.zeros((streams, size))
    for name, cotangent in cotangents.items():
        if name in jacobian:
            total += cotangent.reshape(streams, -1) @ jacobian[name].reshape(-1, size)
    return total
