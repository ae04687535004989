"""Derivatives that are wrong, lost or do not exist are told by name on every kind of problem; right ones pass.

Right values: with one state, J = ρ + Σ_a π r_L / (1 - γ_L), so that by hand ∂J/∂r_F = π (r_L - π·r_L) / (β (1 - γ_L)).
"""

from dataclasses import replace

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import extend
from autograd.scipy.special import erf
from autograd.tracer import getval

from bilevelrl.reference import (
    HYPERGRADIENT_ROUTES,
    ConfigurableLQR,
    ConfigurableMDP,
    LQRMatrices,
    MarkovGame,
    SparseTransition,
    Tables,
    TabularSoftmaxPolicy,
    check_derivatives,
    hypergradient,
)
from bilevelrl.reference.derivatives.checks import compare
from bilevelrl.reference.derivatives.numerical import numerical_jacobian
from bilevelrl.reference.derivatives.probes import Probe
from bilevelrl.reference.errors import BilevelRLError, DerivativeError, IllPosedError, InvalidInputError, ShapeError
from bilevelrl.reference.lqr_game import LeaderGaussian
from bilevelrl.tasks import four_rooms, lqr_game, random_markov_game, random_mdp, toy_markov_game

pytestmark = pytest.mark.exact

THETA = np.array([0.3, -0.7])
WITHOUT_DERIVATIVES = ("complex_step", "finite_difference")
TABULAR = sorted(name for name, route in HYPERGRADIENT_ROUTES.items() if ConfigurableMDP in route.kinds)
DIFFERENTIATING = [name for name in TABULAR if name not in WITHOUT_DERIVATIVES]


def one_state(reward_follower=lambda x: anp.reshape(x, (1, 2)), regulariser=lambda x: 0.0, **options):
    """One state, two actions, γ = .9, β = 1, r_L = (0, 1)."""

    def tables(theta):
        return Tables(
            transition=np.ones((1, 2, 1)),
            reward_follower=reward_follower(theta),
            reward_leader=np.array([[0.0, 1.0]]),
            initial=np.ones(1),
            regulariser=regulariser(theta),
        )

    return ConfigurableMDP(tables=tables, discount_leader=0.9, discount_follower=0.9, temperature=1.0, **options)


def by_hand(theta, slopes=((1.0, 0.0), (0.0, 1.0))):
    """∂J/∂θ of `one_state` from ∂r_F/∂θ (actions, N), at r_F = θ."""
    chance = 1.0 / (1.0 + np.exp(theta[0] - theta[1]))
    return chance * (1.0 - chance) / 0.1 * (np.array(slopes[1]) - np.array(slopes[0]))


def plain(x):
    return np.reshape(np.asarray(x), (1, 2))


def assigned(x):
    table = np.zeros((1, 2))
    table[0, 0], table[0, 1] = x
    return table


def behind_the_trace(x):
    return np.reshape(getattr(x, "_value", x), (1, 2))


HIDDEN = {
    "np.dot": lambda x: np.dot(np.eye(2), x)[None],
    "np.asarray": plain,
    "np.array of entries": lambda x: np.array([[x[0], x[1]]]),
    "item assignment": assigned,
    "float": lambda x: np.array([[float(np.real(x[0])), float(np.real(x[1]))]]),
    "the value behind the trace": behind_the_trace,
    "one entry behind the trace": lambda x: anp.array([[x[0], behind_the_trace(x)[0, 1]]]),
}


@pytest.mark.parametrize("route", TABULAR)
@pytest.mark.parametrize("spelling", HIDDEN)
def test_a_hidden_dependence_is_never_a_constant(spelling, route):
    try:
        found = hypergradient(one_state(HIDDEN[spelling]), THETA, route=route)
    except BilevelRLError as error:
        assert route != "finite_difference"
        assert "reward_follower" in str(error) or "theta=" in str(error)  # noqa: PT017
    else:
        np.testing.assert_allclose(found.value, by_hand(THETA), atol=found.error_bound)


@pytest.mark.parametrize("route", DIFFERENTIATING)
def test_object_arrays_name_the_table(route):
    with pytest.raises(DerivativeError, match="reward_follower: an array of objects that holds traced values"):
        hypergradient(one_state(lambda x: np.dot(np.eye(2), x)[None]), THETA, route=route)


