"""`bilevelrl train`: the leader's training on any task, from the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bilevelrl.benchmarks.sweeping.sweep_store import write_table
from bilevelrl.benchmarks.trainings import make_training, training_kind, training_kinds
from bilevelrl.estimators.followers import FOLLOWER_RULES, FollowerRule
from bilevelrl.estimators.training import SCHEDULES, History, make_optimiser, train
from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.reference.storage import locked, writable_folder, write_atomically
from bilevelrl.tasks import make_task
from bilevelrl.verification.commands import count, seed

__all__ = ["fill", "history_rows"]


def fill(add: argparse.ArgumentParser) -> None:
    """Add the arguments of `train`."""
    add.formatter_class = argparse.RawDescriptionHelpFormatter
    add.epilog = "methods by kind of problem:\n" + "\n".join(
        f"  {kind.problem.__name__}: {', '.join(kind.titles)}" for kind in training_kinds()
    )
    add.add_argument("--task", default="four_rooms", help="a task of `bilevelrl list` (default four_rooms)")
    add.add_argument("--temperature", type=float, help="the follower's β (default: the task's)")
    add.add_argument("--method", nargs="+", default=["bc_hg"], help="one or several of one kind, see below")
    add.add_argument("--seeds", type=count, default=3, help="of each method (default 3)")
    add.add_argument("--iterations", type=count, default=1000, help="outer iterations (default 1000)")
    add.add_argument("--streams", type=count, help="streams of a batch (default: the kind's)")
    add.add_argument("--steps", type=count, help="steps of a stream (default: the kind's)")
    add.add_argument("--learning-rate", type=float, nargs="+", help="one or several (default: the kind's)")
    add.add_argument("--critic-step-size", type=float, help="of SARSA, or of a game's critic (default .5)")
    add.add_argument("--follower", choices=tuple(FOLLOWER_RULES), help="how it responds on an MDP (default exact)")
    add.add_argument(
        "--follower-effort", type=count, help="its iterations, samples, updates or actions seen for each θ"
    )
    add.add_argument("--optimiser", help="sgd or adam (default: the kind's)")
    add.add_argument("--schedule", help=f"of the learning rate: {', '.join(SCHEDULES)} (default: the kind's)")
    add.add_argument("--largest-norm", type=float, help="directions are clipped to it (default: the kind's)")
    add.add_argument("--clip-blocks", type=count, nargs="+", metavar="SIZE", help="blocks of θ that are clipped alone")
    add.add_argument("--ascent-steps", type=count, help="steps on each batch (default: the kind's)")
    add.add_argument("--evaluate-every", type=count, help="outer iterations between exact evaluations (default 10)")
    add.add_argument("--published", action="store_true", help="as the paper's runs, where they differ from ours")
    add.add_argument("--entropy", type=seed, help="root of all random streams (default 0)")
    add.add_argument("--output", metavar="DIR", type=Path, help="write history.csv, theta.npy, and a checkpoint there")
    add.set_defaults(run=_train)


_PASSED_ON = ("streams", "steps", "schedule", "largest_norm", "ascent_steps", "evaluate_every", "entropy")


def _train(parsed: argparse.Namespace) -> int:
    problem = make_task(parsed.task, **({} if parsed.temperature is None else {"temperature": parsed.temperature}))
    training = make_training(
        problem,
        parsed.method,
        seeds=parsed.seeds,
        iterations=parsed.iterations,
        learning_rates=parsed.learning_rate,
        critic_step_size=parsed.critic_step_size,
        published=parsed.published,
        follower=_follower(parsed.follower, parsed.follower_effort),
        optimiser=None if parsed.optimiser is None else make_optimiser(parsed.optimiser),
        clip_blocks=None if parsed.clip_blocks is None else tuple(parsed.clip_blocks),
        **{name: getattr(parsed, name) for name in _PASSED_ON},
    )
    titles = training_kind(problem, parsed.method).titles
    if parsed.output is None:
        _print_ends(train(training), titles)
        return 0
    with locked(writable_folder("--output", parsed.output)):
        history = train(training, checkpoint=parsed.output / "checkpoint.npz")
        _print_ends(history, titles)
        write_table(parsed.output / "history.csv", history_rows(history))
        write_atomically(parsed.output / "theta.npy", lambda file: np.save(file, history.thetas))
    print(f"wrote {parsed.output / 'history.csv'}, {parsed.output / 'theta.npy'}", file=sys.stderr)
    return 0


_EFFORTS = {
    "sweeping": "iterations",
    "soft_q_learning": "steps",
    "expected_soft_q_learning": "updates",
    "natural_policy_gradient": "updates",
    "exact_natural_policy_gradient": "updates",
    "imitation": "observed",
    "watched": "observed",
}


def _follower(name: str | None, effort: int | None) -> FollowerRule | None:
    if effort is not None and name not in _EFFORTS:
        raise InvalidInputError(
            refusal("--follower-effort", effort, f"a --follower of {', '.join(_EFFORTS)}", "leave it out, or name one")
        )
    if name is None:
        return None
    return FOLLOWER_RULES[name](**({} if effort is None else {_EFFORTS[name]: effort}))


def _print_ends(history: History, titles: Mapping[str, str]) -> None:
    training, final = history.training, history.final()
    for row, run in enumerate(training.runs):
        print(
            f"{titles[run.method]:<22} seed {run.seed}  rate {run.learning_rate:<6g}"
            f" J(θ_0) {history.objective[0, row]:.4f}  J at the end {final[row]:.4f}{_follower_error(history, row)}"
        )
    per_iteration = 1e3 * history.seconds / (training.iterations * len(training.runs))
    print(f"{per_iteration:.3f} ms of CPU time per run and outer iteration")


def _follower_error(history: History, row: int) -> str:
    if not history.values.get("follower_error", np.zeros((1, row + 1)))[:, row].any():
        return ""
    return f"  |V_F - V_F*| {history.final(name='follower_error')[row]:.2g}"


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
