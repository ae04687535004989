"""The follower of a general objective is that of its process; the leader is worth f at its policy and occupancy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import ShapeError, refusal
from bilevelrl.reference.general_objective.model import GeneralAt, GeneralObjective
from bilevelrl.reference.general_objective.slopes import Slopes
from bilevelrl.reference.problem import (
    INFINITE_HORIZON,
    AnswerBounds,
    Objective,
    error_bound,
    evaluate_objective,
    solve,
)
from bilevelrl.reference.tabular.follower import TabularFollower, solve_tabular
from bilevelrl.reference.tabular.leader import LeaderEvaluation, evaluate_leader
from bilevelrl.reference.tabular.tables import Tables
from bilevelrl.reference.tabular.transitions import DiscountedSystem

__all__ = ["Played", "general_error_bound", "general_leader_objective", "play", "solve_general"]


@solve.register(GeneralObjective)
def solve_general(at: GeneralAt, **options: Any) -> TabularFollower:
    """Solve the follower of the process; arguments and errors as in `solve_follower`."""
    return solve_tabular(at.process, **options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """f and its slopes where a policy is played.

    Attributes
    ----------
    objective : float
        f(θ, π, d).
    occupancy : (S,)
        d, as f is given it.
    slopes : Slopes
        Of f.
    pay : (S,)
        ∂f/∂(Σ_t w_t Pr(s_t = s)): what a visit is worth to first order.
    evaluation : LeaderEvaluation
        Of the return of `pay`: its benefits, values and occupancy, (1) of `linearise`.
    """

    objective: float
    occupancy: FloatArray
    slopes: Slopes
    pay: FloatArray
    evaluation: LeaderEvaluation


def play(at: GeneralAt, policy: FloatArray, objective: Objective, *, system: DiscountedSystem | None = None) -> Played:
    """Return f and its slopes under a policy (S, A); `system` as in `evaluate_leader`."""
    problem, tables, scale = at.problem, at.process.tables, at.problem.weight(objective)

    def evaluation(pay: FloatArray) -> LeaderEvaluation:
        return evaluate_leader(
            paid(tables, pay[:, None]),
            policy,
            problem.discount_leader,
            objective=objective,
            centre=0.0,
            follower_system=system,
        )

    occupancy = scale * evaluation(np.zeros(tables.states)).occupancy
    slopes = problem.slopes(at.theta, policy, occupancy)
    pay = scale * slopes.occupancy
    return Played(
        objective=float(problem.value(at.theta, policy, occupancy)),
        occupancy=occupancy,
        slopes=slopes,
        pay=pay,
        evaluation=evaluation(pay),
    )


def paid(tables: Tables, reward: FloatArray) -> Tables:
    """Return tables whose leader earns a reward that broadcasts to (S, A), and has no regulariser."""
    full = np.broadcast_to(reward, (tables.states, tables.actions)).copy()
    return tables.replace({"reward_leader": full, "regulariser": 0.0})


@evaluate_objective.register(GeneralObjective)
def general_leader_objective(
    at: GeneralAt, *, objective: Objective = INFINITE_HORIZON, follower: TabularFollower | None = None
) -> float:
    """The leader's objective f; see `leader_objective`."""
    tables, problem = at.process.tables, at.problem
    policy = (solve_tabular(at.process) if follower is None else follower).policy
    if policy.shape != (tables.states, tables.actions):
        wanted = f"{(tables.states, tables.actions)}"
        raise ShapeError(refusal("follower.policy.shape", policy.shape, wanted, "solve it for this problem"))
    still = paid(tables, np.zeros((1, 1)))
    visits = evaluate_leader(still, policy, problem.discount_leader, objective=objective, centre=0.0).occupancy
    return float(problem.value(at.theta, policy, problem.weight(objective) * visits))


@error_bound.register(GeneralObjective)
def general_error_bound(at: GeneralAt, follower: TabularFollower, objective: Objective) -> AnswerBounds:
    """Nothing is shown of an f of which nothing but values and slopes is known: inf.

    `ordinary_problem` has bounds, for the slopes as the numbers they are.
    """
    return AnswerBounds(gradient=np.inf, objective=np.inf)
