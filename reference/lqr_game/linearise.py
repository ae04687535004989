"""The objective of a linear-quadratic game linearised in the leader's policy, through one adjoint Lyapunov equation.

The leader's evaluation gives the cotangents of the chain and of the follower's G and Σ in closed form; the latter
two go back through the Riccati equation (`response_cotangents`),

    Λ = P̄ + γ_F A_c Λ A_c'.                                                                                      (1)

NumPy only: no tape and no sweeps.
"""

from __future__ import annotations

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.lqr.follower import LQRFollower, response_cotangents
from bilevelrl.reference.lqr.solvers import symmetric
from bilevelrl.reference.lqr_game.leader import closed_loop, evaluate_game_leader
from bilevelrl.reference.lqr_game.model import LQRGame, LQRGameAt, solve_lqr_game
from bilevelrl.reference.problem import Linearisation, Objective, Part, linearise

__all__ = ["linearise_lqr_game"]


@linearise.register(LQRGame)
def linearise_lqr_game(at: LQRGameAt, objective: Objective, *, warm_start: LQRFollower | None = None) -> Linearisation:
    """Linearise the objective of a linear-quadratic game in the leader's policy; a warm start changes nothing."""
    problem, policy = at.problem, at.policy
    follower = solve_lqr_game(at, warm_start=warm_start)
    riccati = follower.riccati
    loop = closed_loop(problem, policy.gain, policy.covariance, riccati.reaction, follower.covariance)
    evaluation = evaluate_game_leader(problem, loop, objective=objective)
    b, c = problem.dynamics_action, problem.dynamics_leader
    through = loop.after_reaction @ c
    by_noise = symmetric(evaluation.noise)
    by_after = evaluation.matrix @ loop.planned.T + 2.0 * by_noise @ through @ policy.covariance @ c.T
    response = response_cotangents(  # (1)
        riccati,
        b,
        problem.discount_follower,
        reaction=-b.T @ by_after,
        covariance=b.T @ by_noise @ b,
        temperature=problem.temperature,
    )
    cotangents: dict[Part, dict[str, FloatArray]] = {
        "policy": {"gain": through.T @ evaluation.matrix, "covariance": through.T @ by_noise @ through},
        "response": {"gain": c.T @ response.dynamics_state},
        "regulariser": {"regulariser": np.ones(())},
    }

    return Linearisation(
        objective=evaluation.objective + float(policy.regulariser),
        cotangents=cotangents,
        follower=follower,
        condition=riccati.amplification,
        counters={"doublings": riccati.iterations, "steps": len(evaluation.reward)},
    )
