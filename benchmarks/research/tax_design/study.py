"""`bilevelrl reproduce tax_design`: what the published follower and update of tax design make of it, beside the truth.

Three leaders climb from taxes of .3, each along a direction without noise: the hypergradient; the mean of the
published update where followers respond best; the same where they are the published ones. All steps are those of the
release: rate .01, goods and income shortened to norm 1 apart, both contexts summed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bilevelrl.benchmarks.research.tax_design.published import World, independent_heads, published_update
from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row, SweepRunner
from bilevelrl.benchmarks.sweeping.sweep_grid import Cell, Grid
from bilevelrl.benchmarks.sweeping.sweeps import Sweep
from bilevelrl.estimators.sums import clip_to_norm
from bilevelrl.reference import ConfigurableMDP, TabularFollower, hypergradient
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.tasks.paper.tax_design import PREFERENCES, household, tax_rates, tax_theta

__all__ = ["FIGURES", "LEADERS", "Economy", "ascent_rows"]

TEMPERATURES = (0.1, 0.2, 0.3)
LEADERS: Mapping[str, str] = {
    "exact": "hypergradient",
    "published": "published update, best responses",
    "published_heads": "published update, published follower",
}
RATE = 0.01
LIMIT = 1.0
CELLS = 21
TAXES = ("τ_1", "τ_2", "τ_3", "y")


@dataclass(slots=True, kw_only=True)
class Economy:
    """All contexts at one temperature; what followers ended with is where they begin at the next θ.

    Attributes
    ----------
    temperature : float
    cells : int
    households
        One per context.
    """

    temperature: float
    cells: int
    households: list[ConfigurableMDP] = field(init=False)
    _best: dict[int, Any] = field(default_factory=dict, init=False)
    _heads: dict[int, list[FloatArray]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.households = [
            household(preferences=each, temperature=self.temperature, cells=self.cells) for each in PREFERENCES
        ]

    def look(self, theta: FloatArray, *, heads_too: bool = True, other_too: bool = False) -> dict[str, Any]:
        """Return both objectives, the directions and how far followers are apart, contexts averaged."""
        found: list[dict[str, Any]] = []
        for place, problem in enumerate(self.households):
            best = self._best[place] = hypergradient(problem, theta, warm_start=self._best.get(place))
            assert isinstance(best.follower, TabularFollower)
            world, policy = World.of(problem, theta), best.follower.policy
            found.append(
                {
                    "objective": best.objective,
                    "exact": best.value,
                    "direct": best.parts["direct"] + best.parts["transition"],
                    "published": published_update(world, policy),
                    "published_zero": published_update(world, policy, missing=0.0),
                }
            )
            if heads_too or other_too:
                heads, self._heads[place] = independent_heads(world, start=self._heads.get(place, ()))
                other, _ = independent_heads(world, step=0.5) if other_too else (heads, [])
                found[-1] |= {
                    "objective_other": float(world.initial @ world.values(other, world.leader)),
                    "objective_heads": float(world.initial @ world.values(heads, world.leader)),
                    "lost": float(world.initial @ (best.follower.value - world.soft_value(heads))),
                    "published_heads": published_update(world, heads),
                }
        return {name: np.mean([each[name] for each in found], axis=0) for name in found[0]}


def ascent_rows(leader: str, *, temperature: float, cells: int, iterations: int, every: int) -> Iterator[Row]:
    """Yield a row where a leader begins, every so often, and where it ends.

    Examples
    --------
    >>> rows = list(ascent_rows("exact", temperature=0.3, cells=11, iterations=1, every=1))
    >>> [row["iteration"] for row in rows], rows[1]["objective"] > rows[0]["objective"]
    ([0, 1], True)
    """
    economy, theta = Economy(temperature=temperature, cells=cells), tax_theta()
    for iteration in range(iterations + 1):
        shown = iteration % every == 0 or iteration == iterations
        first = iteration == 0 and leader == "exact"
        found = economy.look(theta, heads_too=shown or leader == "published_heads", other_too=first)
        if shown:
            row: Row = {"temperature": temperature, "leader": leader, "cells": cells, "iteration": iteration}
            row |= {name: float(rate) for name, rate in zip(TAXES, tax_rates(theta), strict=True)}
            for name, value in found.items():
                if np.ndim(value) == 0:
                    row[name] = float(value)
                else:
                    row |= {f"{name}_{place}": float(entry) for place, entry in enumerate(value)}
            yield row
        theta = theta + RATE * clip_to_norm(found[leader][None], LIMIT, blocks=(3, 1))[0]


def tax_cell(cell: Cell, configuration: Mapping[str, Any], checkpoint: Path) -> list[Row]:
    """Return the rows of one leader at one temperature."""
    iterations = int(configuration["iterations"])
    return list(
        ascent_rows(
            cell["leader"],
            temperature=cell["temperature"],
            cells=configuration["cells"],
            iterations=iterations,
            every=max(1, iterations // 20),
        )
    )


def _rows(folder: Path, options: FigureOptions, run: SweepRunner) -> list[Row]:
    temperatures = list(options.own["temperature"])
    axes: list[tuple[str, Sequence[Any]]] = [("temperature", temperatures), ("leader", list(LEADERS))]
    grid = Grid(axes=axes, known=("temperature", "leader"))
    configuration = {"iterations": options.iterations, "cells": 11 if options.quick else int(options.own["cells"])}
    return run(Sweep(function=tax_cell, grid=grid, folder=folder / "cells", configuration=configuration))


def _vector(row: Row, name: str) -> str:
    return ", ".join(f"{float(row[f'{name}_{place}']):.2f}" for place in range(4))


def _table(rows: Sequence[Row], options: FigureOptions) -> str:
    lines = [
        "Where all taxes are .3, contexts averaged:",
        "",
        "| β | welfare, best responses | published follower, full steps | half steps | it loses | hypergradient "
        "| without response | published update | the same, 0 for NaN | with its follower |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        if row["iteration"] == 0 and row["leader"] == "exact":
            numbers = " | ".join(
                f"{float(row[name]):.2f}" for name in ("objective", "objective_heads", "objective_other", "lost")
            )
            names = ("exact", "direct", "published", "published_zero", "published_heads")
            lines.append(f"| {row['temperature']} | {numbers} | {' | '.join(_vector(row, name) for name in names)} |")
    lines += [
        "",
        f"After {options.iterations:,} outer iterations:",
        "",
        "| β | leader | welfare, best responses | published follower | taxes τ_1, τ_2, τ_3, y |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        if row["iteration"] == options.iterations:
            taxes = ", ".join(f"{float(row[name]):.2f}" for name in TAXES)
            welfare = f"{float(row['objective']):.2f} | {float(row['objective_heads']):.2f}"
            lines.append(f"| {row['temperature']} | {LEADERS[str(row['leader'])]} | {welfare} | {taxes} |")
    return "\n".join(lines)


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--temperature", type=float, nargs="+", choices=TEMPERATURES, default=list(TEMPERATURES), metavar="β")
    add("--cells", type=int, default=CELLS, help=f"into which assets are put (default {CELLS})")


FIGURES = (
    Figure(
        name="tax-design",
        title="HPGD's tax design in cells: the published follower and update beside the hypergradient; no seeds",
        seeds=1,
        iterations=1000,
        quick_seeds=1,
        quick_iterations=2,
        rows=_rows,
        table=_table,
        arguments=_arguments,
    ),
)
