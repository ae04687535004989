"""The objective of a configurable LQR linearised in its matrices: one adjoint Lyapunov equation through the follower.

The leader's evaluation gives the cotangents of the matrices and of the follower's K and Σ in closed form; the latter
two go back through the Riccati equation (`response_cotangents`),

    Λ = P̄ + γ_F A_c Λ A_c'.                                                                                      (1)

NumPy only: no tape and no sweeps.
"""

from __future__ import annotations

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.lqr.follower import LQRFollower, response_cotangents, solve_lqr
from bilevelrl.reference.lqr.leader import evaluate_lqr_leader
from bilevelrl.reference.lqr.model import ConfigurableLQR, LQRAt
from bilevelrl.reference.problem import PARTS, Linearisation, Objective, Part, linearise

__all__ = ["linearise_lqr"]


@linearise.register(ConfigurableLQR)
def linearise_lqr(at: LQRAt, objective: Objective, *, warm_start: LQRFollower | None = None) -> Linearisation:
    """Linearise the objective of a configurable LQR in its matrices; a warm start changes nothing."""
    problem, matrices = at.problem, at.matrices
    discount = problem.discount_follower
    follower = solve_lqr(at, warm_start=warm_start)
    riccati = follower.riccati
    evaluation = evaluate_lqr_leader(
        matrices,
        follower.gain,
        follower.covariance,
        problem.discount_leader,
        objective=objective,
    )
    by_gain, by_covariance = evaluation.policy_cotangents(matrices, follower.gain)
    response = response_cotangents(  # (1)
        riccati,
        matrices.dynamics_action,
        discount,
        reaction=by_gain @ matrices.dynamics_state.T,
        covariance=by_covariance,
        temperature=problem.temperature,
    )
    cotangents: dict[Part, dict[str, FloatArray]] = {
        **evaluation.matrix_cotangents(matrices, follower.gain, follower.covariance),
        "response": {
            "dynamics_state": response.dynamics_state + riccati.reaction.T @ by_gain,
            "dynamics_action": response.dynamics_action,
            "cost_state_follower": response.cost_state,
            "cost_action_follower": response.cost_action,
        },
    }

    return Linearisation(
        objective=evaluation.objective,
        cotangents={part: cotangents[part] for part in PARTS},
        follower=follower,
        condition=riccati.amplification,
        counters={"doublings": riccati.iterations, "lyapunov_solves": 5 if objective.horizon is None else 3},
    )
