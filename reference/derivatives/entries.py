"""Derivatives of several arrays that depend on θ: which of them do, their Jacobians, and pullbacks of cotangents.

A function θ → {name: array}, written with `autograd.numpy`, or closed forms in its place. Which arrays depend on θ is
asked at every θ. What a trace or a closed form says is held against differences of the function once, and again where
an array begins to depend on θ or one that should not has changed (`bilevelrl.reference.derivatives.checks`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import autograd
import autograd.numpy as anp
import numpy as np
from autograd.core import VJPNode, backward_pass
from autograd.tracer import getval, isbox, trace

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.derivatives.array_values import tracing
from bilevelrl.reference.derivatives.autodiff import directional_derivatives
from bilevelrl.reference.derivatives.checks import (
    Finding,
    Probe,
    check_direction,
    compare,
    describe,
    kink,
    numerical_jacobian,
)
from bilevelrl.reference.errors import (
    BilevelRLError,
    DerivativeError,
    InvalidInputError,
    ShapeError,
    UnknownNameError,
    refusal,
)

_NOISE = 1e-11  # of an array, relative to its largest entry: rounding leaves 1e-16, float32 1e-8

__all__ = ["Derivatives", "Entries", "Jacobian", "Memory", "Pullback", "linearised", "pull_streams"]

T = TypeVar("T")
Entries = Callable[[Any], Mapping[str, Any]]
Jacobian = Callable[[FloatArray], Mapping[str, FloatArray]]
Pullback = Callable[[FloatArray, Mapping[str, FloatArray]], FloatArray]


class Memory(dict[str, Any]):
    """What a problem remembers between calls; copies and pickles of the problem begin with an empty one."""

    @contextmanager
    def keeping(self, theta: FloatArray, kept: dict[str, Any] | None = None) -> Iterator[None]:
        """Compute what is asked at one θ once, until the end of the block; or for as long as the caller holds `kept`.

        Examples
        --------
        >>> memory, theta, calls = Memory(), np.zeros(2), []
        >>> with memory.keeping(theta):
        ...     found = [memory.once("size", theta, lambda: calls.append(1) or 7) for _ in range(2)]
        >>> found, len(calls)
        ([7, 7], 1)
        """
        point, outer = _point(theta), self.get("kept")
        if outer is None or outer[0] != point:
            kept = {} if kept is None else kept
            kept.pop("values", None)  # asked for once in each block: whether they are still the same
            self["kept"] = (point, kept)
        try:
            yield
        finally:
            if outer is None:
                self.pop("kept", None)
            elif "kept" in self:  # else the problem has changed and everything is forgotten
                self["kept"] = outer

    def clear(self) -> None:
        """Forget everything, what callers of `keeping` hold as well."""
        self.get("kept", (None, {}))[1].clear()
        super().clear()

    def once(self, what: str, theta: FloatArray, compute: Callable[[], T]) -> T:
        """Return what a function computes at θ: as it was computed before where that is kept."""
        point, kept = self.get("kept", (None, {}))
        if point is None or point != _point(theta):
            return compute()
        if what not in kept:
            kept[what] = compute()
        found: T = kept[what]
        return found

    def __reduce__(self) -> tuple[type[Memory], tuple[()]]:
        return Memory, ()

    def __deepcopy__(self, _: Any) -> Memory:
        return Memory()


@dataclass(frozen=True, slots=True)
class _Trace:
    """One forward pass of a function at θ: values of all arrays, and the nodes of those that depend on θ."""

    label: str
    theta: FloatArray
    values: Mapping[str, Any]
    nodes: Mapping[str, VJPNode]

    @classmethod
    def of(cls, entries: Entries, theta: FloatArray, label: str) -> _Trace:
        values: dict[str, Any] = {}
        nodes: dict[str, VJPNode] = {}
        start = VJPNode.new_root()

        def traced(x: Any) -> Any:
            for name, value in entries(x).items():
                values[name] = getval(value)
                if isbox(value):
                    nodes[name] = value._node
            return 0.0 * anp.sum(x)

        try:
            with np.errstate(all="ignore"):  # what is not finite is told by name where it is asked for
                trace(start, traced, theta)
        except NotImplementedError as error:
            if isinstance(error, BilevelRLError):
                raise
            raise DerivativeError(
                f"{label}(theta): autograd cannot differentiate it: {error}; expected functions that it knows; give a "
                "closed form, or use route='finite_difference'"
            ) from error
        if not _roots(nodes.values()) <= {start}:
            raise DerivativeError(
                f"{label}(theta): an array was made from traced values of an earlier call; expected a function of its "
                "argument alone; do not keep autograd's values between calls"
            )
        return cls(label, theta, values, nodes)

    def pull(self, name: str, cotangent: Any) -> FloatArray:
        """Return ⟨cotangent, ∂array/∂θ⟩, shape (N,)."""
        weight = np.asarray(cotangent, dtype=np.float64)
        try:
            with np.errstate(all="ignore"):
                pulled = np.asarray(backward_pass(weight, self.nodes[name]), dtype=np.float64)
        except Exception as error:
            raise _failed(self.label, name, self.theta, f"raised {type(error).__name__}: {error}") from error
        if pulled.size != self.theta.size:
            raise _failed(self.label, name, self.theta, f"gave {pulled.size} numbers for {self.theta.size} parameters")
        result: FloatArray = np.ravel(pulled)
        return result


def _failed(label: str, names: str, theta: FloatArray, what: str) -> DerivativeError:
    point = np.array2string(theta, threshold=8)
    return DerivativeError(
        f"{label}(theta): autograd's derivative of {names} at theta={point} {what}; expected its rules to fit the "
        "calls (autograd 1.9.1 has a wrong one: linalg.solve of a stack of matrices and one vector); rewrite that "
        "step, give the closed form, or use route='finite_difference'"
    )


def _point(theta: FloatArray) -> tuple[Any, ...]:
    return theta.shape, theta.tobytes()


def _roots(nodes: Iterable[VJPNode]) -> set[VJPNode]:
    roots: set[VJPNode] = set()
    seen: set[VJPNode] = set()
    pending = list(nodes)
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        pending.extend(node.parents)
        if not node.parents:
            roots.add(node)
    return roots


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

        A closed-form Jacobian names them; where there is only a pullback, differences do.
        """
        point = _point(theta)
        known = self.memory.get("varying")
        if known is None or known[0] != point:
            if self.pullback_given is not None:
                names = self.moving(theta)
            elif self.jacobian_given is not None:
                names = frozenset(self._given_jacobian(theta))
            else:
                names = frozenset(_Trace.of(self.entries, theta, self.label).nodes)
            known = self.memory["varying"] = (point, names)
        result: frozenset[str] = known[1]
        return result

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
            traced = _Trace.of(self.entries, theta, self.label)
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
            raise _failed(self.label, ", ".join(sorted(names)), theta, what) from error

    def _other_jacobian(self, theta: FloatArray) -> tuple[dict[str, FloatArray], str]:
        """By autograd; where only a pullback is given and the function cannot be traced, from unit cotangents."""
        if self.pullback_given is None:
            return self._forward(theta, self.varying(theta)), "autograd"
        names = self.varying(theta)
        try:
            traced = frozenset(_Trace.of(self.entries, theta, self.label).nodes)
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
        """Forget what is known at θ where the arrays are no longer what they were there: a closure has changed."""
        known = self.memory.get("probe")
        if known is None or known[0] != _point(theta):
            return
        base = known[1].base
        if not all(value is base[name] or np.array_equal(value, base[name]) for name, value in values.items()):
            self.memory.clear()

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
        traced = _Trace.of(self.entries, theta, self.label)
        names = frozenset(traced.nodes)
        self.memory["varying"] = (_point(theta), names)
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
        _Trace.of(self.entries, theta, self.label)
        traced = _Trace.of(self.entries, theta, self.label)  # the second one sees what was kept from the first
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
        point = _point(theta)
        known = self.memory.get("probe")
        if known is None or known[0] != point:
            probe = Probe(self.entries, theta.copy(), check_direction(theta), self.label)
            known = self.memory["probe"] = (point, probe)
        result: Probe = known[1]
        return result

    def _check_jacobian(self, theta: FloatArray, jacobian: Mapping[str, FloatArray], source: str) -> None:
        def claimed(probe: Probe, name: str) -> Finding | None:
            for known in jacobian:
                if known not in probe.base:
                    raise UnknownNameError(f"{self.label}_jacobian(theta)", known, probe.base)
            base = np.shape(probe.base[name])
            if name not in jacobian:
                return compare(np.zeros(np.size(probe.base[name])), probe, name)
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
                return compare(np.zeros(np.size(probe.base[name])), probe, name)
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
        point = _point(theta)
        seen: _Seen | None = self.memory.get(f"checked {kind}")
        if seen is not None and seen.point == point and names <= seen.varying:
            return
        values = self.probe(theta).base if values is None else values
        if seen is not None and not seen.is_due and seen.covers(names, values):
            self.memory[f"checked {kind}"] = replace(seen, point=point, points=seen.points + 1)
            return
        probe = self.probe(theta)
        for name in probe.base:
            finding = claimed(probe, name)
            if finding is not None:
                self._refuse(name, finding, source if name in names else "constant", theta)
        varying = names | (seen.varying if seen is not None else frozenset())
        constant = {
            **(seen.constant if seen is not None else {}),
            **{n: probe.base[n] for n in probe.base if n not in names},
        }
        still = {name: (probe.still(name), probe.base[name]) for name in names}
        self.memory[f"checked {kind}"] = _Seen(
            point, varying, constant, still, points=1 if seen is None else seen.points + 1
        )

    def _refuse(self, name: str, finding: Finding, source: str, theta: FloatArray) -> None:
        """Raise what a finding says."""
        shape = np.shape(self.probe(theta).base[name])
        raise DerivativeError(describe(self.label, name, shape, finding, source, theta))


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was compared: arrays that depended on θ, and the values of those and of entries that did not.

    `points` counts θ. Whatever else is seen, arrays are compared again at the second, fourth, eighth ...: what a trace
    leaves out may begin to move in an entry that depends on θ otherwise.
    """

    point: tuple[Any, ...]
    varying: frozenset[str]
    constant: Mapping[str, Any]
    still: Mapping[str, tuple[Any, Any]]
    points: int

    @property
    def is_due(self) -> bool:
        return (self.points & (self.points + 1)) == 0

    def covers(self, names: frozenset[str], values: Mapping[str, Any]) -> bool:
        if not names <= self.varying:
            return False
        if any(
            name in names and not np.array_equal(np.where(still, values[name], base), base)
            for name, (still, base) in self.still.items()
        ):
            return False
        return all(
            name in self.constant
            and (values[name] is self.constant[name] or np.array_equal(values[name], self.constant[name]))
            for name in values
            if name not in names
        )


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

    def affine(x: Any) -> dict[str, Any]:
        moved = anp.reshape(x, (-1,)) - theta.ravel()
        return {
            name: value + anp.dot(jacobian[name], moved) if name in jacobian else value
            for name, value in values.items()
        }

    return affine


def pull_streams(
    cotangents: Mapping[str, FloatArray], jacobian: Mapping[str, FloatArray], streams: int, size: int
) -> FloatArray:
    """Return (streams, N) from cotangents with a leading axis of streams and the arrays' Jacobians (*shape, N)."""
    total = np.zeros((streams, size))
    for name, cotangent in cotangents.items():
        if name in jacobian:
            total += cotangent.reshape(streams, -1) @ jacobian[name].reshape(-1, size)
    return total