def test_a_plain_table_in_one_dimension():
    kernel = np.array([[[1.0], [0.0]]])
    problem = ConfigurableMDP(
        tables=lambda t: Tables(
            transition=np.ones((1, 2, 1)),
            reward_follower=np.dot(kernel, t),
            reward_leader=np.array([[1.0, 0.0]]),
            initial=np.ones(1),
        ),
        discount_leader=0.5,
        discount_follower=0.5,
        temperature=1.0,
    )
    for route in WITHOUT_DERIVATIVES:
        found = hypergradient(problem, np.zeros(1), route=route)
        assert abs(found.value[0] - 0.5) <= found.error_bound < 1e-9


@pytest.mark.parametrize("route", TABULAR)
def test_what_depends_on_theta_is_asked_at_every_theta(route):
    def tables(theta):
        toll = max(theta[0], 0.0)
        return Tables(
            transition=np.ones((1, 2, 1)),
            reward_follower=anp.array([[1.0 - toll, 0.5]]),
            reward_leader=np.array([[0.0, 1.0]]),
            initial=np.ones(1),
        )

    problem = ConfigurableMDP(tables=tables, discount_leader=0.5, discount_follower=0.9, temperature=1.0)
    chance = 1.0 / (1.0 + np.exp(-0.5))
    for theta, right in ((-1.0, 0.0), (1.0, 2.0 * chance * (1.0 - chance)), (-2.0, 0.0)):
        found = hypergradient(problem, np.array([theta]), route=route)
        assert abs(found.value[0] - right) <= found.error_bound


def test_a_constant_that_has_changed_is_looked_at_again():
    """The trace is lost only above zero, where the first θ is not."""
    problem = one_state(lambda x: np.zeros((1, 2)) if np.sum(behind_the_trace(x)) < 0.0 else behind_the_trace(x))
    assert not hypergradient(problem, -np.ones(2)).value.any()
    with pytest.raises(DerivativeError, match="does not depend on θ"):
        hypergradient(problem, np.ones(2))


def test_a_closure_that_has_changed_at_the_same_theta():
    scale = {"is": 0.0}
    problem = one_state(lambda x: scale["is"] * anp.reshape(x, (1, 2)) if scale["is"] else np.zeros((1, 2)))
    for route in TABULAR:
        scale["is"] = 0.0
        assert not hypergradient(problem, THETA, route=route).value.any()
        scale["is"] = 1.0
        found = hypergradient(problem, THETA, route=route)
        np.testing.assert_allclose(found.value, by_hand(THETA), atol=found.error_bound)


def test_an_output_that_is_filled_again_is_refused():
    table = np.zeros((1, 2))

    def filled(x):
        table[0] = x
        return table

    with pytest.raises(InvalidInputError, match="reward_follower is the same memory"):
        hypergradient(one_state(filled), THETA, route="finite_difference")


STACK, MIX = np.array([[[2.0, 1.0], [1.0, 3.0]], [[4.0, 1.0], [0.0, 5.0]]]), np.array([[1.0, 0.5], [0.2, 2.0]])


@pytest.mark.parametrize("route", DIFFERENTIATING)
def test_a_rule_that_fails(route):
    """The same wrong rule, followed by one that does not bear its shape."""
    problem = one_state(lambda x: anp.linalg.solve(STACK, anp.dot(MIX, x))[:1])
    with pytest.raises(DerivativeError, match="autograd's derivative of reward_follower"):
        hypergradient(problem, THETA, route=route)


@pytest.mark.parametrize("route", TABULAR)
def test_a_wrong_rule_of_the_differentiation_library(route):
    """autograd 1.9.1 differentiates solve(stack of matrices, one vector) wrongly; (.5414, .0337) by ball arithmetic."""
    problem = ConfigurableMDP(
        tables=lambda theta: Tables(
            transition=np.full((2, 2, 2), 0.5),
            reward_follower=anp.linalg.solve(STACK, MIX @ theta),
            reward_leader=np.array([[1.0, 0.0], [0.0, 2.0]]),
            initial=np.full(2, 0.5),
        ),
        discount_leader=0.9,
        discount_follower=0.8,
        temperature=0.5,
    )
    theta = np.array([0.3, 0.7])
    if route in WITHOUT_DERIVATIVES:
        assert np.abs(hypergradient(problem, theta, route=route).value - [0.5414, 0.0337]).max() < 5e-5
    else:
        with pytest.raises(DerivativeError, match=r"reward_follower.*by autograd.*by differences.*linalg\.solve"):
            hypergradient(problem, theta, route=route)
        wrong = hypergradient(replace(problem, verify_derivatives=False), theta, route=route).value
        assert np.abs(wrong - [-0.4762, 0.8930]).max() < 5e-5  # the check is what tells


