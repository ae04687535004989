"""The objective of linear-quadratic games with θ split by where it enters, written for autograd.

The follower's equation is solved by sweeps or by the package's primitives, as in `bilevelrl.reference.lqr.traced`.
"""

from __future__ import annotations

import autograd.numpy as anp
import numpy as np

from bilevelrl.reference.arrays import Traced
from bilevelrl.reference.lqr.follower import LQRFollower
from bilevelrl.reference.lqr.rounding import plain
from bilevelrl.reference.lqr.traced import by_primitive, by_sweeps, traced_riccati
from bilevelrl.reference.lqr_game.error_bounds import lqr_game_error_bounds
from bilevelrl.reference.lqr_game.leader import SPREAD_LIMIT, game_steps, lqr_game_objective
from bilevelrl.reference.lqr_game.model import LQRGame, LQRGameAt, solve_lqr_game
from bilevelrl.reference.problem import (
    GAME_PARTS,
    AnswerBounds,
    Objective,
    TracedObjective,
    closed_form_objective,
    unrolled_objective,
)

__all__ = ["lqr_game_in_closed_form", "split_lqr_game", "unroll_lqr_game"]


def split_lqr_game(game: LQRGame, points: tuple[Traced, ...], *, unrolled: bool, objective: Objective) -> Traced:
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


def _traced(at: LQRGameAt, objective: Objective, warm_start: LQRFollower | None, *, unrolled: bool) -> TracedObjective:
    follower = solve_lqr_game(at, warm_start=warm_start)
    # It refuses what has no value; its number is not used.
    lqr_game_objective(at, objective=objective, follower=follower)
    at.problem.derivatives.confirm_trace(at.theta)

    def error_bound(at: LQRGameAt) -> AnswerBounds:
        riccati, tail = traced_riccati(at.follower_system, at.problem.discount_follower, unrolled=unrolled)
        return lqr_game_error_bounds(at, riccati.cost_to_go, objective=objective, tail=tail)

    return TracedObjective(
        label="matrices",
        parts=GAME_PARTS,
        function=lambda *points: split_lqr_game(at.problem, points, unrolled=unrolled, objective=objective),
        residual=follower.residual,
        condition=follower.riccati.amplification,
        status=follower.status.value,
        follower=follower,
        counters={},
        error_bound=error_bound,
    )


@unrolled_objective.register(LQRGame)
def unroll_lqr_game(at: LQRGameAt, objective: Objective, *, warm_start: LQRFollower | None = None) -> TracedObjective:
    """Return the objective by every Riccati sweep and every step of the leader's evaluation; errors as `unroll_lqr`."""
    return _traced(at, objective, warm_start, unrolled=True)


@closed_form_objective.register(LQRGame)
def lqr_game_in_closed_form(
    at: LQRGameAt, objective: Objective, *, warm_start: LQRFollower | None = None
) -> TracedObjective:
    """Return the objective by equations that SciPy solves and this package differentiates."""
    return _traced(at, objective, warm_start, unrolled=False)
