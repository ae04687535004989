"""The tables of a configurable MDP: transitions, both rewards, the initial law and the leader's regulariser."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import autograd.numpy as anp
import numpy as np

from bilevelrl.reference.arrays import FloatArray, Traced, check_shape, is_differentiated
from bilevelrl.reference.derivatives.array_values import check_changes, differentiable_array
from bilevelrl.reference.derivatives.differentiated import hold_row
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, ShapeError, refusal
from bilevelrl.reference.tabular.transitions import (
    ROW_SUM_TOLERANCE,
    SparseTransition,
    Transition,
    check_rows,
    check_transition,
    transition_shape,
)

__all__ = ["TABLE_NAMES", "UNPLAYABLE", "TableName", "Tables", "check_values", "hold_rewards", "playable_actions"]

UNPLAYABLE = -1e100
"""The follower's reward where an action cannot be taken: no temperature in use gives it a probability above zero."""

TableName: TypeAlias = Literal["transition", "reward_follower", "reward_leader", "initial", "regulariser"]
TABLE_NAMES: tuple[TableName, ...] = ("transition", "reward_follower", "reward_leader", "initial", "regulariser")


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Everything that a configurable MDP is made of at one θ.

    Entries may be autograd tracers or complex while a derivative is being taken; shapes are checked always, values by
    `check_values` once they are plain numbers.

    Parameters
    ----------
    transition
        (S, A, S) array indexed [state_t, action_t, state_tp1], or a `SparseTransition`. A row whose sum is within
        1e-12 of one means the row divided by its exact sum; any other row may sum to less than one, is taken as the
        doubles that it is, and the rest is termination. The same along θ: where such a row's sum stands still its
        derivative is that of the quotient, and where the sum moves it is the row's own.
    reward_follower, reward_leader
        (S, A). Each player maximises its discounted sum.
    initial
        (S,), law of the first state: sums to one within 1e-12 and means itself divided by its sum.
    regulariser
        Scalar ρ(θ), added to the leader's objective.
    action_mask
        Optional (S, A), which actions the follower can take where: True or 0 for yes, False or -inf for no, at least
        one per state, independent of θ. What cannot be taken gets `UNPLAYABLE` for a reward, whatever was given, and so
        the probability zero in every solver, route, sampler and estimator; what it pays the leader and where it leads
        have no say.

    Integers and floats of other precisions are read as float64 first.

    Raises
    ------
    ShapeError
        If the shapes do not fit together.
    InvalidInputError
        If the mask holds anything else, or leaves a state without an action.

    Examples
    --------
    >>> tables = Tables(
    ...     transition=np.full((2, 1, 2), 0.5), reward_follower=np.zeros((2, 1)),
    ...     reward_leader=np.ones((2, 1)), initial=np.array([1.0, 0.0]))
    >>> tables.states, tables.actions
    (2, 1)
    """

    transition: Transition
    reward_follower: Traced
    reward_leader: Traced
    initial: Traced
    regulariser: Traced = 0.0
    action_mask: Traced = None

    def __post_init__(self) -> None:
        for name in TABLE_NAMES:
            value = getattr(self, name)
            if not isinstance(value, SparseTransition):
                object.__setattr__(self, name, differentiable_array(name, value))
        shape = transition_shape(self.transition)
        if len(shape) != 3 or shape[0] != shape[2] or min(shape) < 1:
            raise ShapeError(refusal("transition.shape", shape, "(S, A, S) with S, A >= 1", "index it [s, a, s']"))
        for name, wanted in (("reward_follower", shape[:2]), ("reward_leader", shape[:2]), ("initial", shape[:1])):
            found = np.shape(getattr(self, name))
            if found != wanted:
                raise ShapeError(
                    refusal(f"{name}.shape", found, f"{wanted} to fit transition {shape}", "broadcast it explicitly")
                )
        if np.shape(self.regulariser) != ():
            raise ShapeError(refusal("regulariser.shape", np.shape(self.regulariser), "()", "sum it to a scalar"))
        if self.action_mask is not None:
            playable = playable_actions(self.action_mask, shape[:2])
            object.__setattr__(self, "action_mask", playable)
            object.__setattr__(self, "reward_follower", anp.where(playable, self.reward_follower, UNPLAYABLE))

    @property
    def states(self) -> int:
        """Number of states S."""
        return transition_shape(self.transition)[0]

    @property
    def actions(self) -> int:
        """Number of the follower's actions A."""
        return transition_shape(self.transition)[1]

    def differentiable(self) -> dict[str, Traced]:
        """Return the arrays by name; a sparse kernel is represented by its probabilities."""
        transition = self.transition
        kernel = transition.probability if isinstance(transition, SparseTransition) else transition
        return {
            "transition": kernel,
            "reward_follower": self.reward_follower,
            "reward_leader": self.reward_leader,
            "initial": self.initial,
            "regulariser": self.regulariser,
        }

    @checked
    def replace(self, changes: Mapping[str, Traced]) -> Tables:
        """Return tables with some arrays replaced, as named by `differentiable`."""
        entries = {**self.differentiable(), **check_changes(changes, TABLE_NAMES)}
        if isinstance(self.transition, SparseTransition):
            entries["transition"] = SparseTransition(
                successor=self.transition.successor, probability=entries["transition"]
            )
        return Tables(**entries, action_mask=self.action_mask)


