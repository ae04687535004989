"""What must not change a hypergradient, what must scale it, and two layouts of one problem."""

from dataclasses import replace

import autograd.numpy as anp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from bilevelrl.reference import ConfigurableMDP, Tables, hypergradient, leader_objective
from bilevelrl.tasks import garnet, random_mdp
from bilevelrl.verification.testing.strategies import configurable_mdps, sparse_twin

MILD = configurable_mdps(
    max_states=4, temperatures=(1e-2, 1e1), reward_scales=(1.0,), reward_shifts=(0.0,), discounts=(0.0, 0.5, 0.9)
)
QUICK = ("implicit", "theorem1", "hpgd_form")


def changed(problem, change, **constants):
    """The same problem with its tables passed through a function."""
    return ConfigurableMDP(
        tables=lambda theta: change(problem.tables(theta)),
        discount_leader=problem.discount_leader,
        discount_follower=problem.discount_follower,
        temperature=constants.get("temperature", problem.temperature),
        theta_shape=problem.theta_shape,
    )


def assert_same_gradient(one, other, theta, *, factor=1.0, routes=QUICK, parts=True, **objective):
    for route in routes:
        left = hypergradient(one, theta, route=route, **objective)
        right = hypergradient(other, theta, route=route, **objective)
        allowed = factor * left.error_bound + right.error_bound
        assert np.abs(factor * left.value - right.value).max() <= allowed, route
        for name in left.parts if parts else ():
            scale = 1.0 if name == "regulariser" and factor != 1.0 else factor
            assert np.abs(scale * left.parts[name] - right.parts[name]).max() <= allowed, (route, name)


@pytest.mark.property
@settings(max_examples=25)
@given(drawn=MILD)
def test_states_have_no_order(drawn):
    def permuted(tables):
        order = np.random.default_rng(1).permutation(tables.states)
        return Tables(
            transition=tables.transition[order][:, :, order],
            reward_follower=tables.reward_follower[order],
            reward_leader=tables.reward_leader[order],
            initial=tables.initial[order],
            regulariser=tables.regulariser,
        )

    assert_same_gradient(drawn.problem, changed(drawn.problem, permuted), drawn.theta)
    assert_same_gradient(drawn.problem, changed(drawn.problem, permuted), drawn.theta, horizon=3)


@pytest.mark.property
@settings(max_examples=25)
@given(drawn=MILD)
def test_actions_have_no_order(drawn):
    def reversed_actions(tables):
        return Tables(
            transition=tables.transition[:, ::-1],
            reward_follower=tables.reward_follower[:, ::-1],
            reward_leader=tables.reward_leader[:, ::-1],
            initial=tables.initial,
            regulariser=tables.regulariser,
        )

    assert_same_gradient(drawn.problem, changed(drawn.problem, reversed_actions), drawn.theta)


@pytest.mark.property
@pytest.mark.parametrize("constant", [3.0, -1e6])
@settings(max_examples=20)
@given(
    drawn=configurable_mdps(
        max_states=4,
        temperatures=(1e-2, 1e1),
        reward_scales=(1.0,),
        reward_shifts=(0.0,),
        discounts=(0.0, 0.5, 0.9),
        termination=False,
    )
)
def test_constant_rewards_move_no_gradient(drawn, constant):
    """Where no episode ends, a constant moves the values alone: the leader's by c/(1 - γ_L), no gradient."""

    def there(tables):
        leader, follower = tables.reward_leader + constant, tables.reward_follower - constant
        return tables.replace({"reward_leader": leader, "reward_follower": follower})

    def and_back(tables):  # the same rounding, so that the two differ by the constant exactly
        moved = there(tables)
        return moved.replace(
            {"reward_leader": moved.reward_leader - constant, "reward_follower": moved.reward_follower + constant}
        )

    here, other = changed(drawn.problem, and_back), changed(drawn.problem, there)
    assert_same_gradient(here, other, drawn.theta, routes=(*QUICK, "unrolled", "forward"))
    before, after = (leader_objective(problem, drawn.theta) for problem in (here, other))
    gain = constant / (1 - drawn.problem.discount_leader)
    assert after - before == pytest.approx(gain, abs=1e-12 * abs(gain) + 1e-10)


@pytest.mark.property
@settings(max_examples=25)
@given(drawn=MILD)
def test_potential_shaping_of_the_follower_moves_nothing(drawn):
    """r_F + γ_F P φ - φ leaves every difference of action values, so π* and the hypergradient, as they were."""
    potential = np.linspace(-1.0, 2.0, 8)

    def shaped(tables):
        ahead = anp.dot(tables.transition, potential[: tables.states])
        here = potential[: tables.states, None]
        return tables.replace(
            {"reward_follower": tables.reward_follower + drawn.problem.discount_follower * ahead - here}
        )

    assert_same_gradient(drawn.problem, changed(drawn.problem, shaped), drawn.theta)


@pytest.mark.property
@settings(max_examples=25)
@given(drawn=MILD)
def test_units_of_reward(drawn):
    """The follower's rewards and β share a unit that cancels; the leader's unit scales the gradient."""

    def follower_in_cents(tables):
        return tables.replace({"reward_follower": 100.0 * tables.reward_follower})

    cents = changed(drawn.problem, follower_in_cents, temperature=100.0 * drawn.problem.temperature)
    assert_same_gradient(drawn.problem, cents, drawn.theta)

    def leader_in_cents(tables):
        return tables.replace(
            {"reward_leader": 100.0 * tables.reward_leader, "regulariser": 100.0 * tables.regulariser}
        )

    assert_same_gradient(drawn.problem, changed(drawn.problem, leader_in_cents), drawn.theta, factor=100.0, parts=False)


@pytest.mark.property
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=MILD)
def test_sparse_is_dense(drawn):
    sparse = sparse_twin(drawn.problem)
    routes = (*QUICK, "unrolled", "forward", "complex_step", "m_sobirl", "finite_difference")
    for horizon in (None, 3):
        assert_same_gradient(drawn.problem, sparse, drawn.theta, routes=routes, horizon=horizon)
        dense_objective = leader_objective(drawn.problem, drawn.theta, horizon=horizon)
        assert leader_objective(sparse, drawn.theta, horizon=horizon) == pytest.approx(
            dense_objective, rel=1e-12, abs=1e-12
        )


@pytest.mark.exact
def test_invariances_would_notice_a_change():
    """The comparison itself: a constant where episodes end, or a follower's unit without β, moves the gradient."""
    ending = random_mdp(seed=2, termination=0.3)
    theta = np.full(3, 0.2)
    for change in (
        lambda tables: tables.replace({"reward_leader": tables.reward_leader + 3.0}),
        lambda tables: tables.replace({"reward_follower": 2.0 * tables.reward_follower}),
    ):
        with pytest.raises(AssertionError):
            assert_same_gradient(ending, changed(ending, change), theta)


@pytest.mark.exact
def test_theta_may_have_any_shape():
    flat = garnet(parameters=4, seed=1)
    theta = np.random.default_rng(0).standard_normal(4)
    square = replace(flat, tables=lambda x: flat.tables(anp.reshape(x, (4,))), theta_shape=(2, 2))
    for route in (*QUICK, "unrolled", "forward", "complex_step", "finite_difference"):
        one, other = hypergradient(flat, theta, route=route), hypergradient(square, theta.reshape(2, 2), route=route)
        assert other.value.shape == (4,)
        assert np.abs(one.value - other.value).max() <= one.error_bound + other.error_bound
