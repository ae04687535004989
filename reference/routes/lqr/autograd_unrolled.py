"""Two routes through autograd: "unrolled" sweeps, and the "closed_form" with own Riccati and Lyapunov primitives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bilevelrl.reference.lqr.error_bounds import LeaderSweeps, lqr_error_bounds
from bilevelrl.reference.lqr.follower import LQRFollower, solve_lqr
from bilevelrl.reference.lqr.leader import lqr_leader_objective
from bilevelrl.reference.lqr.matrices import LQRMatrices
from bilevelrl.reference.lqr.model import ConfigurableLQR, LQRAt
from bilevelrl.reference.lqr.response_errors import Tail
from bilevelrl.reference.lqr.solvers import RiccatiSolution, solve_riccati
from bilevelrl.reference.lqr_game.error_bounds import lqr_game_error_bounds
from bilevelrl.reference.lqr_game.leader import lqr_game_objective
from bilevelrl.reference.lqr_game.model import LQRGame, LQRGameAt, solve_lqr_game
from bilevelrl.reference.objective import INFINITE_HORIZON, Objective
from bilevelrl.reference.on_demand import AnswerBounds, when_read
from bilevelrl.reference.problem import GAME_PARTS, PARTS
from bilevelrl.reference.registry import Hypergradient, register_route
from bilevelrl.reference.routes.lqr.split import (
    differentiate_split,
    leader_sweeps,
    riccati_sweeps,
    split_game,
    split_lqr,
)

__all__ = ["lqr_closed_form", "lqr_unrolled"]


def _differentiate(
    at: LQRAt | LQRGameAt,
    route: str,
    objective: Objective,
    warm_start: LQRFollower | None,
    bound: bool,
) -> Hypergradient:
    # These refuse what cannot be solved or has no value; their numbers are not used.
    problem, theta = at.problem, at.theta
    follower: LQRFollower
    if isinstance(at, LQRGameAt):
        follower = solve_lqr_game(at, warm_start=warm_start)
        lqr_game_objective(at, objective=objective, follower=follower)
    else:
        follower = solve_lqr(at, warm_start=warm_start)
        lqr_leader_objective(at, objective=objective, follower=follower)
    problem.derivatives.confirm_trace(theta)
    game = isinstance(at, LQRGameAt)
    split: Any = split_game if game else split_lqr
    earned, parts = differentiate_split(
        lambda points: split(problem, points, unrolled=route == "unrolled", objective=objective),
        GAME_PARTS if game else PARTS,
        theta,
    )

    return Hypergradient(
        value=sum(parts.values(), np.zeros(theta.size)),
        parts=parts,
        objective=earned,
        residual=follower.residual,
        condition=follower.riccati.amplification,
        error_bound_source=when_read(at, lambda at: _error_bound(at, route, objective)) if bound else np.inf,
        route=route,
        follower=follower,
        status=follower.status.value,
    )


def _error_bound(at: LQRAt | LQRGameAt, route: str, objective: Objective) -> AnswerBounds:
    """The bounds for what the tape holds: P by SciPy's solver, or by as many sweeps as there are on it."""
    game = isinstance(at, LQRGameAt)
    discount = at.problem.discount_follower
    system = at.follower_system
    options: dict[str, Any] = {"objective": objective}
    if route == "closed_form":
        riccati = solve_riccati(*system, discount, method="scipy")
        if not game:
            options["method"] = "scipy"
    else:
        earlier, later = riccati_sweeps(*system, discount)
        riccati = solve_riccati(*system, discount, method="sweeps", stop_after=earlier + later)
        options["tail"] = Tail.of(*system, discount, earlier=earlier, later=later)
        if isinstance(at, LQRAt) and objective.horizon is None:
            options["sweeps"] = _leader_sweeps(at.matrices, riccati, at.problem.discount_leader)
    bounds: Callable[..., AnswerBounds] = lqr_game_error_bounds if game else lqr_error_bounds
    return bounds(at, riccati.cost_to_go, **options)


def _leader_sweeps(matrices: LQRMatrices, riccati: RiccatiSolution, discount: float) -> LeaderSweeps:
    loop, gain = riccati.closed_loop, riccati.gain
    cost = matrices.cost_state_leader + gain.T @ matrices.cost_action_leader @ gain
    count = 2 * leader_sweeps(loop, cost, discount)
    to_go = np.zeros_like(cost)
    for _ in range(count):
        to_go = cost + discount * loop.T @ to_go @ loop
    return LeaderSweeps(count=count, cost_to_go=to_go)


def lqr_unrolled(
    at: LQRAt | LQRGameAt,
    *,
    objective: Objective = INFINITE_HORIZON,
    warm_start: LQRFollower | None = None,
    bound: bool = True,
) -> Hypergradient:
    """∇J by reverse mode through every Riccati sweep and every step of the leader's evaluation.

    Raises
    ------
    TooLargeError
        If more sweeps than `SWEEP_LIMIT` would be needed.
    """
    return _differentiate(at, "unrolled", objective, warm_start, bound)


def lqr_closed_form(
    at: LQRAt | LQRGameAt,
    *,
    objective: Objective = INFINITE_HORIZON,
    warm_start: LQRFollower | None = None,
    bound: bool = True,
) -> Hypergradient:
    """∇J of the closed-form objective by reverse mode: equations solved by SciPy, differentiated by this package."""
    return _differentiate(at, "closed_form", objective, warm_start, bound)


for _kind in (ConfigurableLQR, LQRGame):
    register_route(
        "unrolled",
        _kind,
        summary="reverse mode (autograd) through the unrolled solver and evaluation",
        family="autograd sweeps",
        accuracy="error_bound: truncation of the sweeps plus rounding",
    )(lqr_unrolled)
    register_route(
        "closed_form",
        _kind,
        summary="reverse mode through the closed-form objective, with own derivatives of the equations' solutions",
        family="autograd primitives",
        accuracy="rounding times conditioning",
    )(lqr_closed_form)
