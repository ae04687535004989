"""`bilevelrl reproduce nudged`: leaders without a critic beside leaders with one, at equal environment steps."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bilevelrl.benchmarks.paper.four_rooms.training import TEMPERATURES
from bilevelrl.benchmarks.research.nudged.side_by_side import METHODS_SHOWN, four_rooms_cell, toy_game_cell
from bilevelrl.benchmarks.sweeping.curves import pyplot, save_picture
from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row, SweepRunner
from bilevelrl.benchmarks.sweeping.sweep_grid import Grid
from bilevelrl.benchmarks.sweeping.sweeps import Sweep
from bilevelrl.estimators.training import METHODS
from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.arrays import FloatArray

__all__ = ["FIGURES", "at_equal_steps"]

TOY_BONUS = 1.0
"""R, with which exact ascent from the middle has a cliff to climb."""

COLOURS = {
    "bc_hg": "#c2410c",
    "bc_hg_exact_benefit": "#1769aa",
    "nudged": "#2e7d32",
    "nudged_common": "#8e24aa",
    "exact": "#555555",
}


def at_equal_steps(rows: Sequence[Row], budget: float) -> FloatArray:
    """Return the objective of each run of one method after so many environment steps, by interpolation.

    Examples
    --------
    >>> rows = [{"seed": 0, "environment_steps": x, "objective": 2.0 * x} for x in (0, 10, 20)]
    >>> at_equal_steps(rows, 15.0).tolist()
    [30.0]
    """
    found = []
    for seed in sorted({row["seed"] for row in rows}):
        own = [row for row in rows if row["seed"] == seed]
        found.append(np.interp(budget, [x["environment_steps"] for x in own], [x["objective"] for x in own]))
    return np.array(found)


def _panels(rows: Sequence[Row]) -> dict[str, dict[str, list[Row]]]:
    panels: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        panel = f"toy game, R = {row['bonus']:g}" if "bonus" in row else f"Four-Rooms, β = {row['temperature']:g}"
        panels.setdefault(panel, {}).setdefault(row["method"], []).append(row)
    return panels


def _table(rows: Sequence[Row], options: FigureOptions) -> str:
    lines = []
    for panel, methods in _panels(rows).items():
        sampled = [own for own in methods.values() if own[-1]["environment_steps"]]
        budget = min(max(row["environment_steps"] for row in own) for own in sampled)
        lines += [
            f"**{panel}**: the leader's objective after {budget:,} environment steps, and at the end",
            "",
            "| method | seeds | rate | after equal steps: mean ± SE (least, largest) | at the end: mean ± SE "
            "| steps in all | median cosine |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for method, own in methods.items():
            last = max(row["iteration"] for row in own)
            ends = np.array([row["final_objective"] for row in own if row["iteration"] == last])
            taken = np.array([row["environment_steps"] for row in own if row["iteration"] == last])
            cosine = np.median([row["cosine"] for row in own])
            even = at_equal_steps(own, budget) if taken.any() else ends
            title = METHODS[ConfigurableMDP][method].title
            lines.append(
                f"| {title} | {ends.size} | {own[0]['learning_rate']:g} | {_spread(even)} "
                f"({even.min():.3f}, {even.max():.3f}) | {_spread(ends)} | {taken.mean():,.0f} | {cosine:.3f} |"
            )
        lines.append("")
    return "\n".join(lines)


def _spread(values: FloatArray) -> str:
    error = f" ± {values.std(ddof=1) / np.sqrt(values.size):.3f}" if values.size > 1 else ""
    return f"{values.mean():.3f}{error}"


def _draw(folder: Path, rows: Sequence[Row], options: FigureOptions) -> list[Path]:
    plt = pyplot()
    panels = _panels(rows)
    width = max(7.0, 4.4 * len(panels))
    figure, axes = plt.subplots(1, len(panels), figsize=(width, 4.0), squeeze=False, layout="constrained")
    for axis, (panel, methods) in zip(axes[0], panels.items(), strict=True):
        for method, own in methods.items():
            colour, label = COLOURS[method], METHODS[ConfigurableMDP][method].title
            if not own[-1]["environment_steps"]:
                axis.axhline(own[0]["final_objective"], color=colour, ls=":", lw=1.4, label=f"{label}, its end")
                continue
            curves = []
            for seed in sorted({row["seed"] for row in own}):
                curve = [row for row in own if row["seed"] == seed]
                points = [row["environment_steps"] / 1e3 for row in curve]
                curves.append((points, [row["objective"] for row in curve]))
                axis.plot(*curves[-1], color=colour, lw=0.5, alpha=0.3)
            mean = np.mean([curve[1] for curve in curves], axis=0)
            axis.plot(np.mean([curve[0] for curve in curves], axis=0), mean, color=colour, lw=1.8, label=label)
        axis.set_title(panel, loc="left", fontsize=10)
        axis.set_xlabel("environment steps, thousands")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("leader's objective J")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    path = folder / "nudged.png"
    save_picture(figure, path, dpi=110)
    plt.close(figure)
    return [path]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", choices=("four_rooms", "toy_game"), default="four_rooms")
    parser.add_argument(
        "--temperature", type=float, nargs="+", choices=TEMPERATURES, default=list(TEMPERATURES), metavar="β"
    )
    parser.add_argument("--method", nargs="+", choices=METHODS_SHOWN, default=list(METHODS_SHOWN))


def _rows(folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    toy = options.own["task"] == "toy_game"
    problem = ("bonus", [TOY_BONUS]) if toy else ("temperature", list(options.own["temperature"]))
    axes = [problem, ("method", list(options.own["method"]))]
    configuration = {
        "seeds": options.seeds,
        "selection_seeds": 1 if options.quick else 2,
        "iterations": options.iterations,
        "points": 50,
    }
    grid = Grid(axes=axes, known=(problem[0], "method"))
    function, cells = (toy_game_cell, "cells-toy-game") if toy else (four_rooms_cell, "cells")
    return run(Sweep(function=function, grid=grid, folder=folder / cells, configuration=configuration))


FIGURES = (
    Figure(
        name="nudged",
        title="leaders without a critic, from followers that are paid, beside leaders with one",
        seeds=10,
        iterations=10_000,
        quick_seeds=2,
        quick_iterations=40,
        rows=_rows,
        table=_table,
        draw=_draw,
        arguments=_arguments,
    ),
)
