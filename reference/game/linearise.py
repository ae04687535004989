"""The objective of a Markov game linearised in the leader's policy: an adjoint linear system for each player.

The leader's weights are the cotangent q of Q at the follower's decision points, and λ is the cotangent of its value
before anybody moves:

    q = Σ_t γ_L^t Pr(s_t) reach g B / β,                                                                         (1)
    λ = (I - γ_F P_{f,g}ᵀ)^{-1} γ_F Σ q K.                                                                       (2)

Both players' parts are cotangents of f_θ:

    policy             Σ_t γ_L^t Pr(s_t) V_L(s, l)                                                               (3)
    response, seeing   λ(s) V_F(s, l)                                                                            (4)
    response, blind    Σ_a (q(s,a) + λ(s) g(a|s)) Q_F(s, l, a)                                                   (5)

so that one forward pass of the leader's policy and two backward passes are all that depends on the number of
parameters.
"""

from __future__ import annotations

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.game.follower import GameFollower, solve_game
from bilevelrl.reference.game.leader import evaluate_game_leader
from bilevelrl.reference.game.model import GameAt, MarkovGame
from bilevelrl.reference.problem import Linearisation, Objective, Part, linearise
from bilevelrl.reference.tabular.transitions import DiscountedSystem

__all__ = ["linearise_game"]


@linearise.register(MarkovGame)
def linearise_game(at: GameAt, objective: Objective, *, warm_start: GameFollower | None = None) -> Linearisation:
    """Linearise the objective of a Markov game in the leader's policy; see the module's formulas."""
    problem, policy, points = at.problem, at.policy, at.points
    follower = solve_game(at, warm_start=warm_start)
    response, discount = follower.response, problem.discount_follower
    system = DiscountedSystem.factorise(points.chain(response), discount)
    evaluation = evaluate_game_leader(at, response, objective=objective, follower_system=system)
    cotangent = evaluation.response_weight / problem.temperature  # (1)
    adjoint = system.solve_transposed(discount * points.pushed(cotangent))  # (2)
    if problem.follower_sees_leader_action:
        heard = adjoint[:, None] * follower.centred_value  # (4)
    else:
        heard = np.vecdot(cotangent + adjoint[:, None, None] * response, follower.centred_action_value)  # (5)
    # Σ_l ∇f = 0: taking the mean off changes nothing and saves digits.
    heard = heard - np.vecdot(policy, heard)[:, None]
    cotangents: dict[Part, dict[str, FloatArray]] = {
        "policy": {"policy": evaluation.policy_weight},  # (3)
        "response": {"policy": heard},
        "regulariser": {"regulariser": np.ones(())},
    }

    return Linearisation(
        objective=evaluation.objective + at.regulariser,
        cotangents=cotangents,
        follower=follower,
        condition=system.condition(),
        counters={
            "sweeps": follower.sweeps,
            "factorisations": follower.linear_solves
            + (1 if objective.horizon or problem.discount_leader == discount else 2),
            "linear_solves": follower.linear_solves + (1 if objective.horizon else 3),
        },
    )
