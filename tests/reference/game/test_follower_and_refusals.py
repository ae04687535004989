"""The follower of Markov games, their policies and derivatives, and what is refused."""

import dataclasses

import autograd.numpy as anp
import numpy as np
import pytest
from game_cases import OBJECTIVES, theta_of

from bilevelrl.reference import (
    MarkovGame,
    TabularSoftmaxPolicy,
    hypergradient,
    leader_objective,
    solve_follower,
)
from bilevelrl.reference.best_response import SuboptimalFollower
from bilevelrl.reference.errors import (
    IllPosedError,
    IndependenceError,
    InvalidInputError,
    ShapeError,
    StochasticityError,
    SupportError,
)
from bilevelrl.reference.game import NeuralPolicy, reduce_game
from bilevelrl.tasks import random_markov_game, toy_game_theta, toy_markov_game

# ---------------------------------------------------------------- follower


@pytest.mark.parametrize("sees", [True, False])
@pytest.mark.parametrize("temperature", [1e-4, 1e-2, 1.0, 1e2])
@pytest.mark.parametrize("method", ["newton", "value_iteration", "modified_policy_iteration"])
def test_follower_methods_agree_at_every_temperature(method, temperature, sees):
    game = random_markov_game(states=4, temperature=temperature, follower_sees_leader_action=sees)
    theta = theta_of(game)
    exact, found = solve_follower(game, theta), solve_follower(game, theta, method=method)
    assert exact.status.succeeded
    assert found.status.succeeded
    assert np.abs(found.state_value - exact.state_value).max() <= found.error_bound + exact.error_bound
    assert exact.error_bound <= 1e-9
    for values in (exact.value, exact.action_value, exact.policy):
        assert np.isfinite(values).all()
    np.testing.assert_allclose(exact.policy.sum(axis=2), 1.0, rtol=1e-14)


@pytest.mark.parametrize("sees", [True, False])
def test_follower_satisfies_its_own_equations(sees):
    game = random_markov_game(states=4, leader_actions=3, follower_sees_leader_action=sees)
    theta = theta_of(game)
    follower, f, beta = solve_follower(game, theta), game.policy_at(theta), game.temperature
    q = game.reward_follower + game.discount_follower * game.transition @ follower.state_value
    np.testing.assert_allclose(follower.action_value, q, atol=1e-11)
    if sees:
        value = beta * np.log(np.exp(q / beta).sum(axis=2))
        np.testing.assert_allclose(follower.value, value, atol=1e-11)
        np.testing.assert_allclose(follower.state_value, (f * value).sum(axis=1), atol=1e-11)
    else:
        mean = np.einsum("sl,sla->sa", f, q)
        np.testing.assert_allclose(follower.value, beta * np.log(np.exp(mean / beta).sum(axis=1)), atol=1e-11)
        assert (follower.policy == follower.policy[:, :1]).all()
    other = solve_follower(dataclasses.replace(game, follower_sees_leader_action=not sees), theta)
    assert np.abs(other.state_value - follower.state_value).max() > 1e-3


@pytest.mark.parametrize("sees", [True, False])
def test_reduction_has_the_same_follower_and_objective(sees):
    game = random_markov_game(states=4, leader_actions=3, seed=6, termination=0.3, follower_sees_leader_action=sees)
    theta = theta_of(game)
    ours, theirs = solve_follower(game, theta), solve_follower(reduce_game(game), theta)
    np.testing.assert_allclose(ours.value.ravel(), theirs.value, atol=1e-11)
    np.testing.assert_allclose(ours.response.reshape(theirs.policy.shape), theirs.policy, atol=1e-11)
    for horizon, discounted in OBJECTIVES:
        options = {"horizon": horizon, "discounted": discounted}
        assert leader_objective(game, theta, **options) == pytest.approx(
            leader_objective(reduce_game(game), theta, **options), rel=1e-12
        )


