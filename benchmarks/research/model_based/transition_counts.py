"""Every transition that was ever seen, and the kernel that they suggest.

Where θ enters the rewards only, the kernel is the same at every θ: a transition seen under one leader says as much of
the next one's world, and replaying all needs no correction.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bilevelrl.estimators import Trajectories
from bilevelrl.reference.arrays import FloatArray, IntArray
from bilevelrl.reference.errors import InvalidInputError, ShapeError, refusal

__all__ = ["TransitionCounts", "learnt_kernel"]


class TransitionCounts:
    """Counts of (state, action, next state) for each of several runs.

    Parameters
    ----------
    runs, states, actions
        Sizes. The next state with number `states` is the end of an episode.

    Examples
    --------
    >>> counts = TransitionCounts(runs=2, states=3, actions=2)
    >>> counts.table.shape
    (2, 3, 2, 4)
    """

    def __init__(self, *, runs: int, states: int, actions: int) -> None:
        self.table: FloatArray = np.zeros((runs, states, actions, states + 1))

    def add(self, trajectories: Trajectories, run: IntArray) -> None:
        """Count every valid step; `run` (streams,) says whose stream it is.

        A truncated step counts like any other: its successor was seen.

        Raises
        ------
        ShapeError
            If `run` has not one entry per stream.
        """
        if np.shape(run) != (trajectories.streams,):
            raise ShapeError(refusal("run.shape", np.shape(run), f"({trajectories.streams},)", "one run per stream"))
        _, states, actions, successors = self.table.shape
        pair = (run[:, None] * states + trajectories.state_t) * actions + trajectories.action_t
        entry = (pair * successors + trajectories.state_tp1)[trajectories.valid]
        np.add.at(self.table.reshape(-1), entry, 1.0)


def learnt_kernel(counts: FloatArray, *, pooling: float) -> FloatArray:
    """Return the kernel that counts suggest.

    An action's frequencies are mixed with those of its state under all actions, as if these had been seen `pooling`
    times more: an action that was never taken moves like the state's average one. In a state that was never left, the
    process is taken to end.

    Parameters
    ----------
    counts : (S, A, S + 1)
        The last successor is the end.
    pooling
        > 0. The bias that it brings to a pair seen n times is of order pooling / n.

    Returns
    -------
    ndarray
        (S, A, S); rows sum to 1 less the probability of the end.

    Raises
    ------
    ShapeError, InvalidInputError
        If shapes do not match, or a number is out of range.

    Examples
    --------
    >>> seen = np.zeros((1, 2, 2))
    >>> seen[0, 0] = [3.0, 1.0]
    >>> learnt_kernel(seen, pooling=1.0)[0, :, 0]
    array([0.75, 0.75])
    """
    shape = np.shape(counts)
    if len(shape) != 3 or shape[2] != shape[0] + 1:
        raise ShapeError(refusal("counts.shape", shape, "(S, A, S + 1)", "give the end a column of its own"))
    if not (np.isfinite(counts).all() and (counts >= 0.0).all()):
        raise InvalidInputError("counts: expected finite numbers >= 0; count transitions")
    if not (np.isfinite(pooling) and pooling > 0.0):
        raise InvalidInputError(refusal("pooling", pooling, "a finite number > 0", "2 is usual"))
    together = counts.sum(axis=1)
    visits: Any = together.sum(axis=1, keepdims=True)
    average = np.divide(together, visits, out=np.zeros_like(together), where=visits > 0.0)
    average[visits[:, 0] == 0.0, -1] = 1.0
    frequencies: FloatArray = (counts + pooling * average[:, None]) / (counts.sum(axis=2, keepdims=True) + pooling)
    return np.ascontiguousarray(frequencies[:, :, :-1])
