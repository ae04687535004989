"""`bilevelrl reproduce suboptimal`: the 48 published configurations with a follower that stops early, β = .003.

The follower sweeps k policy iterations of five sweeps each, k in {1, 2, 5, 10, 20, 50}, from noise of its own at each θ
("reset") or from the table that it had ("carry"), and plays what it has; batches are of 100, 200, 400 and 1000 steps in
two streams. Kernels are those of the published code: followers plan in one, samples come from another.

Two returns stand side by side: against the best response, which the published figures show, and against what is played.
The released code's own value of what is played is not one: it takes the softmax of the played table's Q a second time,
so that it reports a policy improved by one step, with the entropy of the one before. Step sizes are those that were
chosen for a converged follower at the same number of steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bilevelrl.benchmarks.paper.four_rooms.selection import UNTUNED, chosen_settings
from bilevelrl.benchmarks.sweeping.curves import curve_rows, pyplot, save_picture
from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row, SweepRunner
from bilevelrl.benchmarks.sweeping.sweep_grid import Cell, Grid
from bilevelrl.benchmarks.sweeping.sweeps import Sweep
from bilevelrl.estimators.followers import SweepingFollower
from bilevelrl.estimators.training import METHODS, Run, Training, published_simulator, train
from bilevelrl.reference import ConfigurableMDP
from bilevelrl.tasks import four_rooms

__all__ = ["BATCHES", "FIGURES", "ITERATIONS", "METHODS_SHOWN", "STARTS", "suboptimal_cell", "suboptimal_training"]

STARTS = ("reset", "carry")
ITERATIONS = (1, 2, 5, 10, 20, 50)
BATCHES = (100, 200, 400, 1000)
METHODS_SHOWN = ("bc_hg", "naive_pgd", "sobirl", "hpgd_mc", "hpgd_sa", "hpgd_oracle")

TEMPERATURE = 0.003
STREAMS = 2

COLUMNS = ("objective", "played_objective", "follower_error", "hypergradient_error", "cosine")


def suboptimal_training(
    *, start: str, k: int, batch_steps: int, methods: Sequence[str], seeds: int, iterations: int
) -> Training:
    """Return the training of one configuration.

    Parameters
    ----------
    start, k, batch_steps
        In `STARTS`, `ITERATIONS` and `BATCHES`.
    methods, seeds, iterations
        In `METHODS_SHOWN`; runs of each; outer iterations.

    Examples
    --------
    >>> training = suboptimal_training(start="carry", k=5, batch_steps=100, methods=["bc_hg"], seeds=2, iterations=10)
    >>> len(training.runs), training.streams * training.steps, training.follower.carry, training.follower.iterations
    (2, 100, True, 5)
    """
    settings = {**UNTUNED, **chosen_settings(TEMPERATURE, batch_steps)}
    runs = [
        Run(
            method=method,
            seed=seed,
            learning_rate=settings[method].learning_rate,
            critic_step_size=settings[method].critic_step_size,
        )
        for method in methods
        for seed in range(seeds)
    ]
    return Training(
        problem=four_rooms(temperature=TEMPERATURE),
        runs=runs,
        iterations=iterations,
        streams=STREAMS,
        steps=batch_steps // STREAMS,
        evaluate_every=max(1, iterations // 100),
        simulator=published_simulator(four_rooms(temperature=TEMPERATURE, kernel="paper")),
        follower=SweepingFollower(iterations=k, carry=start == "carry", noise=1.0),
    )


def suboptimal_cell(cell: Cell, configuration: Mapping[str, Any], checkpoint: Path) -> list[Row]:
    """Train all methods of one configuration and return their thinned curves."""
    training = suboptimal_training(
        start=cell["start"],
        k=cell["k"],
        batch_steps=cell["batch_steps"],
        methods=configuration["methods"],
        seeds=configuration["seeds"],
        iterations=configuration["iterations"],
    )
    history = train(training, checkpoint=checkpoint, checkpoint_every=250)
    rows = curve_rows(history, points=configuration["points"], names=COLUMNS)
    played = dict(zip(training.runs, history.final(name="played_objective"), strict=True))
    for row in rows:
        run = next(each for each in training.runs if (each.method, each.seed) == (row["method"], row["seed"]))
        row["final_played_objective"] = round(float(played[run]), 6)
    return rows


def _ends(rows: Sequence[Row], name: str, **chosen: object) -> np.ndarray[Any, np.dtype[np.float64]]:
    own = [row for row in rows if all(row[key] == value for key, value in chosen.items())]
    return np.array(list({row["seed"]: row[name] for row in own}.values()), dtype=np.float64)


def _shown(rows: Sequence[Row]) -> list[str]:
    return [method for method in METHODS_SHOWN if any(row["method"] == method for row in rows)]


def _table(rows: Sequence[Row], options: FigureOptions) -> str:
    methods = _shown(rows)
    titles = " | ".join(METHODS[ConfigurableMDP][method].title for method in methods)
    lines = [
        f"J against the best response (against what is played) over the last 5 % of {options.iterations:,} outer "
        f"iterations, means of {options.seeds} seeds; |V_F - V_F*| of what is played at the first θ",
        "",
        f"| start | k | steps | follower's error | {titles} |",
        f"| --- | --- | --- | --- |{' --- |' * len(methods)}",
    ]
    for start, k, batch in dict.fromkeys((row["start"], row["k"], row["batch_steps"]) for row in rows):
        at = {"start": start, "k": k, "batch_steps": batch}
        cells = []
        for method in methods:
            ends, played = (
                _ends(rows, name, method=method, **at) for name in ("final_objective", "final_played_objective")
            )
            error = f" ± {ends.std(ddof=1) / np.sqrt(ends.size):.3f}" if ends.size > 1 else ""
            cells.append(f"{ends.mean():.3f}{error} ({played.mean():.3f})" if ends.size else "–")
        first = _ends(rows, "follower_error", method=methods[0], iteration=0, **at)
        lines.append(f"| {start} | {k} | {batch} | {np.median(first):.2g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _draw(folder: Path, rows: Sequence[Row], options: FigureOptions) -> list[Path]:
    plt = pyplot()
    batches = list(dict.fromkeys(row["batch_steps"] for row in rows))
    starts = list(dict.fromkeys(row["start"] for row in rows))
    size = (max(5.0, 3.0 * len(batches)), 2.6 * len(starts) + 0.6)
    figure, axes = plt.subplots(
        len(starts), len(batches), figsize=size, squeeze=False, sharex=True, sharey=True, layout="constrained"
    )
    for line, start in enumerate(starts):
        for column, batch in enumerate(batches):
            axis = axes[line, column]
            for method in _shown(rows):
                ends = [_ends(rows, "final_objective", method=method, start=start, k=k, batch_steps=batch)
                        for k in ITERATIONS]  # fmt: skip
                told = [(k, each) for k, each in zip(ITERATIONS, ends, strict=True) if each.size]
                spread = [each.std(ddof=1) / np.sqrt(each.size) if each.size > 1 else 0.0 for _, each in told]
                title = METHODS[ConfigurableMDP][method].title
                places, means = [k for k, _ in told], [each.mean() for _, each in told]
                axis.errorbar(places, means, yerr=spread, marker="o", ms=3, lw=1.0, label=title)
            axis.set_title(f"{start}, {batch} steps", fontsize=9)
            axis.set_xscale("log")
            axis.spines[["top", "right"]].set_visible(False)
        axes[line, 0].set_ylabel("J, best response")
    for axis in axes[-1]:
        axis.set_xlabel("k, policy iterations of 5 sweeps")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    path = folder / "suboptimal.png"
    save_picture(figure, path, dpi=100)
    plt.close(figure)
    return [path]


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--start", nargs="+", choices=STARTS, default=list(STARTS))
    add("--k", type=int, nargs="+", choices=ITERATIONS, default=list(ITERATIONS))
    add("--batch-steps", type=int, nargs="+", choices=BATCHES, default=list(BATCHES))
    add("--method", nargs="+", choices=METHODS_SHOWN, default=None, help="default all; --quick leaves out the oracle")


def _rows(folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    names = ("start", "k", "batch_steps")
    grid = Grid(axes=[(name, list(options.own[name])) for name in names], known=names)
    methods = options.own["method"] or list(METHODS_SHOWN[:-1] if options.quick else METHODS_SHOWN)
    configuration = {"methods": methods, "seeds": options.seeds, "iterations": options.iterations, "points": 20}
    return run(Sweep(function=suboptimal_cell, grid=grid, folder=folder / "cells", configuration=configuration))


FIGURES = (
    Figure(
        name="suboptimal",
        title="the 48 published configurations with followers that stop after k policy iterations",
        seeds=20,
        iterations=10_000,
        quick_seeds=1,
        quick_iterations=20,
        rows=_rows,
        table=_table,
        draw=_draw,
        arguments=_arguments,
    ),
)
