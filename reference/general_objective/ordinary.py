"""The ordinary problem with the same hypergradient: what estimators, and methods for the leader's return, are given.

At one θ a general objective is to first order the return of a reward that stands still, beside a regulariser:

    r_L(s,a) = u(s) + (g(s,a) - Σ_a' π g(s,a')) / Σ_t w_t Pr(s_t=s),    u = c ∂f/∂d,  g = ∂f/∂π,                    (1)
    ρ(x) = f - Σ_t w_t E u(s_t) + ∂f/∂θ · (x - θ).                                                                  (2)

Where a state is never visited, g must not count there: samples do not show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import autograd.numpy as anp
import numpy as np

from bilevelrl.reference.arrays import FloatArray, Traced
from bilevelrl.reference.doors import Horizon, checked
from bilevelrl.reference.errors import SupportError
from bilevelrl.reference.general_objective.model import GeneralAt, GeneralObjective
from bilevelrl.reference.general_objective.response import play
from bilevelrl.reference.problem import Objective
from bilevelrl.reference.seen import Seen, seen_by_estimators
from bilevelrl.reference.tabular.follower import solve_tabular
from bilevelrl.reference.tabular.model import ConfigurableMDP
from bilevelrl.reference.tabular.tables import Tables

__all__ = ["ordinary_problem", "seen_general"]


@checked
def ordinary_problem(
    problem: GeneralObjective, theta: object, *, horizon: Horizon = None, discounted: bool = True
) -> ConfigurableMDP:
    """Return the configurable MDP with the same objective, hypergradient and follower at θ; elsewhere it is another.

    Parameters
    ----------
    problem, theta
        The general objective, and where.
    horizon, discounted
        Which occupancy f is given, and which return of the MDP is meant: see `leader_objective`.

    Raises
    ------
    SupportError
        If the policy counts in a state that is never visited, so that no return does.

    Examples
    --------
    >>> import autograd.numpy as anp
    >>> from bilevelrl.reference import hypergradient
    >>> from bilevelrl.tasks import random_mdp
    >>> problem = GeneralObjective(
    ...     process=random_mdp(states=4, actions=2, parameters=3, seed=0),
    ...     objective=lambda theta, policy, occupancy: anp.sum(policy ** 2) - anp.sum(theta ** 2))
    >>> theta = np.array([0.1, 0.2, 0.3])
    >>> general, ordinary = (hypergradient(p, theta) for p in (problem, ordinary_problem(problem, theta)))
    >>> bool(np.allclose(general.value, ordinary.value, rtol=1e-12)), round(general.objective - ordinary.objective, 12)
    (True, 0.0)
    """
    objective, at = Objective(horizon, discounted), problem.at(theta)
    policy = solve_tabular(at.process).policy
    played = play(at, policy, objective)
    slopes, visits = played.slopes, played.evaluation.occupancy
    centred = slopes.policy - np.vecdot(policy, slopes.policy)[:, None]
    unseen = (visits <= 0.0) & (policy * centred != 0.0).any(axis=1)
    if unseen.any():
        raise SupportError(
            f"{problem.name}: state {int(np.argmax(unseen))} is never visited, and f has a slope in the policy there, "
            "expected an f that samples can tell; use an exact route, or leave such states out of f"
        )
    seen = visits[:, None] > 0.0
    reward = played.pay[:, None] + np.divide(centred, visits[:, None], out=np.zeros_like(centred), where=seen)  # (1)
    origin, steep = at.theta, slopes.theta
    rest = played.objective - float(visits @ played.pay)
    process = problem.process

    def tables(x: Traced) -> Tables:
        moved = rest + anp.sum(steep * (x - origin))  # (2)
        return process.evaluate(x).replace({"reward_leader": reward, "regulariser": moved})

    jacobian, pullback = process.tables_jacobian, process.tables_pullback

    def tables_jacobian(x: FloatArray) -> dict[str, FloatArray]:
        assert jacobian is not None
        own = {name: slope for name, slope in jacobian(x).items() if name != "reward_leader"}
        return {**own, "regulariser": steep.ravel()}

    def tables_pullback(x: FloatArray, cotangents: Mapping[str, FloatArray]) -> FloatArray:
        assert pullback is not None
        own = {name: value for name, value in cotangents.items() if name not in ("reward_leader", "regulariser")}
        pulled = pullback(x, own) if own else np.zeros(x.size)
        return pulled + cotangents.get("regulariser", np.zeros(())) * steep.ravel()

    return replace(
        process,
        tables=tables,
        tables_jacobian=None if jacobian is None else tables_jacobian,
        tables_pullback=None if pullback is None else tables_pullback,
        stacked_rewards=None,
        stacked_pullback=None,
        name=f"{problem.name}, to first order",
    )


@seen_by_estimators.register(GeneralObjective)
def seen_general(at: GeneralAt) -> Seen:
    """Estimators see the ordinary problem, whose hypergradient has bounds."""
    ordinary = ordinary_problem(at.problem, at.theta)
    return Seen(samples=ordinary, truth=ordinary)
