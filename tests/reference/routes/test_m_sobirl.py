"""M-SoBiRL's adjoint form: exact with exact solves, and with inexact ones off by what the theory says."""

import dataclasses

import numpy as np
import pytest
from high_precision import HighPrecision

from bilevelrl.reference import ConfigurableMDP, hypergradient, solve_follower
from bilevelrl.reference.errors import InvalidInputError, NotConvergedError, ShapeError
from bilevelrl.reference.routes import m_sobirl as module
from bilevelrl.reference.routes.m_sobirl import m_sobirl_gradient_steps
from bilevelrl.tasks import chain, four_rooms, garnet, layered_mdp, random_mdp

PROBLEMS = {
    "random": random_mdp(states=5, actions=3, parameters=4, seed=1),
    "terminating": random_mdp(states=5, actions=3, parameters=4, seed=2, termination=0.2),
    "cold": random_mdp(states=4, actions=3, parameters=3, seed=3, temperature=1e-3),
    "hot, long": random_mdp(
        states=4, actions=2, parameters=3, discount_leader=0.99, discount_follower=0.3, temperature=50.0
    ),
    "layered": layered_mdp(parameters=3, seed=4),
    "garnet": garnet(states=12, actions=3, branching=2, parameters=5, seed=5),
    "chain": chain(states=8),
}


def theta_of(problem, seed=0):
    size = problem.theta_shape[0]
    return np.random.default_rng(seed).normal(scale=0.3, size=size)


@pytest.mark.parametrize(("horizon", "discounted"), [(None, True), (1, True), (7, True), (7, False)])
@pytest.mark.parametrize("name", PROBLEMS)
def test_agrees_with_the_other_routes_part_by_part(name, horizon, discounted):
    problem = PROBLEMS[name]
    theta = theta_of(problem)
    ours = hypergradient(problem, theta, route="m_sobirl", horizon=horizon, discounted=discounted)
    for route in ("implicit", "hpgd_form"):
        other = hypergradient(problem, theta, route=route, horizon=horizon, discounted=discounted)
        allowed = ours.error_bound + other.error_bound
        assert np.abs(ours.value - other.value).max() <= allowed
        for part in ours.parts:
            assert np.abs(ours.parts[part] - other.parts[part]).max() <= allowed, part
    if horizon is None and name != "cold":
        assert ours.error_bound <= 1e-6 * np.abs(ours.value).max()  # the comparison is not vacuous


@pytest.mark.parametrize("planted", ["uncentred source", "wrong discount", "transposed chain"])
def test_the_agreement_catches_a_planted_error(planted, monkeypatch):
    problem = PROBLEMS["random"]
    theta = theta_of(problem)
    truth = hypergradient(problem, theta)
    solve = module.DiscountedSystem.solve_transposed
    if planted == "uncentred source":
        monkeypatch.setattr(module.DiscountedSystem, "solve_transposed", lambda system, b: 0.0 * b)
    elif planted == "transposed chain":
        monkeypatch.setattr(module.DiscountedSystem, "solve_transposed", module.DiscountedSystem.solve)
    else:
        problem = dataclasses.replace(problem, discount_follower=0.89)
    if planted == "transposed chain":  # the route sees by itself that its adjoint solves nothing
        with pytest.raises(NotConvergedError, match="adjoint's residual"):
            hypergradient(problem, theta, route="m_sobirl")
        monkeypatch.setattr(module, "_relative_residual", lambda *arguments: 0.0)
    wrong = hypergradient(problem, theta, route="m_sobirl")
    monkeypatch.setattr(module.DiscountedSystem, "solve_transposed", solve)
    assert np.abs(wrong.value - truth.value).max() > 1e3 * (truth.error_bound + wrong.error_bound)


@pytest.mark.parametrize("shift", [0.0, -1e6])
@pytest.mark.parametrize("horizon", [None, 7])
def test_a_constant_of_the_leader_does_not_drown_a_small_gradient(shift, horizon):
    """Where episodes may end a constant reward cannot be split off; against eighty digits."""
    drawn = random_mdp(states=4, actions=3, parameters=3, seed=0)

    def tables(theta):
        given = drawn.tables(theta)
        return given.replace({"transition": 0.999 * given.transition, "reward_leader": given.reward_leader + shift})

    problem = ConfigurableMDP(tables=tables, discount_leader=0.9999, discount_follower=0.9, temperature=0.02)
    theta = np.array([0.1, 0.2, 0.3])
    truth = sum(HighPrecision(problem, theta, horizon=horizon).parts().values())
    found = hypergradient(problem, theta, route="m_sobirl", horizon=horizon)
    other = hypergradient(problem, theta, horizon=horizon)
    assert np.abs(found.value - truth).max() <= found.error_bound
    assert np.abs(found.value - truth).max() <= 1e-6 * np.abs(truth).max()
    assert found.error_bound <= 10.0 * other.error_bound
    assert "adjoint solved" in found.status


