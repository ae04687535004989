"""The objective of linear-quadratic problems with θ split by where it enters, written for autograd.

Two ways to evaluate it share no equation solver: "closed_form" uses the package's differentiable Riccati and Lyapunov
primitives and costs-to-go that run backwards; "unrolled" sweeps, and lets the moments of the state run forwards. Each
is a function of one θ per part, in the order of the parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import autograd
import autograd.numpy as anp
import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.derivatives.array_values import tracing
from bilevelrl.reference.errors import NotConvergedError, TooLargeError
from bilevelrl.reference.lqr.matrices import LQRMatrices
from bilevelrl.reference.lqr.model import ConfigurableLQR
from bilevelrl.reference.lqr.primitives import lyapunov_primitive, riccati_primitive
from bilevelrl.reference.lqr.rounding import plain
from bilevelrl.reference.lqr.solvers import riccati_backup
from bilevelrl.reference.lqr_game.leader import SPREAD_LIMIT, game_steps
from bilevelrl.reference.lqr_game.model import LQRGame
from bilevelrl.reference.objective import Objective
from bilevelrl.reference.problem import Part

__all__ = [
    "SWEEP_LIMIT",
    "RiccatiSolve",
    "SplitFunction",
    "by_primitive",
    "by_sweeps",
    "differentiate_split",
    "leader_sweeps",
    "riccati_sweeps",
    "split_game",
    "split_lqr",
]

SWEEP_LIMIT = 20_000
"""Sweeps on one tape beyond which the unrolled route refuses."""

SplitFunction = Callable[..., Any]
RiccatiSolve = Callable[[Any, Any, Any, Any, float], Any]


def by_primitive(a: Any, b: Any, q: Any, r: Any, discount: float) -> Any:
    """P by SciPy's solver, with this package's derivative."""
    return riccati_primitive(a, b, q, r, discount, "scipy")


def by_sweeps(a: Any, b: Any, q: Any, r: Any, discount: float) -> Any:
    """P by Riccati sweeps on the tape, as many as `riccati_sweeps` says."""
    cost = q
    earlier, later = riccati_sweeps(plain(a), plain(b), plain(q), plain(r), discount)
    for _ in range(earlier + later):
        cost = riccati_backup(cost, a, b, q, r, discount, solve=anp.linalg.solve)[0]
    return cost


def riccati_sweeps(a: FloatArray, b: FloatArray, q: FloatArray, r: FloatArray, discount: float) -> tuple[int, int]:
    """Return the sweeps that settle P, and those after them that settle its derivative at that P's closed loop."""
    settled = [q]

    def sweep(cost: FloatArray) -> FloatArray:
        settled[0] = riccati_backup(cost, a, b, q, r, discount)[0]
        return settled[0]

    earlier = _settled(sweep, q)
    _, _, reaction = riccati_backup(settled[0], a, b, q, r, discount)
    return earlier, leader_sweeps(a - b @ (reaction @ a), np.zeros_like(q), discount)


def leader_sweeps(loop: FloatArray, cost: FloatArray, discount: float) -> int:
    """Return the sweeps that settle `M = cost + discount · loop' M loop`, and M for any other cost.

    A cost need not see every mode of the loop; its derivative does.
    """
    every = cost + (2.0 * float(np.abs(cost).max()) or 1.0) * np.eye(len(loop))
    return _settled(lambda m: every + discount * loop.T @ m @ loop, np.zeros_like(every))


