"""Forward mode as tangent sweeps: values and their derivatives are carried side by side, no system is ever solved.

follower's sweep     V ← β log Σ exp(Q/β)       ∇V ← Σ_a π ∇Q                                               (1)
its policy           π = exp((Q - V)/β)         ∇π = π (∇Q - ∇V) / β                                        (2)
leader's sweep       V_L ← r_π + γ_L P_π V_L    one tangent per part                                        (3)
"""

from __future__ import annotations

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.problem import INFINITE_HORIZON, AnswerBounds, Objective, Part, when_read
from bilevelrl.reference.registry import Hypergradient, register_route
from bilevelrl.reference.tabular.error_bounds import dense_jacobian
from bilevelrl.reference.tabular.follower import TabularFollower
from bilevelrl.reference.tabular.model import ConfigurableMDP, TabularAt
from bilevelrl.reference.tabular.sweeps import plan_sweeps

__all__ = ["forward"]


@register_route(
    "forward",
    ConfigurableMDP,
    summary="forward mode: tangents carried through the sweeps, no linear system solved",
    family="tangent sweeps",
    accuracy="truncation of the sweeps (1e-13 of the largest term) plus rounding",
)
def forward(
    at: TabularAt,
    *,
    objective: Objective = INFINITE_HORIZON,
    warm_start: TabularFollower | None = None,
    bound: bool = True,
) -> Hypergradient:
    """∇J by tangent sweeps. A warm start is ignored: sweeps begin at zero."""
    problem, theta, tables, kernel = at.problem, at.theta, at.tables, at.kernel
    plan = plan_sweeps(at)
    states, actions, _ = kernel.shape
    count, beta = theta.size, problem.temperature
    jacobian = problem.jacobian(theta)
    kernel_tangent = dense_jacobian(tables, jacobian["transition"]) if "transition" in jacobian else None
    reward_tangent = jacobian.get("reward_follower", np.zeros((states, actions, count)))

    reward_follower = tables.reward_follower - plan.centre_follower
    reward_leader = tables.reward_leader - plan.centre_leader
    value, tangent = np.zeros(states), np.zeros((states, count))
    for _ in range(plan.follower + 1):
        action_value = reward_follower + problem.discount_follower * (kernel @ value)
        action_tangent = reward_tangent + problem.discount_follower * (kernel @ tangent)
        if kernel_tangent is not None:
            action_tangent = action_tangent + problem.discount_follower * np.einsum(
                "satn,t->san", kernel_tangent, value
            )
        peak = action_value.max(axis=1, keepdims=True)
        weights = np.exp((action_value - peak) / beta)
        mass = weights.sum(axis=1, keepdims=True)
        policy = weights / mass
        value = (peak + beta * np.log(mass))[:, 0]
        tangent = np.matmul(policy[:, None, :], action_tangent)[:, 0, :]  # (1)
    policy_tangent = policy[:, :, None] * (action_tangent - tangent[:, None, :]) / beta  # (2)

    # The leader's tangents: what the policy moves, what the dynamics move, what the reward moves.
    discount = objective.discount(problem.discount_leader)
    chain = np.einsum("sa,sat->st", policy, kernel)
    earned = (policy * reward_leader).sum(axis=1)
    chain_moved = None if kernel_tangent is None else np.einsum("sa,satn->nst", policy, kernel_tangent)
    paid = np.einsum("sa,san->sn", policy, jacobian.get("reward_leader", np.zeros((states, actions, count))))
    leader = np.zeros(states)
    direct, moved, response = (np.zeros((states, count)) for _ in range(3))
    for _ in range(plan.leader if objective.horizon is None else objective.horizon):
        direct = paid + discount * chain @ direct
        if chain_moved is not None:
            moved = discount * ((chain_moved @ leader).T + chain @ moved)
        action_value = reward_leader + discount * (kernel @ leader)
        response = np.matmul(action_value[:, None, :], policy_tangent)[:, 0, :] + discount * (chain @ response)
        leader = earned + discount * chain @ leader  # (3)
    law = np.asarray(tables.initial, dtype=np.float64)
    parts: dict[Part, FloatArray] = {
        "initial": jacobian["initial"].T @ leader if "initial" in jacobian else np.zeros(count),
        "direct": law @ direct,
        "transition": law @ moved,
        "response": law @ response,
        "regulariser": jacobian.get("regulariser", np.zeros(count)).copy(),
    }
    total = sum(parts.values(), np.zeros(count))

    def error_bound(at: TabularAt) -> AnswerBounds:
        return plan.error_bound(at, objective)

    return Hypergradient(
        value=total,
        parts=parts,
        objective=float(law @ leader + tables.regulariser)
        + objective.constant_return(plan.centre_leader, problem.discount_leader),
        residual=plan.residual,
        condition_source=(1 + problem.discount_follower) / (1 - problem.discount_follower),
        error_bound_source=when_read(at, error_bound) if bound else np.inf,
        route="forward",
        status="converged: sweeps as many as the tolerance needs",
        counters={"sweeps": plan.follower + 1 + (plan.leader if objective.horizon is None else objective.horizon)},
    )
