"""The factorised system I - γ P_π: both layouts, both directions, shared between the players."""

from dataclasses import replace

import numpy as np
import pytest

from bilevelrl.reference import ConfigurableMDP, SparseTransition, Tables, hypergradient, named_stream
from bilevelrl.reference.errors import IllPosedError, InvalidInputError, StochasticityError
from bilevelrl.reference.tabular.transitions import DiscountedSystem, policy_transition
from bilevelrl.tasks import random_mdp

pytestmark = pytest.mark.exact
EPS = np.finfo(np.float64).eps


def chains():
    """A chain with termination, far from symmetric, dense and sparse; successors are listed out of order and twice."""
    rng = named_stream(0, "discounted system")
    states, actions, branching = 9, 3, 5
    successor = rng.integers(0, states, (states, actions, branching))
    successor[:, :, 1] = successor[:, :, 3]
    probability = 0.95 * rng.dirichlet(np.ones(branching), (states, actions))
    kernel = SparseTransition(successor=successor, probability=probability)
    return kernel, rng.dirichlet(np.ones(actions), states)


@pytest.mark.parametrize("layout", ["dense", "sparse"])
@pytest.mark.parametrize("shape", [(9,), (9, 4)])
def test_solves_are_those_of_the_matrix(layout, shape):
    kernel, policy = chains()
    dense = np.einsum("sa,sat->st", policy, kernel.to_dense())
    system = DiscountedSystem.factorise(
        policy_transition(kernel if layout == "sparse" else kernel.to_dense(), policy), 0.9
    )
    matrix = np.eye(9) - 0.9 * dense
    right = named_stream(1, "right-hand side").standard_normal(shape)
    # LU of a row diagonally dominant matrix is backward stable: a few n ε times the condition number.
    allowed = 9 * 8 * EPS * np.linalg.cond(matrix, np.inf) * np.abs(right).max()
    forward, backward = np.linalg.solve(matrix, right), np.linalg.solve(matrix.T, right)
    assert np.abs(system.solve(right) - forward).max() <= allowed
    assert np.abs(system.solve_transposed(right) - backward).max() <= 9 * allowed
    assert np.abs(forward - backward).max() > 1e6 * allowed  # a mistaken transpose would show
    assert system.condition() == pytest.approx(np.linalg.cond(matrix, np.inf), rel=1e-12)


def test_mixing_leaves_the_kernel_as_it_is():
    kernel, policy = chains()
    before = kernel.successor.copy()
    mixed = policy_transition(kernel, policy)
    np.testing.assert_array_equal(kernel.successor, before)
    np.testing.assert_allclose(mixed.toarray(), policy_transition(kernel.to_dense(), policy), rtol=0, atol=4 * EPS)


def test_a_system_is_factorised_again_only_at_another_discount():
    kernel, policy = chains()
    system = DiscountedSystem.factorise(policy_transition(kernel, policy), 0.9)
    assert system.at_discount(0.9) is system
    other, fresh = system.at_discount(0.5), DiscountedSystem.factorise(policy_transition(kernel, policy), 0.5)
    np.testing.assert_array_equal(other.solve(np.ones(9)), fresh.solve(np.ones(9)))


@pytest.mark.parametrize("horizon", [None, 7])
@pytest.mark.parametrize("discount_leader", [0.9, 0.8])
def test_sharing_a_factorisation_changes_no_answer(discount_leader, horizon):
    problem = random_mdp(states=5, actions=2, parameters=3, discount_leader=discount_leader, discount_follower=0.9)
    theta = named_stream(2, "theta").standard_normal(3)
    shared, separate = (
        hypergradient(problem, theta, route=route, horizon=horizon) for route in ("implicit", "theorem1")
    )
    allowed = shared.error_bound + separate.error_bound
    assert np.abs(shared.value - separate.value).max() <= allowed < 1e-6 * np.abs(shared.value).max()
    newton = shared.counters["sweeps"] - 1
    players = 2 if horizon is None and discount_leader != 0.9 else 1
    assert shared.counters["factorisations"] == newton + players
    other = replace(problem, discount_leader=0.7)
    if horizon is None:
        assert np.abs(hypergradient(other, theta).value - shared.value).max() > 1e3 * allowed


def test_a_singular_system_is_refused():
    with pytest.raises(IllPosedError, match="discount below one"):
        DiscountedSystem.factorise(np.eye(2), 1.0)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize(("name", "error"), [("initial", InvalidInputError), ("transition", StochasticityError)])
def test_laws_are_checked_once_only_where_they_cannot_change(frozen, name, error):
    laws = {"initial": np.array([0.5, 0.5]), "transition": np.full((2, 1, 2), 0.5)}
    zeros = np.zeros((2, 1))
    problem = ConfigurableMDP(
        tables=lambda theta: Tables(reward_follower=zeros, reward_leader=zeros, **laws),
        discount_leader=0.5,
        discount_follower=0.5,
        temperature=1.0,
    )
    for law in laws.values():
        law.setflags(write=not frozen)
    problem.tables_at(np.zeros(1))
    if frozen:
        laws[name] = 2.0 * laws[name]  # another array at the next θ
    else:
        laws[name] *= 2.0
    with pytest.raises(error, match=name):
        problem.tables_at(np.zeros(1))
