"""Training on the toy Markov game as the paper's Figures 4 and 7 show it: one method at one setting is one cell.

A setting is how many actor and critic updates follow each batch. A variant says which of the things that the published
runs decided are undone: each by itself, or all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from bilevelrl.benchmarks.sweeping.curves import curve_rows
from bilevelrl.benchmarks.sweeping.sweep_grid import Cell, Grid
from bilevelrl.benchmarks.sweeping.sweeps import Sweep
from bilevelrl.estimators.followers import GameFollowerRule
from bilevelrl.estimators.training import PUBLISHED, SOUND, GameOptions, GameTraining, Run, train
from bilevelrl.reference import MarkovGame
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import UnknownNameError
from bilevelrl.tasks import toy_markov_game

__all__ = [
    "CONTROLS",
    "COUNTS",
    "FIGURE_METHODS",
    "SELECTED",
    "VARIANTS",
    "outer_iteration",
    "setting_cell",
    "setting_sweep",
    "setting_training",
]

FIGURE_METHODS = ("bc_hg", "naive_pgd", "naive_pgd_replay", "bi_ac", "bi_ac_replay")
"""The five methods of the paper."""

CONTROLS = ("exact_partial", "exact")
"""What Naive-PGD and BC-HG estimate, by the model."""

COUNTS = (1, 2, 5, 10, 20)
"""Updates of the grid, for actors and critics alike."""

SELECTED: Mapping[int, Mapping[str, tuple[int, int]]] = MappingProxyType(
    {
        1: MappingProxyType(
            {
                "bc_hg": (10, 1),
                "naive_pgd": (2, 10),
                "naive_pgd_replay": (5, 1),
                "bi_ac": (2, 10),
                "bi_ac_replay": (5, 1),
                "exact_partial": (2, 10),
                "exact": (10, 1),
            }
        ),
        2: MappingProxyType(
            {
                "bc_hg": (1, 1),
                "naive_pgd": (1, 20),
                "naive_pgd_replay": (1, 10),
                "bi_ac": (1, 5),
                "bi_ac_replay": (1, 5),
                "exact_partial": (1, 20),
                "exact": (1, 1),
            }
        ),
    }
)
"""By bonus R and method: the published updates; the controls step as often as what they are controls of."""

_PUBLISHED, _SOUND = PUBLISHED[MarkovGame], SOUND[MarkovGame]

VARIANTS: Mapping[str, GameOptions] = MappingProxyType(
    {
        "published": _PUBLISHED,
        "expected targets": replace(_PUBLISHED, targets="expected"),
        "τ per critic step": replace(_PUBLISHED, target_update="critic_step"),
        "τ = .1": replace(_PUBLISHED, target_rate=0.1),
        "τ = 1": replace(_PUBLISHED, target_rate=1.0),
        "best response": replace(_PUBLISHED, follower=GameFollowerRule()),
        "valid baseline": replace(_PUBLISHED, baseline="state_value"),
        "influence of 20 steps": replace(_PUBLISHED, influence_steps=20),
        "expected targets, τ = .1": replace(_PUBLISHED, targets="expected", target_rate=0.1),
        "sound": _SOUND,
        "sound, exact critic": replace(_SOUND, critic="exact"),
    }
)
"""What is undone of the published options, by name."""

LOGGED = (
    "objective",
    "discounted_return",
    "undiscounted_return",
    "probability",
    "logit_direction",
    "logit_truth",
    "expected_logit_direction",
    "expected_cosine",
    "cosine",
    "relative_error",
)

_AT_A = (1, 1)
"""The state and the leader action whose probability decides everything."""


def setting_training(
    *,
    bonus: int,
    methods: Sequence[str],
    actor_steps: int,
    critic_steps: int,
    variant: str = "published",
    seeds: int = 10,
    iterations: int = 500,
    evaluate_every: int = 5,
    entropy: int = 0,
) -> GameTraining:
    """Return the training of some methods at one setting, with the published networks and learning rates.

    Parameters
    ----------
    bonus
        R of the game.
    methods
        Names in `METHODS`.
    actor_steps, critic_steps
        Updates per outer iteration.
    variant
        A name in `VARIANTS`.
    seeds, iterations, evaluate_every, entropy
        Of the training.

    Raises
    ------
    UnknownNameError
        If a name is not known.

    Examples
    --------
    >>> training = setting_training(bonus=1, methods=["bc_hg"], actor_steps=10, critic_steps=1)
    >>> len(training.runs), training.ascent_steps, training.start().shape
    (10, 10, (10, 4546))
    """
    if variant not in VARIANTS:
        raise UnknownNameError("variant", variant, VARIANTS)
    return GameTraining(
        problem=toy_markov_game(float(bonus)),
        runs=[
            Run(method=method, seed=seed, learning_rate=1e-4, critic_step_size=1e-3)
            for method in methods
            for seed in range(seeds)
        ],
        iterations=iterations,
        ascent_steps=actor_steps,
        options=replace(VARIANTS[variant], critic_steps=critic_steps),
        evaluate_every=evaluate_every,
        probe=_AT_A,
        entropy=entropy,
    )


def outer_iteration(training: GameTraining) -> Callable[[], FloatArray]:
    """Return a function that makes one outer iteration of all runs, without evaluations, and returns θ.

    Examples
    --------
    >>> training = setting_training(bonus=1, methods=["bc_hg"], actor_steps=2, critic_steps=1, seeds=3)
    >>> outer_iteration(training)().shape
    (3, 4546)
    """
    world, thetas = training.world(training.generators()), training.start()
    rates = np.array([run.learning_rate for run in training.runs])
    state = training.optimiser.start(thetas.shape)
    world.prepare(thetas, 0)  # the first one solves followers from nothing
    world.finish(thetas)

    def iteration() -> FloatArray:
        nonlocal thetas, state
        world.prepare(thetas, 1)
        for step in range(training.ascent_steps):
            move, state = training.optimiser.step(world.direction(thetas, step), rates, state)
            thetas = thetas + move
        world.finish(thetas)
        return thetas

    return iteration


def setting_cell(cell: Cell, configuration: Mapping[str, Any], checkpoint: Path) -> list[dict[str, Any]]:
    """Train one method, or all of the configuration's, at one setting; return tidy rows: one per run and point."""
    options = {name: value for name, value in configuration.items() if name not in ("points", "selected")}
    asked = dict(cell)
    if configuration.get("selected"):
        asked["actor_steps"], asked["critic_steps"] = SELECTED[cell["bonus"]][cell["method"]]
    if "method" in asked:
        asked["methods"] = [asked.pop("method")]
    history = train(setting_training(**asked, **options), checkpoint=checkpoint)
    rows = curve_rows(history, points=int(configuration["points"]), names=LOGGED)
    finals = {name: history.final(name=name) for name in ("discounted_return", "undiscounted_return", "probability")}
    for place, row in enumerate(rows):
        run = place % len(history.training.runs)
        row.update({f"final_{name}": round(float(values[run]), 6) for name, values in finals.items()})
    return rows


