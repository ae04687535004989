"""What critics of the LQR game know about the players' actions: the measurement itself, on the exact critic."""

import numpy as np
import pytest

from bilevelrl.benchmarks.research.bilevel_lqr.slopes import CriticSlopes, _Transitions
from bilevelrl.estimators.critics.gaussian_networks import ExactGameCritics
from bilevelrl.estimators.methods.score_game import ScoreForm
from bilevelrl.estimators.sampling.gaussian_game import StackedFollowers, sample_games
from bilevelrl.estimators.sampling.replay_memory import Draws, truncated_discount
from bilevelrl.reference import hypergradient, named_stream
from bilevelrl.tasks import lqr_game

pytestmark = pytest.mark.exact
GAIN = np.array([[-9.0, -9.0]])


def measured():
    game, followers = lqr_game(), StackedFollowers.solve(lqr_game(), GAIN)
    batch = sample_games(game, followers, streams=10, steps=100, rng=[named_stream(0, "slopes")])
    critic = ExactGameCritics.solve(game, GAIN, followers, steps=100)
    return game, _Transitions(game=game, followers=followers, batch=batch), critic


def test_benefits_have_the_exact_mean():
    game, at, critic = measured()
    state, leader, action = at.visited
    wanted = critic.action_value(state, leader, action) - critic.over_follower(state, leader)
    # n Gauss-Hermite nodes average a Gaussian bump, as wide as the noise over √r, to about (r / (1 + r))^n.
    spread = game.dynamics_action @ at.followers.covariance[0] @ game.dynamics_action.T
    r = spread[1, 1] / game.width[1, 1]
    assert 4.0 < r < 5.0
    np.testing.assert_allclose(at.benefits(critic), wanted, atol=(r / (1.0 + r)) ** 32 * np.abs(wanted).max())


def test_slopes_are_what_the_policy_part_is_made_of():
    # By Stein's identity E[score A] = E[x dQ/dl]; the average over the leader's tiny noise is the value at the mode.
    game, at, critic = measured()
    state, *_ = at.visited
    draws = Draws.every(game.discount_leader, 1, 10, 100)
    found = (draws.weight * at.slopes(critic)) @ state[0] * truncated_discount(game.discount_leader, 100)
    truth = hypergradient(game, GAIN[0], route="implicit", horizon=100, bound=False)
    wanted = truth.value - truth.parts["response"]
    cosine = found[0] @ wanted / (np.linalg.norm(found) * np.linalg.norm(wanted))
    assert cosine > 0.99
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(wanted), rel=0.2)  # 1000 transitions
    full = at.directions(critic, GAIN, ScoreForm(suffix="fitted"))[0]
    assert full @ truth.value / (np.linalg.norm(full) * np.linalg.norm(truth.value)) > 0.99


def test_a_network_as_drawn_knows_nothing_and_learns():
    start, later = (CriticSlopes.measure((-7.0, -2.0), runs=2, iterations=steps) for steps in (1, 120))
    assert (start.slope_ratio > 2.0 * later.slope_ratio).all()
    assert (np.abs(start.slope_correlation) <= 1.0).all()
