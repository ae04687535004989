"""`bilevelrl reproduce escape-leader`: leaders that learn the kernel and search, in every panel of Figure 6.

Every panel is a temperature and a number of sampled steps per outer iteration. The published methods take 10,000 outer
iterations; these leaders stop as soon as they have decided, and take fewer steps of the environment. They were tuned on
seeds 100 to 102, and are reported on seeds 0 to 9.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from bilevelrl.benchmarks.paper.four_rooms.training import STREAMS, VARIANTS
from bilevelrl.benchmarks.paper.paper_curves import paper_curve
from bilevelrl.benchmarks.research.escape.rivals import (
    PUBLISHED_METHODS,
    RIVALS,
    Rival,
    judge,
    own_rival,
    published_rival,
)
from bilevelrl.benchmarks.research.model_based import MODEL_METHODS, ModelTraining, Planner
from bilevelrl.benchmarks.sweeping.curves import pyplot, save_picture
from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row, SweepRunner
from bilevelrl.benchmarks.sweeping.sweep_grid import Cell, Grid
from bilevelrl.benchmarks.sweeping.sweep_store import read_table
from bilevelrl.benchmarks.sweeping.sweeps import Sweep
from bilevelrl.estimators.training import Run, published_simulator, train
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError
from bilevelrl.tasks import four_rooms
from bilevelrl.verification.commands import seed

__all__ = ["FIGURES", "SETTINGS", "leader_cell", "leader_training", "panel_ends"]


SETTINGS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "values_leader": MappingProxyType(
            {"iterations": 200, "plans": (159,), "planner": Planner(screened=400, kept=6, steps=150)}
        ),
        "model_leader": MappingProxyType(
            {
                "iterations": 6500,
                "plans": (3000, 3500, 4000, 4500, 5000, 5500),
                "decision": 5999,
                "pooling": 30.0,
                "planner": Planner(screened=250, kept=4, steps=150),
            }
        ),
        "model_ascent": MappingProxyType({"iterations": 3000, "learning_rate": 0.5, "largest_norm": 1.0}),
    }
)
"""What each leader was tuned to; ascent on the counted model, without a search, has the steps of exact ascent."""


TEMPERATURES = (0.001, 0.003, 0.005)


def leader_training(
    method: str,
    *,
    variant: str,
    temperature: float,
    batch_steps: int,
    seeds: Sequence[int],
    shortened: int = 1,
    entropy: int = 0,
) -> ModelTraining:
    """Return the training of a leader in one panel.

    Parameters
    ----------
    method
        A key of `SETTINGS`.
    variant, temperature, batch_steps
        Kernels, β and sampled steps per outer iteration of the panel.
    seeds
        Of the runs.
    shortened
        Divides all lengths, for trials.
    entropy
        Root of all random streams.

    Raises
    ------
    UnknownNameError, InvalidInputError
        If a name or a batch size is not known.

    Examples
    --------
    >>> training = leader_training(
    ...     "values_leader", variant="published", temperature=0.003, batch_steps=400, seeds=[0]
    ... )
    >>> training.iterations, training.streams, training.steps
    (200, 2, 200)
    """
    if method not in SETTINGS:
        raise UnknownNameError("method", method, SETTINGS)
    if variant not in VARIANTS:
        raise UnknownNameError("variant", variant, VARIANTS)
    if batch_steps not in STREAMS:
        raise InvalidInputError(f"batch_steps={batch_steps!r}: expected one of {list(STREAMS)}; as published")
    options = dict(SETTINGS[method])
    options["iterations"] = max(4, options["iterations"] // shortened)
    if "plans" in options:
        options["plans"] = tuple(sorted({plan // shortened for plan in options["plans"]}))
    rate, largest_norm = options.pop("learning_rate", 1.0), options.pop("largest_norm", np.inf)
    if options.get("decision") is not None:
        options["decision"] = max(options["decision"] // shortened, options["plans"][-1] + 1)
    dynamics = four_rooms(temperature=temperature, kernel="paper") if variant == "published" else None
    streams = STREAMS[batch_steps]
    return ModelTraining(
        problem=four_rooms(temperature=temperature, kernel="paper" if variant == "paper" else "planner"),
        runs=[Run(method=method, seed=seed, learning_rate=rate) for seed in seeds],
        largest_norm=largest_norm,
        streams=streams,
        steps=batch_steps // streams,
        simulator=published_simulator(dynamics),
        evaluate_every=10,
        entropy=entropy,
        **options,
    )


def leader_cell(cell: Cell, configuration: Mapping[str, Any], checkpoint: Path) -> list[Row]:
    """Train one leader in one panel and return a row per run."""
    seeds = range(configuration["first_seed"], configuration["first_seed"] + configuration["seeds"])
    training = leader_training(**cell, seeds=seeds, shortened=configuration["shortened"])
    history = train(training, checkpoint=checkpoint)
    final, promised = history.final(), history.values["model_objective"][-1]
    steps, cosine = history.values["environment_steps"][-1], history.values["cosine"][-1]
    return [
        {
            "seed": run.seed,
            "final_objective": round(float(final[row]), 5),
            "model_objective": round(float(promised[row]), 5),
            "model_cosine": round(float(cosine[row]), 5),
            "environment_steps": int(steps[row]),
            "iterations": training.iterations,
        }
        for row, run in enumerate(training.runs)
    ]


def panel_ends(rows: Sequence[Row]) -> dict[tuple[str, str, float, int], list[Row]]:
    """Return the rows of each (variant, method, temperature, batch_steps)."""
    found: dict[tuple[str, str, float, int], list[Row]] = {}
    for row in rows:
        found.setdefault((row["variant"], row["method"], row["temperature"], row["batch_steps"]), []).append(row)
    return found


def _table(rows: Sequence[Row], options: FigureOptions) -> str:
    head = ("kernels", "leader", "β", "steps", "runs", "mean ± 95 %", "environment steps", "best rival ± SE")
    titles = (*head, "difference ± joint 95 %", "verdict")
    lines = [" | ".join(titles), " | ".join("---" for _ in titles)]
    rivals = read_table(RIVALS) if RIVALS.exists() else []
    for (variant, method, temperature, batch_steps), own in panel_ends(rows).items():
        rival: Rival | None = published_rival(temperature, batch_steps)
        if variant == "paper":  # what the paper reports is measured in the other kernel
            rival = own_rival(rivals, temperature, batch_steps)
        ends, taken = np.array([row["final_objective"] for row in own]), own[0]["environment_steps"]
        cells = [variant, MODEL_METHODS[method], f"{temperature:g}", str(batch_steps), str(ends.size)]
        found = judge(ends, rival or Rival(name="none", mean=0.0, error=0.0, runs=2))
        cells += [f"{found.mean:.4f} ± {found.half_width:.4f}", f"{taken:,}"]
        if rival is None:
            cells += ["–"] * 3
        else:
            cells += [f"{rival.name} {rival.mean:.4f} ± {rival.error:.4f} ({rival.runs} seeds)"]
            cells += [f"{found.difference:+.4f} ± {found.joint:.4f}", "wins" if found.wins else "does not win"]
        lines.append(" | ".join(cells))
    table = "\n".join(f"| {line} |" for line in lines)
    return (
        f"{table}\n\nRivals: what the paper reports, in the planner's metric; in the paper's kernel, our own runs of "
        f"published methods, whose lengths and settings are in `{RIVALS.name}`."
    )


def _draw(folder: Path, rows: Sequence[Row], options: FigureOptions) -> list[Path]:
    """Draw a picture for each metric: the kernels "published" and "planner" share one."""
    written = []
    for name, wanted in (("planner", ("published", "planner")), ("paper", ("paper",))):
        own = [row for row in rows if row["variant"] in wanted]
        if own:
            written.append(folder / f"escape-leader-{name}.png")
            _draw_metric(written[-1], own)
    return written


def _draw_metric(path: Path, rows: Sequence[Row]) -> None:
    plt = pyplot()
    panels = panel_ends(rows)
    temperatures = sorted({key[2] for key in panels})
    variants = list(dict.fromkeys(key[0] for key in panels))
    figure, axes = plt.subplots(
        1, len(temperatures), figsize=(4.2 * len(temperatures), 3.8), squeeze=False, layout="constrained"
    )
    for axis, temperature in zip(axes[0], temperatures, strict=True):
        for name in PUBLISHED_METHODS if set(variants) != {"paper"} else ():
            means = [paper_curve(temperature, steps, name).final_mean for steps in STREAMS]
            colour, width, label = "#aaaaaa", 1.0, "the others, the paper's" if name == PUBLISHED_METHODS[1] else None
            if name == PUBLISHED_METHODS[0]:
                colour, width, label = "#c2410c", 1.6, f"{name}, the paper's"
            axis.plot(range(len(STREAMS)), means, color=colour, lw=width, marker=".", ms=4, label=label, zorder=1)
        for (variant, method, own, steps), found in panels.items():
            if own != temperature:
                continue
            ends = np.array([row["final_objective"] for row in found])
            colour = {"planner": "#1769aa", "published": "#2e7d32", "paper": "#8e24aa"}[variant]
            marker = {"values_leader": "o", "model_leader": "s", "model_ascent": "v"}[method]
            place = list(STREAMS).index(steps) + 0.1 * (variants.index(variant) - 1)
            first = steps == min(key[3] for key in panels)
            label = f"{MODEL_METHODS[method]}, kernels: {variant}" if first else None
            axis.errorbar(
                place,
                ends.mean(),
                yerr=[[ends.mean() - ends.min()], [ends.max() - ends.mean()]],
                color=colour,
                marker=marker,
                ms=5,
                lw=1,
                mfc="none",
                label=label,
                zorder=3,
            )
        axis.set_xticks(range(len(STREAMS)), [str(steps) for steps in STREAMS])
        axis.set_xlabel("sampled steps per outer iteration")
        axis.set_title(f"β = {temperature:g}", loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("leader's objective J at the end")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    save_picture(figure, path, dpi=110)
    plt.close(figure)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--variant", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), help="kernels")
    parser.add_argument(
        "--temperature", type=float, nargs="+", choices=TEMPERATURES, default=list(TEMPERATURES), metavar="β"
    )
    parser.add_argument(
        "--batch-steps", type=int, nargs="+", choices=list(STREAMS), default=list(STREAMS), help="per iteration"
    )
    parser.add_argument("--method", nargs="+", choices=list(SETTINGS), default=["values_leader"])
    parser.add_argument("--first-seed", type=seed, default=0, help="seeds are counted from here (default 0)")


def _rows(folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    own = options.own
    grid = Grid(
        axes=[
            ("method", list(own["method"])),
            ("variant", list(own["variant"])),
            ("temperature", list(own["temperature"])),
            ("batch_steps", [100] if options.quick else list(own["batch_steps"])),
        ],
        known=("method", "variant", "temperature", "batch_steps"),
    )
    shortened = max(1, SETTINGS["values_leader"]["iterations"] // options.iterations)
    configuration = {"seeds": options.seeds, "first_seed": own["first_seed"], "shortened": shortened}
    return run(Sweep(function=leader_cell, grid=grid, folder=folder / "cells", configuration=configuration))


FIGURES = (
    Figure(
        name="escape-leader",
        title="leaders that learn the kernel and search, in every panel of Figure 6",
        seeds=10,
        iterations=200,
        quick_seeds=2,
        quick_iterations=100,
        rows=_rows,
        table=_table,
        draw=_draw,
        arguments=_arguments,
    ),
)
