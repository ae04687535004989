"""Tables, kernels and their derivatives: two layouts, closed forms against autograd, weighted sums against loops."""

from dataclasses import replace

import autograd.numpy as anp
import numpy as np
import pytest
from agreement import by_every_route
from hypothesis import given, settings

from bilevelrl.reference import ConfigurableMDP, SparseTransition, Tables, check_derivatives
from bilevelrl.reference.tabular.transitions import DiscountedSystem, expected_next, policy_transition, to_dense
from bilevelrl.tasks import four_rooms, garnet, random_mdp
from bilevelrl.verification.testing.strategies import configurable_mdps, sparse_twin

LIKELY = {"max_states": 4, "temperatures": (1e-1, 1e1), "reward_scales": (1.0,), "reward_shifts": (0.0,)}


def with_closed_form():
    """r_F = sin θ by hand, everything else constant."""

    def tables(theta):
        return Tables(
            transition=np.full((2, 2, 2), 0.5),
            reward_follower=anp.reshape(anp.sin(theta), (2, 2)),
            reward_leader=np.ones((2, 2)),
            initial=np.array([1.0, 0.0]),
        )

    return ConfigurableMDP(
        tables=tables,
        discount_leader=0.5,
        discount_follower=0.9,
        temperature=1.0,
        theta_shape=(4,),
        tables_jacobian=lambda theta: {"reward_follower": np.diag(np.cos(theta)).reshape(2, 2, 4)},
        tables_pullback=lambda theta, cotangents: np.cos(theta) * cotangents["reward_follower"].ravel(),
    )


THETA = np.array([0.1, -0.4, 0.7, 1.1])


@pytest.mark.exact
def test_right_closed_forms_pass():
    errors = check_derivatives(with_closed_form(), THETA)
    assert set(errors) == {"jacobian of reward_follower", "pullback of reward_follower"}
    assert max(errors.values()) <= 1e-15
    assert max(check_derivatives(four_rooms(), np.linspace(-1.0, 1.0, 105)).values()) <= 1e-14
    assert check_derivatives(random_mdp(), np.zeros(3)) == {}


@pytest.mark.exact
@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("sign", {"tables_jacobian": lambda theta: {"reward_follower": -np.diag(np.cos(theta)).reshape(2, 2, 4)}}),
        ("a per mille", {"tables_pullback": lambda theta, c: 1.001 * np.cos(theta) * c["reward_follower"].ravel()}),
        (
            "one entry",
            {"tables_pullback": lambda theta, c: np.cos(theta) * c["reward_follower"].ravel() * [1, 1, 1, 0]},
        ),
        ("left out", {"tables_jacobian": lambda theta: {}}),
        ("order", {"tables_pullback": lambda theta, c: np.cos(theta) * c["reward_follower"].T.ravel()}),
    ],
)
def test_wrong_closed_forms_are_caught(name, wrong):
    errors = check_derivatives(replace(with_closed_form(), **wrong), THETA)
    assert max(errors.values()) > 1e-4, name


@pytest.mark.property
@settings(max_examples=30)
@given(drawn=configurable_mdps(**LIKELY))
def test_jacobian_is_what_differences_show(drawn):
    problem, theta, h = drawn.problem, drawn.theta, 1e-5
    jacobian = problem.jacobian(theta)
    assert set(jacobian) == set(problem.varying(theta))
    for j in range(theta.size):
        step = h * np.eye(theta.size)[j]
        ahead, behind = problem.tables(theta + step).differentiable(), problem.tables(theta - step).differentiable()
        for name, value in ahead.items():
            slope = (np.asarray(value) - np.asarray(behind[name])) / (2 * h)
            expected = jacobian[name][..., j] if name in jacobian else np.zeros(np.shape(value))
            # Third derivatives of sums of sines and softmaxes with coefficients of order one; rounding over h.
            np.testing.assert_allclose(slope, expected, atol=1e-7)


@pytest.mark.property
@settings(max_examples=30)
@given(drawn=configurable_mdps(**LIKELY))
def test_vector_jacobian_is_the_jacobian_transposed(drawn):
    jacobian = drawn.problem.jacobian(drawn.theta)
    rng = np.random.default_rng(0)
    cotangents = {name: rng.standard_normal(slopes.shape[:-1]) for name, slopes in jacobian.items()}
    expected = sum((np.tensordot(c, jacobian[name], axes=c.ndim) for name, c in cotangents.items()), 0.0)
    found = drawn.problem.vector_jacobian(drawn.theta, cotangents)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


