"""What differences, complex step and trace settle together: roundings, branches, cells and small parts."""

from dataclasses import replace

import autograd.numpy as anp
import numpy as np
import pytest
from autograd.scipy.special import erf
from autograd.tracer import getval
from derivative_cases import DIFFERENTIATING, ONE, TABULAR, THETA, leaders_choice, one_state, regulator

from bilevelrl.reference import (
    ConfigurableMDP,
    Tables,
    hypergradient,
)
from bilevelrl.reference.derivatives.checks import compare
from bilevelrl.reference.derivatives.numerical import numerical_jacobian
from bilevelrl.reference.derivatives.probes import Probe
from bilevelrl.reference.errors import DerivativeError
from bilevelrl.tasks import four_rooms, random_mdp

pytestmark = pytest.mark.exact


# The check itself.


def test_problems_of_the_package_pass():
    for problem, theta in (
        (four_rooms(), np.linspace(-1.0, 1.0, 105)),
        (random_mdp(seed=3), np.array([0.1, -0.2, 0.3])),
    ):
        assert np.isfinite(hypergradient(problem, theta, bound=False).value).all()


def test_the_check_is_made_once_and_again_where_a_table_begins_to_depend_on_theta():
    calls = []

    def tables(x):
        calls.append(x)
        return anp.reshape(x, (1, 2)) if x[0] > 0.0 else np.zeros((1, 2))

    def counted(theta, problem):
        calls.clear()
        hypergradient(problem, theta, bound=False)
        return sum(np.iscomplexobj(x) for x in calls)

    problem = one_state(tables)
    assert counted(np.array([-1.0, 0.5]), problem) == 0  # a constant is seen to be one without a complex step
    assert counted(np.array([1.0, 0.5]), problem) == 1
    assert counted(np.array([2.0, 0.5]), problem) == 0
    assert counted(np.array([-2.0, 0.5]), problem) == 0
    assert counted(np.array([3.0, 0.5]), replace(problem, verify_derivatives=False)) == 0


def test_differences_settle_what_a_dropped_imaginary_part_does_not():
    theta = np.array([0.4, 0.2])
    probe = Probe(lambda x: {"y": np.real(x) ** 2}, theta, "tables")
    right = 2.0 * theta * probe.direction
    assert compare(right, probe, "y") is None
    for wrong in (np.zeros(2), -right, right * [1.0, 1.0 + 1e-4]):
        finding = compare(wrong, probe, "y")
        assert finding is not None
        assert finding.kind == "wrong"


