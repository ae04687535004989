"""No answer of a linear-quadratic problem, and no refusal, depends on the units of money and of controls."""

from dataclasses import replace

import autograd.numpy as anp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bilevelrl.reference import ConfigurableLQR, LQRMatrices, hypergradient, leader_objective, solve_follower
from bilevelrl.reference.errors import IllPosedError, InvalidInputError, NotConvergedError
from bilevelrl.reference.lqr.matrices import check_covariance
from bilevelrl.reference.lqr.solvers import solve_riccati
from bilevelrl.tasks import random_lqr, random_lqr_game

ONE = np.eye(1)
MONEY = ("cost_state_follower", "cost_action_follower", "cost_state_leader", "cost_action_leader",
         "cost_constant_leader", "regulariser")  # fmt: skip
CONTROLS = ("cost_action_follower", "cost_action_leader")
ROUTES = ("implicit", "mixed_derivative", "closed_form", "unrolled")
POWERS = st.integers(-100, 100).map(lambda k: 2.0**k)  # 1e-30 .. 1e30
ROUNDING = 1e-12  # routes of these problems prove 1e-13 of a gradient of size 1


def in_other_units(problem, money=1.0, control=1.0):
    """The same problem with costs and β times `money`, and actions measured in units of `control`."""

    def matrices(theta):
        found = problem.matrices(theta).differentiable()
        found["dynamics_action"] = found["dynamics_action"] * control
        for name in CONTROLS:
            found[name] = found[name] * control**2
        for name in MONEY:
            found[name] = found[name] * money
        return LQRMatrices(**found)

    return replace(problem, matrices=matrices, temperature=problem.temperature * money)


def regulator(q=1.0, r=1.0, b=1.0):
    """One state and one action; θ is A."""
    fixed = LQRMatrices(
        dynamics_state=ONE, dynamics_action=b * ONE, noise_covariance=0.1 * ONE,
        cost_state_follower=q * ONE, cost_action_follower=r * ONE, cost_state_leader=ONE,
        cost_action_leader=0.0 * ONE, initial_mean=np.ones(1), initial_covariance=0.0 * ONE)  # fmt: skip
    return ConfigurableLQR(
        matrices=lambda theta: fixed.replace({"dynamics_state": anp.reshape(theta, (1, 1))}),
        discount_leader=0.5,
        discount_follower=0.9,
        temperature=0.1,
    )


def unstable(seed):
    """Modes outside the unit circle: without the control there is no value."""
    return random_lqr(seed=seed, radius=1.3, discount_leader=0.5)


@settings(deadline=None, max_examples=8)
@given(money=POWERS, control=POWERS, seed=st.integers(0, 5), route=st.sampled_from(ROUTES))
def test_scaling_money_and_controls_scales_the_answer(money, control, seed, route):
    problem, theta = unstable(seed), np.array([0.3, -0.2, 0.1])
    before = hypergradient(problem, theta, route=route)
    after = hypergradient(in_other_units(problem, money, control), theta, route=route)
    size = np.abs(before.value).max()
    np.testing.assert_allclose(after.value / money, before.value, rtol=0, atol=ROUNDING * size)
    assert abs(after.objective / money - before.objective) <= ROUNDING * (1.0 + abs(before.objective))
    assert after.error_bound / money == pytest.approx(before.error_bound, rel=0.1)


@pytest.mark.parametrize("money", [1e-30, 1e-11, 1e30])
@pytest.mark.parametrize("route", ["finite_difference", "certified"])
def test_slow_routes_have_no_units_either(money, route):
    if route == "certified":
        pytest.importorskip("flint")
    problem, theta = unstable(0), np.array([0.3, -0.2, 0.1])
    before = hypergradient(problem, theta, route=route)
    after = hypergradient(in_other_units(problem, money, 1.0 / money), theta, route=route)
    allowed = before.error_bound + after.error_bound / money + ROUNDING * np.abs(before.value).max()
    assert allowed < 1e-6
    np.testing.assert_allclose(after.value / money, before.value, rtol=0, atol=allowed)


def test_powers_of_two_change_no_digit_with_one_action():
    problem = random_lqr(seed=1, actions=1, radius=1.3, discount_leader=0.5)
    theta = np.array([0.3, -0.2, 0.1])
    before = hypergradient(problem, theta, bound=False)
    for money, control in ((2.0**-100, 1.0), (2.0**100, 1.0), (1.0, 2.0**-100), (4.0**37, 2.0**90)):
        after = hypergradient(in_other_units(problem, money, control), theta, bound=False)
        np.testing.assert_array_equal(after.value / money, before.value)
        assert after.objective / money == pytest.approx(before.objective, rel=1e-15)


