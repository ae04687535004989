"""Streams in which episodes follow each other: every combination of single episodes, with its probability.

Episodes are independent and begin from the initial law, so a stream of E of them is one of the E-tuples of episodes and
its probability the product of theirs. An episode that was cut is flagged, and the next one begins after it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

import numpy as np

from bilevelrl.estimators import Trajectories
from bilevelrl.reference.arrays import FloatArray

__all__ = ["following", "joined"]


def joined(listed: Iterable[Trajectories], *, axis: int = 0) -> Trajectories:
    """Return batches as one: their streams one below the other, or (`axis=1`) their steps one after the other."""
    batches = list(listed)
    names = [entry.name for entry in fields(Trajectories) if getattr(batches[0], entry.name) is not None]
    columns = {name: np.concatenate([getattr(batch, name) for batch in batches], axis=axis) for name in names}
    if axis == 1:
        # Padding between episodes moves to the end of the stream.
        order = np.argsort(~columns["valid"], axis=1, kind="stable")
        rows = np.arange(len(order))[:, None]
        columns = {name: column[rows, order] for name, column in columns.items()}
    return Trajectories(**columns)


def following(listed: Iterable[tuple[Trajectories, FloatArray]], episodes: int) -> tuple[Trajectories, FloatArray]:
    """Return every stream of so many episodes, and its probability.

    Parameters
    ----------
    listed
        Batches of single episodes with their probabilities, each episode once.
    episodes
        How many follow each other.

    Examples
    --------
    >>> from bilevelrl.reference import solve_follower
    >>> from bilevelrl.tasks import layered_mdp
    >>> from bilevelrl.verification.enumeration.paths import PathLaw
    >>> problem, theta = layered_mdp(layers=2), np.zeros(3)
    >>> law = PathLaw.of(problem.tables_at(theta), solve_follower(problem, theta).policy)
    >>> streams, probability = following(law.batches(2, largest=1000), 2)
    >>> streams.streams, streams.time_in_episode[0].tolist(), round(float(probability.sum()), 12)
    (256, [0, 1, 0, 1], 1.0)
    """
    pieces = list(listed)
    single, each = joined(batch for batch, _ in pieces), np.concatenate([weight for _, weight in pieces])
    chosen = np.indices((single.streams,) * episodes).reshape(episodes, -1)
    return joined((single.select(index) for index in chosen), axis=1), each[chosen].prod(axis=0)
