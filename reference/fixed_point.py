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
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from bilevelrl.reference.arrays import FloatArray, check_positive, refuse_differentiation
from bilevelrl.reference.errors import InvalidInputError, NotConvergedError, ShapeError, refusal
from bilevelrl.reference.tables import Tables
from bilevelrl.reference.transitions import SparseTransition, Transition, expected_next

__all__ = [
    "METHODS",
    "FixedPoint",
    "FollowerMethod",
    "Status",
    "check_stopping",
    "entropy",
    "find_fixed_point",
    "policy_error_of",
    "reward_centre",
    "reward_centres",
    "rounding_level",
    "soft_bellman",
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
    check_stopping(tolerance, max_iterations)
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


def policy_error_of(value_error: float, temperature: float) -> float:
    """Return the bound on the relative error of every probability that an error of the values leaves."""
    return float(np.expm1(min(2.0 * value_error / temperature, 700.0)))


def entropy(policy: FloatArray) -> FloatArray:
    """Return -Σ π log π over the last axis; an action of probability zero adds nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        result: FloatArray = -np.where(policy > 0.0, policy * np.log(policy), 0.0).sum(axis=-1)
    return result


def check_stopping(tolerance: float, max_iterations: int | None) -> None:
    """Refuse a tolerance that is not positive, and a limit that counts nothing."""
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
