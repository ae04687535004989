"""CPU time of one outer iteration of training on Four-Rooms, per run, by method and by how many runs train together.

    OMP_NUM_THREADS=1 python -m bilevelrl.benchmarks.speed.training_speed

One process, one core, with compiled loops where numba is installed (`NUMBA_DISABLE_JIT=1` turns them off). As in the
paper's experiments: batches of 100 steps, followers solved in each outer iteration (here to 1e-9, from the previous
one), the exact objective every tenth.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from bilevelrl.benchmarks.paper.four_rooms.selection import UNTUNED
from bilevelrl.benchmarks.paper.four_rooms.training import FIGURE_METHODS, panel_training
from bilevelrl.estimators.training import METHODS, Run, train
from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.errors import InvalidInputError

__all__ = ["PUBLISHED_MS", "main", "measure"]

PUBLISHED_MS = {"bc_hg": 8.0, "hpgd_mc": 8.2, "hpgd_sa": 7.9, "hpgd_oracle": 58.0, "sobirl": 8.0, "naive_pgd": 7.3}
"""Milliseconds per outer iteration of the published code (JAX 0.4.21, CPU, compiled, one seed per process)."""


def measure(methods: Sequence[str], runs: int, *, iterations: int = 60, repeats: int = 3) -> float:
    """Return the least CPU milliseconds per run and outer iteration of so many runs shared out among methods.

    Starts are excluded: what is timed is the difference of two trainings.

    Examples
    --------
    >>> measure(["naive_pgd"], 2, iterations=2, repeats=1) > 0.0
    True
    """
    if runs % len(methods):
        raise InvalidInputError(f"runs={runs}: expected a multiple of {len(methods)} methods")
    each = [
        Run(method=method, seed=seed, learning_rate=UNTUNED[method].learning_rate)
        for method in methods
        for seed in range(runs // len(methods))
    ]

    def seconds(length: int) -> float:
        training = panel_training(variant="published", temperature=0.003, batch_steps=100, runs=each, iterations=length)
        began = time.process_time()
        train(training)
        return time.process_time() - began

    seconds(1)  # compiled loops are loaded at first use
    least = [min(seconds(length) for _ in range(repeats)) for length in (5, 5 + iterations)]
    return max(1e3 * (least[1] - least[0]) / (iterations * runs), 1e-6)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 10, 60], help="runs that train together")
    options = parser.parse_args(arguments)
    print("| method | " + " | ".join(f"{runs} runs" for runs in options.runs) + " | published | times faster |")
    print("| --- " * (len(options.runs) + 3) + "|")
    for method in FIGURE_METHODS:
        found = [measure([method], runs) for runs in options.runs]
        published = PUBLISHED_MS.get(method)
        faster = "–" if published is None else f"{published / min(found):.0f}"
        cells = " | ".join(f"{each:.3f} ms" for each in found)
        theirs = "–" if published is None else f"{published:.1f} ms"
        print(f"| {METHODS[ConfigurableMDP][method].title} | {cells} | {theirs} | {faster} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