NOT_DIFFERENTIABLE_BY_AUTOGRAD = {
    "norm squared": (lambda x: -(anp.linalg.norm(x) ** 2), np.zeros(2), np.zeros(2)),
    "product with a factor zero": (lambda x: anp.prod(x), np.array([0.0, 48.2]), np.array([48.2, 0.0])),
}


@pytest.mark.parametrize("route", TABULAR)
@pytest.mark.parametrize("case", NOT_DIFFERENTIABLE_BY_AUTOGRAD)
def test_a_derivative_that_only_autograd_does_not_have(case, route):
    function, theta, slope = NOT_DIFFERENTIABLE_BY_AUTOGRAD[case]
    problem = one_state(lambda x: anp.reshape(0.01 * x, (1, 2)), function)
    right = by_hand(0.01 * theta, ((0.01, 0.0), (0.0, 0.01))) + slope
    if route in WITHOUT_DERIVATIVES:
        found = hypergradient(problem, theta, route=route)
        np.testing.assert_allclose(found.value, right, atol=max(found.error_bound, 1e-14))
    else:
        with pytest.raises(DerivativeError, match=r"regulariser.*nan by autograd.*autograd's rule"):
            hypergradient(problem, theta, route=route)


def test_the_norm_squared_beside_rewards_of_one():
    problem = one_state(regulariser=lambda x: -(anp.linalg.norm(x) ** 2))
    found = hypergradient(problem, np.zeros(2), route="finite_difference")
    np.testing.assert_allclose(found.value, [-2.5, 2.5], atol=found.error_bound)


KINKS = {
    "norm": (lambda x: -anp.linalg.norm(x), np.zeros(2)),
    "clip": (lambda x: anp.sum(anp.clip(x, 0.0, 1.0)), np.array([1.0, 0.5])),
    "maximum": (lambda x: anp.sum(anp.maximum(x, 0.0)), np.array([0.0, 0.5])),
    "max of two": (anp.max, np.array([0.5, 0.5])),
    "if": (lambda x: x[0] if x[0] > 0.0 else 0.0, np.array([0.0, 1.0])),
    "abs": (lambda x: anp.abs(x[0]) * 1e-9, np.array([0.0, 1.0])),
    "far from zero": (lambda x: anp.abs(x[0] - 1e4) + 1e3, np.array([1e4, 1.0])),
    "infinite slope": (lambda x: anp.sum(anp.where(x > 0.0, anp.sqrt(x), 0.0)), np.array([0.0, 3.0])),
    "jump": (
        lambda x: anp.sum(x) + float(np.real(x[0] if isinstance(x, np.ndarray) else x._value[0]) > 0.0),
        THETA * [0, 1],
    ),
}


@pytest.mark.parametrize("route", TABULAR)
@pytest.mark.parametrize("name", KINKS)
def test_a_kink_is_called_a_kink(name, route):
    function, theta = KINKS[name]
    with pytest.raises(DerivativeError, match=r"regulariser.*kink"):
        hypergradient(one_state(regulariser=function), theta, route=route)


@pytest.mark.parametrize("route", TABULAR)
def test_the_edge_of_where_a_function_is_defined(route):
    problem = one_state(regulariser=lambda x: anp.sum(anp.sqrt(x)))
    with pytest.raises((DerivativeError, IllPosedError), match="edge"):
        hypergradient(problem, np.array([0.0, 1.0]), route=route)


