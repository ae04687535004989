"""The study of nudged followers: steps are counted and survive an interruption, objectives are read at equal steps."""

from pathlib import Path

import numpy as np
import pytest

from bilevelrl.benchmarks.research.nudged import side_by_side
from bilevelrl.benchmarks.research.nudged.side_by_side import (
    TOY_STEPS,
    StepCounts,
    four_rooms_cell,
    steps_of_an_iteration,
    toy_game_cell,
)
from bilevelrl.benchmarks.research.nudged.training import _table, at_equal_steps
from bilevelrl.benchmarks.sweeping.figures import FigureOptions
from bilevelrl.benchmarks.sweeping.sweep_store import read_table
from bilevelrl.estimators import Context, sample_trajectories
from bilevelrl.estimators.methods import NudgedFollowers
from bilevelrl.reference import leader_objective, solve_follower
from bilevelrl.tasks import four_rooms, toy_markov_game

pytestmark = pytest.mark.exact

CONFIGURATION = {"seeds": 2, "selection_seeds": 1, "iterations": 20, "points": 4}


def test_steps_of_paid_episodes_are_those_that_sampling_finds():
    """Mean of 4,000 episodes of either population: within five standard errors, false alarms of 6e-7."""
    problem, theta = four_rooms(temperature=0.005), np.zeros(105)
    estimator = NudgedFollowers(pay=3.0, unpaid=False)
    expected = steps_of_an_iteration(problem, theta, estimator, 100)
    context = Context(
        problem=problem, theta=theta, follower=solve_follower(problem, theta), rng=np.random.default_rng(0)
    )
    batch = sample_trajectories(problem, theta, context.follower, streams=4000, steps=100, rng=np.random.default_rng(1))
    played = [
        item.batch.valid.sum(axis=1) for item in estimator.contributions(batch, context) if item.part == "response"
    ]
    lengths = played[0] + played[1]
    # The cost is rounded to whole steps.
    assert abs(lengths.mean() - expected) < 5.0 * lengths.std() / np.sqrt(lengths.size) + 0.5
    assert steps_of_an_iteration(problem, theta, None, 100) == 100.0


@pytest.mark.parametrize("method", ["nudged", "bc_hg"])
def test_an_interruption_leaves_no_trace(method, tmp_path, monkeypatch):
    cell = {"temperature": 0.005, "method": method}
    whole = four_rooms_cell(cell, CONFIGURATION, tmp_path / "whole.npz")
    assert {row["seed"] for row in whole} == {0, 1}
    assert whole[0]["environment_steps"] == 0
    if method == "bc_hg":
        assert whole[-1]["environment_steps"] == 100 * whole[-1]["iteration"]
    else:
        assert 0 < whole[-1]["environment_steps"] < 200 * whole[-1]["iteration"]

    count = StepCounts.__call__

    def counted_until_ten(self, evaluation):
        count(self, evaluation)
        return evaluation.iteration < 10 or self.path.stem != "cut-steps"  # selections run through

    with monkeypatch.context() as patch:
        patch.setattr(StepCounts, "__call__", counted_until_ten)
        cut = four_rooms_cell(cell, CONFIGURATION, tmp_path / "cut.npz")
    assert max(row["iteration"] for row in cut) == 10
    resumed = four_rooms_cell(cell, CONFIGURATION, tmp_path / "cut.npz")
    for one, other in zip(whole, resumed, strict=True):
        for name in set(one) - {"cpu_ms_per_iteration"}:
            assert one[name] == other[name], name


@pytest.mark.parametrize(("method", "populations"), [("bc_hg", 1), ("nudged", 2)])
def test_on_the_toy_game_episodes_never_end_and_steps_are_counted(method, populations, tmp_path, monkeypatch):
    monkeypatch.setattr(side_by_side, "_chosen_rate", lambda *selection: 0.1)
    configuration = {"seeds": 1, "selection_seeds": 1, "iterations": 4, "points": 3}
    rows = toy_game_cell({"bonus": 1.0, "method": method}, configuration, tmp_path / "toy.npz")
    assert [row["environment_steps"] for row in rows] == [populations * TOY_STEPS * row["iteration"] for row in rows]
    start = leader_objective(toy_markov_game(1.0), np.zeros(3))
    assert rows[0]["objective"] == pytest.approx(start, rel=0.2)  # from logits near zero
    assert (rows[0]["critic_step_size"] is None) == (method == "nudged")


def test_objectives_at_equal_steps_are_interpolated_seed_by_seed():
    rows = [
        {"seed": seed, "environment_steps": steps, "objective": seed + steps / 10.0}
        for seed in (0, 1)
        for steps in (0, 10, 30)
    ]
    np.testing.assert_allclose(at_equal_steps(rows, 20.0), [2.0, 3.0])


def test_the_toy_game_s_kept_table_is_made_of_its_kept_rows():
    results = Path(__file__).resolve().parents[3] / "benchmarks" / "results"
    rows = read_table(results / "nudged_toy_game.csv")
    kept = (results / "nudged_toy_game.md").read_text(encoding="utf-8")
    assert kept == _table(rows, FigureOptions(seeds=5, iterations=500)) + "\n"


def test_the_kept_table_is_made_of_the_kept_rows():
    results = Path(__file__).resolve().parents[3] / "benchmarks" / "results"
    rows = read_table(results / "nudged.csv")
    kept = (results / "nudged.md").read_text(encoding="utf-8")
    assert kept == _table(rows, FigureOptions(seeds=4, iterations=5000)) + "\n"
    trapped = [row["final_objective"] for row in rows if row["method"] == "nudged_common"]
    assert np.abs(np.array(trapped) - 0.00039).max() < 1e-5  # where exact ascent ends
