"""`bilevelrl reproduce escape`: which change to exact ascent gets out of the trap on Four-Rooms, and how often."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from bilevelrl.benchmarks.paper.four_rooms.training import VARIANTS
from bilevelrl.benchmarks.research.escape.arms import ARMS, get_arm
from bilevelrl.benchmarks.research.escape.world import escape_training
from bilevelrl.benchmarks.sweeping.curves import pyplot, save_picture
from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row, SweepRunner
from bilevelrl.benchmarks.sweeping.sweep_grid import Cell, Grid
from bilevelrl.benchmarks.sweeping.sweeps import Sweep
from bilevelrl.estimators.training import published_simulator, train
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.tasks import four_rooms

__all__ = ["ESCAPED", "FIGURES", "ArmSummary", "binomial_interval", "escape_cell", "summarise_arms"]

ESCAPED = 0.2
"""A run has escaped whose objective ends above this: ten times that of the trap, at most half of what is known to be
possible in any panel."""

TEMPERATURES = (0.001, 0.003, 0.005)
_QUICK = ("exact", "shaped_1_clipped", "bc_hg", "start_4")


def escape_cell(cell: Cell, configuration: Mapping[str, Any], checkpoint: Path) -> list[Row]:
    """Train one arm in one panel and return a row per run; none where the arm does not sample, which makes the kernel
    of the samples irrelevant.
    """
    arm, variant, temperature = get_arm(cell["arm"]), cell["variant"], cell["temperature"]
    samples = arm.guidance == "samples" or arm.critic in ("sarsa", "delayed sarsa")
    if variant == "published" and not samples:
        return []
    problem = four_rooms(temperature=temperature, kernel="paper" if variant == "paper" else "planner")
    dynamics = four_rooms(temperature=temperature, kernel="paper") if variant == "published" else None
    training = escape_training(
        arm.name,
        problem,
        seeds=configuration["seeds"],
        iterations=configuration["iterations"],
        simulator=published_simulator(dynamics),
    )
    history = train(training, checkpoint=checkpoint)
    final, best = history.final(), history.objective.max(axis=0)
    middle = np.median(history.values["cosine"], axis=0)
    return [
        {
            "group": arm.group,
            "title": arm.title,
            "seed": run.seed,
            "final_objective": round(float(final[row]), 5),
            "largest_objective": round(float(best[row]), 5),
            "median_cosine": round(float(middle[row]), 4),
            "iterations": training.iterations,
        }
        for row, run in enumerate(training.runs)
    ]


def binomial_interval(successes: int, trials: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact (Clopper-Pearson) interval of a probability.

    Examples
    --------
    >>> low, high = binomial_interval(0, 10)
    >>> low, round(high, 3)
    (0.0, 0.308)
    """
    interval = stats.binomtest(successes, trials).proportion_ci(confidence_level=confidence, method="exact")
    return float(interval.low), float(interval.high)


class ArmSummary:
    """What the seeds of one arm did in one panel.

    Attributes
    ----------
    ends : (seeds,)
        Final objectives, sorted.
    escaped : int
        How many are above `ESCAPED`.
    low, high : float
        95 % interval of the probability to escape.
    """

    __slots__ = ("ends", "escaped", "high", "low")

    def __init__(self, ends: FloatArray) -> None:
        self.ends = np.sort(ends)
        self.escaped = int((ends > ESCAPED).sum())
        self.low, self.high = binomial_interval(self.escaped, ends.size)


def summarise_arms(rows: Sequence[Row]) -> dict[tuple[str, float, str], ArmSummary]:
    """Return a summary for each (variant, temperature, arm)."""
    ends: dict[tuple[str, float, str], list[float]] = {}
    for row in rows:
        ends.setdefault((row["variant"], row["temperature"], row["arm"]), []).append(row["final_objective"])
    return {key: ArmSummary(np.array(found)) for key, found in ends.items()}


