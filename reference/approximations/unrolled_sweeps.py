"""Iterative differentiation: the derivative of the leader's return at a follower that stops after k sweeps.

    Q_j = r_F + γ_F P V_{j-1},   V_j = β log Σ exp(Q_j/β),   π_k = exp((Q_k - V_k)/β),                           (1)

from V_0 = 0, or from where the follower stood at the θ before, which is no function of this θ; and the gradient is that
of `J(θ, π_k(θ))`, by reverse mode through all k sweeps. It is exact for the map that it differentiates; as an
approximation of ∇J it adds the error of the follower to that of its derivative, γ_F^k both.
"""

from __future__ import annotations

import numpy as np

from bilevelrl.reference.approximations.adjoints import ruling_rate, steps_of
from bilevelrl.reference.approximations.approximation import Approximation, register_approximation
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import Horizon, Steps, checked
from bilevelrl.reference.problem import Objective
from bilevelrl.reference.tabular.fixed_point import soft_bellman, start_value
from bilevelrl.reference.tabular.follower import TabularFollower
from bilevelrl.reference.tabular.leader import evaluate_leader, visited_next
from bilevelrl.reference.tabular.model import ConfigurableMDP, TabularAt

__all__ = ["hypergradient_through_sweeps", "unrolled_sweeps"]


@checked
def hypergradient_through_sweeps(
    problem: ConfigurableMDP,
    theta: object,
    *,
    sweeps: Steps,
    start: TabularFollower | FloatArray | None = None,
    horizon: Horizon = None,
    discounted: bool = True,
) -> FloatArray:
    """Return the exact ∇ of θ → J(θ, π_k(θ)), (N,): a follower that stops after k sweeps is its own map of θ.

    Parameters
    ----------
    problem, theta
        The problem and the leader's parameter.
    sweeps
        k ≥ 1: the follower plays softmax(Q_k/β).
    start
        Where its values start: a follower carried over from another θ, or values (S,); None: reset to zeros.
    horizon, discounted
        Which objective: see `leader_objective`.

    Examples
    --------
    >>> from bilevelrl.reference import hypergradient, solve_follower
    >>> from bilevelrl.tasks import random_mdp
    >>> problem, theta = random_mdp(seed=0), np.zeros(3)
    >>> truth = hypergradient(problem, theta).value
    >>> few, many = (hypergradient_through_sweeps(problem, theta, sweeps=k) for k in (2, 300))
    >>> bool(np.abs(few - truth).max() > 1e-2 > 1e-12 > np.abs(many - truth).max())
    True
    """
    at = problem.at(theta)
    first = start_value(at.tables.states, start, at.constant, name="start")
    return _through(at, Objective(horizon, discounted), sweeps, first)


def unrolled_sweeps(at: TabularAt, objective: Objective, knob: float) -> FloatArray:
    """Return the gradient through k sweeps from zero."""
    return _through(at, objective, steps_of(knob), np.zeros(at.tables.states))


def _through(at: TabularAt, objective: Objective, sweeps: int, start: FloatArray) -> FloatArray:
    problem, tables = at.problem, at.tables
    discount = problem.discount_follower
    reward = np.asarray(tables.reward_follower) - at.centres[0]
    values, policies = [start], []
    for _ in range(sweeps):
        value, _, policy = soft_bellman(tables.transition, reward, discount, problem.temperature, values[-1])  # (1)
        values.append(value)
        policies.append(policy)
    evaluation = evaluate_leader(
        tables, policies[-1], problem.discount_leader, objective=objective, centre=at.centres[1]
    )
    weight = evaluation.benefit_weight / problem.temperature
    rows = at.kernel.reshape(-1, tables.states)
    by_reward = np.zeros(reward.shape)
    moving = visited_next(tables, evaluation.state_factor, policies[-1], evaluation.value_factor)
    ones = np.full((1, tables.states), discount)
    for j in reversed(range(len(policies))):
        by_reward += weight
        moving = moving + visited_next(tables, ones, weight, values[j][None])
        if j > 0:
            weight = discount * (weight.ravel() @ rows)[:, None] * policies[j - 1]
    return at.pullback(
        {
            "initial": evaluation.value,
            "reward_leader": evaluation.occupancy[:, None] * policies[-1],
            "transition": moving,
            "reward_follower": by_reward,
            "regulariser": np.ones(()),
        }
    )


register_approximation(
    Approximation(
        name="unrolled_sweeps",
        summary="the derivative through a follower that stops after k sweeps from zero",
        knob="sweeps",
        knobs=(1, 2, 5, 10, 20, 50, 100),
        geometric=True,
        rate=lambda at: at.problem.discount_follower,
        rules=ruling_rate,
        source="iterative differentiation: Franceschi et al. (2017), arXiv:1703.01785",
        function=unrolled_sweeps,
    )
)
