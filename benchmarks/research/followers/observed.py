"""`bilevelrl reproduce observed`: leaders that see their followers' actions alone, with how many on the axis.

Followers play their best response. The leader counts n actions per state at each θ and takes frequencies (prior 1/2)
for the policy and that policy's soft values for the values; its batches are of what is really played. Beside them the
leader that is told policy and values, n = ∞. Four-Rooms at β = .003 in the planner's kernel with batches of 100 steps,
and the toy game, R = 1, as the configurable MDP that it reduces to, with batches of 200.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bilevelrl.benchmarks.sweeping.curves import curve_rows, pyplot, save_picture
from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row, SweepRunner
from bilevelrl.benchmarks.sweeping.sweep_grid import Cell, Grid
from bilevelrl.benchmarks.sweeping.sweeps import Sweep
from bilevelrl.estimators import TabularSimulator
from bilevelrl.estimators.followers import ExactFollower, FollowerRule, WatchedFollower
from bilevelrl.estimators.training import METHODS, Adam, Run, Training, published_simulator, train
from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.game import reduce_game
from bilevelrl.tasks import four_rooms, toy_markov_game

__all__ = ["FIGURES", "OBSERVED", "TASKS", "observed_cell", "observed_training"]

TASKS = ("four_rooms", "toy_game")
METHODS_SHOWN = ("bc_hg", "bc_hg_exact_benefit")
OBSERVED = (1, 10, 100, 1000, 10_000, 0)
"""Actions per state; 0: the leader is told."""

RATES = {"four_rooms": 0.1, "toy_game": 0.05}


def observed_training(*, task: str, method: str, observed: int, seeds: int, iterations: int) -> Training:
    """Return the training of one method with so many observed actions per state.

    Parameters
    ----------
    task, method
        In `TASKS`, a sampling method of configurable MDPs.
    observed
        Per state and outer iteration; 0: the leader is told policy and values.
    seeds, iterations
        Runs and outer iterations.

    Examples
    --------
    >>> observed_training(task="toy_game", method="bc_hg", observed=10, seeds=2, iterations=5).follower.observed
    10
    """
    rooms = task == "four_rooms"
    follower: FollowerRule = WatchedFollower(observed=observed) if observed else ExactFollower()
    return Training(
        problem=four_rooms(temperature=0.003) if rooms else reduce_game(toy_markov_game(1.0)),
        runs=[Run(method=method, seed=seed, learning_rate=RATES[task]) for seed in range(seeds)],
        iterations=iterations,
        streams=1 if rooms else 20,
        steps=100 if rooms else 200,
        optimiser=Adam(),
        follower=follower,
        evaluate_every=max(1, iterations // 40),
        simulator=published_simulator() if rooms else TabularSimulator(),
    )


def observed_cell(cell: Cell, configuration: Mapping[str, Any], checkpoint: Path) -> list[Row]:
    """Train with one number of observed actions; return thinned curves."""
    training = observed_training(**{name: cell[name] for name in ("task", "method", "observed")},
                                 seeds=configuration["seeds"], iterations=configuration["iterations"])  # fmt: skip
    history = train(training, checkpoint=checkpoint, checkpoint_every=250)
    names = ("objective", "hypergradient_error", "cosine", "relative_error")
    return curve_rows(history, points=configuration["points"], names=names)


def _ends(rows: Sequence[Row]) -> FloatArray:
    return np.array(list({row["seed"]: row["final_objective"] for row in rows}.values()), dtype=np.float64)


def _panels(rows: Sequence[Row]) -> dict[tuple[str, str], dict[int, list[Row]]]:
    panels: dict[tuple[str, str], dict[int, list[Row]]] = {}
    for row in rows:
        panels.setdefault((row["task"], row["method"]), {}).setdefault(int(row["observed"]), []).append(row)
    return panels


def _table(rows: Sequence[Row], options: FigureOptions) -> str:
    lines = [
        f"{options.iterations:,} outer iterations, {options.seeds} seeds: J at θ_0 and over the last 5 %; how far the "
        "formula at counted policies is from ∇J, and the cosine of the sampled direction, medians over the run",
        "",
        "| task | method | actions seen | J(θ_0) | J at the end (least, largest) | error of the formula | cosine |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (task, method), each in _panels(rows).items():
        for observed, own in each.items():
            ends = _ends(own)
            first = np.mean([row["objective"] for row in own if row["iteration"] == 0])
            error, cosine = (float(np.median([row[name] for row in own])) for name in ("hypergradient_error", "cosine"))
            lines.append(
                f"| {task} | {METHODS[ConfigurableMDP][method].title} | {f'{observed:,}' if observed else 'told'} "
                f"| {first:.3f} | {ends.mean():.3f} ({ends.min():.3f}, {ends.max():.3f}) | {error:.2g} | {cosine:.3f} |"
            )
    return "\n".join(lines)


def _draw(folder: Path, rows: Sequence[Row], options: FigureOptions) -> list[Path]:
    plt = pyplot()
    panels = _panels(rows)
    tasks = [task for task in TASKS if any(task == name for name, _ in panels)]
    size = (4.4 * len(tasks), 3.8)
    figure, axes = plt.subplots(1, len(tasks), figsize=size, squeeze=False, layout="constrained")
    for (task, method), each in panels.items():
        axis = axes[0, tasks.index(task)]
        told = sorted(observed for observed in each if observed)
        means = [_ends(each[observed]).mean() for observed in told]
        (line,) = axis.plot(told, means, "o-", ms=3, lw=1.0, label=METHODS[ConfigurableMDP][method].title)
        for observed in told:
            ends = _ends(each[observed])
            axis.plot([observed] * ends.size, ends, ".", ms=3, alpha=0.5, color=line.get_color())
        if 0 in each:
            axis.axhline(_ends(each[0]).mean(), ls=":", lw=1.2, color=line.get_color())
        axis.set(xscale="log", title=task.replace("_", " "), xlabel="observed actions per state")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("J at the end (dotted: told)")
    axes[0, -1].legend(frameon=False, fontsize=8)
    path = folder / "observed.png"
    save_picture(figure, path, dpi=100)
    plt.close(figure)
    return [path]


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--task", nargs="+", choices=TASKS, default=list(TASKS))
    add("--method", nargs="+", choices=METHODS_SHOWN, default=list(METHODS_SHOWN))
    add("--observed", type=int, nargs="+", choices=OBSERVED, default=list(OBSERVED), help="0: the leader is told")


def _rows(folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    names = ("task", "method", "observed")
    grid = Grid(axes=[(name, list(options.own[name])) for name in names], known=names)
    configuration = {"seeds": options.seeds, "iterations": options.iterations, "points": 20}
    return run(Sweep(function=observed_cell, grid=grid, folder=folder / "cells", configuration=configuration))


FIGURES = (
    Figure(
        name="observed",
        title="leaders that see their followers' actions alone, by how many they see",
        seeds=10,
        iterations=500,
        quick_seeds=1,
        quick_iterations=20,
        rows=_rows,
        table=_table,
        draw=_draw,
        arguments=_arguments,
    ),
)
