"""`bilevelrl reproduce escape-leader`: leaders that learn the kernel and search, in every panel of Figure 6.

Every panel is a temperature and a number of sampled steps per outer iteration. The published methods take 10,000 outer
iterations; these leaders stop as soon as they have decided, and take fewer steps of the environment. They were tuned on
seeds 100 to 102, and are reported on seeds 0 to 9.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy import stats

from bilevelrl.benchmarks.paper.four_rooms.training import STREAMS, VARIANTS
from bilevelrl.benchmarks.paper.paper_curves import PAPER_SEEDS, paper_curve
from bilevelrl.benchmarks.research.model_based import MODEL_METHODS, ModelTraining, Planner
from bilevelrl.benchmarks.sweeping.curves import pyplot, save_picture
from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row, SweepRunner
from bilevelrl.benchmarks.sweeping.sweep_grid import Cell, Grid
from bilevelrl.benchmarks.sweeping.sweep_store import read_table
from bilevelrl.benchmarks.sweeping.sweeps import Sweep
from bilevelrl.estimators.training import METHODS, Run, published_simulator, train
from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError
from bilevelrl.tasks import four_rooms
from bilevelrl.verification.commands import seed

__all__ = [
    "FIGURES",
    "PUBLISHED_METHODS",
    "RIVALS",
    "SETTINGS",
    "Rival",
    "Verdict",
    "judge",
    "leader_cell",
    "leader_training",
    "own_rival",
    "panel_ends",
    "published_rival",
]

PUBLISHED_METHODS = ("BC-HG", "HPGD (MC)", "HPGD (SA)", "SoBiRL", "Naive-PGD")
"""Published methods that see no oracle."""

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

RIVALS = Path(str(resources.files("bilevelrl.benchmarks"))) / "data" / "four_rooms_rivals.csv"
"""Our runs of published methods in the paper's kernel, in whose metric the paper reports nothing."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """The best of the published methods in one panel.

    Attributes
    ----------
    name : str
        Its title.
    mean, error : float
        Of its ends, with the standard error.
    runs : int
        Seeds.
    """

    name: str
    mean: float
    error: float
    runs: int


def published_rival(temperature: float, batch_steps: int) -> Rival:
    """Return the best published curve's end, as the paper reports it, in the planner's metric.

    Examples
    --------
    >>> published_rival(0.001, 100).name
    'BC-HG'
    """
    curves = {name: paper_curve(temperature, batch_steps, name) for name in PUBLISHED_METHODS}
    best = max(curves, key=lambda name: curves[name].final_mean)
    return Rival(name=best, mean=curves[best].final_mean, error=curves[best].final_standard_error, runs=PAPER_SEEDS)


def own_rival(rows: Sequence[Row], temperature: float, batch_steps: int) -> Rival | None:
    """Return the best of our own runs of published methods in a panel, with their best settings, if there are any.

    Parameters
    ----------
    rows
        Of `RIVALS`: one per method, setting and seed.
    temperature, batch_steps
        Of the panel.
    """
    ends: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        if (row["temperature"], row["batch_steps"]) == (temperature, batch_steps):
            setting = row["learning_rate"], row["critic_step_size"]
            ends.setdefault((METHODS[ConfigurableMDP][row["method"]].title, *setting), []).append(
                row["final_objective"]
            )
    if not ends:
        return None
    best = max(ends, key=lambda each: float(np.mean(ends[each])))
    found = np.array(ends[best])
    error = float(found.std(ddof=1) / np.sqrt(found.size)) if found.size > 1 else float("inf")
    return Rival(name=best[0], mean=float(found.mean()), error=error, runs=found.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A leader in one panel, against a rival.

    Attributes
    ----------
    runs : int
        Seeds.
    mean, half_width : float
        Of the ends, with half of the 95 % interval of the mean (Student's t).
    difference, joint : float
        Of the means, and half of its joint 95 % interval (Welch's t).
    """

    runs: int
    mean: float
    half_width: float
    difference: float
    joint: float

    @property
    def wins(self) -> bool:
        """Whether the difference is positive by more than its joint interval."""
        return self.difference > self.joint


def judge(ends: FloatArray, rival: Rival) -> Verdict:
    """Compare ends of runs with a rival's.

    Examples
    --------
    >>> verdict = judge(np.array([0.66, 0.72, 0.78]), published_rival(0.001, 100))
    >>> round(verdict.difference, 3), verdict.wins
    (0.053, False)
    """
    mean, error = float(ends.mean()), float(ends.std(ddof=1) / np.sqrt(ends.size)) if ends.size > 1 else float("inf")
    joint = float(np.hypot(error, rival.error))
    half, joint_half = float("inf"), float("inf")
    if np.isfinite(joint):
        half = float(stats.t.ppf(0.975, ends.size - 1)) * error
        parts = error**4 / (ends.size - 1) + rival.error**4 / (rival.runs - 1)
        freedom = joint**4 / parts if parts > 0.0 else 1.0
        joint_half = float(stats.t.ppf(0.975, freedom)) * joint
    return Verdict(
        runs=int(ends.size),
        mean=mean,
        half_width=half,
        difference=mean - rival.mean,
        joint=joint_half,
    )


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
