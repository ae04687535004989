"""The objective of a configurable MDP linearised in its tables: one factorisation per discount.

The leader's weights are the cotangent q of Q_F, and w is that of r_F once the follower's future is carried back:

    q(s,a) = Σ_t γ_L^t Pr(s_t=s) π(a|s) B(s,a) / β,                                                              (1)
    λ = (I - γ_F P_πᵀ)^{-1} γ_F Pᵀ q,      w = q + λ π,                                                          (2)
    response part = Σ w ∇r_F + γ_F Σ w V_F(s') ∇P.                                                               (3)

The cost does not grow with the number of parameters.
"""

from __future__ import annotations

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.problem import Linearisation, Objective, Part, linearise
from bilevelrl.reference.tabular.follower import TabularFollower, solve_tabular
from bilevelrl.reference.tabular.leader import LeaderEvaluation, evaluate_leader, visited_next
from bilevelrl.reference.tabular.linear_systems.krylov import FELL_BACK, KRYLOV, KrylovSystem
from bilevelrl.reference.tabular.model import ConfigurableMDP, TabularAt
from bilevelrl.reference.tabular.tables import Tables
from bilevelrl.reference.tabular.transitions import DiscountedSystem, SparseTransition, policy_transition

__all__ = [
    "follower_adjoint",
    "follower_system",
    "leader_cotangents",
    "linearise_tabular",
    "linearise_under",
    "response_cotangents",
]


def follower_adjoint(
    tables: Tables, policy: FloatArray, action_cotangent: FloatArray, system: DiscountedSystem | KrylovSystem
) -> FloatArray:
    """Return w (S, A), the total cotangent of r_F given the cotangent q of Q_F and the system `I - γ_F P_π`."""
    kernel = tables.transition
    if isinstance(system, KrylovSystem):
        pushed = system.pattern.pushed(action_cotangent)
    elif isinstance(kernel, SparseTransition):
        flow = (action_cotangent[:, :, None] * kernel.probability).ravel()
        pushed = np.bincount(kernel.successor.ravel(), weights=flow, minlength=tables.states).astype(
            np.float64, copy=False
        )
    else:
        pushed = action_cotangent.ravel() @ kernel.reshape(-1, tables.states)
    adjoint = system.solve_transposed(system.discount * pushed)  # (2)
    return action_cotangent + adjoint[:, None] * policy


def follower_system(at: TabularAt, policy: FloatArray) -> DiscountedSystem | KrylovSystem:
    """Return `I - γ_F P_π`: factorised, or to iterate on."""
    discount = at.problem.discount_follower
    if at.pattern is not None:
        return KrylovSystem(at.pattern, policy, discount)
    return DiscountedSystem.factorise(policy_transition(at.tables.transition, policy), discount)


@linearise.register(ConfigurableMDP)
def linearise_tabular(
    at: TabularAt, objective: Objective, *, warm_start: TabularFollower | None = None
) -> Linearisation:
    """Linearise the objective of a configurable MDP in its tables; see the module's formulas."""
    return linearise_under(at, objective, solve_tabular(at, warm_start=warm_start))


def linearise_under(at: TabularAt, objective: Objective, follower: TabularFollower) -> Linearisation:
    """Return the module's formulas at the policy and the values of a follower that need not be the best response."""
    problem, tables = at.problem, at.tables
    system = follower_system(at, follower.policy)
    leader_system = system if objective.horizon else system.at_discount(problem.discount_leader)
    evaluation = evaluate_leader(
        tables,
        follower.policy,
        problem.discount_leader,
        objective=objective,
        centre=at.centres[1],
        follower_system=leader_system,
    )
    response = response_cotangents(at, follower, system, evaluation.benefit_weight)
    systems = [system] if leader_system is system else [system, leader_system]
    counters = {
        "sweeps": follower.sweeps,
        "factorisations": follower.factorisations + sum(each.factorisations for each in systems),
        "linear_solves": follower.linear_solves + (1 if objective.horizon else 3),
    }
    solver = follower.linear_solver
    if at.pattern is not None:
        counters["krylov_iterations"] = follower.krylov_iterations + sum(each.iterations for each in systems)
        solver = FELL_BACK if counters["factorisations"] else KRYLOV
    return Linearisation(
        objective=evaluation.objective,
        cotangents={
            **leader_cotangents(at, follower.policy, evaluation),
            "response": response,
            "regulariser": {"regulariser": np.ones(())},
        },
        follower=follower,
        # A factor would live as long as the result; what is iterated on costs another solve.
        condition=system.condition if isinstance(system, KrylovSystem) else system.condition(),
        counters=counters,
        linear_solver=solver,
    )


def leader_cotangents(
    at: TabularAt, policy: FloatArray, evaluation: LeaderEvaluation
) -> dict[Part, dict[str, FloatArray]]:
    """Return the cotangents of what the leader is paid by and moved by under a policy that stands still."""
    _ = at.pullback  # first: its trace tells what varies
    return {
        "initial": {"initial": evaluation.value},
        "direct": {"reward_leader": evaluation.occupancy[:, None] * policy},
        "transition": _kernel(at, evaluation.state_factor, policy, evaluation.value_factor),
    }


def response_cotangents(
    at: TabularAt, follower: TabularFollower, system: DiscountedSystem | KrylovSystem, benefit_weight: FloatArray
) -> dict[str, FloatArray]:
    """Return the cotangents of what the follower's solver reads, given that of log π (S, A), zero in sum over actions.

    `system` is `I - γ_F P_π` of the follower's policy.
    """
    cotangent = benefit_weight / at.problem.temperature  # (1)
    weight = follower_adjoint(at.tables, follower.policy, cotangent, system)
    values = follower.value_without(at.constant)
    _ = at.pullback  # first: its trace tells what varies
    ahead = _kernel(at, system.discount * np.ones((1, at.tables.states)), weight, values[None, :])
    return {"reward_follower": weight, **ahead}  # (3)


def _kernel(
    at: TabularAt, state_factor: FloatArray, pair_weight: FloatArray, value_factor: FloatArray
) -> dict[str, FloatArray]:
    """The kernel's cotangent, left out where the kernel does not depend on θ."""
    if "transition" not in at.varying:
        return {}
    return {"transition": visited_next(at.tables, state_factor, pair_weight, value_factor)}
