"""Routes that only sweep: the follower's sweeps in the planned tables, the leader's in the measured ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bilevelrl.reference.arrays import Traced
from bilevelrl.reference.problem import (
    PARTS,
    AnswerBounds,
    ComplexParts,
    Objective,
    TracedObjective,
    complex_parts,
    unrolled_objective,
)
from bilevelrl.reference.separate_kernels.leader import bounds_of
from bilevelrl.reference.separate_kernels.model import SeparateAt, SeparateKernels
from bilevelrl.reference.tabular.complex_sweeps import swept_parts
from bilevelrl.reference.tabular.sweeps import SweepPlan, leader_sweeps, plan_sweeps
from bilevelrl.reference.tabular.unrolled import check_tape, swept_objective, tape_size

__all__ = ["separate_complex_parts", "unroll_separate"]


def _plan(at: SeparateAt) -> SweepPlan:
    """The follower's sweeps as planned, the leader's as the measured process mixes."""
    plan = plan_sweeps(at.planned)
    chain = np.einsum("sa,sat->st", plan.policy, at.measured.kernel)
    leader, left = leader_sweeps(chain, at.problem.discount_leader)
    return replace(plan, leader=leader, centre_leader=at.measured.centres[1], remainder=max(plan.remainder, left))


def _bounds(plan: SweepPlan, at: SeparateAt, objective: Objective) -> AnswerBounds:
    errors = plan.errors(at.planned)
    return bounds_of(at, plan.policy, plan.value, objective, errors, plan.remainder)


@unrolled_objective.register(SeparateKernels)
def unroll_separate(at: SeparateAt, objective: Objective, *, warm_start: object = None) -> TracedObjective:
    """Return the objective by sweeps; a warm start is ignored.

    Raises
    ------
    TooLargeError
        If the tape would be too large.
    """
    for own in (at.planned, at.measured):
        own.problem.derivatives.confirm_trace(at.theta)
    plan, discount = _plan(at), at.problem.discount_follower
    steps = plan.leader if objective.horizon is None else objective.horizon
    check_tape(tape_size(at.planned.tables, plan.follower + steps), f"{plan.follower} + {steps} sweeps", "implicit")

    def split(*points: Traced) -> Traced:
        return swept_objective(
            at.measured.problem,
            points,
            planned=at.planned.problem,
            sweeps_follower=plan.follower,
            sweeps_leader=plan.leader,
            objective=objective,
            centre_follower=plan.centre_follower,
            centre_leader=plan.centre_leader,
        )

    return TracedObjective(
        label="tables",
        parts=PARTS,
        function=split,
        constant=objective.constant_return(plan.centre_leader, at.problem.discount_leader),
        residual=plan.residual,
        condition=(1 + discount) / (1 - discount),
        status="converged: sweeps as many as the tolerance needs",
        counters={"sweeps": plan.follower + steps, "evaluations": len(PARTS)},
        error_bound=lambda at: _bounds(plan, at, objective),
    )


@complex_parts.register(SeparateKernels)
def separate_complex_parts(at: SeparateAt, objective: Objective) -> ComplexParts:
    """Return J and its derivatives, coordinate by coordinate in batches; raises as `tabular_complex_parts`."""
    plan = _plan(at)

    def bound(at: SeparateAt) -> AnswerBounds:
        return _bounds(plan, at.problem.linearised(at.theta).at(at.theta), objective)

    return swept_parts(at.planned, at.measured, objective, plan, bound)
