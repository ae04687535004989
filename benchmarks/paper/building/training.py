"""Training on the building: published methods and mended ones, with critics by least squares or as published.

One cell of a sweep is one method at one learning rate with one kind of critic. Everything else is as published: batches
of 100 episodes of 100 steps, θ_0 near zero, plain ascent, the insulation's and the airflow's half of each direction
shortened to norm 1 on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bilevelrl.benchmarks.sweeping.curves import curve_rows
from bilevelrl.benchmarks.sweeping.figures import Row
from bilevelrl.benchmarks.sweeping.sweep_grid import Cell, Grid
from bilevelrl.benchmarks.sweeping.sweeps import Sweep
from bilevelrl.estimators.training import (
    CriticRule,
    ExactCritics,
    LeastSquaresCritics,
    LQRTraining,
    NetworkCritics,
    Run,
    train,
)
from bilevelrl.reference.errors import UnknownNameError
from bilevelrl.tasks import building_thermal_control

__all__ = ["CRITICS", "LEARNING_RATES", "SELECTED", "building_cell", "building_sweep", "building_training"]

LEARNING_RATES = (0.1, 0.01, 0.001)
"""Of the paper's grid."""

SELECTED: Mapping[str, float] = MappingProxyType({"bc_hg": 0.1, "naive_pgd": 0.1, "hpgd_mc": 0.001, "hpgd_td": 0.01})
"""The learning rate that the paper shows for each method."""

CRITICS: Mapping[str, Callable[[], CriticRule]] = MappingProxyType(
    {
        "least_squares": LeastSquaresCritics,
        "least_squares_unweighed": lambda: LeastSquaresCritics(weighting="none"),
        "exact": ExactCritics,
        "published_network": NetworkCritics,
        "short_network": lambda: NetworkCritics(steps=300, learning_rate=2e-3, actions=32),
        "warm_network": lambda: NetworkCritics(steps=100, learning_rate=1e-3, warm_start=True, actions=16),
    }
)
"""Where critics come from: the published network takes 5,000 whole-batch steps, anew in every outer iteration.

The short one reaches about the same temporal-difference error in 300 steps of 20 times the size, at a sixteenth of the
cost.
"""

_NAMES = (
    "objective",
    "gradient_norm",
    "cosine",
    "relative_error",
    "state_cost",
    "action_cost",
    *(f"theta_{i}" for i in range(8)),
)


def building_training(
    *,
    method: str,
    learning_rate: float,
    critics: str = "least_squares",
    seeds: int = 10,
    first_seed: int = 0,
    iterations: int = 2000,
    streams: int = 100,
    separate_critics: bool = False,
    evaluate_every: int = 10,
    entropy: int = 0,
) -> LQRTraining:
    """Return the training of one method.

    Parameters
    ----------
    method, learning_rate
        A name in `METHODS`, and its step size.
    critics
        A name in `CRITICS`.
    seeds, first_seed
        How many runs, and the number of the first.
    iterations, streams, separate_critics, evaluate_every, entropy
        As in `LQRTraining`.

    Raises
    ------
    UnknownNameError, InvalidInputError
        If a name is not known, or a number out of range.

    Examples
    --------
    >>> training = building_training(method="bc_hg", learning_rate=0.1, seeds=3)
    >>> len(training.runs), training.clip_blocks, training.streams * training.steps
    (3, (4, 4), 10000)
    """
    if critics not in CRITICS:
        raise UnknownNameError("critics", critics, CRITICS)
    return LQRTraining(
        problem=building_thermal_control(),
        runs=[Run(method=method, seed=first_seed + seed, learning_rate=learning_rate) for seed in range(seeds)],
        iterations=iterations,
        clip_blocks=(4, 4),
        critics=CRITICS[critics](),
        streams=streams,
        separate_critics=separate_critics,
        evaluate_every=evaluate_every,
        entropy=entropy,
    )


def building_cell(cell: Cell, configuration: Mapping[str, Any], checkpoint: Path) -> list[Row]:
    """Train one cell and return tidy rows: one per run and point of its curve."""
    options = {name: value for name, value in {**configuration, **cell}.items() if name not in ("points", "every")}
    training = building_training(**options)
    history = train(training, checkpoint=checkpoint, checkpoint_every=int(configuration.get("every", 50)))
    return curve_rows(history, points=int(configuration.get("points", 50)), names=_NAMES)


def building_sweep(
    folder: Path,
    *,
    methods: Sequence[str],
    learning_rates: Sequence[float],
    critics: Sequence[str] = ("least_squares",),
    first_seeds: Sequence[int] = (0,),
    configuration: Mapping[str, Any],
) -> Sweep:
    """Return the sweep over methods, learning rates, kinds of critics and groups of seeds.

    Parameters
    ----------
    folder
        Where results go.
    methods, learning_rates, critics, first_seeds
        Axes of the sweep.
    configuration
        What all cells share: arguments of `building_training`, `points` of a curve, `every` how many outer iterations a
        checkpoint is written.
    """
    grid = Grid(
        axes=[
            ("critics", list(critics)),
            ("learning_rate", list(learning_rates)),
            ("first_seed", list(first_seeds)),
            ("method", list(methods)),
        ]
    )
    return Sweep(function=building_cell, grid=grid, folder=folder, configuration=dict(configuration))
