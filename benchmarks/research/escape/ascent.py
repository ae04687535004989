"""Where exact hypergradient ascent leads on Four-Rooms: to the vertex of no penalty, a true strict local maximum.

From the paper's start, x_0 ~ N(0, 0.01²), with the paper's step (learning rate .5, gradient clipped to norm 1) and the
kernel in which the paper reports the objective, exact ascent withdraws all penalties and earns almost nothing. It ends
where estimators without a guiding term end, and where the published estimators of the guiding term do not: so accuracy
does not explain their success.

The certificate: with θ the shares p ≥ 0 of the budget themselves, every feasible direction at the vertex p = 0 is a
non-negative combination of single cells, so the largest derivative over cells bounds the slope of the objective in all
of them. Where it is negative, the vertex is a strict local maximum.

Run with `python -m bilevelrl.benchmarks.research.escape.ascent --output results/four_rooms_ascent`.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bilevelrl.benchmarks.sweeping.curves import save_picture
from bilevelrl.reference import hypergradient, leader_objective, named_stream, solve_follower
from bilevelrl.reference.arrays import FloatArray, check_positive
from bilevelrl.reference.derivatives import softmax
from bilevelrl.reference.doors import check_count
from bilevelrl.reference.errors import MissingExtraError
from bilevelrl.reference.storage import csv_text, write_atomically
from bilevelrl.tasks import four_rooms, initial_theta
from bilevelrl.tasks.paper import BUDGET, FOUR_ROOMS_GRID, FOUR_ROOMS_MARKS
from bilevelrl.tasks.pictures import draw_penalties

__all__ = ["PUBLISHED", "TEMPERATURES", "Ascent", "VertexCertificate", "ascend", "certify_no_penalty", "main"]

TEMPERATURES = (0.001, 0.003, 0.005)

PUBLISHED = {0.001: 0.67, 0.003: 0.55, 0.005: 1.34}
"""Where BC-HG's curves end with batches of 100 steps (Kudo et al. 2026, arXiv:2603.14867, read off the plots)."""

COLOURS = ("#1769aa", "#2e7d32", "#c2410c", "#8e24aa", "#555555")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ascent:
    """One run of exact ascent.

    Attributes
    ----------
    temperature : float
        β.
    objective, gradient_norm, direct_norm, response_norm, unused_share : (steps + 1,)
        Before each step, and at the end.
    theta : (105,)
        Where it ended.
    """

    temperature: float
    objective: FloatArray
    gradient_norm: FloatArray
    direct_norm: FloatArray
    response_norm: FloatArray
    unused_share: FloatArray
    theta: FloatArray


