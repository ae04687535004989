"""What a figure of the paper is here: how its runs are made, its table beside the paper's numbers, and its pictures.

A figure is a module below `bilevelrl.benchmarks` with a `FIGURES` tuple, named once in `FIGURE_MODULES`, or in
`STUDY_MODULES` if it goes beyond the paper; the command `bilevelrl reproduce`, its quick version and the docs' tables
pick it up from there. Studies are not part of the wheel: `studies_present` tells whether this is a checkout.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from bilevelrl.benchmarks.sweeping.sweeps import Sweep
from bilevelrl.reference.errors import UnknownNameError

__all__ = [
    "FIGURE_MODULES",
    "STUDY_MODULES",
    "Figure",
    "FigureOptions",
    "Row",
    "SweepRunner",
    "all_figures",
    "get_figure",
    "studies_present",
]

FIGURE_MODULES = (
    "paper.bilevel_lqr.figures",
    "paper.building.constants",
    "paper.building.figures",
    "paper.four_rooms.figures",
    "paper.four_rooms.search",
    "paper.gallery",
    "paper.toy_game.figures",
)
"""Modules of `bilevelrl.benchmarks` that have figures of the paper."""

STUDY_MODULES = (
    "research.approximations.ascents",
    "research.approximations.claims",
    "research.approximations.costs",
    "research.approximations.errors",
    "research.building.budget",
    "research.building.causes",
    "research.building.drift",
    "research.building.network",
    "research.building.search",
    "research.building.verdicts",
    "research.contextual.table",
    "research.escape.figure",
    "research.escape.leader",
    "research.followers.errors",
    "research.followers.observed",
    "research.followers.published",
    "research.nudged.training",
    "research.tax_design.study",
    "research.toy_game.spreads",
)
"""Modules of `bilevelrl.benchmarks` that have figures beyond the paper."""

Row: TypeAlias = dict[str, Any]
"""One line of a tidy table."""

SweepRunner: TypeAlias = Callable[[Sweep], list[Row]]
"""Runs a sweep, or what is left of it, and returns all its rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureOptions:
    """What was asked for.

    Attributes
    ----------
    seeds, iterations : int
        Of each method.
    quick : bool
        A version of about a minute, which shows that everything runs and says little else.
    own : mapping
        The figure's own arguments, by name.
    """

    seeds: int
    iterations: int
    quick: bool = False
    own: Mapping[str, Any] = field(default_factory=dict)


def _no_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing."""


def _nothing_kept(rows: Sequence[Row]) -> Mapping[str, Sequence[Row]]:
    """Keep no smaller tables."""
    return {}


def _nothing_drawn(folder: Path, rows: Sequence[Row], options: FigureOptions) -> list[Path]:
    """Draw no picture: the table says it all."""
    return []


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure that can be made anew.

    Attributes
    ----------
    name, title : str
        Word on the command line, and what it shows.
    seeds, iterations : int
        By default, and of the quick version.
    rows
        Makes the tidy rows: (folder for sweeps, options, runner of sweeps).
    table
        Their comparison with the paper, in Markdown: (rows, options).
    draw
        Draws into a folder and returns the files: (folder, rows, options). May raise `MissingExtraError`.
    arguments
        Adds the figure's own arguments to a parser.
    kept
        Smaller tables out of the rows, by the name of the file that they are written to, for results that are kept.
    """

    name: str
    title: str
    seeds: int
    iterations: int
    quick_seeds: int
    quick_iterations: int
    rows: Callable[[Path, FigureOptions, SweepRunner], list[Row]]
    table: Callable[[Sequence[Row], FigureOptions], str]
    draw: Callable[[Path, Sequence[Row], FigureOptions], list[Path]] = _nothing_drawn
    arguments: Callable[[argparse.ArgumentParser], None] = _no_arguments
    kept: Callable[[Sequence[Row]], Mapping[str, Sequence[Row]]] = _nothing_kept


def studies_present() -> bool:
    """Tell whether the studies beyond the paper can be imported: in a checkout and in an editable install."""
    return importlib.util.find_spec("bilevelrl.benchmarks.research") is not None


def all_figures() -> Mapping[str, Figure]:
    """Return every figure by name; those beyond the paper where `studies_present`.

    Examples
    --------
    >>> {"fig1", "fig2", "fig6"} <= set(all_figures())
    True
    """
    found = {}
    for module in FIGURE_MODULES + STUDY_MODULES * studies_present():
        for figure in importlib.import_module(f"bilevelrl.benchmarks.{module}").FIGURES:
            found[figure.name] = figure
    return MappingProxyType(found)


def get_figure(name: str) -> Figure:
    """Return a figure by name.

    Raises
    ------
    UnknownNameError
        With close matches.

    Examples
    --------
    >>> get_figure("fig2").iterations
    10000
    """
    figures = all_figures()
    if name not in figures:
        raise UnknownNameError("figure", name, figures)
    return figures[name]
