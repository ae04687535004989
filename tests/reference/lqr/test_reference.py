"""Exact truth of linear-quadratic problems: published numbers, equations, and routes against each other."""

from dataclasses import replace

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lqr_cases import disagreement

from bilevelrl.reference import (
    hypergradient,
    leader_objective,
    solve_follower,
)
from bilevelrl.reference.lqr import linearise as implicit_route
from bilevelrl.reference.lqr.riccati_derivative import lyapunov_primitive, riccati_primitive
from bilevelrl.reference.lqr.solvers import (
    discounted_lyapunov,
    riccati_backup,
    solve_riccati,
)
from bilevelrl.tasks import building_thermal_control, lqr_game, random_lqr, random_lqr_game

# --- published and recorded numbers -------------------------------------------------------------------------------


def test_the_building_at_half():
    problem, theta = building_thermal_control(), np.zeros(8)
    follower = solve_follower(problem, theta)
    gain = [[2.506208, 1.239646, 0.028037, 0.056689], [0.114690, 0.012847, 1.278048, 0.977461]]
    np.testing.assert_allclose(follower.gain, gain, atol=6e-7)
    np.testing.assert_allclose(follower.covariance, [[0.119071, -0.000152], [-0.000152, 0.026767]], atol=6e-7)
    assert follower.offset == pytest.approx(1.326890, abs=6e-7)
    np.testing.assert_allclose(follower.cost_to_go[0], [36.436154, -4.077369, -3.822362, 7.680443], atol=1e-6)
    np.testing.assert_allclose(np.diag(follower.cost_to_go), [36.436154, 1.612194, 12.0192, 30.614076], atol=1e-6)
    truth = hypergradient(problem, theta)
    assert truth.objective == pytest.approx(-261.9631, abs=6e-5)
    expected = [17.8112, -1.4898, 2.2969, 5.0857, 4.8481, 2.9163, 9.8358, 16.9685]
    np.testing.assert_allclose(truth.value, expected, atol=6e-5)
    partial = [5.0620, 1.5359, 2.0276, 4.4536, 20.1179, 1.6171, 10.0215, 5.3337]
    np.testing.assert_allclose(truth.value - truth.parts["response"], partial, atol=6e-5)


def clipped_ascent(problem, theta, rate, iterations, part=None):
    for _ in range(iterations):
        truth = hypergradient(problem, theta, bound=False)
        step = truth.value if part is None else truth.value - truth.parts[part]
        blocks = step.reshape(2, -1)
        norms = np.linalg.norm(blocks, axis=1, keepdims=True)
        theta = theta + rate * (blocks / np.maximum(norms, 1.0)).ravel()
    return theta


def test_the_building_is_climbed_by_the_truth_and_not_without_the_response():
    problem, start = building_thermal_control(), np.zeros(8)
    after = clipped_ascent(problem, start, 0.1, 100)
    assert leader_objective(problem, after) == pytest.approx(-163.7, abs=0.05)
    best = leader_objective(problem, clipped_ascent(problem, after, 0.1, 1900))
    assert best == pytest.approx(-162.5, abs=0.05)
    naive = clipped_ascent(problem, start, 0.1, 50, part="response")
    assert leader_objective(problem, naive) == pytest.approx(-205.0, abs=0.05)
    settled = leader_objective(problem, clipped_ascent(problem, naive, 0.1, 950, part="response"))
    assert settled == pytest.approx(-197.5, abs=0.05)


@pytest.mark.parametrize(
    ("gain", "cost", "reaction", "covariance", "offset", "discounted", "undiscounted"),
    [
        ((0.0, 0.0), (1.0, 0.0, 1.95), (0.0, 0.181881), 0.049091, 1.176211, 0.00942, 0.01495),
        (
            (-9.683, -10.25),
            (9.1478, 0.210364, 1.005431),
            (0.019795, 0.094612),
            0.049527,
            1.167363,
            3.4024,
            3.8400,
        ),
        ((-7.59, 0.9306), (2.17691, -1.694905, 3.440887), (-0.155919, 0.316537), 0.048417, 1.190021, 0.4389, 0.4514),
    ],
)
def test_the_game_at_recorded_gains(gain, cost, reaction, covariance, offset, discounted, undiscounted):
    problem, theta = lqr_game(), np.array(gain)
    follower = solve_follower(problem, theta)
    p = follower.cost_to_go
    np.testing.assert_allclose([p[0, 0], p[0, 1], p[1, 1]], cost, atol=6e-5)
    np.testing.assert_allclose(follower.riccati.reaction[0], reaction, atol=6e-7)
    assert follower.covariance[0, 0] == pytest.approx(covariance, abs=6e-7)
    assert follower.offset_seen == pytest.approx(offset, abs=6e-7)
    assert leader_objective(problem, theta, horizon=100) == pytest.approx(discounted, abs=6e-5)
    assert leader_objective(problem, theta, horizon=100, discounted=False) == pytest.approx(undiscounted, abs=6e-5)


