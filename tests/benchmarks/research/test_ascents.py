"""The study of ascents: steps are the formula's, refusals end a climb, and the kept table is of the kept rows."""

from pathlib import Path

import numpy as np
import pytest

from bilevelrl.benchmarks.research.approximations import ascents
from bilevelrl.benchmarks.research.approximations.ascents import KNOBS, RATE, _table, climb, climbed_problem
from bilevelrl.benchmarks.sweeping.figures import FigureOptions
from bilevelrl.benchmarks.sweeping.sweep_store import read_table
from bilevelrl.reference import hypergradient, leader_objective
from bilevelrl.reference.approximations import APPROXIMATIONS, approximate_hypergradient
from bilevelrl.reference.errors import IllPosedError

pytestmark = pytest.mark.exact

RESULTS = Path(__file__).resolve().parents[3] / "benchmarks" / "results"


def test_every_approximation_climbs_but_those_for_few_parameters_or_small_problems():
    assert set(KNOBS) - {"exact", "no response"} == set(APPROXIMATIONS) - {"smoothing", "network_policy"}


@pytest.mark.parametrize("method", ["exact", "no response", "value_penalty_two_sided"])
def test_a_step_is_what_the_method_says_shortened(method):
    problem, start = climbed_problem("toy game, R = 1")
    theta = start
    for _ in range(2):
        truth = hypergradient(problem, theta)
        step = truth.value - (truth.parts["response"] if method == "no response" else 0.0)
        if method in APPROXIMATIONS:
            step = approximate_hypergradient(problem, theta, method, 0.1)
        theta = theta + RATE * step / max(1.0, np.linalg.norm(step))
    rows = climb(problem, start, method, iterations=2, points=3)
    assert [row["iteration"] for row in rows] == [0, 1, 2]
    assert rows[-1]["objective"] == pytest.approx(leader_objective(problem, theta), rel=1e-5)


def test_a_refusal_ends_a_climb_and_is_told(monkeypatch):
    right = ascents.direction

    def refuses_later(problem, theta, method):
        if theta.any():
            raise IllPosedError("pay=1.0: grows")
        return right(problem, theta, method)

    monkeypatch.setattr(ascents, "direction", refuses_later)
    rows = climb(*climbed_problem("toy game, R = 1"), "exact", iterations=10, points=3)
    assert [(row["iteration"], row["refused"]) for row in rows] == [(0, ""), (2, "pay=1.0")]


def test_the_kept_table_is_made_of_the_kept_rows_and_they_begin_as_a_fresh_run():
    rows = read_table(RESULTS / "ascents.csv")
    assert (RESULTS / "ascents.md").read_text(encoding="utf-8") == _table(
        rows, FigureOptions(seeds=1, iterations=200)
    ) + "\n"
    for task in ("toy game, R = 1", "mdp_discount_0.99"):
        fresh = climb(*climbed_problem(task), "bellman_penalty_two_sided", iterations=20, points=2)
        kept = [row for row in rows if (row["task"], row["method"]) == (task, "bellman_penalty_two_sided")]
        assert float(kept[1]["objective"]) == pytest.approx(fresh[-1]["objective"], rel=1e-4)
