"""Error against cost of every method on four tasks, and what follows from it: `bilevelrl reproduce costs`.

*With a model*: the error of an approximation at each knob beside what it takes on any machine: exact solutions (of
followers and of linear systems), passes over the model, and the order of the follower's derivatives. CPU times of the
machine that ran it stand beside. Zero-order differences are what small steps make of them: unbiased, of variance
(N + 1) |∇J|² per draw.

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
    "mdp_corridor_20_10": 400,
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

ROUNDING = 1e-15
"""Relative errors below it are drawn there."""

_MODEL = (*COSTS, "zero_order")
_REACHED = {10.0: "#9ecae1", 1.0: "#4292c6", 0.1: "#08306b"}  # errors, and their colours
_ASIDE: Mapping[str, Any] = {
    "fontsize": 7, "color": "#666666", "va": "center", "ha": "center",
    "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 1.0},
}  # fmt: skip


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


def _known(rows: Sequence[Row], task: str, name: str, column: str) -> list[Row]:
    own = [row for row in rows if row["task"] == task and row["method"] == name]
    return [row for row in own if row[column] not in (None, "")]


def _steps_until(row: Row, error: float) -> float | None:
    """Return after how many environment steps a sampled method is as near as that; None: never.

    Examples
    --------
    >>> _steps_until({"error": 3.0, "deviation": 40.0, "steps": 10.0}, 5.0), _steps_until({"error": 3.0}, 1.0)
    (1000.0, None)
    """
    if error <= (bias := float(row["error"])):
        return None
    draws = float(row["deviation"]) ** 2 / (error**2 - bias**2)
    return max(draws, 1.0) * float(row["steps"])


def _draw_model(axis: Any, rows: Sequence[Row], task: str, norm: Any) -> Any:
    """Draw one line per method: its errors, coloured by the exact solutions and the passes that each takes."""
    shown = None
    for place, name in enumerate(_MODEL):
        own = _known(rows, task, name, "error")
        axis.axhline(place, color="#e5e5e5", lw=0.7, zorder=0)
        if not own:
            axis.text(1e-6, place, "refused", **_ASIDE)
            continue
        errors = [max(float(row["error"]), ROUNDING) for row in own]
        work = [float(row["solves"]) + float(row["passes"]) for row in own]
        axis.plot([min(errors), max(errors)], [place, place], color="#bbbbbb", lw=0.8, zorder=1)
        shown = axis.scatter(
            errors,
            [place] * len(own),
            c=work,
            norm=norm,
            cmap="viridis_r",
            s=22,
            lw=0.4,
            edgecolors="#333333",
            zorder=2,
        )
    axis.axvline(1.0, color="#888888", lw=0.8, ls=":")
    axis.set_xlim(0.3 * ROUNDING, 1e3)
    axis.set_title(task, loc="left", fontsize=10)
    axis.set_xlabel("error of ∇J, relative")
    return shown


def _draw_sampled(axis: Any, rows: Sequence[Row], task: str) -> None:
    """Draw one line per estimator: the environment steps that each of three errors takes."""
    for place, name in enumerate(SAMPLED):
        axis.axhline(place, color="#e5e5e5", lw=0.7, zorder=0)
        own = _known(rows, task, name, "deviation")
        if not own:
            axis.text(1e6, place, "refused", **_ASIDE)
            continue
        rare = name.startswith(RARE)
        steps = {error: _steps_until(own[0], error) for error in _REACHED}
        reached = {error: count for error, count in steps.items() if count is not None}
        axis.plot(
            list(reached.values()), [place] * len(reached), ":" if rare else "-", color="#999999", lw=0.9, zorder=1
        )
        for error, count in reached.items():
            colour = _REACHED[error]
            face, edge = ("white", colour) if rare else (colour, "#222222")
            axis.scatter(count, place, s=26, facecolors=face, edgecolors=edge, lw=0.9, zorder=2)
        if len(reached) < len(steps):
            axis.text(1e12, place, f"bias {float(own[0]['error']):.2g}", **_ASIDE)
    axis.set_xlim(10.0, 5e13)
    axis.set_xlabel("environment steps")


def _draw(folder: Path, rows: Sequence[Row], options: FigureOptions) -> list[Path]:
    plt = pyplot()
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure, axes = plt.subplots(
        2, len(tasks), figsize=(3.3 * len(tasks) + 3.2, 10.2), squeeze=False, sharey="row", layout="constrained",
        height_ratios=(len(_MODEL), len(SAMPLED) + 3),
    )  # fmt: skip
    norm = plt.matplotlib.colors.LogNorm(1.0, 2e4)
    for place, task in enumerate(tasks):
        shown = _draw_model(axes[0, place], rows, task, norm)
        _draw_sampled(axes[1, place], rows, task)
    costs = {**{name: (str(solves), order) for name, (solves, _, order) in COSTS.items()}, "zero_order": ("k", 0)}
    labels = [f"{name}   {costs[name][0]} · {costs[name][1]}" for name in _MODEL]
    for axis, names in ((axes[0, 0], labels), (axes[1, 0], list(SAMPLED))):
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.set_ylim(len(names) - 0.4, -0.6)
    axes[0, 0].set_ylabel("with a model: exact solutions · order of derivatives", fontsize=9)
    axes[1, 0].set_ylabel("from samples", fontsize=9)
    for axis in axes.ravel():
        axis.set_xscale("log")
        axis.tick_params(axis="y", length=0)
        axis.spines[["top", "right", "left"]].set_visible(False)
    figure.colorbar(shown, ax=axes[0], pad=0.01, aspect=40, label="exact solutions and passes over the model")
    for error, colour in _REACHED.items():
        axes[1, -1].scatter([], [], s=26, facecolors=colour, edgecolors="#222222", label=f"{error:g} |∇J|")
    axes[1, -1].scatter([], [], s=26, facecolors="none", edgecolors="#222222", label="rests on rare draws")
    handles, names = axes[1, -1].get_legend_handles_labels()
    title = "environment steps until the root mean square error is"
    figure.legend(handles, names, title=title, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
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
