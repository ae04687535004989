"""The toy game's landscape: optima, switches, directions and where paths lead."""

import csv

import numpy as np
import pytest

from bilevelrl.benchmarks.paper.published_follower import log_sum_exp_of_the_mean
from bilevelrl.benchmarks.paper.toy_game.landscape import ascend, directions, landscape, main, optimum
from bilevelrl.reference import hypergradient
from bilevelrl.reference.errors import UnsupportedError
from bilevelrl.tasks import toy_game_theta, toy_markov_game


@pytest.mark.parametrize(
    ("bonus", "p", "objective", "switch", "wrong_p", "wrong_objective", "wrong_switch"),
    [
        (1.0, 0.16646, 34.99264, 0.3393, 0.15819, 34.9158, 0.3268),
        (2.0, 0.50264, 39.94021, 0.6111, 0.49063, 39.7608, 0.5976),
    ],
)
def test_optima_and_switches_of_both_followers(bonus, p, objective, switch, wrong_p, wrong_objective, wrong_switch):
    right, wrong = optimum(bonus), optimum(bonus, respond=log_sum_exp_of_the_mean)
    assert (right.p, right.switch) == pytest.approx((p, switch), abs=6e-5)
    assert right.objective == pytest.approx(objective, abs=6e-6)
    assert (wrong.p, wrong.switch) == pytest.approx((wrong_p, wrong_switch), abs=6e-5)
    assert wrong.objective == pytest.approx(wrong_objective, abs=6e-5)


@pytest.mark.parametrize("bonus", [1.0, 2.0])
def test_directions(bonus):
    best = optimum(bonus)
    for p in np.linspace(0.05, 0.95, 13):
        found = directions(bonus, float(p))
        truth = hypergradient(toy_markov_game(bonus), toy_game_theta(float(p)))
        assert found["BC-HG"] == pytest.approx(truth.value[1], abs=2 * truth.error_bound + 1e-9)
        assert found["naive policy gradient"] > 0.0
        assert (found["BC-HG"] > 0.0) == (p < best.p)
        # Bi-AC pushes towards the switch, and is exactly indifferent beyond it.
        assert found["Bi-AC"] > 0.1 if p < best.switch else abs(found["Bi-AC"]) < 1e-9


def test_paths_lead_where_directions_point():
    assert ascend(1.0, "BC-HG", steps=60, rate=0.1)[-1] < 0.34
    assert ascend(1.0, "naive policy gradient", steps=60)[-1] > 0.52
    np.testing.assert_allclose(ascend(1.0, "Bi-AC", steps=5), 0.504, atol=1e-6)


def test_the_published_follower_refuses_a_game_without_its_error():
    with pytest.raises(UnsupportedError, match="sees"):
        log_sum_exp_of_the_mean(toy_markov_game(follower_sees_leader_action=False), np.zeros(3))


def test_main_writes_table_and_picture(tmp_path):
    assert main(["--output", str(tmp_path), "--points", "9", "--steps", "3"]) == 0
    rows = list(csv.DictReader((tmp_path / "landscape.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 18
    entry = landscape(1.0, points=9)
    assert [float(row["objective"]) for row in rows[:9]] == entry.objective.tolist()
    assert np.abs(entry.wrong_follower - entry.blind_follower).max() < 0.01
    assert np.abs(entry.wrong_follower - entry.objective).max() > 1.0
    assert (tmp_path / "landscape.png").stat().st_size > 10_000
