"""Routes that only sweep, for a general objective: reverse mode and the complex step through f itself.

The occupancy is carried forwards in time, law by law, traced or complex; f is evaluated at what comes of it.
"""

from __future__ import annotations

import autograd.numpy as anp
import numpy as np

from bilevelrl.reference.arrays import FloatArray, Traced
from bilevelrl.reference.general_objective.model import GeneralAt, GeneralObjective
from bilevelrl.reference.general_objective.slopes import checked_slopes, confirm_analytic
from bilevelrl.reference.general_objective.split import GENERAL_PARTS
from bilevelrl.reference.problem import (
    AnswerBounds,
    ComplexParts,
    Objective,
    Part,
    TracedObjective,
    complex_parts,
    unrolled_objective,
)
from bilevelrl.reference.tabular.complex_sweeps import STEP, complex_policies, complex_tables
from bilevelrl.reference.tabular.sweeps import SweepPlan, plan_sweeps
from bilevelrl.reference.tabular.transitions import SparseTransition, Transition, to_dense
from bilevelrl.reference.tabular.unrolled import check_tape, swept_policy

__all__ = ["general_complex_parts", "unroll_general"]

_BYTES_PER_ENTRY = 8 * 12  # as of the tape of an ordinary MDP


def _nothing_shown(at: GeneralAt) -> AnswerBounds:
    return AnswerBounds(gradient=np.inf, objective=np.inf)


def _steps(plan: SweepPlan, objective: Objective) -> int:
    return plan.leader if objective.horizon is None else objective.horizon


def _visits(initial: Traced, chain: Traced, discount: float, steps: int) -> Traced:
    """Σ_t w_t Pr(s_t = s), law by law."""
    law, visits = initial, initial
    for _ in range(steps - 1):
        law = discount * anp.dot(law, chain)
        visits = visits + law
    return visits


def _dense(kernel: Transition) -> Traced:
    """The kernel (S, A, S) in traceable form."""
    if not isinstance(kernel, SparseTransition):
        return kernel
    arriving = kernel.successor[..., None] == np.arange(kernel.shape[0])
    return anp.sum(kernel.probability[..., None] * arriving, axis=2)


@unrolled_objective.register(GeneralObjective)
def unroll_general(at: GeneralAt, objective: Objective, *, warm_start: object = None) -> TracedObjective:
    """Return f by sweeps; a warm start is ignored.

    Raises
    ------
    TooLargeError
        If the tape would be too large.
    """
    problem, process = at.problem, at.problem.process
    process.derivatives.confirm_trace(at.theta)
    plan, tables = plan_sweeps(at.process), at.process.tables
    steps = _steps(plan, objective)
    tape = _BYTES_PER_ENTRY * (tables.states * tables.actions * plan.follower + tables.states * steps)
    check_tape(tape, f"{plan.follower} + {steps} sweeps of {tables.states} states", "implicit")
    discount, scale = objective.discount(problem.discount_leader), problem.weight(objective)
    chain = np.einsum("sa,sat->st", plan.policy, at.process.kernel)
    point = at.theta, plan.policy, scale * _visits(np.asarray(tables.initial), chain, discount, steps)
    checked_slopes(problem.value, None, point, verify=problem.verify_derivatives)  # f's trace, whatever is given

    def split(*points: Traced) -> Traced:
        at_initial, at_direct, at_transition, at_response = points
        policy = swept_policy(process, process.evaluate(at_response), plan.follower, plan.centre_follower)
        chain = anp.einsum("sa,sat->st", policy, _dense(process.evaluate(at_transition).transition))
        visits = _visits(process.evaluate(at_initial).initial, chain, discount, steps)
        return problem.value(at_direct, policy, scale * visits)

    return TracedObjective(
        label="objective",
        parts=GENERAL_PARTS,
        function=split,
        residual=plan.residual,
        condition=(1 + problem.discount_follower) / (1 - problem.discount_follower),
        status="converged: sweeps as many as the tolerance needs",
        counters={"sweeps": plan.follower + steps, "evaluations": len(GENERAL_PARTS)},
        error_bound=_nothing_shown,
    )


@complex_parts.register(GeneralObjective)
def general_complex_parts(at: GeneralAt, objective: Objective) -> ComplexParts:
    """Return f and its derivatives by part, coordinate by coordinate.

    Raises
    ------
    InvalidInputError
        If the tables' function or f does not take complex numbers, or is not analytic in them.
    """
    problem, process, theta = at.problem, at.problem.process, at.theta
    tables, kernel = at.process.tables, at.process.kernel
    process.derivatives.confirm_complex_step(theta)
    plan = plan_sweeps(at.process)
    steps, scale = _steps(plan, objective), problem.weight(objective)
    discount, initial = objective.discount(problem.discount_leader), np.asarray(tables.initial)

    def visits(initial: Traced, policy: Traced, kernel: Traced) -> Traced:
        return scale * _visits(initial, np.einsum("sa,sat->st", policy, kernel), discount, steps)

    def slope(point: Traced, policy: Traced, occupancy: Traced) -> float:
        return float(np.imag(problem.value(point, policy, occupancy))) / STEP

    parts: dict[Part, FloatArray] = {part: np.zeros(theta.size) for part in GENERAL_PARTS}
    value, occupancy = 0.0, np.zeros(initial.size)
    for j, point in enumerate(complex_tables(process, theta, range(theta.size))):
        arguments = [point], kernel, plan.centre_follower, process.discount_follower, process.temperature, plan.follower
        policy = complex_policies(*arguments)[0]
        frozen = np.ascontiguousarray(policy.real)
        if j == 0:
            occupancy = visits(initial, frozen, kernel)
            confirm_analytic(problem.value, (theta, frozen, occupancy))
            value = float(problem.value(theta, frozen, occupancy))
        moved = theta.astype(np.complex128)
        moved.flat[j] += 1j * STEP
        parts["direct"][j] = slope(moved, frozen, occupancy)
        parts["initial"][j] = slope(theta, frozen, visits(point.initial, frozen, kernel))
        parts["transition"][j] = slope(theta, frozen, visits(initial, frozen, to_dense(point.transition)))
        parts["response"][j] = slope(theta, policy, visits(initial, policy, kernel))
    return ComplexParts(
        objective=value,
        parts=parts,
        residual=plan.residual,
        condition=(1 + problem.discount_follower) / (1 - problem.discount_follower),
        counters={"sweeps": theta.size * (plan.follower + 4 * steps), "evaluations": theta.size},
        error_bound=_nothing_shown,
    )
