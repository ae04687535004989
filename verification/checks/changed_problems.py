"""Problems changed in a way that leaves the hypergradient alone, or changes it in a known way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import autograd.numpy as anp

from bilevelrl.reference import ConfigurableMDP, Tables
from bilevelrl.reference.arrays import FloatArray, IntArray
from bilevelrl.reference.tabular import to_dense

__all__ = ["permuted", "reparameterised", "reward_shifted", "shaped"]


def permuted(problem: ConfigurableMDP, order: IntArray) -> ConfigurableMDP:
    """Return the problem with its states renumbered: new state i is old state order[i].

    Examples
    --------
    >>> import numpy as np
    >>> from bilevelrl.tasks import scenario
    >>> corridor = scenario("corridor")
    >>> permuted(corridor.problem, np.array([3, 2, 1, 0])).tables_at(corridor.theta).initial
    array([0., 0., 0., 1.])
    """

    def tables(x: Any) -> Tables:
        old = problem.tables(x)
        return Tables(
            transition=to_dense(old.transition)[order][:, :, order],
            reward_follower=old.reward_follower[order],
            reward_leader=old.reward_leader[order],
            initial=old.initial[order],
            regulariser=old.regulariser,
        )

    return _automatic(problem, tables, "states renumbered")


def reward_shifted(problem: ConfigurableMDP, *, leader: float, follower: float) -> ConfigurableMDP:
    """Return the problem with constants added to both rewards.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> pendulum = scenario("pendulum")
    >>> reward_shifted(pendulum.problem, leader=1.0, follower=0.0).tables_at(pendulum.theta).reward_leader.ravel()
    array([1.7, 0.6])
    """

    def tables(x: Any) -> Tables:
        old = problem.tables(x)
        return old.replace(
            {"reward_leader": old.reward_leader + leader, "reward_follower": old.reward_follower + follower}
        )

    return _automatic(problem, tables, "rewards shifted")


def shaped(problem: ConfigurableMDP, potential: FloatArray) -> ConfigurableMDP:
    """Return the problem with `γ_F Σ P(s'|s,a;θ) Φ(s') - Φ(s)` added to the follower's reward; Φ (S,), 0 at the end.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevelrl.reference import leader_objective
    >>> from bilevelrl.tasks import scenario
    >>> gamble = scenario("gamble")
    >>> moved = shaped(gamble.problem, np.array([1.0, -2.0]))
    >>> bool(abs(leader_objective(moved, gamble.theta) - gamble.truth.objective) < 1e-12)
    True
    """

    def tables(x: Any) -> Tables:
        old = problem.tables(x)
        ahead = anp.dot(to_dense(old.transition), potential)
        added = problem.discount_follower * ahead - potential[:, None]
        return old.replace({"reward_follower": old.reward_follower + added})

    return _automatic(problem, tables, "follower's reward shaped")


def reparameterised(
    problem: ConfigurableMDP, theta: FloatArray, matrix: FloatArray, bend: FloatArray
) -> ConfigurableMDP:
    """Return the problem in φ (M,): θ = theta + matrix φ + bend (φ ⊙ φ), so that ∂θ/∂φ = matrix at φ = 0.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevelrl.reference import hypergradient
    >>> from bilevelrl.tasks import scenario
    >>> toll = scenario("toll")
    >>> twice = reparameterised(toll.problem, toll.theta, np.array([[2.0]]), np.array([[5.0]]))
    >>> bool(np.allclose(hypergradient(twice, np.zeros(1)).value, 2.0 * toll.truth.value, rtol=1e-12))
    True
    """

    def tables(x: Any) -> Tables:
        moved = anp.dot(matrix, x) + anp.dot(bend, x * x)
        return problem.tables(anp.reshape(theta + moved, problem.theta_shape or theta.shape))

    return replace(_automatic(problem, tables, "θ reparameterised"), theta_shape=(matrix.shape[1],))


def _automatic(problem: ConfigurableMDP, tables: Callable[[Any], Tables], what: str) -> ConfigurableMDP:
    """The problem with other tables, differentiated by autograd."""
    return ConfigurableMDP(
        tables=tables,
        discount_leader=problem.discount_leader,
        discount_follower=problem.discount_follower,
        temperature=problem.temperature,
        theta_shape=problem.theta_shape,
        name=f"{problem.name}, {what}",
    )