def test_a_games_follower_has_no_units():
    game, theta = random_lqr_game(seed=2), np.array([0.3, -0.2, 0.1])
    before = hypergradient(game, theta)
    for money, control in ((1e-30, 1.0), (1e30, 1e-30), (1e-11, 1e20)):
        moved = replace(
            game,
            dynamics_action=game.dynamics_action * control,
            cost_state=game.cost_state * money,
            cost_action=game.cost_action * money * control**2,
            temperature=game.temperature * money,
        )
        after = hypergradient(moved, theta)
        np.testing.assert_allclose(after.value, before.value, rtol=0, atol=before.error_bound + after.error_bound)
        assert after.error_bound < 1e-10


# --- seen: a refusal of the same problem in other money ------------------------------------------------------------


def by_hand(a, q=1.0, b=1.0, r=1.0, discount=0.9):
    """K of one state from the quadratic equation of P, with the slope dK/da by implicit differentiation."""
    # P = q + γ a² P R / (r + γ b² P)  <=>  γ b² P² + (r - q γ b² - γ a² r) P - q r = 0
    square, linear = discount * b**2, r - q * discount * b**2 - discount * a**2 * r
    p = (-linear + np.sqrt(linear**2 + 4.0 * square * q * r)) / (2.0 * square)
    return discount * b * p * a / (r + discount * b**2 * p)


@pytest.mark.parametrize(("q", "r", "b"), [(1.0, 1.0, 1.0), (1e-11, 1e-11, 1.0), (1.0, 1e-22, 1e-11),
                                           (1e30, 1e30, 1.0), (1e-40, 1e-40, 1.0), (1.0, 1e-300, 1.0)])  # fmt: skip
def test_gain_by_hand_in_any_money(q, r, b):
    for a in (0.4, 1.2, -2.0):
        gain = solve_follower(regulator(q, r, b), np.array([a])).gain
        ratio = r / q / b**2  # in units in which b and q are one
        assert gain[0, 0] * b == pytest.approx(by_hand(a, r=ratio), rel=1e-13)


def test_a_mode_that_no_unit_can_reach_is_refused_in_any_unit():
    a, b = np.diag([1.5, 0.5]), np.array([[0.0], [1.0]])
    for size in (1e-30, 1e-11, 1.0, 1e30):
        with pytest.raises(IllPosedError, match="stabilised"):
            solve_riccati(a, size * b, np.eye(2), size**2 * np.eye(1), 0.9)
        with pytest.raises(IllPosedError, match="detected"):
            solve_riccati(a, np.eye(2), size * np.diag([0.0, 1.0]), size * np.eye(2), 0.9)


@pytest.mark.parametrize("method", ["doubling", "scipy"])
def test_no_solution_is_no_answer(method):
    """P = P - .1 - P²/(1 + P) has no real solution."""
    with pytest.raises(NotConvergedError, match="expected"):
        solve_riccati(ONE, ONE, -0.1 * ONE, ONE, 1.0, method=method)


@pytest.mark.parametrize("method", ["doubling", "scipy", "sweeps"])
@pytest.mark.parametrize("r", [1e-16, 1e-20, 1e-300])
def test_two_actions_with_one_effect_need_a_cost_each(method, r):
    with pytest.raises(IllPosedError, match="S = R"):
        solve_riccati(ONE, np.ones((1, 2)), ONE, r * np.eye(2), 0.9, method=method)
    shared = solve_riccati(ONE, np.ones((1, 2)), ONE, 1e-6 * np.eye(2), 0.9, method=method).gain
    assert shared.sum() == pytest.approx(by_hand(1.0, r=0.5e-6), rel=1e-9)
    np.testing.assert_allclose(shared[0], shared[1], rtol=1e-9)


def test_definiteness_has_no_units():
    correlated = np.array([[1.0, 0.5], [0.5, 1.0]])
    for unit in (1e-20, 1e-11, 1.0, 1e20):
        units = np.diag([1.0, unit])
        check_covariance("cost", units @ correlated @ units, definite=True)
        with pytest.raises(InvalidInputError, match="positive"):
            check_covariance("cost", units @ np.ones((2, 2)) @ units, definite=True)


def test_objective_of_a_control_in_other_units():
    """The second action in units of 1e-11: R = diag(1, 1e-22), seen as not definite before."""
    problem, theta = unstable(2), np.array([0.1, 0.2, 0.3])
    units = np.array([1.0, 1e-11])

    def matrices(at):
        found = problem.matrices(at).differentiable()
        found["dynamics_action"] = found["dynamics_action"] * units
        for name in CONTROLS:
            found[name] = found[name] * units * units[:, None]
        return LQRMatrices(**found)

    assert leader_objective(replace(problem, matrices=matrices), theta) == pytest.approx(
        leader_objective(problem, theta), rel=1e-12
    )