class Batch:
    """Visited transitions, as the sampler would hand them over."""

    def __init__(self, state_t, action_t, state_tp1):
        self.state_t, self.action_t, self.state_tp1, self.leader_action_t = state_t, action_t, state_tp1, None


@pytest.mark.exact
@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_pullback_is_the_loop_over_visits(layout):
    dense = random_mdp(states=3, actions=2, parameters=3, seed=5, termination=0.25)
    problem = dense if layout == "dense" else sparse_twin(dense)
    theta = np.array([0.3, -0.2, 0.5])
    rng = np.random.default_rng(2)
    batch = Batch(*(rng.integers(top, size=(4, 5)) for top in (3, 2, 4)))  # a next state of 3 is termination
    tables, slopes = dense.tables_at(theta), dense.jacobian(theta)
    terms = ("reward_leader", "reward_follower", "log_transition", "log_initial")
    weights = {term: rng.standard_normal((4, 5)) for term in terms}

    def derivative(term, s, a, s_next):
        if term == "log_initial":
            return slopes["initial"][s] / tables.initial[s]
        if term != "log_transition":
            return slopes[term][s, a]
        if s_next == 3:
            return -slopes["transition"][s, a].sum(axis=0) / (1.0 - tables.transition[s, a].sum())
        return slopes["transition"][s, a, s_next] / tables.transition[s, a, s_next]

    expected = np.zeros((4, 3))
    for stream, step in np.ndindex(4, 5):
        visit = (batch.state_t[stream, step], batch.action_t[stream, step], batch.state_tp1[stream, step])
        for term in terms:
            expected[stream] += weights[term][stream, step] * derivative(term, *visit)
    rows = problem.pullback(theta, batch, weights, per_stream=True)
    np.testing.assert_allclose(rows, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(problem.pullback(theta, batch, weights), expected.sum(axis=0), rtol=1e-12, atol=1e-12)


@pytest.mark.exact
def test_sparse_kernels_add_successors_that_are_listed_twice():
    kernel = SparseTransition(
        successor=np.array([[[1, 1, 0]], [[0, 1, 1]]]), probability=np.array([[[0.2, 0.3, 0.4]], [[0.0, 0.5, 0.5]]])
    )
    np.testing.assert_allclose(kernel.to_dense()[:, 0], [[0.4, 0.5], [0.0, 1.0]])
    values, policy = np.array([[1.0, 2.0], [3.0, -1.0]]), np.ones((2, 1))
    np.testing.assert_allclose(expected_next(kernel, values), expected_next(kernel.to_dense(), values))
    np.testing.assert_allclose(policy_transition(kernel, policy).toarray(), policy_transition(to_dense(kernel), policy))


@pytest.mark.exact
@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_discounted_system_solves_and_knows_its_condition(layout):
    problem = garnet(seed=3)
    tables = problem.tables_at(np.zeros(problem.theta_shape))
    dense = to_dense(tables.transition)
    kernel = dense if layout == "dense" else sparse_twin(problem).tables_at(np.zeros(problem.theta_shape)).transition
    policy = np.full(dense.shape[:2], 1.0 / dense.shape[1])
    matrix = np.eye(dense.shape[0]) - 0.95 * policy_transition(dense, policy)
    system = DiscountedSystem.factorise(policy_transition(kernel, policy), 0.95)
    rhs = np.random.default_rng(0).standard_normal((dense.shape[0], 2))
    np.testing.assert_allclose(matrix @ system.solve(rhs), rhs, atol=1e-12)
    np.testing.assert_allclose(matrix.T @ system.solve_transposed(rhs), rhs, atol=1e-12)
    assert system.condition() == pytest.approx(np.linalg.cond(matrix, np.inf), rel=1e-10)


@pytest.mark.exact
def test_inputs_are_not_changed():
    problem = random_mdp(seed=8)
    theta = np.array([0.1, 0.2, 0.3])
    kept = theta.copy()
    theta.flags.writeable = False
    by_every_route(problem, theta)
    np.testing.assert_array_equal(theta, kept)
