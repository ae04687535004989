"""`bilevelrl reproduce`: the paper's Four-Rooms figures trained anew, beside the paper's own curves, and in a table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from bilevelrl.benchmarks.four_rooms_training import FIGURE_METHODS, STREAMS, VARIANTS, panel_sweep
from bilevelrl.benchmarks.paper_curves import PAPER_SEEDS, paper_curve
from bilevelrl.benchmarks.summary import summarise
from bilevelrl.benchmarks.sweep_store import write_table
from bilevelrl.benchmarks.sweeps import run_sweep
from bilevelrl.estimators.training import METHODS
from bilevelrl.reference import named_stream
from bilevelrl.reference.errors import InvalidInputError, MissingExtraError

__all__ = ["FIGURES", "Comparison", "compare", "draw_panels", "format_table", "register"]

FIGURES: Mapping[str, Sequence[int]] = MappingProxyType({"fig2": (100,), "fig6": tuple(STREAMS)})
"""Batch sizes of each figure; all three temperatures."""

TEMPERATURES = (0.001, 0.003, 0.005)
_QUICK = {"methods": ("bc_hg", "hpgd_sa", "naive_pgd", "exact"), "seeds": 2, "iterations": 500, "points": 25}
_COLOURS = {
    "bc_hg": "#c2410c",
    "hpgd_mc": "#2e7d32",
    "hpgd_sa": "#1769aa",
    "naive_pgd": "#555555",
    "sobirl": "#8e24aa",
    "exact": "#000000",
}

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One method of one panel, ours beside the paper's.

    Attributes
    ----------
    variant, temperature, batch_steps, method
        Which.
    runs : int
        How many seeds we trained.
    mean, interquartile_mean, low, high : float
        Of our runs' mean objective over the last 5 % of the outer iterations, with the 95 % interval of the
        interquartile mean.
    paper_mean, paper_error : float or None
        The paper's mean over the same outer iterations, and its standard error; None where it has no such curve.
    difference, distance : float or None
        Of the means, ours minus the paper's, and in joint standard errors.
    """

    variant: str
    temperature: float
    batch_steps: int
    method: str
    runs: int
    mean: float
    interquartile_mean: float
    low: float
    high: float
    paper_mean: float | None
    paper_error: float | None
    difference: float | None
    distance: float | None


def compare(rows: Sequence[Row], *, whole: bool = True) -> list[Comparison]:
    """Compare the ends of tidy curves with the paper's.

    Parameters
    ----------
    rows
        As `panel_sweep` gives them.
    whole
        False: fewer outer iterations than the paper's; the paper's curve is then read where ours end.
    """
    panels = dict.fromkeys((row["variant"], row["temperature"], row["batch_steps"], row["method"]) for row in rows)
    found = []
    for variant, temperature, batch_steps, method in panels:
        own = [
            row
            for row in rows
            if (row["variant"], row["temperature"], row["batch_steps"], row["method"])
            == (variant, temperature, batch_steps, method)
        ]
        finals = np.array(list({row["seed"]: row["final_objective"] for row in own}.values()))
        name = f"{variant},{temperature},{batch_steps},{method}"
        ours = summarise([finals], rng=named_stream(0, "reproduce", name))
        theirs = _paper_end(temperature, batch_steps, method, None if whole else max(r["iteration"] for r in own))
        difference = distance = None
        if theirs is not None:
            difference = ours.mean - theirs[0]
            spread = finals.std(ddof=1) / np.sqrt(finals.size) if finals.size > 1 else 0.0
            joint = float(np.hypot(spread, theirs[1]))
            distance = difference / joint if joint > 1e-3 else None
        found.append(
            Comparison(
                variant=variant,
                temperature=temperature,
                batch_steps=batch_steps,
                method=method,
                runs=ours.runs,
                mean=ours.mean,
                interquartile_mean=ours.interquartile_mean,
                low=ours.low,
                high=ours.high,
                paper_mean=None if theirs is None else theirs[0],
                paper_error=None if theirs is None else theirs[1],
                difference=difference,
                distance=distance,
            )
        )
    return found


def _paper_end(temperature: float, batch_steps: int, method: str, iteration: int | None) -> tuple[float, float] | None:
    try:
        curve = paper_curve(temperature, batch_steps, METHODS[method].title)
    except InvalidInputError:
        return None
    if iteration is None:
        return curve.final_mean, curve.final_standard_error
    at = int(np.argmin(np.abs(curve.iteration - iteration)))
    return float(curve.mean[at]), float(curve.standard_error[at])


