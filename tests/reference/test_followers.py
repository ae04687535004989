"""One vocabulary of followers: what every kind answers, held against the soft Bellman equation that defines it."""

import numpy as np
import pytest

from bilevelrl.reference import solve_follower
from bilevelrl.reference.errors import InvalidInputError
from bilevelrl.reference.problem import Follower
from bilevelrl.tasks import building_thermal_control, lqr_game, random_markov_game, random_mdp, toy_markov_game

pytestmark = pytest.mark.exact

SEEING = toy_markov_game()
BLIND = random_markov_game(seed=0, follower_sees_leader_action=False)
CASES = {
    "tabular": (random_mdp(states=4, actions=3, parameters=3, seed=0), [0, 3], None),
    "seeing game": (SEEING, [0, 2], [1, 0]),
    "blind game": (BLIND, [0, 1], None),
    "lqr": (building_thermal_control(), None, None),
    "lqr game": (lqr_game(), [[0.5, 1.0], [2.0, -1.0]], [[1.0], [-1.0]]),
}


def case(name):
    problem, states, leader_actions = CASES[name]
    theta = np.zeros(problem.theta_shape)
    follower = solve_follower(problem, theta)
    if states is None:
        states = np.random.default_rng(0).normal(size=(2, follower.gain.shape[1]))
    return problem, follower, states, leader_actions


@pytest.mark.parametrize("name", CASES)
def test_every_kind_has_the_vocabulary(name):
    _, follower, states, leader_actions = case(name)
    assert isinstance(follower, Follower)
    assert follower.status.succeeded
    assert np.isfinite([follower.residual, follower.error_bound]).all()
    assert follower.value_at(states, leader_actions).shape == (2,)
    assert follower.value_at(states).shape == (2,)
    action = follower.sample(states, np.random.default_rng(0), leader_actions)
    assert follower.log_prob(states, action, leader_actions).shape == (2,)
    if name != "blind game":
        gap = follower.action_value_at(states, action, leader_actions) - follower.value_at(states, leader_actions)
        temperature = CASES[name][0].temperature
        np.testing.assert_allclose(gap, temperature * follower.log_prob(states, action, leader_actions), atol=1e-10)


def test_an_lqr_followers_action_values_are_rewards_and_what_comes_after():
    problem, follower, x, _ = case("lqr")
    m = problem.matrices_at(np.zeros(problem.theta_shape))
    action = follower.sample(x, np.random.default_rng(1))
    mean = x @ m.dynamics_state.T + action @ m.dynamics_action.T
    reward = -np.vecdot(x @ m.cost_state_follower, x) - np.vecdot(action @ m.cost_action_follower, action)
    after = follower.value_at(mean) - np.vdot(follower.cost_to_go, m.noise_covariance)
    expected = reward + problem.discount_follower * after
    np.testing.assert_allclose(follower.action_value_at(x, action), expected, rtol=1e-9)


def test_games_tell_values_before_and_after_the_leader_has_acted():
    _, follower, _, _ = case("seeing game")
    policy = SEEING.policy_at(np.zeros(SEEING.theta_shape))
    states, leaders = np.indices(policy.shape)
    seen = follower.value_at(states, leaders)
    np.testing.assert_allclose((policy * seen).sum(axis=1), follower.value_at(states[:, 0]), rtol=1e-12)
    assert np.abs(seen - follower.value_at(states)).max() > 1e-3
    _, blind, states, _ = case("blind game")
    np.testing.assert_array_equal(blind.value_at(states, 1), blind.value_at(states))
    np.testing.assert_array_equal(blind.action_value_at(states, 0, 1), blind.action_value[states, 1, 0])


def test_the_end_of_a_process_is_worth_nothing_and_beyond_it_is_no_state():
    for name in ("tabular", "seeing game", "blind game"):
        _, follower, _, _ = case(name)
        end = len(follower.policy)
        assert follower.value_at(end) == 0.0
        for wrong in (end + 1, -1):
            with pytest.raises(InvalidInputError, match="state"):
                follower.value_at(wrong)
    with pytest.raises(InvalidInputError, match="leader_action"):
        case("blind game")[1].action_value_at(0, 0)
