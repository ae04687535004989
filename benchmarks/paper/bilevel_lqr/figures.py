"""Figure 5 of Kudo et al. (2026), arXiv:2603.14867: the bi-level LQR game, beside the paper's curves.

And what the paper does not show: each seed's end, paths on the exact landscape, errors of directions along them,
leaders that get there, and what each part of the published set-up does.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from bilevelrl.benchmarks.paper.bilevel_lqr.training import ARMS, PARTS, game_sweep
from bilevelrl.benchmarks.paper.building.pictures import BEST_GAIN, game_landscape
from bilevelrl.benchmarks.sweeping.comparisons import compare_ends, comparison_table
from bilevelrl.benchmarks.sweeping.curves import Curve, draw_curves, pyplot, save_picture, seed_curves
from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row, SweepRunner
from bilevelrl.benchmarks.sweeping.sweep_store import read_table
from bilevelrl.estimators.training import METHODS
from bilevelrl.reference import LQRGame
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.tasks import lqr_game

__all__ = ["FIGURES", "GOAL", "draw_errors", "draw_paths", "draw_returns", "kept_tables", "paper_curve", "paper_end"]

PAPER_SEEDS = 20
GOAL = 15.0
"""Undiscounted return from which on a run counts as having got there; the optimum is 18.4."""

_PAPER_ENDS: Mapping[str, tuple[float, float]] = {
    "bc_hg": (0.14727, 0.20533),
    "naive_pgd_on": (0.02013, 0.01303),
    "naive_pgd_off": (0.03498, 0.08672),
}
_COLOURS: Mapping[str, str] = {
    "bc_hg": "#c2410c",
    "naive_pgd_on": "#444444",
    "naive_pgd_off": "#9a9a9a",
    "pathwise": "#1769aa",
    "pathwise_raw": "#5aa9e6",
    "pathwise_partial": "#b8860b",
    "exact": "#000000",
    "exact_partial": "#d8b365",
}
_VALUE = "objective_undiscounted"
_RUN_COLUMNS = (
    *("arm", "method", "seed", "end", "end_discounted", "best", "median_cosine", "median_relative_error"),
    *("dead_units", "last_theta_0", "last_theta_1", "cpu_ms_per_iteration"),
)
_CURVE_DIGITS: Mapping[str, Callable[[float], float]] = {
    _VALUE: lambda value: round(value, 4),
    "cosine": lambda value: round(value, 3),
    "relative_error": lambda value: float(f"{value:.3g}"),
    "theta_0": lambda value: round(value, 3),
    "theta_1": lambda value: round(value, 3),
}
_WINDOW = ((-13.0, 6.0), (-14.0, 8.0))


def paper_end(method: str) -> tuple[float, float] | None:
    """Return the paper's mean and standard deviation over outer iterations 476 to 500, or None.

    Examples
    --------
    >>> paper_end("bc_hg")
    (0.14727, 0.20533)
    """
    return _PAPER_ENDS.get(method)


def paper_curve(method: str) -> FloatArray | None:
    """Return the paper's outer iterations, means and standard deviations over 20 seeds, (3, points), or None."""
    if method not in _PAPER_ENDS:
        return None
    with resources.as_file(resources.files("bilevelrl.benchmarks") / "data" / "paper_lqr_game.csv") as path:
        rows = [row for row in read_table(Path(path)) if row["method"] == METHODS[LQRGame][method].title]
    return np.array([[row[name] for row in rows] for name in ("iteration", "mean", "standard_deviation")])


def _of(rows: Sequence[Row], arm: str, kind: str) -> list[Row]:
    return [row for row in rows if row["arm"] == arm and row["kind"] == kind]


def _arms(rows: Sequence[Row], *parts: str) -> list[str]:
    return [name for name in dict.fromkeys(row["arm"] for row in rows) if ARMS[name].part in parts]


def _ends(rows: Sequence[Row], arm: str, name: str = "end") -> FloatArray:
    return np.array([row[name] for row in _of(rows, arm, "run")])


