"""Diagrams of the tabular tasks, and what training does to penalties and to the follower's way, as pictures.

`fig1`: the map of Four-Rooms and the toy game's moves (Figures 1 and 4(a) of Kudo et al. 2026, arXiv:2603.14867).
`maps`: penalties and the follower's intended path while a leader trains.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bilevelrl.benchmarks.paper.four_rooms.training import panel_training
from bilevelrl.benchmarks.sweeping.curves import pyplot, save_picture
from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row, SweepRunner
from bilevelrl.benchmarks.sweeping.sweep_grid import Cell, Grid
from bilevelrl.benchmarks.sweeping.sweeps import Sweep
from bilevelrl.estimators.training import METHODS, Evaluation, train
from bilevelrl.reference import ConfigurableMDP
from bilevelrl.tasks import four_rooms, toy_markov_game
from bilevelrl.tasks.paper import FOUR_ROOMS_GRID, FOUR_ROOMS_MARKS
from bilevelrl.tasks.pictures import draw_follower, draw_game, draw_map, draw_penalties, game_moves
from bilevelrl.verification.commands import seed

__all__ = ["FIGURES", "snapshots"]

TOY_STATES, TOY_ACTIONS = ("S", "A", "B"), ("s", "a", "b")
SNAPSHOTS = (0, 300, 1000, 3000, 10_000)
MAP_METHODS = ("bc_hg", "naive_pgd")
_TEMPERATURE = 0.003


def _diagram_rows(folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    rows: list[Row] = []
    for bonus in (1.0, 2.0):
        for move in game_moves(toy_markov_game(bonus)):
            rows.append(
                {
                    "bonus": bonus,
                    "state_t": TOY_STATES[move.state_t],
                    "state_tp1": TOY_STATES[move.state_tp1],
                    "pairs": " ".join(f"{leader}{TOY_ACTIONS[action]}" for leader, action in move.pairs),
                    "reward_follower": move.reward_follower,
                    "reward_leader": move.reward_leader,
                }
            )
    return rows


def _diagram_table(rows: Sequence[Row], options: FigureOptions) -> str:
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([str(row[name]) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _draw_diagrams(folder: Path, rows: Sequence[Row], options: FigureOptions) -> list[Path]:
    plt = pyplot()
    figure, axes = plt.subplots(1, 3, figsize=(13.5, 4.4), layout="constrained")
    draw_map(FOUR_ROOMS_GRID, marks=FOUR_ROOMS_MARKS, title="Four-Rooms", axes=axes[0])
    for place, bonus in zip(axes[1:], (1.0, 2.0), strict=True):
        draw_game(
            toy_markov_game(bonus),
            state_names=TOY_STATES,
            action_names=TOY_ACTIONS,
            title=f"toy game, R = {bonus:g}",
            axes=place,
        )
    path = folder / "fig1.png"
    save_picture(figure, path, dpi=90)
    plt.close(figure)
    return [path]


def snapshots(cell: Cell, configuration: Mapping[str, Any], checkpoint: Path) -> list[Row]:
    """Train one method and return θ at some outer iterations, one row per entry.

    Parameters
    ----------
    cell
        Its `method`.
    configuration
        `iterations` and `seed`.
    checkpoint
        Not used: a run takes seconds.
    """
    iterations = int(configuration["iterations"])
    training = panel_training(
        variant="published",
        temperature=_TEMPERATURE,
        batch_steps=100,
        methods=[str(cell["method"])],
        seeds=1,
        iterations=iterations + 1,
    )
    training = replace(training, runs=[replace(run, seed=int(configuration["seed"])) for run in training.runs])
    wanted, rows = set(_times(iterations)), []

    def keep(found: Evaluation) -> None:
        if found.iteration in wanted:
            for entry, value in enumerate(found.thetas[0]):
                rows.append(
                    {
                        "iteration": found.iteration,
                        "entry": entry,
                        "theta": float(f"{value:.6g}"),
                        "objective": round(float(found.objective[0]), 6),
                    }
                )

    train(training, callbacks=[keep])
    return rows


def _times(iterations: int) -> list[int]:
    """Return the iterations that are shown: the usual ones, squeezed into fewer where there are fewer."""
    return [10 * round(time * iterations / SNAPSHOTS[-1] / 10) for time in SNAPSHOTS]


def _map_rows(folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    grid = Grid(axes=[("method", list(MAP_METHODS))], known=("method",))
    configuration = {"iterations": options.iterations, "seed": options.own["seed"]}
    return run(Sweep(function=snapshots, grid=grid, folder=folder / "cells", configuration=configuration))


def _map_table(rows: Sequence[Row], options: FigureOptions) -> str:
    lines = ["| method | outer iteration | J | cells with half of all penalties |", "| --- | --- | --- | --- |"]
    for method, iteration in dict.fromkeys((row["method"], row["iteration"]) for row in rows):
        theta, objective = _theta(rows, method, iteration)
        paid = np.maximum(-_problem().tables_at(theta).reward_follower.max(axis=1), 0.0)
        largest = np.sort(paid)[::-1]
        half = int(np.searchsorted(np.cumsum(largest), 0.5 * largest.sum())) + 1 if largest.sum() > 1e-3 else 0
        lines.append(
            f"| {METHODS[ConfigurableMDP][method].title} | {iteration} | {objective:.3f} | {half or 'no penalties'} |"
        )
    return "\n".join(lines)


def _problem() -> Any:
    return four_rooms(temperature=_TEMPERATURE, kernel="planner")


def _theta(rows: Sequence[Row], method: str, iteration: int) -> tuple[Any, float]:
    own = sorted(
        (row["entry"], row["theta"], row["objective"])
        for row in rows
        if (row["method"], row["iteration"]) == (method, iteration)
    )
    return np.array([theta for _, theta, _ in own]), own[0][2]


def _draw_maps(folder: Path, rows: Sequence[Row], options: FigureOptions) -> list[Path]:
    plt = pyplot()
    written = []
    for method in dict.fromkeys(row["method"] for row in rows):
        times = list(dict.fromkeys(row["iteration"] for row in rows if row["method"] == method))
        figure, axes = plt.subplots(2, len(times), figsize=(3.3 * len(times), 6.6), squeeze=False, layout="constrained")
        for column, iteration in enumerate(times):
            theta, objective = _theta(rows, method, iteration)
            title = f"iteration {iteration}, J = {objective:.3f}"
            draw_penalties(
                FOUR_ROOMS_GRID,
                _problem(),
                theta,
                marks=FOUR_ROOMS_MARKS,
                title=title,
                largest=0.1,
                axes=axes[0, column],
            )
            draw_follower(
                FOUR_ROOMS_GRID,
                _problem(),
                theta,
                marks=FOUR_ROOMS_MARKS,
                path="intended",
                title=None,
                axes=axes[1, column],
            )
        figure.suptitle(
            f"{METHODS[ConfigurableMDP][method].title}: penalties, and the follower's visits and intended path"
        )
        written.append(folder / f"maps_{method}.png")
        save_picture(figure, written[-1], dpi=70)
        plt.close(figure)
    return written


def _seed_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=seed, default=0, help="of the run that is shown (default 0)")


FIGURES = (
    Figure(
        name="fig1",
        title="diagrams of Four-Rooms and of the toy game (also Figure 4(a)); nothing is trained",
        seeds=1,
        iterations=1,
        quick_seeds=1,
        quick_iterations=1,
        rows=_diagram_rows,
        table=_diagram_table,
        draw=_draw_diagrams,
    ),
    Figure(
        name="maps",
        title="penalties and the follower's path on Four-Rooms while a leader trains",
        seeds=1,
        iterations=SNAPSHOTS[-1],
        quick_seeds=1,
        quick_iterations=300,
        rows=_map_rows,
        table=_map_table,
        draw=_draw_maps,
        arguments=_seed_argument,
    ),
)
