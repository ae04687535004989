"""Figures of a study as SVG text: accuracy and error against samples, bias over all scenarios. Needs matplotlib.

Accuracy against the number of samples, estimator by estimator, is how derivative estimators have been compared since
Loaded DiCE (Farquhar et al. 2019). Bands are 5th to 95th percentiles of single estimates, for two methods.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import MissingExtraError
from bilevelrl.verification.pipeline.study_tables import StudyRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FEATURED", "bias_map", "cosine_figure", "error_figure"]

FEATURED = {
    "bc_hg": ("BC-HG", "#1b6ca8", "-"),
    "bc_hg_td": ("BC-HG, TD scores", "#5ab1e8", "-"),
    "hpgd_oracle": ("HPGD, oracle", "#c8553d", "-"),
    "hpgd_mc": ("HPGD, Monte Carlo", "#e8a23d", "--"),
    "sobirl": ("SoBiRL", "#3a8f5c", "-"),
    "naive_pgd": ("Naive-PGD", "#7a7a7a", "-"),
}
"""{registered name: (label, colour, line)} of the estimators that line plots show; tables show all."""

BANDS = ("BC-HG", "HPGD, oracle")
"""Labels whose spread is drawn; six bands on one another hide all of them."""

_SETTINGS: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "axes.labelcolor": "#333333",
    "svg.fonttype": "path",
    "svg.hashsalt": "bilevelrl",
}


def cosine_figure(rows: Sequence[StudyRow], on: Sequence[str]) -> str:
    """Return SVG: mean cosine with the truth against samples, one panel per scenario."""

    def draw(axes: Any, found: list[StudyRow], colour: str, line: str, label: str) -> None:
        x = [row.samples for row in found]
        if label in BANDS:
            low, high = [row.cosine_low for row in found], [row.cosine_high for row in found]
            axes.fill_between(x, low, high, color=colour, alpha=0.13, lw=0)
        axes.plot(x, [row.cosine for row in found], color=colour, ls=line, lw=1.8, marker="o", ms=3, label=label)

    def finish(axes: Any) -> None:
        axes.set_ylim(-0.35, 1.05)
        axes.axhline(1.0, color="#bbbbbb", lw=0.8, zorder=0)

    return _panels(rows, on, draw, finish, "trajectories per estimate", "cosine with ∇J", log_y=False)


def error_figure(rows: Sequence[StudyRow], on: Sequence[str]) -> str:
    """Return SVG: root mean square error against steps, with each estimator's bias as the floor it tends to."""

    def draw(axes: Any, found: list[StudyRow], colour: str, line: str, label: str) -> None:
        x = [row.steps for row in found]
        axes.plot(
            x, [row.root_mean_square for row in found], color=colour, ls=line, lw=1.8, marker="o", ms=3, label=label
        )
        floor = found[-1].bias
        if floor > 3e-3:
            axes.axhline(floor, color=colour, lw=0.9, ls=":", zorder=0)

    def finish(axes: Any) -> None:
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, 1e-2), min(max(high, 2.0), 300.0))

    return _panels(rows, on, draw, finish, "environment and oracle steps per estimate", "RMS error / ‖∇J‖", log_y=True)


def bias_map(rows: Sequence[StudyRow]) -> str:
    """Return SVG: exact or sampled bias of every estimator on every scenario, at the largest number of samples."""
    figure_class = _figure_class()
    import matplotlib as mpl
    from matplotlib.colors import LogNorm

    largest = max(row.samples for row in rows)
    cells = {(row.estimator, row.scenario): row for row in rows if row.samples == largest}
    names = list(dict.fromkeys(row.estimator for row in rows))
    places = list(dict.fromkeys(row.scenario for row in rows))
    values = np.full((len(names), len(places)), np.nan)
    for (name, place), row in cells.items():
        # Sampled biases below three standard errors, of two dozen replicates, are not told from none.
        noise = 0.6 * row.standard_deviation if row.moments == "sampled" else 0.0
        values[names.index(name), places.index(place)] = row.bias if row.bias > noise else 0.0
    with mpl.rc_context(_SETTINGS):
        figure = figure_class(figsize=(0.235 * len(places) + 2.3, 0.24 * len(names) + 2.1))
        axes = figure.subplots()
        colours = mpl.colormaps["YlOrRd"].with_extremes(bad="#f4f4f4", under="#2e7d5b")
        image = axes.pcolormesh(
            _edges(len(places)), _edges(len(names)), _floored(values), cmap=colours, norm=LogNorm(1e-2, 1.0)
        )
        axes.set_xticks(range(len(places)), places, rotation=60, ha="right", fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.tick_params(length=0)
        for x in range(1, len(places)):
            axes.axvline(x - 0.5, color="white", lw=1.0)
        for y in range(1, len(names)):
            axes.axhline(y - 0.5, color="white", lw=1.0)
        bar = figure.colorbar(image, ax=axes, extend="min", fraction=0.025, pad=0.01)
        bar.set_label("bias / ‖∇J‖ (green: none, or below 1 %)", fontsize=8)
        return _svg(figure)


def _panels(
    rows: Sequence[StudyRow], on: Sequence[str], draw: Any, finish: Any, x_label: str, y_label: str, *, log_y: bool
) -> str:
    figure_class = _figure_class()
    import matplotlib as mpl

    with mpl.rc_context(_SETTINGS):
        columns = min(3, len(on))
        lines = -(-len(on) // columns)
        figure = figure_class(figsize=(3.35 * columns, 2.45 * lines + 0.55))
        grid = figure.subplots(lines, columns, squeeze=False, sharey=not log_y)
        for axes, place in zip(grid.flat, on, strict=False):
            for name, (label, colour, line) in FEATURED.items():
                found = sorted(_of(rows, name, place), key=lambda row: row.samples)
                if found:
                    draw(axes, found, colour, line, label)
            axes.set_xscale("log")
            if log_y:
                axes.set_yscale("log")
            axes.set_title(place, loc="left")
            finish(axes)
        for axes in list(grid.flat)[len(on) :]:
            axes.set_visible(False)
        for axes in grid[:, 0]:
            axes.set_ylabel(y_label)
        for axes in grid[-1]:
            axes.set_xlabel(x_label)
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False, fontsize=8.5)
        figure.tight_layout(rect=(0.0, 0.5 / (2.45 * lines + 0.55), 1.0, 1.0))
        return _svg(figure)


def _of(rows: Iterable[StudyRow], name: str, place: str) -> list[StudyRow]:
    return [row for row in rows if row.estimator == name and row.scenario == place]


def _edges(count: int) -> FloatArray:
    return np.arange(count + 1, dtype=np.float64) - 0.5


def _floored(values: FloatArray) -> Any:
    """Masked where nothing is known; what is exactly zero is shown as "below the scale"."""
    return np.ma.masked_invalid(np.where(values < 1e-2, 1e-9, values) + 0.0 * values)


def _figure_class() -> type[Figure]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("figures of a report", "matplotlib", "cli") from None
    return Figure


def _svg(figure: Figure) -> str:
    """The figure as an <svg> element, without declaration, date and the fixed size in points."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
