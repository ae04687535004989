"""The follower's soft-optimal response, with proof of how well it is known.

The soft Bellman operator `(TV)(s) = β log Σ_a exp((r_F(s,a) + γ_F Σ_s' P(s'|s,a) V(s'))/β)` is a γ_F-contraction in the
maximum norm with a unique fixed point V*, so `‖V - V*‖ ≤ ‖TV - V‖ / (1 - γ_F)` for every V. Rounding adds
`c ε max|Q|` to the residual. The policy `exp((Q - V)/β)` inherits a relative error of at most twice that over β.

Newton's method on `TV - V = 0` is soft policy iteration: it converges monotonically from any start and quadratically
near the solution. Where all rows sum to one the rewards are centred first, which saves the digits that a constant
reward of 1e6 would cost at a cold temperature.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

import numpy as np
from numpy.random import Generator

from bilevelrl.reference.arrays import FloatArray, IntArray, check_positive, refuse_differentiation
from bilevelrl.reference.configurable_mdp import ConfigurableMDP
from bilevelrl.reference.errors import (
    InvalidInputError,
    NotConvergedError,
    ShapeError,
    UnknownNameError,
    UnsupportedError,
    refusal,
)
from bilevelrl.reference.tables import Tables
from bilevelrl.reference.transitions import (
    DiscountedSystem,
    SparseTransition,
    Transition,
    expected_next,
    policy_transition,
)

if TYPE_CHECKING:
    from bilevelrl.reference.game_follower import GameFollower
    from bilevelrl.reference.markov_game import MarkovGame

__all__ = [
    "FixedPoint",
    "FollowerMethod",
    "Status",
    "SuboptimalFollower",
    "TabularFollower",
    "entropy",
    "find_fixed_point",
    "newton_batch",
    "policy_error_of",
    "register_follower_solver",
    "reward_centre",
    "reward_centres",
    "rounding_level",
    "soft_bellman",
    "solve_follower",
    "solve_followers",
    "solve_tables",
    "start_value",
]

FollowerMethod: TypeAlias = Literal["newton", "value_iteration", "modified_policy_iteration"]
METHODS: tuple[FollowerMethod, ...] = ("newton", "value_iteration", "modified_policy_iteration")


class Status(enum.Enum):
    """How an iteration ended; the value is the message for the user."""

    CONVERGED = "converged: the residual is below the tolerance"
    AT_ROUNDING = "converged as far as rounding allows: the residual is at the level of floating-point noise"
    STOPPED_EARLY = "stopped after the requested number of sweeps: a suboptimal follower"
    ITERATION_LIMIT = "not converged: the iteration limit was reached; raise max_iterations or use method='newton'"

    @property
    def succeeded(self) -> bool:
        """Whether the value is within its error bound of the fixed point to the asked tolerance."""
        return self in (Status.CONVERGED, Status.AT_ROUNDING)


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
    error_bound : float
        `(residual + c ε max|Q|) / (1 - γ_F)`, bound on max |value - V*|.
    policy_error_bound : float
        Bound on the relative error of every π(a|s) against the best response.
    centre : float
        The constant that was split off the values before iterating: zero, or the return of a constant reward.
    centred_value : (S,)
        `value - centre` with all its digits.
    centred_error_bound : float
        Bound on the error of `centred_value`.
    status, iterations, sweeps, linear_solves
        How it ended and what it cost.
    """

    value: FloatArray
    action_value: FloatArray
    policy: FloatArray
    residual: float
    error_bound: float
    policy_error_bound: float
    status: Status
    iterations: int
    sweeps: int
    linear_solves: int
    centred_value: FloatArray
    centred_error_bound: float
    centre: float
    _cumulative: list[FloatArray] = field(default_factory=list, init=False, repr=False, compare=False)

    def value_without(self, constant: float) -> tuple[FloatArray, float]:
        """Return `value - constant` and the bound on its error; all digits where the constant is `centre`."""
        if constant == self.centre:
            return self.centred_value, self.centred_error_bound
        return self.value - constant, self.error_bound

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


