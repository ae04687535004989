"""Whether BC-HG with λ-returns and a baseline gets out of the trap on Four-Rooms, with critics learnt along the run.

python -m bilevelrl.benchmarks.research.escape.lambda_runs --output benchmarks/results/escape_lambda_runs.csv
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bilevelrl.benchmarks.research.escape.lambda_returns import published_with
from bilevelrl.benchmarks.sweeping.figures import Row
from bilevelrl.benchmarks.sweeping.sweep_store import write_table
from bilevelrl.estimators import Context, sample_trajectories
from bilevelrl.estimators.critics import GradientTable, SarsaLambdaCritic
from bilevelrl.estimators.sums import clip_to_norm
from bilevelrl.estimators.training import make_optimiser, published_simulator
from bilevelrl.reference import ConfigurableMDP, leader_objective, named_stream, solve_follower
from bilevelrl.tasks import four_rooms

__all__ = ["RUNS", "RunOptions", "final_objective", "main"]

_STEP_SIZE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """One way to use critics that learn from every batch.

    Attributes
    ----------
    name : str
        In tables.
    gradient_decay : float or None
        λ of ∇Q_F; None: the plain suffix.
    baseline : str or None
        As in `published_with`.
    delayed : bool
        Whether the estimate reads critics before they learn from its batch.
    hottest : float or None
        The follower's β falls geometrically from there to its own in the first half of the run; None: never raised.
    optimiser : {"sgd", "adam"}
        Of the ascent, at a rate of .1.
    """

    name: str
    gradient_decay: float | None = None
    baseline: str | None = None
    delayed: bool = False
    hottest: float | None = None
    optimiser: str = "sgd"

    def temperature(self, own: float, done: float) -> float:
        """Return β after a share of the run."""
        if self.hottest is None or done >= 0.5:
            return own
        return float(self.hottest * (own / self.hottest) ** (2.0 * done))


_CONTINUED: dict[str, Any] = {"hottest": 0.02, "optimiser": "adam"}

RUNS = (
    RunOptions(name="plain, same batch"),
    RunOptions(name="plain, batch before", delayed=True),
    RunOptions(name="λ = 0, same batch", gradient_decay=0.0),
    RunOptions(name="λ = 0, value baseline, same batch", gradient_decay=0.0, baseline="value"),
    RunOptions(name="λ = 0, value baseline, batch before", gradient_decay=0.0, baseline="value", delayed=True),
    RunOptions(name="plain, same batch, Adam, β from 0.02", **_CONTINUED),
    RunOptions(name="plain, batch before, Adam, β from 0.02", delayed=True, **_CONTINUED),
    RunOptions(
        name="λ = 0, value baseline, same batch, Adam, β from 0.02",
        gradient_decay=0.0,
        baseline="value",
        **_CONTINUED,
    ),
    RunOptions(
        name="λ = 0, value baseline, batch before, Adam, β from 0.02",
        gradient_decay=0.0,
        baseline="value",
        delayed=True,
        **_CONTINUED,
    ),
)


def final_objective(problem: ConfigurableMDP, options: RunOptions, *, seed: int, iterations: int) -> float:
    """Return J at the end of a run along estimates shortened to norm 1, one batch of 100 steps each.

    Examples
    --------
    >>> end = final_objective(four_rooms(temperature=0.003), RUNS[0], seed=0, iterations=2)
    >>> abs(end) < 1.0
    True
    """
    rng = named_stream(seed, "escape_lambda_runs")  # the same for all options: the same start
    theta = 0.01 * rng.standard_normal(problem.theta_shape)
    follower = solve_follower(problem, theta)
    leader = SarsaLambdaCritic.start(follower, problem.discount_leader, step_size=_STEP_SIZE)
    leader = replace(leader, trace_decay=0.0, truncation="cut")
    gradient = GradientTable.zeros(Context(problem=problem, theta=theta, follower=follower))
    estimator, optimiser = published_with(options.gradient_decay, options.baseline), make_optimiser(options.optimiser)
    moving = optimiser.start((1, theta.size))
    for index in range(iterations):
        temperature = options.temperature(problem.temperature, index / iterations)
        played = problem if temperature == problem.temperature else replace(problem, temperature=temperature)
        follower = solve_follower(played, theta, warm_start=follower)
        context = Context(problem=played, theta=theta, follower=follower)
        batch = sample_trajectories(
            played, theta, follower, streams=1, steps=100, rng=rng, simulator=published_simulator()
        )
        leader = leader.with_policy(follower.policy)
        before = leader, gradient
        leader = leader.updated(batch)
        if options.gradient_decay is not None:
            gradient = gradient.updated(batch, context, step_size=_STEP_SIZE, trace_decay=options.gradient_decay)
        read = before if options.delayed else (leader, gradient)
        told = replace(context, critic=read[0], follower_gradient=read[1])
        direction = clip_to_norm(estimator.estimate(batch, told).mean[None], 1.0)
        step, moving = optimiser.step(direction, np.array([0.1]), moving)
        theta = theta + step[0]
    return leader_objective(problem, theta)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every option with every seed and write one row per run; what the file has already is not run again."""
    parser = argparse.ArgumentParser(prog="escape_lambda_runs", description="Runs with λ-returns on Four-Rooms.")
    parser.add_argument("--output", type=Path, required=True, help="CSV file")
    parser.add_argument("--temperature", type=float, default=0.003, metavar="β")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=2500)
    options = parser.parse_args(arguments)
    problem = four_rooms(temperature=options.temperature)
    rows: list[Row] = []
    if options.output.exists():
        with options.output.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    done = {(row["run"], int(row["seed"]), int(row["iterations"]), float(row["temperature"])) for row in rows}
    for seed in range(options.seeds):
        for run in RUNS:
            if (run.name, seed, options.iterations, options.temperature) in done:
                continue
            end = final_objective(problem, run, seed=seed, iterations=options.iterations)
            rows.append(
                {
                    "temperature": options.temperature,
                    "run": run.name,
                    "seed": seed,
                    "iterations": options.iterations,
                    "final_objective": round(end, 5),
                }
            )
            write_table(options.output, rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
