"""Reverse mode through the unrolled solver: the definition of the truth.

Each kind of problem writes its solver's and the leader's sweeps out anew, traceable, as a function of one θ per part,
so that one reverse pass gives every part.
"""

from __future__ import annotations

import autograd
import autograd.numpy as anp
import numpy as np

from bilevelrl.reference.arrays import FloatArray, Traced
from bilevelrl.reference.derivatives.array_values import tracing
from bilevelrl.reference.errors import NotConvergedError
from bilevelrl.reference.game.unrolled import unroll_game
from bilevelrl.reference.lqr.traced import unroll_lqr
from bilevelrl.reference.lqr_game.traced import unroll_lqr_game
from bilevelrl.reference.problem import (
    INFINITE_HORIZON,
    At,
    Objective,
    Part,
    Problem,
    TracedObjective,
    unrolled_objective,
    when_read,
)
from bilevelrl.reference.registry import Hypergradient, register_route
from bilevelrl.reference.tabular.unrolled import unroll_tabular

__all__ = ["reverse_mode", "unroll_game", "unroll_lqr", "unroll_lqr_game", "unroll_tabular", "unrolled"]


@register_route(
    "unrolled",
    unrolled_objective,
    summary="reverse mode (autograd) through the unrolled solver and evaluation",
    family="autograd sweeps",
    accuracy="truncation of the sweeps (1e-13 of the largest term) plus rounding",
)
def unrolled(
    at: At[Problem], *, objective: Objective = INFINITE_HORIZON, warm_start: object = None, bound: bool = True
) -> Hypergradient:
    """∇J by reverse-mode differentiation through every sweep of the follower's and the leader's solver.

    Raises
    ------
    TooLargeError
        If the tape would be too large.
    """
    return reverse_mode(at, unrolled_objective(at, objective, warm_start=warm_start), "unrolled", bound)


def reverse_mode(at: At[Problem], traced: TracedObjective, route: str, bound: bool) -> Hypergradient:
    """Differentiate a traced objective in one reverse pass."""

    def split(*points: Traced) -> Traced:
        return traced.function(*points) + 0.0 * sum(anp.sum(point) for point in points)

    count = len(traced.parts)
    with tracing(traced.label):
        earned, gradients = autograd.value_and_grad(split, tuple(range(count)))(*[at.theta] * count)
        parts: dict[Part, FloatArray] = {
            part: np.asarray(pulled, dtype=np.float64).ravel()
            for part, pulled in zip(traced.parts, gradients, strict=True)
        }
    if not np.isfinite(earned) or not all(np.isfinite(gradient).all() for gradient in parts.values()):
        raise NotConvergedError(
            f"differentiated sweeps: the objective or a derivative is not finite; check the {traced.label}"
        )
    return Hypergradient(
        value=sum(parts.values(), np.zeros(at.theta.size)),
        parts=parts,
        objective=float(earned) + traced.constant,
        residual=traced.residual,
        condition_source=traced.condition,
        error_bound_source=when_read(at, traced.error_bound) if bound else np.inf,
        route=route,
        follower=traced.follower,
        status=traced.status,
        counters=traced.counters,
    )