def playable_actions(mask: Traced, shape: tuple[int, ...]) -> Traced:
    """Return a mask as booleans (..., A), with at least one action where each is chosen, or raise."""
    check_shape("action_mask", mask, shape, "one entry per state and action")
    given = np.asarray(mask)
    if given.dtype == np.bool_:
        playable = given.copy()
    elif given.dtype.kind in "iuf" and ((given == 0.0) | (given == -np.inf)).all():
        playable = given == 0.0
    else:
        raise InvalidInputError(
            refusal("action_mask", given.tolist(), "True or 0 (can be taken), False or -inf (cannot)", "pass booleans")
        )
    some = playable.any(axis=-1)
    if not some.all():
        point = tuple(np.argwhere(~some)[0].tolist())
        where = ", ".join(map(str, point))
        raise InvalidInputError(
            refusal(f"action_mask[{where}]", given[point].tolist(), "at least one action", "leave an action that stays")
        )
    playable.setflags(write=False)
    return playable


def check_values(tables: Tables, *, checked: Collection[str] = ()) -> None:
    """Refuse values that no MDP has: non-finite rewards, negative or too large probabilities.

    Parameters
    ----------
    tables
        Plain numbers.
    checked
        "transition", "initial": probabilities to leave out, because they were checked before.

    Raises
    ------
    InvalidInputError
        Naming the table, the index and the value.
    """
    if any(is_differentiated(value) for value in tables.differentiable().values()):
        raise InvalidInputError(
            "tables: expected real float64 arrays for a float64 θ; the function returned tracers or complex numbers. "
            "Do not keep autograd values between calls, and return real arrays for a real θ"
        )
    for name in ("reward_follower", "reward_leader", "regulariser"):
        values = np.asarray(getattr(tables, name), dtype=np.float64)
        if not np.isfinite(values).all():
            index = [int(i) for i in np.argwhere(~np.isfinite(values))[0]]
            remedy = "check the formula at this θ"
            if name == "reward_follower" and values[tuple(index)] == -np.inf:
                remedy = "an action that cannot be taken is named by action_mask, not by its reward"
            raise InvalidInputError(refusal(f"{name}{index}", float(values[tuple(index)]), "a finite number", remedy))
    if "initial" not in checked:
        remedy = "normalise the initial law"
        check_rows("initial", tables.initial, remedy)
        if abs(float(np.sum(tables.initial)) - 1.0) > ROW_SUM_TOLERANCE:
            raise InvalidInputError(refusal("sum of initial", float(np.sum(tables.initial)), "1", remedy))
    if "transition" not in checked:
        check_transition(tables.transition)


def hold_rewards(theta: FloatArray, follower: FloatArray, leader: FloatArray, tables: Tables) -> None:
    """Refuse rows of stacked rewards that the tables of their θ do not have, where actions can be taken.

    Raises
    ------
    DerivativeError
        Naming the player.
    """
    mask = np.True_ if tables.action_mask is None else tables.action_mask
    for name, found in (("follower", follower), ("leader", leader)):
        single = getattr(tables, f"reward_{name}")
        shown = np.where(mask, found, 0.0) if np.shape(found) == np.shape(single) else found
        hold_row(f"stacked_rewards of the {name}", theta, shown, np.where(mask, single, 0.0))
