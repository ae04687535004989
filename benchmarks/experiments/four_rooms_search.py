"""The search for step sizes on Four-Rooms, as a sweep: all settings on short runs, then finalists on longer ones."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bilevelrl.benchmarks.experiments.four_rooms_selection import (
    SELECTION_SEEDS,
    SELECTION_SHARE,
    Setting,
    choose,
    finalists,
    mean_scores,
    selection_runs,
    settings_of,
)
from bilevelrl.benchmarks.experiments.four_rooms_training import (
    MOST_SEEDS,
    ORACLE,
    TEMPERATURES,
    critics_only,
    panel_training,
)
from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row, SweepRunner
from bilevelrl.benchmarks.sweeping.sweep_grid import Cell, Grid
from bilevelrl.benchmarks.sweeping.sweep_store import write_table
from bilevelrl.benchmarks.sweeping.sweeps import Sweep
from bilevelrl.estimators.training import METHODS, train

__all__ = ["FIGURES", "SHORT", "best_of_stages", "search_cell"]

SEARCHED = ("bc_hg", "hpgd_mc", "hpgd_sa", ORACLE, "naive_pgd", "sobirl", "exact")

SHORT = 1000
"""Outer iterations of the first stage."""

LONG = 7000
"""Outer iterations of the second stage, by when all finalists have left the plateau or never will."""


def search_cell(cell: Cell, configuration: Mapping[str, Any], checkpoint: Path) -> list[Row]:
    """Search one panel and return one row per stage, setting and seed, with its score.

    Methods whose curves hardly depend on the seed, and the oracle, have one seed and no second stage.
    """
    methods, entropy = configuration["methods"], configuration["entropy"]
    lengths = {"short": configuration["short"], "long": configuration["long"]}
    files = {stage: checkpoint.with_name(f"{checkpoint.stem}-{stage}.npz") for stage in lengths}
    grids: dict[str, Sequence[Setting]] = {method: settings_of(method) for method in methods}
    rows: list[Row] = []
    for stage, iterations in lengths.items():
        seeds = {method: 1 if method in MOST_SEEDS else len(SELECTION_SEEDS) for method in grids}
        training = panel_training(**cell, runs=selection_runs(grids, seeds), iterations=iterations, entropy=entropy)
        scores = train(training, checkpoint=files[stage], checkpoint_every=250).final(SELECTION_SHARE)
        found: list[Row] = [
            {
                "stage": stage,
                "method": run.method,
                "learning_rate": run.learning_rate,
                "critic_step_size": run.critic_step_size,
                "seed": run.seed,
                "iterations": iterations,
                "score": round(float(score), 5),
                "entropy": entropy,
            }
            for run, score in zip(training.runs, scores, strict=True)
        ]
        rows += found
        grids = {method: each for method, each in finalists(found).items() if method not in MOST_SEEDS}
        if not grids:
            break
    for file in files.values():
        file.unlink(missing_ok=True)
    return critics_only(rows)


def _rows(folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    grid = Grid(axes=[("variant", ["published"]), ("batch_steps", [100]), ("temperature", options.own["temperature"])])
    configuration = {
        "methods": list(SEARCHED if not options.quick else ("hpgd_mc", "naive_pgd")),
        "short": min(SHORT, options.iterations),
        "long": options.iterations,
        "entropy": 0,
    }
    return run(Sweep(function=search_cell, grid=grid, folder=folder / "cells", configuration=configuration))


def best_of_stages(rows: Sequence[Row]) -> dict[str, dict[str, tuple[Setting, float]]]:
    """Return {method: {stage: best setting and its mean score}} of one panel."""
    found: dict[str, dict[str, tuple[Setting, float]]] = {}
    for stage in ("short", "long"):
        own = [row for row in rows if row["stage"] == stage]
        for method, setting in choose(own).items():
            found.setdefault(method, {})[stage] = setting, mean_scores(own)[method][setting]
    return found


def _table(rows: Sequence[Row], options: FigureOptions) -> str:
    lines = ["β | method | best after the short stage | its score | best after the long stage | its score"]
    lines.append(" | ".join(["---"] * 6))
    for temperature in dict.fromkeys(row["temperature"] for row in rows):
        for method, stages in best_of_stages([row for row in rows if row["temperature"] == temperature]).items():
            cells = [f"{temperature:g}", METHODS[method].title]
            for stage in ("short", "long"):
                if stage not in stages:
                    cells += ["–", "–"]
                    continue
                setting, score = stages[stage]
                critic = f", α {setting.critic_step_size:g}" if METHODS[method].critic == "sarsa" else ""
                cells += [f"rate {setting.learning_rate:g}{critic}", f"{score:.3f}"]
            lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def _settings(folder: Path, rows: Sequence[Row], options: FigureOptions) -> list[Path]:
    """Write the chosen settings, as `benchmarks/data/four_rooms_settings.csv` has them."""
    chosen: list[Row] = []
    for temperature in dict.fromkeys(row["temperature"] for row in rows):
        best = best_of_stages([row for row in rows if row["temperature"] == temperature])
        for method, stages in best.items():
            setting, _ = stages["long" if "long" in stages else "short"]
            chosen.append(
                {
                    "temperature": temperature,
                    "method": method,
                    "learning_rate": setting.learning_rate,
                    "critic_step_size": setting.critic_step_size,
                }
            )
    path = folder / "four_rooms_settings.csv"
    write_table(path, chosen)
    return [path]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--temperature", type=float, nargs="+", default=list(TEMPERATURES), metavar="β")


FIGURES = (
    Figure(
        name="step_sizes",
        title="Four-Rooms: the search for step sizes, batches of 100 steps",
        seeds=len(SELECTION_SEEDS),
        iterations=LONG,
        quick_seeds=len(SELECTION_SEEDS),
        quick_iterations=100,
        rows=_rows,
        table=_table,
        draw=_settings,
        arguments=_arguments,
    ),
)
