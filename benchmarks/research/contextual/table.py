"""`bilevelrl reproduce contextual`: HPGD's contextual Four-Rooms, nine cells by six methods, beside what is published.

Followers plan, and J = (J_1 + J_2)/2 is exact, in the planner's kernel; samples come from the one with .67, as in the
release. HPGD (MC), nudged followers, AMD and the zero-order method draw a goal per outer iteration; exact ascent and
the penalty add both up. All have one learning rate, the largest of the published grid; the published ends are those
of the best of the grid.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from bilevelrl.benchmarks.research.contextual.rivals import RIVALS, RivalTraining
from bilevelrl.benchmarks.sweeping.curves import curve_rows
from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row, SweepRunner
from bilevelrl.benchmarks.sweeping.sweep_grid import Cell, Grid
from bilevelrl.benchmarks.sweeping.sweeps import Sweep
from bilevelrl.estimators.contexts import MixtureTraining
from bilevelrl.estimators.training import METHODS, Run, published_simulator, train
from bilevelrl.reference import ConfigurableMDP
from bilevelrl.tasks import contextual_four_rooms, four_rooms
from bilevelrl.tasks.paper import GOAL, SECOND_GOAL

__all__ = ["FIGURES", "METHODS_SHOWN", "PUBLISHED", "contextual_cell", "contextual_training"]

TEMPERATURES = (0.001, 0.003, 0.005)
COEFFICIENTS = (1.0, 3.0, 5.0)

METHODS_SHOWN = ("exact", "hpgd_mc", "amd", "zero_order", "penalty", "nudged")

RATE = 0.5

PUBLISHED: Mapping[tuple[float, float], tuple[str, str, str]] = MappingProxyType(
    {
        (0.001, 1.0): (".91 ± .088", ".58", ".59 ± .059"),
        (0.001, 3.0): (".51", ".51", ".50"),
        (0.001, 5.0): (".46", ".46", ".46"),
        (0.003, 1.0): (".95", "1.00", ".91 ± .048"),
        (0.003, 3.0): (".73", ".39", ".40 ± .028"),
        (0.003, 5.0): (".29", ".32", ".32"),
        (0.005, 1.0): ("1.17 ± .011", "1.28", "1.15 ± .026"),
        (0.005, 3.0): ("1.01", "1.13", "1.02 ± .027"),
        (0.005, 5.0): (".87", ".97", ".79 ± .027"),
    }
)
"""(β, coefficient): HPGD, AMD and zero-order, mean ± standard error of ten seeds: arXiv:2406.01575's release."""


def contextual_training(
    *, temperature: float, coefficient: float, method: str, seeds: int, iterations: int
) -> MixtureTraining:
    """Return the training of one method in one cell of the table.

    Parameters
    ----------
    temperature, coefficient
        β, and what the leader pays per unit of penalty.
    method
        In `METHODS_SHOWN`.
    seeds, iterations
        Runs, one for exact ascent and the penalty and at most two for AMD, and outer iterations.

    Examples
    --------
    >>> training = contextual_training(temperature=0.003, coefficient=1.0, method="hpgd_mc", seeds=2, iterations=10)
    >>> len(training.runs), training.streams * training.steps, training.contexts
    (2, 10000, 'draw')
    """
    most = {"exact": 1, "penalty": 1, "amd": 2}.get(method, seeds)
    settings: dict[str, Any] = {
        "problem": contextual_four_rooms(temperature=temperature, coefficient=coefficient),
        "runs": [Run(method=method, seed=seed, learning_rate=RATE) for seed in range(min(seeds, most))],
        "iterations": iterations,
        "evaluate_every": max(1, iterations // 100),
        "contexts": "sum" if method in ("exact", "penalty") else "draw",
    }
    if method in RIVALS:
        return RivalTraining(**settings)
    if method == "exact":
        return MixtureTraining(**settings)
    simulators = tuple(
        published_simulator(four_rooms(temperature=temperature, kernel="paper", goal=goal))
        for goal in (GOAL, SECOND_GOAL)
    )
    return MixtureTraining(**settings, streams=5, steps=2000, simulators=simulators)


def contextual_cell(cell: Cell, configuration: Mapping[str, Any], checkpoint: Path) -> list[Row]:
    """Train one method in one cell and return its thinned curves."""
    training = contextual_training(
        temperature=cell["temperature"],
        coefficient=cell["coefficient"],
        method=cell["method"],
        seeds=configuration["seeds"],
        iterations=configuration["iterations"],
    )
    history = train(training, checkpoint=checkpoint, checkpoint_every=250)
    names = ("objective", "objective_0", "objective_1", "gradient_norm", "cosine")
    return curve_rows(history, points=configuration["points"], names=names)


def _title(method: str) -> str:
    return RIVALS.get(method) or METHODS[ConfigurableMDP][method].title


def _table(rows: Sequence[Row], options: FigureOptions) -> str:
    shown = [method for method in METHODS_SHOWN if any(row["method"] == method for row in rows)]
    lines = [
        f"(J_1 + J_2)/2 over the last 5 % of {options.iterations:,} outer iterations, mean ± standard error (seeds)",
        "",
        f"| β | coefficient | published: HPGD | AMD | zero-order | {' | '.join(map(_title, shown))} |",
        f"| --- | --- | --- | --- | --- |{' --- |' * len(shown)}",
    ]
    cells = dict.fromkeys((row["temperature"], row["coefficient"]) for row in rows)
    for beta, coefficient in cells:
        found = []
        for method in shown:
            own = [
                row
                for row in rows
                if (row["temperature"], row["coefficient"], row["method"]) == (beta, coefficient, method)
            ]
            ends = np.array(list({row["seed"]: row["final_objective"] for row in own}.values()))
            error = f" ± {ends.std(ddof=1) / np.sqrt(ends.size):.3f}" if ends.size > 1 else ""
            found.append(f"{ends.mean():.3f}{error} ({ends.size})" if ends.size else "–")
        published = " | ".join(PUBLISHED[beta, coefficient])
        lines.append(f"| {beta:g} | {coefficient:g} | {published} | {' | '.join(found)} |")
    return "\n".join(lines)


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--temperature", type=float, nargs="+", choices=TEMPERATURES, default=list(TEMPERATURES), metavar="β")
    add("--coefficient", type=float, nargs="+", choices=COEFFICIENTS, default=list(COEFFICIENTS), metavar="C")
    add("--method", nargs="+", choices=METHODS_SHOWN, default=list(METHODS_SHOWN))


def _rows(folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    names = ("temperature", "coefficient", "method")
    grid = Grid(axes=[(name, list(options.own[name])) for name in names], known=names)
    configuration = {"seeds": options.seeds, "iterations": options.iterations, "points": 50}
    return run(Sweep(function=contextual_cell, grid=grid, folder=folder / "cells", configuration=configuration))


FIGURES = (
    Figure(
        name="contextual",
        title="HPGD's contextual Four-Rooms, its whole table beside the published one",
        seeds=10,
        iterations=10_000,
        quick_seeds=1,
        quick_iterations=4,
        rows=_rows,
        table=_table,
        arguments=_arguments,
    ),
)
