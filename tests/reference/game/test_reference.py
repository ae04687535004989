"""Exact truth of Markov games: the toy game, and routes against each other."""

import dataclasses
import importlib

import numpy as np
import pytest
from game_cases import OBJECTIVES, theta_of
from high_precision import HighPrecision
from sabotage import sabotage, sabotaged

from bilevelrl.reference import (
    HYPERGRADIENT_ROUTES,
    MarkovGame,
    hypergradient,
    leader_objective,
    solve_follower,
)
from bilevelrl.reference.game import NeuralPolicy, reduce_game
from bilevelrl.reference.game.decisions import DecisionPoints
from bilevelrl.reference.problem import GAME_PARTS
from bilevelrl.reference.tabular.transitions import DiscountedSystem
from bilevelrl.tasks import random_markov_game, toy_game_theta, toy_markov_game
from bilevelrl.tasks.generators.random_games import GAME_CASES, hard_markov_game, layered_markov_game

follower_module = importlib.import_module("bilevelrl.reference.tabular.follower")

game_follower_module = importlib.import_module("bilevelrl.reference.game.follower")

implicit_module = importlib.import_module("bilevelrl.reference.game.linearise")

reduction_module = importlib.import_module("bilevelrl.reference.routes.reduction")

# The route in ball arithmetic takes the doubles of the policy as they are, whose rows do not quite sum to one; its own
# tests hold it against these.
ROUTES = [name for name, route in HYPERGRADIENT_ROUTES.items() if MarkovGame in route.kinds and name != "certified"]


def neural_game(sees):
    policy = NeuralPolicy(leader_actions=3, features=np.eye(4), hidden=(5,))
    base = random_markov_game(states=4, leader_actions=3, seed=5, follower_sees_leader_action=sees)
    return dataclasses.replace(base, policy=policy, theta_shape=(policy.parameters,))


# ---------------------------------------------------------------- the toy game


@pytest.mark.parametrize(
    ("bonus", "p", "to_a", "objective", "value"),
    [
        (1.0, 0.01, 0.99849, 33.7581, 66.577),
        (1.0, 0.10, 0.99265, 34.6453, 62.597),
        (1.0, 0.30, 0.71475, 28.8165, 53.403),
        (1.0, 0.50, 0.01232, 0.6170, 50.283),
        (1.0, 0.90, 0.0, 0.0, 50.2516),
        (2.0, 0.01, 1.0, 33.7804, 99.681),
        (2.0, 0.10, 1.0, 34.8178, 93.606),
        (2.0, 0.30, 0.99999, 37.3679, 78.672),
        (2.0, 0.50, 0.98817, 39.9382, 61.401),
        (2.0, 0.90, 0.0, 0.0, 50.2516),
    ],
)
def test_toy_game_landscape(bonus, p, to_a, objective, value):
    game, theta = toy_markov_game(bonus), toy_game_theta(p)
    follower = solve_follower(game, theta)
    assert leader_objective(game, theta) == pytest.approx(objective, abs=6e-5)
    assert follower.policy[0, 0, 1] == pytest.approx(to_a, abs=1.1e-5)
    assert follower.state_value[0] == pytest.approx(value, abs=6e-4)
    np.testing.assert_allclose(follower.policy[1, 1], 1 / 3, atol=1e-12)


@pytest.mark.parametrize(
    ("bonus", "p_best", "best", "discounted_150", "undiscounted_150", "at_zero", "switch"),
    [
        (1.0, 0.16646, 34.99264, 27.3156, 52.324, 33.6533, 0.3393),
        (2.0, 0.50264, 39.94021, 31.1656, 59.750, 33.6689, 0.6111),
    ],
)
def test_toy_game_optimum(bonus, p_best, best, discounted_150, undiscounted_150, at_zero, switch):
    game, theta = toy_markov_game(bonus), toy_game_theta(p_best)
    assert leader_objective(game, theta) == pytest.approx(best, abs=6e-6)
    assert abs(hypergradient(game, theta).value[1]) < 2e-3  # p* is known to five digits
    nearby = [leader_objective(game, toy_game_theta(p_best + step)) for step in (-2e-3, 2e-3)]
    assert max(nearby) < leader_objective(game, theta)
    grid = np.linspace(p_best - 0.02, p_best + 0.02, 41)
    for discounted, known, tolerance in ((True, discounted_150, 6e-5), (False, undiscounted_150, 6e-4)):
        values = [leader_objective(game, toy_game_theta(p), horizon=150, discounted=discounted) for p in grid]
        assert max(values) == pytest.approx(known, abs=tolerance)
    # p = 0 is the limit of an infinite logit.
    assert leader_objective(game, toy_game_theta(1e-9)) == pytest.approx(at_zero, abs=6e-5)
    sides = [solve_follower(game, toy_game_theta(switch + step)).policy[0, 0, 1] for step in (-1e-4, 1e-4)]
    assert sides[0] > 0.5 > sides[1]


