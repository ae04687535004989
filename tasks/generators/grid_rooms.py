"""Grids of n × n rooms: Four-Rooms at any size, with a sparse kernel and hypergradients at nearly linear cost.

Rooms are taken in blocks of two by two. In every block the bottom right cell is a goal, where the follower's episode
ends, and the centre of the first room is a target, where it earns the leader one unit per step. Episodes start
anywhere. The leader lays penalties on all cells and pays, at the goal, `coefficient` times what it laid out relative to
`mean_penalty` per cell. So a problem of any size looks locally like the one with 2 × 2 rooms, and each of its S
derivatives is of order 1/S.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.arrays import check_memory, check_positive
from bilevelrl.reference.doors import Count, Probability, checked
from bilevelrl.reference.errors import UnknownNameError
from bilevelrl.reference.storage import remade
from bilevelrl.tasks.paper.penalties import Penalties, SigmoidPenalties, SoftmaxPenalties, penalised_grid
from bilevelrl.tasks.paper.room_grid import Cell, RoomGrid
from bilevelrl.tasks.registry import register_task

__all__ = ["PENALTY_KINDS", "PenaltyKind", "grid_rooms"]

PenaltyKind: TypeAlias = Literal["sigmoid", "softmax"]
PENALTY_KINDS: tuple[PenaltyKind, ...] = ("sigmoid", "softmax")


@register_task("grid_rooms", "n × n rooms of any size with a sparse kernel, one penalty per cell")
@remade
@checked
def grid_rooms(
    *,
    rooms_per_side: Count = 2,
    room_size: Count = 5,
    penalties: PenaltyKind = "sigmoid",
    mean_penalty: float = 0.002,
    coefficient: float = 1.0,
    intended: Probability = 0.67,
    temperature: float = 0.003,
    discount_leader: float = 0.99,
    discount_follower: float = 0.99,
    dense: bool = False,
) -> ConfigurableMDP:
    """Return a problem on a grid of rooms.

    Parameters
    ----------
    rooms_per_side, room_size
        The map has `(rooms_per_side · room_size)²` cells and the doors between rooms.
    penalties
        "sigmoid": one free penalty per cell, at most `2 mean_penalty`, θ ∈ R^S. "softmax": a budget of `mean_penalty`
        per cell shared by all cells and an unused slot, θ ∈ R^(S+1), as in Four-Rooms.
    mean_penalty
        Penalty of a cell at θ = 0 (up to the unused slot), in units of the follower's reward.
    coefficient
        What the leader pays at a goal if the average penalty is `mean_penalty`.
    intended
        Probability that a move goes where it should; the other three directions share the rest.
    temperature, discount_leader, discount_follower
        β, γ_L and γ_F.
    dense
        Use an (S, 4, S) kernel: the same problem, for comparison at small sizes.

    Returns
    -------
    ConfigurableMDP
        With a `SparseTransition` unless `dense`. Derivatives in closed form: a pullback costs O(S).

    Raises
    ------
    UnknownNameError
        If there is no such kind of penalties.
    InvalidInputError
        If a number is out of range.
    TooLargeError
        If memory does not hold the kernel.

    Examples
    --------
    >>> problem = grid_rooms(rooms_per_side=3, room_size=4)
    >>> problem.theta_shape, problem.tables(np.zeros(156)).transition.probability.shape
    ((156,), (156, 4, 4))
    """
    if penalties not in PENALTY_KINDS:
        raise UnknownNameError("penalties", penalties, PENALTY_KINDS)
    check_positive("mean_penalty", mean_penalty, "pass the penalty per cell and step")
    cells = (rooms_per_side * (room_size + 1.0) + 1.0) ** 2
    check_memory(
        f"rooms_per_side={rooms_per_side}, room_size={room_size}", 350.0 * cells, "the kernel", "pass smaller ones"
    )
    grid = RoomGrid.of_rooms(rooms_per_side, room_size)
    goals, targets = _landmarks(rooms_per_side, room_size)
    kernel = grid.kernel(intended, terminal=goals)
    total = mean_penalty * grid.states
    laid: Penalties
    if penalties == "sigmoid":
        laid = SigmoidPenalties(cells=grid.states, largest=2.0 * mean_penalty)
    else:
        laid = SoftmaxPenalties(cells=grid.states, budget=total)
    return penalised_grid(
        transition=kernel.to_dense() if dense else kernel,
        penalties=laid,
        initial=np.full(grid.states, 1.0 / grid.states),
        goals=grid.indicator(*goals, name="goal"),
        targets=grid.indicator(*targets, name="target"),
        cost=coefficient / total,
        temperature=temperature,
        discount_leader=discount_leader,
        discount_follower=discount_follower,
        name=f"grid_rooms({rooms_per_side}x{rooms_per_side} rooms of {room_size}x{room_size}, {penalties})",
    )


def _landmarks(rooms_per_side: int, room_size: int) -> tuple[tuple[Cell, ...], tuple[Cell, ...]]:
    """Goals and targets: bottom right cell, and centre of the top left room, of every block of two by two rooms."""
    pitch = room_size + 1
    firsts = range(0, rooms_per_side, 2)
    centre = [first * pitch + 1 + room_size // 2 for first in firsts]
    corner = [min(first + 2, rooms_per_side) * pitch - 1 for first in firsts]
    goals = tuple((row, column) for row in corner for column in corner)
    targets = tuple((row, column) for row in centre for column in centre)
    return goals, targets
