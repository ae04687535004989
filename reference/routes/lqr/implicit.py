"""Implicit differentiation of linear-quadratic problems: one adjoint Lyapunov equation through the follower.

The leader's evaluation gives the cotangents of the matrices and of the follower's K and Σ in closed form; the latter
two go back through the Riccati equation, `Λ = P̄ + γ_F A_c Λ A_c'`. NumPy only: no tape and no sweeps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.lqr.error_bounds import lqr_error_bounds
from bilevelrl.reference.lqr.follower import LQRFollower, best_response, follower_riccati, response_cotangents
from bilevelrl.reference.lqr.leader import evaluate_lqr_leader
from bilevelrl.reference.lqr.model import ConfigurableLQR
from bilevelrl.reference.lqr.solvers import symmetric
from bilevelrl.reference.lqr_game.error_bounds import lqr_game_error_bounds
from bilevelrl.reference.lqr_game.leader import closed_loop, evaluate_game_leader
from bilevelrl.reference.lqr_game.model import LQRGame, solve_lqr_game
from bilevelrl.reference.objective import INFINITE_HORIZON, Objective
from bilevelrl.reference.on_demand import when_read
from bilevelrl.reference.problem import GAME_PARTS, PARTS, Part
from bilevelrl.reference.registry import Hypergradient, register_route

__all__ = ["lqr_game_implicit", "lqr_implicit"]


@register_route(
    "implicit",
    ConfigurableLQR,
    summary="implicit differentiation: an adjoint linear system for each player",
    family="linear algebra, adjoint",
    accuracy="rounding times conditioning",
)
def lqr_implicit(
    problem: ConfigurableLQR,
    theta: FloatArray,
    *,
    objective: Objective = INFINITE_HORIZON,
    warm_start: LQRFollower | None = None,
    bound: bool = True,
) -> Hypergradient:
    """∇J of a configurable LQR; doubling starts from nothing, and a warm start changes nothing."""
    matrices = problem.matrices_at(theta)
    discount = problem.discount_follower
    riccati, _ = follower_riccati(
        matrices.dynamics_state,
        matrices.dynamics_action,
        matrices.cost_state_follower,
        matrices.cost_action_follower,
        discount,
        warm_start=warm_start,
    )
    follower = best_response(matrices, riccati, discount, problem.temperature)
    evaluation = evaluate_lqr_leader(
        matrices,
        follower.gain,
        follower.covariance,
        problem.discount_leader,
        objective=objective,
    )
    by_gain, by_covariance = evaluation.policy_cotangents(matrices, follower.gain)
    response = response_cotangents(
        riccati,
        matrices.dynamics_action,
        discount,
        reaction=by_gain @ matrices.dynamics_state.T,
        covariance=by_covariance,
        temperature=problem.temperature,
    )
    cotangents: dict[Part, dict[str, Any]] = {
        **evaluation.matrix_cotangents(matrices, follower.gain, follower.covariance),
        "response": {
            "dynamics_state": response.dynamics_state + riccati.reaction.T @ by_gain,
            "dynamics_action": response.dynamics_action,
            "cost_state_follower": response.cost_state,
            "cost_action_follower": response.cost_action,
        },
    }
    pull = problem.pullback_at(theta)
    parts: dict[Part, FloatArray] = {part: pull(cotangents[part]) for part in PARTS}

    def error_bound() -> float:
        return lqr_error_bounds(problem, theta, riccati.cost_to_go, objective=objective).gradient

    return Hypergradient(
        value=sum(parts.values(), np.zeros(theta.size)),
        parts=parts,
        objective=evaluation.objective,
        residual=riccati.residual,
        condition=riccati.amplification,
        error_bound_source=when_read(problem.matrices_at, theta, matrices, error_bound) if bound else np.inf,
        route="implicit",
        follower=follower,
        status=follower.status.value,
        counters={"doublings": riccati.iterations, "lyapunov_solves": 5 if objective.horizon is None else 3},
    )


@register_route(
    "implicit",
    LQRGame,
    summary="implicit differentiation: an adjoint linear system for each player",
    family="linear algebra, adjoint",
    accuracy="rounding times conditioning",
)
def lqr_game_implicit(
    problem: LQRGame,
    theta: FloatArray,
    *,
    objective: Objective = INFINITE_HORIZON,
    warm_start: LQRFollower | None = None,
    bound: bool = True,
) -> Hypergradient:
    """∇J of a linear-quadratic game; doubling starts from nothing, and a warm start changes nothing."""
    policy = problem.policy_at(theta)
    follower = solve_lqr_game(problem, theta, warm_start=warm_start)
    riccati = follower.riccati
    loop = closed_loop(problem, policy.gain, policy.covariance, riccati.reaction, follower.covariance)
    evaluation = evaluate_game_leader(problem, loop, objective=objective)
    b, c = problem.dynamics_action, problem.dynamics_leader
    through = loop.after_reaction @ c
    by_noise = symmetric(evaluation.noise)
    by_after = evaluation.matrix @ loop.planned.T + 2.0 * by_noise @ through @ policy.covariance @ c.T
    response = response_cotangents(
        riccati,
        b,
        problem.discount_follower,
        reaction=-b.T @ by_after,
        covariance=b.T @ by_noise @ b,
        temperature=problem.temperature,
    )
    cotangents: dict[Part, dict[str, Any]] = {
        "policy": {"gain": through.T @ evaluation.matrix, "covariance": through.T @ by_noise @ through},
        "response": {"gain": c.T @ response.dynamics_state},
        "regulariser": {"regulariser": np.ones(())},
    }
    pull = problem.pullback_at(theta)
    parts: dict[Part, FloatArray] = {part: pull(cotangents[part]) for part in GAME_PARTS}

    def error_bound() -> float:
        return lqr_game_error_bounds(problem, theta, riccati.cost_to_go, objective=objective).gradient

    return Hypergradient(
        value=sum(parts.values(), np.zeros(theta.size)),
        parts=parts,
        objective=evaluation.objective + float(policy.regulariser),
        residual=riccati.residual,
        condition=riccati.amplification,
        error_bound_source=when_read(problem.policy_at, theta, policy, error_bound) if bound else np.inf,
        route="implicit",
        follower=follower,
        status=follower.status.value,
        counters={"doublings": riccati.iterations, "steps": len(evaluation.reward)},
    )
