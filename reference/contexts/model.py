"""Mixtures of contexts: the leader meets one of several followers ξ with known probability, at the same θ.

    J(θ) = Σ_ξ p(ξ) J_ξ(θ),      ∇J(θ) = Σ_ξ p(ξ) ∇J_ξ(θ)                                                          (1)

A context is a problem of any kind, with its own process, follower, discounts and temperature. Everybody sees which
context it is before anything happens, so that each follower answers in its own. A mixture knows nothing of kinds: what
is asked of it is asked of its contexts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, TypeVar

import numpy as np

from bilevelrl.reference.arrays import FloatArray, check_array, check_theta
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import (
    BilevelRLError,
    InvalidInputError,
    ShapeError,
    StochasticityError,
    UnsupportedError,
    refusal,
)
from bilevelrl.reference.problem import At, Problem, Term, TransitionBatch
from bilevelrl.reference.tabular import ROW_SUM_TOLERANCE

__all__ = ["Mixture", "MixtureAt", "in_context", "weighted"]

Weighable = TypeVar("Weighable", float, FloatArray)


class DifferentContextsError(UnsupportedError, AttributeError):
    """A constant was asked for that is not the same in all contexts."""


def _weights(name: str, value: object) -> FloatArray:
    if callable(value):
        raise UnsupportedError(
            f"{name}: a function, expected known numbers; weights that depend on θ are the initial law of one "
            "ConfigurableMDP whose states are (context, state): see reduce_contexts"
        )
    found = np.array(check_array(name, value, dtype=np.float64, finite=True))
    if found.ndim != 1:
        raise ShapeError(refusal(f"{name}.shape", found.shape, "(C,)", "one per context"))
    return found


@checked
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mixture:
    """Several followers with known weights: the leader's objective is the weighted sum of what each context pays.

    Parameters
    ----------
    contexts
        At least one problem, of any kinds, all with the same θ. A context may be a mixture itself.
    weights : (C,)
        p(ξ) ≥ 0, known. Their sum is one within 1e-12, and they mean themselves divided by it. A context of weight zero
        is computed as any other, and adds nothing.
    name
        Used in messages and tables.

    Raises
    ------
    InvalidInputError
        If there is no context, or contexts take a θ of different shapes.
    ShapeError, StochasticityError
        If weights are not one per context, negative, or do not sum to one.
    UnsupportedError
        If weights are a function: of θ, they are an initial law, see `reduce_contexts`.

    Examples
    --------
    >>> from bilevelrl.reference import hypergradient
    >>> from bilevelrl.reference.contexts import Mixture
    >>> from bilevelrl.tasks import random_mdp
    >>> one, other = (random_mdp(states=4, actions=2, parameters=3, seed=seed) for seed in (0, 1))
    >>> both = hypergradient(Mixture(contexts=[one, other], weights=[0.25, 0.75]), np.zeros(3))
    >>> each = [found.objective for found in both.contexts]
    >>> abs(both.objective - (0.25 * each[0] + 0.75 * each[1])) < 1e-15
    True
    """

    contexts: Sequence[Problem]
    weights: Annotated[FloatArray, _weights]
    name: str = "mixture"

    def __post_init__(self) -> None:
        contexts, weights = tuple(self.contexts), self.weights
        if not contexts:
            raise InvalidInputError("contexts=[]: expected at least one problem; list the followers' problems")
        if weights.shape != (len(contexts),):
            raise ShapeError(refusal("weights.shape", weights.shape, f"({len(contexts)},)", "one per context"))
        if (weights < 0.0).any():
            place = int(np.argmin(weights))
            raise StochasticityError(
                refusal(f"weights[{place}]", float(weights[place]), "a probability >= 0", "leave the context out")
            )
        total = float(weights.sum())
        if not abs(total - 1.0) <= ROW_SUM_TOLERANCE:
            raise StochasticityError(refusal("sum of weights", total, "1", "divide them by their sum"))
        shapes = {place: context.theta_shape for place, context in enumerate(contexts) if context.theta_shape}
        first = min(shapes, default=0)
        for place, shape in shapes.items():
            if shape != shapes[first]:
                expected = f"{shapes[first]} as contexts[{first}] has"
                raise ShapeError(
                    refusal(f"contexts[{place}].theta_shape", shape, expected, "one θ is the leader's in all contexts")
                )
        weights = weights / total
        weights.setflags(write=False)
        object.__setattr__(self, "contexts", contexts)
        object.__setattr__(self, "weights", weights)

    def _common(self, name: str) -> float:
        found = [float(getattr(context, name)) for context in self.contexts]
        if len(set(found)) > 1:
            raise DifferentContextsError(f"{name}={found}: expected the same in all contexts; ask each of them")
        return found[0]

    @property
    def discount_leader(self) -> float:
        """γ_L, where it is the same in all contexts."""
        return self._common("discount_leader")

    @property
    def discount_follower(self) -> float:
        """γ_F, where it is the same in all contexts."""
        return self._common("discount_follower")

    @property
    def temperature(self) -> float:
        """β, where it is the same in all contexts."""
        return self._common("temperature")

    @property
    def theta_shape(self) -> tuple[int, ...] | None:
        """Shape of θ; None: any one-dimensional θ."""
        return next((context.theta_shape for context in self.contexts if context.theta_shape), None)

    def check_theta(self, theta: object) -> FloatArray:
        """Return θ as a float64 array of the right shape, or raise."""
        return check_theta(theta, self.theta_shape)

    def at(self, theta: object) -> MixtureAt:
        """Evaluate all contexts once at a real θ; what is wrong with one of them is noted beside its error."""
        theta = np.array(self.check_theta(theta))
        found = []
        for place, context in enumerate(self.contexts):
            with in_context(place):
                found.append(context.at(theta))
        return MixtureAt(problem=self, theta=theta, contexts=tuple(found))

    def pullback_at(self, theta: FloatArray) -> Callable[[Mapping[str, FloatArray]], FloatArray]:
        """Raise `UnsupportedError`: entries are those of a context."""
        raise UnsupportedError(f"{self.name}: a mixture has no entries of its own; pull back in contexts[i]")

    def pullback(
        self,
        theta: FloatArray,
        batch: TransitionBatch,
        weights: Mapping[Term, FloatArray],
        *,
        per_stream: bool = False,
    ) -> FloatArray:
        """Raise `UnsupportedError`: a batch was drawn in one context."""
        raise UnsupportedError(f"{self.name}: transitions are those of one context; pull back in contexts[i]")

    def regulariser_gradient(self, theta: FloatArray) -> FloatArray:
        """Return Σ p ∇ρ, (N,)."""
        return weighted(self.weights, [context.regulariser_gradient(theta) for context in self.contexts])


@dataclass(frozen=True, eq=False, kw_only=True)
class MixtureAt(At[Mixture]):
    """A mixture evaluated at one θ.

    Attributes
    ----------
    contexts
        Each context evaluated there.
    """

    contexts: tuple[At[Problem], ...]

    @property
    def values(self) -> tuple[object, ...]:
        """What each context's functions gave."""
        return tuple(at.values for at in self.contexts)


def weighted(weights: FloatArray, terms: Sequence[Weighable]) -> Weighable:
    """Return Σ p x over terms of positive weight; an infinite bound of weight zero counts for nothing.

    Examples
    --------
    >>> weighted(np.array([0.0, 0.25, 0.75]), [np.inf, 4.0, 8.0])
    7.0
    """
    first, *rest = ((float(weight), term) for weight, term in zip(weights, terms, strict=True) if weight > 0.0)
    total = first[0] * first[1]
    for weight, term in rest:
        total = total + weight * term  # (1)
    return total


@contextmanager
def in_context(place: int) -> Iterator[None]:
    """Note beside an error of ours in which context it happened."""
    try:
        yield
    except BilevelRLError as error:
        error.add_note(f"in contexts[{place}]")
        raise
