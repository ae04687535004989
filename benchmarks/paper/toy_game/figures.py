"""Figures 4 and 7 and Table 1 of Kudo et al. (2026), arXiv:2603.14867: the toy Markov game, beside the paper's curves.

And what the paper does not show: where each method's path runs on the exact landscape, how far each direction is from
the exact hypergradient along it, and what becomes of the ends when a decision behind the published runs is undone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bilevelrl.benchmarks.paper.toy_game.landscape import optimum
from bilevelrl.benchmarks.paper.toy_game.tables import (
    METRICS,
    constants,
    constants_table,
    directions_table,
    ends_table,
    grid_tables,
    paper_curve,
    paper_ends,
    setting_ends,
    variants_table,
)
from bilevelrl.benchmarks.paper.toy_game.training import CONTROLS, COUNTS, FIGURE_METHODS, VARIANTS, setting_sweep
from bilevelrl.benchmarks.sweeping.curves import Curve, draw_curves, pyplot, save_picture, seed_curves
from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row, SweepRunner
from bilevelrl.benchmarks.sweeping.sweep_store import write_table
from bilevelrl.estimators.training import METHODS
from bilevelrl.reference import MarkovGame, leader_objective
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.tasks import toy_game_theta, toy_markov_game

__all__ = ["FIGURES", "draw_errors", "draw_grid", "draw_paths", "draw_returns"]

WHOLE = 500
"""Outer iterations of the paper's curves."""

_BONUSES = (1, 2)
_PAPER_COUNTS: Mapping[int, tuple[int, ...]] = {1: (1, 2, 5, 10), 2: COUNTS}
_SHOWN = ("bc_hg", "naive_pgd", "bi_ac_replay")
_COLOURS: Mapping[str, str] = {
    "bc_hg": "#c2410c",
    "naive_pgd": "#444444",
    "naive_pgd_replay": "#9a9a9a",
    "bi_ac": "#1769aa",
    "bi_ac_replay": "#5aa9e6",
    "exact_partial": "#b8860b",
    "exact": "#000000",
}
_AXES: Mapping[int, str] = {1: "150-step return, discounted", 2: "150-step return, undiscounted"}


def draw_returns(path: Path, rows: Sequence[Row]) -> None:
    """Draw each method's return over outer iterations, over the paper's curve.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    plt = pyplot()
    bonuses = sorted({row["bonus"] for row in rows})
    figure, axes = plt.subplots(1, len(bonuses), figsize=(6.2 * len(bonuses), 4.9), squeeze=False, layout="constrained")
    for axis, bonus in zip(axes[0], bonuses, strict=True):
        curves = []
        for method in dict.fromkeys(row["method"] for row in rows):
            own = [row for row in rows if (row["bonus"], row["method"]) == (bonus, method)]
            points, seeds = seed_curves(own, METRICS[bonus])
            label = METHODS[MarkovGame][method].title
            curves.append(
                Curve(
                    label=label,
                    colour=_COLOURS[method],
                    points=points,
                    seeds=seeds,
                    paper=paper_curve(bonus, method),
                )
            )
        draw_curves(axis, curves)
        axis.set_title(f"R = {bonus}", loc="left", fontsize=11)
        axis.set(xlabel="outer iteration", ylabel=_AXES[bonus])
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8.5
    )
    save_picture(figure, path, dpi=80)
    plt.close(figure)


def draw_paths(path: Path, rows: Sequence[Row]) -> None:
    """Draw the exact landscape of the return over p, and every run's p over outer iterations on the same axis."""
    plt = pyplot()
    bonuses, methods = (list(dict.fromkeys(row[name] for row in rows)) for name in ("bonus", "method"))
    figure, axes = plt.subplots(
        len(bonuses),
        len(methods) + 1,
        figsize=(2.15 * (len(methods) + 1), 3.4 * len(bonuses) + 0.4),
        squeeze=False,
        sharey="row",
        layout="constrained",
    )
    for line, bonus in zip(axes, bonuses, strict=True):
        game, best = toy_markov_game(float(bonus)), optimum(float(bonus))
        grid = np.linspace(0.005, 0.995, 100)
        exact = [leader_objective(game, toy_game_theta(float(p))) for p in grid]
        line[0].plot(exact, grid, color="black", lw=1.8)
        line[0].set(xlabel="exact return J", ylabel=f"R = {bonus}:   p = f(1|A)", ylim=(0.0, 1.0))
        for axis in line:
            axis.axhline(best.p, color="#2e7d32", lw=1.0)
            axis.axhline(best.switch, color="#777777", lw=0.9, ls="--")
            axis.spines[["top", "right"]].set_visible(False)
        line[0].annotate("p*", (0.4, best.p), xycoords=("axes fraction", "data"), va="bottom", ha="right", fontsize=9)
        line[0].annotate(
            "switch", (0.98, best.switch), xycoords=("axes fraction", "data"), va="bottom", ha="right", fontsize=8
        )
        for axis, method in zip(line[1:], methods, strict=True):
            own = [row for row in rows if (row["bonus"], row["method"]) == (bonus, method)]
            points, seeds = seed_curves(own, "probability")
            axis.plot(points, seeds.T, color=_COLOURS[method], lw=0.9, alpha=0.75)
            axis.set_xlim(0, float(points[-1]))
            axis.set_xlabel("outer iteration")
            if bonus == bonuses[0]:
                axis.set_title(METHODS[MarkovGame][method].title, fontsize=9)
    save_picture(figure, path, dpi=80)
    plt.close(figure)