def format_table(comparisons: Sequence[Comparison]) -> str:
    """Return the comparisons as a Markdown table.

    Examples
    --------
    >>> print(format_table([]).splitlines()[0][:20])
    | kernels | β | step
    """
    head = (
        "kernels",
        "β",
        "steps",
        "method",
        "runs",
        "our mean",
        "IQM [95 %]",
        "paper ± SE",
        "difference",
        "in joint SE",
    )
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for row in comparisons:
        paper = difference = distance = "–"
        if row.paper_mean is not None and row.difference is not None:
            paper, difference = f"{row.paper_mean:.3f} ± {row.paper_error:.3f}", f"{row.difference:+.3f}"
            distance = "–" if row.distance is None else f"{row.distance:+.1f}"
        cells = (
            row.variant,
            f"{row.temperature:g}",
            str(row.batch_steps),
            METHODS[row.method].title,
            str(row.runs),
            f"{row.mean:.3f}",
            f"{row.interquartile_mean:.3f} [{row.low:.3f}, {row.high:.3f}]",
            paper,
            difference,
            distance,
        )
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def draw_panels(path: Path, rows: Sequence[Row], *, variant: str = "published") -> None:
    """Draw our curves, solid with each seed behind, over the paper's, dashed with its band of one standard error.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtraError("drawing", "matplotlib", "cli") from error
    own = [row for row in rows if row["variant"] == variant]
    temperatures = sorted({row["temperature"] for row in own})
    batches = sorted({row["batch_steps"] for row in own})
    figure, axes = plt.subplots(
        len(batches),
        len(temperatures),
        figsize=(4.6 * len(temperatures), 3.6 * len(batches) + 0.8),
        squeeze=False,
        layout="constrained",
    )
    for (i, batch), (j, temperature) in ((a, b) for a in enumerate(batches) for b in enumerate(temperatures)):
        panel = [row for row in own if (row["temperature"], row["batch_steps"]) == (temperature, batch)]
        _draw_panel(axes[i, j], panel, temperature, batch)
        axes[i, j].set_title(f"β = {temperature:g}, {batch} steps", fontsize=10, loc="left")
        if i == len(batches) - 1:
            axes[i, j].set_xlabel("outer iteration")
        if j == 0:
            axes[i, j].set_ylabel("leader's objective J")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_panel(axes: Any, rows: Sequence[Row], temperature: float, batch: int) -> None:
    longest = max(row["iteration"] for row in rows)
    for method in dict.fromkeys(row["method"] for row in rows):
        colour = _COLOURS.get(method, "#777777")
        seeds: dict[int, dict[int, float]] = {}
        for row in rows:
            if row["method"] == method:
                seeds.setdefault(row["seed"], {})[row["iteration"]] = row["objective"]
        points = np.array(sorted(next(iter(seeds.values()))))
        curves = np.array([[curve[point] for point in points] for curve in seeds.values()])
        title = METHODS[method].title
        for curve in curves:
            axes.plot(points, curve, color=colour, lw=0.5, alpha=0.3)
        axes.plot(points, curves.mean(axis=0), color=colour, lw=1.8, label=title)
        try:
            paper = paper_curve(temperature, batch, title)
        except InvalidInputError:
            continue
        shown = paper.iteration <= longest + 200
        x, mean, error = paper.iteration[shown], paper.mean[shown], paper.standard_error[shown]
        axes.plot(x, mean, color=colour, lw=1.2, ls=(0, (4, 2)), label=f"{title}, the paper's")
        axes.fill_between(x, mean - error, mean + error, color=colour, alpha=0.15, lw=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlim(0, longest)


def register(commands: Any) -> None:
    """Add the subcommand `reproduce`."""
    add = commands.add_parser("reproduce", help="train a figure of the paper anew, beside the paper's curves")
    add.add_argument("figure", choices=sorted(FIGURES), help="fig2: batches of 100 steps; fig6: all batch sizes")
    add.add_argument("--output", metavar="DIR", type=Path, default=None, help="folder (default: results/FIGURE)")
    add.add_argument("--quick", action="store_true", help="500 outer iterations of four methods, about a minute")
    add.add_argument("--variant", nargs="+", default=["published"], help=f"kernels: {', '.join(VARIANTS)}")
    add.add_argument("--temperature", type=float, nargs="+", default=list(TEMPERATURES), metavar="β")
    add.add_argument("--seeds", type=int, default=5, help="of each method (default 5; the paper has 10)")
    add.add_argument("--iterations", type=int, default=10_000, help="outer iterations (default 10000)")
    add.add_argument("--workers", type=int, default=1, help="processes (default 1; more need joblib)")
    add.set_defaults(run=_reproduce)


def _reproduce(parsed: argparse.Namespace) -> int:
    options: dict[str, Any] = {"methods": FIGURE_METHODS, "seeds": parsed.seeds, "iterations": parsed.iterations}
    batches = FIGURES[parsed.figure]
    if parsed.quick:
        options.update(_QUICK)
        batches = batches[:1]
    folder = parsed.output or Path("results") / (parsed.figure + ("-quick" if parsed.quick else ""))
    sweep = panel_sweep(
        folder / "cells", variants=parsed.variant, temperatures=parsed.temperature, batches=batches, **options
    )
    backend = "joblib" if parsed.workers > 1 else "serial"
    rows = run_sweep(sweep, backend=backend, workers=parsed.workers).rows  # type: ignore[arg-type]
    whole = options["iterations"] >= 10_000
    table = format_table(compare(rows, whole=whole))
    write_table(folder / "curves.csv", rows)
    (folder / "comparison.md").write_text(table + "\n", encoding="utf-8")
    print(table)
    print(f"\nOurs: mean over the last 5 % of the outer iterations. The paper's: {PAPER_SEEDS} seeds, standard error.")
    if not whole:
        print(f"Only {options['iterations']} outer iterations; the paper's curves are read where ours end.")
    written = [folder / "curves.csv", folder / "comparison.md"]
    try:
        for variant in parsed.variant:
            written.append(folder / f"{parsed.figure}-{variant}.png")
            draw_panels(written[-1], rows, variant=variant)
    except MissingExtraError as missing:
        written.pop()
        print(f"bilevelrl: no figure: {missing}", file=sys.stderr)
    for path in written:
        print(f"wrote {path}", file=sys.stderr)
    return 0
