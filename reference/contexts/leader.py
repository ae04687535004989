"""The leader's objective and hypergradient of a mixture: those of its contexts by the same route, weighted.

Routes stay as independent as they are: a mixture adds the weighted sum alone, whose rounding is part of every bound,

    |fl(Σ p x) - Σ p x| ≤ (2C + 1) ε Σ p |x|                                                                       (1)

for C contexts of positive weight: the weights' division by their sum, the products, the sums.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.contexts.follower import MixtureFollower, in_each_context
from bilevelrl.reference.contexts.model import Mixture, MixtureAt, in_context, weighted
from bilevelrl.reference.problem import (
    INFINITE_HORIZON,
    AnswerBounds,
    Objective,
    Part,
    error_bound,
    evaluate_objective,
)
from bilevelrl.reference.registry import Hypergradient, register_composed, route_function

__all__ = ["composed_hypergradient", "mixture_error_bound", "mixture_objective"]


@evaluate_objective.register(Mixture)
def mixture_objective(at: MixtureAt, *, objective: Objective = INFINITE_HORIZON, follower: object = None) -> float:
    """Σ p J, each context under its own follower."""
    found = []
    for place, own in enumerate(in_each_context(at, "follower", follower)):
        with in_context(place):
            found.append(evaluate_objective(at.contexts[place], objective=objective, follower=own))
    return weighted(at.problem.weights, found)


@error_bound.register(Mixture)
def mixture_error_bound(at: MixtureAt, follower: MixtureFollower, objective: Objective) -> AnswerBounds:
    """The weighted sum of the contexts' bounds, and the rounding of weighted sums of such size."""
    found, sizes = [], []
    for context, own in zip(at.contexts, follower.contexts, strict=True):
        found.append(error_bound(context, own, objective))
        sizes.append(abs(evaluate_objective(context, objective=objective, follower=own)))
    weights = at.problem.weights
    return AnswerBounds(
        gradient=weighted(weights, [bound.gradient for bound in found]),
        objective=weighted(weights, [bound.objective for bound in found]) + _rounding(weights, sizes),
    )


@register_composed(Mixture)
def composed_hypergradient(
    at: MixtureAt, route: str, *, objective: Objective, warm_start: object = None, bound: bool = True
) -> Hypergradient:
    """Σ p ∇J by a route that serves every context, each from a warm start of its own.

    Raises
    ------
    UnsupportedError
        If the route does not serve one of the contexts.
    """
    found: list[Hypergradient] = []
    for place, start in enumerate(in_each_context(at, "warm_start", warm_start)):
        with in_context(place):
            function = route_function(at.contexts[place].problem, route)
            found.append(function(at.contexts[place], objective=objective, warm_start=start, bound=bound))
    weights, nothing = at.problem.weights, np.zeros(at.theta.size)
    names: dict[Part, None] = dict.fromkeys(name for each in found for name in each.parts)
    parts: dict[Part, FloatArray] = {
        name: weighted(weights, [each.parts.get(name, nothing) for each in found]) for name in names
    }
    followers = tuple(each.follower for each in found if each.follower is not None)

    def bounds() -> AnswerBounds:
        steep = [max(_largest(each.value), *map(_largest, each.parts.values())) for each in found]
        return AnswerBounds(
            gradient=weighted(weights, [each.error_bound for each in found]) + _rounding(weights, steep),
            objective=weighted(weights, [each.objective_error_bound for each in found])
            + _rounding(weights, [abs(each.objective) for each in found]),
        )

    return Hypergradient(
        value=weighted(weights, [each.value for each in found]),
        parts=parts,
        objective=weighted(weights, [each.objective for each in found]),
        residual=max(each.residual for each in found),
        condition_source=lambda: max(each.condition for each in found),
        error_bound_source=bounds if bound else np.inf,
        route=route,
        follower=MixtureFollower(contexts=followers) if len(followers) == len(found) else None,
        status="; ".join(dict.fromkeys(each.status for each in found)),
        counters=dict(sum((Counter(each.counters) for each in found), Counter())),
        contexts=tuple(found),
    )


def _largest(values: FloatArray) -> float:
    return float(np.abs(values).max(initial=0.0))


def _rounding(weights: FloatArray, sizes: list[float]) -> float:
    """Bound (1); a single context of positive weight, which is one, is not rounded."""
    summed = int(np.count_nonzero(weights))
    unit = float(np.finfo(np.float64).eps)
    return 0.0 if summed == 1 else (2 * summed + 1) * unit * weighted(weights, sizes)  # (1)
