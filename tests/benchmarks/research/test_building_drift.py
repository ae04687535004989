"""Pairs of batches with opposite process noise: what they keep, what they flip, and which drifts they see."""

from dataclasses import replace

import numpy as np
import pytest

from bilevelrl.benchmarks.research.building import drift as building_drift
from bilevelrl.benchmarks.research.building.drift import drift_cell, opposite_noise, paper_drift
from bilevelrl.benchmarks.research.building.planted import PlantedCritics
from bilevelrl.estimators import Context
from bilevelrl.estimators.sampling.linear_quadratic import LQRSimulator
from bilevelrl.reference import solve_follower
from bilevelrl.reference.errors import InvalidInputError
from bilevelrl.tasks import building_thermal_control, random_lqr


def _batch(problem, *, steps=20, **limits):
    theta = np.zeros(problem.theta_shape)
    context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    rng = np.random.default_rng(0)
    return LQRSimulator(**limits).sample(problem, theta, context.follower, streams=4, steps=steps, rng=rng), context


@pytest.mark.parametrize("problem", [building_thermal_control(), random_lqr(seed=3)], ids=["building", "random"])
def test_partners_share_starts_and_action_noise_and_nothing_of_the_process_noise(problem):
    batch, context = _batch(problem)
    partner = opposite_noise(batch, context)
    matrices = problem.matrices_at(context.theta)

    def noises(trajectories):
        mean = trajectories.state_t @ matrices.dynamics_state.T + trajectories.action_t @ matrices.dynamics_action.T
        return trajectories.state_tp1 - mean, trajectories.action_t - context.follower.mean(trajectories.state_t)

    (noise, played), (opposite, played_too) = noises(batch), noises(partner)
    # differences of states of size s are exact to a few rounding errors of s
    rounding = 64 * np.finfo(float).eps * np.abs(batch.state_tp1).max()
    assert np.abs(noise).max() > 1e6 * rounding
    np.testing.assert_allclose(opposite, -noise, rtol=0, atol=rounding)
    np.testing.assert_allclose(played_too, played, rtol=0, atol=rounding)
    np.testing.assert_array_equal(partner.state_t[:, 0], batch.state_t[:, 0])
    np.testing.assert_allclose(
        partner.reward_leader_t, matrices.reward_leader(partner.state_t, partner.action_t), rtol=0, atol=0
    )


def test_batches_of_several_episodes_per_stream_are_refused():
    batch, context = _batch(building_thermal_control(), step_limit=5, single_episode=False)
    with pytest.raises(InvalidInputError, match="one whole episode"):
        opposite_noise(batch, context)


def test_pairs_see_planted_errors_and_none_in_the_exact_benefit(monkeypatch, tmp_path):
    cell = {"critics": "exact", "group": "action_value", "first_pair": 0}
    configuration = {"pairs_per_cell": 8, "episodes": 100}
    monkeypatch.setattr(building_drift, "_GROUPS", {"action_value": ("bc_hg",)})

    def drifts(**error):
        monkeypatch.setattr(building_drift, "_RULES", {"exact": PlantedCritics(**error)})
        return np.array([row["drift"] for row in drift_cell(cell, configuration, tmp_path / "checkpoint")])

    exact = np.abs(drifts())  # the same pairs of batches every time
    assert np.all(drifts(offset=11.0) > exact)  # eight of eight: 1 in 256 by chance, for each error
    assert np.all(drifts(surprise=-0.2) > exact)
    assert np.all(drifts(surprise=0.2) < -exact)


def test_the_papers_drift_is_read_back_from_curves_with_a_known_one(monkeypatch):
    iterations = np.arange(0.0, 2001.0, 40.0)
    level = 1.0 / (1.0 + np.exp(-0.03 * 0.01 * iterations))
    curve = np.array([iterations, 40.0 * level**2, 0.0 * level])
    monkeypatch.setattr(building_drift, "paper_curve", lambda quantity, rate, method: curve)
    assert paper_drift("any", 0.01) == pytest.approx(0.03, rel=1e-9)
    assert paper_drift("any", 0.02) == pytest.approx(0.015, rel=1e-9)


def test_costs_for_values_turn_hpgds_guiding_term_and_leave_naive_pgd_alone(tmp_path):
    configuration = {"pairs_per_cell": 2, "episodes": 20}
    rows = [
        row
        for group in ("action_value", "state_value")
        for row in drift_cell(
            {"critics": "no_gradient", "group": group, "first_pair": 0}, configuration, tmp_path / "c"
        )
    ]
    assert {row["method"] for row in rows} == {"bc_hg", "hpgd_td", "naive_pgd", "hpgd_mc"}
    for row in rows:
        if row["method"] == "naive_pgd":
            assert row["drift_with_costs"] == row["drift"]
        elif row["method"].startswith("hpgd"):  # the guiding term is 1e5 times the rest
            assert row["drift_with_costs"] == pytest.approx(-row["drift"], abs=1e-3)
        assert -1.0 <= row["cosine_of_partners"] <= 1.0


def test_warm_networks_go_on_from_the_first_batch_of_a_pair(monkeypatch, tmp_path):
    class Counting(PlantedCritics):
        def learn(self, wanted, trajectories, context, carried, rng):
            learnt = super().learn(wanted, trajectories, context, carried, rng)
            seen.append(int(carried.get("fits", np.zeros(1))[0]))
            return replace(learnt, carried={"fits": np.array([seen[-1] + 1.0])})

    seen = []
    monkeypatch.setattr(building_drift, "_RULES", {"a_warm": Counting()})
    monkeypatch.setattr(building_drift, "_GROUPS", {"action_value": ("bc_hg",)})
    cell = {"critics": "a_warm", "group": "action_value", "first_pair": 0}
    rows = drift_cell(cell, {"pairs_per_cell": 3, "episodes": 5}, tmp_path / "checkpoint")
    assert seen == [0, 0, 1, 1, 2, 2]  # both of a pair start alike
    assert [row["fits_before"] for row in rows] == [0, 1, 2]
