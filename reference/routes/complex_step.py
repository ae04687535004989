"""The complex step: Im J(θ + i h e_j) / h with h so small that nothing but the derivative is left.

Each kind of problem brings its own sweeps in complex arithmetic. The problem's function must be analytic near θ: no
abs, conj, or comparison on values.
"""

from __future__ import annotations

import numpy as np

from bilevelrl.reference.game.complex_sweeps import game_complex_parts
from bilevelrl.reference.problem import INFINITE_HORIZON, AnswerBounds, At, Objective, Problem, complex_parts, when_read
from bilevelrl.reference.registry import Hypergradient, register_route
from bilevelrl.reference.tabular.complex_sweeps import tabular_complex_parts

__all__ = ["complex_step", "game_complex_parts", "tabular_complex_parts"]

_UNDERFLOW = 1e-215  # of a derivative: steps of 1e-100 leave of it what doubles of 5e-324 can hold, in many terms


@register_route(
    "complex_step",
    complex_parts,
    summary="complex step with its own complex Bellman sweeps",
    family="complex sweeps",
    accuracy="truncation of the sweeps (1e-13 of the largest term) plus rounding",
)
def complex_step(
    at: At[Problem], *, objective: Objective = INFINITE_HORIZON, warm_start: object = None, bound: bool = True
) -> Hypergradient:
    """∇J by the complex step. A warm start is ignored.

    Raises
    ------
    InvalidInputError
        If the problem's function does not accept a complex θ or returns no finite numbers there.
    """
    found = complex_parts(at, objective)

    def error_bound(at: At[Problem]) -> AnswerBounds:
        own = found.error_bound(at)
        return own._replace(gradient=own.gradient + _UNDERFLOW)

    return Hypergradient(
        value=sum(found.parts.values(), np.zeros(at.theta.size)),
        parts=found.parts,
        objective=found.objective,
        residual=found.residual,
        condition_source=found.condition,
        error_bound_source=when_read(at, error_bound) if bound else np.inf,
        route="complex_step",
        status="converged: sweeps as many as the tolerance needs",
        counters=found.counters,
    )
