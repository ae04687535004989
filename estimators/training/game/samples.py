"""Episodes of many leaders in one Markov game, the memory that keeps them, and minibatches drawn from it.

A transition is one number, its code: (state_t, leader_action_t, action_t, state_tp1) in C order. Every episode has the
same number of steps, so that its place in the memory tells the time. Every run draws from its own random numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy.signal import lfilter

from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.reference import MarkovGame
from bilevelrl.reference.arrays import FloatArray, IntArray
from bilevelrl.reference.errors import InvalidInputError, refusal

__all__ = ["EpisodeMemory", "draw_places", "sample_codes", "suffix_visits", "trajectories_of"]


def sample_codes(game: MarkovGame, policies: FloatArray, responses: FloatArray, uniforms: FloatArray) -> IntArray:
    """Return the codes of sampled episodes, (R, streams, steps).

    Parameters
    ----------
    game
        Its episodes never end by themselves.
    policies, responses : (R, S, L), (R, S, L, A)
        Of both players.
    uniforms : (R, streams, steps + 1)
        In [0, 1): one for the first state, one for each step.

    Examples
    --------
    >>> from bilevelrl.tasks import toy_markov_game
    >>> game = toy_markov_game()
    >>> uniform = np.full((1, 3, 2), 0.5), np.full((1, 3, 2, 3), 1.0 / 3.0)
    >>> sample_codes(game, *uniform, np.zeros((1, 1, 4))).tolist()  # always the first of everything: it stays in S
    [[[0, 0, 0]]]
    """
    runs, states = policies.shape[:2]
    steps = uniforms.shape[2] - 1
    joint = (policies[..., None] * responses)[..., None] * game.transition
    reached = np.cumsum(joint.reshape(runs, states, -1), axis=2)
    # Every state's outcome at every step; which of them happens is then a walk through a table.
    threshold = uniforms[:, :, 1:, None] * reached[:, None, None, :, -1]
    outcome = (reached[:, None, None] <= threshold[..., None]).sum(axis=-1)
    begin = np.cumsum(game.initial)
    state = (begin <= uniforms[:, :, :1] * begin[-1]).sum(axis=-1)
    row, stream = np.ogrid[:runs, : uniforms.shape[1]]
    codes = np.empty((runs, uniforms.shape[1], steps), dtype=np.int64)
    for t in range(steps):
        found = outcome[row, stream, t, state]
        codes[:, :, t] = state * reached.shape[2] + found
        state = found % states
    return codes


@dataclass(slots=True)
class EpisodeMemory:
    """All episodes of some runs, up to as many as there can be.

    Attributes
    ----------
    codes : (R, episodes, steps)
        Filled from the front.
    filled : int
        How many episodes are there.
    """

    codes: IntArray
    filled: int = 0

    def add(self, codes: IntArray) -> None:
        """Keep episodes (R, streams, steps)."""
        after = self.filled + codes.shape[1]
        self.codes[:, self.filled : after] = codes
        self.filled = after


def draw_places(
    uniforms: FloatArray,
    cumulative: FloatArray,
    episodes: int,
    *,
    replace: bool,
    rng: Sequence[Generator],
) -> IntArray:
    """Return places `episode · steps + time` of minibatches, (R, batches, size).

    Parameters
    ----------
    uniforms : (R, batches, size)
        In [0, 1).
    cumulative : (steps,)
        Law of the time in the episode, summed up to 1; episodes are equally likely.
    episodes
        How many there are.
    replace
        False: no place twice in a minibatch; what repeats one is drawn anew from the run's own generator.

    Raises
    ------
    InvalidInputError
        If there are fewer places than a minibatch without replacement needs.

    Examples
    --------
    >>> draw_places(np.array([[[0.1, 0.6, 0.9]]]), np.array([0.5, 1.0]), 2, replace=True, rng=[])
    array([[[0, 2, 3]]])
    """
    steps = cumulative.size

    def places(given: FloatArray) -> IntArray:
        scaled = given * episodes
        episode = np.minimum(scaled.astype(np.int64), episodes - 1)
        time = np.searchsorted(cumulative, scaled - episode, side="right")
        return episode * steps + np.minimum(time, steps - 1)

    found = places(uniforms)
    if replace:
        return found
    if found.shape[2] > episodes * steps:
        raise InvalidInputError(
            refusal(
                "minibatch", found.shape[2], f"at most {episodes * steps} without replacement", "take a smaller one"
            )
        )
    ordered = np.sort(found, axis=2)
    repeated = (ordered[:, :, 1:] == ordered[:, :, :-1]).any(axis=2)
    for row, batch in np.argwhere(repeated):
        own = found[row, batch]
        while True:
            _, first = np.unique(own, return_index=True)
            again = np.setdiff1d(np.arange(own.size), first)
            if again.size == 0:
                break
            own[again] = places(rng[int(row)].random(again.size))
    return found


def suffix_visits(pairs: IntArray, number: int, discount: float) -> FloatArray:
    """Return Σ_{k≥t} γ^{k-t} [pair_k = x] to the end of the episode, (R, streams, steps, number).

    Parameters
    ----------
    pairs : (R, streams, steps)
        What is visited, in 0 ... number - 1.
    number
        How many there are.
    discount
        γ.

    Examples
    --------
    >>> suffix_visits(np.array([[[0, 1, 0]]]), 2, 0.5)[0, 0].tolist()
    [[1.25, 0.5], [0.5, 1.0], [1.0, 0.0]]
    """
    seen = np.eye(number)[pairs]
    backward: FloatArray = lfilter([1.0], [1.0, -discount], seen[:, :, ::-1], axis=2)[:, :, ::-1]
    return backward


def trajectories_of(game: MarkovGame, codes: IntArray, responses: FloatArray) -> Trajectories:
    """Return one run's episodes (streams, steps) as trajectories, under the follower's policy (S, L, A)."""
    state, leader_action, action, state_tp1 = np.unravel_index(codes, game.transition.shape)
    truncated = np.zeros(codes.shape, dtype=bool)
    truncated[:, -1] = True
    with np.errstate(divide="ignore"):
        log_prob = np.log(responses[state, leader_action, action])
    return Trajectories(
        state_t=state,
        leader_action_t=leader_action,
        action_t=action,
        state_tp1=state_tp1,
        reward_leader_t=game.reward_leader[state, leader_action, action],
        terminated=np.zeros(codes.shape, dtype=bool),
        truncated=truncated,
        time_in_episode=np.broadcast_to(np.arange(codes.shape[1]), codes.shape),
        valid=np.ones(codes.shape, dtype=bool),
        behaviour_log_prob=log_prob,
    )