def soft_bellman(
    transition: Transition, reward: FloatArray, discount: float, temperature: float, value: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """One soft Bellman backup; returns (TV, Q, π) at V.

    Finite for every positive temperature: the maximum is split off before exponentials are taken.
    """
    action_value = reward + discount * expected_next(transition, value)
    # NumPy reduces along a short last axis row by row; with the actions in front it takes all states at once.
    by_action = np.ascontiguousarray(action_value.T)
    largest = by_action.max(axis=0)
    weights = np.exp((by_action - largest) / temperature)
    total = weights.sum(axis=0)
    policy = np.ascontiguousarray((weights / total).T)
    return largest + temperature * np.log(total), action_value, policy


def rounding_level(tables: Tables, largest: float) -> float:
    """Bound on the rounding error of one soft Bellman backup whose |Q| and |TV| are at most `largest`.

    Inner products over S (sparse: K) terms, and A exponentials.
    """
    kernel = tables.transition
    terms = kernel.successor.shape[2] if isinstance(kernel, SparseTransition) else tables.states
    return float((terms + tables.actions + 8) * np.finfo(np.float64).eps * largest)


def reward_centre(tables: Tables, reward: FloatArray) -> float:
    """The constant reward to split off: zero unless every row sums to one, for only then does it move V alone."""
    if not _is_large(reward.min(), reward.max()):  # the usual case, decided without a look at the kernel
        return 0.0
    kernel = tables.transition
    rows = kernel.probability if isinstance(kernel, SparseTransition) else kernel
    return float(reward_centres(np.asarray(rows)[None], reward[None])[0])


def _is_large(low: Any, high: Any) -> Any:
    """Whether splitting off the middle gains digits: a small constant only rounds the rewards, a large one does not."""
    return abs(0.5 * (low + high)) > 4.0 * (high - low)


def reward_centres(rows: FloatArray, reward: FloatArray) -> FloatArray:
    """Return the same for a batch: rows (B or 1, S, A, K), reward (B, S, A)."""
    low, high = reward.min(axis=(1, 2)), reward.max(axis=(1, 2))
    large = _is_large(low, high)
    if not large.any():
        return np.zeros(low.shape)
    return np.where(large & (np.abs(rows.sum(axis=-1) - 1.0).max(axis=(1, 2)) <= 1e-13), 0.5 * (low + high), 0.0)


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
    warm_start: TabularFollower | FloatArray | None = ...,
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
    warm_start: GameFollower | FloatArray | None = ...,
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
        Wanted bound on max |V - V*|, relative to max(1, max|Q|).
    max_iterations
        Default 200 for Newton; otherwise what the contraction needs, at most 1,000,000.
    warm_start
        A previous solution, or values (S,), to start from; zeros by default.
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
                warm_start=warm_start,
                stop_after=stop_after,
                throw=throw,
            )
    raise UnsupportedError(f"problem of type {type(problem).__name__}: no follower's solver is registered for it")


@register_follower_solver(ConfigurableMDP)
def _solve_configurable(problem: ConfigurableMDP, theta: FloatArray, **options: Any) -> TabularFollower:
    tables = problem.tables_at(theta)
    return solve_tables(tables, discount=problem.discount_follower, temperature=problem.temperature, **options)


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPoint:
    """Where an iteration of the soft Bellman operator ended.

    Attributes
    ----------
    iterate
        The last iterate.
    value, action_value, policy
        One backup after it.
    residual, rounding : float
        Largest change of that backup, and the bound on its rounding.
    status, iterations, sweeps, linear_solves
        How it ended and what it cost.
    """

    iterate: FloatArray
    value: FloatArray
    action_value: FloatArray
    policy: FloatArray
    residual: float
    rounding: float
    status: Status
    iterations: int
    sweeps: int
    linear_solves: int

    def error_bound(self, discount: float) -> float:
        """Return the bound on max |value - V*| that the contraction gives."""
        return (self.residual + self.rounding) / (1.0 - discount)


