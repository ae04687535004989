"""Hypergradients of many θ of one dense configurable MDP, with the formulas of `tabular.linearise` on stacked arrays.

Where no start is given for each θ, followers start from one solution: that given, or that of the first θ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.many.hypergradients import Hypergradients, together
from bilevelrl.reference.problem import Objective, Part, Status, error_bound, when_read
from bilevelrl.reference.registry import Hypergradient
from bilevelrl.reference.tabular.fixed_point import reward_centres, start_value
from bilevelrl.reference.tabular.follower import TabularFollower, solve_tabular, tabular_operator
from bilevelrl.reference.tabular.linearise import follower_system
from bilevelrl.reference.tabular.model import ConfigurableMDP, TabularAt
from bilevelrl.reference.tabular.stacked.solving import Found, Solver, joined
from bilevelrl.reference.tabular.stacked.tables import StackedTables, tables_one_by_one, tables_together
from bilevelrl.reference.tabular.transitions import SparseTransition
from bilevelrl.reference.tabular.value_errors import ErrorsOnDemand, value_errors

__all__ = ["hypergradients_together"]

LARGEST = 2**25
"""Entries of stacked tables, a quarter of a gigabyte: beyond, θ are computed one after the other."""


@together.register(ConfigurableMDP)
def hypergradients_together(
    first: TabularAt, thetas: FloatArray, objective: Objective, *, warm_start: object, bound: bool
) -> Hypergradients | None:
    """Return all hypergradients; None where kernels are sparse or too large, or rewards need a constant split off."""
    if isinstance(first.tables.transition, SparseTransition):
        return None
    states, actions = first.tables.states, first.tables.actions
    moved = "transition" in first.varying
    if len(thetas) * states * actions * (states if moved else 1) > LARGEST:
        return None
    tables = tables_together(first, thetas) or tables_one_by_one(first, thetas)
    if any(reward_centres(tables.kernel, each).any() for each in (tables.reward_follower, tables.reward_leader)):
        return None
    problem, starts = first.problem, _starts(first, thetas, warm_start)
    solver = Solver.of(problem, tables, starts if isinstance(starts, TabularFollower) else None)
    if isinstance(starts, TabularFollower):
        starts = np.broadcast_to(starts.value, (len(thetas), states))
    size = solver.memory.shape[1]
    blocks = [solver(slice(low, low + size), starts[low : low + size]) for low in range(0, len(thetas), size)]
    found = blocks[0] if len(blocks) == 1 else joined(blocks)
    parts = _parts(tables, found, problem)
    members = _Members(
        problem=problem,
        thetas=thetas.copy(),
        tables=tables,
        found=found,
        value=sum(parts.values(), np.zeros((len(thetas), thetas[0].size))),
        parts=parts,
        objective=tables.regulariser + np.vecdot(np.broadcast_to(tables.initial, found.worth.shape), found.worth),
        returns=objective,
        bound=bound,
    )
    return Hypergradients(
        value=members.value,
        parts=parts,
        objective=members.objective,
        residual=found.residual,
        status=tuple(members.status(place).value for place in range(len(thetas))),
        route="implicit",
        members=members,
    )


def _starts(first: TabularAt, thetas: FloatArray, warm_start: object) -> TabularFollower | FloatArray:
    """Return values to start each θ from, (B, S), or the follower to start all from."""
    states = first.tables.states
    if isinstance(warm_start, Hypergradients):
        if isinstance(warm_start.members, _Members):
            return warm_start.members.found.value
        return np.stack([start_value(states, member.follower, 0.0) for member in warm_start])
    if isinstance(warm_start, np.ndarray) and warm_start.ndim == 2:
        return np.stack([start_value(states, row, 0.0) for row in warm_start])
    if isinstance(warm_start, Hypergradient):
        warm_start = warm_start.follower
    if isinstance(warm_start, TabularFollower):
        start_value(states, warm_start, 0.0)  # refuses that of another problem
        return warm_start
    return solve_tabular(first, warm_start=warm_start)  # type: ignore[arg-type]  # values, or what it refuses


def _parts(tables: StackedTables, found: Found, problem: ConfigurableMDP) -> dict[Part, FloatArray]:
    """Return the cotangents of all parts pulled back to θ, (B, N) each."""
    batch, states = found.worth.shape
    cotangents: dict[Part, dict[str, FloatArray]] = {
        "initial": {"initial": found.worth},
        "direct": {"reward_leader": found.occupancy[:, :, None] * found.policy},
        "transition": {},
        "response": {"reward_follower": found.weight},  # linearise (3)
        "regulariser": {"regulariser": np.ones(batch)},
    }
    if "transition" in tables.varying:
        planned = np.full((batch, states), problem.discount_follower)
        factors: dict[Part, tuple[FloatArray, FloatArray, FloatArray]] = {
            "transition": (problem.discount_leader * found.occupancy, found.policy, found.worth),
            "response": (planned, found.weight, found.value),
        }
        for part, (left, pair, right) in factors.items():
            cotangents[part]["transition"] = (left[:, :, None] * pair)[:, :, :, None] * right[:, None, None, :]
    return {
        part: tables.pull({name: value for name, value in entries.items() if name in tables.varying})
        for part, entries in cotangents.items()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Members(Sequence[Hypergradient]):
    """Each hypergradient by itself, made when it is asked for from arrays that nobody else writes to."""

    problem: ConfigurableMDP
    thetas: FloatArray
    tables: StackedTables
    found: Found
    value: FloatArray
    parts: Mapping[Part, FloatArray]
    objective: FloatArray
    returns: Objective
    bound: bool
    _made: dict[int, Hypergradient] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.thetas)

    def status(self, place: int) -> Status:
        """Return how a follower's solver ended."""
        return Status.AT_ROUNDING if self.found.at_rounding[place] else Status.CONVERGED

    @overload
    def __getitem__(self, place: int) -> Hypergradient: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Hypergradient]: ...
    def __getitem__(self, place: int | slice) -> Hypergradient | Sequence[Hypergradient]:
        if isinstance(place, slice):
            return [self[one] for one in range(len(self))[place]]
        one = range(len(self))[place]
        if one not in self._made:
            self._made[one] = self._member(one)
        return self._made[one]

    def _member(self, place: int) -> Hypergradient:
        problem, points, tables = self.problem, self.found, self.tables[place]
        at = TabularAt(problem=problem, theta=self.thetas[place], tables=tables)
        operator = tabular_operator(tables, tables.reward_follower, problem.discount_follower, problem.temperature)
        iterate, solves = points.iterate[place], int(points.solves[place])
        follower = TabularFollower(
            value=points.value[place],
            action_value=points.action_value[place],
            policy=points.policy[place],
            residual=float(points.residual[place]),
            status=self.status(place),
            iterations=solves + int(points.chords[place]),
            sweeps=int(points.sweeps[place]),
            linear_solves=solves + int(points.chords[place]),
            factorisations=solves,
            centred_value=points.value[place],
            centre=0.0,
            errors_on_demand=ErrorsOnDemand(lambda: value_errors(operator, iterate)),
        )
        policy, returns = follower.policy, self.returns
        bounds = when_read(at, lambda again: error_bound(again, follower, returns)) if self.bound else np.inf
        systems = 1 if problem.discount_leader == problem.discount_follower else 2
        return Hypergradient(
            value=self.value[place],
            parts={part: rows[place] for part, rows in self.parts.items()},
            objective=float(self.objective[place]),
            residual=follower.residual,
            condition_source=lambda: follower_system(at, policy).condition(),
            error_bound_source=bounds,
            route="implicit",
            follower=follower,
            status=follower.status.value,
            counters={
                "sweeps": follower.sweeps,
                "factorisations": solves + systems,
                "linear_solves": follower.linear_solves + 3,
            },
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle each with its bound worked out."""
        return tuple, (tuple(self),)
