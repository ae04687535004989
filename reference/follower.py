"""The follower's response: one call for every kind of problem, and followers that stop too early.

`fixed_point` has the theory and the iteration; `follower_batch` solves many θ at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.random import Generator

from bilevelrl.reference.arrays import FloatArray, IntArray, store_floats
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError, UnsupportedError, refusal
from bilevelrl.reference.registry import Hypergradient
from bilevelrl.reference.tabular.fixed_point import (
    METHODS,
    FollowerMethod,
    SoftOperator,
    Status,
    find_fixed_point,
    reward_centre,
    soft_bellman,
    start_value,
)
from bilevelrl.reference.tabular.model import ConfigurableMDP
from bilevelrl.reference.tabular.tables import Tables
from bilevelrl.reference.tabular.transitions import SparseTransition, expected_next, law_error, policy_transition
from bilevelrl.reference.value_errors import ErrorsOnDemand, ValueErrors, value_errors

if TYPE_CHECKING:
    from bilevelrl.reference.game.follower import GameFollower
    from bilevelrl.reference.game.model import MarkovGame

__all__ = [
    "SuboptimalFollower",
    "TabularFollower",
    "register_follower_solver",
    "solve_follower",
    "solve_tables",
    "tabular_operator",
]


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
    status, iterations, sweeps, linear_solves
        How it ended and what it cost.
    """

    value: FloatArray
    action_value: FloatArray
    policy: FloatArray
    residual: float
    status: Status
    iterations: int
    sweeps: int
    linear_solves: int
    centred_value: FloatArray
    centre: float
    errors_on_demand: ErrorsOnDemand = field(repr=False, compare=False)
    _cumulative: list[FloatArray] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def error_bound(self) -> float:
        """Bound on max |value - V*|."""
        return float(self.errors_without(0.0).value.max())

    @property
    def policy_error_bound(self) -> float:
        """Bound on the relative error of every π(a|s) against the best response."""
        return float(self.errors_on_demand().policy.max())

    @property
    def centred_error_bound(self) -> float:
        """Bound on the error of `centred_value`."""
        return float(self.errors_on_demand().value.max())

    def value_without(self, constant: float) -> FloatArray:
        """Return `value - constant` (S,); all digits where the constant is `centre`."""
        return self.centred_value if constant == self.centre else self.value - constant

    def errors_without(self, constant: float) -> ValueErrors:
        """Return the bounds on the errors of `value_without` and of the policy, state by state."""
        rounded = 0.0 if constant == self.centre else float(np.finfo(np.float64).eps) * abs(self.centre)
        return self.errors_on_demand().shifted(rounded)

    def cumulative_policy(self) -> FloatArray:
        """Return Σ_{a' ≤ a} π(a'|s), computed once."""
        if not self._cumulative:
            self._cumulative.append(np.cumsum(self.policy, axis=1))
        return self._cumulative[0]

    def sample(self, state: Any, rng: Generator, leader_action: Any = None) -> IntArray:
        """Draw an action for each state (any shape of integers)."""
        rows = self.cumulative_policy()[state]
        threshold = rng.random(np.shape(state))[..., None] * rows[..., -1:]
        drawn: IntArray = (rows <= threshold).sum(axis=-1)
        last = self.policy.shape[1] - 1
        return drawn.clip(max=last)

    def log_prob(self, state: Any, action: Any, leader_action: Any = None) -> FloatArray:
        """Return log π(a|s), -inf where the probability underflows."""
        with np.errstate(divide="ignore"):
            result: FloatArray = np.log(self.policy[state, action])
        return result


_SOLVERS: dict[type, Callable[..., Any]] = {}


