"""Reverse mode through the objective in closed form, its equations solved by SciPy and differentiated here."""

from __future__ import annotations

from bilevelrl.reference.lqr.traced import lqr_in_closed_form
from bilevelrl.reference.lqr_game.traced import lqr_game_in_closed_form
from bilevelrl.reference.problem import INFINITE_HORIZON, At, Objective, Problem, closed_form_objective
from bilevelrl.reference.registry import Hypergradient, register_route
from bilevelrl.reference.routes.unrolled import reverse_mode

__all__ = ["closed_form", "lqr_game_in_closed_form", "lqr_in_closed_form"]


@register_route(
    "closed_form",
    closed_form_objective,
    summary="reverse mode through the closed-form objective, with own derivatives of the equations' solutions",
    family="autograd primitives",
    accuracy="rounding times conditioning",
)
def closed_form(
    at: At[Problem], *, objective: Objective = INFINITE_HORIZON, warm_start: object = None, bound: bool = True
) -> Hypergradient:
    """∇J of the closed-form objective by reverse mode."""
    return reverse_mode(at, closed_form_objective(at, objective, warm_start=warm_start), "closed_form", bound)
