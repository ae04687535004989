"""How far a floating-point hypergradient of a configurable MDP can be from the truth: a first-order bound.

Let ε(s) bound the error of the follower's values and `η π` that of the policy, both from `value_errors`, and u the
rounding of one inner product. `value_errors` bounds occupancies δd and the leader's values δV_L and δQ_L. With
`R = (I - γ P_π)^{-1}` of either player, entry by entry and to first order,

    |δ∇V_F| ≤ R_F Σ_a π (η |∇Q_F - ∇V_F| + |δc|),   |δ∇Q_F| ≤ γ_F P |δ∇V_F| + |δc|  follower's gradient
    |δc|    ≤ γ_F |∇P| ε + u (|∇r_F| + γ_F |∇P| |V_F| + |∇Q_F|)

The response part is a covariance over the action, so a change that is the same for every action cancels in it:

    δ Σ d Cov(Q_L, ∇Q_F) ≤ Σ ((|δd| + d η) π |B| + d π |δQ_L|) |∇Q_F - ∇V_F| + d π |B| |δ∇Q_F| + u d π |Q_L| |∇Q_F|.

The other parts follow by the product rule.

A row of the kernel (or the initial law) that sums to s within rounding of one means the row divided by s; u holds the
largest |s - 1| too, by which its doubles are off. Where the sum stands still, the row's derivatives are off by their
drift: |δ∇P| ≤ u |∇P| + |Σ ∇P| P. A constant reward moves no derivative through such rows and may be split off; where a
sum moves, the row's own derivative is meant, and misses a constant that was split off.

η bounds |π - π*|/π as well as |π - π*|/π*, for the mean of exp(-x) is at least the inverse of that of exp(x); so ηπ is
no first order, and may be large where π is small. It enters whatever is carried on: errors travel by `π (1 + η)` in
place of π. What is left of second order is small with the `stretch`

    max_s (R Σ_a η π)(s) < 1/10                                                                                      (1)

of either player, by which the inverses of computed and true policy differ; where it is not, the first order says
nothing and the bound is infinite. Tests hold it against high-precision truth from above and from below.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from bilevelrl.reference.arrays import BoolArray, FloatArray
from bilevelrl.reference.problem import AnswerBounds, Objective, error_bound
from bilevelrl.reference.problem.on_demand import BOUND_SIZE_LIMIT, FIRST_ORDER
from bilevelrl.reference.tabular.follower import TabularFollower
from bilevelrl.reference.tabular.model import ConfigurableMDP, TabularAt
from bilevelrl.reference.tabular.tables import Tables
from bilevelrl.reference.tabular.transitions import (
    ROW_SUM_TOLERANCE,
    DiscountedSystem,
    SparseTransition,
    is_law,
    law_error,
    policy_transition,
    to_dense,
)
from bilevelrl.reference.tabular.value_errors import ValueErrors, leader_errors

__all__ = [
    "dense_jacobian",
    "effective_horizon",
    "follower_error_bound",
    "gradient_error_bound",
    "objective_noise",
    "relevant_states",
    "tabular_error_bound",
]

_UNKNOWN = AnswerBounds(gradient=np.inf, objective=np.inf)


def effective_horizon(tables: Tables, policy: FloatArray, discount: float) -> float:
    """Return max_s Σ_k γ^k Pr(not terminated by step k | s_0 = s), at most 1/(1-γ)."""
    system = DiscountedSystem.factorise(policy_transition(tables.transition, policy), discount)
    return float(system.solve(np.ones(tables.states)).max())


def rounding_unit(tables: Tables) -> float:
    """Relative rounding of one inner product over states or actions, of the few operations around it, and of laws."""
    rounded = (tables.states + tables.actions + 8) * float(np.finfo(np.float64).eps)
    return rounded + law_error(tables.transition, tables.initial)


def _stretch(
    tables: Tables, policy: FloatArray, off: FloatArray, discounts: Collection[float], horizon: int | None
) -> float:
    """Return (1) for endless returns at the discounts, and its like for an episode; inf where η is."""
    if not np.isfinite(off).all():
        return np.inf
    moved = (off * policy).sum(axis=1)
    chain = policy_transition(tables.transition, policy)
    endless = (DiscountedSystem.factorise(chain, discount).solve(moved).max() for discount in discounts)
    return float(max(endless, default=0.0)) + (horizon or 0) * float(moved.max())


def gradient_error_bound(
    tables: Tables,
    policy: FloatArray,
    follower_value: FloatArray,
    jacobian: Mapping[str, FloatArray],
    *,
    discount_leader: float,
    discount_follower: float,
    temperature: float,
    centres: tuple[float, float],
    errors: ValueErrors,
    horizon: int | None,
    remainder: float = 0.0,
    measured: tuple[Tables, Mapping[str, FloatArray]] | None = None,
) -> AnswerBounds:
    """Return the first-order bounds on max_j |∂J/∂θ_j - truth|, every part included, and on |μ·V_L - truth|.

    Parameters
    ----------
    tables, policy, follower_value
        The solved problem; values may have a constant split off where rows sum to one.
    jacobian
        {table: (*dense table shape, N)} for the tables that depend on θ.
    discount_leader
        1 for undiscounted returns of finite `horizon`.
    centres
        The constants that were split off the rewards, the follower's and the leader's.
    errors
        ε and η.
    remainder
        Largest discounted mass, relative to one, that is left where sums over time are cut off.
    measured
        Tables and Jacobian of the leader's evaluation, where they are not those that the follower plans in.
    """
    off = errors.policy
    paid, paid_slopes = (tables, jacobian) if measured is None else measured
    rounding = max(rounding_unit(tables), rounding_unit(paid))
    endless = {discount_leader} if horizon is None else set()
    if measured is None:
        stretch = _stretch(tables, policy, off, endless | {discount_follower}, horizon)
    else:
        stretch = max(
            _stretch(tables, policy, off, {discount_follower}, None), _stretch(paid, policy, off, endless, horizon)
        )
    if not stretch < FIRST_ORDER:
        return _UNKNOWN
    span = effective_horizon(paid, policy, discount_leader) if horizon is None else float(horizon)
    leader = leader_errors(
        paid, policy, off, centre=centres[1], discount=discount_leader, horizon=horizon, rounding=rounding
    )
    # What truncation leaves out of an infinite sum may sit in any state.
    cut = 0.0 if horizon is not None else remainder
    played = policy > 0.0
    largest = float((leader.action_size * played).max())
    law_off = leader.law_off + cut
    value_off = leader.value_off + cut * largest
    heavy = policy * (1.0 + off)
    visits = leader.law[:, :, None] * policy
    visits_off = law_off[:, :, None] * heavy + visits * off

    count = next((table.shape[-1] for table in (*jacobian.values(), *paid_slopes.values())), 1)
    zeros = np.zeros((tables.states, tables.actions, count))
    kernel_slope = np.abs(jacobian["transition"]) if "transition" in jacobian else None
    source = np.array(jacobian.get("reward_follower", zeros), dtype=np.float64)
    size = np.abs(source)
    if kernel_slope is not None:
        source = source + discount_follower * np.einsum("satn,t->san", jacobian["transition"], follower_value)
        size = size + discount_follower * np.einsum("satn,t->san", kernel_slope, np.abs(follower_value))
    kernel = to_dense(tables.transition)
    chain = np.matmul(policy[:, None, :], kernel)[:, 0, :]
    carrying = np.matmul(heavy[:, None, :], kernel)[:, 0, :]

    def carried(x: FloatArray, policy: FloatArray, chain: FloatArray) -> FloatArray:
        """X + γ P R Σ_a π x: what a source over pairs becomes in ∇Q_F."""
        through = DiscountedSystem.factorise(chain, discount_follower).solve(np.einsum("sa,san->sn", policy, x))
        result: FloatArray = x + discount_follower * np.tensordot(kernel, through, axes=1)
        return result

    gradient = carried(source, policy, chain)
    centred = np.abs(gradient - np.einsum("sa,san->sn", policy, gradient)[:, None])
    magnitude = np.abs(gradient)
    source_off = rounding * (size + magnitude)
    if kernel_slope is not None:
        drift, missed = _drifts(kernel, jacobian["transition"])
        source_off = source_off + discount_follower * np.einsum("satn,t->san", kernel_slope, errors.value)
        left_out = abs(centres[0]) / (1.0 - discount_follower)
        ahead = np.abs(kernel @ follower_value)
        source_off = source_off + discount_follower * (drift * ahead[:, :, None] + missed * left_out)
    gradient_off = carried(off[:, :, None] * centred + source_off, heavy, carrying) + remainder * np.max(
        size * played[:, :, None], axis=(0, 1)
    )

    weighed = leader.law[:, :, None] * heavy
    pair = (visits_off * leader.benefit + weighed * leader.action_off).sum(axis=0) + cut * largest * played
    error = np.einsum("sa,san->n", pair, centred)
    error += np.einsum("sa,san->n", (weighed * leader.benefit).sum(axis=0), gradient_off)
    error += rounding * np.einsum("sa,san->n", (weighed * leader.action_size).sum(axis=0), magnitude)
    error /= temperature
    visits_off = visits_off + rounding * visits
    if "reward_leader" in paid_slopes:
        error += np.einsum("sa,san->n", visits_off.sum(axis=0), np.abs(paid_slopes["reward_leader"]))
    if "transition" in paid_slopes:
        moved = paid_slopes["transition"]
        if measured is not None:
            kernel = to_dense(paid.transition)
            drift, missed = _drifts(kernel, moved)
        weight = np.einsum("ksa,kt->sat", visits_off, leader.ahead)
        weight += np.einsum("ksa,kt->sat", weighed, leader.ahead_off)
        weight += visits.sum(axis=0)[:, :, None] * cut * largest
        error += discount_leader * np.einsum("sat,satn->n", weight, np.abs(moved))
        seen = np.einsum("ksa,ksa->sa", visits, np.abs(np.einsum("sat,kt->ksa", kernel, leader.ahead)))
        error += discount_leader * np.einsum("sa,san->n", seen, drift)
        left_out = abs(centres[1]) * span
        error += discount_leader * left_out * np.einsum("sa,san->n", visits.sum(axis=0), missed)
    if "initial" in paid_slopes:
        started = paid_slopes["initial"]
        error += np.einsum("sn,s->n", np.abs(started), value_off + rounding * leader.value)
        error += np.abs(started.sum(axis=0)) * float(np.asarray(paid.initial) @ leader.value)
    if "regulariser" in paid_slopes:
        error += rounding * np.abs(paid_slopes["regulariser"])
    # Each of occupancy, values, policy and follower's gradient is off by a little more than its first order.
    return AnswerBounds(
        gradient=float(error.max(initial=0.0)) / (1.0 - stretch) ** 4,
        objective=float(np.asarray(paid.initial) @ (value_off + rounding * leader.value)) / (1.0 - stretch) ** 2,
    )


def _drifts(rows: FloatArray, slopes: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return |Σ_s' ∇P| (S, A, N) twice: of laws whose sums stand still as far as rounding allows, and of other rows."""
    moved = np.abs(slopes.sum(axis=2))
    still = is_law(rows) & (moved.max(axis=2, initial=0.0) <= ROW_SUM_TOLERANCE * np.abs(slopes).max(initial=0.0))
    return np.where(still[:, :, None], moved, 0.0), np.where(still[:, :, None], 0.0, moved)


