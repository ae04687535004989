"""The follower of the published toy-game runs, which is not the follower of the game: its own name, its own numbers.

The published solver backs up `r_F + γ_F β log Σ_a exp(Σ_l f(l|s') Q(s', l, a) / β)`, the log-sum-exp of the mean, as
if the follower would not see the leader's next action; then it lets it play `softmax(Q(s, l, ·)/β)`, having seen the
present one. By convexity its values are too low; it is no best response of either information structure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from bilevelrl.reference import MarkovGame, solve_follower
from bilevelrl.reference.errors import UnsupportedError
from bilevelrl.reference.game import GameFollower

__all__ = ["log_sum_exp_of_the_mean"]


def log_sum_exp_of_the_mean(game: MarkovGame, theta: Any) -> GameFollower:
    """Return the wrong follower: plans as if blind, acts as if seeing.

    Parameters
    ----------
    game
        A game whose follower sees the leader's action.
    theta
        The leader's parameter.

    Raises
    ------
    UnsupportedError
        If the game's follower does not see: for that one the mean comes first, and there is nothing wrong.

    Examples
    --------
    >>> from bilevelrl.reference import leader_objective
    >>> from bilevelrl.tasks import toy_game_theta, toy_markov_game
    >>> game, theta = toy_markov_game(), toy_game_theta(0.3)
    >>> round(leader_objective(game, theta, follower=log_sum_exp_of_the_mean(game, theta)), 4)
    26.9617
    """
    if not game.follower_sees_leader_action:
        raise UnsupportedError("log_sum_exp_of_the_mean: expected a follower that sees the leader's action")
    blind = solve_follower(replace(game, follower_sees_leader_action=False), theta)
    # Its table is that of the blind follower, Q(s,l,a) = r + γ P V; only what it does with it differs.
    table, beta = blind.action_value, game.temperature
    largest = table.max(axis=2, keepdims=True)
    weights = np.exp((table - largest) / beta)
    total = weights.sum(axis=2, keepdims=True)
    value = (largest + beta * np.log(total))[:, :, 0]
    return replace(
        blind,
        sees_leader_action=True,
        value=value,
        centred_value=value - blind.centre,
        state_value=np.vecdot(game.policy_at(theta), value),
        centred_state_value=np.vecdot(game.policy_at(theta), value) - blind.centre,
        policy=weights / total,
    )
