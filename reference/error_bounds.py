"""How far a floating-point hypergradient of a configurable MDP can be from the truth: a first-order bound.

Let ε_V bound the error of the follower's values and u the rounding of one inner product. Every π(a|s) then has relative
error at most ε = exp(2 ε_V/β) - 1 + u. To first order, entry by entry, with R = (I - γ P_π)^{-1} of either player,

    |δd|     ≤ R_Lᵀ ε γ_L P_πᵀ d                                        occupancies
    |δV_L|   ≤ R_L Σ_a π (ε |B| + u |Q_L|),  |δQ_L| ≤ γ_L P |δV_L| + u |Q_L|     leader's values
    |δ∇V_F|  ≤ R_F Σ_a π (ε |∇Q_F - ∇V_F| + γ_F |∇P| ε_V + u |∇Q_F|)    follower's gradient

and the parts of Theorem 1 by the product rule. Tests hold the bound against high-precision truth from above and from
below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.configurable_mdp import ConfigurableMDP
from bilevelrl.reference.follower import TabularFollower
from bilevelrl.reference.leader import LeaderEvaluation
from bilevelrl.reference.tables import Tables
from bilevelrl.reference.transitions import DiscountedSystem, SparseTransition, policy_transition, to_dense

__all__ = ["BOUND_SIZE_LIMIT", "effective_horizon", "gradient_error_bound", "tabular_error_bound"]

# Jacobian entries beyond which the bound is not computed: 64 million doubles, half a gigabyte.
BOUND_SIZE_LIMIT = 64_000_000


def effective_horizon(tables: Tables, policy: FloatArray, discount: float) -> float:
    """Return max_s Σ_k γ^k Pr(not terminated by step k | s_0 = s), at most 1/(1-γ)."""
    system = DiscountedSystem.factorise(policy_transition(tables.transition, policy), discount)
    return float(system.solve(np.ones(tables.states)).max())


def _resolvent(chain: FloatArray, discount: float, horizon: int | None) -> Callable[[FloatArray], FloatArray]:
    """X → Σ_{k<T} (γ P_π)^k x, for T steps or for ever."""
    if horizon is None:
        return DiscountedSystem.factorise(chain, discount).solve

    def truncated(x: FloatArray) -> FloatArray:
        total = x
        for _ in range(horizon - 1):
            total = x + discount * (chain @ total)
        return total

    return truncated


def gradient_error_bound(
    tables: Tables,
    policy: FloatArray,
    follower_value: FloatArray,
    evaluation: LeaderEvaluation,
    jacobian: Mapping[str, FloatArray],
    *,
    discount_leader: float,
    discount_follower: float,
    temperature: float,
    value_error: float,
    horizon: int | None,
) -> float:
    """Return the first-order bound on max_j |∂J/∂θ_j - truth| for a value error ε_V; see the module's formulas.

    Parameters
    ----------
    tables, policy, follower_value, evaluation
        The solved problem; values may have a constant split off where rows sum to one.
    jacobian
        {table: (*dense table shape, N)} for the tables that depend on θ.
    discount_leader
        1 for undiscounted returns of finite `horizon`.
    value_error
        ε_V.
    """
    kernel = to_dense(tables.transition)
    u = (tables.states + tables.actions + 8) * float(np.finfo(np.float64).eps)
    eps = float(np.expm1(min(2.0 * value_error / temperature, 700.0))) + u
    chain = np.matmul(policy[:, None, :], kernel)[:, 0, :]
    count = next((table.shape[-1] for table in jacobian.values()), 1)
    zeros = np.zeros((tables.states, tables.actions, count))
    # The leader's side: the largest values over the steps to go stand for all of them.
    ahead = np.abs(evaluation.value_factor).max(axis=0)
    reward = tables.reward_leader - 0.5 * (tables.reward_leader.min() + tables.reward_leader.max())
    action_value = np.abs(reward) + discount_leader * (kernel @ ahead)
    visits = evaluation.occupancy[:, None] * policy
    benefit = np.abs(evaluation.benefit_weight)  # already weighted by visits
    spread = action_value + (policy * action_value).sum(axis=1, keepdims=True)
    if horizon is None:
        exact = reward + discount_leader * (kernel @ evaluation.value_factor[0])
        spread = np.abs(exact - (policy * exact).sum(axis=1, keepdims=True))
    leader = _resolvent(chain, discount_leader, horizon)
    occupancy = _resolvent(chain.T, discount_leader, horizon)
    value_off = leader((policy * (eps * spread + u * action_value)).sum(axis=1))
    action_off = discount_leader * (kernel @ value_off) + u * action_value
    benefit_off = action_off + (policy * action_off).sum(axis=1, keepdims=True) + eps * spread
    visits_off = (eps * discount_leader * occupancy(chain.T @ evaluation.occupancy))[:, None] * policy + eps * visits
    # The follower's side.
    moved = np.abs(jacobian["transition"]) if "transition" in jacobian else None
    source = np.array(jacobian.get("reward_follower", zeros), dtype=np.float64)
    size = np.abs(source)
    if moved is not None:
        source = source + discount_follower * np.einsum("satn,t->san", jacobian["transition"], follower_value)
        size = size + discount_follower * np.einsum("satn,t->san", moved, np.abs(follower_value))
    follower = _resolvent(chain, discount_follower, None)
    gradient = source + discount_follower * np.tensordot(
        kernel, follower(np.einsum("sa,san->sn", policy, source)), axes=1
    )
    centred = np.abs(gradient - np.einsum("sa,san->sn", policy, gradient)[:, None])
    magnitude = np.abs(gradient)
    tilt = u * (size + magnitude)
    if moved is not None:
        tilt = tilt + discount_follower * value_error * moved.sum(axis=2)
    gradient_off = tilt + discount_follower * np.tensordot(
        kernel, follower(np.einsum("sa,san->sn", policy, eps * centred + tilt)), axes=1
    )
    error = np.einsum("sa,san->n", visits_off * spread + visits * benefit_off, magnitude) / temperature
    error += np.einsum("sa,san->n", benefit, gradient_off) / temperature
    if "reward_leader" in jacobian:
        error += np.einsum("sa,san->n", visits_off + u * visits, np.abs(jacobian["reward_leader"]))
    if moved is not None:
        error += discount_leader * np.einsum("sa,satn,t->n", visits_off + u * visits, moved, ahead)
        error += discount_leader * np.einsum("sa,satn,t->n", visits, moved, value_off)
    if "initial" in jacobian:
        error += np.einsum("sn,s->n", np.abs(jacobian["initial"]), value_off + u * np.abs(evaluation.value))
    if "regulariser" in jacobian:
        error += u * np.abs(jacobian["regulariser"])
    return float(error.max(initial=0.0))


def dense_jacobian(tables: Tables, jacobian: FloatArray) -> FloatArray:
    """Return ∇P as (S, A, S, N) whatever the kernel's layout."""
    kernel = tables.transition
    if not isinstance(kernel, SparseTransition):
        return jacobian
    dense = np.zeros((tables.states, tables.actions, tables.states, jacobian.shape[-1]))
    rows, columns = np.ogrid[: tables.states, : tables.actions]
    for k in range(kernel.successor.shape[2]):
        np.add.at(dense, (rows, columns, kernel.successor[:, :, k]), jacobian[:, :, k])
    return dense


def tabular_error_bound(
    problem: ConfigurableMDP,
    theta: FloatArray,
    follower: TabularFollower,
    evaluation: LeaderEvaluation,
    horizon: int | None,
    discounted: bool,
    value_error: float,
) -> float:
    """The bound for a solved problem, or inf where its Jacobian would not fit (`BOUND_SIZE_LIMIT`)."""
    tables = problem.tables_at(theta)
    sizes = {"transition": tables.states, "reward_follower": 1, "reward_leader": 1, "initial": 1, "regulariser": 1}
    pairs = tables.states * tables.actions
    largest = max((sizes[name] for name in problem.varying(theta)), default=1)
    if pairs * max(largest * theta.size, tables.states) > BOUND_SIZE_LIMIT:
        return float(np.inf)
    jacobian = problem.jacobian(theta)
    if "transition" in jacobian:
        jacobian["transition"] = dense_jacobian(tables, jacobian["transition"])
    return gradient_error_bound(
        tables,
        follower.policy,
        follower.value - follower.centre,
        evaluation,
        jacobian,
        discount_leader=problem.discount_leader if discounted else 1.0,
        discount_follower=problem.discount_follower,
        temperature=problem.temperature,
        value_error=value_error,
        horizon=horizon,
    )
