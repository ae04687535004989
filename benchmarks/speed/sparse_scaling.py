"""How time and memory of one exact hypergradient grow with the number of states, on grids of rooms.

    python -m bilevelrl.benchmarks.speed.sparse_scaling --output results/sparse_scaling

Each size runs in a process of its own, because peak memory can only be read per process. Two shapes of map are
measured: rooms of 7 × 7 cells joined by doors, whose graph falls apart at the doors, and one single open room, whose
factors fill in most.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from bilevelrl.reference import hypergradient, named_stream, solve_follower
from bilevelrl.reference.storage import csv_text, write_atomically
from bilevelrl.reference.tabular import policy_transition
from bilevelrl.tasks import grid_rooms

__all__ = ["exponent", "in_own_process", "main", "measure"]

Row: TypeAlias = dict[str, Any]

# (map, rooms per side, room size)
SIZES = tuple(("rooms of 7 × 7", rooms, 7) for rooms in (4, 8, 14, 25, 45)) + tuple(
    ("one open room", 1, side) for side in (32, 57, 100, 178, 320)
)


def _peak_megabytes() -> float:
    """Largest resident size of this process; unlike getrusage it does not count the parent that it was forked from."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return float(line.split()[1]) / 1024.0
    raise OSError("/proc/self/status: no VmHWM; peak memory is measured on Linux only")


def measure(shape: str, rooms_per_side: int, room_size: int) -> Row:
    """Solve one size from cold and one ascent step later from warm; run it in a fresh process.

    Returns
    -------
    dict
        states, CPU seconds, peak megabytes above those of the imports, factorisations, the follower's residual.
    """
    small = grid_rooms()
    hypergradient(small, np.zeros(small.theta_shape or 0), bound=False)  # loads every library before memory is read
    before = _peak_megabytes()
    problem = grid_rooms(rooms_per_side=rooms_per_side, room_size=room_size)
    theta = 0.1 * named_stream(0, "sparse scaling", rooms_per_side, room_size).standard_normal(problem.theta_shape)
    start = time.process_time()
    cold = hypergradient(problem, theta, bound=False)
    cold_seconds = time.process_time() - start
    peak = _peak_megabytes() - before
    follower = solve_follower(problem, theta)
    moved = theta + 0.1 * cold.value / np.abs(cold.value).max()
    start = time.process_time()
    warm = hypergradient(problem, moved, warm_start=follower, bound=False)
    warm_seconds = time.process_time() - start
    tables = problem.tables_at(theta)
    return {
        "map": shape,
        "states": tables.states,
        "parameters": theta.size,
        "cold_seconds": cold_seconds,
        "cold_factorisations": cold.counters["factorisations"],
        "warm_seconds": warm_seconds,
        "warm_factorisations": warm.counters["factorisations"],
        "peak_megabytes": peak,
        "residual": cold.residual,
        "condition": cold.condition,
        "kernel_megabytes": (tables.transition.probability.nbytes + tables.transition.successor.nbytes) / 2**20,
        "entries_per_row": policy_transition(tables.transition, follower.policy).nnz / tables.states,
    }


def exponent(rows: Iterable[Row], column: str) -> float:
    """Slope of log(column) over log(states), least squares; 1 is linear.

    Examples
    --------
    >>> round(exponent([{"states": 10, "y": 5.0}, {"states": 100, "y": 50.0}], "y"), 12)
    1.0
    """
    chosen = list(rows)
    slope = np.polyfit(np.log([row["states"] for row in chosen]), np.log([row[column] for row in chosen]), 1)[0]
    return float(slope)


def in_own_process(size: tuple[str, int, int]) -> Row:
    """Run `measure` in a fresh process and return its row."""
    command = [sys.executable, "-m", "bilevelrl.benchmarks.speed.sparse_scaling", "--single", json.dumps(size)]
    row: Row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return row


def draw(rows: Sequence[Row], path: Path) -> None:
    """Two log-log panels, time and memory over the number of states, with a line of slope one."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    columns = (
        ("cold_seconds", "CPU seconds", "Time of one exact hypergradient"),
        ("peak_megabytes", "peak MB above the imports", "Memory"),
    )
    for panel, (column, label, title) in zip(panels, columns, strict=True):
        for colour, shape in zip(
            ("#1b6ca8", "#c8553d"), sorted({row["map"] for row in rows}, reverse=True), strict=True
        ):
            chosen = sorted((row for row in rows if row["map"] == shape), key=lambda row: int(row["states"]))
            states = np.array([row["states"] for row in chosen], dtype=np.float64)
            panel.loglog(
                states,
                [row[column] for row in chosen],
                "o-",
                color=colour,
                label=f"{shape}, from cold (slope {exponent(chosen[1:], column):.2f})",
            )
            if column == "cold_seconds":
                panel.loglog(
                    states,
                    [row["warm_seconds"] for row in chosen],
                    "o--",
                    color=colour,
                    markerfacecolor="white",
                    label=f"{shape}, warm start (slope {exponent(chosen[1:], 'warm_seconds'):.2f})",
                )
        low, high = panel.get_xlim()
        anchor = min(row[column] / row["states"] for row in rows if row["states"] > 2000) / 2.5
        panel.loglog([low, high], [anchor * low, anchor * high], ":", color="0.4", label="linear")
        panel.set(xlabel="states", ylabel=label, title=title)
        panel.grid(True, which="major", alpha=0.3)
        panel.legend(fontsize=8)
    write_atomically(path, lambda file: figure.savefig(file, dpi=150, format="png"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all sizes; write `sparse_scaling.csv` and `sparse_scaling.png`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("results/sparse_scaling"))
    parser.add_argument("--largest", type=int, default=110_000, help="leave out maps with more states")
    parser.add_argument("--single", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.single is not None:
        print(json.dumps(measure(*json.loads(chosen.single))))
        return 0
    rows = []
    for size in SIZES:
        if (size[1] * size[2]) ** 2 <= chosen.largest:
            rows.append(in_own_process(size))
            print("{map:15s} {states:7d} states  {cold_seconds:7.3f} s  {peak_megabytes:6.1f} MB".format(**rows[-1]))
    write_atomically(chosen.output / "sparse_scaling.csv", csv_text([list(rows[0]), *(row.values() for row in rows)]))
    draw(rows, chosen.output / "sparse_scaling.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
