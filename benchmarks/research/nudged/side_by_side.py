"""Training nudged followers beside BC-HG with a learnt critic, at equal numbers of environment steps.

Nudged followers play one episode each, paid ±3β; what that takes is the exact expectation of the length of the paid
populations' episodes at every θ that is evaluated. Learning rates are chosen on other seeds than are reported, in a
fifth of the iterations.

*Four-Rooms*: everything happens in the planner's kernel, where the hypergradient is the truth. BC-HG samples a hundred
steps per outer iteration, and has the step sizes that the search of Figure 2 chose.

*The toy game*, R = 1, as the configurable MDP that it reduces to: its states are (s, l), and θ, one logit per
state, moves the transitions. Episodes are cut after two hundred steps; what the cut takes away is a bias of all methods
alike. All choose their rates, BC-HG with a critic whose step size is a half.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from bilevelrl.benchmarks.paper.four_rooms.selection import SELECTION_SEEDS, Setting, chosen_settings
from bilevelrl.benchmarks.paper.four_rooms.training import panel_training
from bilevelrl.benchmarks.sweeping.curves import curve_rows
from bilevelrl.benchmarks.sweeping.figures import Row
from bilevelrl.benchmarks.sweeping.sweep_grid import Cell
from bilevelrl.estimators import Context, TabularSimulator, sample_trajectories
from bilevelrl.estimators.methods import NudgedFollowers
from bilevelrl.estimators.training import METHODS, Evaluation, Run, Training, train
from bilevelrl.reference import ConfigurableMDP, solve_follower
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.game import reduce_game
from bilevelrl.reference.storage import write_atomically
from bilevelrl.tasks import toy_markov_game

__all__ = [
    "BATCH_STEPS",
    "METHODS_SHOWN",
    "RATES",
    "TOY_STEPS",
    "StepCounts",
    "four_rooms_cell",
    "steps_of_an_iteration",
    "toy_game_cell",
]

Trainer: TypeAlias = Callable[[Sequence[Run], int], Training]
"""Runs and outer iterations → their training."""

METHODS_SHOWN = ("bc_hg", "bc_hg_exact_benefit", "nudged", "nudged_common", "exact")
BATCH_STEPS = 100
TOY_STEPS = 200
RATES = (0.5, 0.1, 0.02)
"""Learning rates to choose from."""

_EVERY = 50


def steps_of_an_iteration(problem: ConfigurableMDP, theta: FloatArray, estimator: Any, steps: int) -> float:
    """Return how many environment steps one estimate takes in expectation, with one stream of each population."""
    if not isinstance(estimator, NudgedFollowers):
        return float(steps)
    context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    stream = sample_trajectories(problem, theta, context.follower, streams=1, steps=steps, rng=np.random.default_rng(0))
    paid = estimator.cost(stream, context)["environment_steps"]
    return float(paid)


@dataclass(slots=True)
class StepCounts:
    """Environment steps of every run up to each evaluation, kept beside the checkpoint.

    Attributes
    ----------
    training
        Whose runs.
    path
        A file that is continued from where it exists.
    taken
        {iteration: steps of one outer iteration there, by run}.
    """

    training: Training
    path: Path
    taken: dict[int, list[float]]

    @classmethod
    def of(cls, training: Training, path: Path) -> StepCounts:
        """Return the counts that a file has, if there is one."""
        kept = json.loads(path.read_text()) if path.exists() else {}
        return cls(training, path, {int(iteration): steps for iteration, steps in kept.items()})

    def __call__(self, evaluation: Evaluation) -> None:
        """Count at an evaluation's θ."""
        problem, methods = self.training.problem, METHODS[ConfigurableMDP]
        pairs = zip(self.training.runs, evaluation.thetas, strict=True)
        made = [(methods[run.method].make, theta) for run, theta in pairs]
        self.taken[evaluation.iteration] = [
            steps_of_an_iteration(problem, theta, make(None), self.training.steps) if make else 0.0
            for make, theta in made
        ]
        write_atomically(self.path, json.dumps(self.taken))

    def until(self, iteration: int) -> FloatArray:
        """Return the steps of every run before an evaluated outer iteration, (runs,)."""
        places = [each for each in sorted(self.taken) if each <= iteration]
        lengths = np.diff(places)
        counts = np.array([self.taken[each] for each in places])
        total: FloatArray = lengths @ (0.5 * (counts[:-1] + counts[1:])) if len(places) > 1 else 0.0 * counts[0]
        return total


