"""`bilevelrl train`: the leader's training on a configurable MDP, from the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bilevelrl.benchmarks.sweep_store import write_table
from bilevelrl.estimators.replay import MODEL_METHODS, SEARCHING, ModelTraining
from bilevelrl.estimators.training import (
    METHODS,
    SCHEDULES,
    History,
    LeaderTraining,
    Run,
    Training,
    make_optimiser,
    train,
)
from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.errors import UnsupportedError
from bilevelrl.tasks import make_task

__all__ = ["history_rows", "register"]

_TITLES = {name: method.title for name, method in METHODS.items()} | dict(MODEL_METHODS)


def register(commands: Any) -> None:
    """Add the subcommand `train`."""
    add = commands.add_parser("train", help="train the leader by one or several methods, batched over seeds")
    add.add_argument("--task", default="four_rooms", help="a task of `bilevelrl list` (default four_rooms)")
    add.add_argument("--temperature", type=float, help="the follower's β (default: the task's)")
    add.add_argument("--method", nargs="+", default=["bc_hg"], help=f"of {', '.join(_TITLES)}")
    add.add_argument("--seeds", type=int, default=3, help="of each method (default 3)")
    add.add_argument("--iterations", type=int, default=1000, help="outer iterations (default 1000)")
    add.add_argument("--streams", type=int, default=1, help="streams of a batch (default 1)")
    add.add_argument("--steps", type=int, default=100, help="steps of a stream (default 100)")
    add.add_argument("--learning-rate", type=float, nargs="+", default=[0.1], help="one or several (default 0.1)")
    add.add_argument("--critic-step-size", type=float, default=0.5, help="of SARSA (default 0.5)")
    add.add_argument("--optimiser", default="sgd", help="sgd (default) or adam")
    add.add_argument("--schedule", default="constant", help=f"of the learning rate: {', '.join(SCHEDULES)}")
    add.add_argument("--largest-norm", type=float, default=1.0, help="gradients are clipped to it (default 1)")
    add.add_argument("--entropy", type=int, default=0, help="root of all random streams (default 0)")
    add.add_argument("--output", metavar="DIR", type=Path, help="write history.csv, theta.npy, and a checkpoint there")
    add.set_defaults(run=_train)


def _train(parsed: argparse.Namespace) -> int:
    problem = make_task(parsed.task, **({} if parsed.temperature is None else {"temperature": parsed.temperature}))
    if not isinstance(problem, ConfigurableMDP):
        raise UnsupportedError(f"task {parsed.task!r}: expected a configurable MDP; see `bilevelrl list`")
    training = _training(problem, parsed)
    checkpoint = None if parsed.output is None else parsed.output / "checkpoint.npz"
    history = train(training, checkpoint=checkpoint)
    final = history.final()
    for row, run in enumerate(training.runs):
        print(
            f"{_TITLES[run.method]:<22} seed {run.seed}  rate {run.learning_rate:<6g}"
            f" J(θ_0) {history.objective[0, row]:.4f}  J at the end {final[row]:.4f}"
        )
    per_iteration = 1e3 * history.seconds / (training.iterations * len(training.runs))
    print(f"{per_iteration:.3f} ms of CPU time per run and outer iteration")
    if parsed.output is not None:
        write_table(parsed.output / "history.csv", history_rows(history))
        np.save(parsed.output / "theta.npy", history.thetas)
        print(f"wrote {parsed.output / 'history.csv'}, {parsed.output / 'theta.npy'}", file=sys.stderr)
    return 0


def _training(problem: ConfigurableMDP, parsed: argparse.Namespace) -> LeaderTraining:
    searches = set(parsed.method) <= set(SEARCHING)
    shared: dict[str, Any] = {
        "problem": problem,
        "runs": [
            Run(method=method, seed=seed, learning_rate=rate, critic_step_size=parsed.critic_step_size)
            for method in parsed.method
            for rate in ([1.0] if searches else parsed.learning_rate)
            for seed in range(parsed.seeds)
        ],
        "iterations": parsed.iterations,
        "streams": parsed.streams,
        "steps": parsed.steps,
        "optimiser": make_optimiser(parsed.optimiser),
        "schedule": parsed.schedule,
        "largest_norm": np.inf if searches else parsed.largest_norm,
        "entropy": parsed.entropy,
    }
    if not set(parsed.method) & set(MODEL_METHODS):
        return Training(**shared)
    plans = sorted({int(share * parsed.iterations) for share in (0.3, 0.4, 0.6)})
    return ModelTraining(plans=tuple(plans), **shared)


def history_rows(history: History) -> list[dict[str, Any]]:
    """Return one tidy row per run and evaluation."""
    return [
        {
            "method": run.method,
            "seed": run.seed,
            "learning_rate": run.learning_rate,
            "critic_step_size": run.critic_step_size,
            "iteration": int(iteration),
            **{name: float(values[place, column]) for name, values in history.values.items()},
        }
        for column, run in enumerate(history.training.runs)
        for place, iteration in enumerate(history.iterations)
    ]