SMOOTH = {
    "beside a kink": (lambda x: anp.sum(anp.abs(x - 1e-6)), np.array([0.0, 1.0]), [-1.0, 1.0]),
    "a slope of zero": (lambda x: anp.sum(x**2) + anp.cos(x[0]), np.zeros(2), [0.0, 0.0]),
    "three halves": (lambda x: anp.sum(anp.where(x > 0.0, x, 0.0) ** 2), np.zeros(2), [0.0, 0.0]),
    "steep": (lambda x: anp.sin(1e6 * x[0]), np.array([0.1, 0.0]), [1e6 * np.cos(1e5), 0.0]),
    "small": (lambda x: 1e-12 * anp.sin(x[0]), np.array([0.1, 0.0]), [1e-12 * np.cos(0.1), 0.0]),
    "beside a large constant": (lambda x: 1e9 + 1e-6 * x[1], np.array([0.1, 0.0]), [0.0, 1e-6]),
    "far away": (lambda x: 1e-8 * x[0] ** 2, np.array([1e8, 0.0]), [2.0, 0.0]),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_what_is_smooth_passes(name):
    function, theta, slope = SMOOTH[name]
    problem = one_state(lambda x: np.zeros((1, 2)), function)
    np.testing.assert_allclose(hypergradient(problem, theta).value, slope, rtol=1e-14)


WRONG = {
    "sign": -1.0,
    "a per mille": 1.001,
    "in single precision": float(np.float32(1.0 + 1e-7)),
}


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e6])
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_closed_forms_of_tables_are_caught_in_any_units(wrong, scale):
    factor = WRONG[wrong]
    right = one_state(lambda x: scale * plain(x))
    slopes = {"reward_follower": scale * np.eye(2).reshape(1, 2, 2)}
    hypergradient(replace(right, tables_jacobian=lambda _: slopes), THETA)
    hypergradient(replace(right, tables_pullback=lambda _, c: scale * c["reward_follower"].ravel()), THETA)
    for given in (
        {"tables_jacobian": lambda _: {"reward_follower": factor * slopes["reward_follower"]}},
        {"tables_pullback": lambda _, c: factor * scale * c["reward_follower"].ravel()},
    ):
        problem = replace(right, **given)
        with pytest.raises(DerivativeError, match=r"reward_follower.*closed form"):
            hypergradient(problem, THETA)
        assert max(check_derivatives(problem, THETA).values()) >= 0.5 * abs(factor - 1.0)


def test_what_a_closed_form_leaves_out_is_caught():
    problem = one_state(lambda x: plain(x), lambda x: float(np.sum(np.asarray(x).real)))
    slopes = {"reward_follower": np.eye(2).reshape(1, 2, 2)}
    with pytest.raises(DerivativeError, match=r"regulariser.*does not depend"):
        hypergradient(replace(problem, tables_jacobian=lambda _: slopes), THETA)
    with pytest.raises(ShapeError, match=r"tables_jacobian\(theta\)\['reward_follower'\]\.shape"):
        hypergradient(replace(problem, tables_jacobian=lambda _: {"reward_follower": np.eye(2)}), THETA)
    with pytest.raises(InvalidInputError, match="rewards"):
        hypergradient(replace(problem, tables_jacobian=lambda _: {"rewards": np.eye(2)}), THETA)


@pytest.mark.parametrize("route", [name for name in TABULAR if name != "unrolled"])
@pytest.mark.parametrize("given", ["jacobian", "pullback", "both"])
def test_closed_forms_beside_plain_numpy_serve_every_route(given, route):
    forms = {
        "tables_jacobian": lambda _: {"reward_follower": np.eye(2).reshape(1, 2, 2)},
        "tables_pullback": lambda _, cotangents: cotangents["reward_follower"].ravel(),
    }
    problem = one_state(plain, **{name: form for name, form in forms.items() if given in name or given == "both"})
    found = hypergradient(problem, THETA, route=route)
    np.testing.assert_allclose(found.value, by_hand(THETA), atol=found.error_bound)
    assert max(check_derivatives(problem, THETA).values()) < 1e-12


@pytest.mark.parametrize("route", TABULAR)
def test_lists_are_tables(route):
    problem = ConfigurableMDP(
        tables=lambda x: Tables(
            transition=[[[1], [1]]], reward_follower=[[x[0], x[1]]], reward_leader=[[0, 1]], initial=[1.0]
        ),
        discount_leader=0.9,
        discount_follower=0.9,
        temperature=1.0,
    )
    found = hypergradient(problem, THETA, route=route)
    np.testing.assert_allclose(found.value, by_hand(THETA), atol=found.error_bound)


