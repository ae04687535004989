"""What nobody reaches or takes may be worth anything: on every route it leaves no rounding in the answer."""

import autograd.numpy as anp
import numpy as np
import pytest

from bilevelrl.reference import HYPERGRADIENT_ROUTES, ConfigurableMDP, Tables, hypergradient
from bilevelrl.reference.arrays.discounted_system import solve_discounted

pytestmark = pytest.mark.exact

KERNELS = np.random.default_rng(0).dirichlet(np.ones(3), (2, 3, 2))
KERNELS[:, :2, :, 2] = 0.0
KERNELS /= KERNELS.sum(axis=-1, keepdims=True)
FOLLOWER = np.array([[1.0, 0.0], [0.0, 0.5], [0.0, 0.0]])
THETA = np.array([0.3, 0.7])
ROUTES = [
    name for name, route in HYPERGRADIENT_ROUTES.items() if ConfigurableMDP in route.kinds and name != "certified"
]


def problem(worth):
    def tables(theta):
        share = 1.0 / (1.0 + anp.exp(-theta[0]))
        return Tables(
            transition=share * KERNELS[0] + (1.0 - share) * KERNELS[1],
            reward_follower=FOLLOWER * theta[1],
            reward_leader=np.array([[0.0, 1.0], [0.3, 0.0], [worth, worth]]),
            initial=np.array([0.5, 0.5, 0.0]),
        )

    return ConfigurableMDP(tables=tables, discount_leader=0.9, discount_follower=0.8, temperature=0.5)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("worth", [1e6, 1e12])
def test_a_state_that_nobody_reaches(route, worth):
    found, plain = (hypergradient(problem(w), THETA, route=route) for w in (worth, 0.0))
    assert np.abs(found.value - plain.value).max() <= found.error_bound + plain.error_bound
    assert np.abs(found.value - [-0.02451422, -1.80444319]).max() <= 1e-8 + min(found.error_bound, 1e-6)


def test_elimination_that_exchanges_rows_is_not_enough():
    """The planted mistake: the same system given to LAPACK as it stands."""
    chain = 0.9 * np.array([[0.2559, 0.744, 0.0], [0.6, 0.4, 0.0], [0.329, 0.4154, 0.2556]])
    right = np.array([0.5, 0.2, 1e12])
    exact = np.linalg.solve((np.eye(3) - chain)[:2, :2], right[:2])
    assert np.abs(np.linalg.solve(np.eye(3) - chain, right)[:2] - exact).max() > 1e-6
    # Two divisions and two products of numbers of size one.
    assert np.abs(solve_discounted(chain, 1.0, right)[:2] - exact).max() <= 1e-13
