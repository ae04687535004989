"""Training on Four-Rooms as the paper's Figures 2 and 6 show it: one panel is one cell of a sweep.

Variants of the kernels
-----------------------
"published": followers plan, and the objective is measured, in the kernel with .56 for the intended move; samples come
from the one with .67. That is what gives the published start values together with the published curves. "planner" and
"paper": one of the two everywhere.

A panel first chooses the step sizes of every method, on other seeds, and then trains the chosen ones at full length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bilevelrl.benchmarks.curves import curve_rows
from bilevelrl.benchmarks.four_rooms_selection import (
    SELECTION_SEEDS,
    SELECTION_SHARE,
    UNTUNED,
    Setting,
    choose,
    selection_runs,
)
from bilevelrl.benchmarks.sweep_grid import Cell, Grid
from bilevelrl.benchmarks.sweeps import Sweep
from bilevelrl.estimators.training import METHODS, Run, Training, published_simulator, train
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError
from bilevelrl.tasks import four_rooms

__all__ = ["FIGURE_METHODS", "STREAMS", "VARIANTS", "panel_cell", "panel_sweep", "panel_training", "seeds_of"]

VARIANTS = ("published", "planner", "paper")
"""Which kernel plans and which samples; see the module."""

FIGURE_METHODS = ("bc_hg", "hpgd_mc", "hpgd_sa", "hpgd_oracle", "naive_pgd", "sobirl", "exact")
"""Methods of a panel; exact ascent is the control, which the paper does not show."""

STREAMS: Mapping[int, int] = MappingProxyType({100: 1, 200: 1, 400: 2, 1000: 5})
"""Streams by the number of steps in a batch, as published."""

MOST_SEEDS: Mapping[str, int] = MappingProxyType({"hpgd_oracle": 3, "naive_pgd": 3, "sobirl": 3, "exact": 3})
"""Fewer seeds where one costs ten times the others', or where curves hardly depend on it."""

ONCE = ("hpgd_oracle", "exact")
"""Run with the smallest batches only: exact ascent has none, and an oracle is hardly helped by larger ones."""

REPORTED, SELECTION = "reported", "selection"


def seeds_of(method: str, seeds: int) -> range:
    """Return the reported seeds of a method.

    Examples
    --------
    >>> seeds_of("bc_hg", 10), seeds_of("exact", 10)
    (range(0, 10), range(0, 3))
    """
    return range(min(seeds, MOST_SEEDS.get(method, seeds)))


def panel_training(
    *,
    variant: str,
    temperature: float,
    batch_steps: int,
    methods: Sequence[str] = FIGURE_METHODS,
    seeds: int = 10,
    iterations: int = 10_000,
    settings: Mapping[str, Setting] = UNTUNED,
    runs: Sequence[Run] | None = None,
    entropy: int = 0,
) -> Training:
    """Return the training of one panel.

    Parameters
    ----------
    variant
        In `VARIANTS`.
    temperature
        The follower's β.
    batch_steps
        Sampled steps per outer iteration, a key of `STREAMS`.
    methods, seeds
        Names in `METHODS`, and how many seeds each has at most; see `seeds_of`.
    settings
        Step sizes by method.
    runs
        Instead of what methods, seeds and settings say.
    iterations, entropy
        Of the training.

    Raises
    ------
    UnknownNameError, InvalidInputError
        If a name is not known, or a number is not among the published ones.

    Examples
    --------
    >>> training = panel_training(variant="published", temperature=0.003, batch_steps=100, methods=["bc_hg"], seeds=2)
    >>> len(training.runs), training.steps, training.simulator.dynamics.name
    (2, 100, 'four_rooms(paper, temperature=0.003)')
    """
    if variant not in VARIANTS:
        raise UnknownNameError("variant", variant, VARIANTS)
    if batch_steps not in STREAMS:
        raise InvalidInputError(f"batch_steps={batch_steps!r}: expected one of {list(STREAMS)}; as published")
    problem = four_rooms(temperature=temperature, kernel="paper" if variant == "paper" else "planner")
    dynamics = four_rooms(temperature=temperature, kernel="paper") if variant == "published" else None
    if runs is None:
        runs = [
            Run(
                method=method,
                seed=seed,
                learning_rate=settings[method].learning_rate,
                critic_step_size=settings[method].critic_step_size,
            )
            for method in methods
            for seed in seeds_of(method, seeds)
        ]
    streams = STREAMS[batch_steps]
    return Training(
        problem=problem,
        runs=runs,
        iterations=iterations,
        streams=streams,
        steps=batch_steps // streams,
        simulator=published_simulator(dynamics),
        entropy=entropy,
    )


