"""The building's figures of Kudo et al. (2026), arXiv:2603.14867: Figure 3 and its appendix, beside the paper's curves.

The paper's curve is the mean over the 8 of 10 seeds that are left in each outer iteration without the best and the
worst, smoothed over 50 outer iterations; its band is their standard deviation over √10. Ours are plain means of exact
objectives over all seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from bilevelrl.benchmarks.paper.building.training import LEARNING_RATES, SELECTED, building_sweep
from bilevelrl.benchmarks.sweeping.comparisons import Comparison, compare_ends, comparison_table
from bilevelrl.benchmarks.sweeping.curves import Curve, draw_curves, pyplot, save_picture, seed_curves
from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row, SweepRunner
from bilevelrl.benchmarks.sweeping.sweep_store import read_table
from bilevelrl.estimators.training import METHODS
from bilevelrl.reference import ConfigurableLQR
from bilevelrl.reference.arrays import FloatArray

__all__ = ["COLOURS", "FIGURES", "OPTIMUM", "WHOLE", "paper_curve", "paper_end", "with_parts"]

WHOLE = 2000
"""Outer iterations of the paper's curves."""

OPTIMUM = -162.50
"""The exact optimum of the objective, which exact ascent reaches from every start tried."""

COLOURS: Mapping[str, str] = MappingProxyType(
    {
        "bc_hg": "#c2410c",
        "hpgd_mc": "#2e7d32",
        "hpgd_td": "#1769aa",
        "naive_pgd": "#555555",
        "policy_covariance": "#8e24aa",
        "exact": "#000000",
        "exact_partial": "#9e9e9e",
    }
)
_FEW_SEEDS, _SOME_SEEDS = 3, 5
_QUANTITIES = ("stability", "energy", "insulation", "airflow")


def _paper(name: str) -> list[Row]:
    with resources.as_file(resources.files("bilevelrl.benchmarks") / "data" / name) as path:
        return read_table(Path(path))


def paper_curve(quantity: str, learning_rate: float, method: str) -> FloatArray | None:
    """Return the paper's outer iterations, mean and band, (3, points); None where it has no such curve.

    Parameters
    ----------
    quantity
        "return", "stability", "energy", "insulation" or "airflow".
    learning_rate, method
        Of the paper's grid, and the name in its legend.

    Examples
    --------
    >>> float(paper_curve("return", 0.1, "BC-HG")[1, -1].round(0))
    -196.0
    """
    wanted = (quantity, learning_rate, method)
    rows = [
        row for row in _paper("paper_building.csv") if (row["quantity"], row["learning_rate"], row["method"]) == wanted
    ]
    return np.array([[row[name] for row in rows] for name in ("iteration", "mean", "band")]) if rows else None


def paper_end(quantity: str, learning_rate: float, method: str) -> tuple[float, float] | None:
    """Return the paper's mean and band over the outer iterations from 1900 on."""
    wanted = (quantity, learning_rate, method)
    for row in _paper("paper_building_final.csv"):
        if (row["quantity"], row["learning_rate"], row["method"]) == wanted:
            return float(row["mean"]), float(row["band"])
    return None


def with_parts(row: Row) -> Row:
    """Return a row with the paper's four parts in place of costs and logits.

    Stability is minus the variance over the zones, energy |a|², insulation |α|² and airflow |b|², all discounted sums.

    Examples
    --------
    >>> row = {"state_cost": 2.0, "action_cost": 3.0, **{f"theta_{i}": 0.0 for i in range(8)}}
    >>> with_parts(row)
    {'stability': -2.0, 'energy': 6.0, 'insulation': 10.0, 'airflow': 10.0}
    """
    kept = {name: value for name, value in row.items() if not name.startswith(("theta_", "state_", "action_"))}
    levels = 1.0 / (1.0 + np.exp(-np.array([row[f"theta_{i}"] for i in range(8)])))
    squares = 10.0 * levels**2  # Σ γ^t = 10
    kept.update(
        stability=round(-row["state_cost"], 3),
        energy=round(2.0 * row["action_cost"], 3),
        insulation=round(float(squares[:4].sum()), 3),
        airflow=round(float(squares[4:].sum()), 3),
    )
    return kept


