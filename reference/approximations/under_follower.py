"""The hypergradient's formula where another follower than the best response plays: what BC-HG has for its mean there.

With the exact critic, endless samples of a follower with policy π and values V make BC-HG the formula of Theorem 1 at
(π, V). Of how far that is from ∇J the first-order bound of the exact routes tells: it is stated for any π and V within
known distances η and ε of the best response's, and those of a follower at hand are known from its own residual.
"""

from __future__ import annotations

from bilevelrl.reference.doors import Horizon, checked
from bilevelrl.reference.problem import Objective
from bilevelrl.reference.registry import Hypergradient
from bilevelrl.reference.routes.implicit import pulled_back
from bilevelrl.reference.tabular.follower import TabularFollower
from bilevelrl.reference.tabular.linearise import linearise_under
from bilevelrl.reference.tabular.model import ConfigurableMDP

__all__ = ["formula_under"]


@checked
def formula_under(
    problem: ConfigurableMDP,
    theta: object,
    follower: TabularFollower,
    *,
    horizon: Horizon = None,
    discounted: bool = True,
) -> Hypergradient:
    """Return the formula of the hypergradient at a follower that need not be the best response.

    Parameters
    ----------
    problem, theta
        The problem and the leader's parameter.
    follower
        Stopped early, learnt, or `TabularFollower.from_policy`.
    horizon, discounted
        Which objective: see `leader_objective`.

    Returns
    -------
    Hypergradient
        `objective` is J under this follower; `error_bound` bounds the distance from ∇J under the *best* response, to
        first order, and is inf where that says nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevelrl.reference import hypergradient, solve_follower
    >>> from bilevelrl.tasks import random_mdp
    >>> problem, theta = random_mdp(seed=0), np.zeros(3)
    >>> hasty = solve_follower(problem, theta, method="value_iteration", stop_after=100)
    >>> rough, exact = formula_under(problem, theta, hasty), hypergradient(problem, theta)
    >>> bool(np.abs(rough.value - exact.value).max() <= rough.error_bound < 0.1)
    True
    """
    at, objective = problem.at(theta), Objective(horizon, discounted)
    return pulled_back(at, linearise_under(at, objective, follower), objective, "formula under a given follower", True)
