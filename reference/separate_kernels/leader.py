"""The follower is the planned problem's, the return the measured one's, and errors of one travel in the other."""

from __future__ import annotations

from typing import Any

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.problem import (
    INFINITE_HORIZON,
    AnswerBounds,
    Objective,
    error_bound,
    evaluate_objective,
    solve,
)
from bilevelrl.reference.separate_kernels.model import SeparateAt, SeparateKernels
from bilevelrl.reference.tabular.error_bounds import tabular_error_bound
from bilevelrl.reference.tabular.follower import TabularFollower, solve_tabular
from bilevelrl.reference.tabular.leader import tabular_leader_objective
from bilevelrl.reference.tabular.value_errors import ValueErrors

__all__ = ["bounds_of", "separate_error_bound", "separate_leader_objective", "solve_separate"]


@solve.register(SeparateKernels)
def solve_separate(at: SeparateAt, **options: Any) -> TabularFollower:
    """Solve the follower of the planned problem; arguments and errors as in `solve_follower`."""
    return solve_tabular(at.planned, **options)


@evaluate_objective.register(SeparateKernels)
def separate_leader_objective(
    at: SeparateAt, *, objective: Objective = INFINITE_HORIZON, follower: TabularFollower | None = None
) -> float:
    """The leader's return in the measured problem; see `leader_objective`."""
    played = solve_tabular(at.planned) if follower is None else follower
    return tabular_leader_objective(at.measured, objective=objective, follower=played)  # (1) of `model`


@error_bound.register(SeparateKernels)
def separate_error_bound(at: SeparateAt, follower: TabularFollower, objective: Objective) -> AnswerBounds:
    """The bounds for a problem solved by this follower."""
    constant = at.planned.constant
    return bounds_of(
        at, follower.policy, follower.value_without(constant), objective, follower.errors_without(constant)
    )


def bounds_of(
    at: SeparateAt,
    policy: FloatArray,
    follower_value: FloatArray,
    objective: Objective,
    errors: ValueErrors,
    remainder: float = 0.0,
) -> AnswerBounds:
    """Return the bounds for any way to solve it; arguments as of `tabular_error_bound`."""
    return tabular_error_bound(
        at.planned,
        policy=policy,
        follower_value=follower_value,
        objective=objective,
        errors=errors,
        remainder=remainder,
        measured=at.measured,
    )
