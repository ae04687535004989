"""Rewards and temperatures in units of 1e-195 and less: right within the bound, or refused by name, never lost unheard.

One state, J = π·r_L / (1 - γ_L): by hand, ∂J/∂θ = ∓ π (1 - π) / (1 - γ_L), in units of the leader's reward.
"""

import importlib.util

import autograd.numpy as anp
import numpy as np
import pytest

from bilevelrl.reference import HYPERGRADIENT_ROUTES, ConfigurableMDP, Tables, hypergradient
from bilevelrl.reference.errors import BilevelRLError

pytestmark = pytest.mark.exact

ROUTES = sorted(
    name
    for name, route in HYPERGRADIENT_ROUTES.items()
    if ConfigurableMDP in route.kinds and (name != "certified" or importlib.util.find_spec("flint"))
)
THETA = np.array([0.3, -0.7])


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("exponent", [-150, -195, -220, -230, -290])
@pytest.mark.parametrize("whose", ["both", "follower", "leader"])
def test_small_units_lose_nothing_unheard(whose, exponent, route):
    unit = 10.0**exponent
    follower, leader = (1.0 if whose == other else unit for other in ("leader", "follower"))
    problem = ConfigurableMDP(
        tables=lambda x: Tables(
            transition=np.ones((1, 2, 1)), reward_follower=follower * anp.reshape(x, (1, 2)),
            reward_leader=leader * np.array([[0.0, 1.0]]), initial=np.ones(1),
        ),
        discount_leader=0.5, discount_follower=0.5, temperature=follower,
    )  # fmt: skip
    chance = 1.0 / (1.0 + np.exp(THETA[0] - THETA[1]))
    right = leader * chance * (1.0 - chance) / 0.5 * np.array([-1.0, 1.0])
    try:
        found = hypergradient(problem, THETA, route=route)
    except BilevelRLError:
        if route not in ("complex_step", "finite_difference"):
            raise
    else:
        # Where both units are small, bounds are products that underflow, and infinite; beside them, `right` is rounded.
        assert np.abs(found.value - right).max() <= found.error_bound + 1e-15 * leader
