"""Minibatches of all runs in one outer iteration, as far as tables of a finite game need them.

Critics read transitions that are equally likely, actors transitions that are drawn ∝ γ_L^t. Both see frequencies; the
guiding term also needs what follows each drawn transition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.training.game.samples import draw_places, suffix_visits
from bilevelrl.reference import MarkovGame
from bilevelrl.reference.arrays import FloatArray, IntArray

__all__ = ["Minibatches", "draw_minibatches", "guided_visits", "whole_batch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Minibatches:
    """What was drawn for some runs.

    Attributes
    ----------
    critic, actor : (R, batches, transitions)
        Frequencies of every transition of the game, by its code.
    places, weights : (R, actor batches, size), (size,)
        Where the actor's transitions lie, `episode · steps + time`, and how much each counts.
    """

    critic: FloatArray
    actor: FloatArray
    places: IntArray
    weights: FloatArray


def whole_batch(codes: IntArray, time_weights: FloatArray, transitions: int) -> Minibatches:
    """Return everything of some episodes as one minibatch for each player.

    Parameters
    ----------
    codes : (R, streams, steps)
        The episodes.
    time_weights : (steps,)
        With which the actor counts a time, summing to one.
    transitions
        How many codes there are.
    """
    runs, streams, steps = codes.shape
    flat = codes.reshape(runs, 1, -1)
    weights = np.tile(time_weights / streams, streams)
    return Minibatches(
        critic=_frequencies(flat, np.full(weights.size, 1.0 / weights.size), transitions),
        actor=_frequencies(flat, weights, transitions),
        places=np.broadcast_to(np.arange(streams * steps), flat.shape),
        weights=weights,
    )


def draw_minibatches(
    codes: IntArray,
    time_weights: FloatArray,
    transitions: int,
    *,
    critics: int,
    actors: int,
    size: int,
    replace: bool,
    rng: Sequence[Generator],
) -> Minibatches:
    """Draw minibatches of `size` out of episodes (R, episodes, steps), for critics and for actors.

    Parameters
    ----------
    codes, time_weights, transitions
        As `whole_batch`.
    critics, actors
        How many of each.
    replace
        Whether a minibatch may hold a place twice.
    rng
        One random stream per run.
    """
    runs, episodes, steps = codes.shape
    uniforms = np.stack([stream.random((critics + actors, size)) for stream in rng])
    laws = (np.arange(1, steps + 1) / steps, np.cumsum(time_weights))
    stored, weights = codes.reshape(runs, -1), np.full(size, 1.0 / size)
    found, counted = [], []
    for given, law in zip((uniforms[:, :critics], uniforms[:, critics:]), laws, strict=True):
        places = draw_places(given, law, episodes, replace=replace, rng=rng)
        drawn = np.take_along_axis(stored, places.reshape(runs, -1), axis=1).reshape(places.shape)
        found.append(places)
        counted.append(_frequencies(drawn.astype(np.int64), weights, transitions))
    return Minibatches(critic=counted[0], actor=counted[1], places=found[1], weights=weights)


def guided_visits(
    game: MarkovGame,
    codes: IntArray,
    benefits: FloatArray,
    batches: Minibatches,
    *,
    same_step: bool,
    longest: int | None = None,
) -> FloatArray:
    """Return the weighted sums of B_i C_i(s,l) over each minibatch's transitions, (R, actor batches, S, L).

    Parameters
    ----------
    game
        Whose transitions the codes are.
    codes : (R, streams, steps)
        Episodes that the minibatches were drawn from.
    benefits : (R, S, L, A)
        B.
    batches
        What was drawn of them.
    same_step
        Whether C counts the transition's own leader action.
    longest
        C counts leader actions less than so many steps ahead; None: to the end of the episode.
    """
    states, leader_actions, actions = game.reward_leader.shape
    runs, number = codes.shape[0], states * leader_actions
    pairs = codes // (actions * states)
    visits = suffix_visits(pairs, number, game.discount_follower)
    later = visits.copy()
    if longest is not None:
        later[:, :, :-longest] -= game.discount_follower**longest * visits[:, :, longest:]
    if not same_step:
        later -= np.eye(number)[pairs]
    earned = np.take_along_axis(benefits.reshape(runs, -1), (codes // states).reshape(runs, -1), axis=1)
    row = np.arange(runs)[:, None, None]
    drawn = batches.weights * earned[row, batches.places]
    total = np.matmul(drawn[:, :, None, :], later.reshape(runs, -1, number)[row, batches.places])
    guided: FloatArray = total.reshape(runs, -1, states, leader_actions)
    return guided


def _frequencies(codes: IntArray, weights: FloatArray, transitions: int) -> FloatArray:
    """Weighted counts (R, batches, transitions) of codes (R, batches, size), with weights (size,)."""
    runs, batches, _ = codes.shape
    table = np.arange(runs * batches, dtype=np.int64).reshape(runs, batches, 1)
    given = np.broadcast_to(weights, codes.shape).ravel()
    total = np.bincount((transitions * table + codes).ravel(), weights=given, minlength=transitions * runs * batches)
    counts: FloatArray = total.astype(np.float64).reshape(runs, batches, transitions)
    return counts