@pytest.mark.parametrize("sees", [True, False])
def test_suboptimal_followers_improve_with_sweeps_and_are_evaluated_as_they_play(sees):
    game = toy_markov_game(follower_sees_leader_action=sees)
    theta = toy_game_theta(0.3)
    best = solve_follower(game, theta)
    gaps = []
    for iterations in (0, 5, 50, 400):
        follower = SuboptimalFollower(iterations=iterations, carry=False).respond(game, theta)
        assert follower.status.name == "STOPPED_EARLY"
        assert np.abs(follower.state_value - best.state_value).max() <= follower.error_bound
        gaps.append(abs(leader_objective(game, theta, follower=follower) - leader_objective(game, theta)))
    assert gaps[0] > gaps[1] > gaps[2] > gaps[3]
    carried = SuboptimalFollower(iterations=1, carry=True).respond(game, theta, previous=best)
    np.testing.assert_allclose(carried.policy, best.policy, atol=1e-9)
    noisy = SuboptimalFollower(iterations=3, carry=False, noise=1.0)
    assert np.isfinite(noisy.respond(game, theta, rng=np.random.default_rng(0)).policy).all()


def test_warm_starts_change_the_cost_only():
    game = toy_markov_game()
    first = solve_follower(game, toy_game_theta(0.3))
    warm = hypergradient(game, toy_game_theta(0.301), warm_start=first)
    cold = hypergradient(game, toy_game_theta(0.301))
    assert warm.counters["sweeps"] < cold.counters["sweeps"]
    assert np.abs(warm.value - cold.value).max() <= warm.error_bound + cold.error_bound


def test_follower_samples_follow_its_policy():
    game = toy_markov_game()
    follower = solve_follower(game, toy_game_theta(0.3))
    drawn = follower.sample(np.zeros(20_000, dtype=int), np.random.default_rng(0), np.zeros(20_000, dtype=int))
    share = float((drawn == 1).mean())
    assert abs(share - follower.policy[0, 0, 1]) < 5 * 0.5 / np.sqrt(20_000)
    assert follower.log_prob(0, 1, 0) == np.log(follower.policy[0, 0, 1])
    with pytest.raises(InvalidInputError, match="sees them first"):
        follower.sample(np.zeros(2, dtype=int), np.random.default_rng(0))


# ---------------------------------------------------------------- refusals


def build(**changes):
    game = random_markov_game(states=2, actions=2)
    names = [field.name for field in dataclasses.fields(game) if field.init]
    return MarkovGame(**({name: getattr(game, name) for name in names} | changes))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"transition": np.ones((2, 2, 2))}, ShapeError, "transition.shape"),
        ({"transition": np.ones((2, 2, 2, 2))}, StochasticityError, "sum of transition"),
        ({"transition": np.full((2, 2, 2, 2), -0.1)}, StochasticityError, "transition"),
        ({"reward_leader": np.zeros((2, 2, 3))}, ShapeError, "reward_leader.shape"),
        ({"reward_follower": np.full((2, 2, 2), np.nan)}, InvalidInputError, "reward_follower"),
        ({"initial": np.array([0.5, 0.4])}, StochasticityError, "sum of initial"),
        ({"discount_leader": 1.0}, InvalidInputError, "discount_leader"),
        ({"discount_follower": -0.1}, InvalidInputError, "discount_follower"),
        ({"temperature": 0.0}, InvalidInputError, "temperature"),
        ({"policy": 3}, InvalidInputError, "policy"),
        ({"follower_sees_leader_action": "yes"}, InvalidInputError, "follower_sees_leader_action"),
    ],
)
def test_invalid_games_are_refused(changes, error, words):
    with pytest.raises(error, match=words):
        build(**changes)


@pytest.mark.parametrize(
    ("policy", "error"),
    [
        (lambda theta: np.full((2, 2), 0.4), StochasticityError),
        (lambda theta: np.full((2, 2), 0.6), StochasticityError),
        (lambda theta: np.array([[1.5, -0.5], [0.5, 0.5]]), StochasticityError),
        (lambda theta: np.full((2, 2), np.nan), StochasticityError),
        (lambda theta: np.full((2, 3), 1 / 3), ShapeError),
        (lambda theta: np.full((2, 2), 0.5 + 0j), InvalidInputError),
    ],
)
def test_policies_that_are_no_policies_are_refused(policy, error):
    game = build(policy=policy, theta_shape=None)
    with pytest.raises(error, match="policy"):
        leader_objective(game, np.zeros(1))
    with pytest.raises(error, match="policy"):
        hypergradient(game, np.zeros(1))


