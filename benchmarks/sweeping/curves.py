"""Learning curves: thinned to tidy rows, and drawn over the paper's."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bilevelrl.benchmarks.sweeping.figures import Row
from bilevelrl.estimators.training import History
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import MissingExtraError
from bilevelrl.reference.storage import write_atomically

__all__ = ["Curve", "curve_rows", "draw_curves", "pyplot", "save_small", "seed_curves"]

_HEAVY_TAILED = ("gradient_norm", "relative_error")
"""Summed up by medians, everything else by means."""


def curve_rows(history: History, *, points: int, names: Sequence[str] = ("objective", "gradient_norm")) -> list[Row]:
    """Return rows of thinned curves, one per run and point, each over the evaluations since the point before.

    Iteration 0 is a point by itself, as in the paper's figures. `final_objective` is the run's mean over the last 5 %.

    Parameters
    ----------
    history
        Of a training.
    points
        At most so many, besides iteration 0.
    names
        Of the logged values.
    """
    training, rows = history.training, []
    edges = np.linspace(0, training.iterations, points + 1)
    place = np.searchsorted(edges, history.iterations, side="left")
    final = history.final()
    per_run_ms = 1e3 * history.seconds / (training.iterations * len(training.runs))
    for point in np.unique(place):
        inside = place == point
        values = {
            name: (np.median if name in _HEAVY_TAILED else np.mean)(history.values[name][inside], axis=0)
            for name in names
        }
        for column, run in enumerate(training.runs):
            rows.append(
                {
                    "method": run.method,
                    "seed": run.seed,
                    "learning_rate": run.learning_rate,
                    "critic_step_size": run.critic_step_size,
                    "iteration": int(history.iterations[inside][-1]),
                    **{name: _short(name, float(value[column])) for name, value in values.items()},
                    "final_objective": round(float(final[column]), 6),
                    "cpu_ms_per_iteration": round(per_run_ms, 4),
                    "entropy": training.entropy,
                }
            )
    return rows


def _short(name: str, value: float) -> float:
    return float(f"{value:.4g}") if name in _HEAVY_TAILED else round(value, 6)


def seed_curves(rows: Sequence[Row], value: str = "objective") -> tuple[FloatArray, FloatArray]:
    """Return points (P,) and the curve of each seed (seeds, P) out of rows of one method."""
    seeds: dict[int, dict[int, float]] = {}
    for row in rows:
        seeds.setdefault(row["seed"], {})[row["iteration"]] = row[value]
    points = np.array(sorted(next(iter(seeds.values()))), dtype=np.float64)
    return points, np.array([[curve[int(point)] for point in points] for curve in seeds.values()])


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One method's curves.

    Attributes
    ----------
    label, colour : str
        Of the method.
    points : (P,)
        Outer iterations.
    seeds : (runs, P)
        A curve of each run.
    paper : (3, K + 1) or None
        The paper's x, mean and half-width of its band, one row each.
    """

    label: str
    colour: str
    points: FloatArray
    seeds: FloatArray
    paper: FloatArray | None = None


def draw_curves(axes: Any, curves: Sequence[Curve]) -> None:
    """Draw means, solid with each seed behind, over the paper's, dashed with its band."""
    longest = max(float(curve.points[-1]) for curve in curves)
    for curve in curves:
        for seed in curve.seeds:
            axes.plot(curve.points, seed, color=curve.colour, lw=0.5, alpha=0.3)
        axes.plot(curve.points, curve.seeds.mean(axis=0), color=curve.colour, lw=1.8, label=curve.label)
        if curve.paper is None:
            continue
        x, mean, error = curve.paper[:, curve.paper[0] <= 1.02 * longest]
        axes.plot(x, mean, color=curve.colour, lw=1.2, ls=(0, (4, 2)), label=f"{curve.label}, the paper's")
        axes.fill_between(x, mean - error, mean + error, color=curve.colour, alpha=0.15, lw=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlim(0, longest)


def pyplot() -> Any:
    """Return matplotlib's pyplot, for files and not for screens.

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
    return plt


def save_picture(figure: Any, path: Path, *, dpi: int) -> None:
    """Write a figure, whole or not at all."""
    write_atomically(path, lambda file: figure.savefig(file, dpi=dpi, format=path.suffix.removeprefix(".")))


def save_small(figure: Any, path: Path, *, dpi: int = 110, colours: int = 64) -> None:
    """Write a figure as PNG with few colours, which many faint lines would otherwise make large."""
    from PIL import Image  # matplotlib needs it too

    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=dpi, format="png")
    with Image.open(drawn) as image:
        reduced = image.convert("RGB").quantize(colours)
    write_atomically(path, lambda file: reduced.save(file, format="png", optimize=True))
