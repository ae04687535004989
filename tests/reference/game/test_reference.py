"""Markov games: the toy game's known numbers, agreement of all routes, both reductions, and what must be refused."""

import dataclasses
import importlib

import autograd.numpy as anp
import numpy as np
import pytest
from high_precision import HighPrecision
from sabotage import sabotage, sabotaged

from bilevelrl.reference import (
    HYPERGRADIENT_ROUTES,
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
OBJECTIVES = [(None, True), (1, True), (6, True), (6, False)]


def theta_of(game, seed=0):
    return np.random.default_rng(seed).normal(scale=0.7, size=game.theta_shape)


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
