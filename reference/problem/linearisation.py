"""The objective taken apart: linearised in what a problem evaluates to, or split into a function of one θ per part.

That is all that a route for every kind of problem asks, and each kind answers in its own folder: for implicit
differentiation with a closed form that holds the follower's adjoint; for finite differences with the objective under a
follower that is solved anew where the θ that its solver reads is moved; for reverse mode and the complex step with
transcriptions of the Bellman or Riccati equations that share nothing with the solvers or with each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from bilevelrl.reference.arrays import FloatArray, Traced
from bilevelrl.reference.problem.follower import Follower
from bilevelrl.reference.problem.on_demand import AnswerBounds
from bilevelrl.reference.problem.protocol import At, Part, Problem, Question

__all__ = [
    "ComplexParts",
    "Linearisation",
    "SplitObjective",
    "TracedObjective",
    "closed_form_objective",
    "complex_parts",
    "linearise",
    "nudged_slopes",
    "split_objective",
    "unrolled_objective",
]


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
        Condition number of the follower's linear system, or what works it out.
    counters : {name: int}
        What it cost.
    linear_solver : str
        What solved the linear systems, where that is not a factorisation of each.
    error_bound
        Works out the bounds on the pulled back sum, from the problem evaluated once more: see `when_read`. None: the
        kind's own, of this follower.
    """

    objective: float
    cotangents: Mapping[Part, Mapping[str, FloatArray]]
    follower: Follower
    condition: float | Callable[[], float]
    counters: Mapping[str, int]
    linear_solver: str = ""
    error_bound: Callable[..., AnswerBounds] | None = None


linearise: Question[Linearisation] = Question("linearisation")
"""(at, objective, warm_start=) → the objective linearised."""

nudged_slopes: Question[Linearisation] = Question("nudged follower")
"""(at, objective, warm_start=) → the same by the value of a follower that the leader pays: see `mixed_derivative`."""


class SplitObjective(Protocol):
    """J as a function of one θ per part, all of them but one at the θ where it was split."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts that θ is split into."""
        ...

    @property
    def follower(self) -> Follower:
        """The response to θ."""
        ...

    @property
    def base(self) -> float:
        """J where nothing is moved."""
        ...

    @property
    def condition(self) -> float:
        """Bound on the condition number of the follower's linear system."""
        ...

    def depends(self, part: Part) -> bool:
        """Whether the part can be anything but zero."""
        ...

    def noise(self, part: Part) -> float:
        """Bound on the rounding of the values."""
        ...

    def values(self, part: Part, moved: Sequence[At[Problem]]) -> FloatArray:
        """J with the θ of one part moved to each of several evaluations of the problem; NaN where it does not exist."""
        ...

    def error_bound(self, at: At[Problem]) -> AnswerBounds:
        """What the exact derivative makes of the errors of the response that all parts but one hold fixed."""
        ...


split_objective: Question[SplitObjective] = Question("split objective")
"""(at, objective, warm_start=) → the objective split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedObjective:
    """J as a function of one θ per part, traceable by autograd.

    Attributes
    ----------
    label : str
        What the user calls the problem's function.
    parts
        The parts that θ is split into.
    function
        One θ per part → J without `constant`.
    constant : float
        What was split off the rewards earns.
    residual, condition, status, follower, counters
        As in `Hypergradient`.
    error_bound
        Works out the bounds, from the problem evaluated once more.
    """

    label: str
    parts: tuple[Part, ...]
    function: Callable[..., Traced]
    constant: float = 0.0
    residual: float
    condition: float
    status: str
    follower: Follower | None = None
    counters: Mapping[str, int]
    error_bound: Callable[..., AnswerBounds]


unrolled_objective: Question[TracedObjective] = Question("unrolled objective")
"""(at, objective, warm_start=) → the objective by sweeps of its own."""

closed_form_objective: Question[TracedObjective] = Question("closed-form objective")
"""(at, objective, warm_start=) → the objective by equations with derivatives of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComplexParts:
    """J and its derivatives by part from complex sweeps; attributes as in `Hypergradient` and `TracedObjective`."""

    objective: float
    parts: dict[Part, FloatArray]
    residual: float
    condition: float
    counters: Mapping[str, int]
    error_bound: Callable[..., AnswerBounds]


complex_parts: Question[ComplexParts] = Question("complex sweeps")
"""(at, objective) → what a complex step gives."""
