"""The leader's return under a follower's policy: values, benefits, occupancies and the objective.

Over an infinite horizon one factorisation gives the values and the unnormalised discounted occupancy,

    V_L = (I - γ_L P_π)^{-1} r_π,    d = (I - γ_L P_πᵀ)^{-1} μ;                                                 (1)

in episodes of T steps two recursions do, by steps to go and forward in time,

    V^(0) = 0,  V^(h) = r_π + γ_L P_π V^(h-1);    d_0 = μ,  d_(t+1) = γ_L P_πᵀ d_t.                             (2)

The follower's policy is the infinite-horizon best response in both cases.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import Discount, checked
from bilevelrl.reference.errors import ShapeError, refusal
from bilevelrl.reference.problem import INFINITE_HORIZON, Objective, evaluate_objective
from bilevelrl.reference.tabular.fixed_point import reward_centre
from bilevelrl.reference.tabular.follower import TabularFollower, solve_tabular
from bilevelrl.reference.tabular.linear_systems.krylov import KrylovSystem
from bilevelrl.reference.tabular.model import ConfigurableMDP, TabularAt
from bilevelrl.reference.tabular.tables import Tables
from bilevelrl.reference.tabular.transitions import DiscountedSystem, SparseTransition, expected_next, policy_transition

__all__ = [
    "LeaderEvaluation",
    "evaluate_leader",
    "leader_action_values",
    "tabular_leader_objective",
    "visited_next",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderEvaluation:
    """What the leader earns, and the weights with which each table enters it.

    Attributes
    ----------
    value : (S,)
        V_L with the whole horizon to go, minus `centre`.
    centre : float
        A constant split off the values; derivatives do not see it.
    occupancy : (S,)
        Σ_t γ_L^t Pr(s_t = s).
    benefit_weight : (S, A)
        Σ_t γ_L^t Pr(s_t = s) π(a|s) B^(T-t)(s, a): the cotangent of log π.
    state_factor, value_factor : (K, S)
        Σ_k state_factor[k, s] value_factor[k, s'] is the cotangent of P_π(s'|s) in the leader's evaluation.
    objective : float
        ρ + μ·V_L, constants included.
    """

    value: FloatArray
    centre: float
    occupancy: FloatArray
    benefit_weight: FloatArray
    state_factor: FloatArray
    value_factor: FloatArray
    objective: float


def evaluate_leader(
    tables: Tables,
    policy: FloatArray,
    discount_leader: float,
    *,
    objective: Objective = INFINITE_HORIZON,
    centre: float | None = None,
    follower_system: DiscountedSystem | KrylovSystem | None = None,
) -> LeaderEvaluation:
    """Evaluate the leader's return and its weights under a policy (S, A).

    `centre` is the constant to split off the rewards, see `TabularAt.centres`; None where no derivative is wanted.
    `follower_system`, where the caller has it, is `I - γ_F P_π` of this policy: its matrix is used again, and its
    factorisation too where the two discounts are equal.
    """
    if centre is None:
        centre = reward_centre(tables, tables.reward_leader)
    reward = tables.reward_leader - centre
    if objective.horizon is None:
        system: DiscountedSystem | KrylovSystem
        if follower_system is None:
            system = DiscountedSystem.factorise(policy_transition(tables.transition, policy), discount_leader)
        else:
            system = follower_system.at_discount(discount_leader)
        return _infinite(tables, policy, system, reward, centre)
    return _truncated(tables, policy, objective.discount(discount_leader), reward, centre, objective.horizon)


def _infinite(
    tables: Tables, policy: FloatArray, system: DiscountedSystem | KrylovSystem, reward: FloatArray, centre: float
) -> LeaderEvaluation:
    discount = system.discount
    value = system.solve(np.vecdot(policy, reward))  # (1)
    occupancy = system.solve_transposed(np.asarray(tables.initial))  # (1)
    action_value = reward + discount * expected_next(tables.transition, value)
    benefit = action_value - np.vecdot(policy, action_value)[:, None]
    offset = INFINITE_HORIZON.constant_return(centre, discount)
    return LeaderEvaluation(
        value=value,
        centre=offset,
        occupancy=occupancy,
        benefit_weight=occupancy[:, None] * policy * benefit,
        state_factor=discount * occupancy[None, :],
        value_factor=value[None, :],
        objective=float(tables.regulariser + tables.initial @ value + offset),
    )


def _truncated(
    tables: Tables, policy: FloatArray, discount: float, reward: FloatArray, centre: float, horizon: int
) -> LeaderEvaluation:
    matrix = policy_transition(tables.transition, policy)
    reward_policy = (policy * reward).sum(axis=1)
    values = np.zeros((horizon + 1, tables.states))  # by steps to go
    for steps_to_go in range(1, horizon + 1):
        values[steps_to_go] = reward_policy + discount * (matrix @ values[steps_to_go - 1])  # (2)
    weights = np.zeros((horizon, tables.states))  # γ^t Pr(s_t = s)
    weights[0] = tables.initial
    for t in range(1, horizon):
        weights[t] = discount * (matrix.T @ weights[t - 1])  # (2)
    ahead = values[horizon - 1 :: -1]  # V^(T-t-1), t = 0 .. T-1
    action_value = reward * weights.sum(axis=0)[:, None] + discount * _weighted_next(tables, weights, ahead)
    benefit_weight = policy * (action_value - (policy * action_value).sum(axis=1, keepdims=True))
    offset = Objective(horizon).constant_return(centre, discount)
    return LeaderEvaluation(
        value=values[horizon],
        centre=offset,
        occupancy=weights.sum(axis=0),
        benefit_weight=benefit_weight,
        state_factor=discount * weights,
        value_factor=ahead,
        objective=float(tables.regulariser + tables.initial @ values[horizon] + offset),
    )


def _weighted_next(tables: Tables, weights: FloatArray, values: FloatArray) -> FloatArray:
    """Return Σ_t weights[t, s] Σ_s' P(s'|s,a) values[t, s'], shape (S, A)."""
    ahead: FloatArray = expected_next(tables.transition, values.T)  # (S, A, T)
    result: FloatArray = np.einsum("ts,sat->sa", weights, ahead)
    return result


def visited_next(
    tables: Tables, state_factor: FloatArray, pair_weight: FloatArray, value_factor: FloatArray
) -> FloatArray:
    """Return the kernel's cotangent Σ_k state_factor[k,s] pair_weight[s,a] value_factor[k,s'] in its own layout."""
    kernel = tables.transition
    if isinstance(kernel, SparseTransition):
        states = np.arange(tables.states)[:, None, None]
        total = sum(
            left[states] * right[kernel.successor] for left, right in zip(state_factor, value_factor, strict=True)
        )
        sparse: FloatArray = pair_weight[:, :, None] * total
        return sparse
    dense: FloatArray = pair_weight[:, :, None] * (state_factor.T @ value_factor)[:, None, :]
    return dense


@checked
def leader_action_values(
    tables: Tables, policy: FloatArray, discount_leader: Discount
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return V_L (S,), Q_L (S, A) and the benefit B = Q_L - V_L (S, A) over an infinite horizon.

    Raises
    ------
    ShapeError
        If the policy is that of another problem.

    Examples
    --------
    >>> from bilevelrl.tasks import random_mdp
    >>> problem = random_mdp(states=4, actions=2, parameters=3, seed=0)
    >>> policy = solve_tabular(problem.at(np.zeros(3))).policy
    >>> _, _, benefit = leader_action_values(problem.tables_at(np.zeros(3)), policy, problem.discount_leader)
    >>> bool(np.allclose((policy * benefit).sum(axis=1), 0.0))
    True
    """
    if np.shape(policy) != np.shape(tables.reward_leader):
        raise ShapeError(
            refusal("policy.shape", np.shape(policy), f"{np.shape(tables.reward_leader)}", "solve the follower anew")
        )
    system = DiscountedSystem.factorise(policy_transition(tables.transition, policy), discount_leader)
    value = system.solve((policy * tables.reward_leader).sum(axis=1))
    action_value = tables.reward_leader + discount_leader * expected_next(tables.transition, value)
    return value, action_value, action_value - (policy * action_value).sum(axis=1, keepdims=True)


@evaluate_objective.register(ConfigurableMDP)
@checked
def tabular_leader_objective(
    at: TabularAt, *, objective: Objective = INFINITE_HORIZON, follower: TabularFollower | None = None
) -> float:
    """The leader's objective for a configurable MDP; see `leader_objective`."""
    tables = at.tables
    if follower is None:
        follower = solve_tabular(at)
    if follower.policy.shape != (tables.states, tables.actions):
        raise ShapeError(
            refusal(
                "follower.policy.shape",
                follower.policy.shape,
                f"{(tables.states, tables.actions)}",
                "solve it for this problem",
            )
        )
    discount, pattern = at.problem.discount_leader, at.pattern
    system = None if pattern is None else KrylovSystem(pattern, follower.policy, discount)
    return evaluate_leader(tables, follower.policy, discount, objective=objective, follower_system=system).objective
