"""Leaders that see actions alone: what the study trains, what its table says of it, and that kept rows are its own."""

from pathlib import Path

import numpy as np
import pytest

from bilevelrl.benchmarks.research.followers.observed import FIGURES, observed_cell, observed_training
from bilevelrl.benchmarks.sweeping.figures import FigureOptions
from bilevelrl.benchmarks.sweeping.sweep_store import read_table
from bilevelrl.estimators.followers import ExactFollower

pytestmark = pytest.mark.exact


def rows_of(task, observed, path):
    cell = {"task": task, "method": "naive_pgd", "observed": observed}
    found = observed_cell(cell, {"seeds": 1, "iterations": 3, "points": 3}, path / f"{task}-{observed}.npz")
    return [{**cell, **row} for row in found]


def test_the_formula_gets_nearer_with_observations_and_is_there_where_it_is_told(tmp_path):
    rows = {(task, n): rows_of(task, n, tmp_path) for task in ("four_rooms", "toy_game") for n in (10, 10_000, 0)}
    for task in ("four_rooms", "toy_game"):
        few, many, told = (np.median([row["hypergradient_error"] for row in rows[task, n]]) for n in (10, 10_000, 0))
        assert few > 3.0 * many > 0.0
        assert told == 0.0
    table = FIGURES[0].table([row for each in rows.values() for row in each], FigureOptions(seeds=1, iterations=3))
    assert table.count("| told |") == 2
    assert table.count("| 10,000 |") == 2
    assert isinstance(observed_training(task="toy_game", method="bc_hg", observed=0, seeds=1, iterations=1).follower,
                      ExactFollower)  # fmt: skip


def test_kept_rows_begin_like_a_fresh_run(tmp_path):
    kept = read_table(Path(__file__).resolve().parents[4] / "benchmarks" / "results" / "observed.csv")
    for observed in (1, 1000):
        cell = {"task": "four_rooms", "method": "bc_hg_exact_benefit", "observed": observed}
        (fresh,) = observed_cell(cell, {"seeds": 1, "iterations": 1, "points": 1}, tmp_path / f"{observed}.npz")
        (row,) = (row for row in kept if {**cell, "seed": 0, "iteration": 0}.items() <= row.items())
        for name in ("objective", "hypergradient_error"):
            assert row[name] == pytest.approx(fresh[name], abs=2e-6), name
