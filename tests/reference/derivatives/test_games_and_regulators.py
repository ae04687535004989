"""Policies of games and matrices of linear-quadratic problems: lost traces, kinks and wrong closed forms are told."""

from dataclasses import replace

import autograd.numpy as anp
import numpy as np
import pytest
from derivative_cases import WITHOUT_DERIVATIVES, WRONG, leaders_choice, regulator

from bilevelrl.reference import (
    HYPERGRADIENT_ROUTES,
    ConfigurableLQR,
    LQRMatrices,
    MarkovGame,
    TabularSoftmaxPolicy,
    hypergradient,
)
from bilevelrl.reference.errors import BilevelRLError, DerivativeError, InvalidInputError
from bilevelrl.reference.lqr_game import LeaderGaussian
from bilevelrl.tasks import lqr_game, toy_markov_game

pytestmark = pytest.mark.exact

# Games.

GAME = toy_markov_game()

GAME_ROUTES = sorted(name for name, route in HYPERGRADIENT_ROUTES.items() if MarkovGame in route.kinds)


@pytest.mark.parametrize("route", GAME_ROUTES)
@pytest.mark.parametrize("policy", ["np.asarray", "behind the trace", "half of it"])
def test_policies_whose_trace_is_lost(policy, route):
    right = TabularSoftmaxPolicy(states=GAME.states, leader_actions=GAME.leader_actions)
    theta = np.linspace(-0.5, 0.5, right.parameters)
    wrong = {
        "np.asarray": lambda x: right(np.asarray(x)) if isinstance(x, np.ndarray) else np.asarray(right(x)),
        "behind the trace": lambda x: right(getattr(x, "_value", x)),
        "half of it": lambda x: 0.5 * right(x) + 0.5 * right(getattr(x, "_value", x)),
    }[policy]
    expected = hypergradient(replace(GAME, policy=right), theta)
    try:
        found = hypergradient(replace(GAME, policy=wrong), theta, route=route)
    except DerivativeError as error:
        assert route not in WITHOUT_DERIVATIVES
        assert "policy" in str(error)  # noqa: PT017
    else:
        assert np.abs(found.value - expected.value).max() <= found.error_bound + expected.error_bound


