"""Paths of a follower through a grid: the most probable one, and the one that it intends."""

from __future__ import annotations

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import dijkstra

from bilevelrl.reference import SparseTransition
from bilevelrl.reference.arrays import FloatArray, check_array, check_indices, check_shape
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import (
    IllPosedError,
)
from bilevelrl.reference.tabular import (
    Transition,
    check_rows,
    check_transition,
    policy_transition,
    transition_shape,
)

__all__ = ["intended_path", "most_likely_path"]


def _check_path(transition: Transition, policy: FloatArray, start: int, stop: int) -> None:
    check_shape("policy", policy, (None, None), "pass π(a|s), (S, A)")
    if not isinstance(transition, SparseTransition):
        shape = (len(policy), policy.shape[1], len(policy))
        check_shape("transition", check_array("transition", transition), shape, "(S, A, S) as policy has states")
    check_transition(transition)
    check_shape("policy", policy, transition_shape(transition)[:2], "solve the follower of these tables")
    check_rows("policy", policy, "solve the follower anew")
    for name, state in (("start", start), ("stop", stop)):
        check_indices(name, state, len(policy))


@checked
def most_likely_path(transition: Transition, policy: FloatArray, start: int, stop: int) -> list[int]:
    """Return the states of the most probable path from one state to another under a policy.

    Parameters
    ----------
    transition
        Dense or sparse kernel.
    policy : (S, A)
        The follower's response.
    start, stop
        States.

    Returns
    -------
    list of int
        Both ends included. Among all paths it has the largest product of one-step probabilities, so it never waits.

    Raises
    ------
    IllPosedError
        If no path has positive probability.

    Examples
    --------
    >>> kernel = np.zeros((3, 1, 3))
    >>> kernel[0, 0] = [0.0, 0.6, 0.4]
    >>> kernel[1, 0] = [0.0, 0.0, 1.0]
    >>> most_likely_path(kernel, np.ones((3, 1)), 0, 2)
    [0, 1, 2]
    """
    _check_path(transition, policy, start, stop)
    chain = scipy.sparse.csr_array(policy_transition(transition, policy))
    chain.sum_duplicates()
    possible = chain.tocoo()
    positive = possible.data > 0.0
    row, column = (index[positive] for index in possible.coords)
    length = -np.log(np.minimum(possible.data[positive], 1.0))
    graph = scipy.sparse.csr_array((length, (row, column)), shape=chain.shape)
    _, before = dijkstra(graph, indices=[start], return_predecessors=True)
    path = [stop]
    while path[-1] != start:
        previous = int(before[0, path[-1]])
        if previous < 0:
            raise IllPosedError(
                f"start={start}, stop={stop}: no path of positive probability leads there; choose others"
            )
        path.append(previous)
    return path[::-1]


@checked
def intended_path(transition: Transition, policy: FloatArray, start: int, stop: int) -> list[int]:
    """Return the states of the path that takes the most probable action, and its most probable move, at every step.

    Where a follower spreads over many long ways, the most probable single path can be a short one that it hardly ever
    takes; this one shows where it is headed.

    Parameters
    ----------
    transition, policy, start, stop
        As in `most_likely_path`.

    Returns
    -------
    list of int
        From `start`; it ends at `stop`, or where it would come to a state for the second time.

    Examples
    --------
    >>> kernel = np.zeros((3, 2, 3))
    >>> kernel[0, 0, 1] = kernel[0, 1, 2] = kernel[1, :, 0] = 1.0
    >>> intended_path(kernel, np.array([[0.1, 0.9], [0.5, 0.5], [0.5, 0.5]]), 0, 2)
    [0, 2]
    >>> intended_path(kernel, np.array([[0.9, 0.1], [0.5, 0.5], [0.5, 0.5]]), 0, 2)
    [0, 1]
    """
    _check_path(transition, policy, start, stop)
    chosen = np.zeros_like(policy)
    chosen[np.arange(len(policy)), policy.argmax(axis=1)] = 1.0
    chain = scipy.sparse.csr_array(policy_transition(transition, chosen))
    path = [start]
    while path[-1] != stop:
        row = chain[[path[-1]], :].tocoo()
        if not row.data.size:
            break
        ahead = int(row.coords[1][row.data.argmax()])
        if ahead in path:
            break
        path.append(ahead)
    return path
