"""What error of the benefit would make the building's published curve of BC-HG: a constant one.

BC-HG's guiding term sums benefits times sums of scores whose mean, given the state, is the gradient of the follower's
value. A benefit that is right has mean zero given the state, so that this mean drops out. A constant added to all
benefits leaves `constant × E[∇V_F] / β`, a pull along the follower's own interest, which is steady in every batch. With
exact critics and such a constant, the training here is otherwise as published, at the paper's three learning rates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from bilevelrl.benchmarks.experiments.building_figures import paper_curve, paper_end
from bilevelrl.benchmarks.experiments.building_training import LEARNING_RATES, building_training
from bilevelrl.benchmarks.sweeping.curves import Curve, curve_rows, draw_curves, pyplot, seed_curves
from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row, SweepRunner
from bilevelrl.benchmarks.sweeping.sweep_grid import Cell, Grid
from bilevelrl.benchmarks.sweeping.sweeps import Sweep
from bilevelrl.estimators import Context, LeaderCritic, Trajectories
from bilevelrl.estimators.training import train
from bilevelrl.estimators.training.lqr_critics import ExactCritics, LearntCritics, Wanted
from bilevelrl.reference.arrays import FloatArray

__all__ = ["FIGURES", "OFFSETS", "OffsetCritics", "offset_cell"]

OFFSETS = (0.0, 11.0)
"""Added to every benefit; the exact ones have a standard deviation of about 4 at first steps."""

_COLOURS = {0.0: "#9e9e9e", 11.0: "#c2410c"}
_TITLE = "BC-HG"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Raised:
    """A critic whose action values, and they alone, are too large."""

    critic: LeaderCritic
    offset: float

    def action_value(self, state: Any, action: Any, *, steps_to_go: Any = None) -> FloatArray:
        return self.critic.action_value(state, action, steps_to_go=steps_to_go) + self.offset

    def value(self, state: Any, *, steps_to_go: Any = None) -> FloatArray:
        return self.critic.value(state, steps_to_go=steps_to_go)


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetCritics:
    """The exact critics, with a constant added to Q_L and not to V_L.

    Parameters
    ----------
    offset
        The constant, in units of the leader's return.

    Examples
    --------
    >>> OffsetCritics(offset=11.0).start(Wanted(), 4, 2, 8, np.random.default_rng(0))
    {}
    """

    offset: float

    def start(
        self, wanted: Wanted, states: int, actions: int, parameters: int, rng: Generator
    ) -> Mapping[str, FloatArray]:
        """Return nothing."""
        return ExactCritics().start(wanted, states, actions, parameters, rng)

    def learn(
        self,
        wanted: Wanted,
        trajectories: Trajectories,
        context: Context,
        carried: Mapping[str, FloatArray],
        rng: Generator,
    ) -> LearntCritics:
        """Solve for them, and add."""
        learnt = ExactCritics().learn(wanted, trajectories, context, carried, rng)
        return replace(learnt, leader=_Raised(critic=learnt.leader, offset=self.offset))


def offset_cell(cell: Cell, configuration: Mapping[str, Any], checkpoint: Path) -> list[Row]:
    """Train BC-HG with one constant at one learning rate."""
    training = building_training(
        method="bc_hg",
        learning_rate=cell["learning_rate"],
        first_seed=cell["seed"],
        seeds=1,
        iterations=configuration["iterations"],
    )
    training = replace(training, critics=OffsetCritics(offset=cell["offset"]))
    return curve_rows(train(training, checkpoint=checkpoint, checkpoint_every=100), points=26, names=("objective",))


def _rows(folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    axes: list[tuple[str, Sequence[Any]]] = [
        ("offset", list(OFFSETS)),
        ("learning_rate", list(LEARNING_RATES)),
        ("seed", list(range(options.seeds))),
    ]
    configuration = {"iterations": options.iterations}
    found = run(Sweep(function=offset_cell, grid=Grid(axes=axes), folder=folder / "cells", configuration=configuration))
    kept = ("offset", "learning_rate", "seed", "iteration", "objective", "final_objective")
    return [{name: row[name] for name in kept} for row in found]


def _own(rows: Sequence[Row], offset: float, rate: float) -> list[Row]:
    return [row for row in rows if (row["offset"], row["learning_rate"]) == (offset, rate)]


def _table(rows: Sequence[Row], options: FigureOptions) -> str:
    head = ("added to the benefit", *(f"rate {rate}: end (worst … best)" for rate in LEARNING_RATES))
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for offset in OFFSETS:
        cells = [f"{offset:g}"]
        for rate in LEARNING_RATES:
            ends = np.array(list({row["seed"]: row["final_objective"] for row in _own(rows, offset, rate)}.values()))
            cells.append(f"{ends.mean():.1f} ({ends.min():.1f} … {ends.max():.1f})")
        lines.append(" | ".join(cells))
    published = [paper_end("return", rate, _TITLE) for rate in LEARNING_RATES]
    cells = ["the paper's", *("–" if end is None else f"{end[0]:.1f} ± {end[1]:.1f}" for end in published)]
    lines.append(" | ".join(cells))
    count = f"{options.seeds} seeds, {options.iterations} outer iterations"
    note = f"BC-HG with exact critics, {count}, otherwise as published."
    return "\n".join(f"| {line} |" for line in lines) + f"\n\n{note}"


def _draw(folder: Path, rows: Sequence[Row], options: FigureOptions) -> list[Path]:
    plt: Any = pyplot()
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.9), layout="constrained", sharey=True)
    for panel, rate in zip(axes, LEARNING_RATES, strict=True):
        curves = []
        for offset in OFFSETS:
            points, seeds = seed_curves(_own(rows, offset, rate), "objective")
            paper = paper_curve("return", rate, _TITLE) if offset == OFFSETS[-1] else None
            label = "exact benefit" if offset == 0.0 else f"benefit + {offset:g}"
            curves.append(Curve(label=label, colour=_COLOURS[offset], points=points, seeds=seeds, paper=paper))
        draw_curves(panel, curves)
        panel.set_ylim(-340.0, -155.0)
        panel.set_title(f"learning rate {rate}", fontsize=10, loc="left")
        panel.set_xlabel("outer iteration")
    axes[0].set_ylabel("leader's objective J; dashed: the paper's BC-HG")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    path = folder / "building-offset.png"
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return [path]


FIGURES = (
    Figure(
        name="building-offset",
        title="the building's BC-HG with a benefit that is too large by a constant, beside the paper's curves",
        seeds=3,
        iterations=2000,
        quick_seeds=1,
        quick_iterations=20,
        rows=_rows,
        table=_table,
        draw=_draw,
    ),
)
