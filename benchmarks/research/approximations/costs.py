"""Error against cost of every method on four tasks, and what follows from it: `bilevelrl reproduce costs`.

*With a model*: the error of an approximation at each knob beside the CPU time that it takes here, the exact solutions
(of followers and of linear systems), the passes over the model and the order of the follower's derivatives. Zero-order
differences are what small steps make of them: unbiased, of variance (N + 1) |∇J|² per draw.

*From samples*: an estimator's bias is exact, from its declared expectation for streams of that length, its spread is
that of so many draws, its cost is environment steps, unpaid, paid and reset ones alike. Critics are exact.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bilevelrl.benchmarks.research.approximations.decisions import RARE, decisions
from bilevelrl.benchmarks.sweeping.curves import pyplot, save_picture
from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row, SweepRunner
from bilevelrl.benchmarks.sweeping.sweep_grid import Cell, Grid
from bilevelrl.benchmarks.sweeping.sweeps import Sweep
from bilevelrl.estimators import ESTIMATORS, Context, Objective, sample_trajectories
from bilevelrl.estimators.methods import NudgedFollowers
from bilevelrl.reference import hypergradient, named_stream, solve_follower
from bilevelrl.reference.approximations import APPROXIMATIONS, approximate_hypergradient, tabular_at
from bilevelrl.reference.errors import BilevelRLError
from bilevelrl.tasks.scenarios import ReferenceProblem, reference_problems

__all__ = ["COSTS", "FIGURES", "SAMPLED", "TASKS", "cost_cell", "root_mean_square"]

TASKS: Mapping[str, int] = {
    "four_rooms_0.003": 200,
    "toy_game_1_even": 400,
    "mdp_discount_0.99": 400,
    "mdp_corridor_20_10": 100,
}
"""Stored problems and the length of their streams."""

COSTS: Mapping[str, tuple[int, Callable[[float], float], int]] = {
    "implicit": (3, lambda k: 0, 1),
    "mixed_derivative": (4, lambda k: 0, 1),
    "differentiated_sweeps": (2, lambda k: k, 1),
    "conjugate_gradients": (2, lambda k: 2 * k, 1),
    "alternating_tables": (1, lambda k: k, 1),
    "unrolled_sweeps": (1, lambda k: 2 * k, 1),
    "value_penalty_one_sided": (2, lambda k: 0, 1),
    "value_penalty_two_sided": (2, lambda k: 0, 1),
    "attenuated_penalty": (0, lambda k: 2 * k, 1),
    "bellman_penalty_one_sided": (3, lambda k: 0, 1),
    "bellman_penalty_two_sided": (4, lambda k: 0, 1),
    "damped_inverse": (3, lambda k: 0, 2),
    "nystroem": (3, lambda k: k, 2),
    "policy_gradient_steps": (2, lambda k: k, 2),
    "implicit_unsolved": (2, lambda k: k, 2),
    "fisher_unsolved": (1, lambda k: k, 2),
    "log_derivative": (1, lambda k: k, 1),
    "network_policy": (2, lambda k: 0, 2),
}
"""By method: exact solutions, passes over the model by the knob, order of the follower's derivatives."""

SAMPLED = (
    "bc_hg",
    "bc_hg_completed",
    "hpgd_oracle",
    "nudged",
    "nudged 3β",
    "nudged_common",
    "nudged_common 3β",
    "sobirl",
    "naive_pgd",
)

DRAWS = 600


def root_mean_square(row: Row, steps: float) -> float:
    """Return the error of a sampled method after so many environment steps.

    Examples
    --------
    >>> root_mean_square({"error": 3.0, "deviation": 40.0, "steps": 10.0}, 1000.0)
    5.0
    """
    return float(np.hypot(float(row["error"]), float(row["deviation"]) * np.sqrt(float(row["steps"]) / steps)))


def _stored(task: str) -> ReferenceProblem:
    return next(entry for entry in reference_problems() if entry.name == task)


def _estimator(name: str) -> Any:
    kind, _, pay = name.partition(" ")
    if pay:
        return NudgedFollowers(pay=3.0, numbers="common" if kind.endswith("common") else "independent", unpaid=False)
    return ESTIMATORS[kind].make(Objective())


def _sampled_row(task: str, name: str, draws: int) -> Row:
    stored, steps = _stored(task), TASKS[task]
    at = tabular_at(stored.problem(), stored.theta())
    problem, theta = at.problem, np.ravel(at.theta)
    truth = hypergradient(problem, theta).value
    rng = named_stream(0, "costs", task, name)
    context = Context(problem=problem, theta=at.theta, follower=solve_follower(problem, at.theta), rng=rng)
    estimator = _estimator(name)
    mean = sum(estimator.expectation(context, horizon=steps).values(), np.zeros(truth.size))
    batch = sample_trajectories(problem, at.theta, context.follower, streams=draws, steps=steps, rng=rng)
    rows = estimator(batch, context)
    cost = estimator.cost(batch, context)
    size = float(np.linalg.norm(truth))
    return {
        "family": "sampled",
        "method": name,
        "knob": None,
        "error": _short(float(np.linalg.norm(mean - truth)) / size),
        "deviation": _short(float(np.sqrt(((rows - mean) ** 2).sum(axis=1).mean())) / size),
        "steps": _short((cost["environment_steps"] + cost["oracle_steps"]) / draws),
        "solves": cost.get("follower_solves", 0) + 1,
        "refused": "",
    }


