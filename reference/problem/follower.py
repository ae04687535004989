"""What every kind of problem's follower tells, and how its solver is asked; each kind answers in its own folder."""

from __future__ import annotations

import enum
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from numpy.random import Generator

from bilevelrl.reference.arrays import FloatArray, IntArray
from bilevelrl.reference.doors import LARGEST_ITERATIONS, check_integer
from bilevelrl.reference.errors import UnknownNameError
from bilevelrl.reference.problem.protocol import Question

__all__ = ["METHODS", "Follower", "FollowerMethod", "Status", "check_method", "solve"]

FollowerMethod: TypeAlias = Literal["newton", "value_iteration", "modified_policy_iteration"]
METHODS: tuple[FollowerMethod, ...] = ("newton", "value_iteration", "modified_policy_iteration")


class Status(enum.Enum):
    """How an iteration ended; the value is the message for the user."""

    CONVERGED = "converged: the residual is below the tolerance"
    AT_ROUNDING = "converged as far as rounding allows: the residual is at the level of floating-point noise"
    GIVEN = "given: a policy that nobody solved for, with its own values"
    STOPPED_EARLY = "stopped after the requested number of sweeps: a suboptimal follower"
    ITERATION_LIMIT = "not converged: the iteration limit was reached; raise max_iterations or use method='newton'"

    @property
    def succeeded(self) -> bool:
        """Whether the value is within its error bound of the fixed point to the asked tolerance."""
        return self in (Status.CONVERGED, Status.AT_ROUNDING)


@runtime_checkable
class Follower(Protocol):
    """The follower's (best or suboptimal) response: what it is worth, how it plays, and how well it is known.

    States and actions are integers of any shape in tabular problems, vectors (..., n) otherwise. Where the leader acts
    too, `leader_action` says what it did; None: before it has acted, where the follower can tell.
    """

    @property
    def status(self) -> Status:
        """How the solver ended."""
        ...

    @property
    def residual(self) -> float:
        """Largest Bellman residual of the value."""
        ...

    @property
    def error_bound(self) -> float:
        """Bound on the error of the value in the maximum norm, rounding included."""
        ...

    def value_at(self, state: object, leader_action: object = None) -> FloatArray:
        """Return V_F of each state, entropy included; zero where the process has ended."""
        ...

    def action_value_at(self, state: object, action: object, leader_action: object = None) -> FloatArray:
        """Return Q_F of each state and action, without the entropy of that action."""
        ...

    def sample(self, state: object, rng: Generator, leader_action: object = None) -> IntArray | FloatArray:
        """Draw an action for each state."""
        ...

    def log_prob(self, state: object, action: object, leader_action: object = None) -> FloatArray:
        """Return the log-probability (density) of each action."""
        ...


solve: Question[Follower] = Question("follower's solver")
"""Solves the follower of a problem evaluated at θ, with the options of `solve_follower`."""


def check_method(method: FollowerMethod, stop_after: int | None) -> None:
    """Refuse a method that is not known, and a number of iterations that is none."""
    if not isinstance(method, str) or method not in METHODS:
        raise UnknownNameError("method", method, METHODS)
    if stop_after is not None:
        check_integer("stop_after", stop_after, low=0, high=LARGEST_ITERATIONS)
