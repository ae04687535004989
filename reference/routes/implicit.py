"""Implicit differentiation with adjoints: the linearised objective, pulled back to θ part by part."""

from __future__ import annotations

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.game.linearise import linearise_game
from bilevelrl.reference.lqr.linearise import linearise_lqr
from bilevelrl.reference.lqr_game.linearise import linearise_lqr_game
from bilevelrl.reference.problem import (
    INFINITE_HORIZON,
    At,
    Linearisation,
    Objective,
    Part,
    Problem,
    error_bound,
    linearise,
    when_read,
)
from bilevelrl.reference.registry import Hypergradient, register_route
from bilevelrl.reference.tabular.linearise import linearise_tabular

__all__ = ["implicit", "linearise_game", "linearise_lqr", "linearise_lqr_game", "linearise_tabular", "pulled_back"]


@register_route(
    "implicit",
    linearise,
    summary="implicit differentiation: an adjoint linear system for each player",
    family="linear algebra, adjoint",
    accuracy="rounding times conditioning",
)
def implicit(
    at: At[Problem],
    *,
    objective: Objective = INFINITE_HORIZON,
    warm_start: object = None,
    bound: bool = True,
) -> Hypergradient:
    """∇J by implicit differentiation, for every kind of problem that can be linearised."""
    return pulled_back(at, linearise(at, objective, warm_start=warm_start), objective, "implicit", bound)


def pulled_back(at: At[Problem], found: Linearisation, objective: Objective, route: str, bound: bool) -> Hypergradient:
    """Return the hypergradient with a linearised objective's cotangents pulled back to θ."""
    bounds = found.error_bound or (lambda at: error_bound(at, found.follower, objective))
    parts: dict[Part, FloatArray] = {part: at.pullback(entries) for part, entries in found.cotangents.items()}
    return Hypergradient(
        value=sum(parts.values(), np.zeros(at.theta.size)),
        parts=parts,
        objective=found.objective,
        residual=found.follower.residual,
        condition_source=found.condition,
        error_bound_source=when_read(at, bounds) if bound else np.inf,
        route=route,
        follower=found.follower,
        status=found.follower.status.value + found.linear_solver,
        counters=found.counters,
    )