def register_follower_solver(kind: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the follower's solver for problems of a kind (a class)."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        _SOLVERS[kind] = function
        return function

    return decorate


@overload
def solve_follower(
    problem: ConfigurableMDP,
    theta: Any,
    *,
    method: FollowerMethod = ...,
    tolerance: float = ...,
    max_iterations: int | None = ...,
    warm_start: Hypergradient | TabularFollower | FloatArray | None = ...,
    stop_after: int | None = ...,
    throw: bool = ...,
) -> TabularFollower: ...


@overload
def solve_follower(
    problem: MarkovGame,
    theta: Any,
    *,
    method: FollowerMethod = ...,
    tolerance: float = ...,
    max_iterations: int | None = ...,
    warm_start: Hypergradient | GameFollower | FloatArray | None = ...,
    stop_after: int | None = ...,
    throw: bool = ...,
) -> GameFollower: ...


@overload
def solve_follower(
    problem: Any,
    theta: Any,
    *,
    method: FollowerMethod = ...,
    tolerance: float = ...,
    max_iterations: int | None = ...,
    warm_start: Any = ...,
    stop_after: int | None = ...,
    throw: bool = ...,
) -> Any: ...


def solve_follower(
    problem: Any,
    theta: Any,
    *,
    method: FollowerMethod = "newton",
    tolerance: float = 1e-12,
    max_iterations: int | None = None,
    warm_start: Any = None,
    stop_after: int | None = None,
    throw: bool = True,
) -> Any:
    """Solve the follower's entropy-regularised problem at θ, for any kind of problem.

    Parameters
    ----------
    problem, theta
        The problem and the leader's parameter.
    method
        "newton" (soft policy iteration, quadratic), "value_iteration" (one backup per iteration) or
        "modified_policy_iteration" (five backups with the policy frozen per iteration).
    tolerance
        Wanted bound on |V - V*|, relative to max(β, |V|), in every state.
    max_iterations
        Default 200 for Newton; otherwise what the contraction needs, at most 1,000,000.
    warm_start
        A previous solution or `Hypergradient`, or values (S,), to start from; zeros by default.
    stop_after
        Stop after so many iterations whatever the residual: a suboptimal follower.
    throw
        Raise if the tolerance is not reached; otherwise the status tells.

    Returns
    -------
    TabularFollower or GameFollower

    Raises
    ------
    NotConvergedError
        If the tolerance is not reached (and `throw`, and not `stop_after`).
    IndependenceError
        If θ is an autograd tracer or complex: this solver is not differentiated through.
    InvalidInputError
        If an argument or a table is invalid.
    UnsupportedError
        If no solver is registered for this kind of problem.

    References
    ----------
    Kudo et al. (2026), arXiv:2603.14867, equations (1)-(3).

    Examples
    --------
    >>> from bilevelrl.tasks import random_mdp
    >>> problem = random_mdp(states=4, actions=2, parameters=3, seed=0)
    >>> solution = solve_follower(problem, np.zeros(3))
    >>> solution.status.succeeded, solution.error_bound < 1e-12
    (True, True)
    """
    if method not in METHODS:
        raise UnknownNameError("method", method, METHODS)
    if stop_after is not None and (not isinstance(stop_after, (int, np.integer)) or stop_after < 0):
        raise InvalidInputError(refusal("stop_after", stop_after, "an integer >= 0", "count iterations of the method"))
    for kind in type(problem).__mro__:
        if kind in _SOLVERS:
            return _SOLVERS[kind](
                problem,
                problem.check_theta(theta),
                method=method,
                tolerance=tolerance,
                max_iterations=max_iterations,
                warm_start=warm_start.follower if isinstance(warm_start, Hypergradient) else warm_start,
                stop_after=stop_after,
                throw=throw,
            )
    raise UnsupportedError(f"problem of type {type(problem).__name__}: no follower's solver is registered for it")


@register_follower_solver(ConfigurableMDP)
def _solve_configurable(problem: ConfigurableMDP, theta: FloatArray, **options: Any) -> TabularFollower:
    tables = problem.tables_at(theta)
    return solve_tables(tables, discount=problem.discount_follower, temperature=problem.temperature, **options)


def solve_tables(
    tables: Tables,
    *,
    discount: float,
    temperature: float,
    method: FollowerMethod = "newton",
    tolerance: float = 1e-12,
    max_iterations: int | None = None,
    warm_start: TabularFollower | FloatArray | None = None,
    stop_after: int | None = None,
    throw: bool = True,
) -> TabularFollower:
    """Solve the follower of given tables; see `solve_follower`."""
    centre = reward_centre(tables, tables.reward_follower)
    reward = tables.reward_follower - centre
    offset = centre / (1.0 - discount)
    operator = tabular_operator(tables, reward, discount, temperature)
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
        centred_value=found.value,
        centre=offset,
        errors_on_demand=ErrorsOnDemand(lambda: value_errors(operator, found.iterate)),
    )


def tabular_operator(tables: Tables, reward: FloatArray, discount: float, temperature: float) -> SoftOperator:
    """Return the follower's operator for given tables and rewards (S, A) without their constant."""
    kernel = tables.transition
    # Sums over S (sparse: K) successors and A actions, and a few operations around them.
    terms = kernel.successor.shape[2] if isinstance(kernel, SparseTransition) else tables.states
    return SoftOperator(
        reward=reward,
        discount=discount,
        temperature=temperature,
        unit=(terms + tables.actions + 8) * float(np.finfo(np.float64).eps) + law_error(kernel),
        backup=lambda value: soft_bellman(kernel, reward, discount, temperature, value),
        ahead=lambda value: expected_next(kernel, value),
        average=lambda policy, x: np.vecdot(policy, x),
        chain=lambda policy: policy_transition(kernel, policy),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SuboptimalFollower:
    """A follower that stops after a few sweeps, and starts each time anew or from where it stood.

    Parameters
    ----------
    iterations
        Iterations of `method` before it plays.
    carry
        True: continue from the previous solution. False: start from `N(0, noise²)` values, or zeros when noise is 0.
    method
        How it sweeps.
    noise
        Standard deviation of the initial values.

    Raises
    ------
    InvalidInputError
        If `iterations` is not a count or `noise` is negative.

    Examples
    --------
    >>> from bilevelrl.tasks import random_mdp
    >>> follower = SuboptimalFollower(iterations=2, carry=False)
    >>> follower.respond(random_mdp(states=4, actions=2, parameters=3, seed=0), np.zeros(3)).status.name
    'STOPPED_EARLY'
    """

    iterations: int
    carry: bool
    method: FollowerMethod = "value_iteration"
    noise: float = 0.0

    def __post_init__(self) -> None:
        store_floats(self)
        if (
            not isinstance(self.iterations, int | np.integer)
            or isinstance(self.iterations, bool)
            or self.iterations < 0
        ):
            raise InvalidInputError(
                refusal("iterations", self.iterations, "an integer >= 0", "count iterations of the method")
            )
        if not 0.0 <= self.noise < np.inf:
            raise InvalidInputError(
                refusal("noise", self.noise, "a finite number >= 0", "give the standard deviation of initial values")
            )

    def respond(
        self,
        problem: Any,
        theta: Any,
        *,
        previous: Any = None,
        rng: Generator | None = None,
    ) -> Any:
        """Return the response after the allowed sweeps.

        Raises
        ------
        InvalidInputError
            If noise is asked for without a generator.
        """
        start = previous if self.carry else None
        if start is None and self.noise > 0.0:
            if rng is None:
                raise InvalidInputError("rng=None: expected a numpy Generator for noise > 0; pass rng=...")
            start = self.noise * rng.standard_normal(problem.states_at(theta))
        return solve_follower(problem, theta, method=self.method, stop_after=self.iterations, warm_start=start)
