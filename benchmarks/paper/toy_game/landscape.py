"""The exact landscape of the toy Markov game: the leader's return over p = f(1|A), and what each method climbs.

For both bonuses R the return has one cliff: beyond some p the follower no longer goes through A, and the leader earns
nothing. The optimum lies just before it, and the hypergradient stops there. The naive policy gradient is positive
everywhere and walks over the cliff; Bi-AC, whose values know only the most likely answer, does the same up to the
follower's switch, and rests wherever it stands beyond it. The follower of the published runs
(`log_sum_exp_of_the_mean`) moves the cliff and the optimum; in this game the leader earns from it what it would earn
from a follower that never sees its action, to within .01.

Run with `python -m bilevelrl.benchmarks.paper.toy_game.landscape --output results/toy_game_landscape`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from bilevelrl.benchmarks.paper.published_follower import log_sum_exp_of_the_mean
from bilevelrl.benchmarks.sweeping.curves import save_picture
from bilevelrl.estimators import BCHG, BiAC, Context, NaivePGD
from bilevelrl.estimators.terms import AlongTrajectories
from bilevelrl.reference import leader_objective, solve_follower
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import check_count
from bilevelrl.reference.errors import MissingExtraError
from bilevelrl.reference.storage import csv_text, write_atomically
from bilevelrl.tasks import toy_game_theta, toy_markov_game

__all__ = ["BONUSES", "Landscape", "Optimum", "ascend", "directions", "landscape", "main", "optimum"]

BONUSES = (1.0, 2.0)

METHODS: Mapping[str, AlongTrajectories] = {
    "BC-HG": BCHG(stopping="sum"),
    "naive policy gradient": NaivePGD(stopping="sum"),
    "Bi-AC": BiAC(stopping="sum"),
}
"""Expected directions over an infinite horizon, with exact critics."""

START = 0.504
"""Where the published runs begin on average."""

COLOURS = {"BC-HG": "#1769aa", "naive policy gradient": "#c2410c", "Bi-AC": "#8e24aa"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Landscape:
    """The leader's return on a grid of p.

    Attributes
    ----------
    bonus : float
        R.
    p, objective, wrong_follower, blind_follower : (points,)
        The grid; the return under the best response, under the published follower, and in the game whose follower does
        not see the leader's action.
    directions : {method: (points,)}
        Expected direction in the logit of p.
    """

    bonus: float
    p: FloatArray
    objective: FloatArray
    wrong_follower: FloatArray
    blind_follower: FloatArray
    directions: Mapping[str, FloatArray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimum:
    """The best p and the follower's switch.

    Attributes
    ----------
    p, objective : float
        Where the return is largest, and that return.
    switch : float
        Where the follower goes to A with probability one half.
    """

    p: float
    objective: float
    switch: float


def directions(bonus: float, p: float) -> dict[str, float]:
    """Return each method's expected direction in the logit of p, by exact expectations.

    Examples
    --------
    >>> {name: round(value, 4) for name, value in directions(1.0, 0.2).items()}
    {'BC-HG': -1.8523, 'naive policy gradient': 1.901, 'Bi-AC': 2.7434}
    """
    game, theta = toy_markov_game(bonus), toy_game_theta(p)
    context = Context(problem=game, theta=theta, follower=solve_follower(game, theta))
    found = {}
    for name, method in METHODS.items():
        parts = method.expectation(context, horizon=1)
        found[name] = float(sum(part[1] for part in parts.values()))
    return found


def landscape(bonus: float, *, points: int = 301) -> Landscape:
    """Evaluate the return and the directions on an even grid of p in (0, 1).

    Examples
    --------
    >>> flat = landscape(1.0, points=9)
    >>> round(float(flat.p[flat.objective.argmax()]), 3)
    0.2
    """
    check_count("points", points)
    game = toy_markov_game(bonus)
    blind = replace(game, follower_sees_leader_action=False)
    grid = np.arange(1, points + 1) / (points + 1)
    thetas = [toy_game_theta(float(p)) for p in grid]
    along = [directions(bonus, float(p)) for p in grid]
    return Landscape(
        bonus=bonus,
        p=grid,
        objective=np.array([leader_objective(game, theta) for theta in thetas]),
        wrong_follower=np.array(
            [leader_objective(game, theta, follower=log_sum_exp_of_the_mean(game, theta)) for theta in thetas]
        ),
        blind_follower=np.array([leader_objective(blind, theta) for theta in thetas]),
        directions={name: np.array([found[name] for found in along]) for name in METHODS},
    )


def optimum(bonus: float, *, respond: Callable[..., Any] = solve_follower) -> Optimum:
    """Return the best p and the switch under a follower: the best response, or another function (game, θ) → response.

    Examples
    --------
    >>> best = optimum(1.0)
    >>> round(best.p, 4), round(best.objective, 4), round(best.switch, 4)
    (0.1665, 34.9926, 0.3393)
    >>> wrong = optimum(1.0, respond=log_sum_exp_of_the_mean)
    >>> round(wrong.p, 4), round(wrong.switch, 4)
    (0.1582, 0.3268)
    """
    game = toy_markov_game(bonus)

    def objective(p: float) -> float:
        theta = toy_game_theta(p)
        return leader_objective(game, theta, follower=respond(game, theta))

    def lead(p: float) -> float:
        return float(respond(game, toy_game_theta(p)).policy[0, 0, 1]) - 0.5

    switch = float(brentq(lead, 0.05, 0.95, xtol=1e-10))
    found = minimize_scalar(lambda p: -objective(p), bounds=(0.02, switch), method="bounded", options={"xatol": 1e-9})
    return Optimum(p=float(found.x), objective=-float(found.fun), switch=switch)


def ascend(bonus: float, method: str, *, start: float = START, steps: int = 400, rate: float = 0.02) -> FloatArray:
    """Return p along Adam's path on a method's expected direction, (steps + 1,).

    Examples
    --------
    >>> path = ascend(1.0, "BC-HG", steps=3)
    >>> path.shape, bool(path[-1] < path[0])
    ((4,), True)
    """
    check_count("steps", steps)
    logit = float(np.log(start / (1.0 - start)))
    first = second = 0.0
    path = [start]
    for k in range(1, steps + 1):
        slope = directions(bonus, path[-1])[method]
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        logit += rate * (first / (1.0 - 0.9**k)) / (np.sqrt(second / (1.0 - 0.999**k)) + 1e-8)
        path.append(float(1.0 / (1.0 + np.exp(-logit))))
    return np.array(path)


def write_landscapes(path: Path, landscapes: Sequence[Landscape]) -> None:
    """Write one tidy row per bonus and p."""
    names = ("objective", "wrong_follower", "blind_follower")
    rows: list[tuple[object, ...]] = [("bonus", "p", *names, *(f"direction of {name}" for name in METHODS))]
    for entry in landscapes:
        columns = [entry.p, *(getattr(entry, name) for name in names), *entry.directions.values()]
        for row in zip(*columns, strict=True):
            rows.append((entry.bonus, *(repr(float(value)) for value in row)))
    write_atomically(path, csv_text(rows))


def draw(
    path: Path,
    landscapes: Sequence[Landscape],
    optima: Sequence[tuple[Optimum, Optimum]],
    paths: Sequence[Mapping[str, FloatArray]],
) -> None:
    """Draw returns, paths on them, and directions.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtraError("drawing", "matplotlib", "cli") from error
    figure, axes = plt.subplots(
        2, len(landscapes), figsize=(6.6 * len(landscapes), 8.6), layout="constrained", squeeze=False, sharex=True
    )
    for column, (entry, (right, wrong), walked) in enumerate(zip(landscapes, optima, paths, strict=True)):
        top, bottom = axes[0, column], axes[1, column]
        top.plot(entry.p, entry.objective, color="black", lw=2, label="best response")
        top.plot(
            entry.p, entry.wrong_follower, color="#777777", lw=1.5, ls="--", label="log-sum-exp of the mean (wrong)"
        )
        top.plot(right.p, right.objective, "*", color="black", ms=12, label="optimum")
        top.annotate(f"p* = {right.p:.4f}", (right.p, right.objective), (0, 9), textcoords="offset points", ha="center")
        for rank, (name, steps) in enumerate(walked.items()):
            # Each path runs below the curve in a lane of its own, from its start (open) to its end (filled).
            lane = -3.5 - 4.0 * rank
            top.plot(steps, np.full(steps.shape, lane), color=COLOURS[name], lw=2, solid_capstyle="butt")
            top.plot(steps[0], lane, "o", mfc="white", mec=COLOURS[name], ms=6)
            top.plot(steps[-1], lane, "o", color=COLOURS[name], ms=7)
            top.annotate(
                f"{name}: {steps[0]:.3f} → {steps[-1]:.3f}",
                (1.01, lane),
                xycoords=("axes fraction", "data"),
                ha="left",
                va="center",
                fontsize=8.5,
                color=COLOURS[name],
            )
        for axis in (top, bottom):
            axis.axvline(right.switch, color="black", lw=0.8, alpha=0.35)
            axis.axvline(wrong.switch, color="#777777", lw=0.8, ls="--", alpha=0.5)
            axis.spines[["top", "right"]].set_visible(False)
        top.set_title(f"R = {entry.bonus:g}", loc="left", fontsize=12)
        top.set_ylim(-14.0, 46.0)
        top.set_ylabel("leader's return J, infinite horizon")
        for name, values in entry.directions.items():
            bottom.plot(entry.p, values, color=COLOURS[name], lw=1.8, label=name)
        bottom.axhline(0.0, color="black", lw=0.8)
        bottom.axvline(right.p, color="black", lw=0.8, ls=":")
        bottom.set_yscale("symlog", linthresh=0.1)
        bottom.set(xlabel="p = f(1|A)", ylabel="expected direction in the logit of p")
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9
    )
    figure.suptitle(
        "Toy game: paths on exact expected directions (lanes; ○ start, ● end), the follower's switch (vertical lines)",
        fontsize=11,
    )
    save_picture(figure, path, dpi=150)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute the landscapes, print the optima and where each method ends, write `landscape.csv` and `.png`."""
    parser = argparse.ArgumentParser(prog="toy_game_landscape", description="The toy Markov game's exact landscape.")
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--points", type=int, default=301, help="grid points of p (default 301)")
    parser.add_argument("--steps", type=int, default=400, help="Adam steps of each path (default 400)")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    landscapes, optima, paths = [], [], []
    for bonus in BONUSES:
        right, wrong = optimum(bonus), optimum(bonus, respond=log_sum_exp_of_the_mean)
        walked = {name: ascend(bonus, name, steps=options.steps) for name in METHODS}
        landscapes.append(landscape(bonus, points=options.points))
        optima.append((right, wrong))
        paths.append(walked)
        print(
            f"R = {bonus:g}: p* = {right.p:.5f}, J* = {right.objective:.5f}, switch at {right.switch:.4f}; "
            f"published follower: p* = {wrong.p:.5f}, switch at {wrong.switch:.4f}"
        )
        game = toy_markov_game(bonus)
        for name, steps in walked.items():
            objective = leader_objective(game, toy_game_theta(float(steps[-1])))
            print(f"  {name}: from p = {steps[0]:.3f} to {steps[-1]:.4f}, J = {objective:.4f}")
    write_landscapes(options.output / "landscape.csv", landscapes)
    draw(options.output / "landscape.png", landscapes, optima, paths)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