def draw_errors(path: Path, rows: Sequence[Row]) -> None:
    """Draw, along each method's path, how directions compare with the exact hypergradient, means over seeds.

    The cosine of single minibatches, and what is left when their noise is averaged out, given each run's critic: its
    cosine, and its component in the logit of p beside the truth's.
    """
    plt = pyplot()
    bonuses = list(dict.fromkeys(row["bonus"] for row in rows))
    methods = [name for name in dict.fromkeys(row["method"] for row in rows) if name not in CONTROLS]
    figure, axes = plt.subplots(
        len(bonuses), 3, figsize=(13.0, 3.1 * len(bonuses) + 0.7), squeeze=False, sharex=True, layout="constrained"
    )
    for line, bonus in zip(axes, bonuses, strict=True):
        for method in methods:
            own = [row for row in rows if (row["bonus"], row["method"]) == (bonus, method)]
            style = {"color": _COLOURS[method], "lw": 1.5}
            for axis, name in zip(line, ("cosine", "expected_cosine", "expected_logit_direction"), strict=True):
                points, seeds = seed_curves(own, name)
                axis.plot(points, _smooth(seeds.mean(axis=0), 5), label=METHODS[MarkovGame][method].title, **style)
            points, truths = seed_curves(own, "logit_truth")
            line[2].plot(points, _smooth(truths.mean(axis=0), 5), ls=(0, (2, 2)), **style)
        line[0].set(ylabel=f"R = {bonus}:   cosine with the truth", ylim=(-1.05, 1.05))
        line[1].set(ylabel="cosine of the expected direction", ylim=(-1.05, 1.05))
        line[2].set_yscale("symlog", linthresh=0.1)
        line[2].set_ylabel("expected, in the logit of p (dashed: truth)")
        for axis in line:
            axis.axhline(0.0, color="black", lw=0.7)
            axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("outer iteration")
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False, fontsize=9
    )
    save_picture(figure, path, dpi=85)
    plt.close(figure)


def draw_grid(path: Path, rows: Sequence[Row]) -> None:
    """Draw the ends over actor and critic updates, ours above the paper's, a column per method."""
    plt = pyplot()
    ends = {end.setting: end.mean for end in setting_ends(rows)}
    paper = {setting: mean for setting, (mean, _) in paper_ends().items()}
    bonuses, methods = list(dict.fromkeys(key[0] for key in ends)), list(dict.fromkeys(key[1] for key in ends))
    figure, axes = plt.subplots(
        2 * len(bonuses),
        len(methods),
        figsize=(2.35 * len(methods), 2.35 * 2 * len(bonuses)),
        squeeze=False,
        layout="constrained",
    )
    for (i, bonus), (j, method) in ((a, b) for a in enumerate(bonuses) for b in enumerate(methods)):
        largest = 28.0 if bonus == 1 else 60.0
        for below, (name, values) in enumerate((("ours", ends), ("the paper's", paper))):
            axis = axes[2 * i + below, j]
            _heat(axis, {key[2:]: value for key, value in values.items() if key[:2] == (bonus, method)}, largest)
            if j == 0:
                axis.set_ylabel(f"R = {bonus}, {name}\nactor updates", fontsize=9)
            if i == below == 0:
                axis.set_title(METHODS[MarkovGame][method].title, fontsize=9)
            if i == len(bonuses) - 1 and below == 1:
                axis.set_xlabel("critic updates", fontsize=9)
    save_picture(figure, path, dpi=90)
    plt.close(figure)


def _heat(axis: Any, values: Mapping[tuple[Any, ...], float], largest: float) -> None:
    table = np.array([[values.get((actor, critic), np.nan) for critic in COUNTS] for actor in COUNTS])
    axis.imshow(table, vmin=0.0, vmax=largest, cmap="YlGnBu")
    for (i, j), value in np.ndenumerate(table):
        if np.isfinite(value):
            axis.text(
                j,
                i,
                f"{value:.1f}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if value > 0.6 * largest else "black",
            )
    for set_ticks in (axis.set_xticks, axis.set_yticks):
        set_ticks(range(len(COUNTS)), [str(count) for count in COUNTS], fontsize=8)


def _smooth(values: FloatArray, width: int) -> FloatArray:
    """Centred running means; at the ends over what there is."""
    kernel = np.ones(min(width, values.size))
    sums: FloatArray = np.convolve(values, kernel, mode="same")
    return sums / np.convolve(np.ones_like(values), kernel, mode="same")


