"""Training on Four-Rooms as the paper's Figures 2 and 6 show it: one panel is one cell of a sweep.

Variants of the kernels
-----------------------
"published": followers plan, and the objective is measured, in the kernel with .56 for the intended move; samples come
from the one with .67. That is what gives the published start values together with the published curves. "planner" and
"paper": one of the two everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bilevelrl.benchmarks.curves import curve_rows
from bilevelrl.benchmarks.sweep_grid import Cell, Grid
from bilevelrl.benchmarks.sweeps import Sweep
from bilevelrl.estimators.training import Run, Training, published_simulator, train
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError
from bilevelrl.tasks import four_rooms

__all__ = ["FIGURE_METHODS", "STREAMS", "VARIANTS", "panel_cell", "panel_sweep", "panel_training"]

VARIANTS = ("published", "planner", "paper")
"""Which kernel plans and which samples; see the module."""

FIGURE_METHODS = ("bc_hg", "hpgd_mc", "hpgd_sa", "naive_pgd", "sobirl", "exact")
"""Methods of a panel; exact ascent is the control, which the paper does not show."""

STREAMS: Mapping[int, int] = MappingProxyType({100: 1, 200: 1, 400: 2, 1000: 5})
"""Streams by the number of steps in a batch, as published."""

FEW_SEEDS = 3
_HARDLY_RANDOM = ("naive_pgd", "sobirl", "exact")
_LEARNING_RATES: Mapping[str, float] = MappingProxyType({"exact": 0.5})


def panel_training(
    *,
    variant: str,
    temperature: float,
    batch_steps: int,
    methods: Sequence[str] = FIGURE_METHODS,
    seeds: int = 5,
    iterations: int = 10_000,
    learning_rate: float = 0.1,
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
    methods
        Names in `METHODS`.
    seeds
        Of each method; at most 3 of those whose curves hardly depend on the seed.
    iterations, learning_rate, entropy
        Of the training; exact ascent steps with 0.5.

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
    runs = [
        Run(method=method, seed=seed, learning_rate=_LEARNING_RATES.get(method, learning_rate))
        for method in methods
        for seed in range(min(seeds, FEW_SEEDS) if method in _HARDLY_RANDOM else seeds)
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
    options = {name: value for name, value in configuration.items() if name != "points"}
    training = panel_training(**cell, **options)
    history = train(training, checkpoint=checkpoint, checkpoint_every=250)
    return curve_rows(history, points=int(configuration.get("points", 50)))


def panel_sweep(
    folder: Path,
    *,
    variants: Sequence[str] = ("published",),
    temperatures: Sequence[float] = (0.001, 0.003, 0.005),
    batches: Sequence[int] = (100,),
    methods: Sequence[str] = FIGURE_METHODS,
    seeds: int = 5,
    iterations: int = 10_000,
    entropy: int = 0,
    points: int = 50,
) -> Sweep:
    """Return the sweep over panels; see `panel_training`."""
    grid = Grid(
        axes=[("variant", list(variants)), ("temperature", list(temperatures)), ("batch_steps", list(batches))],
        known=("variant", "temperature", "batch_steps"),
    )
    configuration = {
        "methods": list(methods),
        "seeds": seeds,
        "iterations": iterations,
        "entropy": entropy,
        "points": points,
    }
    return Sweep(function=panel_cell, grid=grid, folder=folder, configuration=configuration)
