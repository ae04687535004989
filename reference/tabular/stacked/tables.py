"""The tables of one dense configurable MDP at many θ, and their common pullback."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from bilevelrl.reference.arrays import BoolArray, FloatArray, check_shape, is_frozen
from bilevelrl.reference.derivatives.probes import STEPS, check_directions
from bilevelrl.reference.errors import InvalidInputError, ShapeError, refusal
from bilevelrl.reference.many.hypergradients import named_place
from bilevelrl.reference.tabular.model import TabularAt
from bilevelrl.reference.tabular.tables import Tables, hold_rewards

__all__ = ["StackedTables", "tables_one_by_one", "tables_together"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StackedTables:
    """The tables of one problem at B θ.

    Attributes
    ----------
    kernel : (B or 1, S, A, S)
        One where all θ have the same.
    reward_follower, reward_leader : (B, S, A)
        Rewards.
    initial : (B or 1, S)
        Law of the first state.
    regulariser : (B,)
        ρ(θ).
    varying
        Names of the tables that depend on θ anywhere.
    pull
        {table: (B, *table shape)} → (B, N).
    action_mask
        Of all θ.
    """

    kernel: FloatArray
    reward_follower: FloatArray
    reward_leader: FloatArray
    initial: FloatArray
    regulariser: FloatArray
    varying: frozenset[str]
    pull: Callable[[Mapping[str, FloatArray]], FloatArray]
    action_mask: BoolArray | None

    def __getitem__(self, place: int) -> Tables:
        """The tables at one θ."""
        return Tables(
            transition=self.kernel[place % len(self.kernel)],
            reward_follower=self.reward_follower[place],
            reward_leader=self.reward_leader[place],
            initial=self.initial[place % len(self.initial)],
            regulariser=self.regulariser[place],
            action_mask=self.action_mask,
        )


def tables_together(first: TabularAt, thetas: FloatArray) -> StackedTables | None:
    """Return the tables by the problem's stacked forms; None where it has none, or θ enters more than the rewards.

    Whether it does is asked at every θ, and a step beside it.
    """
    problem, tables = first.problem, first.tables
    if problem.stacked_rewards is None or problem.stacked_pullback is None:
        return None
    _ = first.pullback  # checks the derivatives
    beside = thetas + STEPS[0] * check_directions(thetas)
    own = [tables, *(problem.evaluate(theta) for theta in thetas[1:])]
    if first.varying - {"reward_follower", "reward_leader"} or not all(
        _same_laws(tables, other) for other in (*own, *(problem.evaluate(theta) for theta in beside))
    ):
        return None
    follower, leader = rewards = problem.rewards(thetas)
    shape = (len(thetas), tables.states, tables.actions)
    for name, found in (("follower", follower), ("leader", leader)):
        check_shape(f"stacked_rewards of the {name}", found, shape, "return (R, S, A)")
    if not (np.isfinite(follower).all() and np.isfinite(leader).all()):
        return None  # θ after θ says which
    if problem.verify_derivatives:
        for theta, one, other, single in zip(thetas, follower, leader, own, strict=True):
            hold_rewards(theta, one, other, single)
    return StackedTables(
        kernel=_own(tables.transition)[None],
        reward_follower=np.array(follower),
        reward_leader=np.array(leader),
        initial=_own(tables.initial)[None],
        regulariser=np.full(len(thetas), float(tables.regulariser)),
        varying=frozenset({"reward_follower", "reward_leader"}),
        pull=problem.stacked_pullback_at(thetas, rewards),
        action_mask=tables.action_mask,
    )


def _same_laws(tables: Tables, other: Tables) -> bool:
    """Whether two tables differ in rewards only."""
    laws = ((getattr(each, name) for each in (tables, other)) for name in ("transition", "initial", "regulariser"))
    return _same_masks(tables, other) and all(one is another or np.array_equal(one, another) for one, another in laws)


def _same_masks(tables: Tables, other: Tables) -> bool:
    one, another = tables.action_mask, other.action_mask
    return one is another or (one is not None and another is not None and np.array_equal(one, another))


def _own(array: FloatArray) -> FloatArray:
    """Return an array that stays as it is."""
    return array if is_frozen(array) else array.copy()


def tables_one_by_one(first: TabularAt, thetas: FloatArray) -> StackedTables:
    """Return the tables of θ after θ, with a trace of each."""
    problem = first.problem
    members, pulls, names = [], [], set[str]()
    for place, theta in enumerate(thetas):
        with named_place(place):
            at = first if place == 0 else problem.at(theta)
            pulls.append(at.pullback)
            names |= at.varying
        if np.shape(at.tables.transition) != np.shape(first.tables.transition):
            raise ShapeError(
                refusal(
                    f"transition.shape at thetas[{place}]",
                    np.shape(at.tables.transition),
                    f"{np.shape(first.tables.transition)} as at thetas[0]",
                    "call hypergradient for each",
                )
            )
        if not _same_masks(first.tables, at.tables):
            remedy = "a mask that depends on θ has no derivative; call hypergradient for each"
            raise InvalidInputError(refusal(f"action_mask at thetas[{place}]", "another", "as at thetas[0]", remedy))
        members.append(at.tables)
    kernels = [tables.transition for tables in members]
    shared = all(kernel is kernels[0] for kernel in kernels)
    follower, leader, initial = (
        np.stack([getattr(tables, name) for tables in members])
        for name in ("reward_follower", "reward_leader", "initial")
    )

    def pull(cotangents: Mapping[str, FloatArray]) -> FloatArray:
        rows = [own({name: value[place] for name, value in cotangents.items()}) for place, own in enumerate(pulls)]
        return np.stack(rows)

    return StackedTables(
        kernel=_own(kernels[0])[None] if shared else np.stack(kernels),
        reward_follower=follower,
        reward_leader=leader,
        initial=initial,
        regulariser=np.array([float(tables.regulariser) for tables in members]),
        varying=frozenset(names),
        pull=pull,
        action_mask=first.tables.action_mask,
    )