def test_four_rooms():
    problem, theta = four_rooms(temperature=0.003), np.zeros(105)
    ours, other = hypergradient(problem, theta, route="m_sobirl"), hypergradient(problem, theta)
    assert np.abs(ours.value - other.value).max() <= ours.error_bound + other.error_bound
    assert ours.error_bound <= 1e-5 * np.linalg.norm(other.value)


def exact_system(problem, theta):
    """The adjoint's matrix and solution by dense arithmetic of its own."""
    tables, follower = problem.tables_at(theta), solve_follower(problem, theta)
    kernel, policy, states = tables.transition, follower.policy, tables.states
    chain_matrix = np.einsum("sa,sat->st", policy, kernel)
    value = np.linalg.solve(
        np.eye(states) - problem.discount_leader * chain_matrix, (policy * tables.reward_leader).sum(axis=1)
    )
    occupancy = np.linalg.solve(np.eye(states) - problem.discount_leader * chain_matrix.T, tables.initial)
    weight = occupancy[:, None] * policy * (tables.reward_leader + problem.discount_leader * kernel @ value)
    differences = np.eye(states)[:, None, :] - problem.discount_follower * kernel  # 1[s=j] - γ P(j|s,a)
    matrix = np.eye(states) - problem.discount_follower * chain_matrix.T
    return matrix, np.linalg.solve(matrix, np.einsum("sa,saj->j", weight, differences))


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_gradient_steps_contract_the_error_as_the_theory_says(steps):
    problem = PROBLEMS["random"]
    theta = theta_of(problem)
    matrix, solution = exact_system(problem, theta)
    start, step_size = np.random.default_rng(0).normal(size=solution.size), 0.4
    assert step_size < 2.0 / np.linalg.norm(matrix, 2) ** 2
    found = m_sobirl_gradient_steps(problem, theta, start, gradient_steps=steps, step_size=step_size)
    shrink = np.linalg.matrix_power(np.eye(solution.size) - step_size * matrix.T @ matrix, steps)
    predicted = solution + shrink @ (start - solution)
    np.testing.assert_allclose(found.adjoint, predicted, rtol=0, atol=1e-12 * np.abs(predicted).max())


def test_the_bound_on_an_inexact_adjoint_holds_and_is_not_vacuous():
    problem = PROBLEMS["terminating"]
    theta = theta_of(problem)
    exact = hypergradient(problem, theta, route="m_sobirl")
    ratios = []
    for steps in (0, 1, 3, 10, 30, 100, 300):
        rough = m_sobirl_gradient_steps(problem, theta, np.zeros(5), gradient_steps=steps, step_size=0.4)
        error = np.abs(rough.value - exact.value).max()
        assert error <= rough.error_bound + exact.error_bound
        for part in ("initial", "direct", "transition", "regulariser"):
            np.testing.assert_array_equal(rough.parts[part], exact.parts[part])
        ratios.append(rough.error_bound / error)
    assert min(ratios) < 100.0
    solved = m_sobirl_gradient_steps(problem, theta, np.zeros(5), gradient_steps=20_000, step_size=0.4)
    np.testing.assert_allclose(solved.value, exact.value, rtol=1e-10)


def test_the_published_iteration_with_stale_adjoint_and_stale_values_tracks_the_hypergradient():
    problem = random_mdp(
        states=10,
        actions=5,
        parameters=6,
        seed=7,
        temperature=1.0,
        discount_follower=0.5,
        discount_leader=0.5,
        theta_in=("reward_follower", "regulariser"),
    )
    theta = theta_of(problem)
    adjoint, follower, errors = np.zeros(10), None, []
    for _ in range(150):
        follower = solve_follower(problem, theta, method="value_iteration", stop_after=10, warm_start=follower)
        rough = m_sobirl_gradient_steps(problem, theta, adjoint, step_size=0.5, follower=follower)
        truth = hypergradient(problem, theta, bound=False).value
        errors.append(np.linalg.norm(rough.value - truth) / np.linalg.norm(truth))
        adjoint, theta = rough.adjoint, theta + 8e-3 * rough.value
    assert errors[0] > 1e-2  # it starts wrong
    assert errors[-1] < 0.05 * errors[0]  # and catches up with a moving target
    assert errors[-1] > 1e-9  # without ever being exact


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"adjoint": np.zeros(3)}, ShapeError),
        ({"adjoint": np.full(5, np.nan)}, InvalidInputError),
        ({"gradient_steps": -1}, InvalidInputError),
        ({"gradient_steps": True}, InvalidInputError),
        ({"step_size": 0.0}, InvalidInputError),
        ({"step_size": 50.0, "gradient_steps": 20}, NotConvergedError),
    ],
)
def test_bad_input_is_refused(changes, error):
    problem = PROBLEMS["random"]
    arguments = {"adjoint": np.zeros(5), **changes}
    with pytest.raises(error):
        m_sobirl_gradient_steps(problem, theta_of(problem), **arguments)
