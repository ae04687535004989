"""What a game's runs are held against: logits as θ of the exact routes, and exact returns of finite episodes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bilevelrl.reference import MarkovGame, TabularSoftmaxPolicy
from bilevelrl.reference.arrays import FloatArray

__all__ = ["PlayedResponse", "all_logits", "episode_returns", "free_logits", "union_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayedResponse:
    """One run's response, as estimators read a follower's."""

    value: FloatArray
    policy: FloatArray

    @property
    def response(self) -> FloatArray:
        """G at the decision points (s, l)."""
        return self.policy


def free_logits(logits: FloatArray) -> FloatArray:
    """Return logits (S, L) less those of action 0, (S · (L - 1),): θ of a tabular softmax policy.

    Examples
    --------
    >>> free_logits(np.array([[1.0, 3.0], [0.0, -1.0]]))
    array([ 2., -1.])
    """
    free: FloatArray = (logits[:, 1:] - logits[:, :1]).ravel()
    return free


def all_logits(gradient: FloatArray, states: int) -> FloatArray:
    """Turn a gradient in the free logits into one in all logits, (S, L); its rows sum to zero.

    Examples
    --------
    >>> all_logits(np.array([2.0, -1.0]), 2)
    array([[-2.,  2.],
           [ 1., -1.]])
    """
    free = gradient.reshape(states, -1)
    return np.hstack([-free.sum(axis=1, keepdims=True), free])


def union_of(game: MarkovGame, runs: int) -> MarkovGame:
    """Return the game of several runs whose states are the pairs (run, state); nothing leads from one to another.

    θ are the free logits of all runs, one run after the other. What an estimator says of a run is its own, bit for bit.

    Examples
    --------
    >>> from bilevelrl.tasks import toy_markov_game
    >>> union_of(toy_markov_game(), 4).transition.shape
    (12, 2, 3, 12)
    """
    states, leader_actions, actions = game.reward_leader.shape
    transition = np.zeros((runs, states, leader_actions, actions, runs, states))
    every = np.arange(runs)
    transition[every, :, :, :, every] = game.transition
    policy = TabularSoftmaxPolicy(states=runs * states, leader_actions=leader_actions)
    return replace(
        game,
        transition=transition.reshape(runs * states, leader_actions, actions, runs * states),
        reward_follower=np.tile(game.reward_follower, (runs, 1, 1)),
        reward_leader=np.tile(game.reward_leader, (runs, 1, 1)),
        initial=np.tile(game.initial, runs) / runs,
        action_mask=None if game.action_mask is None else np.tile(game.action_mask, (runs, 1, 1)),
        policy=policy,
        theta_shape=(policy.parameters,),
        verify_derivatives=False,  # those of the package's own softmax, which tests hold against differences
        name=f"{game.name}, {runs} runs",
    )


def episode_returns(
    game: MarkovGame, policies: FloatArray, responses: FloatArray, steps: int
) -> tuple[FloatArray, FloatArray]:
    """Return the leader's exact returns over a number of steps, discounted and not, (runs,) each.

    Parameters
    ----------
    game
        Whose tables.
    policies, responses : (runs, S, L), (runs, S, L, A)
        Of the leaders and of the followers.
    steps
        Of an episode.

    Examples
    --------
    >>> from bilevelrl.tasks import toy_markov_game
    >>> game = toy_markov_game()
    >>> uniform = np.full((1, 3, 2), 0.5), np.full((1, 3, 2, 3), 1.0 / 3.0)
    >>> episode_returns(game, *uniform, steps=1)  # one way in three pays 1
    (array([0.33333333]), array([0.33333333]))
    """
    joint = policies[..., None] * responses
    earned = (joint * game.reward_leader).sum(axis=(2, 3))
    flat = game.transition.reshape(game.states, -1, game.states)
    chain = np.matmul(joint.reshape(-1, game.states, 1, flat.shape[1]), flat)[:, :, 0]
    found = []
    for discount in (game.discount_leader, 1.0):
        value = np.zeros_like(earned)
        for _ in range(steps):
            value = earned + discount * np.matmul(chain, value[..., None])[..., 0]
        found.append(np.vecdot(value, game.initial))
    return found[0], found[1]
