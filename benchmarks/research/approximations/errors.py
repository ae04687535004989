"""The error of every approximation on every reference problem that it serves, as a function of its one knob.

Nothing is sampled: an approximation is the expectation of its method, and the truth is the exact route. Beside the
error stand the rate that theory promises and the one that is measured between the last two knobs whose errors are
neither rounding nor larger than the hypergradient itself; where sweeps make the error also the eigenvalue that rules.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row, SweepRunner
from bilevelrl.benchmarks.sweeping.sweep_grid import Cell, Grid
from bilevelrl.benchmarks.sweeping.sweeps import Sweep
from bilevelrl.reference import hypergradient
from bilevelrl.reference.approximations import APPROXIMATIONS, Approximation, approximate_hypergradient, tabular_at
from bilevelrl.reference.errors import BilevelRLError
from bilevelrl.tasks.scenarios import reference_problems

__all__ = ["FIGURES", "error_cell", "measured_rate"]

KINDS = ("configurable_mdp", "markov_game")
SHOWN = ("four_rooms_0.003", "mdp_discount_0.99", "mdp_corridor_20_10", "toy_game_1_even")
"""Problems in the printed table; all are in the csv."""

QUICK = ("mdp_discount_0.9", "toy_game_1_even")
ROUNDING = 1e-11
"""Relative errors below it are not read as a rate."""

FLAT = 1e-8
"""Below it several errors that hardly differ are rounding too."""


def measured_rate(knobs: Sequence[float], errors: Sequence[float], *, geometric: bool) -> float:
    """Return the factor per step, or the power of the knob, between the last two errors that say something; or NaN.

    Errors that grow again after the smallest are rounding, and so are several small ones that hardly differ from it.

    Examples
    --------
    >>> measured_rate([1, 2, 4], [0.5, 0.25, 0.0625], geometric=True)
    0.5
    >>> round(measured_rate([0.1, 0.01, 0.001], [1e-2, 1e-4, 3e-4], geometric=False), 12)
    2.0
    >>> round(measured_rate([1, 5, 9, 20, 50], [1.0, 1e-4, 1e-8, 2e-11, 1.9e-11], geometric=True), 12)
    0.1
    """
    finite = np.nan_to_num(np.asarray(errors, dtype=np.float64), nan=np.inf)
    falling = int(np.argmin(finite)) + 1
    least = float(finite.min())
    flat = finite[:falling] <= 2.0 * least
    floor = 2.0 * least if least < FLAT and flat.sum() > 1 else 0.0
    told = [(k, e) for k, e in zip(knobs[:falling], errors[:falling], strict=True) if max(ROUNDING, floor) < e < 1.0]
    pairs = [(one, then) for one, then in pairwise(told) if then[1] < one[1]]
    if not pairs:
        return float("nan")
    (k, e), (k_then, e_then) = pairs[-1]
    if geometric:
        return float((e_then / e) ** (1.0 / (k_then - k)))
    return float(np.log(e_then / e) / np.log(k_then / k))


def error_cell(cell: Cell, configuration: Mapping[str, Any], checkpoint: Path) -> list[Row]:
    """Return the errors of every approximation on one problem.

    Parameters
    ----------
    cell
        `problem`, a stored reference problem.
    configuration, checkpoint
        Not used: a cell takes a second.
    """
    stored = next(entry for entry in reference_problems() if entry.name == cell["problem"])
    problem, theta = stored.problem(), stored.theta()
    objective: dict[str, Any] = {"horizon": stored.closed_form.horizon, "discounted": stored.closed_form.discounted}
    truth = hypergradient(problem, theta, **objective)
    size = float(np.linalg.norm(truth.value))
    at = tabular_at(problem, theta)
    rows: list[Row] = []
    for name, entry in APPROXIMATIONS.items():
        errors, refused, began = [], "", time.process_time()
        for knob in entry.knobs:
            try:
                found = approximate_hypergradient(problem, theta, name, knob, **objective)
            except BilevelRLError as error:
                errors.append(float("nan"))
                refused = str(error).partition(":")[0]
            else:
                errors.append(float(np.linalg.norm(found - truth.value)) / size if size else float("nan"))
        measured = measured_rate(entry.knobs, errors, geometric=entry.geometric)
        told = {
            "theory": "" if entry.rate is None else round(entry.rate(at), 5),
            "measured": round(measured, 5) if np.isfinite(measured) else "",
            "rules": _rules(entry, at),
            "refused": refused,
            "milliseconds": round(1e3 * (time.process_time() - began) / len(entry.knobs), 2),
        }
        rows += [
            {"method": name, "knob": knob, "error": f"{error:.3e}", **told}
            for knob, error in zip(entry.knobs, errors, strict=True)
        ]
    return rows


def _rules(entry: Approximation, at: Any) -> float | str:
    """Return the rate that rules in the end, empty where no eigenvalue is known to."""
    found = float("nan") if entry.rules is None else entry.rules(at)
    return round(found, 5) if np.isfinite(found) else ""


def _rows(folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    names = [entry.name for kind in KINDS for entry in reference_problems(kind=kind)]
    grid = Grid(axes=[("problem", list(QUICK) if options.quick else names)], known=("problem",))
    return run(Sweep(function=error_cell, grid=grid, folder=folder / "cells", configuration={}))


def _table(rows: Sequence[Row], options: FigureOptions) -> str:
    shown = QUICK if options.quick else SHOWN
    lines = []
    for name in shown:
        own = [row for row in rows if row["problem"] == name]
        lines += [
            f"**{name}**: relative error of ∇J by the knob",
            "",
            "| method | errors | theory | measured | rules |",
            "| --- | --- | --- | --- | --- |",
        ]
        for method in APPROXIMATIONS:
            found = [row for row in own if row["method"] == method]
            if not found or all(row["error"] == "nan" for row in found):
                continue
            errors = ", ".join(f"{float(row['knob']):g}: {float(row['error']):.1e}" for row in found)
            first = found[0]
            lines.append(f"| {method} | {errors} | {first['theory']} | {first['measured']} | {first['rules']} |")
        lines.append("")
    return "\n".join(lines + _over_all(rows))


def _over_all(rows: Sequence[Row]) -> list[str]:
    """Return for each method on how many problems it beats its theory, and by how much."""
    lines = [
        "**All problems**: rates measured where two errors say something",
        "",
        "| method | problems | with a rate | measured: least, median, largest | theory: median |",
        "| --- | --- | --- | --- | --- |",
    ]
    for method in APPROXIMATIONS:
        own = {row["problem"]: row for row in rows if row["method"] == method and row["error"] != "nan"}
        rates = np.array([float(row["measured"] or "nan") for row in own.values()])
        theory = np.array([float(row["theory"] or "nan") for row in own.values()])[np.isfinite(rates)]
        rates = rates[np.isfinite(rates)]
        if not len(rates):
            lines.append(f"| {method} | {len(own)} | 0 | | |")
            continue
        spread = ", ".join(f"{value:.3g}" for value in (rates.min(), np.median(rates), rates.max()))
        promised = "" if APPROXIMATIONS[method].rate is None else f"{np.median(theory):.3g}"
        lines.append(f"| {method} | {len(own)} | {len(rates)} | {spread} | {promised} |")
    return lines


FIGURES = (
    Figure(
        name="approximations",
        title="exact errors of hypergradients that are not exact on every tabular reference problem; no seeds",
        seeds=1,
        iterations=1,
        quick_seeds=1,
        quick_iterations=1,
        rows=_rows,
        table=_table,
    ),
)
