"""The mixed derivative of the follower's own value against other routes and against followers that are really paid."""

from dataclasses import replace

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nudged_cases import PROBLEMS, THETA, disagreements, lqr, mdp

from bilevelrl.reference import (
    ConfigurableLQR,
    LQRMatrices,
    SparseTransition,
    hypergradient,
    leader_objective,
    solve_follower,
)
from bilevelrl.reference.errors import IllPosedError
from bilevelrl.tasks import (
    building_thermal_control,
    four_rooms,
    lqr_game,
    random_lqr,
    random_lqr_game,
)
from bilevelrl.verification.testing.strategies import configurable_mdps, markov_games

DISCOUNTS = [(0.9, 0.9), (0.3, 0.95), (0.95, 0.3), (0.9, 0.0), (0.0, 0.9)]

OBJECTIVES = [
    {},
    {"horizon": 1},
    {"horizon": 5},
    {"horizon": 5, "discounted": False},
]


@pytest.mark.exact
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("discounts", DISCOUNTS)
@pytest.mark.parametrize("kind", PROBLEMS)
def test_it_is_the_hypergradient_part_by_part(kind, discounts, objective):
    """Where the pay grows in time, where it dies, and where the follower has no future at all."""
    problem = PROBLEMS[kind](*discounts)
    assert not disagreements(problem, THETA, "implicit", **objective)
    assert not disagreements(problem, THETA, "finite_difference", **objective)
    found = hypergradient(problem, THETA, route="mixed_derivative", **objective)
    assert found.error_bound <= 1e-6 * np.abs(found.value).max()


WARM = {"temperatures": (0.1, 10.0), "discounts": (0.0, 0.5, 0.9, 0.99)}


@pytest.mark.property
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=st.one_of(configurable_mdps(max_states=4), markov_games(**WARM)), objective=st.sampled_from(OBJECTIVES))
def test_it_agrees_on_drawn_problems(drawn, objective):
    assert not disagreements(drawn.problem, drawn.theta, "implicit", **objective)


@pytest.mark.property
@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=st.one_of(configurable_mdps(max_states=3), markov_games(**WARM)), objective=st.sampled_from(OBJECTIVES))
def test_it_agrees_with_differences_on_drawn_problems(drawn, objective):
    assert not disagreements(drawn.problem, drawn.theta, "finite_difference", **objective)


@pytest.mark.property
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 1000),
    states=st.integers(1, 3),
    actions=st.integers(1, 2),
    discounts=st.tuples(*[st.sampled_from([0.0, 0.3, 0.9, 0.99])] * 2),
    temperature=st.sampled_from([1e-3, 1.0, 1e2]),
    objective=st.sampled_from(OBJECTIVES),
    at=st.tuples(*[st.floats(-0.5, 0.5)] * 3),
)
def test_it_agrees_on_drawn_lqrs(seed, states, actions, discounts, temperature, objective, at):
    leader, follower = discounts
    drawn = random_lqr(
        states=states, actions=actions, seed=seed, discount_leader=leader, discount_follower=follower,
        temperature=temperature,
    )  # fmt: skip
    assert not disagreements(drawn, np.array(at), "implicit", **objective)


def paid_value(problem, w, theta, horizon=None, steps=400):
    """μ·V_0 of a follower that is paid w (γ_L/γ_F)^t r_L for `horizon` steps, by plain sweeps; autograd's arrays."""
    tables = problem.evaluate(theta)
    value = anp.zeros(tables.states)
    for t in reversed(range(steps)):
        paid = w * (problem.discount_leader / problem.discount_follower) ** t if horizon is None or t < horizon else 0.0
        ahead = anp.sum(tables.transition * value, axis=2)
        action_value = tables.reward_follower + paid * tables.reward_leader + problem.discount_follower * ahead
        peak = anp.max(action_value, axis=1)
        weights = anp.exp((action_value - peak[:, None]) / problem.temperature)
        value = peak + problem.temperature * anp.log(anp.sum(weights, axis=1))
    return anp.dot(tables.initial, value)


