"""Speed and memory in one table.

    OMP_NUM_THREADS=1 python -m bilevelrl.benchmarks.speed.report --output benchmarks/README.md

Everything that is compared takes turns within one run. The same cases under pytest-benchmark, with their statistics:
`OMP_NUM_THREADS=1 pytest benchmarks --benchmark-only`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from bilevelrl.benchmarks.paper.toy_game.training import outer_iteration as game_iteration
from bilevelrl.benchmarks.paper.toy_game.training import setting_training
from bilevelrl.benchmarks.speed.cases import reverse_mode, warm_four_rooms
from bilevelrl.benchmarks.speed.jax_rival import COUNTS, measured
from bilevelrl.benchmarks.speed.outer_iteration import STEPS, outer_iteration
from bilevelrl.benchmarks.speed.sparse_scaling import SIZES, exponent, in_own_process
from bilevelrl.benchmarks.speed.timing import Timing, machine, take_turns
from bilevelrl.estimators import BCHG, sample_trajectories
from bilevelrl.reference import HYPERGRADIENT_ROUTES, ConfigurableMDP, hypergradient, named_stream
from bilevelrl.reference.storage import write_atomically
from bilevelrl.tasks import four_rooms, random_mdp
from bilevelrl.verification import enumerate_moments

__all__ = ["main"]

SWEEPS = 1000


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def hypergradient_section() -> str:
    """Compare one exact hypergradient with its solves, and with reverse mode."""
    warm = warm_four_rooms()
    exact = warm.gradient()
    timings = take_turns(
        {"gradient": warm.gradient, "bare": warm.bare_solves(), "numpy": warm.separate_solves()}, rounds=2000
    )
    slow = take_turns({"reverse": lambda: reverse_mode(warm.problem, warm.theta, sweeps=SWEEPS)}, rounds=5)
    apart = np.abs(reverse_mode(warm.problem, warm.theta, sweeps=SWEEPS) - exact.value).max()
    ours = timings["gradient"].best

    def row(name: str, timing: Timing, reference: float) -> list[str]:
        ratio = reference / timing.best
        return [
            name,
            _duration(timing.cpu),
            _duration(timing.best),
            f"{ratio:.2f}" if ratio > 0.1 else f"1/{1 / ratio:.0f}",
        ]

    rows = [
        row("one exact hypergradient, `hypergradient(..., warm_start=..., bound=False)`", timings["gradient"], ours),
        row(
            f"its LAPACK calls alone: {exact.counters['factorisations']} `getrf` (one serves both players), "
            f"{exact.counters['linear_solves'] + 1} `getrs`",
            timings["bare"],
            ours,
        ),
        row(
            f"one `numpy.linalg.solve` for each of its {exact.counters['linear_solves']} systems",
            timings["numpy"],
            ours,
        ),
        row(f"reverse mode through {SWEEPS} + {SWEEPS} unrolled sweeps", slow["reverse"], ours),
    ]
    return (
        "## One exact hypergradient of Four-Rooms\n\n"
        "104 states, 105 parameters, follower to 1e-12 from the solution one ascent step earlier: "
        f"{exact.counters['sweeps']} sweeps, residual {exact.residual:.1e}. Reverse mode is {apart:.0e} away from it, "
        f"where the largest entry is {np.abs(exact.value).max():.0e}.\n\n"
        + _table(["what", "CPU time, median", "least", "hypergradient / this"], rows)
    )


def jax_section() -> str:
    """Compare with what a skilled user of JAX would write."""
    return measured(COUNTS)


def routes_section() -> str:
    """Time every route on Four-Rooms from cold, without error bounds."""
    problem = four_rooms(temperature=0.003)
    theta = 0.01 * named_stream(0, "speed", "start").standard_normal(105)
    exact = hypergradient(problem, theta, bound=False)
    rows = []
    for name, route in HYPERGRADIENT_ROUTES.items():
        if ConfigurableMDP not in route.kinds:
            continue
        start = time.thread_time()
        found = hypergradient(problem, theta, route=name, bound=False)
        seconds = time.thread_time() - start
        apart = np.abs(found.value - exact.value).max() / np.abs(exact.value).max()
        rows.append([f"`{name}`", _duration(seconds), f"{apart:.0e}", route.family])
    return "## Every route on Four-Rooms\n\nFrom cold, once each.\n\n" + _table(
        ["route", "CPU time", "relative distance to `implicit`", "family"], rows
    )


def outer_section() -> str:
    """One outer iteration per seed."""
    rows = []
    for seeds in (1, 10, 32, 100):
        iteration = outer_iteration(seeds)
        functions: dict[str, Callable[[], object]] = {"together": iteration.together}
        if seeds <= 10:
            functions["one by one"] = iteration.one_by_one
        for name, timing in take_turns(functions, rounds=20).items():
            rows.append(
                [str(seeds), name, *(_duration(each / seeds) for each in (timing.cpu, timing.best, timing.wall))]
            )
    return (
        "## One outer iteration\n\n"
        f"Four-Rooms: follower to 1e-10 from the previous iteration, {STEPS} sampled steps, exact critic, BC-HG; every "
        "seed its own θ.\n\n"
        + _table(["seeds", "how", "CPU time per seed, median", "least", "wall-clock time per seed, median"], rows)
    )


def game_section() -> str:
    """One outer iteration on the toy game per seed."""
    rows = []
    for seeds in (1, 10, 50):
        training = setting_training(bonus=1, methods=["bc_hg"], actor_steps=10, critic_steps=1, seeds=seeds)
        timing = take_turns({"together": game_iteration(training)}, rounds=20)["together"]
        rows.append([str(seeds), *(_duration(each / seeds) for each in (timing.cpu, timing.best, timing.wall))])
    return (
        "## One outer iteration on the toy game\n\n"
        "BC-HG as published: follower to rounding, 450 sampled steps, 1 critic and 10 actor updates of 64-64 networks "
        "by Adam on minibatches of 64; seeds together.\n\n"
        + _table(["seeds", "CPU time per seed, median", "least", "wall-clock time per seed, median"], rows)
    )


def sampling_section() -> str:
    """Steps per second of the sampler, and a million enumerated trajectories."""
    warm = warm_four_rooms()
    rng = named_stream(0, "speed", "sampler")
    rows = []
    for streams, steps in ((1, 100), (100, 100), (5000, 200)):
        timing = take_turns(
            {
                "sample": lambda streams=streams, steps=steps: sample_trajectories(  # type: ignore[misc]
                    warm.problem, warm.theta, warm.previous, streams=streams, steps=steps, rng=rng
                )
            },
            rounds=5,
        )["sample"]
        rows.append(
            [
                f"{streams} streams of {steps} steps",
                _duration(timing.cpu),
                f"{streams * steps / timing.cpu:.2g} steps/s",
            ]
        )
    problem = random_mdp(states=4, actions=2, parameters=3, seed=0)
    start = time.thread_time()
    moments = enumerate_moments(BCHG(), problem, np.zeros(3), horizon=6)
    seconds = time.thread_time() - start
    rows.append(
        [
            f"exact moments of BC-HG over {moments.paths:,} trajectories",
            _duration(seconds),
            f"{moments.paths / seconds:.2g} paths/s",
        ]
    )
    return "## Sampling and enumeration\n\n" + _table(["what", "CPU time", "rate"], rows)


def sparse_section() -> str:
    """The curve of `sparse_scaling`."""
    measured = [in_own_process(size) for size in SIZES]
    rows = [
        [
            row["map"],
            f"{row['states']:,}",
            _duration(row["cold_seconds"]),
            str(row["cold_factorisations"]),
            _duration(row["warm_seconds"]),
            str(row["warm_factorisations"]),
            f"{row['peak_megabytes']:.0f} MB",
        ]
        for row in measured
    ]
    slopes = "; ".join(
        f"{shape}: time {exponent(chosen, 'cold_seconds'):.2f}, memory {exponent(chosen, 'peak_megabytes'):.2f}"
        for shape in sorted({row["map"] for row in measured}, reverse=True)
        if (chosen := [row for row in measured if row["map"] == shape and row["states"] > 2000])
    )
    return (
        "## Grids of rooms, sparse\n\n"
        "One exact hypergradient, as many parameters as states, in a process of its own; memory above that of the "
        f"imports. Exponents of growth beyond 2,000 states: {slopes}. The curve as a figure: "
        "`python -m bilevelrl.benchmarks.speed.sparse_scaling`.\n\n"
        + _table(
            ["map", "states", "CPU time from cold", "factorisations", "CPU time warm", "factorisations", "peak memory"],
            rows,
        )
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure everything and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=None, help="a Markdown file; default: the terminal")
    chosen = parser.parse_args(arguments)
    sections = []
    for section in (
        hypergradient_section,
        *([jax_section] if find_spec("jax") else []),
        outer_section,
        game_section,
        sampling_section,
        routes_section,
        sparse_section,
    ):
        print(f"{section.__name__} ...", file=sys.stderr)
        sections.append(section())
    described = ", ".join(f"{name} {value}" for name, value in machine().items())
    text = "\n\n".join(
        [
            "# Speed and memory",
            "Written by `OMP_NUM_THREADS=1 python -m bilevelrl.benchmarks.speed.report --output benchmarks/README.md`; "
            "do not edit. Single cases with their statistics: `OMP_NUM_THREADS=1 pytest benchmarks --benchmark-only`. "
            "Times depend on the machine; ratios are of functions that took turns in one run, by their least times. "
            "CPU time is the calling thread's: other processes do not add to it.",
            f"Machine: {described}. Matrices of a hundred states are too small for BLAS threads, which wait for each "
            "other on a busy machine and can make a solve a hundred times slower: set `OMP_NUM_THREADS=1`.",
            *sections,
        ]
    )
    if chosen.output is None:
        print(text)
    else:
        write_atomically(chosen.output, text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
