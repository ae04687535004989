"""How much one minibatch of BC-HG scatters at the toy game's optimum, by how far its inner sum reaches.

The direction is that of the sound options with the exact critic and the exact follower, in the logit of p = f(1|A) of a
tabular leader. At the optimum the exact hypergradient is zero, so a mean that is not zero is a bias.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bilevelrl.benchmarks.paper.toy_game.landscape import optimum
from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row, SweepRunner
from bilevelrl.benchmarks.sweeping.sweep_grid import Cell, Grid
from bilevelrl.benchmarks.sweeping.sweeps import Sweep
from bilevelrl.estimators.training import SOUND, GameTraining, Run
from bilevelrl.reference import MarkovGame
from bilevelrl.tasks import toy_game_theta, toy_markov_game

__all__ = ["FIGURES", "spread_cell"]

REACHES = (0, 20, 5)
"""Steps of the inner sum; 0: to the end of the episode."""


def spread_cell(cell: Cell, configuration: Mapping[str, Any], checkpoint: Path) -> list[Row]:
    """Return mean, its error, and standard deviation of independent minibatches.

    Parameters
    ----------
    cell
        `bonus` and `reach`.
    configuration
        `seeds` and `batches`: so many runs, each of so many fresh batches of which one minibatch is drawn.
    checkpoint
        Not used: a cell takes seconds.
    """
    bonus, reach = float(cell["bonus"]), int(cell["reach"])
    options = replace(SOUND[MarkovGame], actor="tabular", critic="exact", influence_steps=reach or None)
    training = GameTraining(
        problem=toy_markov_game(bonus),
        runs=[Run(method="bc_hg", seed=seed, learning_rate=1e-4) for seed in range(int(configuration["seeds"]))],
        iterations=1,
        options=options,
        probe=(1, 1),
    )
    p = optimum(bonus).p
    thetas = np.tile(toy_game_theta(p), (len(training.runs), 1))
    world = training.world(training.generators())
    found = []
    for batch in range(int(configuration["batches"])):
        world.prepare(thetas, batch)
        found.append(world.direction(thetas, 0)[:, 1])
        world.finish(thetas)
    directions = np.array(found)
    deviation = float(directions.std(ddof=1))
    return [
        {
            "p": round(p, 5),
            "minibatches": directions.size,
            "mean": round(float(directions.mean()), 3),
            "error_of_mean": round(deviation / np.sqrt(directions.size), 3),
            "standard_deviation": round(deviation, 2),
            "median_absolute": round(float(np.median(np.abs(directions))), 3),
        }
    ]


def _rows(folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    grid = Grid(axes=[("bonus", [1, 2]), ("reach", list(REACHES))], known=("bonus", "reach"))
    configuration = {"seeds": options.seeds, "batches": options.iterations}
    return run(Sweep(function=spread_cell, grid=grid, folder=folder / "cells", configuration=configuration))


def _table(rows: Sequence[Row], options: FigureOptions) -> str:
    lines = [
        "| R | inner sum | minibatches | mean ± its error | SD | median size |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        reach = f"{row['reach']} steps" if row["reach"] else "to the end"
        lines.append(
            f"| {row['bonus']} | {reach} | {row['minibatches']} | {row['mean']:.2f} ± {row['error_of_mean']:.2f} "
            f"| {row['standard_deviation']:.1f} | {row['median_absolute']:.2f} |"
        )
    return "\n".join(lines) + "\n\nIn the logit of p at the optimum, where the truth is 0."


FIGURES = (
    Figure(
        name="toy_spreads",
        title="toy game: scatter of BC-HG's minibatches at the optimum; --iterations counts batches of each seed",
        seeds=60,
        iterations=200,
        quick_seeds=5,
        quick_iterations=5,
        rows=_rows,
        table=_table,
    ),
)
