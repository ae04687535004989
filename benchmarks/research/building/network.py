"""The building with the published critic: 5,000 whole-batch steps of a network in every outer iteration.

That is what the published runs did, for 2,000 outer iterations; here are the first ones, beside the paper's curve
and beside least squares from the same seeds, with the error of every direction against the exact hypergradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bilevelrl.benchmarks.paper.building.figures import COLOURS, paper_curve
from bilevelrl.benchmarks.paper.building.training import SELECTED, building_sweep
from bilevelrl.benchmarks.sweeping.curves import Curve, draw_curves, pyplot, save_picture, seed_curves
from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row, SweepRunner
from bilevelrl.estimators.training import METHODS
from bilevelrl.reference import ConfigurableLQR
from bilevelrl.reference.arrays import FloatArray

__all__ = ["FIGURES"]

_TITLES = {"published_network": "published network", "least_squares": "least squares"}
_HEAD = ("method", "critic", "seeds", "its", "J at the end", "paper, where ours end", "mean cosine", "CPU s per it")


def _rows(folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    rows: list[Row] = []
    for critics in ("least_squares", "published_network"):
        for method in options.own["method"]:
            found = run(
                building_sweep(
                    folder / "cells" / f"{critics}-{method}",
                    methods=(method,),
                    learning_rates=(SELECTED[method],),
                    critics=(critics,),
                    first_seeds=range(options.seeds),
                    configuration={
                        "seeds": 1,
                        "iterations": options.iterations,
                        "evaluate_every": 1,
                        "points": options.iterations,
                        "every": 1,
                    },
                )
            )
            rows += [{name: value for name, value in row.items() if not name.startswith("theta_")} for row in found]
    return rows


def _pairs(rows: Sequence[Row]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["method"], row["critics"]) for row in rows))


def _own(rows: Sequence[Row], method: str, critics: str) -> list[Row]:
    return [row for row in rows if (row["method"], row["critics"]) == (method, critics)]


def _table(rows: Sequence[Row], options: FigureOptions) -> str:
    lines = [" | ".join(_HEAD), " | ".join("---" for _ in _HEAD)]
    for method, critics in _pairs(rows):
        own, title = _own(rows, method, critics), METHODS[ConfigurableLQR][method].title
        last = max(row["iteration"] for row in own)
        ends = np.array([row["objective"] for row in own if row["iteration"] == last])
        cosines = np.array([row["cosine"] for row in own])
        curve = paper_curve("return", SELECTED[method], title)
        paper = "–"
        if curve is not None:
            mean, band = (float(np.interp(last, curve[0], curve[row])) for row in (1, 2))
            paper = f"{mean:.1f} ± {band:.1f}"
        cells = (
            title,
            _TITLES[critics],
            str(len(ends)),
            str(last + 1),
            f"{ends.mean():.1f} ({ends.min():.1f} … {ends.max():.1f})",
            paper,
            f"{cosines.mean():+.3f} ± {cosines.std(ddof=1) / np.sqrt(cosines.size):.3f}",
            f"{np.mean([row['cpu_ms_per_iteration'] for row in own]) / 1e3:.2g}",
        )
        lines.append(" | ".join(cells))
    note = "The paper's curves are smoothed over the 50 outer iterations before, and start at -258.6 by one sample."
    return "\n".join(f"| {line} |" for line in lines) + f"\n\n{note}"


def _curve(rows: Sequence[Row], method: str, critics: str, column: str) -> Curve:
    points, seeds = seed_curves(_own(rows, method, critics), column)
    paper: FloatArray | None = None
    if column == "objective" and critics == "published_network":
        paper = paper_curve("return", SELECTED[method], METHODS[ConfigurableLQR][method].title)
    return Curve(
        label=f"{METHODS[ConfigurableLQR][method].title}, {_TITLES[critics]}",
        colour=COLOURS[method],
        points=points,
        seeds=seeds,
        paper=paper,
    )


def _draw(folder: Path, rows: Sequence[Row], options: FigureOptions) -> list[Path]:
    plt: Any = pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained")
    for panel, column in zip(axes, ("objective", "cosine"), strict=True):
        for critics, style in (("published_network", "-"), ("least_squares", ":")):
            curves = [_curve(rows, method, critics, column) for method, own in _pairs(rows) if own == critics]
            before = len(panel.lines)
            draw_curves(panel, curves)
            for line in panel.lines[before:] if style == ":" else ():
                line.set_linestyle(style)
        panel.set_xlabel("outer iteration")
    axes[0].set_title("leader's objective J; dashed: the paper's", fontsize=10, loc="left")
    axes[1].set_title("cosine of the direction with the exact hypergradient", fontsize=10, loc="left")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    path = folder / "building-network.png"
    save_picture(figure, path, dpi=100)
    plt.close(figure)
    return [path]


def _arguments(parser: Any) -> None:
    parser.add_argument(
        "--method", nargs="+", choices=sorted(SELECTED), default=["bc_hg", "naive_pgd"], help="published methods"
    )


FIGURES = (
    Figure(
        name="building-network",
        title="the building with the published network as critic, the first outer iterations",
        seeds=3,
        iterations=20,
        quick_seeds=1,
        quick_iterations=1,
        rows=_rows,
        table=_table,
        draw=_draw,
        arguments=_arguments,
    ),
)
