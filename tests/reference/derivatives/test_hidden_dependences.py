"""Dependences on θ that a trace does not show: asked for at every θ, and refused where a derivative is lost."""

from dataclasses import replace

import autograd.numpy as anp
import numpy as np
import pytest
from derivative_cases import DIFFERENTIATING, TABULAR, THETA, WITHOUT_DERIVATIVES, by_hand, one_state, plain

from bilevelrl.reference import (
    ConfigurableMDP,
    Tables,
    hypergradient,
)
from bilevelrl.reference.errors import BilevelRLError, DerivativeError, InvalidInputError

pytestmark = pytest.mark.exact


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


def started(shift):
    """Two states whose first law is a softmax of θ, written without care for where its logits are."""

    def tables(theta):
        shares = anp.exp(theta + shift)
        return Tables(
            transition=np.full((2, 2, 2), 0.5),
            reward_follower=np.eye(2),
            reward_leader=np.array([[1.0, 0.0], [0.0, 3.0]]),
            initial=shares / anp.sum(shares),
        )

    return ConfigurableMDP(tables=tables, discount_leader=0.9, discount_follower=0.8, temperature=0.5)


@pytest.mark.parametrize("shift", [-370.0, -371.9, -380.0])
def test_a_quotient_of_small_numbers_whose_derivative_underflows(shift):
    """autograd 1.9.1 squares the denominator: 30 % off at -371.9, where the value is right to the last digit."""
    theta = np.array([0.0, -1.0])
    with pytest.raises(DerivativeError, match="initial"):
        hypergradient(started(shift), theta)
    right = hypergradient(started(0.0), theta)
    found = hypergradient(started(shift), theta, route="finite_difference")
    np.testing.assert_allclose(found.value, right.value, rtol=0.0, atol=found.error_bound)
    assert np.abs(right.value).min() > 0.1


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