@pytest.mark.exact
@pytest.mark.parametrize("horizon", [None, 4])
@pytest.mark.parametrize("discounts", [(0.9, 0.9), (0.6, 0.9), (0.9, 0.8)])
def test_followers_that_are_really_paid_come_to_it_with_the_square_of_the_pay(discounts, horizon):
    """The claim itself, from a definition that shares nothing: real pay, every step of it, reverse mode in θ.

    At (.9, .8) the pay grows by 9/8 a step: four hundred of them would end at 1e20 w, so it is paid for sixty.
    """
    problem = mdp(*discounts)
    regulariser = autograd.grad(lambda theta: problem.evaluate(theta).regulariser + 0.0 * anp.sum(theta))(THETA)
    horizon = horizon or (60 if discounts[0] > discounts[1] else None)
    truth = hypergradient(problem, THETA, route="mixed_derivative", horizon=horizon).value
    steps = 400 if horizon is None else horizon + 200
    gradient = autograd.grad(paid_value, 2)

    def two_sided(w):
        sides = [gradient(problem, side, THETA, horizon, steps) for side in (w, -w)]
        return (sides[0] - sides[1]) / (2 * w) + regulariser

    pay = 1e-3 * (0.1 if discounts[0] > discounts[1] else 1.0)
    errors = [np.abs(two_sided(w) - truth).max() for w in (4 * pay, 2 * pay)]
    assert 3.6 < errors[0] / errors[1] < 4.4
    one_sided = (
        gradient(problem, pay, THETA, horizon, steps) - gradient(problem, 0.0, THETA, horizon, steps)
    ) / pay + regulariser
    assert np.abs(one_sided - truth).max() > 5 * errors[1]


def paid_regulator_value(problem, w, theta):
    """V* of a regulator with the costs Q + w C, R + w D and w k, at equal discounts; P by the package's solver."""

    def matrices(at):
        m = problem.matrices(at)
        state, action = (
            getattr(m, f"cost_{part}_follower") + w * getattr(m, f"cost_{part}_leader") for part in ("state", "action")
        )
        return replace(m, cost_state_follower=state, cost_action_follower=action)

    m, discount, beta = matrices(theta), problem.discount_follower, problem.temperature
    cost = solve_follower(replace(problem, matrices=matrices), theta).cost_to_go
    b = m.dynamics_action
    curvature = m.cost_action_follower + discount * b.T @ cost @ b
    first = m.initial_covariance + np.outer(m.initial_mean, m.initial_mean)
    entropy = 0.5 * beta * (len(curvature) * np.log(np.pi * beta) - np.linalg.slogdet(curvature)[1])
    each = entropy - w * m.cost_constant_leader - discount * np.vdot(cost, m.noise_covariance)
    return -np.vdot(cost, first) + each / (1.0 - discount)


@pytest.mark.exact
def test_regulators_that_are_really_paid_come_to_it_with_the_square_of_the_pay():
    """Two-sided differences in w and in θ of what a paid regulator is worth; those in θ are off by 1e-7 at most."""
    problem, h = lqr(0.9, 0.9), 1e-4
    truth = hypergradient(problem, THETA, route="mixed_derivative")
    rho = truth.parts["regulariser"]

    def two_sided(w):
        def slope(e):
            corners = [
                (i, j, paid_regulator_value(problem, i * w, THETA + j * h * e)) for i in (1, -1) for j in (1, -1)
            ]
            return sum(i * j * value for i, j, value in corners) / (4.0 * h * w)

        return np.array([slope(e) for e in np.eye(THETA.size)]) + rho

    errors = [np.abs(two_sided(w) - truth.value).max() for w in (0.1, 0.05)]
    assert 3.8 < errors[0] / errors[1] < 4.2
    assert errors[1] < 0.1 * np.abs(truth.value).max()


