"""The search for step sizes on Four-Rooms, as a sweep: all settings on short runs, then finalists on longer ones."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bilevelrl.benchmarks.paper.four_rooms.selection import (
    SELECTION_SEEDS,
    SELECTION_SHARE,
    Setting,
    finalists,
    mean_scores,
    selection_runs,
    settings_of,
)
from bilevelrl.benchmarks.paper.four_rooms.training import (
    MOST_SEEDS,
    ORACLE,
    STREAMS,
    TEMPERATURES,
    panel_training,
)
from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row, SweepRunner
from bilevelrl.benchmarks.sweeping.sweep_grid import Cell, Grid
from bilevelrl.benchmarks.sweeping.sweep_store import write_table
from bilevelrl.benchmarks.sweeping.sweeps import Sweep
from bilevelrl.estimators.training import METHODS, train
from bilevelrl.reference import ConfigurableMDP

__all__ = ["FIGURES", "SHORT", "best_of_stages", "search_cell"]

SEARCHED = ("bc_hg", "hpgd_mc", "hpgd_sa", ORACLE, "naive_pgd", "sobirl", "exact")

_QUICK = ("hpgd_mc", "naive_pgd")

SHORT = 4000
"""Outer iterations of the first stage."""

LONG = 10_000
"""Outer iterations of the second stage: the paper's."""

_LOWEST = 0.05
"""Learning rate, of methods with a SARSA critic; with lower ones they are still on the plateau at the paper's end."""


def search_cell(cell: Cell, configuration: Mapping[str, Any], checkpoint: Path) -> list[Row]:
    """Search one method in one panel and return one row per stage, setting and seed, with its score.

    Methods whose curves hardly depend on the seed, and the oracle, have one seed and no second stage.

    Parameters
    ----------
    cell
        `variant`, `batch_steps`, `temperature` and `method`.
    configuration
        Outer iterations of the stages, `short` and `long`, and `entropy`.
    checkpoint
        Of the stages, whose files stand beside it.
    """
    panel, method, entropy = dict(cell), str(cell["method"]), configuration["entropy"]
    del panel["method"]
    lowest = _LOWEST if METHODS[ConfigurableMDP][method].critic == "sarsa" else 0.0
    lengths = {"short": configuration["short"], "long": configuration["long"]}
    files = {stage: checkpoint.with_name(f"{checkpoint.stem}-{stage}.npz") for stage in lengths}
    settings: Sequence[Setting] = [each for each in settings_of(method) if each.learning_rate >= lowest]
    seeds = {method: 1 if method in MOST_SEEDS else len(SELECTION_SEEDS)}
    rows: list[Row] = []
    for stage, iterations in lengths.items():
        runs = selection_runs({method: settings}, seeds)
        training = panel_training(**panel, runs=runs, iterations=iterations, entropy=entropy)
        scores = train(training, checkpoint=files[stage], checkpoint_every=250).final(SELECTION_SHARE)
        found: list[Row] = [
            {
                "stage": stage,
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
        if method in MOST_SEEDS:
            break
        settings = finalists([{"method": method, **row} for row in found], smallest=lowest)[method]
    for file in files.values():
        file.unlink(missing_ok=True)
    if METHODS[ConfigurableMDP][method].critic != "sarsa":
        rows = [{**row, "critic_step_size": None} for row in rows]
    return rows


def _rows(folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    grid = Grid(
        axes=[
            ("variant", ["published"]),
            ("batch_steps", list(options.own["batch"])),
            ("temperature", list(options.own["temperature"])),
            ("method", list(_QUICK if options.quick else options.own["method"])),
        ],
        known=("variant", "batch_steps", "temperature", "method"),
    )
    configuration = {"short": min(SHORT, options.iterations), "long": options.iterations, "entropy": 0}
    return run(Sweep(function=search_cell, grid=grid, folder=folder / "cells", configuration=configuration))


def best_of_stages(rows: Sequence[Row]) -> dict[tuple[int, float, str], dict[str, tuple[Setting, float]]]:
    """Return {(batch_steps, temperature, method): {stage: best setting and its mean score}}."""
    found: dict[tuple[int, float, str], dict[str, tuple[Setting, float]]] = {}
    for key in dict.fromkeys((row["batch_steps"], row["temperature"], row["method"]) for row in rows):
        own = [row for row in rows if (row["batch_steps"], row["temperature"], row["method"]) == key]
        for stage in dict.fromkeys(row["stage"] for row in own):
            scores = mean_scores([row for row in own if row["stage"] == stage])[key[2]]
            best = next(iter(scores))
            found.setdefault(key, {})[stage] = best, scores[best]
    return found


def _table(rows: Sequence[Row], options: FigureOptions) -> str:
    lines = ["β | steps | method | best after the short stage | its score | best after the long stage | its score"]
    lines.append(" | ".join(["---"] * 7))
    for (batch_steps, temperature, method), stages in best_of_stages(rows).items():
        cells = [f"{temperature:g}", str(batch_steps), METHODS[ConfigurableMDP][method].title]
        for stage in ("short", "long"):
            if stage not in stages:
                cells += ["–", "–"]
                continue
            setting, score = stages[stage]
            critic = f", α {setting.critic_step_size:g}" if METHODS[ConfigurableMDP][method].critic == "sarsa" else ""
            cells += [f"rate {setting.learning_rate:g}{critic}", f"{score:.3f}"]
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def _settings(folder: Path, rows: Sequence[Row], options: FigureOptions) -> list[Path]:
    """Write the chosen settings, as `benchmarks/data/four_rooms_settings.csv` has them."""
    chosen: list[Row] = []
    for (batch_steps, temperature, method), stages in best_of_stages(rows).items():
        setting, _ = stages["long" if "long" in stages else "short"]
        chosen.append(
            {
                "batch_steps": batch_steps,
                "temperature": temperature,
                "method": method,
                "learning_rate": setting.learning_rate,
                "critic_step_size": setting.critic_step_size
                if METHODS[ConfigurableMDP][method].critic == "sarsa"
                else None,
            }
        )
    path = folder / "four_rooms_settings.csv"
    write_table(path, chosen)
    return [path]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--temperature", type=float, nargs="+", choices=TEMPERATURES, default=list(TEMPERATURES), metavar="β"
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[100], choices=list(STREAMS), help="steps in a batch")
    parser.add_argument("--method", nargs="+", default=list(SEARCHED), choices=list(SEARCHED))


FIGURES = (
    Figure(
        name="step_sizes",
        title="Four-Rooms: the search for step sizes, panel by panel",
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
