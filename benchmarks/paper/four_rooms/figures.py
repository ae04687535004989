"""Figures 2 and 6 of Kudo et al. (2026), arXiv:2603.14867: Four-Rooms, panel by panel, beside the paper's curves."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bilevelrl.benchmarks.paper.four_rooms.training import (
    FIGURE_METHODS,
    ORACLE,
    STREAMS,
    TEMPERATURES,
    VARIANTS,
    panel_sweep,
)
from bilevelrl.benchmarks.paper.paper_curves import PAPER_SEEDS, paper_curve
from bilevelrl.benchmarks.sweeping.comparisons import Comparison, compare_ends, comparison_table
from bilevelrl.benchmarks.sweeping.curves import Curve, draw_curves, pyplot, save_small, seed_curves
from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row, SweepRunner
from bilevelrl.estimators.training import METHODS
from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import InvalidInputError

__all__ = ["FIGURES", "HEAD", "WHOLE", "compare", "draw_panels"]

WHOLE = 10_000
"""Outer iterations of the paper's curves."""

HEAD = ("kernels", "β", "steps", "method", "rate / α")
"""Columns that say which curve it is, in tables of `compare`."""

_QUICK_METHODS = ("bc_hg", "hpgd_sa", "naive_pgd", "exact")
_COLOURS: Mapping[str, str] = {
    "bc_hg": "#c2410c",
    "hpgd_mc": "#2e7d32",
    "hpgd_sa": "#1769aa",
    "hpgd_oracle": "#7cb342",
    "naive_pgd": "#555555",
    "sobirl": "#8e24aa",
    "exact": "#000000",
}
_PANEL = ("variant", "temperature", "batch_steps")


def compare(rows: Sequence[Row], *, whole: bool = True) -> list[Comparison]:
    """Compare the ends of tidy curves with the paper's.

    Parameters
    ----------
    rows
        As `panel_sweep` gives them.
    whole
        False: fewer outer iterations than the paper's; the paper's curve is then read where ours end.
    """
    found = []
    for key in dict.fromkeys(tuple(row[name] for name in (*_PANEL, "method")) for row in rows):
        own = [row for row in rows if tuple(row[name] for name in (*_PANEL, "method")) == key]
        ends = list({row["seed"]: row["final_objective"] for row in own}.values())
        variant, temperature, batch_steps, method = key
        setting = ", ".join(dict.fromkeys(_setting(row) for row in own))
        labels = (variant, f"{temperature:g}", str(batch_steps), METHODS[ConfigurableMDP][method].title, setting)
        last = None if whole else max(row["iteration"] for row in own)
        found.append(compare_ends(labels, ends, _paper_end(temperature, batch_steps, method, last)))
    return found


def _setting(row: Row) -> str:
    critic = row["critic_step_size"]
    return f"{row['learning_rate']:g}" + (f" / {critic:g}" if critic else "")


def _paper_end(temperature: float, batch_steps: int, method: str, iteration: int | None) -> tuple[float, float] | None:
    try:
        curve = paper_curve(temperature, batch_steps, METHODS[ConfigurableMDP][method].title)
    except InvalidInputError:
        return None
    if iteration is None:
        return curve.final_mean, curve.final_standard_error
    at = int(np.argmin(np.abs(curve.iteration - iteration)))
    return float(curve.mean[at]), float(curve.standard_error[at])


def _paper_curve(temperature: float, batch_steps: int, method: str) -> FloatArray | None:
    try:
        curve = paper_curve(temperature, batch_steps, METHODS[ConfigurableMDP][method].title)
    except InvalidInputError:
        return None
    return np.stack([curve.iteration, curve.mean, curve.standard_error])