def _model_rows(task: str) -> list[Row]:
    stored = _stored(task)
    problem, theta = stored.problem(), stored.theta()
    truth = hypergradient(problem, theta)
    size = float(np.linalg.norm(truth.value))
    rows: list[Row] = []
    for name, (solves, passes, order) in COSTS.items():
        knobs = APPROXIMATIONS[name].knobs if name in APPROXIMATIONS else (0.0,)
        for knob in knobs:
            began, refused, error = time.process_time(), "", None
            try:
                if name in APPROXIMATIONS:
                    found = approximate_hypergradient(problem, theta, name, knob)
                else:
                    found = hypergradient(problem, theta, route=name, bound=False).value
                error = _short(float(np.linalg.norm(found - truth.value)) / size)
            except BilevelRLError as reason:
                refused = str(reason).partition(":")[0]
            rows.append(
                {
                    "family": "model",
                    "method": name,
                    "knob": knob,
                    "error": error,
                    "milliseconds": _short(1e3 * (time.process_time() - began)),
                    "solves": solves,
                    "passes": passes(knob),
                    "order": order,
                    "refused": refused,
                }
            )
    began = time.process_time()
    solve_follower(problem, theta)
    once = 1e3 * (time.process_time() - began)
    count = truth.value.size
    rows += [
        {
            "family": "model",
            "method": "zero_order",
            "knob": draws,
            "error": _short(float(np.sqrt((count + 1) / draws))),
            "milliseconds": _short(2.0 * draws * once),
            "solves": 2 * draws,
            "passes": 0,
            "order": 0,
            "refused": "",
        }
        for draws in (1, 10, 100, 1000, 10_000)
    ]
    return rows


def _short(number: float) -> float:
    return float(f"{number:.3g}")


_COLUMNS = (
    "family", "method", "knob", "error", "deviation", "steps", "milliseconds", "solves", "passes", "order", "refused",
)  # fmt: skip


def cost_cell(cell: Cell, configuration: Mapping[str, Any], checkpoint: Path) -> list[Row]:
    """Return the rows of one task: every approximation at every knob, every sampled estimator."""
    task = cell["task"]
    rows = _model_rows(task)
    for name in SAMPLED:
        try:
            rows.append(_sampled_row(task, name, configuration["draws"]))
        except BilevelRLError as reason:
            rows.append({"family": "sampled", "method": name, "refused": str(reason)[:80]})
    return [{name: row.get(name) for name in _COLUMNS} for row in rows]


def _rows(folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    tasks = list(TASKS)[1:3] if options.quick else list(TASKS)
    grid = Grid(axes=[("task", tasks)], known=("task",))
    configuration = {"draws": 50 if options.quick else DRAWS}
    return run(Sweep(function=cost_cell, grid=grid, folder=folder / "cells", configuration=configuration))


def _table(rows: Sequence[Row], options: FigureOptions) -> str:
    return decisions(rows, [TASKS[task] for task in dict.fromkeys(row["task"] for row in rows)])


def _draw(folder: Path, rows: Sequence[Row], options: FigureOptions) -> list[Path]:
    plt = pyplot()
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure, axes = plt.subplots(2, len(tasks), figsize=(4.3 * len(tasks), 8.4), squeeze=False, layout="constrained")
    colours = plt.get_cmap("tab20")
    markers = {0: "v", 1: "o", 2: "s"}
    for place, task in enumerate(tasks):
        axis = axes[0, place]
        for number, name in enumerate([*COSTS, "zero_order"]):
            own = [
                row for row in rows if row["task"] == task and row["method"] == name and row["error"] not in (None, "")
            ]
            if not own:
                continue
            cost = [max(float(row["milliseconds"]), 0.05) for row in own]
            error = [max(float(row["error"]), 1e-15) for row in own]
            style = {"marker": markers[int(own[0]["order"])], "ms": 5, "lw": 0.9, "mfc": "none"}
            axis.plot(cost, error, color=colours(number % 20), label=name, **style)
        axis.set_title(task, loc="left", fontsize=10)
        axis.set_xlabel("CPU milliseconds")
        axis.set_ylim(1e-15, 1e3)
        axis = axes[1, place]
        budget = np.geomspace(1e2, 1e9, 60)
        for number, name in enumerate(SAMPLED):
            found = [row for row in rows if row["task"] == task and row["method"] == name and row["deviation"]]
            if found:
                curve = [root_mean_square(found[0], steps) for steps in budget]
                rare = name.startswith(RARE)
                dashes, label = ("--", f"{name} (rests on rare draws)") if rare else ("-", name)
                axis.plot(budget, curve, dashes, color=plt.get_cmap("tab10")(number), lw=1.5, label=label)
        axis.axhline(1.0, color="#888888", lw=0.8, ls=":")
        axis.set_xlabel("environment steps")
        axis.set_ylim(1e-4, 1e4)
    for axis in axes.ravel():
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("error of ∇J, relative (with a model)")
    axes[1, 0].set_ylabel("root mean square error, relative (samples)")
    for row, columns in ((0, 5), (1, 5)):
        handles: dict[str, Any] = {}
        for axis in axes[row]:
            handles.update(zip(*axis.get_legend_handles_labels()[::-1], strict=True))
        where = "outside upper center" if row == 0 else "outside lower center"
        figure.legend(handles.values(), handles.keys(), loc=where, ncols=columns, frameon=False, fontsize=8)
    path = folder / "costs.png"
    save_picture(figure, path, dpi=100)
    plt.close(figure)
    return [path]


FIGURES = (
    Figure(
        name="costs",
        title="error against cost of every method on four tasks, and which estimator when; no seeds",
        seeds=1,
        iterations=1,
        quick_seeds=1,
        quick_iterations=1,
        rows=_rows,
        table=_table,
        draw=_draw,
    ),
)
