"""The study of followers: its bound holds wherever it says something, and its kept rows are of today's code."""

import csv
from pathlib import Path

import numpy as np
import pytest

from bilevelrl.benchmarks.research.followers.errors import follower_rows

pytestmark = pytest.mark.exact

KEPT = Path(__file__).resolve().parents[4] / "benchmarks" / "results" / "followers.csv"


def kept():
    with KEPT.open(encoding="utf-8") as lines:
        return [
            {name: value if name == "follower" else float(value) for name, value in row.items()}
            for row in csv.DictReader(lines)
        ]


def test_the_bound_holds_and_the_formula_is_no_worse_than_the_followers_own_map():
    rows = kept()
    assert sum(np.isfinite(row["bound"]) for row in rows) > 15
    for row in rows:
        assert row["gap"] <= row["bound"]
        assert not row["variation"] > row["variation_bound"] + 1e-12
        if row["follower"] == "sweeps" or (row["follower"] == "soft q learning" and row["variation"] < 0.6):
            assert not row["gap"] > 1.1 * row["own_map"] + 1e-14


def test_whoever_watches_the_best_response_is_better_differentiated_through():
    """An imitator's own map carries θ through the best response; the formula takes its values for the follower's."""
    watched = [row for row in kept() if row["follower"] == "imitation" and row["variation"] > 2e-3]
    assert len(watched) > 12
    for row in watched:
        assert row["own_map"] < 0.5 * row["gap"]


def test_kept_rows_are_those_of_a_fresh_run():
    learners = {"soft_q_learning": (0.1, (1000,)), "natural_policy_gradient": (0.5, (10,)), "imitation": (1.0, (100,))}
    fresh = list(follower_rows(0.005, (100, 200), (), learners))
    found = {(row["follower"], row["effort"]): row for row in kept() if row["temperature"] == 0.005}
    for row in fresh:
        for name in ("variation", "gap", "bound", "own_map"):
            assert row[name] == pytest.approx(found[row["follower"], row["effort"]][name], rel=1e-6), name
