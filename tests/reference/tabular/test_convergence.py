"""Convergence speaks of the answer: what is large elsewhere neither stops an iteration early nor spoils its bounds."""

import pickle

import autograd.numpy as anp
import numpy as np
import pytest
from high_precision import HighPrecision
from hypothesis import given, settings
from hypothesis import strategies as st

from bilevelrl.reference import (
    ConfigurableMDP,
    MarkovGame,
    SparseTransition,
    Tables,
    TabularSoftmaxPolicy,
    hypergradient,
    solve_follower,
)
from bilevelrl.reference.game import reduce_game
from bilevelrl.reference.tabular import fixed_point, solve_followers
from bilevelrl.reference.tabular import value_errors as value_errors_module
from bilevelrl.reference.tabular.follower import tabular_operator
from bilevelrl.reference.tabular.value_errors import value_errors
from bilevelrl.verification.testing.strategies import configurable_mdps

ROUTES = (
    "implicit",
    "theorem1",
    "hpgd_form",
    "m_sobirl",
    "mixed_derivative",
    "forward",
    "complex_step",
    "finite_difference",
    "unrolled",
)
METHODS = ("newton", "value_iteration", "modified_policy_iteration")
THETA = np.array([0.1, -0.2, 0.3])
PLAIN, UNREACHED, FORBIDDEN, BOTH = "plain", "unreached", "forbidden", "both"
CHANGES = {UNREACHED: (1e10, None), FORBIDDEN: (None, -1e12), BOTH: (-1e13, -1e10)}


def tables_of(seed, worth, price, sparse=False):
    """Three states and two actions; a fourth state that nobody reaches, a third action that nobody takes."""
    rng = np.random.default_rng(seed)
    kernel, slopes = rng.dirichlet(np.ones(3), (3, 2)), 0.05 * rng.normal(size=(3, 2, 3))
    follower, leader = 0.05 * rng.normal(size=(3, 2)), rng.normal(size=(3, 2))
    initial, leading = rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3), 3)
    states, actions = 3 + (worth is not None), 2 + (price is not None)
    moved, paid = np.zeros((states, actions, states)), np.ones((states, actions))
    moved[:3, :2, :3], paid[:3, :2] = kernel, leader
    constant, jacobian = np.zeros((states, actions)), np.zeros((states, actions, 3))
    constant[:3, :2], jacobian[:3, :2] = follower, slopes
    if price is not None:
        moved[:3, 2, :3], constant[:3, 2], jacobian[:3, 2] = leading, price, slopes[:, 0]
    if worth is not None:
        moved[3, :, 3], moved[3, :, 0], constant[3] = 0.6, 0.4, worth
        initial = np.append(initial, 0.0)
    if sparse:
        listed = np.broadcast_to(np.arange(states), moved.shape).copy()
        moved = SparseTransition(successor=listed, probability=moved)
    return lambda theta: Tables(
        transition=moved, reward_follower=constant + anp.dot(jacobian, theta), reward_leader=paid, initial=initial
    )


def problem_of(kind, *, seed=0, leader=0.9, follower=0.99, temperature=0.05, sparse=False, unit=1.0):
    tables = tables_of(seed, *CHANGES.get(kind, (None, None)), sparse)

    def in_units(theta):
        return tables(theta).replace({"reward_follower": unit * tables(theta).reward_follower})

    return ConfigurableMDP(
        tables=in_units, discount_leader=leader, discount_follower=follower, temperature=unit * temperature
    )


def assert_same_answer(found, plain):
    """Within both bounds, which are of one size: what is irrelevant is no excuse."""
    for name, part in plain.parts.items():
        assert np.abs(found.parts[name] - part).max() <= found.error_bound + plain.error_bound, name
    assert found.error_bound <= 3.0 * plain.error_bound
    assert found.error_bound <= 1e-5 * np.abs(plain.value).max()