def objective_noise(
    tables: Tables,
    policy: FloatArray,
    *,
    discount_leader: float,
    centre_leader: float,
    errors: ValueErrors | None,
    horizon: int | None,
) -> float:
    """Return the bound on the error of the objective (without its regulariser); may be inf.

    `errors` are those of the policy; None where it is meant as it is.
    """
    rounding = rounding_unit(tables)
    off = np.full(policy.shape, rounding) if errors is None else errors.policy
    seen = relevant_states(tables, policy, {})
    if not seen.all():
        tables, policy, off = _at(tables, seen), policy[seen], off[seen]
    if not _stretch(tables, policy, off, {discount_leader} if horizon is None else (), horizon) < FIRST_ORDER:
        return float(np.inf)
    leader = leader_errors(
        tables, policy, off, centre=centre_leader, discount=discount_leader, horizon=horizon, rounding=rounding
    )
    return float(np.asarray(tables.initial) @ (leader.value_off + rounding * leader.value))


def relevant_states(tables: Tables, policy: FloatArray, jacobian: Mapping[str, FloatArray]) -> BoolArray:
    """Return which states (S,) the objective or its derivative can see: reached from where the process starts.

    A first-order change of the kernel or of the initial law reaches a state too.
    """
    kernel = tables.transition
    moved, started = jacobian.get("transition"), jacobian.get("initial")
    seen = np.asarray(tables.initial) > 0.0
    if started is not None:
        seen = seen | (started != 0.0).any(axis=1)
    linked = policy_transition(kernel, (policy > 0.0).astype(np.float64)) > 0.0
    if moved is not None:
        linked = (linked if isinstance(linked, np.ndarray) else linked.toarray()) | (
            (moved != 0.0).any(axis=3) & (policy > 0.0)[:, :, None]
        ).any(axis=1)
    while True:
        onward = (seen.astype(np.float64) @ linked) > 0.0
        if not (onward & ~seen).any():
            return seen
        seen = seen | onward


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