def draw_returns(path: Path, rows: Sequence[Row]) -> None:
    """Draw returns beside the paper's, those of all leaders on a logarithmic axis, and every seed's end.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    plt = pyplot()
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15.0, 4.9), layout="constrained")
    published, every = [], []
    for arm in _arms(rows, "published", "leaders"):
        method = ARMS[arm].method
        points, seeds = seed_curves(_of(rows, arm, "curve"), _VALUE)
        curve = Curve(label=METHODS[LQRGame][method].title, colour=_COLOURS[method], points=points, seeds=seeds)
        every.append(curve)
        if ARMS[arm].part == "published":
            published.append(replace(curve, paper=paper_curve(method)))
    if published:
        draw_curves(left, published)
        left.legend(frameon=False, fontsize=8, loc="upper left")
    left.set(xlabel="outer iteration", ylabel="100-step return, undiscounted", ylim=(-0.1, 0.6))
    left.set_title("As published, over the paper's (band: its SD)", loc="left", fontsize=10)
    draw_curves(middle, every)
    middle.axhline(GOAL, color="#2e7d32", lw=0.8, ls=":")
    middle.set(xlabel="outer iteration", yscale="log", ylim=(5e-3, 30.0))
    middle.set_title("The same, and leaders that know the dynamics", loc="left", fontsize=10)
    for place, curve in enumerate(every):
        ends = curve.seeds[:, -1]
        spread = np.linspace(-0.25, 0.25, len(ends)) if len(ends) > 1 else np.zeros(1)
        right.plot(np.maximum(np.sort(ends), 5e-3), place + spread, "o", color=curve.colour, ms=4, alpha=0.8)
    right.axvline(GOAL, color="#2e7d32", lw=0.8, ls=":")
    right.set(xscale="log", xlim=(4e-3, 30.0), xlabel="return at the end, every seed")
    right.set_yticks(range(len(every)), [curve.label for curve in every], fontsize=8)
    right.invert_yaxis()
    right.spines[["top", "right"]].set_visible(False)
    save_picture(figure, path, dpi=75)
    plt.close(figure)


def draw_paths(path: Path, rows: Sequence[Row], *, resolution: int = 36) -> None:
    """Draw every run's gains over the exact landscape of the return."""
    plt = pyplot()
    arms = [arm for arm in _arms(rows, "published", "leaders") if ARMS[arm].method not in ("pathwise_raw", "exact")]
    figure, axes = plt.subplots(
        1, len(arms), figsize=(3.0 * len(arms) + 0.8, 3.9), sharey=True, squeeze=False, layout="constrained"
    )
    first, second = (np.linspace(low, high, resolution) for low, high in _WINDOW)
    height = np.log10(np.maximum(game_landscape(lqr_game(), first, second), 1e-2))
    filled = None
    for axis, arm in zip(axes[0], arms, strict=True):
        filled = axis.contourf(first, second, height, levels=np.linspace(-2.0, 1.5, 15), cmap="Greys")
        _, ahead = seed_curves(_of(rows, arm, "curve"), "theta_0")
        _, aside = seed_curves(_of(rows, arm, "curve"), "theta_1")
        colour = _COLOURS[ARMS[arm].method]
        axis.plot(ahead.T, aside.T, color=colour, lw=0.8, alpha=0.8)
        axis.plot(ahead[:, -1], aside[:, -1], "o", color=colour, ms=3.5)
        axis.plot(*BEST_GAIN, "*", color="#2e7d32", ms=10, zorder=5)
        axis.set(xlim=_WINDOW[0], ylim=_WINDOW[1], xlabel="$K_1$")
        axis.set_title(METHODS[LQRGame][ARMS[arm].method].title, fontsize=9)
    axes[0, 0].set_ylabel("$K_2$")
    figure.colorbar(filled, ax=axes, label="log10 of the exact return", pad=0.01)
    save_picture(figure, path, dpi=75)
    plt.close(figure)


