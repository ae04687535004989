"""Claims about derivatives held against the function: when they are looked at, and what is refused.

Claims are compared at the first θ, again where an array begins to depend on θ, one that should not has changed, or a
trace takes another number of steps (another branch of an `if`), and at the second, fourth, eighth ... θ
(`bilevelrl.reference.derivatives.checks`, `.cache`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.derivatives.alike import contracted, is_near, same
from bilevelrl.reference.derivatives.cache import Cache, Point, Seen, point_of
from bilevelrl.reference.derivatives.checks import compare, kink
from bilevelrl.reference.derivatives.findings import Finding, describe
from bilevelrl.reference.derivatives.probes import (
    EXACT_AGREEMENT,
    NOISE,
    ROUNDINGS,
    ULPS,
    Entries,
    Probe,
    Values,
)
from bilevelrl.reference.derivatives.stairs import stairs
from bilevelrl.reference.derivatives.traces import Trace
from bilevelrl.reference.derivatives.weights import hidden_probes, random_weights
from bilevelrl.reference.errors import DerivativeError, InvalidInputError, ShapeError, UnknownNameError, refusal

__all__ = ["CheckedEntries"]

_DRAWS = 4  # of weights where differences have to tell, to a millionth: errors of 1e-5 cancel in a quarter of all sums


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedEntries:
    """Arrays that depend on θ, and what was seen of them.

    Attributes
    ----------
    entries
        θ → {name: array}, traceable unless closed forms are given.
    label : str
        What the user calls the function: "tables", "matrices", "policy".
    cache
        Where to keep what was checked.
    verify : bool
        Whether to hold derivatives against differences.
    """

    entries: Entries
    label: str
    cache: Cache
    verify: bool = True

    def probe(self, theta: FloatArray) -> Probe:
        """Return the values at θ and around it, kept until another θ is asked for."""
        point = point_of(theta)
        known = self.cache.get("probe")
        if known is None or known[0] != point:
            known = self.cache["probe"] = (point, self._probe(theta, point, None))
        result: Probe = known[1]
        return result

    def _probe(self, theta: FloatArray, point: Point, values: Values | None) -> Probe:
        before: tuple[Point, dict[str, bool]] | None = self.cache.get("again")
        again = before[1] if before is not None and before[0] == point else {}
        return Probe(self.entries, theta.copy(), self.label, values, again=again)

    def refresh(self, theta: FloatArray, values: Values) -> None:
        """Take note of all values at θ; forget everything where they were others there: a closure has changed."""
        point = point_of(theta)
        known: tuple[Point, Probe] | None = self.cache.get("probe")
        if known is not None and known[0] == point:
            if all(same(value, known[1].base[name]) for name, value in values.items()):
                return
            self.cache.clear()
        self.cache["probe"] = (point, self._probe(theta, point, values))

    def _seen(self, theta: FloatArray, names: frozenset[str] | None = None, values: Values | None = None) -> Seen:
        """Return what is known of the arrays at θ, looked at again where that is due or something has changed.

        Names are those that the trace or the closed form gives, values those at θ; None where neither is known.
        """
        point = point_of(theta)
        seen: Seen | None = self.cache.get("seen")
        if seen is not None:
            asked = seen.names if names is None else names
            if seen.point == point and asked <= seen.varying:
                return seen
            values = self.probe(theta).base if values is None else values
            if seen.point != point and not seen.is_due and seen.covers(asked, values):
                seen.point, seen.points = point, seen.points + 1
                return seen
        names = self.moving(theta) if names is None else names
        seen = self.cache["seen"] = Seen.around(self.probe(theta), names, seen)
        return seen

    def stands_still(self, theta: FloatArray, name: str) -> bool:
        """Whether an array does not move around θ, as far as was seen or by differences."""
        seen: Seen | None = self.cache.get("seen")
        probe = self.probe(theta)
        known = seen is not None and not seen.is_due and seen.is_constant(name, probe.base[name])
        return known or not probe.moves(name)

    def moving(self, theta: FloatArray) -> frozenset[str]:
        """Return the names of the arrays that are others anywhere near θ; nothing is traced."""
        if theta.size == 0:
            return frozenset()
        probe = self.probe(theta)
        return frozenset(name for name in probe.base if probe.moves(name))

    def refuse_kinks(self, theta: FloatArray) -> None:
        """Refuse a θ at which an array has no derivative, for routes that difference the function or step into ℂ.

        Raises
        ------
        DerivativeError
            Naming the array.
        """
        if theta.size:
            probe = self.probe(theta)
            self._refuse_random(probe, None)
            self.cache["again"] = (point_of(theta), probe.again)
            for name in probe.base:
                finding = kink(probe, name) if probe.moves(name) else None
                finding = finding or stairs(probe, name, probe.small_slope(name))
                if finding is not None:
                    self._refuse(name, finding, "differences", theta)

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
            if noise > NOISE:
                raise DerivativeError(
                    f"{self.label}(theta): {name} carries noise of {noise:.1g} of its size around this θ; expected a "
                    "smooth function in double precision, where differences mean something: compute it in float64 "
                    "throughout, or give closed-form derivatives and use another route"
                )

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

    def _trace(self, theta: FloatArray) -> Trace:
        """Return the trace at θ; one of another length is another function, of which nothing has been compared."""
        traced = Trace.of(self.entries, theta, self.label)
        lengths: set[int] = self.cache.setdefault("steps", set())
        if traced.steps not in lengths:
            seen: Seen | None = self.cache.get("seen")
            if seen is not None:
                seen.compared.clear()
            lengths.add(traced.steps)
        self.cache["traced"] = point_of(theta)
        return traced

    def confirm_trace(self, theta: FloatArray) -> None:
        """Check autograd's derivatives at θ, for routes that trace the function within a computation of their own.

        Raises
        ------
        DerivativeError
            As `pullback_at`.
        """
        if self.cache.get("traced") != point_of(theta):
            self._trace(theta)
        traced = self._trace(theta)  # sees what the function keeps from an earlier one
        self._check_pullback(theta, frozenset(traced.nodes), traced.pull, "autograd", traced.values, kind="trace")
        for name in traced.nodes:
            self._finite(theta, name, traced.pull(name, np.ones(np.shape(traced.values[name]))))

    def _check_jacobian(
        self,
        theta: FloatArray,
        jacobian: Mapping[str, FloatArray],
        source: str,
        push: Callable[[FloatArray, str], FloatArray] | None,
    ) -> None:
        """Check a Jacobian; `push` is the forward pass along a direction that it is made of, None for closed forms."""

        def rounding(one: Probe, name: str) -> FloatArray:
            # The slope p (1 - p) of p = 1 - 1e-9 is made of numbers of the size of p, whatever it is made by.
            direction = one.direction
            if push is None:
                largest = float(np.abs(one.base[name]).max(initial=0.0) * np.abs(direction).max(initial=0.0))
                return np.full(1, largest * ULPS / ROUNDINGS)
            # A forward pass is linear in the direction: what its parts do not add up to is what it rounded.
            draws = np.random.default_rng(20261130).uniform(size=(4, *direction.shape))
            whole = np.ravel(jacobian[name] @ direction.ravel())
            parts = [np.ravel(push(u * direction, name) + push(direction - u * direction, name)) for u in draws]
            return np.asarray(np.max([np.abs(whole - part) for part in parts], axis=0))

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
            slopes = np.reshape(jacobian[name], (-1, theta.size))
            moved = np.abs(slopes).max(axis=0, initial=0.0) * np.abs(probe.direction.ravel())
            found = (
                compare(slopes @ one.direction.ravel(), one, name, rounding=partial(rounding, one, name))
                for one in itertools.chain([probe], hidden_probes(probe, moved, still=source != "autograd"))
            )
            return next((finding for finding in found if finding is not None), None)

        self._check(theta, frozenset(jacobian), source, "jacobian", claimed, None)

    def _check_pullback(
        self,
        theta: FloatArray,
        names: frozenset[str],
        pull: Callable[[str, FloatArray], FloatArray],
        source: str,
        values: Values | None = None,
        kind: str = "pullback",
        together: Callable[[Mapping[str, FloatArray]], FloatArray] | None = None,
    ) -> None:
        """Check a pullback of one array at a time; `together` is that of several, which people add wrongly."""
        single: dict[str, FloatArray] = {}

        def claimed(probe: Probe, name: str) -> Finding | None:
            if name not in names:
                return compare(None, probe, name)
            moved = np.zeros(theta.size)
            exact = probe.by_complex_step(name)
            analytic = probe.is_analytic(name)
            finding = stairs(probe, name, exact.ravel()) if analytic and exact is not None else None
            probe.release(far_only=True)
            if finding is not None:
                return finding
            doubt = None if exact is None or analytic else compare(exact.ravel(), probe, name)
            known = exact is not None and doubt is None
            for weights in random_weights(probe, name, draws=1 if known else _DRAWS):
                pulled = pull(name, weights)
                if not (analytic and probe.confirms(name, weights, float(pulled @ probe.direction.ravel()))):
                    finding = wrong(probe, name, weights, pulled)
                    if finding is not None:
                        return finding
                if doubt is not None and is_exact(probe, name, weights, pulled):
                    return doubt  # which differences have of the complex step, and this claim is the same
                moved = np.maximum(moved, np.abs(pulled * probe.direction.ravel()))
                if together is not None and name not in single:
                    single[name] = -2.0 * pulled
            if together is not None and len(single) == len(names) > 1:
                # Drawn again, and not kept: memory of many states.
                added = together({one: -2.0 * next(random_weights(probe, one)) for one in single})
                self._refuse_unadded(theta, added, single)
            for one in hidden_probes(probe, moved, still=source != "autograd"):  # which forgets no parameter; people do
                weights = next(random_weights(one, name))
                finding = wrong(one, name, weights, pull(name, weights))
                if finding is not None:
                    return finding
            return None

        def is_exact(probe: Probe, name: str, weights: FloatArray, pulled: FloatArray) -> bool:
            exact, claim = contracted(probe.by_complex_step(name), weights), float(pulled @ probe.direction.ravel())
            return exact is not None and abs(claim - exact[0]) <= EXACT_AGREEMENT * (abs(claim) + abs(exact[0]))

        def wrong(probe: Probe, name: str, weights: FloatArray, pulled: FloatArray) -> Finding | None:
            direction = probe.direction.ravel()

            def along(pulled: FloatArray) -> float:
                with np.errstate(invalid="ignore"):
                    return float(pulled @ direction)

            def rounding() -> float:
                # A pullback is linear in the weights: what its parts do not add up to is what it rounded.
                draws = np.random.default_rng(20261130).uniform(size=(4, *weights.shape))
                return max(
                    abs(along(pulled) - along(pull(name, weights * u)) - along(pull(name, weights - weights * u)))
                    for u in draws
                )

            finding = compare(np.array([along(pulled)]), probe, name, weights.ravel(), rounding)
            return finding if finding is None else kink(probe, name) or finding

        self._check(theta, names, source, kind, claimed, values)

    def _refuse_unadded(self, theta: FloatArray, found: FloatArray, single: Mapping[str, FloatArray]) -> None:
        each = np.array(list(single.values()))
        right, size = each.sum(axis=0), np.abs(each).sum(axis=0)
        off = np.abs(found - right)
        if (off > EXACT_AGREEMENT * (size + 1e-3 * size.max(initial=0.0))).any():
            worst = int(np.argmax(off))
            raise DerivativeError(
                f"{self.label}_pullback(theta, cotangents): at theta={theta.tolist()} cotangents of "
                f"{', '.join(sorted(single))} together give {found[worst]:.10g} for parameter {worst}, and one after "
                f"the other {right[worst]:.10g}; expected a linear function: likely an `elif` for an `if`, "
                "or `=` for `+=`"
            )

    def _check(
        self,
        theta: FloatArray,
        names: frozenset[str],
        source: str,
        kind: str,
        claimed: Callable[[Probe, str], Finding | None],
        values: Values | None,
    ) -> None:
        """Compare every array, unless all is as when it was last compared."""
        if not self.verify or theta.size == 0:
            return
        seen = self._seen(theta, names, values)
        if kind in seen.compared:
            return
        probe = self.probe(theta)
        if values is not None or not probe.is_same_beside_imaginary_part():  # else it has been asked again already
            self._refuse_random(probe, values)
        for name in probe.base:
            finding = claimed(probe, name)
            if finding is not None:
                self._refuse(name, finding, source if name in names else "constant", theta)
        seen.compared.add(kind)

    def _refuse_random(self, probe: Probe, values: Values | None) -> None:
        """Refuse a function that is another when it is asked again at the same θ; values are those of a trace."""
        if values is None or any(np.asarray(value).dtype == object for value in values.values()):
            values = self.entries(probe.theta)  # a trace that is hidden in objects is refused elsewhere
        for name, base in probe.base.items():
            if same(values[name], base):
                continue
            first, second = np.asarray(base), np.asarray(values[name])
            size = float(np.abs(first).max(initial=0.0, where=np.isfinite(first)))
            if not is_near(second, first, NOISE * size):
                self._refuse(name, Finding("random", -1, np.nan, np.nan, np.inf), "differences", probe.theta)

    def _finite(self, theta: FloatArray, name: str, pulled: FloatArray) -> FloatArray:
        if not np.isfinite(pulled).all():
            claimed = np.full(np.size(self.entries(theta)[name]), np.nan)
            finding = compare(claimed, self.probe(theta), name)
            self._refuse(name, finding or Finding("not finite", 0, np.nan, np.nan, np.inf), "autograd", theta)
        return pulled

    def _refuse(self, name: str, finding: Finding, source: str, theta: FloatArray) -> None:
        """Raise what a finding says."""
        shape = np.shape(self.probe(theta).base[name])
        raise DerivativeError(describe(self.label, name, shape, finding, source, theta))