def _settled(step: Callable[[FloatArray], FloatArray], start: FloatArray) -> int:
    """Number of plain steps until the value stands still in floating point."""
    value, best = start, np.inf
    still = 0
    for count in range(1, SWEEP_LIMIT // 2):
        updated = step(value)
        change, size = float(np.abs(updated - value).max()), float(np.abs(updated).max())
        value = updated
        if not np.isfinite(size):
            break
        still = still + 1 if change >= best else 0
        best = min(best, change)
        if change <= 1e-16 * size or (change <= 1e-13 * size and still >= 5):
            return count + 5
    raise TooLargeError(
        f"unrolled: more than {SWEEP_LIMIT} sweeps on one tape would be needed; use route='implicit' or 'closed_form'"
    )


def _quadratic(matrix: Any, covariance: Any) -> Any:
    """⟨matrix, covariance⟩."""
    return anp.sum(matrix * covariance)


def split_lqr(problem: ConfigurableLQR, points: tuple[Any, ...], *, unrolled: bool, objective: Objective) -> Any:
    """J of a configurable LQR at (θ_initial, θ_direct, θ_transition, θ_response, θ_regulariser)."""
    at_initial, at_direct, at_transition, at_response, at_regulariser = (problem.evaluate(point) for point in points)
    gain, covariance = _response(problem, at_response, by_sweeps if unrolled else by_primitive)
    a, b = at_transition.dynamics_state, at_transition.dynamics_action
    loop = a - anp.dot(b, gain)
    noise = at_transition.noise_covariance + anp.dot(anp.dot(b, covariance), b.T)
    effort = at_direct.cost_action_leader
    cost = at_direct.cost_state_leader + anp.dot(anp.dot(gain.T, effort), gain)
    step_cost = _quadratic(effort, covariance) + at_direct.cost_constant_leader
    mean = at_initial.initial_mean
    first = anp.outer(mean, mean) + at_initial.initial_covariance
    discount = objective.discount(problem.discount_leader)
    if objective.horizon is None:
        solve_leader = _leader_sweeps if unrolled else _leader_primitive
        to_go = solve_leader(loop, cost, discount)
        later = (discount * _quadratic(to_go, noise) + step_cost) / (1.0 - discount)
        return at_regulariser.regulariser - _quadratic(to_go, first) - later
    if unrolled:
        return at_regulariser.regulariser - _forwards(loop, cost, noise, step_cost, first, discount, objective.horizon)
    return at_regulariser.regulariser - _backwards(loop, cost, noise, step_cost, first, discount, objective.horizon)


def _response(problem: ConfigurableLQR, matrices: LQRMatrices, solve: RiccatiSolve) -> tuple[Any, Any]:
    a, b, r = matrices.dynamics_state, matrices.dynamics_action, matrices.cost_action_follower
    discount = problem.discount_follower
    cost = solve(a, b, matrices.cost_state_follower, r, discount)
    weighted = discount * anp.dot(b.T, cost)
    curvature = r + anp.dot(weighted, b)
    return anp.linalg.solve(curvature, anp.dot(weighted, a)), 0.5 * problem.temperature * anp.linalg.inv(curvature)


def _leader_primitive(loop: Any, cost: Any, discount: float) -> Any:
    return lyapunov_primitive(loop, cost, discount, "scipy")


def _leader_sweeps(loop: Any, cost: Any, discount: float) -> Any:
    to_go: Any = np.zeros_like(plain(cost))
    for _ in range(2 * leader_sweeps(plain(loop), plain(cost), discount)):
        to_go = cost + discount * anp.dot(anp.dot(loop.T, to_go), loop)
    return to_go


def _forwards(loop: Any, cost: Any, noise: Any, step_cost: Any, first: Any, discount: float, horizon: int) -> Any:
    total, weight, moment = 0.0, 1.0, first
    for _ in range(horizon):
        total = total + weight * (_quadratic(cost, moment) + step_cost)
        weight *= discount
        moment = anp.dot(anp.dot(loop, moment), loop.T) + noise
    return total


def _backwards(loop: Any, cost: Any, noise: Any, step_cost: Any, first: Any, discount: float, horizon: int) -> Any:
    to_go: Any = 0.0 * cost
    constant: Any = 0.0
    for _ in range(horizon):
        constant = step_cost + discount * (_quadratic(to_go, noise) + constant)
        to_go = cost + discount * anp.dot(anp.dot(loop.T, to_go), loop)
    return _quadratic(to_go, first) + constant


def split_game(game: LQRGame, points: tuple[Any, ...], *, unrolled: bool, objective: Objective) -> Any:
    """J of a linear-quadratic game at (θ_policy, θ_response, θ_regulariser)."""
    at_policy, at_response, at_regulariser = (game.policy(point) for point in points)
    a, b, c = game.dynamics_state, game.dynamics_action, game.dynamics_leader
    follower = game.discount_follower
    solve = by_sweeps if unrolled else by_primitive
    cost = solve(a + anp.dot(c, at_response.gain), b, game.cost_state, game.cost_action, follower)
    weighted = follower * anp.dot(b.T, cost)
    curvature = game.cost_action + anp.dot(weighted, b)
    after = np.eye(a.shape[0]) - anp.dot(b, anp.linalg.solve(curvature, weighted))
    spread = 0.5 * game.temperature * anp.dot(anp.dot(b, anp.linalg.inv(curvature)), b.T)
    loop = anp.dot(after, a + anp.dot(c, at_policy.gain))
    through = anp.dot(after, c)
    noise = spread + anp.dot(anp.dot(through, at_policy.covariance), through.T)
    discount = objective.discount(game.discount_leader)
    mean, law, total, weight = game.initial_mean, game.initial_covariance, 0.0, 1.0
    size = np.linalg.det(game.width)
    for _ in range(game_steps(discount, objective.horizon)):
        wide = game.width + law
        off = mean - game.target
        scale = anp.sqrt(size / anp.linalg.det(wide))
        total = total + weight * scale * anp.exp(-0.5 * anp.dot(off, anp.linalg.solve(wide, off)))
        mean, law = anp.dot(loop, mean), anp.dot(anp.dot(loop, law), loop.T) + noise
        weight *= discount
        spread = plain(law) + game.width
        if not np.max(np.abs(spread)) + np.max(np.abs(plain(mean))) < 1e50:
            break  # the loop has carried the state away for good
        if np.linalg.cond(spread) > SPREAD_LIMIT:
            break
    return total + at_regulariser.regulariser


def differentiate_split(
    split: SplitFunction, parts: tuple[Part, ...], theta: FloatArray
) -> tuple[float, dict[Part, FloatArray]]:
    """Return the objective and its gradient by part, in one reverse pass."""

    def objective(*points: Any) -> Any:
        return split(points) + 0.0 * sum(anp.sum(point) for point in points)

    points = [theta] * len(parts)
    with tracing("matrices"):
        earned, gradients = autograd.value_and_grad(objective, tuple(range(len(parts))))(*points)
        by_part: dict[Part, FloatArray] = {
            part: np.asarray(gradient, dtype=np.float64).ravel()
            for part, gradient in zip(parts, gradients, strict=True)
        }
    value = float(earned)
    if not np.isfinite(value) or not all(np.isfinite(gradient).all() for gradient in by_part.values()):
        raise NotConvergedError(
            "differentiated sweeps: the objective or a derivative is not finite; check the matrices"
        )
    return value, by_part