def _table(rows: Sequence[Row], options: FigureOptions) -> str:
    summaries = summarise_arms(rows)
    temperatures = sorted({temperature for _, temperature, _ in summaries})
    parts = []
    for variant in dict.fromkeys(variant for variant, _, _ in summaries):
        head = ["what is varied", "arm", *(f"β = {temperature:g}" for temperature in temperatures)]
        lines = [" | ".join(head), " | ".join("---" for _ in head)]
        for name, arm in ARMS.items():
            found = [summaries.get((variant, temperature, name)) for temperature in temperatures]
            if any(found):
                lines.append(" | ".join([arm.group, arm.title, *(_cell(summary) for summary in found)]))
        table = "\n".join(f"| {line} |" for line in lines)
        parts.append(f"Kernels: {variant}.\n\n{table}")
    parts.append(
        f"Each: runs that escaped (J > {ESCAPED:g} at the end) of {options.seeds}, the 95 % interval of their share, "
        f"and the median and range of J over the last 5 % of {options.iterations} outer iterations."
    )
    return "\n\n".join(parts)


def _cell(summary: ArmSummary | None) -> str:
    if summary is None:
        return "–"
    ends = summary.ends
    return (
        f"{summary.escaped}/{ends.size} [{summary.low:.2f}, {summary.high:.2f}]; "
        f"{np.median(ends):.2f} ({ends[0]:.2f} to {ends[-1]:.2f})"
    )


def _draw(folder: Path, rows: Sequence[Row], options: FigureOptions) -> list[Path]:
    summaries, written = summarise_arms(rows), []
    for variant in dict.fromkeys(variant for variant, _, _ in summaries):
        written.append(folder / f"escape-{variant}.png")
        _draw_variant(written[-1], {key[1:]: found for key, found in summaries.items() if key[0] == variant})
    return written


def _draw_variant(path: Path, summaries: Mapping[tuple[float, str], ArmSummary]) -> None:
    plt = pyplot()
    temperatures = sorted({temperature for temperature, _ in summaries})
    arms = [arm for arm in ARMS.values() if any(name == arm.name for _, name in summaries)]
    groups = list(dict.fromkeys(arm.group for arm in arms))
    figure, axes = plt.subplots(
        1,
        len(temperatures),
        figsize=(3.6 * len(temperatures) + 3.4, 0.21 * len(arms) + 1.2),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, temperature in zip(axes[0], temperatures, strict=True):
        for place, arm in enumerate(arms):
            summary = summaries.get((temperature, arm.name))
            if summary is None:
                continue
            colour = f"C{groups.index(arm.group)}"
            axis.scatter(summary.ends, np.full(summary.ends.size, place), s=16, color=colour, alpha=0.6, lw=0)
        axis.axvline(ESCAPED, color="#999999", lw=0.8, ls=":")
        axis.set_title(f"β = {temperature:g}", loc="left", fontsize=10)
        axis.set_xlabel("J at the end")
        axis.grid(axis="y", lw=0.3, alpha=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_yticks(range(len(arms)), [f"{arm.group}: {arm.title}" for arm in arms], fontsize=7)
    for label, arm in zip(axes[0, 0].get_yticklabels(), arms, strict=True):
        label.set_color(f"C{groups.index(arm.group)}")
    axes[0, 0].invert_yaxis()
    save_picture(figure, path, dpi=100)
    plt.close(figure)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--variant", nargs="+", choices=list(VARIANTS), default=["planner", "paper"], help="kernels")
    parser.add_argument("--temperature", type=float, nargs="+", default=list(TEMPERATURES), metavar="β")
    parser.add_argument(
        "--arm", nargs="+", choices=list(ARMS), default=list(ARMS), help="of the experiment (default: all)"
    )


def _rows(folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    grid = Grid(
        axes=[
            ("variant", list(options.own["variant"])),
            ("temperature", list(options.own["temperature"])),
            ("arm", list(_QUICK if options.quick else options.own["arm"])),
        ],
        known=("variant", "temperature", "arm"),
    )
    configuration = {"seeds": options.seeds, "iterations": options.iterations}
    return run(Sweep(function=escape_cell, grid=grid, folder=folder / "cells", configuration=configuration))


FIGURES = (
    Figure(
        name="escape",
        title="what gets exact ascent out of the trap on Four-Rooms",
        seeds=10,
        iterations=2500,
        quick_seeds=2,
        quick_iterations=300,
        rows=_rows,
        table=_table,
        draw=_draw,
        arguments=_arguments,
    ),
)