class Foreign:
    """An array of another library."""

    def __init__(self, array, error=None):
        self.array, self.error = array, error

    def __array__(self, dtype=None, copy=None):
        if self.error is not None:
            raise self.error
        return np.asarray(self.array, dtype=dtype)


def test_arrays_of_other_libraries():
    kernel = Foreign(np.ones((1, 2, 1)))
    tables = Tables(
        transition=kernel, reward_follower=np.zeros((1, 2)), reward_leader=np.zeros((1, 2)), initial=Foreign(np.ones(1))
    )
    assert tables.transition.dtype == np.float64
    with pytest.raises(ShapeError, match=r"transition\.dtype='float32 of Foreign'"):
        replace(tables, transition=Foreign(np.ones((1, 2, 1), dtype=np.float32)))
    refuses = Foreign(None, RuntimeError("can't call numpy() on a tensor that requires grad"))
    with pytest.raises(ShapeError, match=r"reward_leader=Foreign.*requires grad.*tables_pullback"):
        replace(tables, reward_leader=refuses)
    with pytest.raises(ShapeError, match=r"successor.dtype='float64'"):
        SparseTransition(successor=np.zeros((1, 2, 1)), probability=np.ones((1, 2, 1)))
    assert SparseTransition(successor=[[[0], [0]]], probability=[[[1], [1]]]).shape == (1, 2, 1)


@pytest.mark.parametrize("route", TABULAR)
def test_what_a_function_raises_is_told_with_theta(route):
    def raises(_):
        raise KeyError("price")

    with pytest.raises(
        InvalidInputError, match=r"tables\(theta\) raised KeyError: 'price'.*theta=\[ 0.3 -0.7\]"
    ) as told:
        hypergradient(one_state(raises), THETA, route=route)
    assert isinstance(told.value.__cause__, KeyError)


def test_a_function_that_keeps_traced_values():
    kept = {}

    def keeps(x):
        return anp.reshape(x if isinstance(x, np.ndarray) else kept.setdefault("x", x), (1, 2))

    hypergradient(one_state(keeps), THETA, bound=False)
    for route in ("implicit", "unrolled"):
        with pytest.raises(DerivativeError, match="earlier call"):
            hypergradient(one_state(keeps), THETA, route=route)
        kept.clear()


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
ONE = np.eye(1)


def regulator(drift=lambda x: anp.reshape(x, (1, 1)), regulariser=lambda x: 0.0, **options):
    def matrices(theta):
        return LQRMatrices(
            dynamics_state=drift(theta), dynamics_action=ONE, noise_covariance=0.1 * ONE, cost_state_follower=ONE,
            cost_action_follower=ONE, cost_state_leader=ONE, cost_action_leader=0.5 * ONE, initial_mean=np.ones(1),
            initial_covariance=0.0 * ONE, regulariser=regulariser(theta),
        )  # fmt: skip

    return ConfigurableLQR(matrices=matrices, discount_leader=0.5, discount_follower=0.9, temperature=0.1, **options)


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


def leaders_choice(logits, derivative=None):
    """One state, two actions of the leader, one of the follower: J = 2 Σ_l f_l r_l at γ_L = .5."""
    value = extend.primitive(lambda x: np.exp(x) / np.exp(x).sum())
    extend.defvjp(value, derivative or (lambda f, x: lambda g: f * (g - (f * g).sum())))
    return MarkovGame(
        transition=np.ones((1, 2, 1, 1)),
        reward_follower=np.zeros((1, 2, 1)),
        reward_leader=np.array([[[1.0], [3.0]]]),
        initial=np.ones(1),
        policy=lambda theta: anp.reshape(value(theta * np.array([1.0, logits])), (1, 2)),
        follower_sees_leader_action=True,
        discount_leader=0.5,
        discount_follower=0.5,
        temperature=1.0,
    )


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


SLOPES = np.array([[1e12, 0.0], [3.0, 1e-3], [0.0, 0.7]])  # of three rewards in two parameters


