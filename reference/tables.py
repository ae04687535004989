"""The tables of a configurable MDP: transitions, both rewards, the initial law and the leader's regulariser."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from bilevelrl.reference.array_values import differentiable_array
from bilevelrl.reference.arrays import is_differentiated
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, ShapeError, refusal
from bilevelrl.reference.transitions import SparseTransition, Transition, check_rows, check_transition, transition_shape

__all__ = ["TABLE_NAMES", "TableName", "Tables", "check_values"]

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
        (S, A, S) array indexed [state_t, action_t, state_tp1], or a `SparseTransition`. Rows may sum to less than
        one: the rest is termination.
    reward_follower, reward_leader
        (S, A). Each player maximises its discounted sum.
    initial
        (S,), law of the first state, sums to one.
    regulariser
        Scalar ρ(θ), added to the leader's objective.

    Raises
    ------
    ShapeError
        If the shapes do not fit together.

    Examples
    --------
    >>> tables = Tables(
    ...     transition=np.full((2, 1, 2), 0.5), reward_follower=np.zeros((2, 1)),
    ...     reward_leader=np.ones((2, 1)), initial=np.array([1.0, 0.0]))
    >>> tables.states, tables.actions
    (2, 1)
    """

    transition: Transition
    reward_follower: Any
    reward_leader: Any
    initial: Any
    regulariser: Any = 0.0

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

    @property
    def states(self) -> int:
        """Number of states S."""
        return transition_shape(self.transition)[0]

    @property
    def actions(self) -> int:
        """Number of the follower's actions A."""
        return transition_shape(self.transition)[1]

    def differentiable(self) -> dict[str, Any]:
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
    def replace(self, changes: Mapping[str, Any]) -> Tables:
        """Return tables with some arrays replaced, as named by `differentiable`."""
        entries = {**self.differentiable(), **changes}
        if isinstance(self.transition, SparseTransition):
            entries["transition"] = SparseTransition(
                successor=self.transition.successor, probability=entries["transition"]
            )
        return Tables(**entries)


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
            raise InvalidInputError(
                refusal(f"{name}{index}", float(values[tuple(index)]), "a finite number", "check the formula at this θ")
            )
    if "initial" not in checked:
        remedy = "normalise the initial law"
        check_rows("initial", tables.initial, remedy)
        if abs(float(np.sum(tables.initial)) - 1.0) > 1e-9:
            raise InvalidInputError(refusal("sum of initial", float(np.sum(tables.initial)), "1", remedy))
    if "transition" not in checked:
        check_transition(tables.transition)
