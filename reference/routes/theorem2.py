"""Theorem 2 with exact occupancies of (s, l, a), exact benefits, and ∇Q_F from a linear system of its own.

    ∇J = Σ_t γ_L^t Σ Pr_t(s, l, a) [ ∇log f_θ(l|s) Q_L(s,l,a) + (1/β) B(s,l,a) ∇Q_F(s,l,a) ] + ∇ρ               (1)

With f ∇log f = ∇f nothing is divided by f, so actions of probability zero are included. A seeing follower has

    ∇Q_F(s,l,a) = γ_F Σ_s' P(s'|s,l,a) h(s'),    h = (I - γ_F P)^{-1} Σ_l ∇f V_F;                               (2)

one that does not see the leader's action compares `Q̄_F(s,a) = Σ_l f Q_F`, whose gradient solves a system over pairs,

    ∇Q̄_F = Σ_l ∇f Q_F + γ_F Σ_l f P Σ_a' g ∇Q̄_F.                                                              (3)

Everything is in the game's own tables (S, L, A), written in `einsum`.
"""

from __future__ import annotations

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.arrays.discounted_system import solve_discounted
from bilevelrl.reference.game.error_bounds import follower_error_bound
from bilevelrl.reference.game.follower import GameFollower, solve_game
from bilevelrl.reference.game.model import GameAt, MarkovGame
from bilevelrl.reference.problem import INFINITE_HORIZON, Objective, Part, when_read
from bilevelrl.reference.registry import Hypergradient, register_route

__all__ = ["follower_value_gradient", "theorem2"]


def follower_value_gradient(
    game: MarkovGame, policy: FloatArray, slope: FloatArray, follower: GameFollower
) -> FloatArray:
    """Return ∇Q_F(s,l,a), or ∇Q̄_F(s,a) repeated over l if the follower does not see it, (S, L, A, N).

    Parameters
    ----------
    game, policy, follower
        The game, f (S, L), and the follower's solution.
    slope
        ∇f, (S, L, N).

    References
    ----------
    Kudo et al. (2026), arXiv:2603.14867, equation (9).

    Examples
    --------
    >>> from bilevelrl.tasks import toy_markov_game
    >>> game, theta = toy_markov_game(), np.zeros(3)
    >>> gradient = follower_value_gradient(
    ...     game, game.policy_at(theta), game.policy_jacobian(theta), solve_game(game.at(theta)))
    >>> gradient.shape
    (3, 2, 3, 3)
    """
    states, leader_actions, actions = game.reward_leader.shape
    kernel, g, discount = game.transition, follower.policy, game.discount_follower
    if game.follower_sees_leader_action:
        chain = np.einsum("sl,sla,slat->st", policy, g, kernel)
        scores = np.einsum("sln,sl->sn", slope, follower.centred_value)
        ahead = solve_discounted(chain, discount, scores)
        result: FloatArray = discount * np.einsum("slat,tn->slan", kernel, ahead)  # (2)
        return result
    pairs = states * actions
    chain = np.einsum("sl,slat,tb->satb", policy, kernel, g[:, 0]).reshape(pairs, pairs)
    # What is never taken has no weight, and may be worth −1e100, of which Σ_l ∇f Q_F leaves the rounding.
    taken = np.where(g > 0.0, follower.centred_action_value, 0.0)
    scores = np.einsum("sln,sla->san", slope, taken).reshape(pairs, -1)
    solved = solve_discounted(chain, discount, scores).reshape(states, 1, actions, -1)  # (3)
    return np.broadcast_to(solved, (states, leader_actions, actions, solved.shape[3]))


@register_route(
    "theorem2",
    MarkovGame,
    summary="Theorem 2 with exact occupancies and benefits, ∇Q_F from one linear system",
    family="linear algebra, Jacobian",
    accuracy="rounding times conditioning",
)
def theorem2(
    at: GameAt,
    *,
    objective: Objective = INFINITE_HORIZON,
    warm_start: GameFollower | None = None,
    bound: bool = True,
) -> Hypergradient:
    """∇J by Theorem 2 (8)-(9) of arXiv:2603.14867."""
    problem, theta, policy = at.problem, at.theta, at.policy
    slope = problem.policy_jacobian(theta)
    follower = solve_game(at, warm_start=warm_start)
    g = follower.policy
    reward = problem.reward_leader - at.points.centre_leader
    gradient = follower_value_gradient(problem, policy, slope, follower)
    chain = np.einsum("sl,sla,slat->st", policy, g, problem.transition)
    earned = np.einsum("sl,sla,sla->s", policy, g, reward)
    discount = objective.discount(problem.discount_leader)
    parts: dict[Part, FloatArray] = {
        "policy": np.zeros(theta.size),
        "response": np.zeros(theta.size),
        "regulariser": at.pullback({"regulariser": np.ones(())}),
    }
    earned_total = 0.0
    for weight, ahead in _stages(chain, earned, problem.initial, discount, objective.horizon):
        action_value = reward + discount * problem.transition @ ahead
        parts["policy"] += np.einsum("s,sln,sla,sla->n", weight, slope, g, action_value)  # (1)
        seen = action_value
        if not problem.follower_sees_leader_action:
            seen = np.broadcast_to(np.einsum("sl,sla->sa", policy, action_value)[:, None], action_value.shape)
        benefit = seen - np.einsum("sla,sla->sl", g, seen)[:, :, None]
        visits = weight[:, None, None] * policy[:, :, None] * g
        parts["response"] += np.einsum("sla,slan->n", visits * benefit, gradient) / problem.temperature  # (1)
        earned_total += float(weight @ earned) if objective.horizon is not None else float(problem.initial @ ahead)

    constant = objective.constant_return(at.points.centre_leader, problem.discount_leader)
    return Hypergradient(
        value=sum(parts.values(), np.zeros(theta.size)),
        parts=parts,
        objective=earned_total + constant + at.regulariser,
        residual=follower.residual,
        condition_source=float(np.linalg.cond(np.eye(problem.states) - problem.discount_follower * chain, np.inf)),
        error_bound_source=when_read(at, lambda at: follower_error_bound(at, follower, objective)) if bound else np.inf,
        route="theorem2",
        follower=follower,
        status=follower.status.value,
        counters={"sweeps": follower.sweeps, "linear_solves": follower.linear_solves + 2 + theta.size},
    )


def _stages(
    chain: FloatArray, earned: FloatArray, initial: FloatArray, discount: float, horizon: int | None
) -> list[tuple[FloatArray, FloatArray]]:
    """Return (discounted law of s_t, V_L one step ahead) for each step, or once for ever."""
    if horizon is None:
        law = np.linalg.solve((np.eye(earned.size) - discount * chain).T, initial)
        return [(law.astype(np.float64, copy=False), solve_discounted(chain, discount, earned))]
    values = [np.zeros(earned.size)]
    for _ in range(horizon - 1):
        values.append(earned + discount * chain @ values[-1])
    stages: list[tuple[FloatArray, FloatArray]] = []
    law = initial
    for t in range(horizon):
        stages.append((law, values[horizon - 1 - t]))
        law = discount * (law @ chain)
    return stages