def test_the_game_at_its_optimum():
    problem, best = lqr_game(), np.array([-9.9615, -10.0])
    assert leader_objective(problem, best, horizon=100) == pytest.approx(11.309, abs=6e-4)
    assert leader_objective(problem, best, horizon=100, discounted=False) == pytest.approx(18.36, abs=6e-3)
    for offset in np.vstack([0.02 * np.eye(2), -0.02 * np.eye(2)]):  # a ridge, narrow in the first gain
        assert leader_objective(problem, best + offset, horizon=100) < 11.309


@pytest.mark.parametrize(
    ("gain", "total", "direct"),
    [((-3.0, 0.0), (-0.02252, 0.000313), (-0.02253, 0.000292)), ((-7.0, 0.0), (-0.115, -0.0031), (-0.130, 0.0004))],
)
def test_the_response_turns_the_game_gradient_around(gain, total, direct):
    truth = hypergradient(lqr_game(), np.array(gain))
    digits = 6e-6 if gain[0] == -3.0 else 6e-4
    np.testing.assert_allclose(truth.value, total, atol=digits)
    np.testing.assert_allclose(truth.parts["policy"], direct, atol=digits)


# --- equations and their derivatives ------------------------------------------------------------------------------

CASES = st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(0, 10_000))


@settings(max_examples=25)
@given(CASES, st.floats(0.0, 0.97))
def test_both_riccati_solvers_and_the_sweeps_agree(case, discount):
    states, actions, seed = case
    matrices = random_lqr(states=states, actions=actions, seed=seed).matrices_at(np.zeros(3))
    system = (
        matrices.dynamics_state,
        matrices.dynamics_action,
        matrices.cost_state_follower,
        matrices.cost_action_follower,
        discount,
    )
    doubling, schur = solve_riccati(*system), solve_riccati(*system, method="scipy")
    swept = solve_riccati(*system, method="sweeps", tolerance=1e-15)
    off = np.linalg.norm(doubling.cost_to_go - schur.cost_to_go, 2)
    assert off <= doubling.error_bound + schur.error_bound
    assert np.linalg.norm(doubling.cost_to_go - swept.cost_to_go, 2) <= doubling.error_bound + swept.error_bound
    assert doubling.error_bound <= 1e-10 * np.linalg.norm(doubling.cost_to_go)  # so the comparison says something
    assert np.linalg.eigvalsh(doubling.cost_to_go).min() >= 0.0


@settings(max_examples=15)
@given(CASES)
def test_both_derivations_of_each_derivative_agree(case):
    states, actions, seed = case
    problem = random_lqr(states=states, actions=actions, seed=seed)
    at, direction = problem.matrices_at(np.zeros(3)), problem.matrices_at(np.full(3, 0.7))
    names = ("dynamics_state", "dynamics_action", "cost_state_follower", "cost_action_follower")
    point, moved = [getattr(at, name) for name in names], [getattr(direction, name) for name in names]
    cotangent = direction.cost_state_leader

    def riccati(t):
        return riccati_primitive(*(p + t * d for p, d in zip(point, moved, strict=True)), 0.9)

    def swept(t):
        moved_to = [p + t * d for p, d in zip(point, moved, strict=True)]
        cost = moved_to[2]
        for _ in range(400):
            cost = riccati_backup(cost, *moved_to, 0.9, solve=anp.linalg.solve)[0]
        return cost

    def lyapunov(t):
        return lyapunov_primitive(0.5 * (at.dynamics_state + t * direction.dynamics_state), at.cost_state_leader, 0.8)

    for equation in (riccati, lyapunov):
        pull, _ = autograd.make_vjp(equation)(0.0)
        _, forward = autograd.make_jvp(equation)(0.0)(1.0)
        scale = np.abs(cotangent * forward).sum()
        assert abs(pull(cotangent) - np.sum(cotangent * forward)) <= 1e-11 * scale
    adjoint = autograd.make_vjp(riccati)(0.0)[0](cotangent)
    tape = autograd.make_vjp(swept)(0.0)[0](cotangent)
    assert adjoint == pytest.approx(tape, rel=1e-9)


@settings(max_examples=20)
@given(st.integers(1, 6), st.integers(0, 10_000), st.floats(0.0, 0.99))
def test_both_lyapunov_solvers_agree(states, seed, discount):
    matrices = random_lqr(states=states, seed=seed).matrices_at(np.zeros(3))
    arguments = 0.95 * matrices.dynamics_state, matrices.dynamics_action @ matrices.dynamics_action.T, discount
    doubling, direct = discounted_lyapunov(*arguments), discounted_lyapunov(*arguments, method="scipy")
    amplification = np.linalg.norm(discounted_lyapunov(arguments[0], np.eye(states), discount), 2)
    bound = 1e-14 * states**2 * amplification * np.linalg.norm(direct)
    assert np.abs(doubling - direct).max() <= bound <= 1e-6 * max(1.0, np.linalg.norm(direct))


