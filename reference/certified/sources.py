"""Where certified problems come from: tables given as doubles with their Jacobians, or closed forms evaluated in balls.

A source yields the tables in balls at the working precision, and the pullback of weights on them to θ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from flint import arb

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.certified.balls import ball
from bilevelrl.reference.certified.tabular import BallTables, check_size
from bilevelrl.reference.configurable_mdp import ConfigurableMDP
from bilevelrl.reference.tables import TableName, Tables
from bilevelrl.reference.transitions import SparseTransition

__all__ = ["DoubleTables", "TabularSource", "Weight"]

Weight: TypeAlias = Callable[[tuple[int, ...]], arb]
"""Cotangent of a table's entry, by its index."""


class TabularSource(Protocol):
    """A configurable MDP at one θ, to any precision."""

    @property
    def parameters(self) -> int:
        """N."""
        ...

    def tables(self, *, discounted: bool) -> BallTables:
        """Return the tables at the working precision."""
        ...

    def pull(self, name: TableName, weight: Weight) -> list[arb]:
        """Return Σ weight ∂table/∂θ, N balls."""
        ...


@dataclass(frozen=True, slots=True)
class DoubleTables:
    """The tables and Jacobians of a problem at θ, taken exactly as the doubles that they are.

    What is certified about such a problem is certified for these tables and these derivatives; how well they match the
    formulas that they were computed from is not looked at. `ClosedForm` problems leave no such gap.
    """

    problem: ConfigurableMDP
    read: Tables
    jacobian: dict[str, FloatArray]
    parameters: int

    @classmethod
    def at(cls, problem: ConfigurableMDP, theta: FloatArray) -> DoubleTables:
        """Evaluate a problem's tables and their Jacobians once."""
        tables = problem.tables_at(theta)
        check_size(tables.states)
        return cls(problem, tables, problem.jacobian(theta), theta.size)

    def tables(self, *, discounted: bool) -> BallTables:
        """Return the tables as exact balls."""
        read, problem = self.read, self.problem
        return BallTables(
            kernel=[
                [tuple((t, ball(p)) for t, p in self._row(s, a)) for a in range(read.actions)]
                for s in range(read.states)
            ],
            reward_follower=_exact_rows(read.reward_follower),
            reward_leader=_exact_rows(read.reward_leader),
            initial=[ball(float(p)) for p in read.initial],
            regulariser=ball(float(read.regulariser)),
            discount_leader=ball(problem.discount_leader if discounted else 1.0),
            discount_follower=ball(problem.discount_follower),
            temperature=ball(problem.temperature),
        )

    def _row(self, s: int, a: int) -> list[tuple[int, float]]:
        kernel = self.read.transition
        if isinstance(kernel, SparseTransition):
            return [(int(t), float(p)) for t, p in zip(kernel.successor[s, a], kernel.probability[s, a], strict=True)]
        return [(int(t), float(kernel[s, a, t])) for t in np.flatnonzero(kernel[s, a])]

    def pull(self, name: TableName, weight: Weight) -> list[arb]:
        """Return Σ weight ∂table/∂θ over the Jacobian's non-zero entries."""
        total = [arb(0)] * self.parameters
        jacobian = self.jacobian.get(name)
        if jacobian is None:
            return total
        kernel = self.read.transition
        successor = kernel.successor if name == "transition" and isinstance(kernel, SparseTransition) else None
        for index in np.argwhere(np.any(jacobian != 0.0, axis=-1)):
            place = tuple(int(i) for i in index)
            slopes = jacobian[place]
            if successor is not None:
                place = (*place[:2], int(successor[place]))
            w = weight(place)
            for j in np.flatnonzero(slopes):
                total[int(j)] += w * ball(float(slopes[j]))
        return total


def _exact_rows(table: Any) -> list[list[arb]]:
    return [[ball(float(entry)) for entry in row] for row in table]
