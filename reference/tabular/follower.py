"""The follower's response in a tabular problem; `fixed_point` has the theory and the iteration."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator

from bilevelrl.reference.arrays import (
    FloatArray,
    IntArray,
    check_array,
    check_indices,
    check_pairs,
    check_shape,
)
from bilevelrl.reference.doors import checked, checked_record
from bilevelrl.reference.errors import StochasticityError, refusal
from bilevelrl.reference.problem import FollowerMethod, Status, solve
from bilevelrl.reference.tabular.fixed_point import (
    SoftOperator,
    find_fixed_point,
    reward_centre,
    soft_bellman,
    start_value,
)
from bilevelrl.reference.tabular.linear_systems.krylov import DIRECT, KrylovSystem, Pattern, solver_name
from bilevelrl.reference.tabular.model import ConfigurableMDP, TabularAt
from bilevelrl.reference.tabular.tables import Tables
from bilevelrl.reference.tabular.transitions import (
    ROW_SUM_TOLERANCE,
    SparseTransition,
    check_rows,
    expected_next,
    law_error,
    policy_transition,
)
from bilevelrl.reference.tabular.value_errors import ErrorsOnDemand, ValueErrors, value_errors

__all__ = ["TabularFollower", "solve_tabular", "tabular_operator"]


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True)
class TabularFollower:
    """A follower's response in a tabular problem.

    Attributes
    ----------
    value : (S,)
        V_F, with the entropy of the state's own action included.
    action_value : (S, A)
        Q_F, without the entropy of the state's own action; `value = β log Σ exp(action_value/β)`.
    policy : (S, A)
        π(a|s) = exp((Q_F - V_F)/β); rows sum to one.
    residual : float
        max |TV - V| at the last iterate before `value`.
    centre : float
        The constant that was split off the values before iterating: zero, or the return of a constant reward.
    centred_value : (S,)
        `value - centre` with all its digits.
    errors_on_demand
        Bounds on the errors of `centred_value` and π, state by state, worked out when first called, from the tables as
        they are then.
    status, iterations, sweeps, linear_solves, factorisations, krylov_iterations
        How it ended and what it cost.
    linear_solver : str
        Empty where every system was factorised; else that it was iterated on, and whether that stagnated.
    """

    value: FloatArray
    action_value: FloatArray
    policy: FloatArray
    residual: float
    status: Status
    iterations: int
    sweeps: int
    linear_solves: int
    factorisations: int = 0
    krylov_iterations: int = 0
    linear_solver: str = DIRECT
    centred_value: FloatArray
    centre: float
    errors_on_demand: ErrorsOnDemand = field(repr=False, compare=False)
    _cumulative: list[FloatArray] = field(default_factory=list, init=False, repr=False, compare=False)

    @classmethod
    @checked
    def from_policy(cls, problem: ConfigurableMDP, theta: object, policy: object) -> TabularFollower:
        """Return the follower that plays a given policy, with the values that the policy has, entropy included.

        Parameters
        ----------
        problem, theta
            Whose rewards and transitions the policy meets.
        policy : (S, A)
            Rows of probabilities, wherever they come from: a learner, `policy_from_counts`, a network.

        Returns
        -------
        TabularFollower
            `value = (I - γ_F P_π)^{-1} Σ_a π (r_F - β log π)` and Q_F one step ahead of it; the bounds say how far it
            is from the best response.

        Raises
        ------
        ShapeError, StochasticityError
            If the policy is not one of this problem.

        Examples
        --------
        >>> from bilevelrl.reference import solve_follower
        >>> from bilevelrl.tasks import random_mdp
        >>> problem, theta = random_mdp(seed=0), np.zeros(3)
        >>> best = solve_follower(problem, theta)
        >>> again = TabularFollower.from_policy(problem, theta, best.policy)
        >>> bool(np.abs(again.value - best.value).max() <= again.error_bound + best.error_bound)
        True
        """
        at = problem.at(theta)
        tables, discount, beta = at.tables, problem.discount_follower, problem.temperature
        shape = (tables.states, tables.actions)
        played = np.array(check_array("policy", policy, dtype=np.float64, finite=True))
        check_shape("policy", played, shape, "one probability for each state and action")
        check_rows("policy", played, "normalise its rows")
        sums = played.sum(axis=1)
        off = np.abs(sums - 1.0)
        if off.max() > ROW_SUM_TOLERANCE:
            worst = int(np.argmax(off))
            raise StochasticityError(refusal(f"sum of policy[{worst}]", float(sums[worst]), "1", "normalise its rows"))
        centre = reward_centre(tables, tables.reward_follower)
        offset = centre / (1.0 - discount)
        operator = tabular_operator(tables, tables.reward_follower - centre, discount, beta)
        entropy = -beta * np.vecdot(played, np.log(played, out=np.zeros(shape), where=played > 0.0))
        value = operator.system(played).solve(operator.average(played, operator.reward) + entropy)
        backed_up, action_value, soft = operator.backup(value)

        def errors() -> ValueErrors:
            found = value_errors(operator, value)
            ratio = np.divide(played, soft, out=np.where(played > 0.0, np.inf, 1.0), where=soft > 0.0)
            carried = np.zeros(shape)
            np.multiply(ratio, found.policy, out=carried, where=(ratio > 0.0) & np.isfinite(ratio))
            return replace(found, policy=np.abs(ratio - 1.0) + carried)  # π/π* = π/π_V · π_V/π*

        return cls(
            value=value + offset,
            action_value=action_value + offset,
            policy=played,
            residual=float(np.abs(backed_up - value).max()),
            status=Status.GIVEN,
            iterations=0,
            sweeps=1,
            linear_solves=1,
            factorisations=1,
            centred_value=value,
            centre=offset,
            errors_on_demand=ErrorsOnDemand(errors),
        )

    @property
    def error_bound(self) -> float:
        """Bound on max |value - V*|."""
        return float(self.errors_without(0.0).value.max())

    @property
    def policy_error_bound(self) -> float:
        """Bound on the relative error of every π(a|s) against the best response."""
        return float(self.errors_on_demand().policy.max())

    @checked
    def value_without(self, constant: float) -> FloatArray:
        """Return `value - constant` (S,); all digits where the constant is `centre`."""
        return self.centred_value if constant == self.centre else self.value - constant

    @checked
    def errors_without(self, constant: float) -> ValueErrors:
        """Return the bounds on the errors of `value_without` and of the policy, state by state."""
        rounded = 0.0 if constant == self.centre else float(np.finfo(np.float64).eps) * abs(self.centre)
        return self.errors_on_demand().shifted(rounded)

    def cumulative_policy(self) -> FloatArray:
        """Return Σ_{a' ≤ a} π(a'|s), computed once."""
        if not self._cumulative:
            self._cumulative.append(np.cumsum(self.policy, axis=1))
        return self._cumulative[0]

    @checked
    def value_at(self, state: object, leader_action: object = None) -> FloatArray:
        """Return V_F of each state (any shape of integers); zero at S, where the process has ended."""
        result: FloatArray = np.append(self.value, 0.0)[check_indices("state", state, len(self.value) + 1)]
        return result

    @checked
    def action_value_at(self, state: object, action: object, leader_action: object = None) -> FloatArray:
        """Return Q_F of each state and action."""
        states, actions = self.policy.shape
        result: FloatArray = self.action_value[check_pairs(("state", state, states), ("action", action, actions))]
        return result

    @checked
    def sample(self, state: object, rng: Generator, leader_action: object = None) -> IntArray:
        """Draw an action for each state (any shape of integers)."""
        rows = self.cumulative_policy()[check_indices("state", state, len(self.policy))]
        threshold = rng.random(rows.shape[:-1])[..., None] * rows[..., -1:]
        drawn: IntArray = (rows <= threshold).sum(axis=-1)
        last = self.policy.shape[1] - 1
        return drawn.clip(max=last)

    def log_prob(self, state: object, action: object, leader_action: object = None) -> FloatArray:
        """Return log π(a|s), -inf where the probability underflows."""
        states, actions = self.policy.shape
        with np.errstate(divide="ignore"):
            result: FloatArray = np.log(self.policy[check_pairs(("state", state, states), ("action", action, actions))])
        return result


@solve.register(ConfigurableMDP)
def solve_tabular(
    at: TabularAt,
    *,
    method: FollowerMethod = "newton",
    tolerance: float = 1e-12,
    max_iterations: int | None = None,
    warm_start: TabularFollower | FloatArray | None = None,
    stop_after: int | None = None,
    throw: bool = True,
) -> TabularFollower:
    """Solve the follower of a configurable MDP; arguments and errors as in `solve_follower`."""
    tables, discount, temperature = at.tables, at.problem.discount_follower, at.problem.temperature
    centre = reward_centre(tables, tables.reward_follower)
    reward = tables.reward_follower - centre
    offset = centre / (1.0 - discount)
    operator = tabular_operator(tables, reward, discount, temperature, at.pattern)
    found = find_fixed_point(
        start_value(tables.states, warm_start, offset),
        operator,
        method=method,
        tolerance=tolerance,
        max_iterations=max_iterations,
        stop_after=stop_after,
        throw=throw,
    )
    return TabularFollower(
        value=found.value + offset,
        action_value=found.action_value + offset,
        policy=found.policy,
        residual=found.residual,
        status=found.status,
        iterations=found.iterations,
        sweeps=found.sweeps,
        linear_solves=found.linear_solves,
        factorisations=found.factorisations,
        krylov_iterations=found.krylov_iterations,
        linear_solver=solver_name(iterated=found.krylov_iterations > 0, fell_back=found.fell_back),
        centred_value=found.value,
        centre=offset,
        errors_on_demand=ErrorsOnDemand(lambda: value_errors(operator, found.iterate)),
    )


def tabular_operator(
    tables: Tables, reward: FloatArray, discount: float, temperature: float, pattern: Pattern | None = None
) -> SoftOperator:
    """Return the follower's operator for given tables and rewards (S, A) without their constant."""
    kernel = tables.transition
    # Sums over S (sparse: K) successors and A actions, and a few operations around them.
    terms = kernel.successor.shape[2] if isinstance(kernel, SparseTransition) else tables.states
    return SoftOperator(
        reward=reward,
        discount=discount,
        temperature=temperature,
        rounding_unit=lambda: (terms + tables.actions + 8) * float(np.finfo(np.float64).eps) + law_error(kernel),
        backup=lambda value: soft_bellman(kernel, reward, discount, temperature, value),
        ahead=lambda value: expected_next(kernel, value),
        average=lambda policy, x: np.vecdot(policy, x),
        chain=lambda policy: policy_transition(kernel, policy),
        krylov=None if pattern is None else lambda policy: KrylovSystem(pattern, policy, discount),
    )
