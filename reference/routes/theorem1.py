"""Theorem 1 with exact occupancies, and HPGD's form (7): the same covariance written in two ways.

Both start from the source c and need the Jacobian of the tables, so their cost grows with the number of parameters.
They obtain the follower's gradient from different linear systems:

    c(s,a) = ∇r_F(s,a) + γ_F Σ_s' ∇P(s'|s,a) V_F(s'),                                                            (1)
    Theorem 1   ∇V_F = (I - γ_F P_π)^{-1} Σ_a π c,  one system over states;  guiding term E[B ∇Q_F]              (2)
    form (7)    ∇Q_F = (I - γ_F Pπ)^{-1} c,         one system over state-action pairs;  E[Q_L (∇Q_F - ∇V_F)]    (3)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.arrays.discounted_system import solve_discounted
from bilevelrl.reference.problem import PARTS, Objective, Part, when_read
from bilevelrl.reference.registry import Hypergradient, register_route
from bilevelrl.reference.tabular.error_bounds import dense_jacobian, effective_horizon, follower_error_bound
from bilevelrl.reference.tabular.follower import TabularFollower, solve_tabular
from bilevelrl.reference.tabular.leader import evaluate_leader
from bilevelrl.reference.tabular.model import ConfigurableMDP, TabularAt
from bilevelrl.reference.tabular.tables import Tables

__all__ = ["follower_gradients", "hpgd_form", "pair_gradients", "theorem1"]

FollowerGradient: TypeAlias = Callable[[FloatArray, FloatArray, FloatArray, float], FloatArray]


def follower_source(
    tables: Tables, jacobian: dict[str, FloatArray], value: FloatArray, discount: float, parameters: int
) -> FloatArray:
    """Return c(s,a) = ∇r_F + γ_F Σ_s' ∇P V_F(s'), shape (S, A, N)."""
    source = np.zeros((tables.states, tables.actions, parameters))
    if "reward_follower" in jacobian:
        source += jacobian["reward_follower"]
    if "transition" in jacobian:
        source += discount * np.einsum("satn,t->san", dense_jacobian(tables, jacobian["transition"]), value)  # (1)
    return source


def follower_gradients(kernel: FloatArray, policy: FloatArray, source: FloatArray, discount: float) -> FloatArray:
    """Return ∇Q_F (S, A, N) through the system for ∇V_F over states (Theorem 1 (6))."""
    chain = np.einsum("sa,sat->st", policy, kernel)
    value_gradient = solve_discounted(chain, discount, np.einsum("sa,san->sn", policy, source))  # (2)
    result: FloatArray = source + discount * np.tensordot(kernel, value_gradient, axes=1)
    return result


def pair_gradients(kernel: FloatArray, policy: FloatArray, source: FloatArray, discount: float) -> FloatArray:
    """Return ∇Q_F (S, A, N) through the system over state-action pairs, without ∇V_F."""
    states, actions, parameters = source.shape
    pairs = states * actions
    chain = (kernel[:, :, :, None] * policy[None, None]).reshape(pairs, pairs)
    return solve_discounted(chain, discount, source.reshape(pairs, parameters)).reshape(source.shape)  # (3)


def _formula(
    at: TabularAt,
    *,
    objective: Objective,
    warm_start: TabularFollower | None,
    bound: bool,
    route: str,
    gradients: FollowerGradient,
    centred_gradient: bool,
) -> Hypergradient:
    problem, theta, tables, kernel = at.problem, at.theta, at.tables, at.kernel
    follower = solve_tabular(at, warm_start=warm_start)
    policy = follower.policy
    jacobian = problem.jacobian(theta)
    follower_value = follower.value_without(at.constant)
    source = follower_source(tables, jacobian, follower_value, problem.discount_follower, theta.size)
    action_gradient = gradients(kernel, policy, source, problem.discount_follower)
    if centred_gradient:
        action_gradient = action_gradient - np.einsum("sa,san->sn", policy, action_gradient)[:, None]
    unit = 2.0 ** np.floor(np.log2(problem.temperature))  # changes no bit, and products do not underflow
    parts: dict[Part, FloatArray] = {part: np.zeros(theta.size) for part in PARTS}
    if "regulariser" in jacobian:
        parts["regulariser"] = jacobian["regulariser"].copy()
    reward = tables.reward_leader - at.centres[1]
    for weight, value_ahead, last in _stages(problem, tables, kernel, policy, reward, objective):
        # weight: law of s_t times γ_L^t; value_ahead: V_L with one step less to go.
        discount = objective.discount(problem.discount_leader)
        action_value = reward + discount * kernel @ value_ahead
        value = np.einsum("sa,sa->s", policy, action_value)
        factor = action_value if centred_gradient else action_value - value[:, None]
        visits = weight[:, None] * policy
        weighted = np.einsum("sa,san->n", visits * factor, action_gradient / unit)
        parts["response"] += weighted / (problem.temperature / unit)
        if "reward_leader" in jacobian:
            parts["direct"] += np.einsum("sa,san->n", visits, jacobian["reward_leader"])
        if "transition" in jacobian:
            moved = dense_jacobian(tables, jacobian["transition"])
            parts["transition"] += discount * np.einsum("sa,satn,t->n", visits, moved, value_ahead)
        if last and "initial" in jacobian:
            parts["initial"] += jacobian["initial"].T @ value
    evaluation = evaluate_leader(tables, policy, problem.discount_leader, objective=objective)

    return Hypergradient(
        value=sum(parts.values(), np.zeros(theta.size)),
        parts=parts,
        objective=evaluation.objective,
        residual=follower.residual,
        condition_source=(1 + problem.discount_follower) * effective_horizon(tables, policy, problem.discount_follower),
        error_bound_source=when_read(at, lambda at: follower_error_bound(at, follower, objective)) if bound else np.inf,
        route=route,
        follower=follower,
        status=follower.status.value,
        counters={"sweeps": follower.sweeps, "linear_solves": follower.linear_solves + 2 + theta.size},
    )


def _stages(
    problem: ConfigurableMDP,
    tables: Tables,
    kernel: FloatArray,
    policy: FloatArray,
    reward: FloatArray,
    objective: Objective,
) -> list[tuple[FloatArray, FloatArray, bool]]:
    """Return (weight of states, V_L one step ahead, is it the first step) for each step, or once for ever."""
    chain = np.einsum("sa,sat->st", policy, kernel)
    earned = np.einsum("sa,sa->s", policy, reward)
    discount = objective.discount(problem.discount_leader)
    if objective.horizon is None:
        law = np.linalg.solve((np.eye(tables.states) - discount * chain).T, tables.initial)
        return [(law, solve_discounted(chain, discount, earned), True)]
    values = [np.zeros(tables.states)]
    for _ in range(objective.horizon - 1):
        values.append(earned + discount * chain @ values[-1])
    stages, law = [], np.asarray(tables.initial, dtype=np.float64)
    for t in range(objective.horizon):
        stages.append((law, values[objective.horizon - 1 - t], t == 0))
        law = discount * law @ chain
    return stages


# Theorem 1 (5)-(6) of arXiv:2603.14867, guiding term E[B ∇Q_F]/β.
theorem1 = register_route(
    "theorem1",
    ConfigurableMDP,
    summary="Theorem 1 with exact occupancies and benefits, ∇V_F from one linear system over states",
    family="linear algebra, Jacobian",
    accuracy="rounding times conditioning",
)(partial(_formula, route="theorem1", gradients=follower_gradients, centred_gradient=False))

# Equation (7) of arXiv:2603.14867, guiding term E[Q_L (∇Q_F - ∇V_F)]/β.
hpgd_form = register_route(
    "hpgd_form",
    ConfigurableMDP,
    summary="HPGD's form (7): E[Q_L (∇Q_F - ∇V_F)]/β, ∇Q_F from one linear system over state-action pairs",
    family="linear algebra, Jacobian",
    accuracy="rounding times conditioning",
)(partial(_formula, route="hpgd_form", gradients=pair_gradients, centred_gradient=True))
