"""The figure of a verification: every estimator's bias, exact and sampled, and its standard deviation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bilevelrl.reference.errors import MissingExtraError
from bilevelrl.reference.storage import write_atomically
from bilevelrl.verification.checks.verdicts import POWER_LIMIT, Outcome

if TYPE_CHECKING:
    from bilevelrl.verification.pipeline.results import EstimatorRow, Report

__all__ = ["draw_report", "missing_figures", "save_figure"]

# Okabe and Ito's palette: distinguishable without colour vision.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
ROUNDING = 1e-17


def save_figure(report: Report, path: str | Path) -> Path:
    """Draw a report and write it to a file; returns the path.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    StorageError
        If it cannot be written.
    """
    figure, format = draw_report(report), Path(path).suffix.removeprefix(".") or "png"
    return write_atomically(path, lambda file: figure.savefig(file, dpi=160, format=format))


def missing_figures() -> MissingExtraError | None:
    """Return what there is to say where matplotlib is not installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return MissingExtraError("drawing", "matplotlib", "cli")
    return None


def draw_report(report: Report) -> Any:
    """Return a matplotlib figure with one line per estimator.

    Left: exact bias on small problems, on a logarithmic axis that ends at rounding. Middle: bias along the truth on
    Four-Rooms with its 95 % interval. Right: standard deviation of one draw there. All relative to ‖∇J‖.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    missing = missing_figures()
    if missing is not None:
        raise missing
    from matplotlib.figure import Figure

    rows = [row for row in report.estimators if row.verdict.outcome is not Outcome.NOT_APPLICABLE]
    names = list(dict.fromkeys(row.estimator for row in rows))
    figure = Figure(figsize=(15.0, 1.9 + 0.36 * max(len(names), 3)), layout="constrained")
    exact, biased, spread = figure.subplots(1, 3, sharey=True, width_ratios=(1.15, 1.2, 0.85))
    place = {name: -float(i) for i, name in enumerate(names)}
    enumerated = [row for row in rows if row.method == "enumeration" and math.isfinite(row.bias)]
    sampled = [row for row in rows if row.method == "sampling" and math.isfinite(row.bias_along)]
    _exact_panel(exact, enumerated, place)
    _bias_panel(biased, sampled, place)
    _spread_panel(spread, sampled, place)
    exact.set_yticks([place[name] for name in names], [_label(name, rows) for name in names])
    exact.set_ylim(-len(names) + 0.4, 0.6)
    for axes in (exact, biased, spread):
        for i in range(0, len(names), 2):
            axes.axhspan(-i - 0.5, -i + 0.5, color="0.96", zorder=0, linewidth=0)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.grid(axis="x", color="0.88", linewidth=0.6)
        axes.set_axisbelow(True)
    word = report.headline.partition(" (")[0]
    figure.suptitle(f"Hypergradient estimators against the exact truth: {word}", fontsize=14, fontweight="bold")
    return figure


def _exact_panel(axes: Any, rows: list[EstimatorRow], place: dict[str, float]) -> None:
    problems = list(dict.fromkeys(row.problem for row in rows))
    for i, problem in enumerate(problems):
        chosen = [row for row in rows if row.problem == problem]
        axes.plot(
            [max(row.bias, ROUNDING) for row in chosen],
            [place[row.estimator] + _offset(i, len(problems)) for row in chosen],
            linestyle="none",
            marker=MARKERS[i % len(MARKERS)],
            markersize=5,
            color=COLOURS[i % len(COLOURS)],
            markerfacecolor=COLOURS[i % len(COLOURS)] if i < len(COLOURS) else "white",
            label=problem,
        )
    axes.set_xscale("log")
    axes.set_xlim(ROUNDING / 3, 30)
    axes.axvspan(ROUNDING / 3, 1e-12, color="#009E73", alpha=0.08, linewidth=0)
    axes.text(2e-17, 0.55, "zero to rounding", fontsize=8, color="#00664B", va="bottom")
    axes.set_title("exact bias, every trajectory enumerated", fontsize=11, pad=16)
    axes.set_xlabel("‖E estimate − ∇J‖ / ‖∇J‖")
    if problems:
        # Biases are zero to rounding or plain to see: nothing lies between.
        axes.legend(fontsize=8, loc="center", bbox_to_anchor=(0.5, 0.5), framealpha=0.9)


def _bias_panel(axes: Any, rows: list[EstimatorRow], place: dict[str, float]) -> None:
    temperatures = sorted({row.temperature for row in rows})
    for i, temperature in enumerate(temperatures):
        chosen = [row for row in rows if row.temperature == temperature]
        axes.errorbar(
            [row.bias_along for row in chosen],
            [place[row.estimator] + _offset(i, len(temperatures)) for row in chosen],
            xerr=[0.5 * (row.bias_high - row.bias_low) for row in chosen],
            linestyle="none",
            marker=MARKERS[i % len(MARKERS)],
            markersize=4.5,
            elinewidth=1.4,
            color=COLOURS[i % len(COLOURS)],
            label=f"β = {temperature:g}",
        )
    axes.set_xscale("symlog", linthresh=0.1, linscale=1.2)
    axes.set_xlim(-200, 200)
    ticks = (-100, -10, -1, -0.1, 0, 0.1, 1, 10, 100)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.axvspan(-POWER_LIMIT, POWER_LIMIT, color="#009E73", alpha=0.08, linewidth=0)
    axes.axvline(0.0, color="0.3", linewidth=0.8)
    axes.set_title("bias along ∇J on Four-Rooms, sampled (95 %)", fontsize=11, pad=16)
    axes.set_xlabel("⟨E estimate − ∇J, ∇J⟩ / ‖∇J‖²")
    if temperatures:
        axes.legend(fontsize=8, loc="upper left", framealpha=0.9)


def _spread_panel(axes: Any, rows: list[EstimatorRow], place: dict[str, float]) -> None:
    temperatures = sorted({row.temperature for row in rows})
    for i, temperature in enumerate(temperatures):
        chosen = [row for row in rows if row.temperature == temperature and row.standard_deviation > 0.0]
        axes.plot(
            [row.standard_deviation for row in chosen],
            [place[row.estimator] + _offset(i, len(temperatures)) for row in chosen],
            linestyle="none",
            marker=MARKERS[i % len(MARKERS)],
            markersize=5,
            color=COLOURS[i % len(COLOURS)],
        )
    axes.set_xscale("log")
    axes.set_title("standard deviation of one draw", fontsize=11, pad=16)
    axes.set_xlabel("√trace Cov / ‖∇J‖")


def _offset(index: int, count: int) -> float:
    """Spread the marks of one estimator over its line."""
    return 0.0 if count < 2 else 0.6 * (0.5 - index / (count - 1))


def _label(name: str, rows: list[EstimatorRow]) -> str:
    claim = " / ".join(dict.fromkeys(row.claim for row in rows if row.estimator == name))
    failed = any(row.verdict.failed for row in rows if row.estimator == name)
    return f"{name}  ({'FAILED' if failed else claim})"
