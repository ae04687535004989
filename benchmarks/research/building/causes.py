"""What stops each published estimator on the building: one cause at a time, against the exact hypergradient.

Every arm is a method with one kind of critic. At θ = 0 many batches give its error, and its gain: how much of the
first-order progress of exact ascent one clipped step of it makes on average,

    gain = E⟨clip(ĝ), ∇J⟩ / ⟨clip(∇J), ∇J⟩,

1 for the exact gradient and 0 for pure noise. Then each arm trains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bilevelrl.benchmarks.paper.building.training import building_training
from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row, SweepRunner
from bilevelrl.benchmarks.sweeping.sweep_grid import Cell, Grid
from bilevelrl.benchmarks.sweeping.sweeps import Sweep
from bilevelrl.estimators.sums import clip_to_norm
from bilevelrl.estimators.training import METHODS, gradient_errors, train
from bilevelrl.reference import ConfigurableLQR, hypergradient, named_stream
from bilevelrl.reference.arrays import FloatArray

__all__ = ["ARMS", "Arm", "arm_cell", "first_directions", "gains"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One estimator with one kind of critic.

    Attributes
    ----------
    method, critics : str
        Names in `METHODS` and `CRITICS`.
    separate : bool
        Whether critics learn from a batch of their own.
    change : str
        What differs from the line it is compared with.
    trains : bool
        False: only errors and gains are measured, over half as many batches.
    """

    method: str
    critics: str = "least_squares"
    separate: bool = False
    change: str = ""
    trains: bool = True

    @property
    def name(self) -> str:
        """A unique name."""
        return f"{self.method}/{self.critics}" + ("/separate" if self.separate else "")


ARMS: tuple[Arm, ...] = (
    Arm(method="naive_pgd", change="as published"),
    Arm(method="naive_pgd_centred", change="scores whole, V_L less its expectation"),
    Arm(method="exact_partial", change="no noise: the partial gradient itself"),
    Arm(method="bc_hg", change="as published"),
    Arm(method="bc_hg", critics="exact", change="exact critic"),
    Arm(method="bc_hg", separate=True, change="critic from another batch"),
    Arm(method="bc_hg", critics="short_network", change="critic a network", trains=False),
    Arm(method="bc_hg_whole_scores", change="scores whole"),
    Arm(method="bc_hg_centred", change="scores whole, V_L and V_F less their expectations"),
    Arm(method="hpgd_centred", change="the same less a learnt ∇V_F"),
    Arm(method="bc_hg_pathwise", change="derivatives along the path in place of scores"),
    Arm(method="policy_covariance", change="covariance over the policy in closed form"),
    Arm(method="policy_covariance", critics="exact", change="the same, exact critics"),
    Arm(method="policy_covariance", critics="least_squares_unweighed", change="all transitions weighed alike"),
    Arm(method="policy_covariance_scores", change="∇Q_F learnt from V_F times scores"),
    Arm(method="hpgd_mc", change="as published: raw return"),
    Arm(method="hpgd_td", change="as published: raw Q_L"),
    Arm(method="hpgd_td_benefit", change="benefit in place of raw Q_L"),
    Arm(method="exact", change="no noise: the hypergradient itself"),
)
"""What is compared, each line with one before it."""


def first_directions(arm: Arm, *, batches: int, entropy: int = 0) -> FloatArray:
    """Return the directions (batches, N) that independent batches give at θ = 0, unclipped.

    Examples
    --------
    >>> first_directions(Arm(method="policy_covariance"), batches=2).shape
    (2, 8)
    """
    training = building_training(
        method=arm.method,
        learning_rate=0.1,
        critics=arm.critics,
        separate_critics=arm.separate,
        seeds=batches,
        iterations=1,
        entropy=entropy,
    )
    world = training.world([named_stream(entropy, "building causes", arm.name, row) for row in range(batches)])
    thetas = np.zeros((batches, training.parameters))
    world.prepare(thetas, 0)
    return world.direction(thetas, 0)


def gains(directions: FloatArray, truth: FloatArray, blocks: Sequence[int]) -> FloatArray:
    """Return the gain of every direction, (batches,); see the module.

    Examples
    --------
    >>> truth = np.array([3.0, 4.0])
    >>> gains(np.array([[30.0, 40.0], [-3.0, -4.0]]), truth, (1, 1))
    array([ 1., -1.])
    """
    along: FloatArray = clip_to_norm(directions, 1.0, blocks) @ truth
    best = float(clip_to_norm(truth[None], 1.0, blocks)[0] @ truth)
    return along / best


