"""The objective of configurable LQRs with θ split by where it enters, written for autograd.

Two ways to evaluate it share no equation solver: "closed_form" uses the package's differentiable Riccati and Lyapunov
primitives and costs-to-go that run backwards; "unrolled" sweeps, and lets the moments of the state run forwards. Each
is a function of one θ per part, in the order of the parts.
"""

from __future__ import annotations

from collections.abc import Callable

import autograd.numpy as anp
import numpy as np

from bilevelrl.reference.arrays import FloatArray, Traced
from bilevelrl.reference.errors import TooLargeError
from bilevelrl.reference.lqr.error_bounds import LeaderSweeps, lqr_error_bounds
from bilevelrl.reference.lqr.follower import LQRFollower, solve_lqr
from bilevelrl.reference.lqr.leader import lqr_leader_objective
from bilevelrl.reference.lqr.matrices import LQRMatrices
from bilevelrl.reference.lqr.model import ConfigurableLQR, LQRAt
from bilevelrl.reference.lqr.response_errors import Tail
from bilevelrl.reference.lqr.riccati_derivative import lyapunov_primitive, riccati_primitive
from bilevelrl.reference.lqr.rounding import plain
from bilevelrl.reference.lqr.solvers import RiccatiSolution, riccati_backup, solve_riccati
from bilevelrl.reference.problem import (
    PARTS,
    AnswerBounds,
    Objective,
    TracedObjective,
    closed_form_objective,
    unrolled_objective,
)

__all__ = [
    "SWEEP_LIMIT",
    "RiccatiSolve",
    "by_primitive",
    "by_sweeps",
    "leader_sweeps",
    "lqr_in_closed_form",
    "riccati_sweeps",
    "split_lqr",
    "traced_riccati",
    "unroll_lqr",
]

SWEEP_LIMIT = 20_000
"""Sweeps on one tape beyond which the unrolled route refuses."""

RiccatiSolve = Callable[[Traced, Traced, Traced, Traced, float], Traced]


def by_primitive(a: Traced, b: Traced, q: Traced, r: Traced, discount: float) -> Traced:
    """P by SciPy's solver, with this package's derivative."""
    return riccati_primitive(a, b, q, r, discount, "scipy")


def by_sweeps(a: Traced, b: Traced, q: Traced, r: Traced, discount: float) -> Traced:
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


def _quadratic(matrix: Traced, covariance: Traced) -> Traced:
    """⟨matrix, covariance⟩."""
    return anp.sum(matrix * covariance)


def split_lqr(problem: ConfigurableLQR, points: tuple[Traced, ...], *, unrolled: bool, objective: Objective) -> Traced:
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


def _response(problem: ConfigurableLQR, matrices: LQRMatrices, solve: RiccatiSolve) -> tuple[Traced, Traced]:
    a, b, r = matrices.dynamics_state, matrices.dynamics_action, matrices.cost_action_follower
    discount = problem.discount_follower
    cost = solve(a, b, matrices.cost_state_follower, r, discount)
    weighted = discount * anp.dot(b.T, cost)
    curvature = r + anp.dot(weighted, b)
    return anp.linalg.solve(curvature, anp.dot(weighted, a)), 0.5 * problem.temperature * anp.linalg.inv(curvature)


def _leader_primitive(loop: Traced, cost: Traced, discount: float) -> Traced:
    return lyapunov_primitive(loop, cost, discount, "scipy")


def _leader_sweeps(loop: Traced, cost: Traced, discount: float) -> Traced:
    to_go: Traced = np.zeros_like(plain(cost))
    for _ in range(2 * leader_sweeps(plain(loop), plain(cost), discount)):
        to_go = cost + discount * anp.dot(anp.dot(loop.T, to_go), loop)
    return to_go


