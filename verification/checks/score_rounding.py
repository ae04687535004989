"""What rounding does to an estimate of the leader's values times scores, where both are large and the product is not.

The score ∇log p of a law is known to an ulp of what cancels in it: to 1e-16 for one state's softmax, whose score is 0.
Values of rewards that carry a constant of 1e6 make 1e-9 of that, in every estimate and in no expectation. The answer of
`implicit`, which multiplies differences of values, is better than that, and so is its bound.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from bilevelrl.reference import ConfigurableMDP, MarkovGame
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.problem import Objective
from bilevelrl.tasks import Scenario

__all__ = ["score_rounding"]

_NUDGES = (-7, -4, -2, 0, 2, 4, 7)  # units of the last place of θ: other roundings of the same slopes
_FACTOR = 20.0  # how many times the scatter of these few a rounding may be


@lru_cache(maxsize=128)
def score_rounding(on: Scenario, objective: Objective, largest: float) -> FloatArray:
    """Return (N,) how much Σ γ^t V ∇log p over streams of a tabular scenario may round; zeros for others.

    `largest` is that of |V|. An estimate, on the large side, and no proven bound: a multiple of the scatter of a
    pullback and of a Jacobian, with the largest value at each entry of a law, between neighbouring floats θ.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> bool((score_rounding(scenario("layered"), Objective(), 5.0) < 1e-12).all())
    True
    """
    problem, theta = on.problem, on.theta
    if not isinstance(problem, (ConfigurableMDP, MarkovGame)):
        return np.zeros(theta.size)
    unchecked = replace(problem, verify_derivatives=False)
    steps = objective.discount(problem.discount_leader) ** np.arange(on.horizon + 1)
    visits = {"initial": 1.0, "transition": float(steps[1:].sum()), "policy": float(steps[:-1].sum())}
    found = []
    for nudge in _NUDGES:
        point = theta + nudge * np.spacing(np.maximum(np.abs(theta), 1.0))
        jacobian = {name: slopes for name, slopes in unchecked.jacobian(point).items() if name in visits}
        weights = {name: np.full(slopes.shape[:-1], visits[name] * largest) for name, slopes in jacobian.items()}
        found.append(unchecked.pullback_at(point)(weights))
        products = (np.ravel(weights[name]) @ slopes.reshape(-1, theta.size) for name, slopes in jacobian.items())
        found.append(sum(products, np.zeros(theta.size)))
    return np.asarray(_FACTOR * np.ptp(found, axis=0))