@pytest.mark.exact
def test_what_a_paid_follower_is_worth_brackets_the_leaders_return():
    """V* is convex in the pay, and its slope at zero is the leader's return."""
    problem = mdp()
    earned = leader_objective(problem, THETA) - problem.tables_at(THETA).regulariser
    unpaid = paid_value(problem, 0.0, THETA)
    for w in (1.0, 0.1, 0.01):
        above, below = ((paid_value(problem, side, THETA) - unpaid) / side for side in (w, -w))
        assert below < earned < above
        assert above - below < 20 * w


@pytest.mark.exact
def test_sparse_kernels_with_a_successor_listed_twice():
    base = mdp()

    def listed(theta):
        tables = base.tables(theta)
        successor = np.broadcast_to([0, 1, 2, 3, 3], (4, 2, 5)).copy()
        halves = [tables.transition[:, :, :3], 0.25 * tables.transition[:, :, 3:], 0.75 * tables.transition[:, :, 3:]]
        probability = anp.concatenate(halves, axis=2)
        return replace(tables, transition=SparseTransition(successor=successor, probability=probability))

    dense, sparse = (
        hypergradient(problem, THETA, route="mixed_derivative") for problem in (base, replace(base, tables=listed))
    )
    for part, value in dense.parts.items():
        assert np.abs(sparse.parts[part] - value).max() <= 1e-13


@pytest.mark.exact
def test_a_leader_that_is_paid_nothing_has_no_hypergradient():
    base = mdp()
    idle = replace(base, tables=lambda theta: replace(base.tables(theta), reward_leader=np.zeros((4, 2))))
    found = hypergradient(idle, THETA, route="mixed_derivative")
    np.testing.assert_array_equal(found.value, found.parts["regulariser"])


@pytest.mark.exact
def test_four_rooms_with_the_published_temperatures():
    for temperature in (0.001, 0.003, 0.005):
        assert not disagreements(four_rooms(temperature=temperature), np.zeros(105), "implicit")


@pytest.mark.property
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 1000),
    states=st.integers(1, 3),
    discounts=st.tuples(*[st.sampled_from([0.0, 0.3, 0.9])] * 2),
    objective=st.sampled_from(OBJECTIVES),
    at=st.tuples(*[st.floats(-0.3, 0.3)] * 3),
)
def test_it_agrees_on_drawn_lqr_games(seed, states, discounts, objective, at):
    leader, follower = discounts
    drawn = random_lqr_game(states=states, seed=seed, radius=0.6, discount_leader=leader, discount_follower=follower)
    assert not disagreements(drawn, np.array(at), "implicit", **objective)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("theta", "objective"),
    [((-9.683, -10.25), {"horizon": 100}), ((-7.0, 0.0), {}), ((-3.0, 0.0), {"horizon": 100, "discounted": False})],
)
def test_the_published_lqr_game(theta, objective):
    """At its optimum, on an infinite horizon, and where the state escapes."""
    assert not disagreements(lqr_game(), np.array(theta), "implicit", **objective)


@pytest.mark.exact
def test_the_building():
    assert not disagreements(building_thermal_control(), np.zeros(8), "implicit")
    assert not disagreements(building_thermal_control(), np.zeros(8), "closed_form", horizon=100)


@pytest.mark.exact
def test_a_loop_that_is_unstable_for_the_leader_is_refused():
    with pytest.raises(IllPosedError, match="spectral radius"):
        hypergradient(unstable_lqr(), np.ones(1), route="mixed_derivative")
    assert not disagreements(unstable_lqr(), np.ones(1), "implicit", horizon=6)


def unstable_lqr():
    """x' = 1.2 x + a, and a follower that looks so little ahead that it lets x grow."""
    one = np.eye(1)

    def matrices(theta):
        return LQRMatrices(
            dynamics_state=1.2 * theta[0] * one, dynamics_action=one, noise_covariance=0.1 * one,
            cost_state_follower=one, cost_action_follower=9.0 * one, cost_state_leader=one,
            cost_action_leader=0.0 * one, initial_mean=np.ones(1),
            initial_covariance=0.0 * one,
        )  # fmt: skip

    return ConfigurableLQR(matrices=matrices, discount_leader=0.9, discount_follower=0.1, temperature=0.1)