@pytest.mark.parametrize(
    ("bonus", "p", "policy_part", "response_part"),
    [
        (1.0, 0.10, 1.0583, -0.2944),
        (1.0, 0.20, 1.9010, -3.7533),
        (1.0, 0.30, 1.7091, -31.1623),
        (1.0, 0.50, 0.0009, -4.3394),
        (2.0, 0.30, 2.8740, -0.0023),
        (2.0, 0.50, 3.9083, -3.5343),
        (2.0, 0.55, 3.6129, -23.1121),
    ],
)
def test_toy_game_gradient(bonus, p, policy_part, response_part):
    exact = hypergradient(toy_markov_game(bonus), toy_game_theta(p))
    assert exact.parts["policy"][1] == pytest.approx(policy_part, abs=6e-5)
    assert exact.parts["response"][1] == pytest.approx(response_part, abs=6e-5)
    np.testing.assert_allclose(exact.value[[0, 2]], 0.0, atol=exact.error_bound)  # the leader matters in A only


def test_another_reward_is_not_the_toy_game():
    """The numbers above can fail: another reward on one edge moves them."""
    game = toy_markov_game()
    reward = game.reward_follower.copy()
    reward[1, 0, 0] = -1.0
    other = dataclasses.replace(game, reward_follower=reward)
    assert abs(leader_objective(other, toy_game_theta(0.16657)) - 34.99264) > 1e-3


def test_the_mean_inside_the_soft_value_is_another_follower():
    """A follower that plans as if blind and acts as if seeing: the numbers differ as they are known to."""
    game, p = toy_markov_game(), 0.3
    f, beta = game.policy_at(toy_game_theta(p)), game.temperature
    q = np.zeros(game.reward_follower.shape)
    for _ in range(3000):
        mean = np.einsum("sl,sla->sa", f, q)
        peak = mean.max(axis=1)
        value = peak + beta * np.log(np.exp((mean - peak[:, None]) / beta).sum(axis=1))
        q = game.reward_follower + game.discount_follower * game.transition @ value
    wrong = np.exp((q - q.max(axis=2, keepdims=True)) / beta)
    wrong /= wrong.sum(axis=2, keepdims=True)
    assert wrong[0, 0, 1] == pytest.approx(0.65830, abs=1e-5)
    right = solve_follower(game, toy_game_theta(p))
    assert leader_objective(game, toy_game_theta(p), follower=dataclasses.replace(right, policy=wrong)) == (
        pytest.approx(26.9617, abs=6e-5)
    )
    assert np.abs(right.policy - wrong).max() > 0.05


# ---------------------------------------------------------------- routes


GAMES = {
    "random": random_markov_game(states=4, leader_actions=3, seed=1, regularised=True),
    "terminating": random_markov_game(states=4, seed=2, termination=0.5),
    "sparse": random_markov_game(states=6, seed=3, branching=2),
    "unequal": random_markov_game(states=3, discount_leader=0.5, discount_follower=0.95, temperature=0.1),
    "greedy leader": random_markov_game(states=3, discount_leader=0.0, discount_follower=0.6),
    "myopic follower": random_markov_game(states=3, discount_leader=0.6, discount_follower=0.0),
    "hot": random_markov_game(states=3, temperature=100.0),
    "layered": layered_markov_game(layers=3),
    "one state": random_markov_game(states=1, seed=4),
    "one action": random_markov_game(states=3, actions=1, seed=4),
} | {case: hard_markov_game(case) for case in GAME_CASES}

SWEEP_FREE = [name for name in ROUTES if name not in ("unrolled", "complex_step")]