def _trained(training: Training, iterations: int, path: Path) -> tuple[Any, StepCounts]:
    training = replace(training, evaluate_every=min(_EVERY, max(1, iterations // 20)))
    counts = StepCounts.of(training, path.with_name(f"{path.stem}-steps.json"))
    history = train(training, checkpoint=path, checkpoint_every=250, callbacks=[counts])
    return history, counts


def _chosen_rate(method: str, training: Trainer, configuration: Mapping[str, Any], checkpoint: Path) -> float:
    """Return the rate with the best mean end over the selection seeds."""
    seeds = SELECTION_SEEDS[: configuration["selection_seeds"]]
    runs = [Run(method=method, seed=seed, learning_rate=rate) for rate in RATES for seed in seeds]
    path, iterations = checkpoint.with_name(f"{checkpoint.stem}-selection.npz"), configuration["iterations"]
    iterations = max(20, iterations // 5)
    history, _ = _trained(training(runs, iterations), iterations, path)
    ends = history.final(0.1).reshape(len(RATES), -1).mean(axis=1)
    return RATES[int(np.argmax(ends))]


def _rows(
    method: str,
    training: Trainer,
    setting: Setting,
    configuration: Mapping[str, Any],
    checkpoint: Path,
    *,
    chooses: bool,
) -> list[Row]:
    """Train one method; return a row for each run and point of its curve."""
    rate = _chosen_rate(method, training, configuration, checkpoint) if chooses else setting.learning_rate
    seeds = range(1 if method == "exact" else configuration["seeds"])
    runs = [
        Run(method=method, seed=seed, learning_rate=rate, critic_step_size=setting.critic_step_size) for seed in seeds
    ]
    iterations = configuration["iterations"]
    history, counts = _trained(training(runs, iterations), iterations, checkpoint)
    rows = curve_rows(history, points=configuration["points"], names=("objective", "cosine", "relative_error"))
    for place, row in enumerate(rows):
        run = place % len(runs)
        row["environment_steps"] = round(float(counts.until(row["iteration"])[run]))
        if METHODS[ConfigurableMDP][method].critic != "sarsa":
            row["critic_step_size"] = None
    return rows


def four_rooms_cell(cell: Cell, configuration: Mapping[str, Any], checkpoint: Path) -> list[Row]:
    """Train one method on Four-Rooms at one temperature; return a row for each run and point of its curve.

    Parameters
    ----------
    cell
        `temperature` and `method`.
    configuration
        `seeds`, `selection_seeds`, `iterations`, `points`.
    checkpoint
        A file `.npz`; selections and counts of steps lie beside it.
    """
    method, temperature = cell["method"], cell["temperature"]

    def training(runs: Sequence[Run], iterations: int) -> Training:
        return panel_training(
            variant="planner", temperature=temperature, batch_steps=BATCH_STEPS, runs=runs, iterations=iterations
        )

    setting = chosen_settings(temperature, BATCH_STEPS)[method]
    return _rows(method, training, setting, configuration, checkpoint, chooses=method.startswith("nudged"))


def toy_game_cell(cell: Cell, configuration: Mapping[str, Any], checkpoint: Path) -> list[Row]:
    """Train one method on the toy game; return a row for each run and point of its curve.

    Parameters
    ----------
    cell
        `bonus`, R, and `method`.
    configuration, checkpoint
        As for Four-Rooms.
    """
    problem = reduce_game(toy_markov_game(cell["bonus"]))

    def training(runs: Sequence[Run], iterations: int) -> Training:
        return Training(
            problem=problem, runs=runs, iterations=iterations, streams=1, steps=TOY_STEPS, simulator=TabularSimulator()
        )

    method, setting = cell["method"], Setting(learning_rate=RATES[1], critic_step_size=0.5)
    return _rows(method, training, setting, configuration, checkpoint, chooses=method != "exact")
