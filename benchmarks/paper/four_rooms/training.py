"""Training on Four-Rooms as the paper's Figures 2 and 6 show it: one panel is one cell of a sweep.

Variants of the kernels
-----------------------
"published": followers plan, and the objective is measured, in the kernel with .56 for the intended move; samples come
from the one with .67. That is what gives the published start values together with the published curves. "planner" and
"paper": one of the two everywhere.

Step sizes are those that `four_rooms_search` chose, panel by panel, on other seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bilevelrl.benchmarks.paper.four_rooms.selection import UNTUNED, Setting, chosen_settings
from bilevelrl.benchmarks.sweeping.curves import curve_rows
from bilevelrl.benchmarks.sweeping.sweep_grid import Cell, Grid
from bilevelrl.benchmarks.sweeping.sweeps import Sweep
from bilevelrl.estimators.training import METHODS, Run, Training, published_simulator, train
from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError
from bilevelrl.tasks import four_rooms

__all__ = [
    "FIGURE_METHODS",
    "MOST_SEEDS",
    "ORACLE",
    "STREAMS",
    "TEMPERATURES",
    "VARIANTS",
    "critics_only",
    "panel_cell",
    "panel_sweep",
    "panel_training",
    "seeds_of",
]

TEMPERATURES = (0.001, 0.003, 0.005)
"""The follower's β in the paper's panels."""

VARIANTS = ("published", "planner", "paper")
"""Which kernel plans and which samples; see the module."""

FIGURE_METHODS = ("bc_hg", "hpgd_mc", "hpgd_sa", "naive_pgd", "sobirl", "exact")
"""Methods of a panel; exact ascent is the control, which the paper does not show."""

ONE_BATCH_SIZE = ("exact", "sobirl")
"""Run with the smallest batches only: the one has no samples, the other is Naive-PGD where rewards ignore actions."""

ORACLE = "hpgd_oracle"
"""Ten times as dear as the others, so it has cells of its own, with batches of 100 steps."""

STREAMS: Mapping[int, int] = MappingProxyType({100: 1, 200: 1, 400: 2, 1000: 5})
"""Streams by the number of steps in a batch, as published."""

MOST_SEEDS: Mapping[str, int] = MappingProxyType({ORACLE: 3, "naive_pgd": 2, "sobirl": 2, "exact": 2})
"""Fewer seeds where curves hardly depend on them, and of the oracle."""


def seeds_of(method: str, seeds: int) -> range:
    """Return the reported seeds of a method.

    Examples
    --------
    >>> seeds_of("bc_hg", 10), seeds_of("exact", 10)
    (range(0, 10), range(0, 2))
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
    """Train one panel and return tidy rows: one per run and point of its curve."""
    options = dict(configuration)
    points, every = int(options.pop("points")), options.pop("settings")
    settings = {**UNTUNED}
    for method, (rate, step) in every.get(str(cell["batch_steps"]), {}).get(str(cell["temperature"]), {}).items():
        settings[method] = Setting(learning_rate=rate, critic_step_size=step)
    if cell["batch_steps"] != min(STREAMS):
        options["methods"] = [method for method in options["methods"] if method not in ONE_BATCH_SIZE]
    training = panel_training(**cell, **options, settings=settings)
    history = train(training, checkpoint=checkpoint, checkpoint_every=250)
    return critics_only(curve_rows(history, points=points))


def critics_only(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave α out of rows of methods that have no critic."""
    return [
        {
            **row,
            "critic_step_size": row["critic_step_size"]
            if METHODS[ConfigurableMDP][row["method"]].critic == "sarsa"
            else None,
        }
        for row in rows
    ]


def panel_sweep(
    folder: Path,
    *,
    variants: Sequence[str] = ("published",),
    temperatures: Sequence[float] = TEMPERATURES,
    batches: Sequence[int] = (100,),
    methods: Sequence[str] = FIGURE_METHODS,
    seeds: int = 10,
    iterations: int = 10_000,
    tuned: bool = True,
    entropy: int = 0,
    points: int = 50,
) -> Sweep:
    """Return the sweep over panels; see `panel_training`.

    Parameters
    ----------
    tuned
        False: step sizes are `UNTUNED`.
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
        "settings": {
            str(batch): {str(each): _plain(chosen_settings(each, batch)) for each in TEMPERATURES} for batch in STREAMS
        }
        if tuned
        else {},
        "entropy": entropy,
        "points": points,
    }
    return Sweep(function=panel_cell, grid=grid, folder=folder, configuration=configuration)


def _plain(settings: Mapping[str, Setting]) -> dict[str, list[float]]:
    return {name: [each.learning_rate, each.critic_step_size] for name, each in sorted(settings.items())}