@pytest.mark.exact
@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("route", ROUTES)
def test_what_is_irrelevant_changes_no_route(route, kind):
    discount = 0.9 if route in ("unrolled", "forward", "complex_step") else 0.99
    plain = hypergradient(problem_of(PLAIN, follower=discount), THETA, route=route)
    assert_same_answer(hypergradient(problem_of(kind, follower=discount), THETA, route=route), plain)


@pytest.mark.exact
@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sparse", [False, True])
def test_what_is_irrelevant_changes_no_problem(seed, kind, sparse):
    settings_of = {"seed": seed, "temperature": (0.05, 0.003)[seed % 2], "follower": (0.99, 0.9)[seed % 2]}
    plain = hypergradient(problem_of(PLAIN, **settings_of), THETA)
    assert_same_answer(hypergradient(problem_of(kind, sparse=sparse, **settings_of), THETA), plain)
    cut = hypergradient(problem_of(PLAIN, **settings_of), THETA, horizon=20)
    assert_same_answer(hypergradient(problem_of(kind, sparse=sparse, **settings_of), THETA, horizon=20), cut)


@pytest.mark.exact
def test_the_old_rule_is_caught(monkeypatch):
    """Held against the largest of all states, the iteration stops early."""
    plain = hypergradient(problem_of(PLAIN, seed=4, temperature=0.01), THETA)
    monkeypatch.setattr(
        fixed_point, "state_scale", lambda backed_up, temperature: np.full(backed_up.shape, np.abs(backed_up).max())
    )
    early = hypergradient(problem_of(UNREACHED, seed=4, temperature=0.01), THETA)
    assert np.abs(early.value - plain.value).max() > 1e-3 * np.abs(plain.value).max() > 1e4 * plain.error_bound


@pytest.mark.exact
@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("method", METHODS)
def test_what_is_irrelevant_changes_no_solver(method, kind):
    plain, changed = problem_of(PLAIN), problem_of(kind)
    truth = solve_follower(plain, THETA)
    found = solve_follower(changed, THETA, method=method)
    assert found.status.succeeded
    allowed = truth.errors_without(0.0).value + found.errors_without(0.0).value[:3]
    assert (np.abs(found.value[:3] - truth.value) <= allowed).all()
    assert (allowed <= 1e-9).all()
    errors = truth.errors_without(0.0).policy + found.errors_without(0.0).policy[:3, :2]
    assert (np.abs(found.policy[:3, :2] - truth.policy) <= 1.01 * errors * truth.policy).all()
    assert (found.policy[:3, 2:] == 0.0).all()
    values, _, policies = solve_followers(changed, np.stack([THETA, THETA]))
    for value, policy in zip(values, policies, strict=True):
        assert (np.abs(value[:3] - truth.value) <= allowed).all()
        assert (np.abs(policy[:3, :2] - truth.policy) <= 1.01 * errors * truth.policy).all()


@pytest.mark.exact
@pytest.mark.parametrize("unit", [1e-11, 1e11])
@pytest.mark.parametrize("method", METHODS)
def test_money_has_no_unit(method, unit):
    """The same problem in other money: rewards and temperature scaled alike."""
    plain = solve_follower(problem_of(PLAIN), THETA, method=method)
    scaled = solve_follower(problem_of(PLAIN, unit=unit), THETA, method=method)
    assert np.abs(scaled.policy / plain.policy - 1.0).max() <= scaled.policy_error_bound + plain.policy_error_bound
    assert scaled.policy_error_bound <= 1e-8