def draw_errors(path: Path, rows: Sequence[Row]) -> None:
    """Draw, along each method's path, cosine and relative error of its directions against the exact hypergradient."""
    plt = pyplot()
    arms = [arm for arm in _arms(rows, "published", "leaders") if ARMS[arm].method not in ("exact", "pathwise_raw")]
    figure, axes = plt.subplots(1, 2, figsize=(11.0, 4.8), layout="constrained")
    for arm in arms:
        method = ARMS[arm].method
        for axis, name in zip(axes, ("cosine", "relative_error"), strict=True):
            points, seeds = seed_curves(_of(rows, arm, "curve"), name)
            shown = seeds.mean(axis=0) if name == "cosine" else np.maximum(np.median(seeds, axis=0), 1e-3)
            axis.plot(points, shown, color=_COLOURS[method], lw=1.5, label=METHODS[LQRGame][method].title)
    axes[0].set(xlabel="outer iteration", ylabel="cosine, mean over seeds", ylim=(-1.05, 1.05))
    axes[1].set(xlabel="outer iteration", ylabel="relative error, median over seeds", yscale="log")
    axes[0].axhline(0.0, color="0.8", lw=0.8)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    save_picture(figure, path, dpi=75)
    plt.close(figure)


def _published_table(rows: Sequence[Row]) -> str:
    found = []
    for arm in _arms(rows, "published"):
        method, ends = ARMS[arm].method, _ends(rows, arm)
        paper = paper_end(method)
        assert paper is not None
        spread = f"{ends.std(ddof=1):.3f}" if len(ends) > 1 else "–"
        labels = (
            METHODS[LQRGame][method].title,
            spread,
            f"{np.median(ends):.3f}",
            f"{ends.max():.3f}",
            f"{paper[1]:.3f}",
        )
        found.append(compare_ends(labels, ends, (paper[0], paper[1] / np.sqrt(PAPER_SEEDS))))
    return comparison_table(("method", "our SD", "our median", "our best seed", "paper's SD"), found)


_HEAD = ("runs", "mean", "SD", "median", f"above {GOAL:g}", "best on the way", "cosine", "relative error", "dead units")


def _line(rows: Sequence[Row], arm: str, labels: Sequence[str]) -> str:
    ends, best = _ends(rows, arm), _ends(rows, arm, "best")
    spread = f"{ends.std(ddof=1):.3f}" if len(ends) > 1 else "–"
    cells: tuple[Any, ...] = (
        *labels,
        len(ends),
        f"{ends.mean():.3f}",
        spread,
        f"{np.median(ends):.3f}",
        int(np.sum(ends > GOAL)),
        f"{np.median(best):.3f}",
        f"{np.median(_ends(rows, arm, 'median_cosine')):.2f}",
        f"{np.median(_ends(rows, arm, 'median_relative_error')):.2g}",
        f"{np.mean(_ends(rows, arm, 'dead_units')):.2f}",
    )
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _lines(rows: Sequence[Row], head: Sequence[str], named: Sequence[tuple[str, Sequence[str]]]) -> str:
    titles = (*head, *_HEAD)
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]
    return "\n".join([*lines, *(_line(rows, arm, labels) for arm, labels in named)])


_BASES: Mapping[str, str] = {
    "from_published": "as published",
    "from_sound": "sound",
    "from_exact_critic": "sound, exact critic",
    "from_naive": "Naive-PGD (on-policy) as published",
}
_SPECIAL: Mapping[str, str] = {
    "none": "nothing changed",
    "exact_critic": "exact critic",
    "naive": "without the guiding term",
    "fitted": "inner sum replaced by the quadratic fit",
    "slower": "learning rate 0.02",
    "clipping": "clipped like BC-HG",
    "exploration": "no random first actions",
    "both": "clipped, and no random first actions",
}


_NOISE_BASES: Mapping[str, str] = {
    "sampled": "nothing else",
    "longer": "the quadratic fit and 100 critic steps",
}


def _noise(arm: str) -> tuple[str, str]:
    _, base, where, deviation = arm.split("/")
    places = {"policy": "of the game's leader", "critic": "in the critic's data"}
    return _NOISE_BASES[base], f"{deviation} {places[where]}"


