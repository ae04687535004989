"""The leader's return in a Markov game under a follower's response, and the weights with which it depends on each.

With `h` steps to go (or for ever), under f and g,

    V_L(s) = Σ_{l,a} f g Q_L(s,l,a),   V_L(s,l) = Σ_a g Q_L(s,l,a),                                              (1)
    Q_L^(h)(s,l,a) = r_L + γ_L Σ_s' P V_L^(h-1)(s').                                                             (2)

The follower's response enters through its decision points (s, l) or s: the benefit of an action is Q_L, averaged over
what the follower does not see, minus its mean under g.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilevelrl.reference.arrays import FloatArray, check_shape
from bilevelrl.reference.doors import Horizon, checked
from bilevelrl.reference.errors import ShapeError, refusal
from bilevelrl.reference.game.follower import GameFollower, solve_game
from bilevelrl.reference.game.model import GameAt, MarkovGame
from bilevelrl.reference.problem import INFINITE_HORIZON, Objective, evaluate_objective
from bilevelrl.reference.tabular.transitions import DiscountedSystem

__all__ = ["GameEvaluation", "evaluate_game_leader", "game_leader_action_values", "game_leader_objective"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GameEvaluation:
    """What the leader earns, and the weights with which both policies enter it.

    Attributes
    ----------
    value : (S,)
        V_L with the whole horizon to go, minus `centre`.
    centre : float
        A constant split off the values; derivatives do not see it.
    occupancy : (S,)
        Σ_t γ_L^t Pr(s_t = s).
    policy_weight : (S, L)
        Σ_t γ_L^t Pr(s_t = s) V_L^(T-t)(s, l), the cotangent of f in the leader's evaluation, minus its mean under f.
    response_weight : (S, D, A)
        Σ_t γ_L^t Pr(s_t = s) reach g B^(T-t), the cotangent of log g at the decision points.
    objective : float
        μ·V_L, constants included, ρ left out.
    """

    value: FloatArray
    centre: float
    occupancy: FloatArray
    policy_weight: FloatArray
    response_weight: FloatArray
    objective: float


def evaluate_game_leader(
    at: GameAt,
    response: FloatArray,
    *,
    objective: Objective = INFINITE_HORIZON,
    follower_system: DiscountedSystem | None = None,
) -> GameEvaluation:
    """Evaluate the leader's return and its weights under f and g at the decision points (S, D, A).

    `follower_system`, where the caller has it, is `I - γ_F P` under both policies; its matrix is used again, and its
    factorisation too where the two discounts are equal.
    """
    game, policy, points = at.problem, at.policy, at.points
    if follower_system is None:
        follower_system = DiscountedSystem.factorise(points.chain(response), game.discount_follower)
    earned = points.average(response, points.reward_leader)
    reward = game.reward_leader - points.centre_leader
    states = game.states
    if objective.horizon is None:
        system = follower_system.at_discount(game.discount_leader)
        value, occupancy = system.solve(earned), system.solve_transposed(game.initial)
        ahead = (game.transition.reshape(-1, states) @ value).reshape(reward.shape)
        weighted = occupancy[:, None, None] * (reward + game.discount_leader * ahead)
    else:
        discount = objective.discount(game.discount_leader)
        laws, values = truncated_stages(
            follower_system.policy_matrix, game.initial, earned, discount, objective.horizon
        )
        value, occupancy = values[objective.horizon], laws.sum(axis=0)
        later = laws.T @ values[objective.horizon - 1 :: -1]  # Σ_t law_t(s) V^(T-t-1)(s')
        moved = np.matmul(game.transition.reshape(states, -1, states), later[:, :, None])
        weighted = occupancy[:, None, None] * reward + discount * moved.reshape(reward.shape)
    spread = np.broadcast_to(response, reward.shape)
    policy_weight = np.vecdot(spread, weighted)
    seen = weighted if game.follower_sees_leader_action else np.matmul(policy[:, None, :], weighted)
    mean = np.vecdot(response, seen)
    offset = objective.constant_return(points.centre_leader, game.discount_leader)
    return GameEvaluation(
        value=value,
        centre=offset,
        occupancy=occupancy,
        policy_weight=policy_weight - np.vecdot(policy, policy_weight)[:, None],
        response_weight=points.reach[:, :, None] * response * (seen - mean[:, :, None]),
        objective=float(game.initial @ value) + offset,
    )


def truncated_stages(
    chain: FloatArray, initial: FloatArray, earned: FloatArray, discount: float, horizon: int
) -> tuple[FloatArray, FloatArray]:
    """Return the discounted laws of the state (T, S) by time, and the leader's values (T + 1, S) by steps to go."""
    values = np.zeros((horizon + 1, earned.size))
    for steps_to_go in range(1, horizon + 1):
        values[steps_to_go] = earned + discount * (chain @ values[steps_to_go - 1])  # (1) with (2)
    laws = np.zeros((horizon, earned.size))
    laws[0] = initial
    for t in range(1, horizon):
        laws[t] = discount * (laws[t - 1] @ chain)
    return laws, values


@checked
def game_leader_action_values(
    game: MarkovGame,
    policy: FloatArray,
    follower_policy: FloatArray,
    *,
    horizon: Horizon = None,
    discounted: bool = True,
) -> tuple[FloatArray, FloatArray]:
    """Return V_L (K, S) and Q_L (K, S, L, A) under f (S, L) and g (S, L, A).

    K = 1 over an infinite horizon, `horizon + 1` by steps to go otherwise.

    Examples
    --------
    >>> from bilevelrl.tasks import toy_markov_game
    >>> game = toy_markov_game()
    >>> follower = solve_game(game.at(np.zeros(3)))
    >>> values, _ = game_leader_action_values(game, game.policy_at(np.zeros(3)), follower.policy)
    >>> round(float(values[0, 0]), 4)
    0.617
    """
    objective = Objective(horizon, discounted)
    check_shape("policy", policy, game.reward_leader.shape[:2])
    check_shape("follower_policy", follower_policy, game.reward_leader.shape)
    joint = policy[:, :, None] * follower_policy
    earned = (joint * game.reward_leader).sum(axis=(1, 2))
    states = game.states
    chain = np.matmul(joint.reshape(states, 1, -1), game.transition.reshape(states, -1, states))[:, 0, :]
    if objective.horizon is None:
        value = DiscountedSystem.factorise(chain, game.discount_leader).solve(earned)[None]
        return value, game.reward_leader[None] + game.discount_leader * (game.transition @ value[0])[None]
    discount = objective.discount(game.discount_leader)
    _, values = truncated_stages(chain, game.initial, earned, discount, objective.horizon)
    action_values = np.zeros((objective.horizon + 1, *game.reward_leader.shape))
    for h in range(1, objective.horizon + 1):
        action_values[h] = game.reward_leader + discount * (game.transition @ values[h - 1])  # (2)
    return values, action_values


@evaluate_objective.register(MarkovGame)
@checked
def game_leader_objective(
    at: GameAt, *, objective: Objective = INFINITE_HORIZON, follower: GameFollower | None = None
) -> float:
    """The leader's objective in a Markov game; see `leader_objective`."""
    game = at.problem
    if follower is None:
        follower = solve_game(at)
    if follower.policy.shape != game.reward_leader.shape:
        raise ShapeError(
            refusal("follower.policy.shape", follower.policy.shape, f"{game.reward_leader.shape}", "solve it anew")
        )
    response = follower.policy if game.follower_sees_leader_action else follower.policy[:, :1]
    return evaluate_game_leader(at, response, objective=objective).objective + at.regulariser
