"""The best penalties known on Four-Rooms: exact ascent from many kinds of starts, then a polish in the penalties.

    OMP_NUM_THREADS=1 python -m bilevelrl.benchmarks.research.escape.optimum --output F.csv

Softmaxes never reach the border of the simplex, where optima lie. The polish moves in the shares p ≥ 0, Σ p ≤ 1
themselves, and its end is held against the conditions of Karush, Kuhn and Tucker: there, no feasible direction leads up
to first order. That makes it a local maximum to first order; that it is the global one is not proved.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import optimize

from bilevelrl.benchmarks.paper.four_rooms.training import panel_training
from bilevelrl.benchmarks.research.escape.world import escape_training
from bilevelrl.benchmarks.research.model_based import Plan, Planner, RandomStarts
from bilevelrl.benchmarks.sweeping.figures import Row
from bilevelrl.benchmarks.sweeping.sweep_store import write_table
from bilevelrl.estimators.followers import ExactFollower, SharedDynamics, batch_objectives
from bilevelrl.estimators.training import train
from bilevelrl.reference import ConfigurableMDP, hypergradient, named_stream, solve_follower
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.derivatives import softmax
from bilevelrl.tasks import four_rooms
from bilevelrl.tasks.paper import FOUR_ROOMS_GRID

__all__ = ["Polished", "find_optimum", "main", "polish", "starting_points"]

CELLS = FOUR_ROOMS_GRID.states
TEMPERATURES = (0.001, 0.003, 0.005)
_RESTARTS = 8
_STATIONARY = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Polished:
    """A local maximum in the shares of the budget.

    Attributes
    ----------
    shares : (cells,)
        p.
    objective : float
        J there.
    slope : float
        Largest first-order gain per unit of budget that is moved to where it may go: 0 at an exact stationary point.
    """

    shares: FloatArray
    objective: float
    slope: float


def starting_points(kernel: str, temperature: float, *, count: int, entropy: int = 0) -> dict[str, FloatArray]:
    """Return logits (points, cells + 1) to start ascents from, by kind.

    Parameters
    ----------
    kernel, temperature
        Which Four-Rooms.
    count
        How many random points are screened.
    entropy
        Root of the random numbers.

    Returns
    -------
    dict
        "random": the best of the random points; "vertices": the best of those with nearly all on one cell;
        "edges": the best of those with it on two of the best vertices, by halves; "BC-HG": where short runs of BC-HG
        ended; "continuation": where ascents ended whose temperature fell.
    """
    problem = four_rooms(temperature=temperature, kernel=kernel)
    rng = named_stream(entropy, "escape", "optimum", kernel, f"{temperature:g}")
    spread = np.full((CELLS, CELLS + 1), -9.0)
    spread[np.arange(CELLS), np.arange(CELLS)] = 0.0
    vertices = _best(problem, spread, 8)
    pairs = [np.maximum(one, other) for k, one in enumerate(vertices) for other in vertices[:k]]
    random = np.concatenate([RandomStarts(scale=scale).draw(rng, count // 2, CELLS + 1) for scale in (4.0, 8.0)])
    noisy = train(
        panel_training(
            variant=kernel, temperature=temperature, batch_steps=100, methods=["bc_hg"], seeds=2, iterations=2000
        )
    )
    cooled = train(escape_training("hot_0.02", problem, seeds=1, iterations=1000))
    return {
        "random": _best(problem, random, 12),
        "vertices": vertices,
        "edges": _best(problem, np.array(pairs), 8),
        "BC-HG": noisy.thetas,
        "continuation": cooled.thetas,
    }


def _best(problem: ConfigurableMDP, points: FloatArray, count: int) -> FloatArray:
    dynamics, found = SharedDynamics(problem, points[0]), []
    for k in range(0, len(points), 50):
        followers, _ = ExactFollower().respond(dynamics, dynamics.rewards(points[k : k + 50]), {})
        found.append(batch_objectives(dynamics, followers))
    return points[np.argsort(-np.concatenate(found), kind="stable")[:count]]


def polish(kernel: str, temperature: float, shares: FloatArray, *, iterations: int = 200) -> Polished:
    """Climb in the shares by sequential quadratic programming with exact gradients.

    Parameters
    ----------
    kernel, temperature
        Which Four-Rooms.
    shares : (cells,)
        Feasible start.
    iterations
        At most so many.

    Examples
    --------
    No penalty is a local maximum, from which nothing leads up.

    >>> polished = polish("planner", 0.005, np.zeros(104))
    >>> round(polished.objective, 4), polished.slope
    (0.0178, 0.0)
    """
    problem = four_rooms(temperature=temperature, kernel=kernel, coordinates="shares")
    memory: list[Any] = [None]

    def negative(point: FloatArray) -> tuple[float, FloatArray]:
        memory[0] = solve_follower(problem, point, warm_start=memory[0])
        exact = hypergradient(problem, point, warm_start=memory[0], bound=False)
        return -exact.objective, -exact.value

    minimise: Any = optimize.minimize
    best, slope, value = shares, np.inf, np.inf
    for _ in range(_RESTARTS):  # its line search may give up before there is nothing left to gain
        found = minimise(
            negative,
            best,
            jac=True,
            method="SLSQP",
            bounds=[(0.0, 1.0)] * CELLS,
            constraints=[{"type": "ineq", "fun": lambda p: 1.0 - p.sum(), "jac": lambda p: -np.ones(CELLS)}],
            options={"maxiter": iterations, "ftol": 1e-13},
        )
        best = np.clip(found.x, 0.0, 1.0)
        best /= max(1.0, float(best.sum()))
        value, gradient = negative(best)
        gain = np.append(-gradient, 0.0)  # of a unit in each cell, and of one left unused
        used = np.append(best, 1.0 - best.sum()) > 1e-6
        slope = float(gain.max() - gain[used].min())
        if slope < _STATIONARY:
            break
    return Polished(shares=best, objective=-value, slope=slope)


def find_optimum(kernel: str, temperature: float, *, count: int = 2000, steps: int = 400) -> tuple[Row, Row]:
    """Return one row about the optimum, and one about where each kind of start led."""
    problem = four_rooms(temperature=temperature, kernel=kernel)
    planner = Planner(steps=steps, learning_rate=0.2)
    starts = starting_points(kernel, temperature, count=count)
    plans: dict[str, Plan] = {}
    for kind, points in starts.items():
        plans[kind] = planner.ascend(SharedDynamics(problem, points[0]), points)
    ends = sorted(plans.values(), key=lambda plan: -plan.objective)
    polished = [polish(kernel, temperature, softmax(plan.theta)[:-1]) for plan in ends[:2]]
    best = max(polished, key=lambda found: found.objective)
    order = np.argsort(-best.shares)
    support = [cell for cell in order if best.shares[cell] > 0.002]
    panel = {"kernel": kernel, "temperature": temperature}
    row = {
        **panel,
        "objective": round(best.objective, 6),
        "slope": float(f"{best.slope:.2g}"),
        "unused": abs(round(1.0 - float(best.shares.sum()), 4)),
        "support": "; ".join(f"{FOUR_ROOMS_GRID.cell_of(int(k))}: {best.shares[k]:.3f}" for k in support),
    }
    led = {**panel, **{kind: round(plan.objective, 4) for kind, plan in plans.items()}}
    return row, led


def main(arguments: Sequence[str] | None = None) -> int:
    """Find the optimum of every panel, and write one row each."""
    parser = argparse.ArgumentParser(prog="escape_optimum", description="The best penalties known on Four-Rooms.")
    parser.add_argument("--output", type=Path, required=True, help="CSV file")
    parser.add_argument("--kernel", nargs="+", default=["planner", "paper"])
    parser.add_argument("--temperature", type=float, nargs="+", default=list(TEMPERATURES), metavar="β")
    parser.add_argument("--points", type=int, default=2000, help="random points screened in each panel (default 2000)")
    options = parser.parse_args(arguments)
    rows = []
    for kernel in options.kernel:
        for temperature in options.temperature:
            row, led = find_optimum(kernel, temperature, count=options.points)
            rows.append({**row, **{f"from {kind}": value for kind, value in led.items() if kind not in row}})
            print(rows[-1], file=sys.stderr, flush=True)
            write_table(options.output, rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