def _training_rows(folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    """Methods at the rates shown, at the others with fewer seeds and a quarter as long, and the controls."""
    rows: list[Row] = []
    points = 25 if options.quick else 40
    chosen = options.own.get("method", list(SELECTED))

    def sweep(name: str, methods: Sequence[str], rate: float, seeds: int, iterations: int) -> None:
        if not methods:
            return
        found = run(
            building_sweep(
                folder / "cells" / name,
                methods=methods,
                learning_rates=(rate,),
                configuration={"seeds": seeds, "iterations": iterations, "points": points},
            )
        )
        rows.extend(with_parts(row) for row in found)

    # The covariance's curves are flat long before the end.
    sweep("covariance", ("policy_covariance",), 0.1, options.seeds, max(1, options.iterations // 4))
    sweep("exact", ("exact", "exact_partial"), 0.1, 1, options.iterations)
    for rate in LEARNING_RATES:
        shown = [method for method in chosen if SELECTED[method] == rate]
        # HPGD's directions are noise at every θ (errors of 10^6 times the truth): more seeds show nothing more.
        seeds = options.seeds if rate == 0.1 else min(_SOME_SEEDS, options.seeds)
        sweep(f"shown-{rate}", shown, rate, seeds, options.iterations)
    for rate in () if options.quick or options.own.get("shown_only") else LEARNING_RATES:
        others = [method for method in chosen if SELECTED[method] != rate]
        sweep(f"other-{rate}", others, rate, min(_FEW_SEEDS, options.seeds), max(1, options.iterations // 4))
    return rows


def _own(rows: Sequence[Row], **wanted: Any) -> list[Row]:
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def _comparison(rows: Sequence[Row], method: str, rate: float, whole: bool) -> Comparison:
    own = _own(rows, method=method, learning_rate=rate)
    ends = list({row["seed"]: row["final_objective"] for row in own}.values())
    title, last = METHODS[ConfigurableLQR][method].title, max(row["iteration"] for row in own)
    paper = paper_end("return", rate, title)
    curve = paper_curve("return", rate, title)
    if curve is not None and not (whole and last >= WHOLE - 1):
        at = int(np.argmin(np.abs(curve[0] - last)))
        paper = float(curve[1, at]), float(curve[2, at])
    return compare_ends((title, f"{rate:g}", str(last + 1)), ends, paper)


def _table(rows: Sequence[Row], options: FigureOptions) -> str:
    pairs = dict.fromkeys((row["method"], row["learning_rate"]) for row in rows)
    found = [_comparison(rows, method, rate, options.iterations >= WHOLE) for method, rate in pairs]
    table = comparison_table(("method", "learning rate", "outer iterations"), found, digits=2)
    note = (
        "Critics by least squares on quadratic features, not the published networks. Ours: exact objective, mean over "
        "the last 5 % of the outer iterations. The paper's: trimmed mean and band, read where ours end."
    )
    return f"{table}\n\n{note}"


def _curve(rows: Sequence[Row], method: str, rate: float, quantity: str = "return", column: str = "objective") -> Curve:
    points, seeds = seed_curves(_own(rows, method=method, learning_rate=rate), column)
    title = METHODS[ConfigurableLQR][method].title
    return Curve(
        label=title,
        colour=COLOURS[method],
        points=points,
        seeds=seeds,
        paper=paper_curve(quantity, rate, title) if quantity else None,
    )


def _shown(rows: Sequence[Row]) -> list[tuple[str, float]]:
    present = {(row["method"], row["learning_rate"]) for row in rows}
    wanted = [*SELECTED.items(), ("policy_covariance", 0.1), ("exact", 0.1), ("exact_partial", 0.1)]
    return [pair for pair in wanted if pair in present]


def _save(figure: Any, axes: Any, path: Path, columns: int = 4) -> Path:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=8)
    save_picture(figure, path, dpi=100)
    pyplot().close(figure)
    return path


def _draw_return(path: Path, rows: Sequence[Row]) -> Path:
    figure, axes = pyplot().subplots(figsize=(7.5, 5.2), layout="constrained")
    draw_curves(axes, [_curve(rows, method, rate) for method, rate in _shown(rows)])
    axes.axhline(OPTIMUM, color="#000000", lw=0.8, ls=":")
    axes.set_ylim(-300, -150)
    axes.set(xlabel="outer iteration", ylabel="leader's objective J")
    axes.set_title("building, learning rates that the paper shows; dotted: exact optimum", fontsize=10, loc="left")
    return _save(figure, axes, path)


def _draw_rates(path: Path, rows: Sequence[Row]) -> Path:
    figure, axes = pyplot().subplots(1, 3, figsize=(12, 4.4), sharey=True, layout="constrained")
    for panel, rate in zip(axes, LEARNING_RATES, strict=True):
        present = [method for method in SELECTED if _own(rows, method=method, learning_rate=rate)]
        if not present:
            continue
        draw_curves(panel, [_curve(rows, method, rate) for method in present])
        panel.set(xlabel="outer iteration", ylim=(-520, -150))
        panel.set_title(f"learning rate {rate:g}", fontsize=10, loc="left")
    axes[0].set_ylabel("leader's objective J")
    return _save(figure, axes[0], path)


def _draw_parts(path: Path, rows: Sequence[Row]) -> Path:
    figure, axes = pyplot().subplots(2, 2, figsize=(11, 7.5), layout="constrained")
    pairs = [(method, rate) for method, rate in _shown(rows) if not method.startswith("exact")]
    for panel, quantity in zip(axes.ravel(), _QUANTITIES, strict=True):
        draw_curves(panel, [_curve(rows, method, rate, quantity, quantity) for method, rate in pairs])
        panel.set_title(quantity, fontsize=10, loc="left")
        panel.set_xlabel("outer iteration")
    return _save(figure, axes[0, 0], path)


def _draw_errors(path: Path, rows: Sequence[Row]) -> Path:
    figure, axes = pyplot().subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    pairs = [(method, rate) for method, rate in _shown(rows) if method != "exact"]
    for panel, column in zip(axes, ("relative_error", "cosine"), strict=True):
        draw_curves(panel, [_curve(rows, method, rate, "", column) for method, rate in pairs])
        panel.set_xlabel("outer iteration")
    axes[0].set_yscale("log")
    axes[0].set_title("error of the direction over the size of the exact hypergradient", fontsize=10, loc="left")
    axes[1].set_title("cosine of the direction with the exact hypergradient", fontsize=10, loc="left")
    return _save(figure, axes[0], path, columns=6)


def _draw(folder: Path, rows: Sequence[Row], options: FigureOptions) -> list[Path]:
    return [
        _draw_return(folder / "fig3-return.png", rows),
        _draw_rates(folder / "fig3-learning-rates.png", rows),
        _draw_parts(folder / "fig3-parts.png", rows),
        _draw_errors(folder / "fig3-gradient-errors.png", rows),
    ]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--method", nargs="+", choices=sorted(SELECTED), default=list(SELECTED), help="published methods"
    )
    parser.add_argument("--shown-only", action="store_true", help="the learning rates that the paper shows, no others")


FIGURES = (
    Figure(
        name="fig3",
        title="the building: return, all learning rates, parts, and errors of the directions along the way",
        seeds=10,
        iterations=WHOLE,
        quick_seeds=2,
        quick_iterations=40,
        rows=_training_rows,
        table=_table,
        draw=_draw,
        arguments=_arguments,
    ),
)
