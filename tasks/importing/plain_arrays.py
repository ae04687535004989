"""Worlds given as arrays, in the two orders of axes that people use, dense, sparse or as dictionaries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
import scipy.sparse

from bilevelrl.reference.arrays import FloatArray, check_array, check_shape
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, ShapeError, refusal
from bilevelrl.reference.tabular import check_rows
from bilevelrl.tasks.importing.imported import Absorbing, ImportedMDP, assemble

__all__ = ["Axes", "from_arrays"]

Axes: TypeAlias = Literal["sas", "ass"]


@checked
def from_arrays(
    transition: Any,
    reward: Any,
    *,
    initial: object,
    axes: Axes = "sas",
    terminal: object = (),
    absorbing: Absorbing | None = None,
    name: str = "arrays",
) -> ImportedMDP:
    """Return the world of arrays, lists of sparse matrices or dictionaries.

    Parameters
    ----------
    transition
        P as an array in the order `axes` says; a list of one dense or sparse (S, S) matrix per action; or a dictionary
        {action: (S, S) matrix} with actions 0 to A - 1. Rows that sum to less than one end the episode with the rest.
    reward
        (S,), (S, A), or one number per outcome: an array in the order of `axes`, or a list as for `transition`.
    initial
        (S,), distribution of the first state.
    axes
        "sas" for [state, action, next state], "ass" for [action, state, next state]. Lists and dictionaries by action
        are their own order.
    terminal
        States in which the episode is over as soon as they are entered.
    absorbing
        Whether other states that no action leaves end the episode ("end") or are lived in for ever ("keep").
    name
        Of the world.

    Raises
    ------
    InvalidInputError
        If a row is none, naming the state and the action, if shapes do not fit together, or if a state is absorbing
        and nothing is said of it.

    Examples
    --------
    >>> from bilevelrl.tasks import from_arrays
    >>> stay, move = np.eye(2), np.array([[0.0, 1.0], [0.0, 1.0]])
    >>> world = from_arrays([stay, move], np.array([0.0, 1.0]), initial=[1.0, 0.0], absorbing="end", terminal=[1])
    >>> print(world.summary())
    arrays: 2 states, 2 actions
    - terminal states, 1: the episode is over when one is entered
    - states that no episode visits, 1: they have no say
    """
    kernel = _by_pair("transition", transition, axes)
    states, actions, _ = kernel.shape
    check_rows("transition", kernel, "normalise each row; leave out mass only where the episode ends")
    paid = _reward(reward, kernel, axes)
    start: FloatArray = check_array("initial", initial)
    check_shape("initial", start, (states,), "one probability per state")
    over = _terminal(terminal, states)
    notes = []
    if over:
        kernel[:, :, sorted(over)] = 0.0
        kernel[sorted(over)] = 0.0
        notes.append(f"terminal states, {len(over)}: the episode is over when one is entered")
        if start[sorted(over)].any():
            raise InvalidInputError(
                refusal("terminal", sorted(over), "states in which no episode starts", "choose another initial")
            )
    outcomes = {
        (state, action): {int(s): float(kernel[state, action, s]) for s in np.flatnonzero(kernel[state, action])}
        for state in range(states)
        for action in range(actions)
    }
    return assemble(outcomes, paid, start, absorbing=absorbing, name=name, notes=notes)


def _by_pair(name: str, given: Any, axes: Axes) -> FloatArray:
    """Any of the forms as a new (S, A, S) array."""
    if isinstance(given, Mapping):
        if set(given) != set(range(len(given))):
            raise InvalidInputError(refusal(f"keys of {name}", list(given), "actions 0 to A - 1", "number the actions"))
        given, axes = [_dense(given[action]) for action in range(len(given))], "ass"
    elif isinstance(given, (list, tuple)) and any(np.ndim(matrix) == 2 for matrix in given if not _is_listed(matrix)):
        given, axes = [_dense(matrix) for matrix in given], "ass"
    array: FloatArray = np.array(check_array(name, given))
    if array.ndim != 3:
        raise ShapeError(refusal(f"{name}.shape", array.shape, "three axes", "one matrix (S, S) per action"))
    if axes == "ass":
        array = np.ascontiguousarray(array.transpose(1, 0, 2))
    if array.shape[0] != array.shape[2]:
        raise ShapeError(
            refusal(f"{name}.shape", np.shape(given), f"square in states, in the order axes={axes!r}",
                    "say axes='ass' for [action, state, next state]")
        )  # fmt: skip
    return array


def _is_listed(entry: Any) -> bool:
    """Whether an entry is written out in lists: a table of such is in the order that `axes` says."""
    return isinstance(entry, (list, tuple))


def _dense(matrix: Any) -> Any:
    """A sparse matrix or array as a dense one; anything else as it is."""
    return matrix.toarray() if hasattr(matrix, "toarray") else matrix


def _reward(reward: Any, kernel: FloatArray, axes: Axes) -> FloatArray:
    """(S, A): the mean over outcomes, where the reward has one number for each."""
    states, actions, _ = kernel.shape
    sparse = isinstance(reward, (list, tuple)) and any(scipy.sparse.issparse(matrix) for matrix in reward)
    if sparse or isinstance(reward, Mapping) or np.ndim(check_array("reward", reward)) == 3:
        by_outcome = _by_pair("reward", reward, axes)
        check_shape("reward", by_outcome, kernel.shape, "one number per outcome, in the order of transition")
        return np.asarray((kernel * by_outcome).sum(axis=2))
    paid: FloatArray = np.array(check_array("reward", reward))
    if paid.ndim == 1:
        check_shape("reward", paid, (states,), "one reward per state")
        return paid[:, None] * np.ones((1, actions))
    check_shape("reward", paid, (states, actions), "one reward per state and action")
    return paid


def _terminal(terminal: Any, states: int) -> set[int]:
    if isinstance(terminal, (tuple, list)) and not terminal:
        return set()
    given = np.asarray(check_array("terminal", terminal, dtype=np.int64))
    if given.ndim != 1 or ((given < 0) | (given >= states)).any():
        raise InvalidInputError(refusal("terminal", terminal, f"a list of states in [0, {states})", "number them"))
    return set(given.tolist())
