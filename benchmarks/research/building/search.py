"""The building's global picture: random search over insulation and airflow, exactly and as sampled returns show it.

The paper's histogram (arXiv:2603.14867, appendix) holds 10,000 draws; uniform levels and the mean return of 50 episodes
reproduce it. Its right tail lies beyond the exact optimum: it is the noise of the returns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bilevelrl.benchmarks.paper.building.figures import OPTIMUM
from bilevelrl.benchmarks.sweeping.curves import pyplot, save_picture
from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row, SweepRunner
from bilevelrl.benchmarks.sweeping.sweep_grid import Cell, Grid
from bilevelrl.benchmarks.sweeping.sweeps import Sweep
from bilevelrl.estimators.sampling import LQRSimulator
from bilevelrl.reference import leader_objective, named_stream, solve_follower
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.tasks import building_thermal_control

__all__ = ["FIGURES", "PAPER", "search_cell"]

PAPER: Mapping[str, float] = {"mean": -273.1, "standard deviation": 56.6, "lowest": -640.94, "highest": -136.98}
"""Of the paper's histogram: 10,000 draws in 30 bins; mean and standard deviation from the bins."""

_GROUP = 1000


def search_cell(cell: Cell, configuration: Mapping[str, Any], checkpoint: Path) -> list[Row]:
    """Return exact and sampled objectives of one group of draws.

    Examples
    --------
    >>> rows = search_cell({"group": 0}, {"draws": 3, "episodes": 5}, Path("unused"))
    >>> len(rows), all(row["exact"] < -162.0 for row in rows)
    (3, True)
    """
    problem, rng = building_thermal_control(), named_stream(0, "building search", int(cell["group"]))
    rows: list[Row] = []
    for draw in range(configuration["draws"]):
        levels = rng.uniform(size=8)
        theta = np.log(levels) - np.log1p(-levels)
        follower = solve_follower(problem, theta)
        batch = LQRSimulator().sample(problem, theta, follower, streams=configuration["episodes"], steps=100, rng=rng)
        returns = batch.reward_leader_t @ problem.discount_leader ** np.arange(100)
        exact = leader_objective(problem, theta, follower=follower)
        rows.append({"draw": draw, "exact": round(exact, 2), "sampled": round(float(returns.mean()), 2)})
    return rows


def _rows(folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    draws = min(_GROUP, options.iterations)
    return run(
        Sweep(
            function=search_cell,
            grid=Grid(axes=[("group", list(range(max(1, options.iterations // draws))))]),
            folder=folder / "cells",
            configuration={"draws": draws, "episodes": 50},
        )
    )


def _values(rows: Sequence[Row], name: str) -> FloatArray:
    return np.array([row[name] for row in rows])


def _table(rows: Sequence[Row], options: FigureOptions) -> str:
    lines = ["| | draws | mean | standard deviation | lowest | highest |", "| --- | --- | --- | --- | --- | --- |"]
    for title, name in (("exact objective", "exact"), ("mean return of 50 episodes", "sampled")):
        found = _values(rows, name)
        numbers = f"{found.mean():.1f} | {found.std():.1f} | {found.min():.1f} | {found.max():.1f}"
        lines.append(f"| {title} | {found.size} | {numbers} |")
    lines.append("| the paper's histogram | 10000 | " + " | ".join(f"{value:.1f}" for value in PAPER.values()) + " |")
    beyond = float((_values(rows, "sampled") > OPTIMUM).mean())
    note = f"The exact optimum is {OPTIMUM:.1f}; {100.0 * beyond:.1f} % of the sampled means lie beyond it."
    return "\n".join(lines) + f"\n\n{note}"


def _draw(folder: Path, rows: Sequence[Row], options: FigureOptions) -> list[Path]:
    plt: Any = pyplot()
    figure, axes = plt.subplots(figsize=(7.5, 4.4), layout="constrained")
    bins = np.linspace(PAPER["lowest"], PAPER["highest"], 31)
    axes.hist(_values(rows, "sampled"), bins, color="#c2410c", alpha=0.45, label="mean return of 50 episodes")
    axes.hist(_values(rows, "exact"), bins, color="#1769aa", alpha=0.6, label="exact objective")
    for value, label, style in (
        (OPTIMUM, "exact optimum", "-"),
        (-196.2, "the paper's BC-HG", "--"),
        (-262.0, "start", ":"),
    ):
        axes.axvline(value, color="#000000", lw=1.2, ls=style, label=label)
    low, high = PAPER["mean"] - PAPER["standard deviation"], PAPER["mean"] + PAPER["standard deviation"]
    axes.axvspan(low, high, color="#000000", alpha=0.07, lw=0, label="the paper's histogram, mean ± SD")
    axes.set(xlabel="leader's objective", ylabel="draws")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    path = folder / "building-search.png"
    save_picture(figure, path, dpi=100)
    plt.close(figure)
    return [path]


FIGURES = (
    Figure(
        name="building-search",
        title="the building: random search over θ beside the exact optimum; --iterations counts draws",
        seeds=1,
        iterations=10_000,
        quick_seeds=1,
        quick_iterations=200,
        rows=_rows,
        table=_table,
        draw=_draw,
    ),
)
