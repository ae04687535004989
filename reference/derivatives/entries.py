"""Derivatives of several arrays that depend on θ: which of them do, their Jacobians, and pullbacks of cotangents.

A function θ → {name: array}, written with `autograd.numpy`, or closed forms in its place. Which arrays depend on θ a
trace says at every θ. What a trace or a closed form says is held against differences of the function once, again where
an array begins to depend on θ or one that should not has changed, and at the second, fourth, eighth ... θ
(`bilevelrl.reference.derivatives.checks`, `.memory`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import autograd
import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.derivatives.array_values import tracing
from bilevelrl.reference.derivatives.autodiff import directional_derivatives
from bilevelrl.reference.derivatives.checks import compare, kink
from bilevelrl.reference.derivatives.findings import Finding, describe
from bilevelrl.reference.derivatives.memory import Memory, Seen, point_of
from bilevelrl.reference.derivatives.numerical import numerical_jacobian
from bilevelrl.reference.derivatives.probes import Entries, Probe, same
from bilevelrl.reference.derivatives.traces import Trace, rule_failed
from bilevelrl.reference.errors import (
    BilevelRLError,
    DerivativeError,
    InvalidInputError,
    ShapeError,
    UnknownNameError,
    refusal,
)

_NOISE = 1e-11  # of an array, relative to its largest entry: rounding leaves 1e-16, float32 1e-8

__all__ = ["Derivatives", "Jacobian", "Pullback", "pull_streams"]

Jacobian = Callable[[FloatArray], Mapping[str, FloatArray]]
Pullback = Callable[[FloatArray, Mapping[str, FloatArray]], FloatArray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivatives:
    """The derivatives of a problem's arrays: traced or as given, checked.

    Attributes
    ----------
    entries
        θ → {name: array}, traceable unless closed forms are given.
    label : str
        What the user calls the function: "tables", "matrices", "policy".
    memory
        Where to keep what was checked.
    jacobian_given
        Optional closed form: θ → {name: (*shape, N)}; arrays left out do not depend on θ.
    pullback_given
        Optional closed form: (θ, {name: cotangent}) → (N,).
    verify : bool
        Whether to hold derivatives against differences.

    Examples
    --------
    >>> d = Derivatives(entries=lambda x: {"moves": x ** 2, "stays": np.ones(3)}, label="tables", memory=Memory())
    >>> theta = np.array([1.0, 2.0])
    >>> sorted(d.varying(theta)), d.pullback_at(theta)({"moves": np.ones(2)})
    (['moves'], array([2., 4.]))
    >>> d.jacobian(theta)["moves"]
    array([[2., 0.],
           [0., 4.]])
    """

    entries: Entries
    label: str
    memory: Memory
    jacobian_given: Jacobian | None = None
    pullback_given: Pullback | None = None
    verify: bool = True

    def varying(self, theta: FloatArray) -> frozenset[str]:
        """Return the names of the arrays that depend on θ: read from the trace, or from the closed form.

        A closed-form Jacobian names them; where there is only a pullback, differences do, as often as derivatives are
        checked, and arrays may be named that do not depend on this θ but did on others.
        """
        if self.pullback_given is not None:
            return self._seen(theta).names if theta.size else frozenset()
        point = point_of(theta)
        known = self.memory.get("varying")
        if known is None or known[0] != point:
            if self.jacobian_given is not None:
                names = frozenset(self._given_jacobian(theta))
            else:
                names = frozenset(Trace.of(self.entries, theta, self.label).nodes)
            known = self.memory["varying"] = (point, names)
        result: frozenset[str] = known[1]
        return result

    def _seen(
        self, theta: FloatArray, names: frozenset[str] | None = None, values: Mapping[str, Any] | None = None
    ) -> Seen:
        """Return what is known of the arrays at θ, looked at again where that is due or something has changed.

        Names are those that the trace or the closed form gives, values those at θ; None where neither is known.
        """
        point = point_of(theta)
        seen: Seen | None = self.memory.get("seen")
        if seen is not None:
            asked = seen.names if names is None else names
            if seen.point == point and asked <= seen.varying:
                return seen
            values = self.probe(theta).base if values is None else values
            if seen.point != point and not seen.is_due and seen.covers(asked, values):
                seen.point, seen.points = point, seen.points + 1
                return seen
        names = self.moving(theta) if names is None else names
        seen = self.memory["seen"] = Seen.around(self.probe(theta), names, seen)
        return seen

    def stands_still(self, theta: FloatArray, name: str) -> bool:
        """Whether an array does not move around θ, as far as was seen or by differences."""
        seen: Seen | None = self.memory.get("seen")
        probe = self.probe(theta)
        known = seen is not None and not seen.is_due and seen.is_constant(name, probe.base[name])
        return known or not probe.moves(name)

    def moving(self, theta: FloatArray) -> frozenset[str]:
        """Return the names of the arrays that are others anywhere near θ; nothing is traced."""
        if theta.size == 0:
            return frozenset()
        probe = self.probe(theta)
        return frozenset(name for name in probe.base if probe.moves(name))

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
        slopes = self.memory.once("jacobian", theta, lambda: self._jacobian(theta))
        return {name: np.array(value) for name, value in slopes.items()}

    def _jacobian(self, theta: FloatArray) -> dict[str, FloatArray]:
        if self.jacobian_given is not None:
            jacobian, source = self._given_jacobian(theta), "the closed form"
        else:
            jacobian, source = self._other_jacobian(theta)
        self._check_jacobian(theta, jacobian, source)
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
            with np.errstate(all="ignore"), tracing(self.label):
                try:
                    slope = autograd.make_jvp(lambda x, name=name: self.entries(x)[name])(theta)(direction)[1]
                except NotImplementedError:  # no forward rule
                    slope = self._forward(theta, frozenset({name}))[name] @ direction.ravel()
            found[name] = np.asarray(slope, dtype=np.float64)
        return found

    def refresh(self, theta: FloatArray, values: Mapping[str, Any]) -> None:
        """Take note of all values at θ; forget everything where they were others there: a closure has changed."""
        point = point_of(theta)
        known: tuple[Any, Probe] | None = self.memory.get("probe")
        if known is not None and known[0] == point:
            if all(same(value, known[1].base[name]) for name, value in values.items()):
                return
            self.memory.clear()
        self.memory["probe"] = (point, Probe(self.entries, theta.copy(), self.label, values))

    def pullback_at(self, theta: FloatArray) -> Callable[[Mapping[str, Any]], FloatArray]:
        """Return a function of cotangents {name: array of that shape}: Σ ⟨cotangent, ∂array/∂θ⟩, shape (N,).

        Raises
        ------
        DerivativeError
            As `jacobian`; not finite where that pullback is asked for.
        """
        return self.memory.once("pullback", theta, lambda: self._pullback_at(theta))

    def _pullback_at(self, theta: FloatArray) -> Callable[[Mapping[str, Any]], FloatArray]:
        if self.pullback_given is not None:
            names = self.varying(theta)
            self._check_pullback(
                theta, names, lambda name, c: self._given_pullback(theta, {name: c}), "the closed form"
            )

            def by_closed_form(cotangents: Mapping[str, Any]) -> FloatArray:
                relevant = {name: value for name, value in cotangents.items() if name in names}
                return self._given_pullback(theta, relevant) if relevant else np.zeros(theta.size)

            return by_closed_form
        if self.jacobian_given is not None:
            slopes = {name: np.reshape(value, (-1, theta.size)) for name, value in self.jacobian(theta).items()}

            def by_jacobian(cotangents: Mapping[str, Any]) -> FloatArray:
                pieces = (np.ravel(c) @ slopes[name] for name, c in cotangents.items() if name in slopes)
                return sum(pieces, np.zeros(theta.size))

            return by_jacobian
        traced = Trace.of(self.entries, theta, self.label)
        names = frozenset(traced.nodes)
        self.memory["varying"] = (point_of(theta), names)
        self._check_pullback(theta, names, traced.pull, "autograd", traced.values)

        def by_trace(cotangents: Mapping[str, Any]) -> FloatArray:
            total = np.zeros(theta.size)
            for name, cotangent in cotangents.items():
                if name in traced.nodes:
                    pulled = traced.pull(name, cotangent)
                    total += self._finite(theta, name, pulled) if np.isfinite(cotangent).all() else pulled
            return total

        return by_trace

    def refuse_kinks(self, theta: FloatArray) -> None:
        """Refuse a θ at which an array has no derivative, for routes that difference the function or step into ℂ.

        Raises
        ------
        DerivativeError
            Naming the array.
        """
        if theta.size:
            probe = self.probe(theta)
            for name in probe.base:
                finding = kink(probe, name) if probe.moves(name) else None
                if finding is not None:
                    self._refuse(name, finding, "differences", theta)

    def confirm_complex_step(self, theta: FloatArray) -> None:
        """Check that the function is analytic, for routes that step into ℂ: casts and moduli lose derivatives unheard.

        Raises
        ------
        InvalidInputError
            If the function raises there.
        DerivativeError
            Naming the array.
        """

        def claimed(probe: Probe, name: str) -> Finding | None:
            if name not in moving:
                return None
            slope = probe.by_complex_step(name)
            if probe.complex_failure is not None:
                raise InvalidInputError(
                    f"{self.label}(theta + i h v) raised {probe.complex_failure}: expected a function analytic in θ; "
                    "write it without casts to float, or use another route"
                )
            if slope is None:
                raise DerivativeError(
                    f"{self.label}(theta + i h v): {name} at theta={theta.tolist()} is not what it is without the "
                    "step, or a cast loses its derivative; expected a function analytic in θ, in double precision; use "
                    "another route"
                )
            return compare(slope.ravel(), probe, name)

        self.refuse_noise(theta)
        moving = self.moving(theta)
        self._check(theta, moving, "the complex step", "complex step", claimed, None)

    def refuse_noise(self, theta: FloatArray) -> None:
        """Refuse arrays that are not smooth to double precision, for routes that difference them.

        Raises
        ------
        DerivativeError
            Naming the array and the size of its noise.
        """
        self.refuse_kinks(theta)
        if theta.size == 0:
            return
        probe = self.probe(theta)
        for name in probe.base:
            noise = probe.noise(name) if probe.moves(name) else 0.0
            if noise > _NOISE:
                raise DerivativeError(
                    f"{self.label}(theta): {name} carries noise of {noise:.1g} of its size around this θ; expected a "
                    "smooth function in double precision, where differences mean something: compute it in float64 "
                    "throughout, or give closed-form derivatives and use another route"
                )

    def confirm_trace(self, theta: FloatArray) -> None:
        """Check autograd's derivatives at θ, for routes that trace the function within a computation of their own.

        Raises
        ------
        DerivativeError
            As `pullback_at`.
        """
        Trace.of(self.entries, theta, self.label)
        traced = Trace.of(self.entries, theta, self.label)  # the second one sees what was kept from the first
        self._check_pullback(theta, frozenset(traced.nodes), traced.pull, "autograd", traced.values, kind="trace")
        for name in traced.nodes:
            self._finite(theta, name, traced.pull(name, np.ones(np.shape(traced.values[name]))))

    def _finite(self, theta: FloatArray, name: str, pulled: FloatArray) -> FloatArray:
        if not np.isfinite(pulled).all():
            claimed = np.full(np.size(self.entries(theta)[name]), np.nan)
            finding = compare(claimed, self.probe(theta), name)
            self._refuse(name, finding or Finding("not finite", 0, np.nan, np.nan, np.inf), "autograd", theta)
        return pulled

    def _given_pullback(self, theta: FloatArray, cotangents: Mapping[str, FloatArray]) -> FloatArray:
        assert self.pullback_given is not None
        pulled: Any = self.pullback_given(theta, cotangents)
        if np.shape(pulled) != (theta.size,):
            raise ShapeError(refusal(f"{self.label}_pullback(theta, ...).shape", np.shape(pulled), f"{(theta.size,)}",
                                     "return one number per parameter"))  # fmt: skip
        result: FloatArray = np.asarray(pulled, dtype=np.float64)
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
            slopes = np.asarray(value, dtype=np.float64)
            if slopes.ndim == 0 or slopes.shape[-1] != theta.size:
                raise ShapeError(refusal(f"{self.label}_jacobian(theta)[{name!r}].shape", slopes.shape,
                                         f"(*shape of {name}, {theta.size})", "put the parameters last"))  # fmt: skip
            if not np.isfinite(slopes).all():
                raise DerivativeError(f"{self.label}_jacobian(theta)[{name!r}]: expected finite numbers at this θ")
            found[name] = slopes
        return found

    def probe(self, theta: FloatArray) -> Probe:
        """Return the values at θ and around it, kept until another θ is asked for."""
        point = point_of(theta)
        known = self.memory.get("probe")
        if known is None or known[0] != point:
            known = self.memory["probe"] = (point, Probe(self.entries, theta.copy(), self.label))
        result: Probe = known[1]
        return result

    def _check_jacobian(self, theta: FloatArray, jacobian: Mapping[str, FloatArray], source: str) -> None:
        def claimed(probe: Probe, name: str) -> Finding | None:
            for known in jacobian:
                if known not in probe.base:
                    raise UnknownNameError(f"{self.label}_jacobian(theta)", known, probe.base)
            base = np.shape(probe.base[name])
            if name not in jacobian:
                return compare(None, probe, name)
            if jacobian[name].shape != (*base, theta.size):
                raise ShapeError(refusal(f"{self.label}_jacobian(theta)[{name!r}].shape", jacobian[name].shape,
                                         f"{(*base, theta.size)}", "the array's axes, parameters last"))  # fmt: skip
            return compare(np.ravel(jacobian[name] @ probe.direction.ravel()), probe, name)

        self._check(theta, frozenset(jacobian), source, "jacobian", claimed, None)

    def _check_pullback(
        self,
        theta: FloatArray,
        names: frozenset[str],
        pull: Callable[[str, Any], FloatArray],
        source: str,
        values: Mapping[str, Any] | None = None,
        kind: str = "pullback",
    ) -> None:
        def claimed(probe: Probe, name: str) -> Finding | None:
            if name not in names:
                return compare(None, probe, name)
            weights = probe.weights(name)

            def along(weights: FloatArray) -> float:
                with np.errstate(invalid="ignore"):
                    return float(pull(name, weights) @ probe.direction.ravel())

            def rounding() -> float:
                # A pullback is linear in the weights: what its parts do not add up to is what it rounded.
                draws = np.random.default_rng(20261130).uniform(size=(4, *weights.shape))
                return max(abs(along(weights) - along(weights * u) - along(weights - weights * u)) for u in draws)

            finding = compare(np.array([along(weights)]), probe, name, weights.ravel(), rounding)
            return finding if finding is None else kink(probe, name) or finding

        self._check(theta, names, source, kind, claimed, values)

    def _check(
        self,
        theta: FloatArray,
        names: frozenset[str],
        source: str,
        kind: str,
        claimed: Callable[[Probe, str], Finding | None],
        values: Mapping[str, Any] | None,
    ) -> None:
        """Compare every array, unless all is as when it was last compared."""
        if not self.verify or theta.size == 0:
            return
        seen = self._seen(theta, names, values)
        if kind in seen.compared:
            return
        probe = self.probe(theta)
        for name in probe.base:
            finding = claimed(probe, name)
            if finding is not None:
                self._refuse(name, finding, source if name in names else "constant", theta)
        seen.compared.add(kind)

    def _refuse(self, name: str, finding: Finding, source: str, theta: FloatArray) -> None:
        """Raise what a finding says."""
        shape = np.shape(self.probe(theta).base[name])
        raise DerivativeError(describe(self.label, name, shape, finding, source, theta))


def pull_streams(
    cotangents: Mapping[str, FloatArray], jacobian: Mapping[str, FloatArray], streams: int, size: int
) -> FloatArray:
    """Return (streams, N) from cotangents with a leading axis of streams and the arrays' Jacobians (*shape, N)."""
    total = np.zeros((streams, size))
    for name, cotangent in cotangents.items():
        if name in jacobian:
            total += cotangent.reshape(streams, -1) @ jacobian[name].reshape(-1, size)
    return total
