"""Zero-order hypergradients: Gaussian smoothing, its expectation exact by Gauss-Hermite quadrature.

One-sided, two-sided and antithetic differences along `z ~ N(0, I)`,

    (J(θ + u z) - J(θ)) z / u,     (J(θ + u z) - J(θ - u z)) z / 2u,

have one expectation, the gradient of the smoothed objective `E J(θ + u z)`, for `E z = 0` and z has the law of -z; they
differ in variance. It is `E[J(θ + u z) z] / u`, off from ∇J by `u²/2 ∇ΔJ` and more, and rounding leaves
`ε |J| / u` of each difference.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.polynomial.hermite_e import hermegauss

from bilevelrl.reference.approximations.approximation import Approximation, register_approximation
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import InvalidInputError, NotConvergedError, TooLargeError, refusal
from bilevelrl.reference.problem import Objective, evaluate_objective
from bilevelrl.reference.tabular.model import TabularAt

__all__ = ["smoothed_gradient"]

NODES = {1: (61, 45), 2: (25, 19)}
"""Nodes per direction by the number of directions, of the grid that answers and of one that it must agree with."""

AGREED = 1e-6
"""Of the answer: what the two grids may differ by."""


def smoothed_gradient(at: TabularAt, objective: Objective, knob: float) -> FloatArray:
    """Return the gradient of the objective smoothed with standard deviation u.

    Raises
    ------
    InvalidInputError
        If u is no positive number, or so small that rounding is a tenth of the differences.
    TooLargeError
        If θ has too many entries for a grid.
    NotConvergedError
        If J bends between the nodes.
    """
    remedy = "smooth over the scale on which J bends"
    if isinstance(knob, bool) or not 0.0 < knob < np.inf:
        raise InvalidInputError(refusal("knob", knob, "a positive number", remedy))
    count = at.theta.size
    if count not in NODES:
        raise TooLargeError(f"theta of {count} entries: expected at most {max(NODES)} for a grid; sample it")
    fine, coarse = (_by_quadrature(at, objective, float(knob), nodes) for nodes in NODES[count])
    apart = float(np.abs(fine - coarse).max(initial=0.0))
    if not apart <= AGREED * float(np.abs(fine).max(initial=0.0)):
        raise NotConvergedError(
            f"knob={knob}: two grids differ by {apart:.2g}, J bends between their nodes; smooth less"
        )
    return fine


def _by_quadrature(at: TabularAt, objective: Objective, u: float, nodes: int) -> FloatArray:
    places, weights = hermegauss(nodes)
    points = np.array(list(product(places, repeat=at.theta.size)))
    chances = np.prod(list(product(weights / weights.sum(), repeat=at.theta.size)), axis=1)
    base = evaluate_objective(at, objective=objective)
    moved = [at.problem.at(at.theta + u * z.reshape(at.theta.shape)) for z in points]
    gains = np.array([evaluate_objective(point, objective=objective) for point in moved]) - base
    rounded = 64.0 * float(np.finfo(np.float64).eps) * abs(base)
    if rounded > 0.1 * np.abs(gains).max(initial=0.0) > 0.0:
        remedy = "smooth over the scale on which J bends"
        raise InvalidInputError(refusal("knob", u, f"more: rounding is {rounded:.2g} of each J", remedy))
    result: FloatArray = (chances * gains) @ points / u
    return result


register_approximation(
    Approximation(
        name="smoothing",
        summary="the gradient of J smoothed by Gaussian noise: what all zero-order differences have for a mean",
        knob="u",
        knobs=(1.0, 0.3, 0.1, 0.03, 0.01),
        geometric=False,
        rate=lambda at: 2.0,
        source="Nesterov and Spokoiny (2017); in bi-level RL: arXiv:2406.01575",
        function=smoothed_gradient,
    )
)