def _forwards(
    loop: Traced, cost: Traced, noise: Traced, step_cost: Traced, first: Traced, discount: float, horizon: int
) -> Traced:
    total, weight, moment = 0.0, 1.0, first
    for _ in range(horizon):
        total = total + weight * (_quadratic(cost, moment) + step_cost)
        weight *= discount
        moment = anp.dot(anp.dot(loop, moment), loop.T) + noise
    return total


def _backwards(
    loop: Traced, cost: Traced, noise: Traced, step_cost: Traced, first: Traced, discount: float, horizon: int
) -> Traced:
    to_go: Traced = 0.0 * cost
    constant: Traced = 0.0
    for _ in range(horizon):
        constant = step_cost + discount * (_quadratic(to_go, noise) + constant)
        to_go = cost + discount * anp.dot(anp.dot(loop.T, to_go), loop)
    return _quadratic(to_go, first) + constant


def _traced(at: LQRAt, objective: Objective, warm_start: LQRFollower | None, *, unrolled: bool) -> TracedObjective:
    follower = solve_lqr(at, warm_start=warm_start)
    # It refuses what has no value; its number is not used.
    lqr_leader_objective(at, objective=objective, follower=follower)
    at.problem.derivatives.confirm_trace(at.theta)

    def error_bound(at: LQRAt) -> AnswerBounds:
        riccati, tail = traced_riccati(at.follower_system, at.problem.discount_follower, unrolled=unrolled)
        if not unrolled:
            return lqr_error_bounds(at, riccati.cost_to_go, objective=objective, method="scipy")
        swept = objective.horizon is None
        sweeps = _swept_leader(at.matrices, riccati, at.problem.discount_leader) if swept else None
        return lqr_error_bounds(at, riccati.cost_to_go, objective=objective, tail=tail, sweeps=sweeps)

    return TracedObjective(
        label="matrices",
        parts=PARTS,
        function=lambda *points: split_lqr(at.problem, points, unrolled=unrolled, objective=objective),
        residual=follower.residual,
        condition=follower.riccati.amplification,
        status=follower.status.value,
        follower=follower,
        counters={},
        error_bound=error_bound,
    )


@unrolled_objective.register(ConfigurableLQR)
def unroll_lqr(at: LQRAt, objective: Objective, *, warm_start: LQRFollower | None = None) -> TracedObjective:
    """Return the objective by every Riccati sweep and every step of the leader's evaluation.

    Raises
    ------
    TooLargeError
        If more sweeps than `SWEEP_LIMIT` would be needed.
    """
    return _traced(at, objective, warm_start, unrolled=True)


@closed_form_objective.register(ConfigurableLQR)
def lqr_in_closed_form(at: LQRAt, objective: Objective, *, warm_start: LQRFollower | None = None) -> TracedObjective:
    """Return the objective by equations that SciPy solves and this package differentiates."""
    return _traced(at, objective, warm_start, unrolled=False)


def traced_riccati(
    system: tuple[FloatArray, FloatArray, FloatArray, FloatArray], discount: float, *, unrolled: bool
) -> tuple[RiccatiSolution, Tail | None]:
    """Return what the tape holds: P by SciPy's solver, or by as many sweeps as there are on it, and what they leave."""
    a, b, q, r = system
    if not unrolled:
        return solve_riccati(a, b, q, r, discount, method="scipy"), None
    earlier, later = riccati_sweeps(a, b, q, r, discount)
    riccati = solve_riccati(a, b, q, r, discount, method="sweeps", stop_after=earlier + later)
    return riccati, Tail.of(a, b, q, r, discount, earlier=earlier, later=later)


def _swept_leader(matrices: LQRMatrices, riccati: RiccatiSolution, discount: float) -> LeaderSweeps:
    loop, gain = riccati.closed_loop, riccati.gain
    cost = matrices.cost_state_leader + gain.T @ matrices.cost_action_leader @ gain
    count = 2 * leader_sweeps(loop, cost, discount)
    to_go = np.zeros_like(cost)
    for _ in range(count):
        to_go = cost + discount * loop.T @ to_go @ loop
    return LeaderSweeps(count=count, cost_to_go=to_go)
