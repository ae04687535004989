"""Leaders that see actions alone: what the study trains, and what its table says of it."""

import numpy as np
import pytest

from bilevelrl.benchmarks.research.followers.observed import FIGURES, observed_cell, observed_training
from bilevelrl.benchmarks.sweeping.figures import FigureOptions
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
