"""Reverse mode through the unrolled solver: the definition of the truth, with its own Bellman sweeps.

The follower's soft value iteration and the leader's policy evaluation are written out sweep by sweep in
`autograd.numpy` and differentiated as they stand. θ enters five times (initial law, leader's reward, leader's dynamics,
follower, regulariser), so that one reverse pass gives every part.
"""

from __future__ import annotations

import autograd.numpy as anp
import numpy as np

from bilevelrl.reference.arrays import Traced
from bilevelrl.reference.derivatives.autodiff import log_sum_exp, softmax
from bilevelrl.reference.errors import TooLargeError
from bilevelrl.reference.problem import PARTS, Objective, TracedObjective, unrolled_objective
from bilevelrl.reference.tabular.model import ConfigurableMDP, TabularAt
from bilevelrl.reference.tabular.sweeps import plan_sweeps
from bilevelrl.reference.tabular.tables import Tables
from bilevelrl.reference.tabular.transitions import SparseTransition, Transition

__all__ = ["TAPE_LIMIT", "check_tape", "swept_objective", "swept_policy", "tape_size", "unroll_tabular"]

TAPE_LIMIT = 4 * 2**30
"""Bytes of tape beyond which the route refuses: 4 GiB."""

_BYTES_PER_ENTRY = 8 * 12  # arrays of size S·A that one soft sweep leaves on the tape, counted generously


def _ahead(kernel: Transition, value: Traced) -> Traced:
    """Σ_s' P(s'|s,a) value(s') in traceable form."""
    if isinstance(kernel, SparseTransition):
        return anp.sum(kernel.probability * value[kernel.successor], axis=2)
    return anp.dot(kernel, value)


def swept_objective(
    problem: ConfigurableMDP,
    points: tuple[Traced, ...],
    *,
    planned: ConfigurableMDP | None = None,
    sweeps_follower: int,
    sweeps_leader: int,
    objective: Objective,
    centre_follower: float = 0.0,
    centre_leader: float = 0.0,
) -> Traced:
    """The objective with θ split by where it enters: `points` in the order of `PARTS`.

    The follower solves `planned`; None: the problem itself. Traceable by autograd; nothing of it is shared with the
    solvers. The constants are subtracted from the rewards: that
    keeps the digits which large constant rewards would cost.
    """
    planned = problem if planned is None else planned
    own = (points[0], points[1], points[2], points[4])
    at_initial, at_direct, at_transition, at_regulariser = (problem.evaluate(point) for point in own)
    policy = swept_policy(planned, planned.evaluate(points[3]), sweeps_follower, centre_follower)
    kernel = at_transition.transition
    discount = objective.discount(problem.discount_leader)
    leader: Traced = np.zeros(at_initial.states)
    earned = anp.sum(policy * (at_direct.reward_leader - centre_leader), axis=1)
    if isinstance(kernel, SparseTransition):
        for _ in range(sweeps_leader if objective.horizon is None else objective.horizon):
            leader = earned + discount * anp.sum(policy * _ahead(kernel, leader), axis=1)
    else:
        chain = anp.einsum("sa,sat->st", policy, kernel)
        for _ in range(sweeps_leader if objective.horizon is None else objective.horizon):
            leader = earned + discount * anp.dot(chain, leader)
    return anp.dot(at_initial.initial, leader) + at_regulariser.regulariser


def swept_policy(problem: ConfigurableMDP, tables: Tables, sweeps: int, centre: float) -> Traced:
    """The follower's policy (S, A) after sweeps from zero, traceable; the constant is subtracted from its rewards."""
    beta, discount = problem.temperature, problem.discount_follower
    value = np.zeros(tables.states)
    reward = tables.reward_follower - centre
    for _ in range(sweeps):
        value = beta * log_sum_exp((reward + discount * _ahead(tables.transition, value)) / beta)
    return softmax((reward + discount * _ahead(tables.transition, value)) / beta)


@unrolled_objective.register(ConfigurableMDP)
def unroll_tabular(at: TabularAt, objective: Objective, *, warm_start: object = None) -> TracedObjective:
    """Return the objective by sweeps; a warm start is ignored: they begin at zero, so that nothing else is traced.

    Raises
    ------
    TooLargeError
        If the tape would exceed `TAPE_LIMIT`.
    """
    problem, tables = at.problem, at.tables
    problem.derivatives.confirm_trace(at.theta)
    plan = plan_sweeps(at)
    steps = plan.leader if objective.horizon is None else objective.horizon
    check_tape(
        tape_size(tables, plan.follower + steps),
        f"{plan.follower} + {steps} sweeps of {tables.states} states",
        "implicit' or 'forward",
    )

    def split(*points: Traced) -> Traced:
        return swept_objective(
            problem,
            points,
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
        constant=objective.constant_return(plan.centre_leader, problem.discount_leader),
        residual=plan.residual,
        condition=(1 + problem.discount_follower) / (1 - problem.discount_follower),
        status="converged: sweeps as many as the tolerance needs",
        counters={"sweeps": plan.follower + steps, "evaluations": len(PARTS)},
        error_bound=lambda at: plan.error_bound(at, objective),
    )


def tape_size(tables: Tables, sweeps: int) -> int:
    """Return the bytes of tape that so many sweeps leave."""
    return _BYTES_PER_ENTRY * tables.states * tables.actions * sweeps


def check_tape(size: int, sweeps: str, other: str) -> None:
    """Refuse a tape of more bytes than `TAPE_LIMIT`."""
    if size > TAPE_LIMIT:
        raise TooLargeError(
            f"unrolled: {sweeps} need a tape of about {size / 2**30:.1f} GiB, expected at most "
            f"{TAPE_LIMIT / 2**30:.0f} GiB; use route='{other}'"
        )