def arm_cell(cell: Cell, configuration: Mapping[str, Any], checkpoint: Path) -> list[Row]:
    """Measure one arm, and train it."""
    arm = next(arm for arm in ARMS if arm.name == cell["arm"])
    directions = first_directions(arm, batches=configuration["batches"] // (1 if arm.trains else 2))
    training = building_training(
        method=arm.method,
        learning_rate=0.1,
        critics=arm.critics,
        separate_critics=arm.separate,
        seeds=configuration["seeds"],
        iterations=configuration["iterations"],
        evaluate_every=20,
    )
    truth = hypergradient(training.problem, np.zeros(training.parameters)).value
    errors = gradient_errors(directions, np.broadcast_to(truth, directions.shape))
    mean = directions.mean(axis=0)
    noise = np.sqrt(directions.var(axis=0, ddof=1).sum() / len(directions))
    gained = gains(directions, truth, training.clip_blocks)
    ends: FloatArray = np.zeros(0)
    if arm.trains:
        ends = train(training, checkpoint=checkpoint, checkpoint_every=50).final()
    size = float(np.linalg.norm(truth))
    return [
        {
            "arm": arm.name,
            "method": arm.method,
            "critics": arm.critics,
            "separate_critics": arm.separate,
            "change": arm.change,
            "batches": len(directions),
            "relative_rms_error": _short(np.sqrt(np.mean(errors["relative_error"] ** 2))),
            "relative_bias": _short(np.linalg.norm(mean - truth) / size),
            "relative_bias_noise": _short(noise / size),
            "cosine_of_mean": _short(gradient_errors(mean[None], truth[None])["cosine"][0]),
            "mean_cosine": _short(errors["cosine"].mean()),
            "gain": _short(gained.mean()),
            "gain_error": _short(gained.std(ddof=1) / np.sqrt(len(gained))),
            "seeds": len(ends),
            "iterations": training.iterations,
            "end": round(float(ends.mean()), 2) if ends.size else None,
            "worst_end": round(float(ends.min()), 2) if ends.size else None,
            "best_end": round(float(ends.max()), 2) if ends.size else None,
        }
    ]


def _short(value: Any) -> float:
    return float(f"{float(value):.4g}")


def _rows(folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    configuration = {
        "batches": 20 if options.quick else 200,
        "seeds": options.seeds,
        "iterations": options.iterations,
    }
    grid = Grid(axes=[("arm", [arm.name for arm in ARMS])])
    return run(Sweep(function=arm_cell, grid=grid, folder=folder / "cells", configuration=configuration))


_HEAD = (
    "estimator",
    "what differs",
    "critics",
    "relative error (r.m.s.)",
    "cosine of a batch",
    "gain of a step",
    "end (worst … best)",
)


def _table(rows: Sequence[Row], options: FigureOptions) -> str:
    lines = [" | ".join(_HEAD), " | ".join("---" for _ in _HEAD)]
    for row in rows:
        critics = row["critics"].replace("_", " ") + (", own batch" if row["separate_critics"] else "")
        if row["method"].startswith("exact"):
            critics = "–"
        cells = (
            METHODS[ConfigurableLQR][row["method"]].title,
            row["change"],
            critics,
            f"{row['relative_rms_error']:.3g}",
            f"{row['mean_cosine']:+.3f}",
            f"{row['gain']:+.3f} ± {row['gain_error']:.3f}",
            "–" if row["end"] is None else f"{row['end']:.1f} ({row['worst_end']:.1f} … {row['best_end']:.1f})",
        )
        lines.append(" | ".join(cells))
    first = rows[0]
    note = (
        f"Errors, cosines and gains at θ = 0 over {first['batches']} batches of 10,000 transitions (half of them "
        "for arms that do not train); the gain is the "
        "share of exact ascent's first-order progress that a clipped step makes, with its standard error. Ends: mean "
        f"over the last 5 % of {first['iterations']} outer iterations at learning rate 0.1, {first['seeds']} seeds. "
        "The optimum is -162.5."
    )
    return "\n".join(f"| {line} |" for line in lines) + f"\n\n{note}"


FIGURES = (
    Figure(
        name="building-causes",
        title="what stops each estimator on the building, one cause at a time",
        seeds=3,
        iterations=300,
        quick_seeds=1,
        quick_iterations=10,
        rows=_rows,
        table=_table,
    ),
)