@error_bound.register(ConfigurableMDP)
def follower_error_bound(at: TabularAt, follower: TabularFollower, objective: Objective) -> AnswerBounds:
    """The bounds for a problem solved by this follower."""
    return tabular_error_bound(
        at,
        policy=follower.policy,
        follower_value=follower.value_without(at.constant),
        objective=objective,
        errors=follower.errors_without(at.constant),
    )


def tabular_error_bound(
    at: TabularAt,
    *,
    policy: FloatArray,
    follower_value: FloatArray,
    objective: Objective,
    errors: ValueErrors,
    remainder: float = 0.0,
    measured: TabularAt | None = None,
) -> AnswerBounds:
    """The bounds for a solved problem, or inf where its Jacobian would not fit (`BOUND_SIZE_LIMIT`).

    `measured` is where the leader is paid, if that is not where the follower plans.
    """
    problem, tables = at.problem, at.tables
    evaluated = [at] if measured is None else [at, measured]
    if not all(_fits(each, objective) for each in evaluated):
        return _UNKNOWN
    jacobian, *others = (_dense_jacobians(each) for each in evaluated)
    seen = relevant_states(tables, policy, jacobian)
    if measured is None and not seen.all():  # the others are worth anything, and known as badly as they like
        tables, policy, follower_value, errors = _at(tables, seen), policy[seen], follower_value[seen], errors.at(seen)
        jacobian = {name: table if name == "regulariser" else table[seen] for name, table in jacobian.items()}
        if "transition" in jacobian:
            jacobian["transition"] = jacobian["transition"][:, :, seen]
    paid = evaluated[-1]
    centre = paid.centres[1]
    found = gradient_error_bound(
        tables,
        policy,
        follower_value,
        jacobian,
        discount_leader=objective.discount(problem.discount_leader),
        discount_follower=problem.discount_follower,
        temperature=problem.temperature,
        centres=(at.centres[0], centre),
        errors=errors,
        horizon=objective.horizon,
        remainder=remainder,
        measured=None if measured is None else (paid.tables, others[0]),
    )
    constant = objective.constant_return(centre, problem.discount_leader)
    return found._replace(objective=found.objective + _summed(float(paid.tables.regulariser), constant))