def game_of(kind, sees, seed=0):
    rng = np.random.default_rng(seed)
    worth, price = CHANGES.get(kind, (None, None))
    kernel = rng.dirichlet(np.ones(3), (3, 2, 2))
    follower, leader = 0.05 * rng.normal(size=(3, 2, 2)), rng.normal(size=(3, 2, 2))
    states, actions = 3 + (worth is not None), 2 + (price is not None)
    moved, paid, gained = (np.zeros((states, 2, actions, *rest)) for rest in ((states,), (), ()))
    moved[:3, :, :2, :3], paid[:3, :, :2], gained[:3, :, :2] = kernel, leader, follower
    if price is not None:
        moved[:3, :, 2, 0], gained[:3, :, 2] = 1.0, price
    if worth is not None:
        moved[3, ..., 3], gained[3] = 1.0, worth
    whole = TabularSoftmaxPolicy(states=3, leader_actions=2)

    def policy(theta):
        table = whole(theta)
        return table if states == 3 else anp.concatenate([table, np.full((1, 2), 0.5)])

    return MarkovGame(
        transition=moved,
        reward_follower=gained,
        reward_leader=paid,
        initial=np.append(np.full(3, 1.0 / 3.0), np.zeros(states - 3)),
        policy=policy,
        follower_sees_leader_action=sees,
        discount_leader=0.9,
        discount_follower=0.95,
        temperature=0.05,
        theta_shape=(3,),
    )


GAME_ROUTES = (
    "implicit",
    "theorem2",
    "total_derivative",
    "reduction",
    "mixed_derivative",
    "complex_step",
    "finite_difference",
    "unrolled",
)


@pytest.mark.exact
@pytest.mark.parametrize("sees", [True, False])
@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("route", GAME_ROUTES)
def test_what_is_irrelevant_changes_no_game(route, kind, sees):
    plain = hypergradient(game_of(PLAIN, sees), THETA, route=route)
    assert_same_answer(hypergradient(game_of(kind, sees), THETA, route=route), plain)


@pytest.mark.property
@settings(max_examples=60)
@given(drawn=configurable_mdps(max_states=4), size=st.sampled_from([0.0, 1e-9, 1e-5, 1e-2, 1.0]))
def test_bounds_hold_state_by_state_from_anywhere(drawn, size):
    """Values, action values and policies near the truth and far from it, against eighty digits."""
    problem, theta = drawn.problem, drawn.theta
    truth = HighPrecision(problem, theta)
    tables = problem.tables_at(theta)
    operator = tabular_operator(
        tables, np.asarray(tables.reward_follower), problem.discount_follower, problem.temperature
    )
    around = problem.temperature * size * np.random.default_rng(0).uniform(-1.0, 1.0, tables.states)
    start = truth.value.astype(float) + around
    errors = value_errors(operator, start)
    backed_up, action_value, policy = operator.backup(start)
    for value in (start, backed_up):
        assert (np.abs(value - truth.value) <= errors.value).all()
    assert (np.abs(action_value - truth.action_value) <= errors.action_value).all()
    assert (np.abs(policy - truth.policy) <= errors.policy * truth.policy + 1e-290).all()
    # Not vacuous: a few times what is there, or of what rounding leaves.
    horizon = 1.0 / (1.0 - problem.discount_follower)
    largest = problem.temperature + np.abs(truth.value).max() + np.abs(tables.reward_follower).max()
    assert errors.value.max() <= 8.0 * horizon * (np.abs(around).max() + 64 * 2.0**-52 * float(largest))


@pytest.mark.exact
def test_a_bound_below_the_error_would_be_seen():
    problem = problem_of(PLAIN)
    truth = HighPrecision(problem, THETA)
    tables = problem.tables_at(THETA)
    operator = tabular_operator(tables, tables.reward_follower, problem.discount_follower, problem.temperature)
    start = truth.value.astype(float) + 1e-3
    assert not (np.abs(start - truth.value) <= 0.5 * value_errors(operator, start).value / 4.0).all()


@pytest.mark.exact
def test_a_follower_pickles_with_its_bounds():
    follower = solve_follower(problem_of(BOTH), THETA)
    loaded = pickle.loads(pickle.dumps(follower))
    assert loaded.error_bound == follower.error_bound
    np.testing.assert_array_equal(loaded.errors_on_demand().policy, follower.errors_on_demand().policy)


