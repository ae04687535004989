"""Where a leader ends that climbs what each method has for its expectation: `bilevelrl reproduce ascents`.

    θ ← θ + rate · g / max(1, |g|),    g = `approximate_hypergradient` at one knob,                              (1)

with the exact objective written down along the way. Nothing is sampled: what an end is short of that of exact ascent
is the method's own error, added up along its own path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bilevelrl.benchmarks.sweeping.curves import pyplot, save_picture
from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row, SweepRunner
from bilevelrl.benchmarks.sweeping.sweep_grid import Cell, Grid
from bilevelrl.benchmarks.sweeping.sweeps import Sweep
from bilevelrl.reference import hypergradient, leader_objective
from bilevelrl.reference.approximations import approximate_hypergradient
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import BilevelRLError
from bilevelrl.reference.problem import Problem
from bilevelrl.tasks import toy_markov_game
from bilevelrl.tasks.scenarios import reference_problems

__all__ = ["CLIMBED", "FIGURES", "KNOBS", "ascent_cell", "climb"]

KNOBS: Mapping[str, float | None] = {
    "exact": None,
    "no response": None,
    "differentiated_sweeps": 20,
    "conjugate_gradients": 20,
    "alternating_tables": 100,
    "unrolled_sweeps": 20,
    "value_penalty_one_sided": 0.1,
    "value_penalty_two_sided": 0.1,
    "attenuated_penalty": 100,
    "bellman_penalty_one_sided": 0.1,
    "bellman_penalty_two_sided": 0.1,
    "damped_inverse": 0.01,
    "nystroem": 20,
    "policy_gradient_steps": 1,
    "implicit_unsolved": 20,
    "fisher_unsolved": 20,
    "log_derivative": 20,
}
"""Methods, and the knob that each climbs with: what is usual, not what is best."""

CLIMBED = ("toy game, R = 1", "toy game, R = 2", "mdp_discount_0.99")

RATE = 0.1


def climbed_problem(task: str) -> tuple[Problem, FloatArray]:
    """Return a problem and where leaders start."""
    if task.startswith("toy game"):
        return toy_markov_game(float(task[-1])), np.zeros(3)
    stored = next(entry for entry in reference_problems() if entry.name == task)
    return stored.problem(), stored.theta()


def direction(problem: Problem, theta: FloatArray, method: str) -> FloatArray:
    """Return what a method climbs."""
    if (knob := KNOBS[method]) is not None:
        return approximate_hypergradient(problem, theta, method, knob)
    truth = hypergradient(problem, theta, bound=False)
    return truth.value if method == "exact" else truth.value - truth.parts["response"]


def climb(problem: Problem, theta: FloatArray, method: str, *, iterations: int, points: int) -> list[Row]:
    """Return the exact objective at some iterations of (1), the first and the last among them."""
    shown = set(np.linspace(0, iterations, points).round().astype(int).tolist())
    rows: list[Row] = []
    refused = ""
    for iteration in range(iterations + 1):
        if iteration in shown or refused:
            objective = float(f"{leader_objective(problem, theta):.6g}")
            rows.append({"iteration": iteration, "objective": objective, "refused": refused})
        if refused or iteration == iterations:
            break
        try:
            step = direction(problem, theta, method)
        except BilevelRLError as reason:
            refused = str(reason).partition(":")[0]
            continue
        theta = theta + RATE * step / max(1.0, float(np.linalg.norm(step)))  # (1)
    return rows


def ascent_cell(cell: Cell, configuration: Mapping[str, Any], checkpoint: Path) -> list[Row]:
    """Return the curve of one method on one task.

    Parameters
    ----------
    cell
        `task` and `method`.
    configuration
        `iterations` and `points`.
    checkpoint
        Not used: a cell takes seconds.
    """
    problem, theta = climbed_problem(cell["task"])
    knob = KNOBS[cell["method"]]
    rows = climb(problem, theta, cell["method"], **configuration)
    return [{"knob": "" if knob is None else knob, **row} for row in rows]


def _rows(folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    tasks = list(CLIMBED[:1] if options.quick else CLIMBED)
    grid = Grid(axes=[("task", tasks), ("method", list(KNOBS))], known=("task", "method"))
    configuration = {"iterations": options.iterations, "points": 11}
    return run(Sweep(function=ascent_cell, grid=grid, folder=folder / "cells", configuration=configuration))


def _curves(rows: Sequence[Row]) -> dict[str, dict[str, list[Row]]]:
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        found.setdefault(row["task"], {}).setdefault(row["method"], []).append(row)
    return found


def _table(rows: Sequence[Row], options: FigureOptions) -> str:
    curves = _curves(rows)
    lines = [
        f"The leader's objective after {options.iterations} steps of rate {RATE:g} along each expectation, shortened "
        "to norm 1, and in brackets the best on the way; from the first row's start",
        "",
        "| method | knob | " + " | ".join(curves) + " |",
        "| --- | --- |" + " --- |" * len(curves),
    ]
    starts = " | ".join(f"{float(own['exact'][0]['objective']):.3f}" for own in curves.values())
    lines.append(f"| start | | {starts} |")
    for method in next(iter(curves.values())):
        cells = []
        for own in curves.values():
            values = [float(row["objective"]) for row in own[method]]
            stopped = f", refused after {own[method][-1]['iteration']} steps" if own[method][-1]["refused"] else ""
            cells.append(f"{values[-1]:.3f} ({max(values):.3f}){stopped}")
        knob = next(iter(curves.values()))[method][0]["knob"]
        lines.append(f"| {method} | {knob if knob == '' else f'{float(knob):g}'} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _draw(folder: Path, rows: Sequence[Row], options: FigureOptions) -> list[Path]:
    plt, curves = pyplot(), _curves(rows)
    figure, axes = plt.subplots(
        1, len(curves), figsize=(2.6 + 3.0 * len(curves), 4.8), squeeze=False, sharey=True, layout="constrained"
    )
    for axis, (task, own) in zip(axes[0], curves.items(), strict=True):
        for place, (method, curve) in enumerate(own.items()):
            values = [float(row["objective"]) for row in curve]
            axis.axhline(place, color="#e5e5e5", lw=0.7, zorder=0)
            axis.plot([min(values), max(values)], [place, place], color="#9ecae1", lw=3.0, solid_capstyle="butt")
            axis.plot(values[-1], place, "o", color="#08306b" if method == "exact" else "#c2410c", ms=5)
        axis.axvline(float(own["exact"][0]["objective"]), color="#888888", lw=0.8, ls=":")
        axis.axvline(float(own["exact"][-1]["objective"]), color="#08306b", lw=0.8)
        axis.set_title(task, loc="left", fontsize=10)
        axis.set_xlabel("objective J: end, and range on the way")
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
    names = list(next(iter(curves.values())))
    axes[0, 0].set_yticks(range(len(names)), names, fontsize=8)
    axes[0, 0].set_ylim(len(names) - 0.4, -0.6)
    path = folder / "ascents.png"
    save_picture(figure, path, dpi=100)
    plt.close(figure)
    return [path]


FIGURES = (
    Figure(
        name="ascents",
        title="where leaders end that climb what each method has for its expectation; no seeds",
        seeds=1,
        iterations=200,
        quick_seeds=1,
        quick_iterations=5,
        rows=_rows,
        table=_table,
        draw=_draw,
    ),
)