def _fits(at: TabularAt, objective: Objective) -> bool:
    """Whether what the bounds need stays below `BOUND_SIZE_LIMIT`."""
    tables = at.tables
    sizes = {"transition": tables.states, "reward_follower": 1, "reward_leader": 1, "initial": 1, "regulariser": 1}
    largest = max((sizes[name] for name in at.varying), default=1)
    stages = (objective.horizon or 1) * 8
    return tables.states * tables.actions * max(largest * at.theta.size, tables.states, stages) <= BOUND_SIZE_LIMIT


def _dense_jacobians(at: TabularAt) -> dict[str, FloatArray]:
    """The Jacobian of every table, ∇P as (S, A, S, N)."""
    jacobian = at.problem.jacobian(at.theta)
    if "transition" in jacobian:
        jacobian["transition"] = dense_jacobian(at.tables, jacobian["transition"])
    return jacobian


def _summed(*terms: float) -> float:
    """Return the rounding of what is added to the leader's return, and of a few operations that it comes from."""
    return 8.0 * float(np.finfo(np.float64).eps) * sum(map(abs, terms))


def _at(tables: Tables, states: BoolArray) -> Tables:
    """Return the tables of some of the states; what leads to the others ends the process."""
    return Tables(
        transition=to_dense(tables.transition)[states][:, :, states],
        reward_follower=np.asarray(tables.reward_follower)[states],
        reward_leader=np.asarray(tables.reward_leader)[states],
        initial=np.asarray(tables.initial)[states],
        regulariser=tables.regulariser,
    )