def agree(game, theta, *, routes, horizon, discounted, tight=None):
    """Every route against Theorem 2, part by part, within the sum of the bounds."""
    truth = hypergradient(game, theta, route="theorem2", horizon=horizon, discounted=discounted)
    assert np.isfinite(truth.value).all()
    for route in routes:
        found = hypergradient(game, theta, route=route, horizon=horizon, discounted=discounted)
        allowed = truth.error_bound + found.error_bound
        assert np.isfinite(allowed)
        assert tuple(found.parts) == GAME_PARTS
        for part in GAME_PARTS:
            difference = np.abs(found.parts[part] - truth.parts[part]).max(initial=0.0)
            assert difference <= allowed, (route, part)
            if tight is not None and route != "finite_difference":
                assert difference <= tight * np.abs(np.stack(list(truth.parts.values()))).max(initial=1e-3), (
                    route,
                    part,
                )
        size = max(1.0, abs(truth.objective))
        assert abs(found.objective - truth.objective) <= 1e-9 * size / (1 - game.discount_leader)
        np.testing.assert_array_equal(found.value, sum(found.parts.values()))


@pytest.mark.parametrize(("horizon", "discounted"), OBJECTIVES)
@pytest.mark.parametrize("sees", [True, False])
@pytest.mark.parametrize("name", [name for name in GAMES if name not in ("cold", "constant reward")])
def test_routes_agree(name, sees, horizon, discounted):
    game = dataclasses.replace(GAMES[name], follower_sees_leader_action=sees)
    routes = ROUTES if name in ("random", "terminating", "unequal", "deterministic") else SWEEP_FREE
    agree(game, theta_of(game), routes=routes, horizon=horizon, discounted=discounted, tight=1e-10)


@pytest.mark.parametrize("sees", [True, False])
@pytest.mark.parametrize("name", ["cold", "constant reward"])
def test_routes_agree_where_rounding_is_large(name, sees):
    game = dataclasses.replace(GAMES[name], follower_sees_leader_action=sees)
    agree(game, theta_of(game), routes=SWEEP_FREE, horizon=None, discounted=True)


@pytest.mark.parametrize("sees", [True, False])
def test_routes_agree_for_a_neural_leader(sees):
    game = neural_game(sees)
    theta = game.policy.initial_theta(np.random.default_rng(3))
    agree(game, theta, routes=ROUTES, horizon=None, discounted=True, tight=1e-10)
    agree(game, theta, routes=SWEEP_FREE, horizon=5, discounted=False, tight=1e-10)


@pytest.mark.parametrize("sees", [True, False])
def test_constant_rewards_and_ignored_actions_move_nothing(sees):
    shifted = hard_markov_game("constant reward", follower_sees_leader_action=sees)
    plain = dataclasses.replace(
        shifted, reward_follower=shifted.reward_follower - 1e5, reward_leader=shifted.reward_leader - 1e5
    )
    theta = theta_of(plain)
    truth, found = hypergradient(plain, theta), hypergradient(shifted, theta)
    # Rewards of 1e5 know their own digits to 1e-11; over a horizon of ten and at β = 1/2 no more than that is lost.
    np.testing.assert_allclose(found.value, truth.value, atol=1e-8)
    ignored = hard_markov_game("leader ignored", follower_sees_leader_action=sees)
    assert np.abs(hypergradient(ignored, theta).value).max() < 1e-14
    response = hypergradient(hard_markov_game("follower ignored", follower_sees_leader_action=sees), theta)
    assert np.abs(response.parts["response"]).max() < 1e-14
    assert np.abs(response.parts["policy"]).max() > 1e-2


PLANTED = ["baseline missing in the benefit", "adjoint dropped", "wrong sign", "discounts swapped", "blind for seeing"]