@pytest.mark.parametrize("route", GAME_ROUTES)
def test_kinks_and_errors_of_policies(route):
    softmax = TabularSoftmaxPolicy(states=GAME.states, leader_actions=GAME.leader_actions)
    theta = np.zeros(softmax.parameters)
    with pytest.raises(DerivativeError, match=r"policy.*kink"):
        hypergradient(replace(GAME, policy=lambda x: softmax(anp.abs(x))), theta, route=route)
    with pytest.raises(DerivativeError, match=r"regulariser.*kink"):
        hypergradient(replace(GAME, regulariser=lambda x: anp.sum(anp.abs(x))), theta, route=route)
    with pytest.raises(InvalidInputError, match=r"policy\(theta\) raised ZeroDivisionError.*theta="):
        hypergradient(replace(GAME, policy=lambda x: softmax(x) / (1 // 0)), theta, route=route)


@pytest.mark.parametrize("route", WITHOUT_DERIVATIVES)
@pytest.mark.parametrize("changed", ["policy", "regulariser"])
def test_a_game_whose_closure_has_changed_at_the_same_theta(changed, route):
    """What moved around θ is asked anew, or differences would leave out what did not move before."""
    right = TabularSoftmaxPolicy(states=GAME.states, leader_actions=GAME.leader_actions)
    theta, scale = np.linspace(-0.5, 0.5, right.parameters), {"policy": 1.0, "regulariser": 1.0}
    game = replace(
        GAME,
        policy=lambda x: right(scale["policy"] * x),
        regulariser=lambda x: scale["regulariser"] * (1.0 + anp.sum(x**2)),
    )
    expected = hypergradient(replace(game), theta)
    scale[changed] = 0.0
    hypergradient(game, theta, route=route)
    scale[changed] = 1.0
    found = hypergradient(game, theta, route=route)
    assert np.abs(found.value - expected.value).max() <= found.error_bound + expected.error_bound


# Linear-quadratic problems.

LQR_ROUTES = sorted(name for name, route in HYPERGRADIENT_ROUTES.items() if ConfigurableLQR in route.kinds)


@pytest.mark.parametrize("route", LQR_ROUTES)
def test_matrices_whose_trace_is_lost(route):
    theta = np.array([0.8])
    expected = hypergradient(regulator(), theta)
    for spelling in (
        lambda x: np.array([[x[0]]]),
        lambda x: [[x[0]]],
        lambda x: np.reshape(getattr(x, "_value", x), (1, 1)),
        lambda x: np.array([[float(x[0])]]),
        lambda x: anp.reshape(anp.where(x > 0.0, x, 0.0), (1, 1)),
    ):
        try:
            found = hypergradient(regulator(spelling), theta, route=route)
        except BilevelRLError as error:
            assert route != "finite_difference"
            assert "dynamics_state" in str(error) or "theta=" in str(error)  # noqa: PT017
        else:
            assert np.abs(found.value - expected.value).max() <= found.error_bound + expected.error_bound


@pytest.mark.parametrize("route", LQR_ROUTES)
def test_matrices_are_asked_at_every_theta_and_kinks_are_told(route):
    problem = regulator(lambda x: anp.reshape(x, (1, 1)) if x[0] > 0.0 else np.zeros((1, 1)))
    assert not hypergradient(problem, -np.ones(1), route=route).value.any()
    assert hypergradient(problem, np.ones(1), route=route).value.any()
    with pytest.raises(DerivativeError, match=r"regulariser.*kink"):
        hypergradient(regulator(regulariser=lambda x: anp.sum(anp.abs(x - 0.5))), np.array([0.5]), route=route)


@pytest.mark.parametrize("factor", WRONG.values())
def test_wrong_closed_forms_of_matrices_are_caught(factor):
    slopes = np.ones((1, 1, 1))
    right = regulator(
        lambda x: np.reshape(np.asarray(x), (1, 1)), matrices_jacobian=lambda _: {"dynamics_state": slopes}
    )
    expected = hypergradient(regulator(), np.array([0.8]))
    np.testing.assert_allclose(hypergradient(right, np.array([0.8])).value, expected.value, rtol=1e-12)
    with pytest.raises(DerivativeError, match=r"dynamics_state.*closed form"):
        hypergradient(replace(right, matrices_jacobian=lambda _: {"dynamics_state": factor * slopes}), np.array([0.8]))


@pytest.mark.parametrize("route", ["implicit", "unrolled", "closed_form", "finite_difference"])
def test_gaussian_leaders_whose_trace_is_lost(route):
    game = lqr_game()
    theta = np.array([-9.683, -10.25])
    shape = game.dynamics_leader.shape[::-1]
    expected = hypergradient(game, theta, horizon=5)

    def policy(gain):
        return replace(
            game,
            leader_policy=lambda x: LeaderGaussian(gain=gain(x), covariance=game.leader_covariance),
            leader_covariance=None,
        )

    traced = hypergradient(policy(lambda x: anp.reshape(x, shape)), theta, route=route, horizon=5)
    assert np.abs(traced.value - expected.value).max() <= traced.error_bound + expected.error_bound
    hidden = policy(lambda x: np.reshape(getattr(x, "_value", x), shape))
    if route == "finite_difference":
        found = hypergradient(hidden, theta, route=route, horizon=5)
        assert np.abs(found.value - expected.value).max() <= found.error_bound + expected.error_bound
    else:
        with pytest.raises(DerivativeError, match=r"gain.*does not depend"):
            hypergradient(hidden, theta, route=route, horizon=5)


def test_a_gaussian_leader_whose_closure_has_changed_at_the_same_theta():
    game, theta, scale = lqr_game(), np.array([-9.683, -10.25]), {"is": 0.0}
    shape = game.dynamics_leader.shape[::-1]

    def policy(x):
        moved = x if scale["is"] else theta
        return LeaderGaussian(gain=anp.reshape(moved, shape) + 1e-9 * scale["is"], covariance=game.leader_covariance)

    own = replace(game, leader_policy=policy, leader_covariance=None)
    assert not hypergradient(own, theta, route="finite_difference", horizon=5).value.any()
    scale["is"] = 1.0
    expected = hypergradient(game, theta + 1e-9, horizon=5)
    found = hypergradient(own, theta, route="finite_difference", horizon=5)
    assert np.abs(found.value - expected.value).max() <= found.error_bound + expected.error_bound


def test_games_and_linear_quadratic_problems_below_an_ulp():
    def policy(theta):
        return 0.5 + 1e-17 * theta[0] * np.array([[1.0, -1.0]])

    game = replace(leaders_choice(0.0), policy=policy, regulariser=lambda theta: 1e6 + 1e-11 * theta[0])
    one = np.eye(1)

    def matrices(theta):
        return LQRMatrices(
            dynamics_state=0.5 * one, dynamics_action=one, noise_covariance=one, cost_state_follower=one,
            cost_action_follower=one, cost_state_leader=one, cost_action_leader=one, initial_mean=np.ones(1),
            initial_covariance=one, regulariser=1e6 + 1e-11 * theta[0])  # fmt: skip

    lqr = ConfigurableLQR(matrices=matrices, discount_leader=0.5, discount_follower=0.5, temperature=1.0)
    for problem, right in ((game, 1e-11 - 4e-17), (lqr, 1e-11)):
        exact = hypergradient(problem, [0.3], route="finite_difference")
        assert abs(exact.value[0] - right) <= exact.error_bound
