"""The toy Markov game: three states in which the follower's route depends on how often the leader blocks one.

States S, A, B (in this order), the follower's moves s, a, b. From S it may stay, go to A or go to B (+1 either way, and
+1 for the leader on the way to A). In A the leader's action 1 sends it home at a cost of 1, action 0 lets it go on to B
for a bonus R. From B it can only stay or go home. So the leader wants the follower to pass A, must let it through often
enough, and gains when it does not always let it through: the best p = f(1|A) lies just below the follower's switch.
"""

from __future__ import annotations

import numpy as np

from bilevelrl.reference import MarkovGame, TabularSoftmaxPolicy
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import Rate, checked
from bilevelrl.tasks.registry import register_task

__all__ = ["TOY_GAME_STATES", "toy_game_theta", "toy_markov_game"]

TOY_GAME_STATES = ("S", "A", "B")
"""State names, in the order of the tables."""

_S, _A, _B = range(3)
_HOME, _TO_A, _TO_B = range(3)
_LEADER_ACTIONS, _ACTIONS = 2, 3


@register_task("toy_markov_game", "the paper's toy game: let the follower pass often enough, and gain when it may not")
@checked
def toy_markov_game(
    bonus: float = 1.0,
    *,
    follower_sees_leader_action: bool = True,
    temperature: float = 0.05,
    discount_leader: float = 0.99,
    discount_follower: float = 0.99,
) -> MarkovGame:
    """Return the toy game (arXiv:2603.14867, Figure 3), θ one softmax logit per state: of leader action 1 against 0.

    Parameters
    ----------
    bonus
        R, what the follower earns on the way from A to B. The paper uses 1 and 2.
    follower_sees_leader_action, temperature, discount_leader, discount_follower
        As in `MarkovGame`; the defaults are the paper's.

    Raises
    ------
    InvalidInputError
        If the bonus is not finite, or another argument out of range.

    Examples
    --------
    >>> from bilevelrl.reference import leader_objective
    >>> round(leader_objective(toy_markov_game(), toy_game_theta(0.1)), 4)
    34.6453
    """
    successor = np.empty((3, _LEADER_ACTIONS, _ACTIONS), dtype=np.int64)
    reward_follower, reward_leader = np.zeros(successor.shape), np.zeros(successor.shape)
    successor[_S] = (_S, _A, _B)
    reward_follower[_S, :, _TO_A] = reward_follower[_S, :, _TO_B] = 1.0
    reward_leader[_S, :, _TO_A] = 1.0
    successor[_A, 0] = (_S, _A, _B)
    reward_follower[_A, 0, _TO_B] = bonus
    successor[_A, 1] = _S
    reward_follower[_A, 1] = -1.0
    successor[_B] = (_S, _B, _B)
    return MarkovGame(
        transition=np.eye(3)[successor],
        reward_follower=reward_follower,
        reward_leader=reward_leader,
        initial=np.eye(3)[_S],
        policy=TabularSoftmaxPolicy(states=3, leader_actions=_LEADER_ACTIONS),
        follower_sees_leader_action=follower_sees_leader_action,
        discount_leader=discount_leader,
        discount_follower=discount_follower,
        temperature=temperature,
        theta_shape=(3,),
        name=f"toy game, R = {bonus:g}",
    )


@checked
def toy_game_theta(p: Rate) -> FloatArray:
    """Return the θ with f(1|A) = p and even odds in the states where the leader's action changes nothing.

    Examples
    --------
    >>> toy_game_theta(0.5)
    array([0., 0., 0.])
    """
    policy = np.full((3, _LEADER_ACTIONS), 0.5)
    policy[_A] = 1.0 - p, p
    return TabularSoftmaxPolicy(states=3, leader_actions=_LEADER_ACTIONS).theta_of(policy)