def _cause(arm: str) -> tuple[str, str]:
    base, name = arm.split("/")
    label = ARMS[arm].title or _SPECIAL[name]
    if base == "from_published" and ARMS[arm].title:
        label = f"without: {label}"
    elif ARMS[arm].title:
        label = f"with: {label}"
    return _BASES[base], label


def _table(rows: Sequence[Row], options: FigureOptions) -> str:
    note = (
        f"Ends are means over the last 5 % of {options.iterations} outer iterations of the exact undiscounted 100-step "
        f"return; the paper's: {PAPER_SEEDS} seeds, outer iterations 476 to 500. Cosine, relative error (medians along "
        "each path, then over runs) are of unclipped directions against the exact hypergradient."
    )
    sections = [note]
    if _arms(rows, "published"):
        sections.append("As published\n\n" + _published_table(rows))
    named = [(arm, (METHODS[LQRGame][ARMS[arm].method].title,)) for arm in _arms(rows, "published", "leaders")]
    if named:
        sections.append("All leaders\n\n" + _lines(rows, ("method",), named))
    steps = [(arm, (METHODS[LQRGame][ARMS[arm].method].title, ARMS[arm].title)) for arm in _arms(rows, "steps")]
    if steps:
        sections.append("Ascent steps per batch\n\n" + _lines(rows, ("method", "ascent steps"), steps))
    causes = [
        (arm, _cause(arm))
        for arm in sorted(_arms(rows, "causes"), key=lambda arm: list(_BASES).index(arm.split("/")[0]))
    ]
    if causes:
        sections.append("One change at a time\n\n" + _lines(rows, ("from", "change"), causes))
    noise = [(arm, _noise(arm)) for arm in _arms(rows, "noise")]
    if noise:
        sections.append("Leader's actions that spread further\n\n" + _lines(rows, ("sound with", "spread"), noise))
    return "\n\n".join(sections)


def kept_tables(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return what is kept of the rows: every run as a whole, and every second point of the shown arms' curves, rounded.

    Examples
    --------
    >>> run = {"arm": "leaders/exact", "kind": "run", "method": "exact", "seed": 0, "end": 18.359}
    >>> kept_tables([run])
    {'fig5_runs.csv': [{'arm': 'leaders/exact', 'method': 'exact', 'seed': 0, 'end': 18.359}]}
    """
    runs = [{name: row[name] for name in row if name in _RUN_COLUMNS} for row in rows if row["kind"] == "run"]
    curves: list[Row] = []
    for arm in _arms(rows, "published", "leaders"):
        points = sorted({row["iteration"] for row in _of(rows, arm, "curve")})
        chosen = {*points[::2], *points[-1:]}
        for row in _of(rows, arm, "curve"):
            if row["iteration"] in chosen:
                shown = {name: rounded(row[name]) for name, rounded in _CURVE_DIGITS.items()}
                curves.append({"arm": arm, "seed": row["seed"], "iteration": row["iteration"], **shown})
    tables = {"fig5_runs.csv": runs, "fig5_curves.csv": curves}
    return {name: table for name, table in tables.items() if table}


def _draw(folder: Path, rows: Sequence[Row], options: FigureOptions) -> list[Path]:
    if not _arms(rows, "published", "leaders"):
        return []
    written = []
    for name, draw in (("fig5", draw_returns), ("fig5_paths", draw_paths), ("fig5_errors", draw_errors)):
        written.append(folder / f"{name}.png")
        draw(written[-1], rows)
    return written


def _rows(folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    return run(
        game_sweep(
            folder / "cells",
            parts=options.own["part"],
            seeds=options.seeds,
            iterations=options.iterations,
            points=20 if options.quick else 50,
        )
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--part",
        nargs="+",
        choices=PARTS,
        default=["published", "leaders"],
        help="what is run (default: published leaders, ten minutes; steps and causes take twice that)",
    )


FIGURES = (
    Figure(
        name="fig5",
        title="LQR game: published methods, leaders that get there, and what stops the others",
        seeds=20,
        iterations=500,
        quick_seeds=2,
        quick_iterations=40,
        rows=_rows,
        table=_table,
        draw=_draw,
        arguments=_arguments,
        kept=kept_tables,
    ),
)
