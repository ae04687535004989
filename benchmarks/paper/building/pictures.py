"""Pictures of the linear-quadratic tasks: exact landscapes, exact ascent with and without the response, closed loops.

python -m bilevelrl.benchmarks.paper.building.pictures --output figures
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from bilevelrl.benchmarks.sweeping.curves import save_picture
from bilevelrl.estimators import sample_trajectories
from bilevelrl.reference import ConfigurableLQR, LQRGame, hypergradient, leader_objective, solve_follower
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import MissingExtraError
from bilevelrl.reference.lqr_game import closed_loop, evaluate_game_leader
from bilevelrl.reference.problem import Objective
from bilevelrl.tasks import building_thermal_control, lqr_game

__all__ = ["building_ascent", "draw_building", "draw_game", "game_landscape", "main"]

BEST_GAIN = (-9.9615, -10.0)
_ZONE_COLOURS = ("#1f6f8b", "#c8553d", "#588157", "#7d5ba6")
_NAIVE, _EXACT = "#c8553d", "#1f6f8b"


def building_ascent(
    problem: ConfigurableLQR, *, iterations: int, rate: float = 0.1, response: bool = True
) -> tuple[FloatArray, FloatArray]:
    """Return J (iterations + 1,) and the last θ of exact ascent from θ = 0, each half of the gradient clipped to one.

    Parameters
    ----------
    problem
        A building.
    iterations, rate
        Number and length of the steps.
    response
        False leaves the follower's response out of the gradient.

    Examples
    --------
    >>> objective, _ = building_ascent(building_thermal_control(), iterations=100)
    >>> round(float(objective[-1]), 1)
    -163.7
    """
    shape = problem.theta_shape
    assert shape is not None
    theta, objective = np.zeros(shape), []
    for _ in range(iterations):
        truth = hypergradient(problem, theta, bound=False)
        objective.append(truth.objective)
        step = truth.value if response else truth.value - truth.parts["response"]
        halves = step.reshape(2, -1)
        size = np.maximum(np.linalg.norm(halves, axis=1, keepdims=True), 1.0)
        theta = theta + rate * (halves / size).ravel()
    return np.array([*objective, leader_objective(problem, theta)]), theta


def game_landscape(game: LQRGame, first: FloatArray, second: FloatArray, *, horizon: int = 100) -> FloatArray:
    """Return the undiscounted J over a grid of gains, (len(second), len(first)).

    Examples
    --------
    >>> game_landscape(lqr_game(), np.array([0.0]), np.array([0.0])).round(5)
    array([[0.01495]])
    """
    return np.array(
        [
            [leader_objective(game, np.array([k1, k2]), horizon=horizon, discounted=False) for k1 in first]
            for k2 in second
        ]
    )


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise MissingExtraError("drawing pictures", "matplotlib", "cli") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def draw_building(path: Path, *, iterations: int = 400) -> None:
    """Draw ascent, parameters, a slice of the landscape and closed loops of the four-zone building."""
    pyplot = _pyplot()
    problem = building_thermal_control()
    exact, best = building_ascent(problem, iterations=iterations)
    naive, stuck = building_ascent(problem, iterations=iterations, response=False)
    figure, axes = pyplot.subplots(2, 2, figsize=(11.0, 8.0), layout="constrained")
    ascent, shares, slice_axes, loops = axes.ravel()
    ascent.plot(exact, color=_EXACT, label=f"hypergradient: {exact[-1]:.1f}")
    ascent.plot(naive, color=_NAIVE, label=f"without the response: {naive[-1]:.1f}")
    ascent.set(
        xlabel="exact ascent steps", ylabel="leader's objective J", title="The response decides where ascent ends"
    )
    ascent.legend(frameon=False)

    names = [f"insulation {i}" for i in range(1, 5)] + ["wall 1-2", "wall 2-3", "wall 3-4", "wall 4-1"]
    rows = np.arange(8)
    for offset, theta, colour, label in (
        (-0.2, best, _EXACT, "hypergradient"),
        (0.2, stuck, _NAIVE, "without the response"),
    ):
        shares.barh(rows + offset, 1.0 / (1.0 + np.exp(-theta)), height=0.36, color=colour, label=label)
    shares.set(yticks=rows, yticklabels=names, xlim=(0.0, 1.0), xlabel="share", title="Parameters at the end")
    shares.invert_yaxis()
    shares.legend(loc="lower left", fontsize=8)

    grid = np.linspace(1e-3, 1.0 - 1e-3, 41)
    values = np.empty((41, 41))
    for i, airflow in enumerate(grid):
        for j, insulation in enumerate(grid):
            theta = best.copy()
            theta[1], theta[4] = (np.log(share / (1.0 - share)) for share in (insulation, airflow))
            values[i, j] = leader_objective(problem, theta)
    filled = slice_axes.contourf(grid, grid, values, levels=18, cmap="viridis")
    figure.colorbar(filled, ax=slice_axes, label="J")
    shown = 1.0 / (1.0 + np.exp(-best))
    slice_axes.plot(shown[1], shown[4], "o", color="white", markeredgecolor="black", clip_on=False, zorder=5)
    slice_axes.set(xlabel="insulation of zone 2", ylabel="airflow through wall 1-2", title="J around the optimum")
    slice_axes.set(xlim=(0.0, 1.0), ylim=(0.0, 1.0))

    for theta, style, label in ((np.zeros(8), ":", "start"), (best, "-", "optimum")):
        follower = solve_follower(problem, theta)
        batch = sample_trajectories(problem, theta, follower, streams=1, steps=60, rng=np.random.default_rng(4))
        for zone, colour in enumerate(_ZONE_COLOURS):
            name = f"zone {zone + 1}, {label}"
            loops.plot(batch.state_t[0, :, zone], style, color=colour, label=name, linewidth=1.4)
    loops.axhline(0.0, color="0.7", linewidth=0.8, zorder=0)
    loops.set(xlabel="step", ylabel="deviation of temperature", title="One episode from the same first state")
    loops.legend(frameon=False, ncols=2, fontsize=8)
    save_picture(figure, path, dpi=150)
    pyplot.close(figure)


def draw_game(path: Path, *, resolution: int = 60) -> None:
    """Draw the exact landscape of the LQR game from afar and at its peak, and the closed loops of two gains."""
    pyplot = _pyplot()
    game = lqr_game()
    figure, axes = pyplot.subplots(1, 3, figsize=(14.5, 4.4), layout="constrained")
    wide = np.linspace(-11.0, 1.0, resolution), np.linspace(-13.0, 4.0, resolution)
    close = np.linspace(-10.2, -9.6, resolution), np.linspace(-11.5, -8.5, resolution)
    for panel, (first, second), title in ((axes[0], wide, "J from afar"), (axes[1], close, "J at the peak")):
        values = game_landscape(game, first, second)
        levels = np.linspace(-2.0, 1.5, 15) if panel is axes[0] else 18
        shown = np.log10(np.maximum(values, 1e-2)) if panel is axes[0] else values
        filled = panel.contourf(first, second, shown, levels=levels, cmap="magma")
        figure.colorbar(filled, ax=panel, label="log10 J (100 steps)" if panel is axes[0] else "J (100 steps)")
        panel.plot(*BEST_GAIN, "o", color="white", markeredgecolor="black")
        panel.set(xlabel="first gain", ylabel="second gain", title=title)
    axes[0].plot(-7.59, 0.9306, "s", color="white", markeredgecolor="black")
    for gain, colour, name in ((BEST_GAIN, _EXACT, "optimum"), ((-7.59, 0.9306), _NAIVE, "(-7.59, 0.93)")):
        theta = np.array(gain)
        follower, policy = solve_follower(game, theta), game.policy_at(theta)
        loop = closed_loop(game, policy.gain, policy.covariance, follower.riccati.reaction, follower.covariance)
        law = evaluate_game_leader(game, loop, objective=Objective(30, discounted=False), derivatives=False)
        spread = 2.0 * np.sqrt(law.covariance[:, 0, 0])
        axes[2].plot(law.mean[:, 0], ".-", color=colour, label=f"{name}: J = {law_total(game, theta):.2f}")
        axes[2].fill_between(np.arange(30), law.mean[:, 0] - spread, law.mean[:, 0] + spread, color=colour, alpha=0.15)
    axes[2].axhline(-0.8, color="0.5", linewidth=0.8)
    axes[2].set(xlabel="step", ylabel="first coordinate, mean ± 2 sd", title="Closed loops; the line is the target")
    axes[2].set_ylim(-1.15, 1.5)
    axes[2].legend(frameon=False, loc="upper right")
    save_picture(figure, path, dpi=150)
    pyplot.close(figure)


def law_total(game: LQRGame, theta: FloatArray) -> float:
    """Return the undiscounted J over 100 steps."""
    return leader_objective(game, theta, horizon=100, discounted=False)


def main(arguments: list[str] | None = None) -> None:
    """Draw both tasks into a folder."""
    parser = argparse.ArgumentParser(description="Draw the linear-quadratic tasks.")
    parser.add_argument("--output", type=Path, default=Path("figures"), help="folder for the pictures")
    folder = parser.parse_args(arguments).output
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in (("building.png", draw_building), ("lqr_game.png", draw_game)):
        draw(folder / name)
        print(folder / name)


if __name__ == "__main__":
    main()