def ascend(
    temperature: float,
    theta: FloatArray,
    *,
    steps: int,
    learning_rate: float = 0.5,
    largest_norm: float = 1.0,
    kernel: str = "planner",
) -> Ascent:
    """Follow the exact hypergradient from θ, clipped to a largest norm.

    Parameters
    ----------
    temperature, kernel
        Which Four-Rooms.
    theta : (105,)
        Where to start.
    steps, learning_rate, largest_norm
        Of the ascent.

    Raises
    ------
    InvalidInputError
        If a number is out of range.

    Examples
    --------
    >>> run = ascend(0.005, np.zeros(105), steps=3)
    >>> bool(np.all(np.diff(run.objective) > 0.0))
    True
    """
    check_count("steps", steps, minimum=0)
    check_positive("learning_rate", learning_rate, "0.5 is the paper's largest")
    check_positive("largest_norm", largest_norm, "1 is the paper's")
    problem = four_rooms(temperature=temperature, kernel=kernel)
    theta = problem.check_theta(theta).copy()
    log = np.zeros((5, steps + 1))
    follower = None
    for step in range(steps + 1):
        follower = solve_follower(problem, theta, warm_start=follower)
        exact = hypergradient(problem, theta, warm_start=follower, bound=False)
        norm = float(np.linalg.norm(exact.value))
        direct, response = (float(np.linalg.norm(exact.parts[name])) for name in ("direct", "response"))
        log[:, step] = exact.objective, norm, direct, response, softmax(theta)[-1]
        if step < steps:
            theta = theta + learning_rate * exact.value * min(1.0, largest_norm / norm)
    return Ascent(
        temperature=temperature,
        objective=log[0],
        gradient_norm=log[1],
        direct_norm=log[2],
        response_norm=log[3],
        unused_share=log[4],
        theta=theta,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class VertexCertificate:
    """What the objective does at the vertex of no penalty.

    Attributes
    ----------
    objective : float
        J there.
    slope : float
        Largest derivative of J in the share of one cell.
    error_bound : float
        First-order bound on the slope's error: `slope + error_bound < 0` certifies a strict local maximum.
    cell : (row, column)
        Where the slope is largest.
    """

    objective: float
    slope: float
    error_bound: float
    cell: tuple[int, int]

    @property
    def strict_local_maximum(self) -> bool:
        """Whether every feasible direction leads down."""
        return self.slope + self.error_bound < 0.0


def certify_no_penalty(temperature: float, *, kernel: str = "planner") -> VertexCertificate:
    """Return the slopes of the exact objective at the vertex of no penalty.

    Examples
    --------
    >>> certificate = certify_no_penalty(0.001)
    >>> round(certificate.objective, 5), round(certificate.slope, 3), certificate.strict_local_maximum
    (0.00083, -0.743, True)
    """
    problem = four_rooms(temperature=temperature, kernel=kernel, coordinates="shares")
    exact = hypergradient(problem, np.zeros(FOUR_ROOMS_GRID.states))
    best = int(np.argmax(exact.value))
    return VertexCertificate(
        objective=exact.objective,
        slope=float(exact.value[best]),
        error_bound=exact.error_bound,
        cell=FOUR_ROOMS_GRID.cell_of(best),
    )


def write_curves(path: Path, runs: Sequence[Ascent]) -> None:
    """Write one tidy row per temperature and step."""
    names = ("objective", "gradient_norm", "direct_norm", "response_norm", "unused_share")
    rows: list[tuple[object, ...]] = [("temperature", "step", *names)]
    for run in runs:
        columns = [getattr(run, name) for name in names]
        for step, row in enumerate(zip(*columns, strict=True)):
            rows.append((run.temperature, step, *(repr(float(value)) for value in row)))
    write_atomically(path, csv_text(rows))


def draw(path: Path, runs: Sequence[Ascent], certificates: Sequence[VertexCertificate]) -> None:
    """Draw the learning curves, and the penalties that are left at the end of each run.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtraError("drawing", "matplotlib", "cli") from error
    figure = plt.figure(figsize=(13.5, 9.0), layout="constrained")
    layout = figure.add_gridspec(2, len(runs), height_ratios=(1.0, 1.1))
    curves = figure.add_subplot(layout[0, :])
    for run, certificate, colour in zip(runs, certificates, itertools.cycle(COLOURS), strict=False):
        curves.plot(np.arange(run.objective.size), run.objective, color=colour, lw=2, label=f"β = {run.temperature:g}")
        curves.axhline(certificate.objective, color=colour, lw=1, ls=(0, (4, 3)), alpha=0.7)
        if run.temperature in PUBLISHED:
            curves.axhline(PUBLISHED[run.temperature], color=colour, lw=1, ls=":", alpha=0.9)
            curves.annotate(
                f"BC-HG as published, β = {run.temperature:g}",
                (1.0, PUBLISHED[run.temperature]),
                xycoords=("axes fraction", "data"),
                xytext=(-4, 2),
                textcoords="offset points",
                ha="right",
                va="bottom",
                fontsize=8,
                color=colour,
            )
    curves.set_xscale("symlog", linthresh=10)
    curves.set_xlim(0, max(run.objective.size for run in runs))
    curves.set(xlabel="step of exact hypergradient ascent", ylabel="leader's objective J")
    curves.set_title(
        "Exact ascent approaches the vertex of no penalty (dashed) and stays there", loc="left", fontsize=11
    )
    curves.legend(frameon=False, loc="lower right")
    curves.spines[["top", "right"]].set_visible(False)
    for column, (run, certificate) in enumerate(zip(runs, certificates, strict=True)):
        draw_penalties(
            FOUR_ROOMS_GRID,
            four_rooms(temperature=run.temperature),
            run.theta,
            marks=FOUR_ROOMS_MARKS,
            title=(
                f"β = {run.temperature:g}: {1.0 - run.unused_share[-1]:.2%} of the budget in use at the end\n"
                f"J = {run.objective[-1]:.4f}; best slope at the vertex: {certificate.slope:.3f}"
            ),
            largest=BUDGET / run.theta.size,  # what every cell costs at θ = 0
            axes=figure.add_subplot(layout[1, column]),
        )
    save_picture(figure, path, dpi=150)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the ascents, print a summary, write `curves.csv`, `summary.csv` and `ascent.png`."""
    parser = argparse.ArgumentParser(prog="four_rooms_ascent", description="Exact hypergradient ascent on Four-Rooms.")
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--steps", type=int, default=10_000, help="steps of each ascent (default 10000)")
    parser.add_argument("--entropy", type=int, default=0, help="root entropy of the starting points (default 0)")
    parser.add_argument("--temperature", type=float, nargs="+", default=list(TEMPERATURES), metavar="β")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    theta = initial_theta(named_stream(options.entropy, "four_rooms_ascent", "start"))
    runs, certificates, rows = [], [], []
    for temperature in options.temperature:
        run = ascend(temperature, theta, steps=options.steps)
        certificate = certify_no_penalty(temperature)
        uniform = leader_objective(four_rooms(temperature=temperature), np.zeros(theta.size))
        runs.append(run)
        certificates.append(certificate)
        rows.append(
            {
                "temperature": temperature,
                "objective at θ = 0": uniform,
                "objective at the start": run.objective[0],
                "objective at the end": run.objective[-1],
                "penalty left at the end": 1.0 - run.unused_share[-1],
                "largest gradient norm": run.gradient_norm.max(),
                "objective at no penalty": certificate.objective,
                "largest slope at no penalty": certificate.slope,
                "error bound of the slope": certificate.error_bound,
                "cell of the largest slope": certificate.cell,
            }
        )
        print(
            f"β = {temperature:g}: J = {uniform:.4f} at θ = 0, {run.objective[0]:.4f} at the start, "
            f"{run.objective[-1]:.4f} after {options.steps} steps; "
            f"no penalty: J = {certificate.objective:.5f}, largest slope {certificate.slope:.3f}"
        )
    write_curves(options.output / "curves.csv", runs)
    write_atomically(options.output / "summary.csv", csv_text([list(rows[0]), *(row.values() for row in rows)]))
    draw(options.output / "ascent.png", runs, certificates)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
