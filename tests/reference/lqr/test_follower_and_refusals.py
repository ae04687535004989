"""The follower of linear-quadratic problems, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from lqr_cases import disagreement

from bilevelrl.reference import (
    ConfigurableLQR,
    LQRGame,
    LQRMatrices,
    hypergradient,
    leader_objective,
    solve_follower,
)
from bilevelrl.reference.errors import (
    IllPosedError,
    IndependenceError,
    InvalidInputError,
    NotConvergedError,
    ShapeError,
    UnsupportedError,
)
from bilevelrl.reference.lqr.riccati_derivative import riccati_primitive
from bilevelrl.reference.lqr.solvers import (
    discounted_lyapunov,
    solve_riccati,
)
from bilevelrl.reference.lqr_game.leader import SPREAD_LIMIT
from bilevelrl.tasks import building_thermal_control, lqr_game, random_lqr, random_lqr_game

# --- follower -----------------------------------------------------------------------------------------------------


def test_the_value_is_the_log_of_the_integral_over_actions():
    """`V = β log ∫ exp(Q/β) da` by Gauss-Legendre quadrature, for both information structures."""
    nodes, weights = np.polynomial.legendre.leggauss(400)
    problem = random_lqr(states=1, actions=1, seed=4)
    matrices, follower = problem.matrices_at(np.zeros(3)), solve_follower(problem, np.zeros(3))
    x, beta, gamma = 0.7, problem.temperature, problem.discount_follower
    half = 12.0 * np.sqrt(follower.covariance[0, 0])
    actions = follower.mean(np.array([x]))[0] + half * nodes
    ahead = matrices.dynamics_state[0, 0] * x + matrices.dynamics_action[0, 0] * actions
    spread = matrices.noise_covariance[0, 0]
    value_tp1 = -follower.cost_to_go[0, 0] * (ahead**2 + spread) - follower.offset
    q = -matrices.cost_state_follower[0, 0] * x**2 - matrices.cost_action_follower[0, 0] * actions**2
    q = q + gamma * value_tp1
    value = q.max() + beta * np.log(half * np.sum(weights * np.exp((q - q.max()) / beta)))
    assert follower.value_at(np.array([x])) == pytest.approx(value, rel=1e-12)
    density = np.exp((q - value) / beta)
    np.testing.assert_allclose(follower.log_prob(np.full((400, 1), x), actions[:, None]), np.log(density), atol=1e-9)

    game = random_lqr_game(states=1, seed=4)
    policy, follower = game.policy_at(np.zeros(3)), solve_follower(game, np.zeros(3))
    leader_action, beta, gamma = 0.4, game.temperature, game.discount_follower
    half = 12.0 * np.sqrt(follower.covariance[0, 0])
    state, seen = np.array([x]), np.array([leader_action])
    actions = follower.mean(state, seen)[0] + half * nodes
    ahead = game.dynamics_state[0, 0] * x + game.dynamics_action[0, 0] * actions + game.dynamics_leader[0, 0] * seen
    # E over the next leader action by Gauss-Hermite: V_F(x', l') is quadratic in l'.
    points, masses = np.polynomial.hermite_e.hermegauss(5)
    drawn = policy.gain[0, 0] * ahead[:, None] + np.sqrt(policy.covariance[0, 0]) * points
    joint = np.broadcast_to(ahead[:, None, None], (400, 5, 1))
    value_tp1 = follower.value_at(joint, drawn[..., None]) @ (masses / masses.sum())
    np.testing.assert_allclose(value_tp1, follower.value_at(ahead[:, None]), rtol=1e-12)
    q = -game.cost_state[0, 0] * x**2 - game.cost_action[0, 0] * actions**2 + gamma * value_tp1
    value = q.max() + beta * np.log(half * np.sum(weights * np.exp((q - q.max()) / beta)))
    assert follower.value_at(state, seen) == pytest.approx(value, rel=1e-12)


def test_suboptimal_followers_stop_early():
    problem, theta = building_thermal_control(), np.zeros(8)
    best = solve_follower(problem, theta)
    early = solve_follower(problem, theta, method="value_iteration", stop_after=3)
    late = solve_follower(problem, theta, method="value_iteration", stop_after=3, warm_start=best)
    assert early.residual > 1e-3
    assert late.residual < 1e-9
    assert not early.status.succeeded
    assert leader_objective(problem, theta, follower=early) != pytest.approx(leader_objective(problem, theta), rel=1e-4)
    with pytest.raises(NotConvergedError, match="sweeps"):
        solve_follower(problem, theta, method="value_iteration", max_iterations=2)
    limited = solve_follower(problem, theta, method="value_iteration", max_iterations=2, throw=False)
    assert not limited.status.succeeded
    with pytest.raises(UnsupportedError, match="tabular"):
        solve_follower(problem, theta, method="modified_policy_iteration")


# --- refusals -----------------------------------------------------------------------------------------------------


def one_dimensional(**changes):
    one = np.eye(1)
    entries = {
        "dynamics_state": one,
        "dynamics_action": one,
        "noise_covariance": one,
        "cost_state_follower": one,
        "cost_action_follower": one,
        "cost_state_leader": one,
        "cost_action_leader": one,
        "initial_mean": np.ones(1),
        "initial_covariance": one,
    } | changes
    return ConfigurableLQR(
        matrices=lambda theta: LQRMatrices(**entries), discount_leader=0.9, discount_follower=0.9, temperature=1.0
    )


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"cost_state_follower": -np.eye(1)}, InvalidInputError, "cost_state_follower"),
        ({"cost_action_follower": np.zeros((1, 1))}, InvalidInputError, "cost_action_follower"),
        ({"noise_covariance": -np.eye(1)}, InvalidInputError, "noise_covariance"),
        ({"initial_covariance": -np.eye(1)}, InvalidInputError, "initial_covariance"),
        ({"dynamics_state": np.eye(2)}, ShapeError, "dynamics_state"),
        ({"initial_mean": np.array([np.nan])}, InvalidInputError, "initial_mean"),
        ({"dynamics_state": 2.0 * np.eye(1), "dynamics_action": np.zeros((1, 1))}, IllPosedError, "stabilised"),
        ({"dynamics_state": 2.0 * np.eye(1), "cost_state_follower": np.zeros((1, 1))}, IllPosedError, "detected"),
    ],
)
def test_bad_matrices_are_refused(changes, error, message):
    with pytest.raises(error, match=message):
        leader_objective(one_dimensional(**changes), np.zeros(1))


def test_asymmetric_costs_are_refused():
    matrices = random_lqr(seed=0).matrices_at(np.zeros(3))
    cost = matrices.cost_state_leader.copy()
    cost[0, 1] += 1e-6
    problem = ConfigurableLQR(
        matrices=lambda theta: matrices.replace({"cost_state_leader": cost}),
        discount_leader=0.9,
        discount_follower=0.9,
        temperature=1.0,
    )
    with pytest.raises(InvalidInputError, match="symmetric"):
        leader_objective(problem, np.zeros(1))


def test_unstable_loops_need_a_horizon_only_where_rewards_are_quadratic():
    # A short-sighted follower leaves a closed loop outside the unit disc of a far-sighted leader.
    unstable = replace(one_dimensional(dynamics_state=3.0 * np.eye(1)), discount_follower=0.05, discount_leader=0.99)
    assert abs(solve_follower(unstable, np.zeros(1)).riccati.closed_loop[0, 0]) > 1.0
    for route in ("implicit", "closed_form"):
        with pytest.raises(IllPosedError, match="horizon"):
            hypergradient(unstable, np.zeros(1), route=route)
    assert np.isfinite(leader_objective(unstable, np.zeros(1), horizon=20))
    blind = random_lqr(states=5, radius=1.5, discount_leader=0.999, discount_follower=0.0)
    for route in ("implicit", "closed_form", "unrolled", "finite_difference"):
        with pytest.raises(IllPosedError, match="horizon"):
            hypergradient(blind, np.zeros(3), route=route)
    game = random_lqr_game(states=1, seed=0, radius=3.0, discount_follower=0.05)
    assert abs(hypergradient(game, np.zeros(3)).objective) < 1e6
    assert disagreement(game, np.zeros(3)) <= 1e-9
    # In several dimensions the spread outgrows double precision: what is left out is below the root of its limit.
    wide = random_lqr_game(states=3, seed=1, radius=3.0, discount_follower=0.05, discount_leader=0.97)
    assert abs(hypergradient(wide, np.zeros(3)).objective) < 1e3
    assert disagreement(wide, np.zeros(3), routes=("closed_form",)) <= 10.0 / np.sqrt(SPREAD_LIMIT)


def test_nothing_that_carries_a_derivative_enters_a_solver():
    one = np.eye(1)
    with pytest.raises(IndependenceError):
        solve_riccati(one + 1e-30j, one, one, one, 0.9)
    with pytest.raises(IndependenceError):
        riccati_primitive(one + 1e-30j, one, one, one, 0.9, "scipy")
    with pytest.raises(IndependenceError):
        discounted_lyapunov(one + 1e-30j, one, 0.9)
    with pytest.raises(IndependenceError):
        hypergradient(building_thermal_control(), np.zeros(8) + 1e-30j)


def test_games_refuse_what_contradicts():
    game = lqr_game()
    entries = {name: getattr(game, name) for name in ("dynamics_state", "dynamics_action", "dynamics_leader")}
    rest = {
        "cost_state": np.eye(2),
        "cost_action": np.eye(1),
        "target": np.zeros(2),
        "initial_mean": np.zeros(2),
        "initial_covariance": np.zeros((2, 2)),
        "discount_leader": 0.9,
        "discount_follower": 0.9,
        "temperature": 1.0,
    }
    with pytest.raises(InvalidInputError, match="leader_covariance"):
        LQRGame(**entries, **rest, width=np.eye(2))
    with pytest.raises(InvalidInputError, match="width"):
        LQRGame(**entries, **rest, width=np.zeros((2, 2)), leader_covariance=np.eye(1))
    with pytest.raises(ShapeError, match="leader_covariance"):
        LQRGame(**entries, **rest, width=np.eye(2), leader_covariance=np.eye(2))
    with pytest.raises(ShapeError, match="theta"):
        leader_objective(game, np.zeros(3))


@pytest.mark.exact
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("states", [2, 3])
def test_states_that_cost_nothing_leave_nothing_to_a_follower(seed, states):
    """With Q = 0 and a stable plant P is 0, of which SciPy's solver leaves a rounding."""
    problem = random_lqr(states=states, actions=1, seed=seed)
    free = replace(
        problem,
        matrices=lambda theta: replace(problem.matrices(theta), cost_state_follower=np.zeros((states, states))),
    )
    theta = np.full(3, 0.1)
    right = hypergradient(free, theta)
    m = free.matrices_at(theta)
    system = m.dynamics_state, m.dynamics_action, m.cost_state_follower, m.cost_action_follower
    for method in ("doubling", "scipy"):
        solved = solve_riccati(*system, free.discount_follower, method=method)
        assert np.abs(solved.cost_to_go).max() <= 1e-25
    for route in ("closed_form", "finite_difference"):
        found = hypergradient(free, theta, route=route)
        assert np.abs(found.value - right.value).max() <= right.error_bound + found.error_bound
        assert found.error_bound < 1e-3 * np.abs(right.value).max()
