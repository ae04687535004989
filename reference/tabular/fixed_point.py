"""The follower's soft-optimal response: the soft Bellman operator and the iterations to its fixed point.

The soft Bellman operator

    (TV)(s) = β log Σ_a exp((r_F(s,a) + γ_F Σ_s' P(s'|s,a) V(s'))/β)                                                (1)

is a γ_F-contraction in the maximum norm with a unique fixed point V*. How far an iterate is from it, state by state,
`value_errors` says. Newton's step on TV - V = 0, with π the softmax of what T takes the maximum of,

    V ← V + (I - γ_F P_π)⁻¹ (TV - V),                                                                              (2)

is soft policy iteration: it converges monotonically from any start and quadratically near the solution. Where all rows
sum to one the rewards are centred first, which saves the digits that a constant reward of 1e6 would cost at a cold
temperature. Where the system is iterated on (`krylov`), first steps are solved to two digits and later ones to as many
as Newton's method can use; if that stagnates, what is left is solved directly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bilevelrl.reference.arrays import BoolArray, FloatArray, check_positive, refuse_differentiation
from bilevelrl.reference.errors import InvalidInputError, NotConvergedError, ShapeError, refusal
from bilevelrl.reference.problem import FollowerMethod, Status
from bilevelrl.reference.tabular.linear_systems.krylov import KrylovSystem, forcing
from bilevelrl.reference.tabular.tables import Tables
from bilevelrl.reference.tabular.transitions import (
    DiscountedSystem,
    Matrix,
    SparseTransition,
    Transition,
    expected_next,
    is_law,
)

__all__ = [
    "FixedPoint",
    "SoftOperator",
    "check_stopping",
    "entropy",
    "find_fixed_point",
    "reward_centre",
    "reward_centres",
    "soft_bellman",
    "start_value",
    "state_scale",
]


_STAGNANT = 4  # iterations without progress after which steps are solved directly


def soft_bellman(
    transition: Transition, reward: FloatArray, discount: float, temperature: float, value: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """One soft Bellman backup; returns (TV, Q, π) at V.

    Finite for every positive temperature: the maximum is split off before exponentials are taken.
    """
    action_value = expected_next(transition, value)
    action_value *= discount
    action_value += reward
    # NumPy reduces along a short last axis row by row; with the actions in front it takes all states at once.
    weights = action_value.T.copy()  # in place from here: at a million states every copy counts
    largest = weights.max(axis=0)
    weights -= largest
    weights /= temperature
    np.exp(weights, out=weights)
    total = weights.sum(axis=0)
    weights /= total
    policy = np.ascontiguousarray(weights.T)
    return largest + temperature * np.log(total), action_value, policy  # (1)


def reward_centre(tables: Tables, reward: FloatArray) -> float:
    """The constant reward to split off: zero unless every row is a law, for only then does it move V alone."""
    if not _is_large(reward.min(), reward.max()).any():  # the usual case, decided without a look at the kernel
        return 0.0
    kernel = tables.transition
    rows = kernel.probability if isinstance(kernel, SparseTransition) else kernel
    return float(reward_centres(np.asarray(rows)[None], reward[None])[0])


def _is_large(low: FloatArray, high: FloatArray) -> BoolArray:
    """Whether splitting off the middle gains digits: a small constant only rounds the rewards, a large one does not."""
    return abs(0.5 * (low + high)) > 4.0 * (high - low)


def reward_centres(rows: FloatArray, reward: FloatArray) -> FloatArray:
    """Return the same for a batch: rows (B or 1, S, A, K), reward (B, S, A)."""
    low, high = reward.min(axis=(1, 2)), reward.max(axis=(1, 2))
    large = _is_large(low, high)
    if not large.any():
        return np.zeros(low.shape)
    return np.where(large & is_law(rows).all(axis=(1, 2)), 0.5 * (low + high), 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftOperator:
    """A soft Bellman operator `(TV)(s) = Σ_d reach β log Σ_a exp((r + γ P V)/β)` and what Newton's method asks of it.

    Attributes
    ----------
    reward : (S, ..., A)
        r, without the constant.
    discount, temperature : float
        γ_F and β.
    rounding_unit
        Works out the relative rounding of one backup: sums over successors and actions.
    backup
        V → (TV, Q, π).
    ahead
        V → Σ_s' P V, (S, ..., A).
    average
        (π, x (S, ..., A)) → Σ reach π x, (S,).
    chain
        π → P_π.
    krylov
        π → `I - γ P_π` to iterate on; None where it is factorised.
    """

    reward: FloatArray
    discount: float
    temperature: float
    rounding_unit: Callable[[], float]
    backup: Callable[[FloatArray], tuple[FloatArray, FloatArray, FloatArray]]
    ahead: Callable[[FloatArray], FloatArray]
    average: Callable[[FloatArray, FloatArray], FloatArray]
    chain: Callable[[FloatArray], Matrix]
    krylov: Callable[[FloatArray], KrylovSystem] | None = None

    @property
    def unit(self) -> float:
        """Relative rounding of one backup, worked out when it is read: it looks at the whole kernel."""
        return self.rounding_unit()

    def size(self, value: FloatArray) -> FloatArray:
        """Return |r| + γ P |V|, of which rounding leaves `unit` in Q."""
        result: FloatArray = np.abs(self.reward) + self.discount * self.ahead(np.abs(value))
        return result

    def system(self, policy: FloatArray) -> DiscountedSystem:
        """Return `I - γ P_π`, factorised."""
        return DiscountedSystem.factorise(self.chain(policy), self.discount)

    def frozen(self, policy: FloatArray) -> Callable[[FloatArray], FloatArray]:
        """Return one backup with the policy frozen, entropy included."""
        earned = self.average(policy, self.reward - self.temperature * _log(policy))
        chain = self.chain(policy)
        return lambda value: earned + self.discount * (chain @ value)


def state_scale(backed_up: FloatArray, temperature: float) -> FloatArray:
    """Return what the error of V(s) is held against: |V(s)|, or β where that is larger.

    An error far below β moves no probability; and what another state is worth has no say.
    """
    return np.maximum(np.abs(backed_up), temperature)


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPoint:
    """Where an iteration of the soft Bellman operator ended.

    Attributes
    ----------
    iterate
        The last iterate V.
    value, action_value, policy
        One backup after it.
    residual : float
        Largest change of that backup.
    status, iterations, sweeps, linear_solves, factorisations, krylov_iterations
        How it ended and what it cost.
    fell_back : bool
        Whether Krylov iterations stagnated, and factorisations took over.
    """

    iterate: FloatArray
    value: FloatArray
    action_value: FloatArray
    policy: FloatArray
    residual: float
    status: Status
    iterations: int
    sweeps: int
    linear_solves: int
    factorisations: int
    krylov_iterations: int
    fell_back: bool


def find_fixed_point(
    value: FloatArray,
    operator: SoftOperator,
    *,
    method: FollowerMethod,
    tolerance: float,
    max_iterations: int | None,
    stop_after: int | None,
    throw: bool,
) -> FixedPoint:
    """Iterate a soft Bellman operator to its fixed point; what `solve_follower` does for each kind of problem.

    Each state is held against its own scale and its own rounding, so that a number which is large elsewhere (a state
    that is never reached, an action that is never taken) neither stops the iteration early nor hides what it left.

    Parameters
    ----------
    value
        Where to start.
    operator
        The operator.
    method, tolerance, max_iterations, stop_after, throw
        As in `solve_follower`.
    """
    check_stopping(tolerance, max_iterations)
    wanted = tolerance * (1.0 - operator.discount)
    sweeps = solves = iteration = 0
    best, since_best = np.inf, 0
    steps = _NewtonSteps(operator)
    while True:
        backed_up, action_value, policy = operator.backup(value)
        sweeps += 1
        change = backed_up - value
        off = np.abs(change)
        relative = float((off / state_scale(backed_up, operator.temperature)).max())
        if max_iterations is None:
            max_iterations = _iteration_limit(method, operator.discount, wanted, relative)
        status = None
        if stop_after is not None:
            # The follower plays softmax(Q_k/β) with Q_k the backup of V_k: k iterations, then this one look.
            status = Status.STOPPED_EARLY if iteration == stop_after else None
        elif relative <= wanted:
            status = Status.CONVERGED
        elif since_best >= 2 and _at_rounding(operator, value, backed_up, policy, off):
            status = Status.AT_ROUNDING
        elif iteration == max_iterations:
            status = Status.ITERATION_LIMIT
        if status is not None:
            break
        since_best = since_best + 1 if relative >= 0.5 * best else 0
        best = min(best, relative)
        if method == "newton":
            steps.direct |= since_best >= _STAGNANT
            value = value + steps(policy, change, relative)  # (2)
            solves += 1
        else:
            value = backed_up
            # Four more backups with the greedy policy frozen: five per iteration, as in the published solver.
            if method == "modified_policy_iteration":
                evaluate = operator.frozen(policy)
                for _ in range(4):
                    value = evaluate(value)
                sweeps += 4
        iteration += 1
    if status is Status.ITERATION_LIMIT and throw:
        worst = int(np.argmax(off / state_scale(backed_up, operator.temperature)))
        raise NotConvergedError(
            f"follower ({method}): state {worst} has residual {off[worst]:.3g} after {iteration} iterations, "
            f"expected at most {wanted * max(abs(backed_up[worst]), operator.temperature):.3g}; {status.value}"
        )
    return FixedPoint(
        iterate=value,
        value=backed_up,
        action_value=action_value,
        policy=policy,
        residual=float(off.max()),
        status=status,
        iterations=iteration,
        sweeps=sweeps,
        linear_solves=solves,
        factorisations=steps.factorisations,
        krylov_iterations=steps.krylov_iterations,
        fell_back=steps.direct and operator.krylov is not None,
    )


class _NewtonSteps:
    """Solves for Newton's steps: iteratively while that converges, then directly."""

    def __init__(self, operator: SoftOperator) -> None:
        self._operator = operator
        self._before: float | None = None
        self.direct = operator.krylov is None
        self.factorisations = self.krylov_iterations = 0

    def __call__(self, policy: FloatArray, change: FloatArray, residual: float) -> FloatArray:
        if not self.direct and self._operator.krylov is not None:
            system = self._operator.krylov(policy)
            step = system.approximate(change, forcing(residual, self._before))
            self.krylov_iterations += system.iterations
            self._before = residual
            if step is not None:
                return step
            self.direct = True
        self.factorisations += 1
        return self._operator.system(policy).solve(change)


