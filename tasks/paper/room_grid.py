"""Grid maps: free cells and walls, their numbering, moves, and the kernel of an agent whose moves may fail.

States are the free cells in row-major order. Actions are 0 up, 1 right, 2 down, 3 left; a move into a wall, or off the
map, stays where it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from bilevelrl.reference import SparseTransition
from bilevelrl.reference.arrays import BoolArray, FloatArray, IntArray, check_indices
from bilevelrl.reference.doors import Count, Probability, checked
from bilevelrl.reference.errors import InvalidInputError, ShapeError, refusal

__all__ = ["MOVES", "Cell", "RoomGrid"]

Cell: TypeAlias = tuple[int, int]
"""(row, column), counted from 0 at the top left, walls included."""

MOVES: IntArray = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])
"""(4, 2): change of (row, column) for each action: up, right, down, left."""
MOVES.setflags(write=False)


@checked
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoomGrid:
    """A map of free cells and walls.

    Parameters
    ----------
    free
        (rows, columns) booleans.

    Attributes
    ----------
    index : (rows, columns)
        State of each cell, -1 at walls.
    cells : (S, 2)
        Row and column of each state.
    successor : (S, 4)
        State that each move leads to when it succeeds.

    Raises
    ------
    ShapeError, InvalidInputError
        If the map is not two-dimensional or has no free cell.

    Examples
    --------
    >>> grid = RoomGrid.from_text('''
    ... xxxx
    ... x  x
    ... xxxx''')
    >>> grid.states, grid.index_of((1, 2)), grid.successor.tolist()
    (2, 1, [[0, 1, 0, 0], [1, 1, 1, 0]])
    """

    free: BoolArray
    index: IntArray = field(init=False)
    cells: IntArray = field(init=False)
    successor: IntArray = field(init=False)

    def __post_init__(self) -> None:
        free = np.array(self.free, dtype=np.bool_)
        if free.ndim != 2:
            raise ShapeError(refusal("free.shape", free.shape, "(rows, columns)", "give one boolean per cell"))
        if not free.any():
            raise InvalidInputError("free: expected at least one free cell; the map is all walls")
        cells = np.argwhere(free)
        index = np.full(free.shape, -1)
        index[free] = np.arange(len(cells))
        walled = np.pad(index, 1, constant_values=-1)  # off the map is a wall
        reached = cells[:, None, :] + MOVES[None, :, :] + 1
        successor = walled[reached[..., 0], reached[..., 1]]
        successor = np.where(successor < 0, np.arange(len(cells))[:, None], successor)
        for name, value in (("free", free), ("index", index), ("cells", cells), ("successor", successor)):
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    @classmethod
    @checked
    def from_text(cls, text: str) -> RoomGrid:
        """Read a map drawn with `x` for walls and blanks for free cells, one line per row.

        Raises
        ------
        ShapeError
            If lines differ in length.
        InvalidInputError
            If another character occurs.
        """
        lines = text.strip("\n").splitlines()
        if len({len(line) for line in lines}) != 1:
            raise ShapeError("text of a map: expected lines of the same length; fill up with x or blanks")
        strange = sorted(set("".join(lines)) - {"x", " "})
        if strange:
            raise InvalidInputError(
                refusal("text of a map", strange[0], "only 'x' (wall) and ' ' (free)", "redraw this cell")
            )
        return cls(free=np.array([[character == " " for character in line] for line in lines]))

    @classmethod
    @checked
    def of_rooms(cls, rooms_per_side: Count, room_size: Count) -> RoomGrid:
        """Lay out n × n square rooms; every wall between two rooms has one door, in its middle.

        Raises
        ------
        InvalidInputError
            If a size is below one.

        Examples
        --------
        >>> RoomGrid.of_rooms(2, 5).states
        104
        """
        side = rooms_per_side * (room_size + 1) + 1
        position = np.arange(side)
        wall = position % (room_size + 1) == 0
        free = ~(wall[:, None] | wall[None, :])
        middle = position % (room_size + 1) == 1 + room_size // 2
        inner = wall & (position > 0) & (position < side - 1)
        free |= (inner[:, None] & middle[None, :]) | (middle[:, None] & inner[None, :])
        return cls(free=free)

    @property
    def states(self) -> int:
        """Number of free cells S."""
        return len(self.cells)

    @checked
    def index_of(self, cell: Cell, name: str = "cell") -> int:
        """Return the state of a free cell.

        Raises
        ------
        InvalidInputError
            If the cell is a wall or off the map; `name` says which argument it was.
        """
        row, column = cell
        rows, columns = self.free.shape
        if not (0 <= row < rows and 0 <= column < columns) or not self.free[row, column]:
            raise InvalidInputError(
                refusal(name, tuple(cell), f"a free cell (row, column) of the {rows}x{columns} map", "look at the map")
            )
        return int(self.index[row, column])

    @checked
    def cell_of(self, state: int) -> Cell:
        """Return (row, column) of a state."""
        row, column = self.cells[check_indices("state", state, self.states)]
        return int(row), int(column)

    @checked
    def indicator(self, *cells: Cell, name: str = "cell") -> FloatArray:
        """Return (S,) ones at the given free cells, zeros elsewhere; read-only."""
        marks = np.zeros(self.states)
        for cell in cells:
            marks[self.index_of(cell, name)] = 1.0
        marks.setflags(write=False)
        return marks

    @checked
    def kernel(self, intended: Probability, *, terminal: tuple[Cell, ...] = ()) -> SparseTransition:
        """Return the kernel of an agent that moves as intended or else in one of the other three directions.

        Parameters
        ----------
        intended
            Probability of the intended move; the others share the rest equally.
        terminal
            Cells in which the step that the agent takes is the last of its episode: their rows are zero.

        Returns
        -------
        SparseTransition
            Four successors per state and action, in the order of the moves.

        Raises
        ------
        InvalidInputError
            If the probability is outside [0, 1] or a terminal cell is a wall.
        """
        shape = (self.states, 4, 4)
        by_direction = np.full((4, 4), (1.0 - intended) / 3.0)
        np.fill_diagonal(by_direction, intended)
        probability = np.broadcast_to(by_direction, shape).copy()
        for cell in terminal:
            probability[self.index_of(cell, "terminal")] = 0.0
        probability.setflags(write=False)
        # A view: the same four cells for every action, listed once.
        return SparseTransition(successor=np.broadcast_to(self.successor[:, None], shape), probability=probability)