def panel_cell(cell: Cell, configuration: Mapping[str, Any], checkpoint: Path) -> list[dict[str, Any]]:
    """Choose settings, train one panel and return tidy rows: a curve per reported run, a score per selection run."""
    options = dict(configuration)
    points, search = int(options.pop("points")), int(options.pop("search_iterations"))
    if cell["batch_steps"] != min(STREAMS):
        options["methods"] = [method for method in options["methods"] if method not in ONCE]
    settings, scores = UNTUNED, []
    found = checkpoint.with_name(f"{checkpoint.stem}-selection.npz")
    if search:
        scores = _search(cell, options["methods"], search, options["entropy"], found)
        settings = {**UNTUNED, **choose(scores)}
    training = panel_training(**cell, **options, settings=settings)
    history = train(training, checkpoint=checkpoint, checkpoint_every=250)
    found.unlink(missing_ok=True)
    return [{"stage": REPORTED, **row} for row in _critics_only(curve_rows(history, points=points))] + [
        {"stage": SELECTION, **row} for row in _critics_only(scores)
    ]


def _search(cell: Cell, methods: Sequence[str], iterations: int, entropy: int, file: Path) -> list[dict[str, Any]]:
    runs = selection_runs({method: 1 if method in MOST_SEEDS else len(SELECTION_SEEDS) for method in methods})
    training = panel_training(**cell, runs=runs, iterations=iterations, entropy=entropy)
    history = train(training, checkpoint=file, checkpoint_every=250)
    scores = history.final(SELECTION_SHARE)
    return [
        {
            "method": run.method,
            "seed": run.seed,
            "learning_rate": run.learning_rate,
            "critic_step_size": run.critic_step_size,
            "iteration": iterations,
            "score": round(float(score), 6),
        }
        for run, score in zip(training.runs, scores, strict=True)
    ]


def _critics_only(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave α out where a method has no critic."""
    return [
        {**row, "critic_step_size": row["critic_step_size"] if METHODS[row["method"]].critic == "sarsa" else None}
        for row in rows
    ]


def panel_sweep(
    folder: Path,
    *,
    variants: Sequence[str] = ("published",),
    temperatures: Sequence[float] = (0.001, 0.003, 0.005),
    batches: Sequence[int] = (100,),
    methods: Sequence[str] = FIGURE_METHODS,
    seeds: int = 10,
    iterations: int = 10_000,
    search_iterations: int = 1000,
    entropy: int = 0,
    points: int = 50,
) -> Sweep:
    """Return the sweep over panels; see `panel_training`.

    Parameters
    ----------
    search_iterations
        Outer iterations of the runs that settings are chosen by; 0: settings are `UNTUNED`.
    points
        Of a thinned curve.
    """
    grid = Grid(
        axes=[("variant", list(variants)), ("batch_steps", list(batches)), ("temperature", list(temperatures))],
        known=("variant", "temperature", "batch_steps"),
    )
    configuration = {
        "methods": list(methods),
        "seeds": seeds,
        "iterations": iterations,
        "search_iterations": search_iterations,
        "entropy": entropy,
        "points": points,
    }
    return Sweep(function=panel_cell, grid=grid, folder=folder, configuration=configuration)
