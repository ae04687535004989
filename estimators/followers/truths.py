"""Exact objectives and hypergradients of many runs on one configurable MDP, from one factorisation each."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from scipy.linalg import lu_factor, lu_solve

from bilevelrl.estimators.followers.solving import SharedDynamics
from bilevelrl.estimators.terms.batched import SeedBatch
from bilevelrl.reference.arrays import FloatArray

__all__ = ["batch_hypergradients", "batch_objectives", "batch_truths"]


def batch_objectives(dynamics: SharedDynamics, followers: SeedBatch) -> FloatArray:
    """Return the leader's exact objective of each run under the policy that is played, (runs,).

    Examples
    --------
    >>> from bilevelrl.estimators.followers.solving import ExactFollower
    >>> from bilevelrl.tasks import four_rooms
    >>> dynamics = SharedDynamics(four_rooms(), np.zeros(105))
    >>> played, _ = ExactFollower().respond(dynamics, dynamics.rewards(np.zeros((1, 105))), {}, [])
    >>> batch_objectives(dynamics, played).round(6)
    array([-0.740644])
    """
    earned = (followers.policy * followers.rewards_leader).sum(axis=2)
    system = dynamics.systems(followers.policy, dynamics.problem.discount_leader)
    value = np.linalg.solve(system, earned[:, :, None])[:, :, 0]
    return _objectives(dynamics, followers, value)


def _objectives(dynamics: SharedDynamics, followers: SeedBatch, value: FloatArray) -> FloatArray:
    problem, thetas = dynamics.problem, followers.thetas
    objective: FloatArray = (value * dynamics.initial).sum(axis=1)
    if "regulariser" not in problem.varying(thetas[0]):
        objective += float(np.asarray(problem.tables_at(thetas[0]).regulariser))
        return objective
    objective += np.array([float(np.asarray(problem.tables_at(theta).regulariser)) for theta in thetas])
    return objective


def batch_hypergradients(dynamics: SharedDynamics, followers: SeedBatch) -> FloatArray:
    """Return the exact hypergradient of each run, (runs, N); see `batch_truths`.

    Examples
    --------
    >>> from bilevelrl.estimators.followers.solving import ExactFollower
    >>> from bilevelrl.tasks import four_rooms
    >>> dynamics = SharedDynamics(four_rooms(), np.zeros(105))
    >>> played, _ = ExactFollower().respond(dynamics, dynamics.rewards(np.zeros((1, 105))), {}, [])
    >>> np.linalg.norm(batch_hypergradients(dynamics, played), axis=1).round(6)
    array([0.007138])
    """
    return batch_truths(dynamics, followers)[1]


def batch_truths(
    dynamics: SharedDynamics, followers: SeedBatch, *, benefit: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return objectives (runs,) and exact hypergradients (runs, N), from one factorisation for each discount.

    Parameters
    ----------
    dynamics
        The kernel.
    followers
        θ and what is played there.
    benefit : (runs, S, A)
        A critic's, in place of the exact one: the second result is then what that critic makes of the hypergradient
        when nothing else is wrong.

    With d the leader's discounted occupancy and ω = d π B / β, the weights of the derivatives are d π on r_L and
    ω + λ π on r_F, `(I - γ_F P_πᵀ) λ = γ_F Pᵀ ω` (Theorem 1 of arXiv:2603.14867, summed backwards). Exact where the
    followers play their best response.

    Examples
    --------
    >>> from bilevelrl.estimators.followers.solving import ExactFollower
    >>> from bilevelrl.tasks import four_rooms
    >>> dynamics = SharedDynamics(four_rooms(), np.zeros(105))
    >>> played, _ = ExactFollower().respond(dynamics, dynamics.rewards(np.zeros((1, 105))), {}, [])
    >>> objective, gradient = batch_truths(dynamics, played)
    >>> objective.round(6), gradient.shape
    (array([-0.740644]), (1, 105))
    """
    problem, policy = dynamics.problem, followers.policy
    of_leader = _Factored(dynamics.systems(policy, problem.discount_leader))
    of_follower = of_leader
    if problem.discount_follower != problem.discount_leader:
        of_follower = _Factored(dynamics.systems(policy, problem.discount_follower))
    value = of_leader.solve((policy * followers.rewards_leader).sum(axis=2))
    occupancy = of_leader.solve(np.broadcast_to(dynamics.initial, value.shape), transposed=True)
    weight = occupancy[:, :, None] * policy
    if benefit is None:
        benefit = followers.rewards_leader + problem.discount_leader * dynamics.expected(value) - value[:, :, None]
    impulse = weight * benefit / problem.temperature
    adjoint = of_follower.solve(problem.discount_follower * dynamics.pushed(impulse), transposed=True)
    cotangents = {"reward_leader": weight, "reward_follower": impulse + adjoint[:, :, None] * policy}
    gradients = problem.vector_jacobians(followers.thetas, cotangents)
    if "regulariser" in problem.varying(followers.thetas[0]):
        gradients = gradients + np.stack([problem.regulariser_gradient(theta) for theta in followers.thetas])
    return _objectives(dynamics, followers, value), gradients


class _Factored:
    """One system (S, S) per run, factorised once; runs do not mix."""

    def __init__(self, systems: FloatArray) -> None:
        self._factors: list[Any] = [lu_factor(system, overwrite_a=True, check_finite=False) for system in systems]

    def solve(self, right: FloatArray, *, transposed: bool = False) -> FloatArray:
        """Return solutions (runs, S)."""
        way: Literal[0, 1] = 1 if transposed else 0
        pairs = zip(self._factors, right, strict=True)
        return np.stack([lu_solve(factors, b, trans=way, check_finite=False) for factors, b in pairs])