def test_derivatives_do_not_enter_the_solver():
    game = toy_markov_game()
    with pytest.raises(IndependenceError):
        solve_follower(game, np.zeros(3) + 1e-30j)
    with pytest.raises(IllPosedError):
        leader_objective(game, np.zeros(3), discounted=False)


class Visits:
    """Two streams of one step."""

    state_t = np.array([[0], [1]])
    action_t = np.array([[0], [1]])
    leader_action_t = np.array([[1], [0]])
    state_tp1 = np.array([[0], [1]])


def test_pullback_is_the_weighted_sum_of_scores():
    game = random_markov_game(states=2, leader_actions=2)
    theta = theta_of(game)
    weights = {"log_policy_leader": np.array([[2.0], [-3.0]]), "reward_leader": np.ones((2, 1))}
    f, slope = game.policy_at(theta), game.policy_jacobian(theta)
    rows = np.stack([2.0 * slope[0, 1] / f[0, 1], -3.0 * slope[1, 0] / f[1, 0]])
    np.testing.assert_allclose(game.pullback(theta, Visits(), weights, per_stream=True), rows, rtol=1e-13)
    np.testing.assert_allclose(game.pullback(theta, Visits(), weights), rows.sum(axis=0), rtol=1e-13)


def test_scores_of_impossible_actions_are_refused_and_exact_routes_are_not():
    """f(1|s) = θ² has probability zero at θ = 0 with derivative zero, f(1|s) = θ with derivative one."""

    def linear(theta):
        p = anp.reshape(theta[0] * np.ones(2), (2, 1))
        return anp.concatenate([1.0 - p, p], axis=1)

    game = build(policy=linear, theta_shape=(1,))
    theta = np.zeros(1)
    with pytest.raises(SupportError, match="derivative"):
        game.pullback(theta, Visits(), {"log_policy_leader": np.ones((2, 1))})
    exact = [hypergradient(game, theta, route=route).value for route in ("implicit", "theorem2", "unrolled")]
    step = 1e-6
    forward = (leader_objective(game, np.array([step])) - leader_objective(game, theta)) / step
    for value in exact:
        np.testing.assert_allclose(value, exact[0], rtol=1e-12)
        np.testing.assert_allclose(value, forward, rtol=1e-4)
    squared = build(policy=lambda theta: linear(theta**2), theta_shape=(1,))
    with pytest.raises(SupportError, match="was visited"):
        squared.pullback(theta, Visits(), {"log_policy_leader": np.ones((2, 1))})


def test_tables_are_copied_and_frozen():
    reward = np.zeros((2, 2, 2))
    game = build(reward_leader=reward)
    reward[:] = 7.0
    assert (game.reward_leader == 0.0).all()
    with pytest.raises(ValueError, match="read-only"):
        game.reward_leader[:] = 1.0


def test_policy_families():
    policy = TabularSoftmaxPolicy(states=3, leader_actions=3)
    table = np.random.default_rng(0).dirichlet(np.ones(3), size=3)
    np.testing.assert_allclose(policy(policy.theta_of(table)), table, rtol=1e-13)
    with pytest.raises(InvalidInputError, match="positive"):
        policy.theta_of(np.eye(3))
    network = NeuralPolicy(leader_actions=2, features=np.eye(3), hidden=(4,), activation="tanh")
    theta = network.initial_theta(np.random.default_rng(1))
    hidden = np.tanh(theta[:12].reshape(3, 4) + theta[12:16])
    logits = hidden @ theta[16:24].reshape(4, 2) + theta[24:]
    weights = np.exp(logits)
    np.testing.assert_allclose(network(theta), weights / weights.sum(axis=1, keepdims=True), rtol=1e-13)