def draw_panels(path: Path, rows: Sequence[Row], *, variant: str = "published") -> None:
    """Draw the curves of one variant of the kernels, a row of panels per batch size.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    plt = pyplot()
    own = [row for row in rows if row["variant"] == variant]
    temperatures = sorted({row["temperature"] for row in own})
    batches = sorted({row["batch_steps"] for row in own})
    figure, axes = plt.subplots(
        len(batches),
        len(temperatures),
        figsize=(3.4 * len(temperatures), 2.5 * len(batches) + 1.0),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for (i, batch), (j, temperature) in ((a, b) for a in enumerate(batches) for b in enumerate(temperatures)):
        panel = [row for row in own if (row["temperature"], row["batch_steps"]) == (temperature, batch)]
        if not panel:
            axes[i, j].set_axis_off()
            continue
        curves = []
        for method in dict.fromkeys(row["method"] for row in panel):
            points, seeds = seed_curves([row for row in panel if row["method"] == method])
            curves.append(
                Curve(
                    label=METHODS[ConfigurableMDP][method].title,
                    colour=_COLOURS.get(method, "#777777"),
                    points=points,
                    seeds=seeds,
                    paper=_paper_curve(temperature, batch, method),
                )
            )
        draw_curves(axes[i, j], curves)
        axes[i, j].tick_params(labelsize=8)
        axes[i, j].xaxis.set_major_locator(plt.MaxNLocator(4))
        axes[i, j].set_title(f"β = {temperature:g}, {batch} steps", fontsize=10, loc="left")
        if i == len(batches) - 1:
            axes[i, j].set_xlabel("outer iteration")
        if j == 0:
            axes[i, j].set_ylabel("leader's objective J")
    axes[0, 0].set_xlim(0, max(row["iteration"] for row in own))  # panels that were run for less share the axis
    named: dict[str, Any] = {}
    for each in axes.flat:
        named.update(zip(*reversed(each.get_legend_handles_labels()), strict=True))
    figure.legend(named.values(), named, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    save_small(figure, path)
    plt.close(figure)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--variant", nargs="+", choices=list(VARIANTS), default=["published"], help="kernels")
    parser.add_argument(
        "--temperature", type=float, nargs="+", choices=TEMPERATURES, default=list(TEMPERATURES), metavar="β"
    )
    parser.add_argument("--batch", type=int, nargs="+", choices=list(STREAMS), help="steps in a batch")
    parser.add_argument(
        "--oracle", action="store_true", help="HPGD (oracle) too, with batches of 100 steps: ten times as dear"
    )
    parser.add_argument("--method", nargs="+", choices=list(FIGURE_METHODS), help="default: all")
    parser.add_argument("--untuned", action="store_true", help="one setting everywhere instead of the search's")


def _rows(batches: Sequence[int], folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    shared: dict[str, Any] = {
        "variants": options.own["variant"],
        "temperatures": options.own["temperature"],
        "seeds": options.seeds,
        "iterations": options.iterations,
        "tuned": not options.own["untuned"],
    }
    wanted = options.own["batch"] or (batches[:1] if options.quick else batches)
    methods, points = (_QUICK_METHODS, 25) if options.quick else (FIGURE_METHODS, 50)
    methods = tuple(options.own["method"] or methods)
    rows = run(panel_sweep(folder / "cells", batches=wanted, methods=methods, points=points, **shared))
    if options.own["oracle"] and not options.quick:
        rows += run(panel_sweep(folder / "oracle", methods=(ORACLE,), points=points, **shared))
    return rows


def _table(rows: Sequence[Row], options: FigureOptions) -> str:
    whole = options.iterations >= WHOLE
    table = comparison_table(HEAD, compare(rows, whole=whole))
    note = (
        "Rate of the ascent, and α of the SARSA critic. Ours: mean over the last 5 % of the outer iterations, seeds "
        f"from 0 on. The paper's: {PAPER_SEEDS} seeds, standard error."
    )
    if not whole:
        note += f"\nOnly {options.iterations} outer iterations; the paper's curves are read where ours end."
    return f"{table}\n\n{note}"


def _draw(name: str, folder: Path, rows: Sequence[Row], options: FigureOptions) -> list[Path]:
    written = []
    for variant in options.own["variant"]:
        written.append(folder / f"{name}-{variant}.png")
        draw_panels(written[-1], rows, variant=variant)
    return written


def _figure(name: str, title: str, batches: Sequence[int]) -> Figure:
    return Figure(
        name=name,
        title=title,
        seeds=10,
        iterations=WHOLE,
        quick_seeds=2,
        quick_iterations=2000,
        rows=lambda folder, options, run: _rows(batches, folder, options, run),
        table=_table,
        draw=lambda folder, rows, options: _draw(name, folder, rows, options),
        arguments=_arguments,
    )


FIGURES = (
    _figure("fig2", "Four-Rooms, batches of 100 steps", (100,)),
    _figure("fig6", "Four-Rooms, all batch sizes", tuple(STREAMS)),
)
