"""What `values_leader` gets where it reads the followers' values with an error: from exact to one in a hundred.

OMP_NUM_THREADS=1 python -m bilevelrl.benchmarks.research.escape.values --output benchmarks/results/escape_values.csv
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bilevelrl.benchmarks.paper.four_rooms.training import TEMPERATURES
from bilevelrl.benchmarks.research.escape.leader import leader_training
from bilevelrl.benchmarks.sweeping.figures import Row
from bilevelrl.benchmarks.sweeping.sweep_store import write_table
from bilevelrl.estimators.training import train

__all__ = ["NOISES", "main", "value_rows", "value_table"]

NOISES = (0.0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
"""Relative errors of the values."""


def value_rows(temperature: float, noise: float, *, seeds: int, shortened: int = 1) -> list[Row]:
    """Return a row per run of the leader in the planner's kernel, with batches of 100 steps.

    Parameters
    ----------
    temperature
        The follower's β.
    noise
        Relative error of the values that are read.
    seeds, shortened
        As in `leader_training`.
    """
    training = leader_training(
        "values_leader",
        variant="planner",
        temperature=temperature,
        batch_steps=100,
        seeds=range(seeds),
        shortened=shortened,
    )
    history = train(replace(training, value_noise=noise))
    final, last = history.final(), {name: values[-1] for name, values in history.values.items()}
    return [
        {
            "kernel": "planner",
            "temperature": temperature,
            "batch_steps": 100,
            "value_noise": noise,
            "seed": run.seed,
            "final_objective": round(float(final[row]), 5),
            "model_objective": round(float(last["model_objective"][row]), 5),
            "model_cosine": float(f"{last['cosine'][row]:.6g}"),
            "environment_steps": int(last["environment_steps"][row]),
        }
        for row, run in enumerate(training.runs)
    ]


def value_table(rows: Sequence[Row]) -> str:
    """Return the table of the page: mean and range of J, mean of what the model promised, median cosine."""
    lines = ["relative error | β | J: mean (range) | promised | cosine, median", " | ".join(["---"] * 5)]
    for noise, temperature in dict.fromkeys((row["value_noise"], row["temperature"]) for row in rows):
        own = [row for row in rows if (row["value_noise"], row["temperature"]) == (noise, temperature)]
        ends = np.array([row["final_objective"] for row in own])
        promised = np.mean([row["model_objective"] for row in own])
        cosine = np.median([row["model_cosine"] for row in own])
        spread = f"{ends.mean():.3f} ({ends.min():.3f} to {ends.max():.3f})"
        lines.append(f"{noise:g} | {temperature:g} | {spread} | {promised:.3f} | {cosine:.3f}")
    return "\n".join(f"| {line} |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train every panel, write one row per run, and print the table."""
    parser = argparse.ArgumentParser(prog="escape_values", description="values_leader with values that have an error.")
    parser.add_argument("--output", type=Path, required=True, help="CSV file")
    parser.add_argument("--noise", type=float, nargs="+", default=list(NOISES))
    parser.add_argument("--temperature", type=float, nargs="+", default=list(TEMPERATURES), metavar="β")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--shortened", type=int, default=1, help="divides all lengths, for trials")
    options = parser.parse_args(arguments)
    panels = itertools.product(options.noise, options.temperature)
    rows = [
        row
        for noise, temperature in panels
        for row in value_rows(temperature, noise, seeds=options.seeds, shortened=options.shortened)
    ]
    write_table(options.output, rows)
    print(value_table(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
