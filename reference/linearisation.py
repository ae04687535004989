"""The objective linearised in what a problem evaluates to: all that implicit differentiation asks of a kind.

Each kind answers in its own folder, with a closed form that holds the follower's adjoint.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import UnsupportedError
from bilevelrl.reference.follower import Follower
from bilevelrl.reference.objective import Objective
from bilevelrl.reference.on_demand import AnswerBounds
from bilevelrl.reference.problem import Part

__all__ = ["Linearisation", "linearise"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Linearisation:
    """The objective at θ and its slopes in the entries that θ moves.

    Attributes
    ----------
    objective : float
        J(θ).
    cotangents : {part: {entry: array}}
        ∂J/∂entry by the part through which it enters; pulled back to θ they are the parts of ∇J.
    pullback
        {entry: array} → Σ ⟨array, ∂entry/∂θ⟩, (N,).
    follower
        The response it was computed from.
    condition : float
        Condition number of the follower's linear system.
    error_bound
        Works out the bounds on the pulled back sum; see `Hypergradient.error_bound`.
    evaluate, evaluated
        What the problem is made of, and its value at θ: see `when_read`.
    counters : {name: int}
        What it cost.
    """

    objective: float
    cotangents: Mapping[Part, Mapping[str, Any]]
    pullback: Callable[[Mapping[str, Any]], FloatArray]
    follower: Follower
    condition: float
    error_bound: Callable[[], float | AnswerBounds]
    evaluate: Callable[[Any], Any]
    evaluated: Any
    counters: Mapping[str, int]


@functools.singledispatch
def linearise(problem: Any, theta: Any, objective: Objective, *, warm_start: Any = None) -> Linearisation:
    """Return the linearisation of the objective at θ; each kind of problem registers its own.

    Raises
    ------
    UnsupportedError
        If none is registered for this kind of problem.
    """
    raise UnsupportedError(f"problem of type {type(problem).__name__}: no linearisation is registered for it")