def test_numerical_jacobians():
    theta = np.array([0.4, -0.2, 1e3])
    found = numerical_jacobian(lambda x: {"sin": np.sin(x), "abs": np.abs(x), "one": np.ones(2)}, theta, "tables")
    assert set(found) == {"sin", "abs"}
    np.testing.assert_allclose(found["sin"], np.diag(np.cos(theta)), rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(found["abs"], np.diag(np.sign(theta)), rtol=1e-9, atol=1e-9)
    with pytest.raises(DerivativeError, match="kink"):
        numerical_jacobian(lambda x: {"abs": np.abs(x)}, np.zeros(1), "tables")


@pytest.mark.parametrize("logit", [-10.0, -21.7, -40.0, -64.0, -300.0])
def test_a_probability_that_rounding_loses_beside_one_is_no_wrong_derivative(logit):
    # ∂f_1/∂x_1 = f_1 f_2 and ∂f_1/∂x_2 = -f_1 f_2, so ∂J/∂θ = 4 f_1 f_2 (-1, logit); what f's own rule rounds is 1e-16.
    exact = hypergradient(leaders_choice(logit), np.ones(2))
    small = np.exp(logit - 1.0)
    right = 4.0 * small / (1.0 + small) ** 2 * np.array([-1.0, logit])
    assert np.abs(exact.value - right).max() <= exact.error_bound + 1e-14


@pytest.mark.parametrize("logit", [-1.0, -10.0, -21.7])
def test_a_wrong_rule_beside_small_probabilities_is_still_seen(logit):
    doubled = leaders_choice(logit, lambda f, x: lambda g: f * (g - (f * g).sum()) * np.array([1.0, 1.01]))
    with pytest.raises(DerivativeError, match="policy"):
        hypergradient(doubled, np.ones(2))


def test_a_law_that_is_one_but_for_rounding_is_no_wrong_derivative():
    # w d + (1 - w) with d = 1 - 2^-53: the derivative is 1e-17, and every rule of it rounds as much.
    def tables(theta):
        weight = 1.0 / (1.0 + anp.exp(-theta[0]))
        return Tables(
            transition=weight * np.full((1, 3, 1), 1.0 - 2.0**-53) + (1.0 - weight),
            reward_follower=theta[0] * np.array([[1.0, 0.0, 0.0]]),
            reward_leader=np.array([[0.0, 1.0, 2.0]]),
            initial=np.ones(1),
        )

    problem = ConfigurableMDP(tables=tables, discount_leader=0.5, discount_follower=0.5, temperature=1.0)
    for theta in np.linspace(-2.0, 2.0, 9):
        # One state: ∂J/∂r_F = π (r_L - π·r_L) / (β (1 - γ_L)).
        policy = np.exp([theta, 0.0, 0.0]) / (np.exp(theta) + 2.0)
        right = policy[0] * (0.0 - policy @ [0.0, 1.0, 2.0]) * 2.0
        for route in ("implicit", "theorem1"):
            exact = hypergradient(problem, [theta], route=route)
            assert abs(exact.value[0] - right) <= exact.error_bound + 1e-14


def discretised(*, ends, loses=None, states=11, actions=13):
    """An autoregression on a grid after Tauchen (1986): cells of a normal law by differences of its distribution.

    With open ends the outermost cells go to infinity, else rows are divided by what is left. Beyond eight deviations a
    cell is 0 or an ulp of one. `loses` is the edge whose trace of θ is lost.
    """
    edges = np.linspace(-100.0, 100.0, states + 1)
    middle = (edges[1:] + edges[:-1]) / 2.0
    pull, spend = np.linspace(0.0, 8.0, actions), np.linspace(15.0, 0.0, actions)

    def kernel(theta):
        mean = middle[:, None] + (1.0 - theta[0]) * pull - (1.0 + theta[1]) * spend
        below = 0.5 * (1.0 + erf((edges - mean[..., None]) / 5.0 / np.sqrt(2.0)))
        if loses is not None:
            lost = (
                getval(below[..., loses : loses + 1]) if theta is not getval(theta) else below[..., loses : loses + 1]
            )
            below = anp.concatenate([below[..., :loses], lost, below[..., loses + 1 :]], axis=-1)
        if ends == "open":
            zero = np.zeros((states, actions, 1))
            below = anp.concatenate([zero, below[..., 1:-1], 1.0 + zero], axis=-1)
        moved = below[..., 1:] - below[..., :-1]
        return moved / (below[..., -1:] - below[..., :1])

    def tables(theta):
        reward = np.repeat(middle[:, None] / 100.0, actions, axis=1)
        return Tables(
            transition=kernel(theta), reward_follower=reward, reward_leader=reward, initial=np.ones(states) / states
        )

    return ConfigurableMDP(tables=tables, discount_leader=0.9, discount_follower=0.9, temperature=0.1)


@pytest.mark.parametrize("ends", ["open", "closed"])
def test_cells_of_a_normal_law_are_no_kinks(ends):
    problem, theta = discretised(ends=ends), np.array([0.3, 0.2])
    found = {r: hypergradient(problem, theta, route=r) for r in ("implicit", "theorem1", "complex_step")}
    right = hypergradient(problem, theta, route="finite_difference")
    for route in found:
        np.testing.assert_allclose(found[route].value, right.value, atol=right.error_bound + 1e-10, rtol=0.0)


@pytest.mark.parametrize("ends", ["open", "closed"])
@pytest.mark.parametrize("loses", [2, 5, 8])
def test_a_trace_lost_among_cells_of_a_normal_law_is_seen(loses, ends):
    for route in ("implicit", "theorem1"):
        with pytest.raises(DerivativeError, match="transition"):
            hypergradient(discretised(ends=ends, loses=loses), np.array([0.3, 0.2]), route=route)


@pytest.mark.parametrize("route", TABULAR)
def test_tables_that_move_by_less_than_an_ulp_are_not_taken_for_constant(route):
    # Doubles near 1e6 lie 1e-10 apart: values show nothing of the slopes 1e-9 and 1e-12, and nobody may say 0 ± 0.
    def tables(theta):
        slope = anp.reshape(theta, (1, 2))
        return Tables(
            transition=np.ones((1, 2, 1)),
            reward_follower=1e6 + 1e-12 * slope,
            reward_leader=1e6 + 1e-9 * slope,
            initial=np.ones(1),
        )

    problem = ConfigurableMDP(tables=tables, discount_leader=0.5, discount_follower=0.5, temperature=1e-9)
    exact = hypergradient(problem, THETA, route=route)
    # By hand, with the tables as the doubles they are: ∂J/∂r_L = π / (1 - γ_L), ∂J/∂r_F as at the top.
    reward, own = tables(THETA).reward_leader[0] - 1e6, tables(THETA).reward_follower[0] - 1e6
    policy = np.exp(own / 1e-9) / np.exp(own / 1e-9).sum()
    right = 2.0 * (1e-9 * policy + 1e-12 * policy * (reward - policy @ reward) / 1e-9)
    assert np.abs(exact.value - right).max() <= exact.error_bound
    assert exact.error_bound > 1e-26  # an ulp of the larger part


def untraced(x):
    """A number out of whatever it is traced or stepped in: lost for trace and complex step alike."""
    while hasattr(x, "_value"):
        x = x._value
    return float(np.real(x))


@pytest.mark.parametrize("share", [1.0, 1e-2, 1e-4])
@pytest.mark.parametrize("route", [*DIFFERENTIATING, "complex_step"])
def test_a_small_part_that_trace_and_complex_step_both_lose(share, route):
    """Only differences see it, so they must not be asked roughly."""
    problem = one_state(lambda x: anp.reshape(x, (1, 2)) + share * untraced(x[1]) * np.array([[1.0, 0.0]]))
    if route == "certified":
        pytest.importorskip("flint")
    with pytest.raises(DerivativeError, match="reward_follower"):
        hypergradient(problem, THETA, route=route)


def test_a_small_part_that_matrices_lose():
    problem = regulator(lambda theta: (theta[0] + 0.01 * untraced(theta[0])) * ONE)
    with pytest.raises(DerivativeError, match="dynamics_state"):
        hypergradient(problem, np.array([0.5]))


@pytest.mark.parametrize("begins", range(2, 16))
def test_a_cache_that_returns_what_an_earlier_trace_left(begins):
    """It keeps the tables of the last traced call for the same numbers, from so many traced calls on."""
    kept = {"calls": 0}

    def built(x):
        return anp.reshape(anp.sin(x[0]) * np.array([1.0, -0.5]) + x[1] * np.array([0.0, 1.0]), (1, 2))

    def remembers(x):
        if isinstance(x, np.ndarray):
            return built(x)
        value = x
        while hasattr(value, "_value"):
            value = value._value
        kept["calls"] += 1
        if kept["calls"] < begins or not np.array_equal(kept.get("at", ()), value):
            kept.update(at=value, table=built(x))
        return kept["table"]

    problem = one_state(remembers)
    for theta in ([1.2, 0.4], [0.3, -0.7], [1.1, 0.3]):
        for route in ("forward", "implicit", "theorem1", "unrolled"):
            exact = hypergradient(one_state(built), theta, route=route)
            try:
                found = hypergradient(problem, theta, route=route)
                bound = found.error_bound
            except DerivativeError:
                continue
            assert np.abs(found.value - exact.value).max() <= bound + exact.error_bound


def rest(x):
    return anp.log1p(anp.exp(-anp.abs(x)))


AT_A_BRANCH = {  # smooth at 0, though each piece is not, and every rule takes one piece's slope there
    "softplus, where": lambda x: anp.where(x > 0.0, x, 0.0) + rest(x),
    "softplus, where with equality": lambda x: anp.where(x >= 0.0, x, 0.0) + rest(x),
    "softplus, clip": lambda x: anp.clip(x, 0.0, np.inf) + rest(x),
    "softplus, a product": lambda x: x * (x > 0.0) + rest(x),
    "distribution of Laplace": lambda x: anp.sign(x) * (1.0 - anp.exp(-anp.abs(x))),
}


@pytest.mark.parametrize("route", [*DIFFERENTIATING, "complex_step"])
@pytest.mark.parametrize("name", AT_A_BRANCH)
def test_a_branch_at_theta_is_no_rounding(name, route):
    if route == "certified":
        pytest.importorskip("flint")
    problem = one_state(lambda x: anp.reshape(AT_A_BRANCH[name](x), (1, 2)))
    with pytest.raises(DerivativeError, match="reward_follower"):
        hypergradient(problem, np.zeros(2), route=route)


@pytest.mark.parametrize("name", AT_A_BRANCH)
def test_differences_know_what_is_smooth_at_a_branch(name):
    problem = one_state(lambda x: anp.reshape(AT_A_BRANCH[name](x), (1, 2)))
    slope = 1.0 if "Laplace" in name else 0.5
    found = hypergradient(problem, np.zeros(2), route="finite_difference")
    plain = hypergradient(one_state(lambda x: slope * anp.reshape(x, (1, 2))), np.zeros(2))
    assert np.abs(found.value - plain.value).max() <= found.error_bound + plain.error_bound < 1e-5


def test_branches_of_matrices_and_policies():
    problem = regulator(lambda x: anp.reshape(0.5 + anp.where(x > 0.0, x, 0.0) + rest(x) - np.log(2.0), (1, 1)))
    with pytest.raises(DerivativeError, match="dynamics_state"):
        hypergradient(problem, np.zeros(1))


def huber(x):
    return anp.where(anp.abs(x) < 1.0, 0.5 * x * x, anp.abs(x) - 0.5)


@pytest.mark.parametrize(
    ("function", "at"),
    [
        (huber, 1.0),
        (huber, -1.0),
        (anp.abs, 1e-9),
        (lambda x: 1.0 + anp.abs(x), 1e-9),
        (lambda x: x + anp.sign(x), 0.0),
    ],
)
def test_what_is_not_analytic_at_or_beside_theta(function, at):
    problem = one_state(lambda x: anp.reshape(anp.concatenate([function(x[:1]), x[1:]]), (1, 2)))
    with pytest.raises(DerivativeError, match="reward_follower"):
        hypergradient(problem, np.array([at, 0.3]), route="complex_step")


@pytest.mark.parametrize("route", [*DIFFERENTIATING, "complex_step"])
def test_a_jump_that_is_the_same_to_both_sides(route):
    if route == "certified":
        pytest.importorskip("flint")
    problem = one_state(lambda x: anp.reshape(x + anp.sign(x), (1, 2)))
    with pytest.raises(DerivativeError, match="reward_follower"):
        hypergradient(problem, np.array([0.0, 0.3]), route=route)


@pytest.mark.parametrize("route", ["complex_step", "finite_difference"])
def test_a_small_kink(route):
    problem = one_state(lambda x: anp.reshape(x + 0.009 * anp.abs(x), (1, 2)))
    with pytest.raises(DerivativeError, match=r"reward_follower.*does not exist"):
        hypergradient(problem, np.array([0.0, 0.3]), route=route)


@pytest.mark.parametrize("squash", [lambda c: np.clip(c, -1.0, 1.0), lambda c: c.astype(np.float16), np.tanh])
@pytest.mark.parametrize("route", ["implicit", "m_sobirl"])
def test_a_pullback_that_is_not_linear(squash, route):
    def pullback(theta, cotangents):
        return squash(10.0 * np.asarray(cotangents.get("reward_follower", np.zeros((1, 2))))).ravel() / 10.0

    problem = one_state(tables_pullback=pullback)
    with pytest.raises(DerivativeError, match="reward_follower"):
        hypergradient(problem, THETA, route=route)


@pytest.mark.parametrize("route", [*DIFFERENTIATING, "complex_step", "finite_difference"])
def test_tables_that_draw_random_numbers(route):
    if route == "certified":
        pytest.importorskip("flint")
    rng = np.random.default_rng(0)
    problem = one_state(lambda x: anp.reshape(x * (1.0 + 1e-6 * rng.standard_normal(2)), (1, 2)))
    with pytest.raises(DerivativeError, match="reward_follower"):
        hypergradient(problem, THETA, route=route)