def find_fixed_point(
    value: FloatArray,
    *,
    backup: Callable[[FloatArray], tuple[FloatArray, FloatArray, FloatArray]],
    correct: Callable[[FloatArray, FloatArray], FloatArray],
    frozen: Callable[[FloatArray], Callable[[FloatArray], FloatArray]],
    rounding: Callable[[float], float],
    discount: float,
    method: FollowerMethod,
    tolerance: float,
    max_iterations: int | None,
    stop_after: int | None,
    throw: bool,
) -> FixedPoint:
    """Iterate a soft Bellman operator to its fixed point; what `solve_follower` does for each kind of problem.

    Parameters
    ----------
    value
        Where to start.
    backup
        V → (TV, Q, π).
    correct
        (π, TV - V) → the Newton step `(I - γ P_π)^{-1} (TV - V)`.
    frozen
        π → (V → one backup of V with the policy frozen, entropy included).
    rounding
        Largest |Q| or |TV| → bound on the rounding of a backup.
    discount, method, tolerance, max_iterations, stop_after, throw
        As in `solve_follower`.
    """
    _check_stopping(tolerance, max_iterations)
    if max_iterations is None:
        max_iterations = _iteration_limit(method, discount, tolerance)
    sweeps = solves = iteration = 0
    best, since_best = np.inf, 0
    while True:
        backed_up, action_value, policy = backup(value)
        sweeps += 1
        change = backed_up - value
        residual = float(np.abs(change).max())
        # The entropy can make V larger than every Q.
        largest = max(float(np.abs(action_value).max()), float(np.abs(backed_up).max()))
        level = rounding(largest)
        scale = max(1.0, largest)
        status = None
        if stop_after is not None:
            # The follower plays softmax(Q_k/β) with Q_k the backup of V_k: k iterations, then this one look.
            status = Status.STOPPED_EARLY if iteration == stop_after else None
        elif residual <= tolerance * (1.0 - discount) * scale:
            status = Status.CONVERGED
        elif residual <= level and since_best >= 2:
            status = Status.AT_ROUNDING
        elif iteration == max_iterations:
            status = Status.ITERATION_LIMIT
        if status is not None:
            break
        since_best = since_best + 1 if residual >= 0.5 * best else 0
        best = min(best, residual)
        if method == "newton":
            value = value + correct(policy, change)
            solves += 1
        else:
            value = backed_up
            # Four more backups with the greedy policy frozen: five per iteration, as in the published solver.
            if method == "modified_policy_iteration":
                evaluate = frozen(policy)
                for _ in range(4):
                    value = evaluate(value)
                sweeps += 4
        iteration += 1
    if status is Status.ITERATION_LIMIT and throw:
        raise NotConvergedError(
            f"follower ({method}): residual {residual:.3g} after {iteration} iterations, "
            f"expected at most {tolerance * (1.0 - discount) * scale:.3g}; {status.value}"
        )
    return FixedPoint(
        iterate=value,
        value=backed_up,
        action_value=action_value,
        policy=policy,
        residual=residual,
        rounding=level,
        status=status,
        iterations=iteration,
        sweeps=sweeps,
        linear_solves=solves,
    )


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
    kernel = tables.transition

    def frozen(policy: FloatArray) -> Callable[[FloatArray], FloatArray]:
        earned = (policy * reward).sum(axis=1) + temperature * entropy(policy)
        chain = policy_transition(kernel, policy)
        return lambda value: earned + discount * (chain @ value)

    found = find_fixed_point(
        start_value(tables.states, warm_start, offset),
        backup=lambda value: soft_bellman(kernel, reward, discount, temperature, value),
        correct=lambda policy, change: DiscountedSystem.factorise(policy_transition(kernel, policy), discount).solve(
            change
        ),
        frozen=frozen,
        rounding=lambda largest: rounding_level(tables, largest),
        discount=discount,
        method=method,
        tolerance=tolerance,
        max_iterations=max_iterations,
        stop_after=stop_after,
        throw=throw,
    )
    bound = found.error_bound(discount)
    return TabularFollower(
        value=found.value + offset,
        action_value=found.action_value + offset,
        policy=found.policy,
        residual=found.residual,
        error_bound=bound + float(np.finfo(np.float64).eps) * abs(offset),
        policy_error_bound=policy_error_of(bound, temperature),
        status=found.status,
        iterations=found.iterations,
        sweeps=found.sweeps,
        linear_solves=found.linear_solves,
        centred_value=found.value,
        centred_error_bound=bound,
        centre=offset,
    )


def policy_error_of(value_error: float, temperature: float) -> float:
    """Return the bound on the relative error of every probability that an error of the values leaves."""
    return float(np.expm1(min(2.0 * value_error / temperature, 700.0)))


