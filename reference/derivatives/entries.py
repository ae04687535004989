"""Derivatives of several arrays that depend on θ: which of them do, their Jacobians, and pullbacks of cotangents.

A function θ → {name: array}, written with `autograd.numpy`, or closed forms in its place. Which arrays depend on θ a
trace says at every θ. When what a trace or a closed form says is held against differences of the function,
`bilevelrl.reference.derivatives.checked_entries` tells.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import autograd
import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.derivatives.array_values import tracing
from bilevelrl.reference.derivatives.autodiff import directional_derivatives
from bilevelrl.reference.derivatives.cache import point_of
from bilevelrl.reference.derivatives.checked_entries import CheckedEntries
from bilevelrl.reference.derivatives.numerical import numerical_jacobian
from bilevelrl.reference.derivatives.traces import Trace, rule_failed
from bilevelrl.reference.errors import (
    BilevelRLError,
    DerivativeError,
    ShapeError,
    refusal,
)

__all__ = ["Derivatives", "Jacobian", "Pullback", "pull_streams"]

Jacobian = Callable[[FloatArray], Mapping[str, FloatArray]]
Pulled = Callable[[Mapping[str, FloatArray]], FloatArray]
Pullback = Callable[[FloatArray, Mapping[str, FloatArray]], FloatArray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivatives(CheckedEntries):
    """The derivatives of a problem's arrays: traced or as given, checked.

    Attributes
    ----------
    entries, label, cache, verify
        As of `CheckedEntries`.
    jacobian_given
        Optional closed form: θ → {name: (*shape, N)}; arrays left out do not depend on θ.
    pullback_given
        Optional closed form: (θ, {name: cotangent}) → (N,).

    Examples
    --------
    >>> from bilevelrl.reference.derivatives.cache import Cache
    >>> d = Derivatives(entries=lambda x: {"moves": x ** 2, "stays": np.ones(3)}, label="tables", cache=Cache())
    >>> theta = np.array([1.0, 2.0])
    >>> sorted(d.varying(theta)), d.pullback_at(theta)({"moves": np.ones(2)})
    (['moves'], array([2., 4.]))
    >>> d.jacobian(theta)["moves"]
    array([[2., 0.],
           [0., 4.]])
    """

    jacobian_given: Jacobian | None = None
    pullback_given: Pullback | None = None

    def varying(self, theta: FloatArray) -> frozenset[str]:
        """Return the names of the arrays that depend on θ: read from the trace, or from the closed form.

        A closed-form Jacobian names them; where there is only a pullback, differences do, as often as derivatives are
        checked, and arrays may be named that do not depend on this θ but did on others.
        """
        if self.pullback_given is not None:
            return self._seen(theta).names if theta.size else frozenset()
        point = point_of(theta)
        known = self.cache.get("varying")
        if known is None or known[0] != point:
            if self.jacobian_given is not None:
                names = frozenset(self._given_jacobian(theta))
            else:
                names = frozenset(self._trace(theta).nodes)
            known = self.cache["varying"] = (point, names)
        result: frozenset[str] = known[1]
        return result

    def dependent(self, theta: FloatArray) -> frozenset[str]:
        """Return the names of the arrays that move near θ, or would if they had the digits: a trace names these too."""
        try:
            return self.moving(theta) | self.varying(theta)
        except BilevelRLError:  # not traceable: differences are all there is
            return self.moving(theta)

    def jacobian(self, theta: FloatArray) -> dict[str, FloatArray]:
        """Return {name: (*shape, N)} for the arrays that depend on θ.

        Raises
        ------
        DerivativeError
            If a derivative is not what differences show, or not finite.
        """
        slopes = self.cache.once("jacobian", theta, lambda: self._jacobian(theta))
        return {name: np.array(value) for name, value in slopes.items()}

    def _jacobian(self, theta: FloatArray) -> dict[str, FloatArray]:
        if self.jacobian_given is not None:
            jacobian, source = self._given_jacobian(theta), "the closed form"
        else:
            jacobian, source = self._other_jacobian(theta)

        def push(direction: FloatArray, name: str) -> FloatArray:
            return self._pushed(theta, direction, name)

        self._check_jacobian(theta, jacobian, source, push if source == "autograd" else None)
        for name, slopes in jacobian.items():
            self._finite(theta, name, slopes)
        return jacobian

    def automatic_jacobian(self, theta: FloatArray) -> dict[str, FloatArray]:
        """Return autograd's Jacobian, or that of differences where the function cannot be traced; unchecked."""
        try:
            traced = Trace.of(self.entries, theta, self.label)
        except BilevelRLError:
            traced = None
        if traced is None or not self.moving(theta) <= set(traced.nodes):
            return numerical_jacobian(self.entries, theta, self.label)
        return self._forward(theta, frozenset(traced.nodes))

    def _forward(self, theta: FloatArray, names: frozenset[str]) -> dict[str, FloatArray]:
        if not names:
            return {}
        try:
            with np.errstate(all="ignore"):
                return directional_derivatives(
                    lambda x: {n: v for n, v in self.entries(x).items() if n in names}, theta
                )
        except BilevelRLError:
            raise
        except Exception as error:
            what = f"raised {type(error).__name__}: {error}"
            raise rule_failed(self.label, ", ".join(sorted(names)), theta, what) from error

    def _other_jacobian(self, theta: FloatArray) -> tuple[dict[str, FloatArray], str]:
        """By autograd; where only a pullback is given and the function cannot be traced, from unit cotangents."""
        if self.pullback_given is None:
            return self._forward(theta, self.varying(theta)), "autograd"
        names = self.varying(theta)
        try:
            traced = frozenset(Trace.of(self.entries, theta, self.label).nodes)
        except BilevelRLError:
            traced = frozenset()
        if names <= traced:
            return self._forward(theta, traced), "autograd"
        return {name: self._by_units(theta, name) for name in names}, "tables_pullback"

    def _by_units(self, theta: FloatArray, name: str) -> FloatArray:
        shape = np.shape(self.entries(theta)[name])
        rows = []
        for index in np.ndindex(*shape):
            unit = np.zeros(shape)
            unit[index] = 1.0
            rows.append(self._given_pullback(theta, {name: unit}))
        return np.stack(rows).reshape(*shape, theta.size)

    def push(self, theta: FloatArray, direction: FloatArray, names: Collection[str]) -> dict[str, FloatArray]:
        """Return {name: derivative along a direction} for those of the named arrays that depend on θ."""
        wanted = self.varying(theta).intersection(names)
        if wanted and (self.jacobian_given is not None or self.pullback_given is not None):
            jacobian = self.jacobian(theta)
            return {name: jacobian[name] @ direction.ravel() for name in wanted}
        found: dict[str, FloatArray] = {}
        for name in wanted:
            found[name] = self._pushed(theta, direction, name)
        return found

    def _pushed(self, theta: FloatArray, direction: FloatArray, name: str) -> FloatArray:
        with np.errstate(all="ignore"), tracing(self.label):
            try:
                slope = autograd.make_jvp(lambda x: self.entries(x)[name])(theta)(direction)[1]
            except NotImplementedError:  # no forward rule
                slope = self._forward(theta, frozenset({name}))[name] @ direction.ravel()
        return np.asarray(slope, dtype=np.float64)

    def pullback_at(self, theta: FloatArray) -> Pulled:
        """Return a function of cotangents {name: array of that shape}: Σ ⟨cotangent, ∂array/∂θ⟩, shape (N,).

        Raises
        ------
        DerivativeError
            As `jacobian`; not finite where that pullback is asked for.
        """
        return self.cache.once("pullback", theta, lambda: self._pullback_at(theta))

    def _pullback_at(self, theta: FloatArray) -> Pulled:
        if self.pullback_given is not None:
            names = self.varying(theta)
            self._check_pullback(
                theta,
                names,
                lambda name, c: self._given_pullback(theta, {name: c}),
                "the closed form",
                together=lambda cotangents: self._given_pullback(theta, cotangents),
            )

            def by_closed_form(cotangents: Mapping[str, FloatArray]) -> FloatArray:
                relevant = {name: value for name, value in cotangents.items() if name in names}
                return self._given_pullback(theta, relevant) if relevant else np.zeros(theta.size)

            return by_closed_form
        if self.jacobian_given is not None:
            slopes = {name: np.reshape(value, (-1, theta.size)) for name, value in self.jacobian(theta).items()}

            def by_jacobian(cotangents: Mapping[str, FloatArray]) -> FloatArray:
                pieces = (np.ravel(c) @ slopes[name] for name, c in cotangents.items() if name in slopes)
                return sum(pieces, np.zeros(theta.size))

            return by_jacobian
        traced = self._trace(theta)
        names = frozenset(traced.nodes)
        self.cache["varying"] = (point_of(theta), names)
        self._check_pullback(theta, names, traced.pull, "autograd", traced.values)

        def by_trace(cotangents: Mapping[str, FloatArray]) -> FloatArray:
            total = np.zeros(theta.size)
            for name, cotangent in cotangents.items():
                if name in traced.nodes:
                    pulled = traced.pull(name, cotangent)
                    total += self._finite(theta, name, pulled) if np.isfinite(cotangent).all() else pulled
            return total

        return by_trace

    def _given_pullback(self, theta: FloatArray, cotangents: Mapping[str, FloatArray]) -> FloatArray:
        assert self.pullback_given is not None
        pulled = self.pullback_given(theta, cotangents)
        if np.shape(pulled) != (theta.size,):
            raise ShapeError(refusal(f"{self.label}_pullback(theta, ...).shape", np.shape(pulled), f"{(theta.size,)}",
                                     "return one number per parameter"))  # fmt: skip
        result: FloatArray = np.array(pulled, dtype=np.float64)  # a copy: the user may fill the same array again
        if not np.isfinite(result).all():
            raise DerivativeError(
                refusal(f"{self.label}_pullback(theta, {sorted(cotangents)})", result.tolist(), "finite numbers",
                        "check the closed form at this θ")
            )  # fmt: skip
        return result

    def _given_jacobian(self, theta: FloatArray) -> dict[str, FloatArray]:
        assert self.jacobian_given is not None
        found: dict[str, FloatArray] = {}
        for name, value in self.jacobian_given(theta).items():
            slopes = np.array(value, dtype=np.float64)  # a copy, as of pullbacks
            if slopes.ndim == 0 or slopes.shape[-1] != theta.size:
                raise ShapeError(refusal(f"{self.label}_jacobian(theta)[{name!r}].shape", slopes.shape,
                                         f"(*shape of {name}, {theta.size})", "put the parameters last"))  # fmt: skip
            if not np.isfinite(slopes).all():
                raise DerivativeError(f"{self.label}_jacobian(theta)[{name!r}]: expected finite numbers at this θ")
            found[name] = slopes
        return found


def pull_streams(
    cotangents: Mapping[str, FloatArray], jacobian: Mapping[str, FloatArray], streams: int, size: int
) -> FloatArray:
    """Return (streams, N) from cotangents with a leading axis of streams and the arrays' Jacobians (*shape, N)."""
    total = np.zeros((streams, size))
    for name, cotangent in cotangents.items():
        if name in jacobian:
            total += cotangent.reshape(streams, -1) @ jacobian[name].reshape(-1, size)
    return total
