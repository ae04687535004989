"""Many followers at once: Newton's method on stacked LAPACK systems, the same answers as one by one."""

from __future__ import annotations

import numpy as np

from bilevelrl.reference.arrays import FloatArray, check_shape, check_thetas
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, NotConvergedError
from bilevelrl.reference.tabular.fixed_point import check_stopping, reward_centres, state_scale
from bilevelrl.reference.tabular.model import ConfigurableMDP
from bilevelrl.reference.tabular.transitions import SparseTransition

__all__ = [
    "newton_batch",
    "solve_followers",
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
    check_stopping(tolerance, max_iterations)
    batch, states, actions = reward.shape
    centre = reward_centres(kernel, reward)
    reward, offset = reward - centre[:, None, None], centre / (1.0 - discount)
    rows = kernel.reshape(kernel.shape[0], states * actions, states)
    value = np.zeros((batch, states)) if warm_start is None else np.asarray(warm_start, np.float64) - offset[:, None]
    eps = np.finfo(np.float64).eps
    best, wanted = np.full(batch, np.inf), tolerance * (1.0 - discount)
    for _ in range(max_iterations + 1):
        action_value = reward + discount * _ahead(rows, value, reward.shape)
        largest = action_value.max(axis=2, keepdims=True)
        weights = np.exp((action_value - largest) / temperature)
        total = weights.sum(axis=2, keepdims=True)
        policy = weights / total
        backed_up = (largest + temperature * np.log(total))[:, :, 0]
        change = backed_up - value
        off, scale = np.abs(change), state_scale(backed_up, temperature)
        residual = (off / scale).max(axis=1)
        done = residual <= wanted
        stalled = ~done & (residual >= 0.5 * best)
        if stalled.any():
            size = np.abs(reward) + discount * _ahead(rows, np.abs(value), reward.shape)
            level = (states + actions + 8) * eps * (np.vecdot(policy, size) + scale)
            done |= stalled & (off <= level).all(axis=1)
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
    worst = int(np.argmax(residual))
    raise NotConvergedError(
        f"follower batch: member {worst} has residual {residual[worst]:.3g}, relative to each state's value, after "
        f"{max_iterations} Newton iterations; raise max_iterations or solve it alone to see its status"
    )


def _ahead(rows: FloatArray, value: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """Return Σ_s' P V for kernel rows (B or 1, S·A, S) and values (B, S), (B, S, A)."""
    if rows.shape[0] == 1:
        result: FloatArray = (value @ rows[0].T).reshape(shape)
    else:
        result = np.matmul(rows, value[:, :, None]).reshape(shape)
    return result
