"""The follower's error against the hypergradient's, on Four-Rooms at θ = 0: `bilevelrl reproduce followers`.

Followers that stop after k sweeps from zero, and followers imitated from n observed actions per state. The error of a
follower is its largest total variation over states; beside the distance of BC-HG's mean from ∇J stand its bound, and
for sweeps the distance of the gradient through the follower's own map. Nothing is sampled but the observed actions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from bilevelrl.benchmarks.sweeping.curves import pyplot, save_picture
from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row, SweepRunner
from bilevelrl.reference import TabularFollower, hypergradient, named_stream, solve_follower
from bilevelrl.reference.approximations import formula_under, hypergradient_through_sweeps
from bilevelrl.reference.observed import policy_from_counts
from bilevelrl.tasks import four_rooms

__all__ = ["FIGURES", "follower_rows"]

TEMPERATURES = (0.001, 0.003, 0.005)
SWEEPS = (20, 30, 40, 50, 60, 80, 100, 120, 150, 200, 250, 300)
OBSERVED = tuple(10**k for k in range(2, 9))
"""Actions per state."""

PRIOR = 0.5


def follower_rows(temperature: float, sweeps: Sequence[int], observed: Sequence[int]) -> Iterator[Row]:
    """Yield one row per follower.

    Examples
    --------
    >>> [(row["follower"], row["bound"] < 1e-6) for row in follower_rows(0.005, (300,), ())]
    [('sweeps', True)]
    """
    problem, theta = four_rooms(temperature=temperature), np.zeros(105)
    best = hypergradient(problem, theta)
    assert isinstance(best.follower, TabularFollower)
    policy = best.follower.policy
    rng = named_stream(0, "followers", f"{temperature:g}")

    def row(kind: str, effort: int, follower: TabularFollower, own: float) -> Row:
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
        }

    for k in sweeps:
        hasty = solve_follower(problem, theta, method="value_iteration", stop_after=k - 1)
        through = hypergradient_through_sweeps(problem, theta, sweeps=k)
        yield row("sweeps", k, hasty, float(np.abs(through - best.value).max()))
    for n in observed:
        counts = np.stack([rng.multinomial(n, law / law.sum()) for law in policy])
        seen = TabularFollower.from_policy(problem, theta, policy_from_counts(counts, prior=PRIOR))
        yield row("observed actions", n, seen, float("nan"))


def _rows(folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    temperatures = TEMPERATURES[1:2] if options.quick else TEMPERATURES
    return [row for each in temperatures for row in follower_rows(each, SWEEPS, OBSERVED)]


def _table(rows: Sequence[Row], options: FigureOptions) -> str:
    lines = [
        "| β | follower | effort | total variation | gap of the formula | bound | gap of its own map |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        own = "" if np.isnan(float(row["own_map"])) else f"{float(row['own_map']):.1e}"
        numbers = " | ".join(f"{float(row[name]):.1e}" for name in ("variation", "gap", "bound"))
        lines.append(f"| {row['temperature']} | {row['follower']} | {int(row['effort']):,} | {numbers} | {own} |")
    return "\n".join(lines)


def _draw(folder: Path, rows: Sequence[Row], options: FigureOptions) -> list[Path]:
    plt = pyplot()
    temperatures = list(dict.fromkeys(row["temperature"] for row in rows))
    size = (4.2 * len(temperatures), 4.0)
    figure, axes = plt.subplots(1, len(temperatures), figsize=size, squeeze=False, sharey=True, layout="constrained")
    for axis, temperature in zip(axes[0], temperatures, strict=True):
        for kind, colour in (("sweeps", "#08519c"), ("observed actions", "#a63603")):
            own = [row for row in rows if row["temperature"] == temperature and row["follower"] == kind]
            error = [float(row["variation"]) for row in own]

            def relative(name: str, own: Sequence[Row] = own) -> list[float]:
                return [float(row[name]) / float(row["largest"]) for row in own]

            axis.plot(error, relative("gap"), "o-", ms=3, lw=1.0, color=colour, label=f"BC-HG's mean, {kind}")
            axis.plot(error, relative("bound"), "--", lw=1.0, color=colour, label="its bound, where there is one")
            if kind == "sweeps":
                axis.plot(error, relative("own_map"), ":", lw=1.2, color=colour, label="through the follower's own map")
        axis.set(xscale="log", yscale="log", title=f"β = {temperature:g}", xlabel="follower: largest total variation")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylim(top=10.0)
    axes[0, 0].set_ylabel("distance from ∇J, of its largest entry")
    axes[0, -1].legend(frameon=False, fontsize=7)
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
