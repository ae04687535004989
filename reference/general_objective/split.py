"""A general objective as a function of four θ: what finite differences know of its hypergradient.

No slope of f is asked for: f is evaluated at moved θ, and at policies and occupancies of moved tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.general_objective.model import GeneralAt, GeneralObjective
from bilevelrl.reference.problem import AnswerBounds, Objective, Part, split_objective
from bilevelrl.reference.tabular.follower import TabularFollower, solve_tabular
from bilevelrl.reference.tabular.split import TabularSplit
from bilevelrl.reference.tabular.transitions import DiscountedSystem, to_dense

__all__ = ["GENERAL_PARTS", "GeneralSplit", "split_general"]

GENERAL_PARTS: tuple[Part, ...] = ("initial", "direct", "transition", "response")
"""The parts of a general objective's hypergradient; `direct` is ∂f/∂θ."""


@split_objective.register(GeneralObjective)
def split_general(at: GeneralAt, objective: Objective, *, warm_start: TabularFollower | None = None) -> GeneralSplit:
    """Split a general objective."""
    at.problem.process.derivatives.refuse_noise(at.theta)
    return GeneralSplit(at, solve_tabular(at.process, warm_start=warm_start), objective)


class GeneralSplit:
    """A general objective with one of its four θ moved; see `SplitObjective`."""

    parts = GENERAL_PARTS

    def __init__(self, at: GeneralAt, follower: TabularFollower, objective: Objective) -> None:
        self._at, self.follower, self._objective = at, follower, objective
        self._process = TabularSplit(at.process, follower, objective)
        self.condition = self._process.condition
        tables = at.process.tables
        self._initial = np.asarray(tables.initial)
        self._occupancy = self._visits(self._initial, at.process.kernel, follower.policy)
        self.base = self._value(at, follower.policy, self._occupancy)

    def error_bound(self, at: GeneralAt) -> AnswerBounds:
        """Nothing is shown of f beyond its values: inf."""
        return AnswerBounds(gradient=np.inf, objective=np.inf)

    def depends(self, part: Part) -> bool:
        """Whether the part can be anything but zero; of θ in f nothing is known."""
        return part == "direct" or self._process.depends(part)

    def noise(self, part: Part) -> float:
        """How far values are expected to scatter: roundings of f and of its occupancy, and of policies solved anew."""
        eps = float(np.finfo(np.float64).eps)
        size = abs(self.base) + abs(self._moved_along)
        ulps = 16.0 * eps * size
        if part == "direct":
            return ulps
        terms = len(self._initial) / (1.0 - self._at.problem.discount_leader)
        policy = self.follower.policy_error_bound if part == "response" else 0.0
        return ulps + (eps * terms + policy) * size

    @cached_property
    def _moved_along(self) -> float:
        """How f moves where all of the policy and of the occupancy moves by its own size, by one wide difference."""
        moved = self._value(self._at, self.follower.policy * (1.0 + 2.0**-10), self._occupancy * (1.0 + 2.0**-10))
        return (moved - self.base) * 2.0**10

    def values(self, part: Part, moved: Sequence[GeneralAt]) -> FloatArray:
        """The objective with one part moved."""
        policy, kernel = self.follower.policy, self._at.process.kernel
        tables = [at.process.tables for at in moved]
        if part == "direct":
            return np.array([self._value(at, policy, self._occupancy) for at in moved])
        if part == "response":
            played = self._process.responses(tables)
            visits = [self._visits(self._initial, kernel, each) for each in played]
            return np.array([self._value(self._at, *pair) for pair in zip(played, visits, strict=True)])
        visits = [
            self._visits(np.asarray(each.initial), kernel, policy)
            if part == "initial"
            else self._visits(self._initial, to_dense(each.transition), policy)
            for each in tables
        ]
        return np.array([self._value(self._at, policy, each) for each in visits])

    def _value(self, at: GeneralAt, policy: FloatArray, occupancy: FloatArray) -> float:
        return float(at.problem.value(at.theta, policy, occupancy))

    def _visits(self, initial: FloatArray, kernel: FloatArray, policy: FloatArray) -> FloatArray:
        """Return the occupancy that f is given."""
        discount = self._objective.discount(self._at.problem.discount_leader)
        chain = np.matmul(policy[:, None, :], kernel)[:, 0, :]
        if self._objective.horizon is None:
            visits = DiscountedSystem.factorise(chain, discount).solve_transposed(initial)
        else:
            visits, law = np.zeros(initial.size), initial
            for _ in range(self._objective.horizon):
                visits, law = visits + law, discount * (law @ chain)
        return self._at.problem.weight(self._objective) * visits
