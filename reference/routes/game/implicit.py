"""Implicit differentiation for Markov games: an adjoint linear system for each player.

The leader's weights `q = Σ_t γ_L^t Pr(s_t) reach g B / β` are the cotangent of Q at the follower's decision points, and

    λ = (I - γ_F P_{f,g}ᵀ)^{-1} γ_F Σ q K

is the cotangent of the follower's value before anybody moves. Both players' parts are cotangents of f_θ:

    policy             Σ_t γ_L^t Pr(s_t) V_L(s, l)
    response, seeing   λ(s) V_F(s, l)
    response, blind    Σ_a (q(s,a) + λ(s) g(a|s)) Q_F(s, l, a)

so that one forward pass of the leader's policy and two backward passes are all that depends on the number of
parameters.
"""

from __future__ import annotations

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.game.error_bounds import game_error_bound
from bilevelrl.reference.game.follower import DecisionPoints, GameFollower, solve_decisions
from bilevelrl.reference.game.leader import evaluate_game_leader
from bilevelrl.reference.game.model import MarkovGame
from bilevelrl.reference.objective import INFINITE_HORIZON, Objective
from bilevelrl.reference.on_demand import AnswerBounds, when_read
from bilevelrl.reference.problem import Part
from bilevelrl.reference.registry import Hypergradient, register_route
from bilevelrl.reference.tabular.transitions import DiscountedSystem

__all__ = ["game_implicit"]


@register_route(
    "implicit",
    MarkovGame,
    summary="implicit differentiation: an adjoint linear system for each player",
    family="linear algebra, adjoint",
    accuracy="rounding times conditioning",
)
def game_implicit(
    problem: MarkovGame,
    theta: FloatArray,
    *,
    objective: Objective = INFINITE_HORIZON,
    warm_start: GameFollower | None = None,
    bound: bool = True,
) -> Hypergradient:
    """∇J of a Markov game by implicit differentiation; see the module's formulas."""
    policy = problem.policy_at(theta)
    points = DecisionPoints.of(problem, policy)
    follower = solve_decisions(problem, points, warm_start=warm_start)
    response, discount = follower.response, problem.discount_follower
    system = DiscountedSystem.factorise(points.chain(response), discount)
    evaluation = evaluate_game_leader(problem, policy, points, response, objective=objective, follower_system=system)
    cotangent = evaluation.response_weight / problem.temperature
    adjoint = system.solve_transposed(discount * points.pushed(cotangent))
    if problem.follower_sees_leader_action:
        heard = adjoint[:, None] * follower.centred_value
    else:
        heard = np.vecdot(cotangent + adjoint[:, None, None] * response, follower.centred_action_value)
    # Σ_l ∇f = 0: taking the mean off changes nothing and saves digits.
    heard = heard - np.vecdot(policy, heard)[:, None]
    moved, responded = problem.policy_pullback(theta, np.stack([evaluation.policy_weight, heard]))
    parts: dict[Part, FloatArray] = {
        "policy": moved,
        "response": responded,
        "regulariser": problem.regulariser_gradient(theta),
    }

    def error_bound() -> AnswerBounds:
        return game_error_bound(
            problem,
            theta,
            policy=policy,
            points=points,
            response=response,
            state_value=follower.centred_state_value,
            objective=objective,
            errors=follower.errors_on_demand(),
        )

    return Hypergradient(
        value=sum(parts.values(), np.zeros(theta.size)),
        parts=parts,
        objective=evaluation.objective + problem.regulariser_at(theta),
        residual=follower.residual,
        condition=system.condition(),
        error_bound_source=when_read(problem.policy_at, theta, policy, error_bound) if bound else np.inf,
        route="implicit",
        follower=follower,
        status=follower.status.value,
        counters={
            "sweeps": follower.sweeps,
            "factorisations": follower.linear_solves
            + (1 if objective.horizon or problem.discount_leader == discount else 2),
            "linear_solves": follower.linear_solves + (1 if objective.horizon else 3),
        },
    )
