"""The follower's error against the hypergradient's, on Four-Rooms at θ = 0: `bilevelrl reproduce followers`.

Followers that stop after k sweeps from zero, that learn for k updates (`FOLLOWER_MAPS`), and followers known from n
observed actions per state. The error of a follower is its largest total variation over states; beside the distance of
BC-HG's mean from ∇J stand its bound, and the distance of the gradient through the follower's own map, where it has one.
Nothing is sampled but the observed actions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from bilevelrl.benchmarks.sweeping.curves import pyplot, save_picture
from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row, SweepRunner
from bilevelrl.reference import TabularFollower, hypergradient, named_stream, solve_follower
from bilevelrl.reference.approximations import (
    follower_policy,
    formula_under,
    hypergradient_through,
    hypergradient_through_sweeps,
    variation_bound,
)
from bilevelrl.reference.observed import policy_from_counts
from bilevelrl.tasks import four_rooms

__all__ = ["FIGURES", "follower_rows"]

TEMPERATURES = (0.001, 0.003, 0.005)
SWEEPS = (20, 30, 40, 50, 60, 80, 100, 120, 150, 200, 250, 300)
OBSERVED = tuple(10**k for k in range(2, 9))
"""Actions per state."""

PRIOR = 0.5

UPDATES: Mapping[str, tuple[float, tuple[int, ...]]] = MappingProxyType(
    {
        "soft_q_learning": (0.1, (100, 300, 500, 700, 1000, 1500, 2000, 3000)),
        "natural_policy_gradient": (0.5, (1, 2, 3, 5, 7, 10, 14, 20, 28)),
        "imitation": (1.0, (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000)),
    }
)
"""{learner: (step size, updates)}."""


def follower_rows(
    temperature: float,
    sweeps: Sequence[int],
    observed: Sequence[int],
    updates: Mapping[str, tuple[float, tuple[int, ...]]] = UPDATES,
) -> Iterator[Row]:
    """Yield one row per follower.

    Parameters
    ----------
    temperature
        The follower's β.
    sweeps, observed
        How many sweeps, and how many actions per state.
    updates
        {learner: (step size, how many updates)}.

    Examples
    --------
    >>> [(row["follower"], row["bound"] < 1e-6) for row in follower_rows(0.005, (300,), (), {})]
    [('sweeps', True)]
    """
    problem, theta = four_rooms(temperature=temperature), np.zeros(105)
    best = hypergradient(problem, theta)
    assert isinstance(best.follower, TabularFollower)
    policy = best.follower.policy
    rng = named_stream(0, "followers", f"{temperature:g}")

    def row(kind: str, effort: int, follower: TabularFollower, own: float, known: float = float("nan")) -> Row:
        formula = formula_under(problem, theta, follower)
        return {
            "temperature": temperature,
            "follower": kind,
            "effort": effort,
            "variation": 0.5 * float(np.abs(follower.policy - policy).sum(axis=1).max()),
            "gap": float(np.abs(formula.value - best.value).max()),
            "bound": formula.error_bound,
            "own_map": own,
            "largest": float(np.abs(best.value).max()),
            "variation_bound": known,
        }

    for k in sweeps:
        hasty = solve_follower(problem, theta, method="value_iteration", stop_after=k - 1)
        through = hypergradient_through_sweeps(problem, theta, sweeps=k)
        yield row("sweeps", k, hasty, float(np.abs(through - best.value).max()))
    for learner, (share, efforts) in updates.items():
        for k in efforts:
            policy_k = follower_policy(problem, theta, learner, updates=k, step_size=share)
            through = hypergradient_through(problem, theta, learner, updates=k, step_size=share)
            known = variation_bound(problem, theta, learner, updates=k, step_size=share)
            learnt = TabularFollower.from_policy(problem, theta, policy_k)
            yield row(learner.replace("_", " "), k, learnt, float(np.abs(through - best.value).max()), known)
    for n in observed:
        counts = np.stack([rng.multinomial(n, law / law.sum()) for law in policy])
        seen = TabularFollower.from_policy(problem, theta, policy_from_counts(counts, prior=PRIOR))
        yield row("observed actions", n, seen, float("nan"))


def _rows(folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    temperatures = TEMPERATURES[1:2] if options.quick else TEMPERATURES
    return [row for each in temperatures for row in follower_rows(each, SWEEPS, OBSERVED)]


def _table(rows: Sequence[Row], options: FigureOptions) -> str:
    lines = [
        "| β | follower | effort | total variation | its bound | gap of the formula | bound | gap of its own map |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        numbers = (float(row[name]) for name in ("variation", "variation_bound", "gap", "bound", "own_map"))
        shown = " | ".join("" if np.isnan(number) else f"{number:.1e}" for number in numbers)
        lines.append(f"| {row['temperature']} | {row['follower']} | {int(row['effort']):,} | {shown} |")
    return "\n".join(lines)


COLOURS = {
    "sweeps": "#08519c",
    "soft q learning": "#2e7d32",
    "natural policy gradient": "#8e24aa",
    "imitation": "#c2a000",
    "observed actions": "#a63603",
}


def _draw(folder: Path, rows: Sequence[Row], options: FigureOptions) -> list[Path]:
    plt = pyplot()
    temperatures = list(dict.fromkeys(row["temperature"] for row in rows))
    size = (max(5.0, 4.2 * len(temperatures)), 4.6)
    figure, axes = plt.subplots(1, len(temperatures), figsize=size, squeeze=False, sharey=True, layout="constrained")
    for axis, temperature in zip(axes[0], temperatures, strict=True):
        for kind, colour in COLOURS.items():
            own = [row for row in rows if row["temperature"] == temperature and row["follower"] == kind]
            error = [float(row["variation"]) for row in own]

            def relative(name: str, own: Sequence[Row] = own) -> list[float]:
                return [float(row[name]) / float(row["largest"]) for row in own]

            axis.plot(error, relative("gap"), "o-", ms=3, lw=1.0, color=colour, label=kind)
            axis.plot(error, relative("bound"), "--", lw=0.8, color=colour)
            axis.plot(error, relative("own_map"), ":", lw=1.4, color=colour)
        axis.set(xscale="log", yscale="log", title=f"β = {temperature:g}", xlabel="follower: largest total variation")
        axis.spines[["top", "right"]].set_visible(False)
    for style, label in (("o-", "BC-HG's mean"), ("--", "its bound, where there is one"), (":", "through its own map")):
        axes[0, 0].plot([], [], style, ms=3, color="#555555", label=label)
    axes[0, 0].set_ylim(top=1e2)
    axes[0, 0].set_ylabel("distance from ∇J, of its largest entry")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    path = folder / "followers.png"
    save_picture(figure, path, dpi=100)
    plt.close(figure)
    return [path]


FIGURES = (
    Figure(
        name="followers",
        title="the follower's error against the hypergradient's, with its bound, on Four-Rooms; no seeds",
        seeds=1,
        iterations=1,
        quick_seeds=1,
        quick_iterations=1,
        rows=_rows,
        table=_table,
        draw=_draw,
    ),
)
