"""Episodes of many leaders in one Markov game, and what critics and estimators are told of steps drawn from them.

A transition is one number, its code: (state_t, leader_action_t, action_t, state_tp1) in C order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bilevelrl.estimators.sampling.replay_memory import Draws
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.reference import MarkovGame
from bilevelrl.reference.arrays import BoolArray, FloatArray, IntArray

__all__ = ["drawn_trajectories", "frequencies", "sample_codes", "trajectories_of"]


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


def drawn_trajectories(game: MarkovGame, codes: IntArray, draws: Draws, *, length: int | None = None) -> Trajectories:
    """Return drawn steps of many runs' episodes as weighed trajectories, whose states are the pairs (run, state).

    Parameters
    ----------
    game
        Whose transitions the codes are.
    codes : (R, episodes, steps)
        The episodes.
    draws : (R, B)
        The steps.
    length
        How much of its episode is seen from each step on, as a trajectory of its own. None: all; a step that was drawn
        twice then weighs twice in one trajectory for each episode.

    Examples
    --------
    >>> from bilevelrl.tasks import toy_markov_game
    >>> game, draws = toy_markov_game(), Draws.every(0.5, 2, 3, 4)
    >>> drawn_trajectories(game, np.zeros((2, 3, 4), dtype=int), draws).state_t[:, 0].tolist()
    [0, 0, 0, 3, 3, 3]
    """
    runs, episodes, steps = codes.shape
    if length is None:
        weight, valid = draws.summed(draws.weight, episodes, steps), np.ones(codes.shape, dtype=np.bool_)
    else:
        ahead = draws.time[..., None] + np.arange(length)
        valid = ahead < steps
        codes = codes[np.arange(runs)[:, None, None], draws.episode[..., None], np.minimum(ahead, steps - 1)]
        weight = np.zeros(codes.shape)
        weight[..., 0] = draws.weight
    return trajectories_of(game, codes, weight_t=weight, valid=valid)


def trajectories_of(
    game: MarkovGame,
    codes: IntArray,
    responses: FloatArray | None = None,
    *,
    weight_t: FloatArray | None = None,
    valid: BoolArray | None = None,
) -> Trajectories:
    """Return episodes as trajectories: one run's (streams, steps), or many runs' with states (run, state).

    Parameters
    ----------
    game, codes
        The game, and its transitions (streams, steps) or (R, streams, steps).
    responses : (S, L, A)
        The follower's policy, where it is known who acted; else the log-probabilities of actions are not (NaN).
    weight_t, valid
        As in `Trajectories`, in the shape of the codes.
    """
    # Flat: NumPy 2.4's unravel_index mixes the entries of large arrays whose last axis has length one.
    flat = np.unravel_index(codes.astype(np.int64).ravel(), game.transition.shape)
    state, leader_action, action, state_tp1 = (each.reshape(codes.shape) for each in flat)
    first = game.states * np.arange(len(codes))[:, None, None] if codes.ndim == 3 else 0
    shape = (-1, codes.shape[-1])
    seen = np.ones(codes.shape, dtype=np.bool_) if valid is None else valid
    truncated = seen.copy()
    truncated[..., :-1] &= ~seen[..., 1:]
    log_prob = np.full(codes.shape, np.nan)
    if responses is not None:
        with np.errstate(divide="ignore"):
            log_prob = np.log(responses[state, leader_action, action])
    return Trajectories(
        state_t=(state + first).reshape(shape),
        leader_action_t=leader_action.reshape(shape),
        action_t=action.reshape(shape),
        state_tp1=(state_tp1 + first).reshape(shape),
        reward_leader_t=game.reward_leader[state, leader_action, action].reshape(shape),
        terminated=np.zeros(codes.shape, dtype=np.bool_).reshape(shape),
        truncated=truncated.reshape(shape),
        time_in_episode=np.broadcast_to(np.arange(shape[1]), codes.shape).reshape(shape),
        valid=seen.reshape(shape),
        behaviour_log_prob=log_prob.reshape(shape),
        weight_t=None if weight_t is None else weight_t.reshape(shape),
    )


def frequencies(codes: IntArray, weights: FloatArray, transitions: int) -> FloatArray:
    """Return weighed counts (R, transitions) of codes and weights (R, B)."""
    runs = len(codes)
    place = (transitions * np.arange(runs, dtype=np.int64)[:, None] + codes).ravel()
    total: Any = np.bincount(place, weights=np.ravel(weights), minlength=transitions * runs)
    counts: FloatArray = total.astype(np.float64).reshape(runs, transitions)
    return counts
