"""The objective linearised in what a problem evaluates to: all that implicit differentiation asks of a kind.

Each kind answers in its own folder, with a closed form that holds the follower's adjoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bilevelrl.reference.follower import Follower
from bilevelrl.reference.on_demand import AnswerBounds
from bilevelrl.reference.problem import Part, Question

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
    follower
        The response it was computed from.
    condition : float
        Condition number of the follower's linear system.
    error_bound
        Works out the bounds on the pulled back sum, from the problem evaluated once more: see `when_read`.
    counters : {name: int}
        What it cost.
    """

    objective: float
    cotangents: Mapping[Part, Mapping[str, Any]]
    follower: Follower
    condition: float
    error_bound: Callable[[Any], AnswerBounds]
    counters: Mapping[str, int]


linearise: Question[Linearisation] = Question("linearisation")
"""(at, objective, warm_start=) → the objective linearised."""
