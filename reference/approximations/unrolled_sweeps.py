"""Iterative differentiation: the derivative of the leader's return at a follower that stops after k sweeps from zero.

    Q_j = r_F + γ_F P V_{j-1},   V_j = β log Σ exp(Q_j/β),   V_0 = 0,   π_k = exp((Q_k - V_k)/β),                (1)

and the gradient is that of `J(θ, π_k(θ))`, by reverse mode through all k sweeps. It is exact for the map that it
differentiates; as an approximation of ∇J it adds the error of the follower to that of its derivative, γ_F^k both.
"""

from __future__ import annotations

import numpy as np

from bilevelrl.reference.approximations.adjoints import ruling_rate, steps_of
from bilevelrl.reference.approximations.approximation import Approximation, register_approximation
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.problem import Objective
from bilevelrl.reference.tabular.fixed_point import soft_bellman
from bilevelrl.reference.tabular.leader import evaluate_leader, visited_next
from bilevelrl.reference.tabular.model import TabularAt

__all__ = ["unrolled_sweeps"]


def unrolled_sweeps(at: TabularAt, objective: Objective, knob: float) -> FloatArray:
    """Return the gradient through k sweeps from zero."""
    problem, tables = at.problem, at.tables
    discount = problem.discount_follower
    reward = np.asarray(tables.reward_follower) - at.centres[0]
    values, policies = [np.zeros(tables.states)], []
    for _ in range(steps_of(knob)):
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
