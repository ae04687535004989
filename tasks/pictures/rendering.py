"""Pictures of grid problems: the map, the leader's penalties, and where the follower goes.

matplotlib is imported when something is drawn; it comes with the extra `cli`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import numpy as np

from bilevelrl.reference import ConfigurableMDP, TabularFollower, solve_follower
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import Positive, checked
from bilevelrl.reference.errors import (
    InvalidInputError,
    MissingExtraError,
    ShapeError,
    UnknownNameError,
    refusal,
)
from bilevelrl.reference.tabular import (
    evaluate_leader,
)
from bilevelrl.tasks.paper.room_grid import Cell, RoomGrid
from bilevelrl.tasks.pictures.paths import intended_path, most_likely_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_follower", "draw_map", "draw_penalties", "draw_values"]

WALL_COLOUR = "#343a46"
FLOOR_COLOUR = "#f7f7f5"
PATH_COLOUR = "#e4572e"
MARK_COLOURS = {"start": "#1769aa", "goal": "#2e7d32", "target": "#8e24aa"}


def _check_axes(name: str, axes: object) -> object:
    """Refuse what is not Matplotlib axes; the import must stay optional."""
    if axes is not None and (isinstance(axes, type) or not hasattr(axes, "imshow")):
        raise InvalidInputError(refusal(name, axes, "Matplotlib axes", "leave them out for new ones"))
    return axes


AxesOrNew: TypeAlias = Annotated["Axes | None", _check_axes]
"""Axes to draw on; None: new ones."""


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtraError("drawing", "matplotlib", "cli") from error
    return plt


@checked
def draw_map(
    grid: RoomGrid,
    *,
    marks: Mapping[str, Cell] | None = None,
    title: str | None = None,
    axes: AxesOrNew = None,
) -> Axes:
    """Draw walls and floor, and name some cells.

    Parameters
    ----------
    grid
        The map.
    marks
        {name: (row, column)}: cells to label; "start", "goal" and "target" have colours of their own.
    title
        Above the map.
    axes
        Where to draw; a new figure by default.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    InvalidInputError
        If a mark is not a free cell.

    Examples
    --------
    >>> from bilevelrl.tasks.paper.four_rooms import FOUR_ROOMS_GRID, FOUR_ROOMS_MARKS
    >>> axes = draw_map(FOUR_ROOMS_GRID, marks=FOUR_ROOMS_MARKS, title="Four-Rooms")
    >>> axes.get_title(loc="left"), len(axes.texts)
    ('Four-Rooms', 3)
    """
    if axes is None:
        axes = _new_axes()
    from matplotlib.colors import ListedColormap

    rows, columns = grid.free.shape
    axes.imshow(grid.free, cmap=ListedColormap([WALL_COLOUR, FLOOR_COLOUR]), vmin=0, vmax=1, zorder=0)
    if max(rows, columns) <= 40:  # finer lines would hide the cells
        axes.set_xticks(np.arange(-0.5, columns), minor=True)
        axes.set_yticks(np.arange(-0.5, rows), minor=True)
        axes.grid(which="minor", color=WALL_COLOUR, linewidth=0.4, alpha=0.25)
    axes.tick_params(which="both", length=0, labelbottom=False, labelleft=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if title is not None:
        axes.set_title(title, fontsize=11, loc="left", pad=8)
    for name, (row, column) in (marks or {}).items():
        grid.index_of((row, column), name)
        colour = MARK_COLOURS.get(name, "black")
        axes.add_patch(_outline(row, column, colour))
        axes.annotate(
            name,
            (column, row),
            xytext=(0, 13),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8.5,
            color="white",
            bbox={"boxstyle": "round,pad=0.25", "facecolor": colour, "edgecolor": "white", "linewidth": 0.8},
            zorder=6,
        )
    return axes


def _outline(row: int, column: int, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=colour, linewidth=2.2, zorder=5)


def _new_axes() -> Any:
    return _pyplot().subplots(figsize=(5.6, 5.0), layout="constrained")[1]


@checked
def draw_values(
    grid: RoomGrid,
    values: FloatArray,
    *,
    label: str,
    marks: Mapping[str, Cell] | None = None,
    title: str | None = None,
    colour_map: str = "OrRd",
    power: Positive = 1.0,
    largest: float | None = None,
    axes: AxesOrNew = None,
) -> Axes:
    """Draw one number per cell as a heat map with a colour bar.

    Parameters
    ----------
    grid, marks, title, axes
        As in `draw_map`.
    values : (S,)
        In the order of the states, ≥ 0.
    label
        Of the colour bar.
    colour_map
        A sequential one of matplotlib's.
    power
        Exponent of the colour scale; below 1 shows small values.
    largest
        Value of the darkest colour, the largest of the values by default; give it to compare pictures.

    Raises
    ------
    ShapeError, InvalidInputError
        If there is not one finite number ≥ 0 per cell.
    MissingExtraError
        If matplotlib is not installed.

    Examples
    --------
    >>> from bilevelrl.tasks.paper.four_rooms import FOUR_ROOMS_GRID
    >>> len(draw_values(FOUR_ROOMS_GRID, np.linspace(0.0, 1.0, 104), label="state / 104").images)
    2
    """
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (grid.states,):
        raise ShapeError(refusal("values.shape", values.shape, f"({grid.states},)", "give one number per free cell"))
    if not np.isfinite(values).all() or values.min() < 0.0:
        raise InvalidInputError("values: expected finite numbers >= 0; the colour scale starts at zero")
    axes = draw_map(grid, marks=marks, title=title, axes=axes)
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm

    picture = np.full(grid.free.shape, np.nan)  # walls keep the colour of the map
    picture[grid.free] = values
    top = max(float(values.max()) if largest is None else largest, 1e-12)  # a scale of no width would have no colours
    if colour_map not in colormaps:
        raise UnknownNameError("colour_map", colour_map, colormaps)
    image = axes.imshow(picture, cmap=colour_map, norm=PowerNorm(power, vmin=0.0, vmax=top), zorder=1)
    beside = axes.inset_axes((1.03, 0.0, 0.045, 1.0))  # as high as the map whatever the layout
    bar = axes.figure.colorbar(image, cax=beside, format="%.3g")
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    return axes


@checked
def draw_penalties(
    grid: RoomGrid,
    problem: ConfigurableMDP,
    theta: FloatArray,
    *,
    marks: Mapping[str, Cell] | None = None,
    title: str | None = "Penalties",
    largest: float | None = None,
    axes: AxesOrNew = None,
) -> Axes:
    """Draw what the follower pays per step in each cell: the negative part of its reward.

    Parameters
    ----------
    problem, theta
        A problem on this grid whose rewards do not depend on the action, and the leader's parameter.
    grid, marks, title, axes
        As in `draw_map`.
    largest
        Penalty of the darkest colour, as in `draw_values`.

    Raises
    ------
    ShapeError
        If the problem does not have the grid's states.

    Examples
    --------
    >>> from bilevelrl.tasks import four_rooms
    >>> from bilevelrl.tasks.paper.four_rooms import FOUR_ROOMS_GRID
    >>> draw_penalties(FOUR_ROOMS_GRID, four_rooms(), np.zeros(105)).get_title(loc="left")
    'Penalties'
    """
    paid = np.maximum(-problem.tables_at(theta).reward_follower.max(axis=1), 0.0)
    return draw_values(grid, paid, label="penalty per step", marks=marks, title=title, largest=largest, axes=axes)


@checked
def draw_follower(
    grid: RoomGrid,
    problem: ConfigurableMDP,
    theta: FloatArray,
    *,
    marks: Mapping[str, Cell],
    follower: TabularFollower | None = None,
    path: Literal["likely", "intended"] = "likely",
    title: str | None = "The follower's visits and most likely path",
    axes: AxesOrNew = None,
) -> Axes:
    """Draw the follower's discounted occupancy and a path of it from the start to the goal.

    Parameters
    ----------
    problem, theta
        A problem on this grid, and the leader's parameter.
    marks
        Must have "start" and "goal".
    follower
        Its response at θ, solved for by default.
    path
        Which path: of `most_likely_path` or of `intended_path`.
    grid, title, axes
        As in `draw_map`.

    Raises
    ------
    InvalidInputError
        If a mark is missing.

    Examples
    --------
    >>> from bilevelrl.tasks import four_rooms
    >>> from bilevelrl.tasks.paper.four_rooms import FOUR_ROOMS_GRID, FOUR_ROOMS_MARKS
    >>> axes = draw_follower(FOUR_ROOMS_GRID, four_rooms(), np.zeros(105), marks=FOUR_ROOMS_MARKS)
    >>> len(axes.lines[0].get_xdata())
    12
    """
    for name in ("start", "goal"):
        if name not in marks:
            raise InvalidInputError(
                refusal("marks", sorted(marks), f"a cell named {name!r}", "pass the cells that the path should join")
            )
    tables = problem.tables_at(theta)
    if follower is None:
        follower = solve_follower(problem, theta)
    evaluation = evaluate_leader(tables, follower.policy, problem.discount_leader)
    axes = draw_values(
        grid,
        np.maximum(evaluation.occupancy, 0.0),
        label="discounted visits",
        marks=marks,
        title=title,
        colour_map="PuBu",
        power=0.5,
        axes=axes,
    )
    ends = (grid.index_of(marks[name], name) for name in ("start", "goal"))
    follow = most_likely_path if path == "likely" else intended_path
    cells = grid.cells[follow(tables.transition, follower.policy, *ends)]
    axes.plot(cells[:, 1], cells[:, 0], color=PATH_COLOUR, linewidth=2.4, solid_joinstyle="round", zorder=4)
    axes.plot(cells[1:-1, 1], cells[1:-1, 0], "o", color=PATH_COLOUR, markersize=4, markeredgecolor="white", zorder=4)
    return axes
