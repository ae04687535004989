"""`bilevelrl reproduce fig6_searched`: methods with a SARSA critic, their step sizes searched panel by panel.

The search is short: every setting of the published grid for 1000 outer iterations on seeds of its own; what it chooses
trains at full length on the reported seeds. Figure 6 itself keeps the settings of batches of 100 steps, which a longer
search chose.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bilevelrl.benchmarks.experiments.four_rooms_figures import WHOLE, compare
from bilevelrl.benchmarks.experiments.four_rooms_selection import SELECTION_SHARE, choose, selection_runs, settings_of
from bilevelrl.benchmarks.experiments.four_rooms_training import STREAMS, panel_training
from bilevelrl.benchmarks.sweeping.comparisons import comparison_table
from bilevelrl.benchmarks.sweeping.curves import curve_rows
from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row, SweepRunner
from bilevelrl.benchmarks.sweeping.sweep_grid import Cell, Grid
from bilevelrl.benchmarks.sweeping.sweeps import Sweep
from bilevelrl.estimators.training import METHODS, Run, train

__all__ = ["FIGURES", "SEARCHED", "searched_cell"]

SEARCHED = ("bc_hg", "hpgd_sa")
"""Methods with 24 settings."""

_SEARCH = 1000


def searched_cell(cell: Cell, configuration: Mapping[str, Any], checkpoint: Path) -> list[Row]:
    """Search one panel's step sizes, train the chosen ones, and return rows of their curves.

    Parameters
    ----------
    cell
        `batch_steps` and `temperature`.
    configuration
        `seeds` and `iterations` of the reported runs, `search` outer iterations of the search, `points` of a curve.
    checkpoint
        Of the reported runs; the search is short and starts anew.
    """
    batch, temperature = int(cell["batch_steps"]), float(cell["temperature"])

    def panel(runs: Sequence[Run], iterations: int) -> Any:
        return panel_training(
            variant="published", temperature=temperature, batch_steps=batch, runs=runs, iterations=iterations
        )

    tried = selection_runs({name: settings_of(name) for name in SEARCHED}, dict.fromkeys(SEARCHED, 3))
    scores = train(panel(tried, int(configuration["search"]))).final(SELECTION_SHARE)
    chosen = choose(
        [
            {
                "method": run.method,
                "learning_rate": run.learning_rate,
                "critic_step_size": run.critic_step_size,
                "seed": run.seed,
                "score": float(score),
            }
            for run, score in zip(tried, scores, strict=True)
        ]
    )
    runs = [
        Run(
            method=name,
            seed=seed,
            learning_rate=setting.learning_rate,
            critic_step_size=setting.critic_step_size,
        )
        for name, setting in chosen.items()
        for seed in range(int(configuration["seeds"]))
    ]
    history = train(panel(runs, int(configuration["iterations"])), checkpoint=checkpoint, checkpoint_every=500)
    return [{"variant": "published", **row} for row in curve_rows(history, points=int(configuration["points"]))]


def _rows(folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    grid = Grid(
        axes=[("batch_steps", list(options.own["batch"])), ("temperature", list(options.own["temperature"]))],
        known=("batch_steps", "temperature"),
    )
    configuration = {
        "seeds": options.seeds,
        "iterations": options.iterations,
        "search": 20 if options.quick else _SEARCH,
        "points": 25,
    }
    return run(Sweep(function=searched_cell, grid=grid, folder=folder / "cells", configuration=configuration))


def _table(rows: Sequence[Row], options: FigureOptions) -> str:
    chosen = {
        (row["temperature"], row["batch_steps"], row["method"]): (row["learning_rate"], row["critic_step_size"])
        for row in rows
    }
    lines = [
        f"- β = {temperature:g}, {batch} steps, {METHODS[method].title}: rate {rate:g}, α {step:g}"
        for (temperature, batch, method), (rate, step) in chosen.items()
    ]
    head = ("kernels", "β", "steps", "method")
    table = comparison_table(head, compare(rows, whole=options.iterations >= WHOLE))
    return "\n".join([table, "", "Chosen by the search:", "", *lines])


def _nothing(folder: Path, rows: Sequence[Row], options: FigureOptions) -> list[Path]:
    return []


def _arguments(parser: argparse.ArgumentParser) -> None:
    larger = [batch for batch in STREAMS if batch > min(STREAMS)]
    parser.add_argument("--batch", type=int, nargs="+", default=larger, choices=list(STREAMS), help="steps in a batch")
    parser.add_argument("--temperature", type=float, nargs="+", default=[0.001, 0.003, 0.005], metavar="β")


FIGURES = (
    Figure(
        name="fig6_searched",
        title="Four-Rooms, larger batches: BC-HG and HPGD (SA) with step sizes searched panel by panel",
        seeds=5,
        iterations=WHOLE,
        quick_seeds=1,
        quick_iterations=40,
        rows=_rows,
        table=_table,
        draw=_nothing,
        arguments=_arguments,
    ),
)
