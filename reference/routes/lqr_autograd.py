"""Two routes through autograd: "unrolled" sweeps, and the "closed_form" with own Riccati and Lyapunov primitives."""

from __future__ import annotations

from typing import Any

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.follower import solve_follower
from bilevelrl.reference.leader import check_horizon
from bilevelrl.reference.lqr import ConfigurableLQR
from bilevelrl.reference.lqr_follower import LQRFollower
from bilevelrl.reference.lqr_game import LQRGame
from bilevelrl.reference.problem import GAME_PARTS, PARTS
from bilevelrl.reference.registry import Hypergradient, leader_objective, register_route
from bilevelrl.reference.routes.lqr_split import differentiate_split, split_game, split_lqr

__all__ = ["lqr_closed_form", "lqr_unrolled"]


def _differentiate(problem: Any, theta: FloatArray, route: str, horizon: int | None, discounted: bool) -> Hypergradient:
    check_horizon(horizon, discounted)
    # These refuse what cannot be solved or has no value; their numbers are not used.
    follower: LQRFollower = solve_follower(problem, theta)
    leader_objective(problem, theta, horizon=horizon, discounted=discounted, follower=follower)
    game = isinstance(problem, LQRGame)
    split: Any = split_game if game else split_lqr
    objective, parts = differentiate_split(
        lambda points: split(problem, points, unrolled=route == "unrolled", horizon=horizon, discounted=discounted),
        GAME_PARTS if game else PARTS,
        theta,
    )
    return Hypergradient(
        value=sum(parts.values(), np.zeros(theta.size)),
        parts=parts,
        objective=objective,
        residual=follower.residual,
        condition=follower.riccati.amplification,
        error_bound=np.inf,
        route=route,
        status=follower.status.value,
    )


def lqr_unrolled(
    problem: Any,
    theta: FloatArray,
    *,
    horizon: int | None = None,
    discounted: bool = True,
    warm_start: LQRFollower | None = None,
    bound: bool = True,
) -> Hypergradient:
    """∇J by reverse mode through every Riccati sweep and every step of the leader's evaluation.

    Raises
    ------
    TooLargeError
        If more sweeps than `SWEEP_LIMIT` would be needed.
    """
    return _differentiate(problem, theta, "unrolled", horizon, discounted)


def lqr_closed_form(
    problem: Any,
    theta: FloatArray,
    *,
    horizon: int | None = None,
    discounted: bool = True,
    warm_start: LQRFollower | None = None,
    bound: bool = True,
) -> Hypergradient:
    """∇J of the closed-form objective by reverse mode: equations solved by SciPy, differentiated by this package."""
    return _differentiate(problem, theta, "closed_form", horizon, discounted)


for _kind in (ConfigurableLQR, LQRGame):
    register_route(
        "unrolled",
        _kind,
        summary="reverse mode (autograd) through the unrolled solver and evaluation",
        family="autograd sweeps",
        accuracy="truncation of the sweeps plus rounding",
    )(lqr_unrolled)
    register_route(
        "closed_form",
        _kind,
        summary="reverse mode through the closed-form objective, with own derivatives of the equations' solutions",
        family="autograd primitives",
        accuracy="rounding times conditioning",
    )(lqr_closed_form)
