"""Generators: each structure is what its name says, smooth, reproducible, and judged the same by two routes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bilevelrl.reference import hypergradient, solve_follower
from bilevelrl.reference.errors import InvalidInputError, ShapeError, UnknownNameError
from bilevelrl.reference.tabular.leader import evaluate_leader
from bilevelrl.reference.tabular.tables import TABLE_NAMES
from bilevelrl.reference.tabular.transitions import policy_transition
from bilevelrl.tasks import chain, garnet, layered_mdp, random_mdp
from bilevelrl.tasks.generators.mdps import absorbing_mdp, periodic_mdp, small_problems, unreachable_mdp
from bilevelrl.tasks.generators.smooth_mdp import smooth_mdp

pytestmark = pytest.mark.exact
PROBLEMS = small_problems(seed=0)
SEEDED = (random_mdp, garnet, layered_mdp, periodic_mdp, absorbing_mdp, unreachable_mdp)


def point(problem, scale=0.5):
    return scale * np.random.default_rng(7).standard_normal(problem.theta_shape)


@pytest.mark.parametrize("name", PROBLEMS)
def test_routes_agree(name):
    problem = PROBLEMS[name]
    theta = point(problem)
    adjoint, sweeps = (hypergradient(problem, theta, route=route) for route in ("implicit", "unrolled"))
    tolerance = adjoint.error_bound + sweeps.error_bound
    assert np.max(np.abs(adjoint.value - sweeps.value)) <= tolerance
    assert tolerance < 1e-6 * np.max(np.abs(adjoint.value)), "the comparison must be able to fail"


@pytest.mark.parametrize("name", PROBLEMS)
def test_gradients_are_of_order_one(name):
    problem = PROBLEMS[name]
    largest = np.max(np.abs(hypergradient(problem, np.zeros(problem.theta_shape), bound=False).value))
    assert 0.1 < largest < 20.0


@pytest.mark.parametrize("name", PROBLEMS)
def test_complex_step_of_the_tables_is_the_traced_derivative(name):
    problem = PROBLEMS[name]
    theta = point(problem)
    direction = np.random.default_rng(8).standard_normal(theta.shape)
    stepped, jacobian = problem.tables(theta + 1e-30j * direction).differentiable(), problem.jacobian(theta)
    assert set(jacobian) == set(problem.varying(theta))
    for table, value in stepped.items():
        slope = np.imag(value) / 1e-30
        expected = jacobian[table] @ direction if table in jacobian else np.zeros(np.shape(value))
        np.testing.assert_allclose(slope, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", PROBLEMS)
def test_support_is_the_same_at_every_theta(name):
    problem = PROBLEMS[name]
    at_zero = problem.tables_at(np.zeros(problem.theta_shape))
    for seed in range(3):
        elsewhere = problem.tables_at(3.0 * np.random.default_rng(seed).standard_normal(problem.theta_shape))
        np.testing.assert_array_equal(at_zero.transition > 0.0, elsewhere.transition > 0.0)
        np.testing.assert_array_equal(at_zero.initial > 0.0, elsewhere.initial > 0.0)


@pytest.mark.parametrize("name", PROBLEMS)
def test_tables_survive_a_large_theta(name):
    problem = PROBLEMS[name]
    for scale in (-1e3, 1e3):
        problem.tables_at(np.full(problem.theta_shape, scale))  # checks every value


@pytest.mark.parametrize("make", SEEDED)
def test_seed_decides(make):
    theta = np.full(make().theta_shape, 0.3)
    first, same, other = (make(seed=seed).tables_at(theta).differentiable() for seed in (5, 5, 6))
    for table in TABLE_NAMES:
        np.testing.assert_array_equal(first[table], same[table])
    assert np.any(first["reward_leader"] != other["reward_leader"])


@pytest.mark.parametrize("table", TABLE_NAMES)
def test_theta_enters_where_it_is_told(table):
    theta = np.array([0.3, -0.2, 0.5])
    everywhere = random_mdp(termination=0.2)
    alone = random_mdp(termination=0.2, theta_in=(table,))
    assert everywhere.varying(theta) == set(TABLE_NAMES)
    assert alone.varying(theta) == {table}
    assert random_mdp(termination=0.2, theta_in=table).varying(theta) == {table}
    # Switching the others off changes neither this table nor, at θ = 0, any other.
    origin = np.zeros(3)
    for name in TABLE_NAMES:
        at = theta if name == table else origin
        np.testing.assert_array_equal(
            everywhere.tables(at).differentiable()[name], alone.tables(at).differentiable()[name]
        )


def test_no_theta_at_all_gives_zero_gradient():
    problem = random_mdp(theta_in=())
    assert not hypergradient(problem, np.ones(3)).value.any()
    kernel = problem.tables(np.ones(3)).transition
    assert problem.tables(np.zeros(3)).transition is kernel
    assert not kernel.flags.writeable


def test_termination_is_exact_at_zero_and_moves_with_theta():
    problem = random_mdp(termination=0.25)
    np.testing.assert_allclose(problem.tables_at(np.zeros(3)).transition.sum(axis=2), 0.75, rtol=4e-16)
    assert np.ptp(problem.tables_at(np.ones(3)).transition.sum(axis=2)) > 0.01
    assert not random_mdp(termination=1.0).tables_at(np.ones(3)).transition.any()


@given(
    states=st.integers(1, 8),
    actions=st.integers(1, 3),
    branching=st.integers(1, 8),
    seed=st.integers(0, 2**32),
)
def test_garnet_has_as_many_successors_as_asked(states, actions, branching, seed):
    branching = min(branching, states)
    problem = garnet(states=states, actions=actions, branching=branching, parameters=2, seed=seed)
    kernel = problem.tables_at(np.array([0.5, -0.5])).transition
    assert ((kernel > 0.0).sum(axis=2) == branching).all()
    np.testing.assert_allclose(kernel.sum(axis=2), 1.0, rtol=1e-14)


def test_garnet_supports_differ_between_pairs():
    support = garnet(states=8, actions=3, branching=2).tables_at(np.zeros(5)).transition > 0.0
    assert len({row.tobytes() for row in support.reshape(24, 8)}) > 8


@pytest.mark.parametrize(("layers", "width"), [(1, 3), (3, 2), (4, 1)])
def test_layered_paths_end_after_exactly_so_many_steps(layers, width):
    problem = layered_mdp(layers=layers, width=width)
    theta = point(problem)
    tables, policy = problem.tables_at(theta), solve_follower(problem, theta).policy
    law = tables.initial
    for _ in range(layers):
        assert law.sum() == pytest.approx(1.0, rel=1e-14)
        law = law @ policy_transition(tables.transition, policy)
    assert not law.any()


def test_layered_objective_needs_no_more_than_its_horizon():
    problem = layered_mdp(layers=3)
    theta = point(problem)
    whole, cut, short = (hypergradient(problem, theta, horizon=horizon) for horizon in (None, 3, 2))
    assert np.max(np.abs(whole.value - cut.value)) <= whole.error_bound + cut.error_bound
    assert np.max(np.abs(whole.value - short.value)) > 0.01


@pytest.mark.parametrize("period", [1, 2, 3, 5])
def test_periodic_chain_has_the_roots_of_unity_as_eigenvalues(period):
    problem = periodic_mdp(period=period, width=2)
    theta = point(problem)
    matrix = policy_transition(problem.tables_at(theta).transition, solve_follower(problem, theta).policy)
    eigenvalues = np.linalg.eigvals(matrix)
    for root in np.exp(2j * np.pi * np.arange(period) / period):
        assert np.min(np.abs(eigenvalues - root)) < 1e-12
    assert np.sum(np.abs(eigenvalues) > 1.0 - 1e-9) == period


def test_absorbing_state_keeps_only_its_entropy():
    problem = absorbing_mdp(actions=3)
    theta = point(problem)
    follower = solve_follower(problem, theta)
    expected = problem.temperature * np.log(3.0) / (1.0 - problem.discount_follower)
    assert abs(follower.value[-1] - expected) <= follower.error_bound
    assert not problem.tables_at(theta).reward_leader[-1].any()


def test_unreachable_states_are_never_visited_and_still_have_values():
    problem = unreachable_mdp(states=6, unreachable=2)
    theta = point(problem)
    tables, follower = problem.tables_at(theta), solve_follower(problem, theta)
    occupancy = evaluate_leader(tables, follower.policy, problem.discount_leader).occupancy
    assert not occupancy[4:].any()
    assert (occupancy[:4] > 0.0).all()
    assert np.isfinite(follower.value).all()


@pytest.mark.parametrize("slip", [0.0, 1.0])
def test_chain_without_chance_does_not_slip_with_theta(slip):
    problem = chain(states=4, slip=slip)
    assert "transition" not in problem.varying(np.zeros(5))
    kernel = problem.tables_at(np.ones(5)).transition
    right = 1 if slip == 0.0 else 0
    np.testing.assert_array_equal(kernel[:, right].argmax(axis=1), [1, 2, 3, 3])
    assert set(np.unique(kernel)) == {0.0, 1.0}


def test_chain_slips_as_asked():
    kernel = chain(states=4, slip=0.1).tables_at(np.zeros(5)).transition
    np.testing.assert_allclose(kernel[1], [[0.9, 0.0, 0.1, 0.0], [0.1, 0.0, 0.9, 0.0]], rtol=1e-14)
    np.testing.assert_allclose(kernel[0, 0], [0.9, 0.1, 0.0, 0.0], rtol=1e-14)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        *((make, {"actions": 0}, "actions=0") for make in SEEDED),
        *((make, {"parameters": 0}, "parameters=0") for make in SEEDED),
        *((make, {"seed": -1}, "seed=-1") for make in SEEDED),
        (random_mdp, {"states": 0}, "states=0"),
        (random_mdp, {"states": 2.0}, "states=2.0"),
        (random_mdp, {"states": True}, "states=True"),
        (random_mdp, {"termination": 1.5}, "termination=1.5"),
        (random_mdp, {"termination": np.nan}, "termination=nan"),
        (random_mdp, {"temperature": -1.0}, "temperature=-1.0"),
        (garnet, {"branching": 0}, "branching=0"),
        (garnet, {"states": 3, "branching": 4}, "at most states=3"),
        (chain, {"states": 0}, "states=0"),
        (chain, {"slip": -0.1}, "slip=-0.1"),
        (chain, {"toll": 2.0}, "toll=2.0"),
        (layered_mdp, {"layers": 0}, "layers=0"),
        (layered_mdp, {"width": 0}, "width=0"),
        (periodic_mdp, {"period": 0}, "period=0"),
        (absorbing_mdp, {"states": 0}, "states=0"),
        (unreachable_mdp, {"states": 2, "unreachable": 2}, "less than states=2"),
    ],
)
def test_bad_arguments(make, options, message):
    with pytest.raises(InvalidInputError, match=message):
        make(**options)


def test_bad_theta_in():
    with pytest.raises(UnknownNameError, match="did you mean 'reward_follower'"):
        random_mdp(theta_in=("reward_folower",))


def test_bad_support():
    options = {"name": "bad", "seed": 0, "parameters": 1, "temperature": 1.0}
    discounts = {"discount_leader": 0.5, "discount_follower": 0.5}
    with pytest.raises(ShapeError, match=r"support\.shape"):
        smooth_mdp(support=np.ones((2, 1, 3), bool), initial_support=np.ones(2, bool), **options, **discounts)
    with pytest.raises(InvalidInputError, match="at least one state"):
        smooth_mdp(support=np.ones((2, 1, 2), bool), initial_support=np.zeros(2, bool), **options, **discounts)