@pytest.mark.parametrize("planted", PLANTED)
def test_the_agreement_catches_planted_errors(planted, monkeypatch):
    game = GAMES["unequal"]
    theta = theta_of(game)
    original = implicit_module.evaluate_game_leader

    def evaluate(at, response, **options):
        found, points = original(at, response, **options), at.points
        weight = found.response_weight
        if planted == "wrong sign":
            weight = -weight
        if planted == "baseline missing in the benefit":
            weight = (
                weight + (found.occupancy[:, None] * points.reach)[:, :, None] * response * found.value[:, None, None]
            )
        return dataclasses.replace(found, response_weight=weight)

    monkeypatch.setattr(implicit_module, "evaluate_game_leader", evaluate)
    wrong = game
    if planted == "adjoint dropped":
        monkeypatch.setattr(DecisionPoints, "pushed", lambda points, weights: np.zeros(game.states))
    elif planted == "discounts swapped":
        wrong = dataclasses.replace(game, discount_leader=0.95, discount_follower=0.5)
    elif planted == "blind for seeing":
        wrong = dataclasses.replace(game, follower_sees_leader_action=False)
    truth = hypergradient(game, theta, route="reduction")
    found = hypergradient(wrong, theta, route="implicit")
    assert np.abs(found.value - truth.value).max() > 1e3 * (found.error_bound + truth.error_bound)


def test_a_leader_without_a_choice_has_an_empty_gradient():
    game = random_markov_game(leader_actions=1)
    for route in ROUTES:
        found = hypergradient(game, np.zeros(0), route=route)
        assert found.value.shape == (0,)
        assert found.objective == pytest.approx(leader_objective(game, np.zeros(0)), rel=1e-12)


@pytest.mark.parametrize("sees", [True, False])
def test_extreme_leaders_and_temperatures_stay_finite(sees):
    for logit in (-2000.0, -700.0, 700.0, 2000.0):  # beyond 745 a probability underflows to zero
        for temperature in (1e-8, 1e-4, 0.05, 1e2):
            game = toy_markov_game(temperature=temperature, follower_sees_leader_action=sees)
            found = hypergradient(game, np.array([0.0, logit, 0.0]))
            assert np.isfinite(found.value).all()
            assert np.isfinite(found.objective)
            assert not np.isnan(found.error_bound)


@pytest.mark.parametrize("sees", [True, False])
@pytest.mark.parametrize("route", ROUTES)
def test_sweeping_routes_never_call_the_solver(route, sees, monkeypatch):
    """With the solver's backup and its factorisations broken, sweeping routes must not notice, and all others must."""
    game = dataclasses.replace(GAMES["random"], follower_sees_leader_action=sees)
    theta = theta_of(game)
    expected = hypergradient(game, theta, route=route, bound=False)
    monkeypatch.setattr(follower_module, "find_fixed_point", sabotage)
    monkeypatch.setattr(game_follower_module, "find_fixed_point", sabotage)
    monkeypatch.setattr(DiscountedSystem, "factorise", sabotage)
    if route in ("unrolled", "complex_step"):
        np.testing.assert_array_equal(hypergradient(game, theta, route=route, bound=False).value, expected.value)
    else:
        with sabotaged():
            hypergradient(game, theta, route=route, bound=False)


def test_only_the_reduction_reduces(monkeypatch):
    game = GAMES["random"]
    monkeypatch.setattr(reduction_module, "reduce_game", sabotage)
    for route in ROUTES:
        if route == "reduction":
            with sabotaged():
                hypergradient(game, theta_of(game), route=route)
        else:
            hypergradient(game, theta_of(game), route=route, bound=False)


@pytest.mark.parametrize("sees", [True, False])
@pytest.mark.parametrize("name", ["random", "unequal", "cold", "deterministic", "absorbing"])
@pytest.mark.parametrize("horizon", [None, 5])
def test_error_bounds_hold_against_70_digits_and_are_not_vacuous(name, sees, horizon):
    game = dataclasses.replace(GAMES[name], follower_sees_leader_action=sees)
    theta = theta_of(game)[: game.theta_shape[0]]
    parts = HighPrecision(reduce_game(game), theta, horizon=horizon).parts()
    truth = parts["initial"] + parts["direct"] + parts["transition"] + parts["response"] + parts["regulariser"]
    for route in ("implicit", "theorem2", "total_derivative"):
        found = hypergradient(game, theta, route=route, horizon=horizon)
        assert np.abs(found.value - truth).max() <= found.error_bound
        assert np.abs(found.parts["response"] - parts["response"]).max() <= found.error_bound
        # β = 1e-4 multiplies the values' rounding by 1e4, and by the horizon again.
        limit = 1e-3 if name == "cold" else 1e-8
        assert found.error_bound <= limit * max(1.0, np.abs(truth).max())
