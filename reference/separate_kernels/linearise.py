"""The objective linearised: the leader's slopes are the measured tables', the response is carried back by the planned.

The benefit that weighs log π is that of the measured return, and the adjoint of the follower's solver, (1)-(3) of
`reference.tabular.linearise`, has the planned kernel.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.problem import Linearisation, Objective, Part, linearise
from bilevelrl.reference.separate_kernels.model import SeparateAt, SeparateKernels
from bilevelrl.reference.tabular.follower import TabularFollower, solve_tabular
from bilevelrl.reference.tabular.leader import evaluate_leader
from bilevelrl.reference.tabular.linearise import leader_cotangents, response_cotangents
from bilevelrl.reference.tabular.transitions import DiscountedSystem, policy_transition

__all__ = ["linearise_separate"]


@linearise.register(SeparateKernels)
def linearise_separate(
    at: SeparateAt, objective: Objective, *, warm_start: TabularFollower | None = None
) -> Linearisation:
    """Linearise the objective in the tables of both problems."""
    planned, measured = at.planned, at.measured
    follower = solve_tabular(planned, warm_start=warm_start)
    policy = follower.policy
    system = DiscountedSystem.factorise(
        policy_transition(planned.tables.transition, policy), planned.problem.discount_follower
    )
    evaluation = evaluate_leader(
        measured.tables,
        policy,
        measured.problem.discount_leader,
        objective=objective,
        centre=measured.centres[1],
    )
    cotangents: dict[Part, Mapping[str, FloatArray]] = {
        part: _named("measured", entries) for part, entries in leader_cotangents(measured, policy, evaluation).items()
    }
    moved = response_cotangents(planned, follower, system, evaluation.benefit_weight)
    return Linearisation(
        objective=evaluation.objective,
        cotangents={
            **cotangents,
            "response": _named("planned", moved),
            "regulariser": {"measured regulariser": np.ones(())},
        },
        follower=follower,
        condition=system.condition(),
        counters={"sweeps": follower.sweeps, "linear_solves": follower.linear_solves + (1 if objective.horizon else 3)},
    )


def _named(which: str, entries: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    return {f"{which} {name}": value for name, value in entries.items()}