def entropy(policy: FloatArray) -> FloatArray:
    """Return -Σ π log π over the last axis; an action of probability zero adds nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        result: FloatArray = -np.where(policy > 0.0, policy * np.log(policy), 0.0).sum(axis=-1)
    return result


def _check_stopping(tolerance: float, max_iterations: int | None) -> None:
    check_positive("tolerance", tolerance, "ask for 1e-12, or what the conditioning allows")
    if max_iterations is not None and (not isinstance(max_iterations, (int, np.integer)) or max_iterations < 0):
        raise InvalidInputError(
            refusal("max_iterations", max_iterations, "None or an integer >= 0", "count iterations")
        )


def _iteration_limit(method: FollowerMethod, discount: float, tolerance: float) -> int:
    if method == "newton":
        return 200
    if discount == 0.0:
        return 8
    needed = np.log(max(tolerance, 1e-16) * (1.0 - discount)) / np.log(discount)
    return int(min(1_000_000, 64 + np.ceil(needed)))


def start_value(states: int, warm_start: Any, offset: float) -> FloatArray:
    """Return the values (S,) to start from: zeros, given ones, or those of a previous solution, without a constant."""
    if warm_start is None:
        return np.zeros(states)
    given = getattr(warm_start, "state_value", getattr(warm_start, "value", warm_start))
    refuse_differentiation("warm_start", given)
    try:
        value = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        found = type(warm_start).__name__
        raise InvalidInputError(
            refusal("warm_start", found, f"values ({states},) or a solution", "start from a solution of this problem")
        ) from None
    if value.shape != (states,):
        raise ShapeError(refusal("warm_start.shape", value.shape, f"({states},)", "pass values per state"))
    if not np.isfinite(value).all():
        raise InvalidInputError("warm_start: expected finite values; start from zeros or a converged solution")
    result: FloatArray = value - offset
    return result


def solve_followers(
    problem: ConfigurableMDP,
    thetas: Any,
    *,
    tolerance: float = 1e-12,
    warm_start: FloatArray | None = None,
    max_iterations: int = 200,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Solve many θ at once by Newton's method on stacked LAPACK systems.

    Parameters
    ----------
    problem
        A configurable MDP with a dense kernel.
    thetas
        (B, *theta_shape).
    tolerance
        As in `solve_follower`, for every member of the batch.
    warm_start
        Values (B, S) to start from.
    max_iterations
        Newton iterations before giving up.

    Returns
    -------
    value : (B, S)
    action_value : (B, S, A)
    policy : (B, S, A)

    Raises
    ------
    NotConvergedError
        If any member does not converge; the message names it.

    Examples
    --------
    >>> from bilevelrl.tasks import random_mdp
    >>> value, _, policy = solve_followers(random_mdp(states=4, actions=2, parameters=3, seed=0), np.zeros((5, 3)))
    >>> value.shape, policy.shape
    ((5, 4), (5, 4, 2))
    """
    members = [problem.tables_at(theta) for theta in np.asarray(thetas)]
    if not members:
        raise ShapeError(
            refusal("thetas.shape", np.shape(thetas), "(B, *theta_shape) with B >= 1", "pass at least one")
        )
    first = members[0].transition
    if isinstance(first, SparseTransition):
        raise InvalidInputError("solve_followers: expected a dense kernel; call solve_follower for each sparse problem")
    shared = all(tables.transition is first for tables in members)
    kernel = first[None] if shared else np.stack([tables.transition for tables in members])
    reward = np.stack([tables.reward_follower for tables in members])
    return newton_batch(
        kernel,
        reward,
        discount=problem.discount_follower,
        temperature=problem.temperature,
        tolerance=tolerance,
        warm_start=warm_start,
        max_iterations=max_iterations,
    )


def newton_batch(
    kernel: FloatArray,
    reward: FloatArray,
    *,
    discount: float,
    temperature: float,
    tolerance: float = 1e-12,
    warm_start: FloatArray | None = None,
    max_iterations: int = 200,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Newton's method for stacked problems: kernel (B or 1, S, A, S), reward (B, S, A); see `solve_followers`."""
    _check_stopping(tolerance, max_iterations)
    batch, states, actions = reward.shape
    centre = reward_centres(kernel, reward)
    reward, offset = reward - centre[:, None, None], centre / (1.0 - discount)
    rows = kernel.reshape(kernel.shape[0], states * actions, states)
    value = np.zeros((batch, states)) if warm_start is None else np.asarray(warm_start, np.float64) - offset[:, None]
    eps = np.finfo(np.float64).eps
    best = np.full(batch, np.inf)
    for _ in range(max_iterations + 1):
        if kernel.shape[0] == 1:
            ahead = (value @ rows[0].T).reshape(reward.shape)
        else:
            ahead = np.matmul(rows, value[:, :, None]).reshape(reward.shape)
        action_value = reward + discount * ahead
        largest = action_value.max(axis=2, keepdims=True)
        weights = np.exp((action_value - largest) / temperature)
        total = weights.sum(axis=2, keepdims=True)
        policy = weights / total
        backed_up = (largest + temperature * np.log(total))[:, :, 0]
        change = backed_up - value
        residual = np.abs(change).max(axis=1)
        scale = np.maximum(np.abs(action_value).max(axis=(1, 2)), np.abs(backed_up).max(axis=1)).clip(min=1.0)
        floor = (states + actions + 8) * eps * scale
        done = (residual <= tolerance * (1.0 - discount) * scale) | ((residual <= floor) & (residual >= 0.5 * best))
        if done.all():
            return backed_up + offset[:, None], action_value + offset[:, None, None], policy
        best = np.minimum(best, residual)
        moving = np.flatnonzero(~done)
        own_kernel = kernel if kernel.shape[0] == 1 else kernel[moving]
        system = np.matmul(policy[moving, :, None, :], own_kernel)[:, :, 0, :]
        # In place: for many members these are the largest arrays.
        system *= -discount
        system.reshape(moving.size, -1)[:, :: states + 1] += 1.0
        value[moving] += np.linalg.solve(system, change[moving, :, None])[:, :, 0]
    worst = int(np.argmax(residual / scale))
    raise NotConvergedError(
        f"follower batch: member {worst} has residual {residual[worst]:.3g} after {max_iterations} Newton iterations; "
        "raise max_iterations or solve it alone to see its status"
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