def _at_rounding(
    operator: SoftOperator, value: FloatArray, backed_up: FloatArray, policy: FloatArray, off: FloatArray
) -> bool:
    """Whether every state moves by no more than the rounding of what it averages over."""
    level = operator.unit * (
        operator.average(policy, operator.size(value)) + state_scale(backed_up, operator.temperature)
    )
    return bool((off <= level).all())


def entropy(policy: FloatArray) -> FloatArray:
    """Return -Σ π log π over the last axis; an action of probability zero adds nothing."""
    result: FloatArray = -(policy * _log(policy)).sum(axis=-1)
    return result


def _log(policy: FloatArray) -> FloatArray:
    """Return log π where it is finite, and zero where π is."""
    return np.log(policy, out=np.zeros_like(policy), where=policy > 0.0)


def check_stopping(tolerance: float, max_iterations: int | None) -> None:
    """Refuse a tolerance that is not positive, and a limit that counts nothing."""
    check_positive("tolerance", tolerance, "ask for 1e-12, or what the conditioning allows")
    if max_iterations is not None and (not isinstance(max_iterations, (int, np.integer)) or max_iterations < 0):
        raise InvalidInputError(
            refusal("max_iterations", max_iterations, "None or an integer >= 0", "count iterations")
        )


def _iteration_limit(method: FollowerMethod, discount: float, wanted: float, first: float) -> int:
    """Return how many iterations may be needed to bring the first residual down to the wanted one."""
    if method == "newton":
        return 200
    if discount == 0.0:
        return 8
    needed = np.log(max(wanted, 1e-16 * (1.0 - discount)) / max(first, 1.0)) / np.log(discount)
    return int(min(1_000_000, 64 + np.ceil(needed)))


def start_value(states: int, warm_start: object, offset: float, *, name: str = "warm_start") -> FloatArray:
    """Return the values (S,) to start from: zeros, given ones, or those of a previous solution, without a constant."""
    if warm_start is None:
        return np.zeros(states)
    given = getattr(warm_start, "state_value", getattr(warm_start, "value", warm_start))
    refuse_differentiation(name, given)
    try:
        value = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        found = type(warm_start).__name__
        raise InvalidInputError(
            refusal(name, found, f"values ({states},) or a solution", "start from a solution of this problem")
        ) from None
    if value.shape != (states,):
        raise ShapeError(refusal(f"{name}.shape", value.shape, f"({states},)", "pass values per state"))
    if not np.isfinite(value).all():
        raise InvalidInputError(f"{name}: expected finite values; start from zeros or a converged solution")
    result: FloatArray = value - offset
    return result
