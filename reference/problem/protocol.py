"""What every problem offers: the protocol that estimators, critics and checks are written against.

A problem is a leader parameter θ, a follower with a unique entropy-regularised best response, and the derivatives of
its ingredients. An estimator of the hypergradient needs only weighted sums of such derivatives over visited
transitions,

    Σ_m Σ_t w[m, t] ∇_θ term(state_t, action_t, state_tp1; θ),

with `term` one of `TERMS`. `Problem.pullback` is that sum: one vector-Jacobian product for a whole batch, or one row
per stream when asked. It is all that an estimator knows of a problem, so one estimator class serves every task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

from bilevelrl.reference.arrays import AnyArray, FloatArray
from bilevelrl.reference.errors import UnsupportedError, refusal

__all__ = ["GAME_PARTS", "PARTS", "TERMS", "At", "Part", "Problem", "Question", "Term", "TransitionBatch", "evaluated"]

Part: TypeAlias = Literal["initial", "direct", "transition", "response", "regulariser", "policy"]
"""Names of the parts of a hypergradient: partial derivatives of the objective with θ split by where it enters."""

PARTS: tuple[Part, ...] = ("initial", "direct", "transition", "response", "regulariser")
"""The parts of a configurable MDP's hypergradient, in the order in which tables print them."""

GAME_PARTS: tuple[Part, ...] = ("policy", "response", "regulariser")
"""The parts of a Markov game's hypergradient."""

Term: TypeAlias = Literal[
    "reward_leader", "reward_follower", "log_transition", "log_initial", "log_policy_leader", "path_transition"
]
"""Functions of one transition whose θ-derivatives estimators weigh and sum.

`path_transition` is the next state itself as a function of θ at fixed noise, and its weights are vectors
(streams, steps, n); only problems with continuous states have it, and `TERMS` lists what others may be asked for.
"""

TERMS: tuple[Term, ...] = ("reward_leader", "reward_follower", "log_transition", "log_initial", "log_policy_leader")


class TransitionBatch(Protocol):
    """Visited transitions, arrays of shape (streams, steps) or (streams, steps, dimension)."""

    @property
    def state_t(self) -> AnyArray:
        """States before the step."""
        ...

    @property
    def action_t(self) -> AnyArray:
        """The follower's actions."""
        ...

    @property
    def leader_action_t(self) -> AnyArray | None:
        """The leader's actions; None where it has none."""
        ...

    @property
    def state_tp1(self) -> AnyArray:
        """States after the step; S where the process ended."""
        ...


@runtime_checkable
class Problem(Protocol):
    """A bi-level problem: what solvers, estimators and checks may ask of it."""

    @property
    def discount_leader(self) -> float:
        """γ_L, in [0, 1)."""
        ...

    @property
    def discount_follower(self) -> float:
        """γ_F, in [0, 1)."""
        ...

    @property
    def temperature(self) -> float:
        """β, the follower's entropy weight."""
        ...

    @property
    def theta_shape(self) -> tuple[int, ...] | None:
        """Shape of θ; None: any one-dimensional θ."""
        ...

    def check_theta(self, theta: object) -> FloatArray:
        """Return θ as a float64 array of the right shape, or raise."""
        ...

    def at(self, theta: object) -> At[Problem]:
        """Evaluate the problem once at a real θ, and check what it gives."""
        ...

    def pullback_at(self, theta: FloatArray) -> Callable[[Mapping[str, FloatArray]], FloatArray]:
        """Return a function of cotangents {entry: array}: Σ ⟨cotangent, ∂entry/∂θ⟩, (N,)."""
        ...

    def pullback(
        self,
        theta: FloatArray,
        batch: TransitionBatch,
        weights: Mapping[Term, FloatArray],
        *,
        per_stream: bool = False,
    ) -> FloatArray:
        """Return Σ w ∇term over the batch: (N,), or (streams, N) when `per_stream`."""
        ...

    def regulariser_gradient(self, theta: FloatArray) -> FloatArray:
        """Return ∇ρ(θ), shape (N,)."""
        ...


P_co = TypeVar("P_co", bound=Problem, covariant=True)
Answer = TypeVar("Answer", covariant=True)
F = TypeVar("F", bound=Callable[..., object])


@dataclass(frozen=True, eq=False, kw_only=True)
class At(Generic[P_co]):
    """A problem evaluated once: what solvers, linearisations, bounds and the leader's evaluation take.

    Each kind of problem adds what its functions gave (tables, matrices or a policy, checked).

    Attributes
    ----------
    problem
        The problem.
    theta
        Where; a copy of its own.
    """

    problem: P_co
    theta: FloatArray

    @property
    def values(self) -> object:
        """What the problem's functions gave: an array, a number or a dataclass of them."""
        raise NotImplementedError

    @cached_property
    def pullback(self) -> Callable[[Mapping[str, FloatArray]], FloatArray]:
        """{entry: array} → Σ ⟨array, ∂entry/∂θ⟩, (N,); one trace serves all."""
        return self.problem.pullback_at(self.theta)


class Question(Generic[Answer]):
    """A function of a problem evaluated at θ that each kind of problem answers in its own folder.

    Nobody else knows kinds; a subclass of a kind inherits its answer.

    Parameters
    ----------
    lacking
        What a kind without an answer lacks, for the message.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> size: Question[int] = Question("size")
    >>> @size.register(SimpleNamespace)
    ... def own_size(at: At[Any]) -> int:
    ...     return at.problem.count + at.theta
    >>> size(At(problem=SimpleNamespace(count=2), theta=1))
    3
    """

    def __init__(self, lacking: str) -> None:
        self._lacking = lacking
        self._answers: dict[type, Callable[..., Any]] = {}
        self._listeners: list[Callable[[type], object]] = []

    def register(self, kind: type) -> Callable[[F], F]:
        """Register a function as the answer of a kind of problem (a class)."""

        def decorate(function: F) -> F:
            self._answers[kind] = function
            for listener in self._listeners:
                listener(kind)
            return function

        return decorate

    def when_answered(self, listener: Callable[[type], object]) -> None:
        """Call a function with every kind that answers, now or later."""
        self._listeners.append(listener)
        for kind in self._answers:
            listener(kind)

    def serves(self, problem: object) -> bool:
        """Return whether a problem's kind has an answer."""
        return any(kind in self._answers for kind in type(problem).__mro__)

    def __call__(self, at: At[Problem], *arguments: object, **options: object) -> Answer:
        """Return the answer of the problem's kind.

        Raises
        ------
        UnsupportedError
            If it has none.
        """
        for kind in type(at.problem).__mro__:
            if kind in self._answers:
                answer: Answer = self._answers[kind](at, *arguments, **options)
                return answer
        found, able = type(at.problem).__name__, sorted(kind.__name__ for kind in self._answers)
        raise UnsupportedError(
            f"problem of type {found}: no {self._lacking} is registered for it; expected one of {able}"
        )


def evaluated(problem: Problem, theta: object) -> At[Problem]:
    """Return the problem evaluated at θ.

    Raises
    ------
    UnsupportedError
        If it is no problem.
    """
    if isinstance(problem, type) or not hasattr(problem, "at"):
        found = f"the class {problem.__name__}" if isinstance(problem, type) else type(problem).__name__
        raise UnsupportedError(refusal("problem", found, "a problem of this package", "or a kind of your own"))
    return problem.at(theta)
