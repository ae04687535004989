"""What rounding does to an estimate, where it is a small difference of large numbers.

The score ∇log p of a law is known to an ulp of what cancels in it: to 1e-16 for one state's softmax, whose score is 0.
Values of rewards that carry a constant of 1e6 make 1e-9 of that, in every estimate and in no expectation. The answer of
`implicit`, which multiplies differences of values, is better than that, and so is its bound. What else an estimate
loses, in differences of values, in the follower's gains, shows where all numbers are moved by 1e-10: what is smooth
moves along a line there, and what rounds does not. A wrong estimator's bias is smooth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from bilevelrl.reference import ConfigurableMDP, MarkovGame
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import BilevelRLError
from bilevelrl.reference.problem import Objective
from bilevelrl.tasks import Scenario

__all__ = ["mean_rounding", "moved_by", "score_rounding"]

_NUDGES = (-7, -4, -2, 0, 2, 4, 7)  # units of the last place of θ: other roundings of the same slopes
_FACTOR = 20.0  # how many times the scatter of these few a rounding may be

_SHARES = (1e-10, 2.9e-10)  # squares of them are nothing, and they are many units of the last place


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
    for point in _beside(theta):
        jacobian = {name: slopes for name, slopes in unchecked.jacobian(point).items() if name in visits}
        weights = {name: np.full(slopes.shape[:-1], visits[name] * largest) for name, slopes in jacobian.items()}
        found.append(unchecked.pullback_at(point)(weights))
        products = (np.ravel(weights[name]) @ slopes.reshape(-1, theta.size) for name, slopes in jacobian.items())
        found.append(sum(products, np.zeros(theta.size)))
    return np.asarray(_FACTOR * np.ptp(found, axis=0))


def mean_rounding(means: Callable[[float], FloatArray]) -> FloatArray:
    """Return (N,) how much means (K, N) may round, the worst of the K, from second differences beside a scenario.

    An estimate as `score_rounding` is one: a multiple of what a few roundings show. What is smooth in the problem's
    numbers, the truth and any bias, leaves 1e-20 of itself there.

    Parameters
    ----------
    means
        share → means where the problem's numbers are moved by that share of themselves.

    Examples
    --------
    >>> loses = mean_rounding(lambda share: np.array([[1e6 + np.sin(1.0 + share) - 1e6]]))
    >>> bool(loses > 1e-10), bool(mean_rounding(lambda share: np.array([[np.sin(1.0 + share)]])) < 1e-14)
    (True, True)
    """
    here, found = means(0.0), []
    for share in _SHARES:
        try:
            found.append(np.abs(means(share) + means(-share) - 2.0 * here))
        except BilevelRLError:  # the edge of where the problem has an answer
            continue
    worst = np.max(found, axis=(0, 1)) if found else np.full(here.shape[1], np.inf)
    return np.asarray(_FACTOR * worst)


def moved_by(on: Scenario, share: float) -> Scenario:
    """Return a scenario with θ, discounts and temperature moved by a share of θ, of what is discounted, and of β.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> moved_by(scenario("bandit"), 0.1).problem.temperature
    0.55
    """
    problem, theta = on.problem, on.theta
    changes: dict[str, Any] = {}
    for name in ("discount_leader", "discount_follower"):
        discount = getattr(problem, name, 0.0)
        if discount > 0.0:
            changes[name] = 1.0 - (1.0 - discount) * (1.0 + share)
    if hasattr(problem, "temperature"):
        changes["temperature"] = problem.temperature * (1.0 + share)
    if hasattr(problem, "verify_derivatives"):
        changes["verify_derivatives"] = False
    return replace(
        on, problem=replace(problem, **changes), theta=theta + share * np.maximum(np.abs(theta), 1.0), truths={}
    )


def _beside(theta: FloatArray) -> list[FloatArray]:
    """θ and its neighbours among the floats."""
    return [theta + nudge * np.spacing(np.maximum(np.abs(theta), 1.0)) for nudge in _NUDGES]