def steep(factor=1.0, entry=(0, 0), given="pullback"):
    """One state whose three rewards have slopes of very different sizes, and a closed form off in one of them."""
    claimed = SLOPES.copy()
    claimed[entry] *= factor
    closed = {
        "pullback": {"tables_pullback": lambda theta, cotangents: np.ravel(cotangents["reward_follower"]) @ claimed},
        "jacobian": {"tables_jacobian": lambda theta: {"reward_follower": claimed[None]}},
    }[given]

    def tables(theta):
        return Tables(
            transition=np.ones((1, 3, 1)),
            reward_follower=anp.reshape(anp.dot(SLOPES, theta), (1, 3)),
            reward_leader=np.array([[0.0, 1.0, 2.0]]),
            initial=np.ones(1),
        )

    return ConfigurableMDP(tables=tables, discount_leader=0.9, discount_follower=0.9, temperature=1.0, **closed)


@pytest.mark.parametrize("given", ["pullback", "jacobian"])
@pytest.mark.parametrize("entry", [(0, 0), (1, 0), (1, 1), (2, 1)])
def test_small_slopes_beside_large_ones_are_checked_on_their_own(entry, given):
    theta = np.array([1e-12, -0.4])
    right = hypergradient(steep(), theta)
    np.testing.assert_allclose(right.value, hypergradient(steep(given="jacobian"), theta).value, rtol=1e-12)
    for factor in (0.5, 0.0):
        with pytest.raises(DerivativeError, match="reward_follower"):
            hypergradient(steep(factor, entry, given), theta)


def two_tables(pullback):
    """A kernel and rewards of one state that depend on θ, with a pullback of one's own."""

    def tables(theta):
        chance = 0.5 + 0.1 * theta[1]
        return Tables(
            transition=anp.array([[[chance, 1.0 - chance], [0.3, 0.7]], [[0.5, 0.5], [0.2, 0.8]]]),
            reward_follower=anp.array([[0.0, theta[0]], [0.5, 0.0]]),
            reward_leader=np.array([[1.0, 0.0], [0.0, 2.0]]),
            initial=np.array([1.0, 0.0]),
        )

    return ConfigurableMDP(
        tables=tables, discount_leader=0.9, discount_follower=0.8, temperature=0.4, tables_pullback=pullback
    )


def of_reward(cotangents):
    return np.array([cotangents["reward_follower"][0, 1], 0.0])


def of_kernel(cotangents):
    return np.array([0.0, 0.1 * (cotangents["transition"][0, 0, 0] - cotangents["transition"][0, 0, 1])])


def added(theta, cotangents):
    found = np.zeros(2)
    if "reward_follower" in cotangents:
        found += of_reward(cotangents)
    if "transition" in cotangents:
        found += of_kernel(cotangents)
    return found


def one_or_the_other(theta, cotangents):
    return of_reward(cotangents) if "reward_follower" in cotangents else of_kernel(cotangents)


def the_last(theta, cotangents):
    found = np.zeros(2)
    if "reward_follower" in cotangents:
        found = of_reward(cotangents)
    if "transition" in cotangents:
        found = of_kernel(cotangents)
    return found


class Filled:
    """A pullback that fills one array of its own again and again."""

    def __init__(self):
        self.kept = np.zeros(2)

    def __call__(self, theta, cotangents):
        self.kept[...] = added(theta, cotangents)
        return self.kept


