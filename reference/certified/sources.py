"""Where certified problems come from: tables given as doubles with their Jacobians, or closed forms evaluated in balls.

A source yields the tables in balls at the working precision, and the pullback of weights on them to θ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from flint import arb

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.certified.balls import as_law, ball, law_cotangent, sums_to_one
from bilevelrl.reference.certified.tabular.tables import BallTables, Row, check_size
from bilevelrl.reference.tabular.model import ConfigurableMDP
from bilevelrl.reference.tabular.tables import TableName, Tables
from bilevelrl.reference.tabular.transitions import ROW_SUM_TOLERANCE, SparseTransition

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
    """The tables and Jacobians of a problem at θ, read exactly from the doubles that they are.

    Rows that sum to one as far as rounding allows are divided by their exact sums, and so are their derivatives where
    the sums stand still: see `Tables`. What is certified about such a problem is certified for these tables and these
    derivatives; how well they match the formulas that they were computed from is not looked at. `ClosedForm` problems
    leave no such gap: they say themselves where they divide.
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
        """Return the tables at the working precision."""
        read, problem = self.read, self.problem
        return BallTables(
            kernel=[[self._successors(s, a) for a in range(read.actions)] for s in range(read.states)],
            reward_follower=_exact_rows(read.reward_follower),
            reward_leader=_exact_rows(read.reward_leader),
            initial=as_law(_exact(read.initial)),
            regulariser=ball(float(read.regulariser)),
            discount_leader=ball(problem.discount_leader if discounted else 1.0),
            discount_follower=ball(problem.discount_follower),
            temperature=ball(problem.temperature),
        )

    def _successors(self, s: int, a: int) -> Row:
        kernel = self.read.transition
        if isinstance(kernel, SparseTransition):
            places, row = kernel.successor[s, a].tolist(), _exact(kernel.probability[s, a])
        else:
            places = np.flatnonzero(kernel[s, a]).tolist()
            row = _exact(kernel[s, a, places])
        return tuple(zip(places, as_law(row), strict=True))

    def pull(self, name: TableName, weight: Weight) -> list[arb]:
        """Return Σ weight ∂table/∂θ over the Jacobian's non-zero entries."""
        total = [arb(0)] * self.parameters
        jacobian = self.jacobian.get(name)
        if jacobian is None:
            return total
        if name in ("transition", "initial"):
            weight = self._undivided(name, jacobian, weight)
        for index in np.argwhere(np.any(jacobian != 0.0, axis=-1)):
            place = tuple(int(i) for i in index)
            slopes = jacobian[place]
            w = weight(place)
            for j in np.flatnonzero(slopes):
                total[int(j)] += w * ball(float(slopes[j]))
        return total

    def _undivided(self, name: TableName, jacobian: FloatArray, weight: Weight) -> Weight:
        """Return the weights on the rows as listed, from those on the laws that they mean.

        An initial law sums to one at every θ; a kernel's row whose sum moves may leave one, and keeps its derivative.
        """
        kernel, listed = self.read.transition, self.read.differentiable()[name]
        successor = kernel.successor if name == "transition" and isinstance(kernel, SparseTransition) else None
        still = ROW_SUM_TOLERANCE * float(np.abs(jacobian).max(initial=0.0))
        known: dict[tuple[int, ...], list[arb]] = {}

        def weights(row: tuple[int, ...]) -> list[arb]:
            places = range(listed.shape[-1]) if successor is None else successor[row].tolist()
            given, entries = [weight((*row, t)) for t in places], _exact(listed[row])
            stands_still = name == "initial" or np.abs(jacobian[row].sum(axis=0)).max() <= still
            if sums_to_one(entries) and stands_still:
                return law_cotangent(as_law(entries), given, entries)
            return given

        def on_listed(place: tuple[int, ...]) -> arb:
            row = place[:-1]
            if row not in known:
                known[row] = weights(row)
            return known[row][place[-1]]

        return on_listed


def _exact(row: FloatArray) -> list[arb]:
    return [ball(float(entry)) for entry in row]


def _exact_rows(table: FloatArray) -> list[list[arb]]:
    return [_exact(row) for row in table]
