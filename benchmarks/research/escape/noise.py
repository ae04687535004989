"""Spread and bias of BC-HG's estimate at the usual start, by how its critic is used: what the escape is made of.

OMP_NUM_THREADS=1 python -m bilevelrl.benchmarks.research.escape.noise --output benchmarks/results/escape_noise.csv
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bilevelrl.benchmarks.research.escape.arms import ARMS
from bilevelrl.benchmarks.research.escape.world import escape_training, measure_noise
from bilevelrl.benchmarks.sweeping.figures import Row
from bilevelrl.benchmarks.sweeping.sweep_store import write_table
from bilevelrl.tasks import four_rooms

__all__ = ["main", "noise_rows"]

TEMPERATURES = (0.001, 0.003, 0.005)


def noise_rows(kernel: str, temperature: float, steps: int = 100) -> list[Row]:
    """Return a row for each arm that samples.

    Parameters
    ----------
    kernel, temperature
        Which Four-Rooms; samples come from the same kernel.
    steps
        Of a batch, one stream.
    """
    rows = []
    for arm in ARMS.values():
        if arm.guidance != "samples" or arm.chains > 1 or not np.isfinite(arm.largest_norm):
            continue  # the estimate is that of the same arm with one chain, clipped
        problem = four_rooms(temperature=temperature, kernel=kernel)
        noise = measure_noise(replace(escape_training(arm.name, problem, seeds=1, iterations=1), steps=steps))
        rows.append(
            {
                "kernel": kernel,
                "temperature": temperature,
                "steps": steps,
                "arm": arm.name,
                "title": arm.title,
                "exact_norm": float(f"{noise.exact_norm:.4g}"),
                "root_mean_square_deviation": float(f"{noise.root_mean_square:.4g}"),
                "median_deviation": float(f"{noise.median_norm:.4g}"),
                "bias_norm": float(f"{noise.bias_norm:.4g}"),
                "bias_error": float(f"{noise.bias_error:.4g}"),
            }
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every panel and write one row per arm."""
    parser = argparse.ArgumentParser(prog="escape_noise", description="Spread and bias of BC-HG at the usual start.")
    parser.add_argument("--output", type=Path, required=True, help="CSV file")
    parser.add_argument("--kernel", nargs="+", default=["planner"])
    parser.add_argument("--temperature", type=float, nargs="+", default=list(TEMPERATURES), metavar="β")
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 1000], help="of a batch")
    options = parser.parse_args(arguments)
    panels = itertools.product(options.kernel, options.steps, options.temperature)
    rows = [row for kernel, steps, temperature in panels for row in noise_rows(kernel, temperature, steps)]
    write_table(options.output, rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
