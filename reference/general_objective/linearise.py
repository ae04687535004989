"""A general objective linearised: its two cotangents enter the follower's adjoint where a return's benefit does.

To first order a visit of s pays u(s) = c ∂f/∂d(s), and moving the policy there pays ∂f/∂π as well. With V_u, d_u and
B_u the values, the occupancy and the benefits of the return of u,

    cotangent of log π(a|s)   =  Σ_t w_t Pr(s_t=s) π(a|s) B_u(s,a)  +  π(a|s) (∂f/∂π(a|s) - Σ_a' π ∂f/∂π(a'|s)),   (1)

and from there on the response is an ordinary MDP's (`reference.tabular.linearise`). Initial law and dynamics enter as
in the return of u; the direct part is ∂f/∂θ.
"""

from __future__ import annotations

import numpy as np

from bilevelrl.reference.general_objective.model import GeneralAt, GeneralObjective
from bilevelrl.reference.general_objective.response import play
from bilevelrl.reference.problem import Linearisation, Objective, linearise
from bilevelrl.reference.tabular.follower import TabularFollower, solve_tabular
from bilevelrl.reference.tabular.linearise import leader_cotangents, response_cotangents
from bilevelrl.reference.tabular.transitions import DiscountedSystem, policy_transition

__all__ = ["linearise_general"]


@linearise.register(GeneralObjective)
def linearise_general(
    at: GeneralAt, objective: Objective, *, warm_start: TabularFollower | None = None
) -> Linearisation:
    """Linearise a general objective in the tables of its process and in θ itself."""
    process = at.process
    follower = solve_tabular(process, warm_start=warm_start)
    policy = follower.policy
    system = DiscountedSystem.factorise(
        policy_transition(process.tables.transition, policy), at.problem.discount_follower
    )
    played = play(at, policy, objective, system=system)
    by_policy = played.slopes.policy
    weight = played.evaluation.benefit_weight + policy * (by_policy - np.vecdot(policy, by_policy)[:, None])  # (1)
    return Linearisation(
        objective=played.objective,
        cotangents={
            **leader_cotangents(process, policy, played.evaluation),
            "direct": {"theta": played.slopes.theta},
            "response": response_cotangents(process, follower, system, weight),
        },
        follower=follower,
        condition=system.condition(),
        counters={"sweeps": follower.sweeps, "linear_solves": follower.linear_solves + (1 if objective.horizon else 4)},
    )
