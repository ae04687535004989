"""One forward pass of autograd through a user's function, and pullbacks along it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import autograd.numpy as anp
import numpy as np
from autograd.core import VJPNode, backward_pass
from autograd.tracer import getval, isbox, trace

from bilevelrl.reference.arrays import AnyArray, FloatArray, Traced
from bilevelrl.reference.derivatives.probes import Entries, Values
from bilevelrl.reference.errors import BilevelRLError, DerivativeError

__all__ = ["Trace", "rule_failed"]


@dataclass(frozen=True, slots=True)
class Trace:
    """One forward pass of a function at θ: values of all arrays, the nodes of those that depend on θ, and how many
    steps led to them.
    """

    label: str
    theta: FloatArray
    values: Values
    nodes: Mapping[str, VJPNode]
    steps: int

    @classmethod
    def of(cls, entries: Entries, theta: FloatArray, label: str) -> Trace:
        """Return the trace of a function at θ.

        Raises
        ------
        DerivativeError
            If autograd has no rule for one of its steps, or it keeps values of an earlier trace.
        """
        values: dict[str, AnyArray] = {}
        nodes: dict[str, VJPNode] = {}
        start = VJPNode.new_root()

        def traced(x: Traced) -> Traced:
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
        roots, steps = _walked(nodes.values())
        if not roots <= {start}:
            raise _kept(label)
        return cls(label, theta, values, nodes, steps)

    def pull(self, name: str, cotangent: FloatArray) -> FloatArray:
        """Return ⟨cotangent, ∂array/∂θ⟩, shape (N,)."""
        weight = np.asarray(cotangent, dtype=np.float64)
        try:
            with np.errstate(all="ignore"):
                pulled = np.asarray(backward_pass(weight, self.nodes[name]), dtype=np.float64)
        except Exception as error:
            if isinstance(error, AttributeError) and "Node' object" in str(error):  # one of another trace
                raise _kept(self.label) from error
            raise rule_failed(self.label, name, self.theta, f"raised {type(error).__name__}: {error}") from error
        if pulled.size != self.theta.size:
            raise rule_failed(
                self.label, name, self.theta, f"gave {pulled.size} numbers for {self.theta.size} parameters"
            )
        result: FloatArray = np.ravel(pulled)
        return result


def _kept(label: str) -> DerivativeError:
    return DerivativeError(
        f"{label}(theta): an array was made from traced values of an earlier call; expected a function of its argument "
        "alone; do not keep autograd's values between calls"
    )


def rule_failed(label: str, names: str, theta: FloatArray, what: str) -> DerivativeError:
    """Return the error that says what a rule of autograd did."""
    point = np.array2string(theta, threshold=8)
    return DerivativeError(
        f"{label}(theta): autograd's derivative of {names} at theta={point} {what}; expected its rules to fit the "
        "calls (autograd 1.9.1 has a wrong one: linalg.solve of a stack of matrices and one vector); rewrite that "
        "step, give the closed form, or use route='finite_difference'"
    )


def _walked(nodes: Iterable[VJPNode]) -> tuple[set[VJPNode], int]:
    """Return where the nodes come from, and how many there are on the way."""
    roots: set[VJPNode] = set()
    seen: set[VJPNode] = set()
    pending = list(nodes)
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        parents = getattr(node, "parents", ())  # a node of forward mode, kept from an earlier call, has none
        pending.extend(parents)
        if not parents:
            roots.add(node)
    return roots, len(seen)