def setting_sweep(
    folder: Path,
    *,
    bonuses: Sequence[int],
    methods: Sequence[str],
    settings: Sequence[tuple[str, Sequence[int]]] = (),
    variants: Sequence[str] = ("published",),
    seeds: int = 10,
    iterations: int = 500,
    points: int = 50,
    evaluate_every: int = 5,
) -> Sweep:
    """Return a sweep over bonuses, variants and methods at the selected settings, or over a grid of settings.

    A cell of the grid trains all methods together, which costs less.

    Parameters
    ----------
    folder
        Where results go.
    bonuses, methods, variants
        What varies.
    settings
        Axes "actor_steps" and "critic_steps" with their values; none: `SELECTED`.
    seeds, iterations, points, evaluate_every
        Of each training.
    """
    axes: list[tuple[str, Sequence[Any]]] = [("bonus", list(bonuses)), ("variant", list(variants))]
    axes += [(name, list(values)) for name, values in settings] if settings else [("method", list(methods))]
    known = ("bonus", "variant", "method", "actor_steps", "critic_steps")
    configuration = {
        "seeds": seeds,
        "iterations": iterations,
        "points": points,
        "evaluate_every": evaluate_every,
        "selected": not settings,
        **({"methods": list(methods)} if settings else {}),
    }
    return Sweep(function=setting_cell, grid=Grid(axes=axes, known=known), folder=folder, configuration=configuration)
