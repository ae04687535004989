"""The reduction route: a Markov game's hypergradient as that of the configurable MDP it is.

Nothing of the game's own Bellman code enters but where the error is bounded; the price is a kernel over (s, l) and its
vector-Jacobian products.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.game.decisions import game_reward_centre
from bilevelrl.reference.game.error_bounds import follower_error_bound
from bilevelrl.reference.game.follower import GameFollower, solve_game
from bilevelrl.reference.game.model import GameAt, MarkovGame
from bilevelrl.reference.game.reduction import reduce_game
from bilevelrl.reference.problem import INFINITE_HORIZON, AnswerBounds, Objective, Part, when_read
from bilevelrl.reference.registry import Hypergradient, register_route
from bilevelrl.reference.routes.implicit import implicit

__all__ = ["game_reduction"]


@register_route(
    "reduction",
    MarkovGame,
    summary="the implicit route of the configurable MDP that the game reduces to",
    family="reduction",
    accuracy="rounding times conditioning",
)
def game_reduction(
    at: GameAt,
    *,
    objective: Objective = INFINITE_HORIZON,
    warm_start: GameFollower | None = None,
    bound: bool = True,
) -> Hypergradient:
    """∇J of a Markov game through `reduce_game`. A warm start is ignored: its states are others."""
    # Averaging large constant rewards over f would round them: they come off first, and move no derivative.
    problem, theta = at.problem, at.theta
    constant = game_reward_centre(problem.transition, problem.reward_leader)
    centred = replace(
        problem,
        reward_leader=problem.reward_leader - constant,
        reward_follower=problem.reward_follower - game_reward_centre(problem.transition, problem.reward_follower),
        verify_derivatives=False,
    )
    problem.derivatives.confirm_trace(theta)
    solved = implicit(reduce_game(centred).at(theta), objective=objective, warm_start=None, bound=bound)
    direct: tuple[Part, ...] = ("initial", "direct", "transition")

    parts: dict[Part, FloatArray] = {
        "policy": sum((solved.parts[part] for part in direct), np.zeros(theta.size)),
        "response": solved.parts["response"],
        "regulariser": solved.parts["regulariser"],
    }
    offset = objective.constant_return(constant, problem.discount_leader)

    def error_bound(at: GameAt) -> AnswerBounds:
        """What the reduction's answer is off by, and what its tables, products and averages rounded, leave of it."""
        rounded = follower_error_bound(at, solve_game(at), objective)
        return AnswerBounds(solved.error_bound + rounded.gradient, solved.objective_error_bound + rounded.objective)

    return Hypergradient(
        value=solved.value,
        parts=parts,
        objective=solved.objective + offset,
        residual=solved.residual,
        condition_source=solved.condition_source,
        error_bound_source=when_read(at, error_bound) if bound else np.inf,
        route="reduction",
        status=solved.status,
        counters=solved.counters,
    )