@pytest.mark.parametrize("route", DIFFERENTIATING)
def test_pullbacks_of_several_tables_at_once(route):
    traced = hypergradient(two_tables(None), THETA, route=route)
    for right in (added, Filled()):
        found = hypergradient(two_tables(right), THETA, route=route)
        for part, value in found.parts.items():
            np.testing.assert_allclose(value, traced.parts[part], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("wrong", [one_or_the_other, the_last])
def test_pullbacks_that_do_not_add_up_are_refused(wrong):
    with pytest.raises(DerivativeError, match="reward_follower, transition together"):
        hypergradient(two_tables(wrong), THETA)


def test_errors_that_cancel_in_one_weighted_sum():
    """Where trace and complex step lose a part of 1e-4, only sums of differences tell, and one sum in 28 does not."""
    accepted = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        seen, lost, theta = rng.normal(size=(2, 3, 2)), rng.normal(size=(2, 3, 2)), rng.normal(size=2)

        def rewards(x, seen=seen, lost=lost):
            plain = x
            while hasattr(plain, "_value"):
                plain = plain._value
            hidden = np.real(np.asarray(plain))
            return anp.tensordot(x, seen, axes=1) + 1e-4 * anp.tensordot(hidden, lost, axes=1)

        problem = ConfigurableMDP(
            tables=lambda x, rewards=rewards: Tables(
                transition=np.full((3, 2, 3), 1 / 3),
                reward_follower=rewards(x),
                reward_leader=np.eye(3, 2),
                initial=np.eye(3)[0],
            ),
            discount_leader=0.9,
            discount_follower=0.8,
            temperature=0.4,
        )
        try:
            problem.pullback_at(theta)
        except DerivativeError:
            continue
        accepted += 1
    assert accepted == 0


@pytest.mark.parametrize("scale", [60.0, 200.0])
def test_the_slope_of_a_probability_next_to_one_is_known_to_rounding_only(scale):
    """24 (1 - p) at p = 1 - 1e-9, from numbers of the size 24."""
    problem = random_markov_game(seed=1, states=2, leader_actions=2, actions=2, follower_sees_leader_action=False)
    for seed in range(30):
        theta = scale * np.random.default_rng(seed).normal(size=problem.theta_shape)
        problem.jacobian(theta)
        problem.pullback_at(theta)


@pytest.mark.parametrize("factor", [1.0, 1.001])
def test_closed_forms_of_probabilities_next_to_one(factor):
    def tables(theta):
        chance = 1.0 / (1.0 + anp.exp(-theta[0]))
        return Tables(
            transition=np.full((2, 2, 2), 0.5),
            reward_follower=np.eye(2),
            reward_leader=np.eye(2),
            initial=anp.stack([chance, 1.0 - chance]),
        )

    def jacobian(theta):
        chance = 1.0 / (1.0 + np.exp(-theta[0]))
        slope = factor * chance * (1.0 - chance)
        return {"initial": np.array([[slope], [-slope]])}

    problem = ConfigurableMDP(
        tables=tables, discount_leader=0.9, discount_follower=0.9, temperature=1.0, tables_jacobian=jacobian
    )
    for logit in (14.0, 19.0, 23.0):
        if factor == 1.0:
            problem.jacobian(np.array([logit]))
        else:
            with pytest.raises(DerivativeError, match="initial"):
                problem.jacobian(np.array([logit]))


def stacked(factor=1.0, slope=1.0):
    """Rewards and their pullback at many θ in closed forms, off by a factor or in a slope."""
    rng = np.random.default_rng(0)
    follower, leader, weights = rng.normal(size=(3, 2)), rng.normal(size=(3, 2)), rng.normal(size=(3, 2, 2))

    def pulled(thetas, cotangents):
        return factor * np.einsum("rsa,san->rn", cotangents["reward_follower"], weights)

    return ConfigurableMDP(
        tables=lambda theta: Tables(
            transition=np.full((3, 2, 3), 1 / 3),
            reward_follower=follower + anp.dot(weights, theta),
            reward_leader=leader,
            initial=np.eye(3)[0],
        ),
        discount_leader=0.9,
        discount_follower=0.8,
        temperature=0.4,
        theta_shape=(2,),
        stacked_rewards=lambda thetas: (
            follower + slope * np.einsum("san,rn->rsa", weights, thetas),
            np.broadcast_to(leader, (len(thetas), 3, 2)),
        ),
        stacked_pullback=pulled,
    )


def test_stacked_forms_are_held_to_the_tables():
    rng = np.random.default_rng(1)
    thetas, cotangents = rng.normal(size=(4, 2)), {"reward_follower": rng.normal(size=(4, 3, 2))}
    right = stacked()
    plain = replace(right, stacked_rewards=None, stacked_pullback=None)
    np.testing.assert_allclose(right.vector_jacobians(thetas, cotangents), plain.vector_jacobians(thetas, cotangents))
    with pytest.raises(DerivativeError, match="stacked_pullback"):
        stacked(factor=1.1).vector_jacobians(thetas, cotangents)
    with pytest.raises(DerivativeError, match="stacked_rewards of the follower"):
        stacked(slope=1.1).rewards(thetas)
    unchecked = replace(stacked(factor=1.1), verify_derivatives=False)
    assert unchecked.vector_jacobians(thetas, cotangents).shape == (4, 2)
