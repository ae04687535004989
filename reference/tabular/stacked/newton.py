"""Followers of many θ at once: Newton's method on stacked linear systems."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bilevelrl.reference.arrays import BoolArray, FloatArray, IntArray, check_shape, check_thetas
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, NotConvergedError
from bilevelrl.reference.tabular.fixed_point import check_stopping, reward_centres, state_scale
from bilevelrl.reference.tabular.model import ConfigurableMDP
from bilevelrl.reference.tabular.transitions import SparseTransition

__all__ = [
    "FixedPoints",
    "discounted_systems",
    "newton_batch",
    "newton_fixed_points",
    "over_actions",
    "solve_followers",
    "stacked_ahead",
]


@checked
def solve_followers(
    problem: ConfigurableMDP,
    thetas: object,
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
    thetas = check_thetas(thetas, problem.theta_shape)
    members = [problem.tables_at(theta) for theta in thetas]
    first = members[0].transition
    if isinstance(first, SparseTransition):
        raise InvalidInputError("solve_followers: expected a dense kernel; call solve_follower for each sparse problem")
    shared = all(tables.transition is first for tables in members)
    if warm_start is not None:
        check_shape("warm_start", warm_start, (len(thetas), members[0].states), "give one value per θ and state")
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
    centre = reward_centres(kernel, reward)
    offset = centre / (1.0 - discount)
    found = newton_fixed_points(
        kernel,
        reward - centre[:, None, None],
        discount=discount,
        temperature=temperature,
        tolerance=tolerance,
        start=None if warm_start is None else np.asarray(warm_start, np.float64) - offset[:, None],
        max_iterations=max_iterations,
    )
    return found.value + offset[:, None], found.action_value + offset[:, None, None], found.policy


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPoints:
    """Where Newton's method ended for stacked problems; as `FixedPoint`, with an axis of members in front.

    Attributes
    ----------
    iterate, value, action_value, policy, residual
        Of each member.
    at_rounding : (B,)
        Whether rounding ended it before the tolerance was reached.
    sweeps, solves : int, (B,)
        Backups of all, and Newton steps of each.
    """

    iterate: FloatArray
    value: FloatArray
    action_value: FloatArray
    policy: FloatArray
    residual: FloatArray
    at_rounding: BoolArray
    sweeps: int
    solves: IntArray


def newton_fixed_points(
    kernel: FloatArray,
    reward: FloatArray,
    *,
    discount: float,
    temperature: float,
    tolerance: float = 1e-12,
    start: FloatArray | None = None,
    max_iterations: int = 200,
    solve_stack: Callable[[FloatArray, FloatArray], FloatArray] | None = None,
    memory: FloatArray | None = None,
) -> FixedPoints:
    """Newton's method for stacked problems without a constant in the rewards; arguments as of `newton_batch`.

    `solve_stack` takes systems (B, S, S), which it may write to, and right-hand sides (B, S, 1). `memory` (B, S, S) is
    where systems are made; None: by `numpy.linalg.solve`, in new arrays.
    """
    check_stopping(tolerance, max_iterations)
    batch, states, actions = reward.shape
    value = np.zeros((batch, states)) if start is None else start.copy()
    eps = np.finfo(np.float64).eps
    best, wanted = np.full(batch, np.inf), tolerance * (1.0 - discount)
    solves = np.zeros(batch, dtype=np.int64)
    for sweep in range(max_iterations + 1):
        action_value = reward + discount * stacked_ahead(kernel, value)
        largest = over_actions(np.maximum, action_value)
        weights = np.exp((action_value - largest) / temperature)
        total = over_actions(np.add, weights)
        policy = weights / total
        backed_up = (largest + temperature * np.log(total))[:, :, 0]
        change = backed_up - value
        off, scale = np.abs(change), state_scale(backed_up, temperature)
        residual = (off / scale).max(axis=1)
        done = residual <= wanted
        stalled = ~done & (residual >= 0.5 * best)
        if stalled.any():
            size = np.abs(reward) + discount * stacked_ahead(kernel, np.abs(value))
            level = (states + actions + 8) * eps * (np.vecdot(policy, size) + scale)
            stalled &= (off <= level).all(axis=1)
            done |= stalled
        if done.all():
            return FixedPoints(
                iterate=value,
                value=backed_up,
                action_value=action_value,
                policy=policy,
                residual=off.max(axis=1),
                at_rounding=stalled,
                sweeps=sweep + 1,
                solves=solves,
            )
        best = np.minimum(best, residual)
        moving = np.flatnonzero(~done)
        own_kernel = kernel if kernel.shape[0] == 1 else kernel[moving]
        system = discounted_systems(own_kernel, policy[moving], discount, memory)
        value[moving] += (solve_stack or np.linalg.solve)(system, change[moving, :, None])[:, :, 0]
        solves[moving] += 1
    worst = int(np.argmax(residual))
    raise NotConvergedError(
        f"follower batch: member {worst} has residual {residual[worst]:.3g}, relative to each state's value, after "
        f"{max_iterations} Newton iterations; raise max_iterations or solve it alone to see its status"
    )


def over_actions(ufunc: np.ufunc, values: FloatArray) -> FloatArray:
    """Return `ufunc.reduce` over the last axis, (B, S, 1), with the same bits."""
    actions = values.shape[2]
    if actions >= 8:  # NumPy sums fewer numbers one after the other, and more of them in pairs
        return np.asarray(ufunc.reduce(values, axis=2, keepdims=True))
    # NumPy reduces along a short last axis row by row; action after action it takes all states at once.
    found: FloatArray = values[:, :, :1].copy()
    for action in range(1, actions):
        ufunc(found, values[:, :, action : action + 1], out=found)
    return found


def discounted_systems(
    kernel: FloatArray, policy: FloatArray, discount: float, memory: FloatArray | None = None
) -> FloatArray:
    """Return I - γ P_π (B, S, S) for kernels (B or 1, S, A, S) and policies (B, S, A), in the memory given."""
    batch, states, _ = policy.shape
    out = None if memory is None else memory[:batch, :, None, :]
    system = np.matmul(policy[:, :, None, :], kernel, out=out)[:, :, 0, :]
    # In place: for many members these are the largest arrays.
    system *= -discount
    system.reshape(batch, -1)[:, :: states + 1] += 1.0
    return system


def stacked_ahead(kernel: FloatArray, value: FloatArray) -> FloatArray:
    """Return Σ_s' P V (B, S, A) for kernels (B or 1, S, A, S) and values (B, S)."""
    count, states, actions, _ = kernel.shape
    rows = kernel.reshape(count, states * actions, states)
    product: FloatArray = value @ rows[0].T if count == 1 else np.matmul(rows, value[:, :, None])
    return product.reshape(len(value), states, actions)