# --- routes -------------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(CASES, st.floats(0.05, 0.95), st.floats(0.05, 0.95), st.sampled_from([0.01, 0.5, 20.0]))
def test_routes_agree_on_drawn_problems(case, discount_leader, discount_follower, temperature):
    states, actions, seed = case
    problem = random_lqr(
        states=states,
        actions=actions,
        seed=seed,
        temperature=temperature,
        discount_leader=discount_leader,
        discount_follower=discount_follower,
    )
    theta = np.array([0.3, -0.2, 0.1])
    assert disagreement(problem, theta) <= 1e-9
    assert disagreement(problem, theta, horizon=7) <= 1e-9
    assert disagreement(problem, theta, horizon=4, discounted=False) <= 1e-9


@settings(max_examples=15)
@given(CASES, st.integers(1, 2), st.floats(0.05, 0.9), st.floats(0.05, 0.95))
def test_routes_agree_on_drawn_games(case, leader_actions, discount_leader, discount_follower):
    states, actions, seed = case
    game = random_lqr_game(
        states=min(states, 4),
        actions=actions,
        leader_actions=leader_actions,
        seed=seed,
        discount_leader=discount_leader,
        discount_follower=discount_follower,
    )
    theta = np.array([0.3, -0.2, 0.1])
    assert disagreement(game, theta, horizon=12) <= 1e-9
    assert disagreement(game, theta) <= 1e-9


@pytest.mark.parametrize("problem", [random_lqr(seed=3), random_lqr_game(seed=3)], ids=["lqr", "game"])
@pytest.mark.parametrize("options", [{}, {"horizon": 5}, {"horizon": 5, "discounted": False}])
def test_finite_differences_agree_within_their_estimate(problem, options):
    theta = np.array([0.3, -0.2, 0.1])
    exact = hypergradient(problem, theta, **options)
    differences = hypergradient(problem, theta, route="finite_difference", **options)
    off = np.abs(differences.value - exact.value).max()
    assert off <= differences.error_bound <= 1e-6 * np.abs(exact.value).max()


def test_long_episodes_approach_the_infinite_horizon():
    for problem in (random_lqr(seed=5), random_lqr_game(seed=5)):
        theta = np.array([0.3, -0.2, 0.1])
        long, forever = (hypergradient(problem, theta, horizon=horizon) for horizon in (400, None))
        np.testing.assert_allclose(long.value, forever.value, rtol=1e-11)
        short = hypergradient(problem, theta, horizon=3)
        assert np.abs(short.value - forever.value).max() > 1e-3 * np.abs(forever.value).max()


def test_wrong_derivatives_are_caught(monkeypatch):
    """Each planted mistake in the adjoint moves the answer by far more than the routes' agreement."""
    problem, theta = random_lqr(seed=2), np.array([0.3, -0.2, 0.1])
    right = implicit_route.response_cotangents

    def planted(**changes):
        def wrong(riccati, b, discount, *, reaction, covariance, temperature):
            arguments = {"reaction": reaction, "covariance": covariance, "temperature": temperature}
            arguments |= {name: change(arguments[name]) for name, change in changes.items() if name in arguments}
            return right(riccati, b, changes.get("discount", lambda x: x)(discount), **arguments)

        return wrong

    for wrong in (
        planted(reaction=lambda x: -x),
        planted(covariance=lambda x: 2.0 * x),
        planted(discount=lambda x: 1.02 * x),
    ):
        monkeypatch.setattr(implicit_route, "response_cotangents", wrong)
        assert disagreement(problem, theta, routes=("closed_form",)) > 1e-5


def test_the_closed_building_jacobian_is_autograds():
    problem = building_thermal_control(zones=5)
    automatic = replace(problem, matrices_jacobian=None)
    theta = np.linspace(-1.0, 1.0, 10)
    closed, traced = problem.jacobian(theta), automatic.jacobian(theta)
    assert set(closed) == set(traced)
    for name, value in closed.items():
        np.testing.assert_allclose(value, traced[name], atol=1e-14)
    np.testing.assert_allclose(hypergradient(problem, theta).value, hypergradient(automatic, theta).value, rtol=1e-12)


@pytest.mark.parametrize("zones", [3, 5, 8])
def test_buildings_of_any_size(zones):
    problem, theta = building_thermal_control(zones=zones), np.linspace(-0.5, 0.5, 2 * zones)
    shares = 1.0 / (1.0 + np.exp(-theta))
    rows = problem.matrices_at(theta).dynamics_state.sum(axis=1)
    drift = np.array([(0.04, 0.03, 0.06, 0.05)[i % 4] for i in range(zones)])
    np.testing.assert_allclose(rows, 1.0 + drift * (1.0 - shares[:zones]), rtol=1e-14)
    assert disagreement(problem, theta, routes=("closed_form",)) <= 1e-9