@pytest.mark.property
@settings(max_examples=40)
@given(drawn=configurable_mdps(max_states=4), horizon=st.sampled_from([None, 1, 6]))
def test_the_objective_comes_with_a_bound(drawn, horizon):
    """Against eighty digits, at every temperature and with rewards of a million; and it is near what rounding does."""
    problem, theta = drawn.problem, drawn.theta
    found = hypergradient(problem, theta, horizon=horizon)
    truth = HighPrecision(problem, theta, horizon=horizon).objective
    assert abs(found.objective - truth) <= found.objective_error_bound
    if problem.temperature >= 0.1 and problem.discount_follower <= 0.9 and problem.discount_leader <= 0.9:
        tables = problem.tables_at(theta)
        size = 1.0 + np.abs(tables.reward_leader).max() + np.abs(tables.reward_follower).max()
        assert found.objective_error_bound <= 1e-9 * size * size


@pytest.mark.exact
@pytest.mark.parametrize("kind", [PLAIN, *CHANGES])
@pytest.mark.parametrize("route", ROUTES)
def test_every_route_bounds_its_objective(route, kind):
    discount = 0.9 if route in ("unrolled", "forward", "complex_step") else 0.99
    truth = HighPrecision(problem_of(PLAIN, follower=discount), THETA).objective
    found = hypergradient(problem_of(kind, follower=discount), THETA, route=route)
    assert abs(found.objective - truth) <= found.objective_error_bound <= 1e-8
    if route == "implicit":
        assert hypergradient(problem_of(kind), THETA, bound=False).objective_error_bound == np.inf
        assert pickle.loads(pickle.dumps(found)).objective_error_bound == found.objective_error_bound


@pytest.mark.exact
@pytest.mark.parametrize("sees", [True, False])
@pytest.mark.parametrize("kind", [PLAIN, *CHANGES])
@pytest.mark.parametrize("route", GAME_ROUTES)
def test_every_route_bounds_a_games_objective(route, kind, sees):
    truth = HighPrecision(reduce_game(game_of(PLAIN, sees)), THETA).objective
    found = hypergradient(game_of(kind, sees), THETA, route=route)
    assert abs(found.objective - truth) <= found.objective_error_bound <= 1e-8


def off_by(problem, theta, change):
    """Bounds on a policy whose iterate is off by `change`, and how far it is off."""
    tables, follower = problem.tables_at(theta), solve_follower(problem, theta)
    operator = tabular_operator(tables, tables.reward_follower, problem.discount_follower, problem.temperature)
    iterate = follower.value + change
    truth = np.array(HighPrecision(problem, theta).policy, dtype=np.float64)
    return value_errors(operator, iterate).policy, np.abs(operator.backup(iterate)[2] / truth - 1.0)


@pytest.mark.parametrize("seed", range(6))
def test_what_is_common_to_all_actions_moves_no_policy(seed):
    """A constant c on V_F moved the bound by 2c/β; what counts is its residual, (1 - γ) c in every state."""
    problem = problem_of(PLAIN, seed=seed, follower=0.9999, temperature=0.5)
    bound, off = off_by(problem, THETA, 1e-4)
    assert (off <= bound).all()
    assert bound.max() <= 4.0 * (1.0 - 0.9999) * 1e-4 / 0.5  # which two actions of a chain that mixes can tell apart


@pytest.mark.parametrize("seed", range(6))
def test_what_is_not_common_moves_the_bound_with_it(seed, monkeypatch):
    problem = problem_of(PLAIN, seed=seed, follower=0.9999, temperature=0.5)
    change = 1e-4 * np.random.default_rng(seed).standard_normal(3)
    bound, off = off_by(problem, THETA, change)
    assert (off <= bound).all()
    assert bound.max() <= 50.0 * off.max()  # worst cases over the signs of a residual of three states
    monkeypatch.setattr(value_errors_module, "_apart", lambda operator, policy, *rest: np.zeros_like(policy))
    bound, off = off_by(problem, THETA, change)
    assert (off > bound).any()