def _returns_rows(folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    methods = _SHOWN if options.quick else FIGURE_METHODS
    return run(
        setting_sweep(
            folder / "cells",
            bonuses=_BONUSES,
            methods=(*methods, *CONTROLS),
            seeds=options.seeds,
            iterations=options.iterations,
        )
    )


def _returns_table(rows: Sequence[Row], options: FigureOptions) -> str:
    note = "Over the last 5 % of the outer iterations. R = 1: discounted, R = 2: undiscounted return of 150 steps."
    if options.iterations < WHOLE:
        note += f" Only {options.iterations} outer iterations of the paper's {WHOLE}."
    directions = (
        "Directions along the paths, against the exact hypergradient. Of minibatches: mean cosine, median relative "
        "error. Of what they average to, given each run's critic: mean cosine. In the logit of p: the spread of the "
        "curves' points, two minibatches each, about that average; its mean; and the truth's."
    )
    return f"{ends_table(setting_ends(rows))}\n\n{note}\n\n{directions}\n\n{directions_table(rows)}"


def _returns_pictures(folder: Path, rows: Sequence[Row], options: FigureOptions) -> list[Path]:
    written = [folder / name for name in ("fig4.png", "fig4_paths.png", "fig4_errors.png")]
    for path, draw in zip(written, (draw_returns, draw_paths, draw_errors), strict=True):
        draw(path, rows)
    return written


def _grid_rows(folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    """The paper's grids first, then what completes them."""
    grids: list[tuple[int, tuple[int, ...], tuple[int, ...]]]
    if options.quick:
        grids = [(bonus, (1, 10), (1, 10)) for bonus in _BONUSES]
    else:
        grids = [(bonus, _PAPER_COUNTS[bonus], _PAPER_COUNTS[bonus]) for bonus in _BONUSES]
        grids += [(1, (20,), COUNTS), (1, _PAPER_COUNTS[1], (20,))]
    found: list[Row] = []
    for bonus, actors, critics in grids:
        found += run(
            setting_sweep(
                folder / f"cells-{bonus}-{len(actors)}x{len(critics)}",
                bonuses=(bonus,),
                methods=_SHOWN if options.quick else FIGURE_METHODS,
                settings=(("actor_steps", actors), ("critic_steps", critics)),
                seeds=options.seeds,
                iterations=options.iterations,
                points=10,
                evaluate_every=25,
            )
        )
    return sorted(found, key=lambda row: row["bonus"])


def _grid_table(rows: Sequence[Row], options: FigureOptions) -> str:
    return grid_tables(setting_ends(rows))


def _grid_pictures(folder: Path, rows: Sequence[Row], options: FigureOptions) -> list[Path]:
    path, ends = folder / "fig7.png", folder / "ends.csv"
    write_table(ends, grid_ends(rows))
    draw_grid(path, rows)
    return [ends, path]


def grid_ends(rows: Sequence[Row]) -> list[Row]:
    """Return one tidy row per setting: means and deviations over seeds, and the paper's mean."""
    return [
        {
            **dict(zip(("bonus", "method", "actor_steps", "critic_steps"), end.setting, strict=True)),
            "seeds": end.ends.size,
            "final_mean": round(end.mean, 4),
            "final_standard_deviation": round(float(end.ends.std(ddof=min(1, end.ends.size - 1))), 4),
            "final_probability": round(float(end.probabilities.mean()), 4),
            "final_objective": round(float(end.objectives.mean()), 4),
            "paper_mean": "" if end.paper_mean is None else end.paper_mean,
        }
        for end in setting_ends(rows)
    ]


def _variant_rows(folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    return run(
        setting_sweep(
            folder / "cells",
            bonuses=_BONUSES,
            methods=("bc_hg",) if options.quick else _SHOWN,
            variants=("published", "sound") if options.quick else list(VARIANTS),
            seeds=options.seeds,
            iterations=options.iterations,
            points=25,
            evaluate_every=10,
        )
    )


def _no_pictures(folder: Path, rows: Sequence[Row], options: FigureOptions) -> list[Path]:
    """Tables say it all."""
    return []


FIGURES = (
    Figure(
        name="fig4",
        title="toy game: returns over outer iterations, paths on the landscape, errors of directions",
        seeds=10,
        iterations=WHOLE,
        quick_seeds=3,
        quick_iterations=40,
        rows=_returns_rows,
        table=_returns_table,
        draw=_returns_pictures,
    ),
    Figure(
        name="fig7",
        title="toy game: ends over the whole grid of actor and critic updates",
        seeds=10,
        iterations=WHOLE,
        quick_seeds=2,
        quick_iterations=30,
        rows=_grid_rows,
        table=_grid_table,
        draw=_grid_pictures,
    ),
    Figure(
        name="toy_switches",
        title="toy game: what each decision behind the published runs does to their ends",
        seeds=10,
        iterations=WHOLE,
        quick_seeds=2,
        quick_iterations=40,
        rows=_variant_rows,
        table=lambda rows, options: variants_table(setting_ends(rows)),
        draw=_no_pictures,
    ),
    Figure(
        name="table1",
        title="toy game: constants of the runs beside the published ones",
        seeds=1,
        iterations=1,
        quick_seeds=1,
        quick_iterations=1,
        rows=lambda folder, options, run: constants(),
        table=lambda rows, options: constants_table(rows),
        draw=_no_pictures,
    ),
)
