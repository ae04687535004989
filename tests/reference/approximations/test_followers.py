"""Followers that are no best response: the derivative through their own map, and the formula where they play."""

import numpy as np
import pytest

from bilevelrl.reference import hypergradient, leader_objective, solve_follower
from bilevelrl.reference.approximations import approximate_hypergradient, formula_under, hypergradient_through_sweeps
from bilevelrl.tasks import four_rooms, random_mdp

pytestmark = pytest.mark.exact

PROBLEM = random_mdp(seed=0)
THETA = np.array([0.3, -0.5, 0.2])


def played(theta, sweeps, start):
    follower = solve_follower(PROBLEM, theta, method="value_iteration", stop_after=sweeps - 1, warm_start=start)
    return leader_objective(PROBLEM, theta, follower=follower)


@pytest.mark.parametrize("sweeps", [1, 3, 7])
@pytest.mark.parametrize("start", [None, np.array([1.0, -3.0, 2.0, 0.5])], ids=["reset", "carried"])
def test_the_derivative_is_that_of_the_followers_own_map(sweeps, start):
    """Against central differences of J(θ, π_k(θ)), of order four: 1e-9 where steps are 1e-3."""
    found = hypergradient_through_sweeps(PROBLEM, THETA, sweeps=sweeps, start=start)
    h = 1e-3
    slopes = [
        (8.0 * (played(THETA + h * e, sweeps, start) - played(THETA - h * e, sweeps, start))
         - (played(THETA + 2 * h * e, sweeps, start) - played(THETA - 2 * h * e, sweeps, start))) / (12.0 * h)
        for e in np.eye(3)
    ]  # fmt: skip
    np.testing.assert_allclose(found, slopes, rtol=0.0, atol=1e-8 * np.abs(found).max())
    if start is None:
        np.testing.assert_array_equal(found, approximate_hypergradient(PROBLEM, THETA, "unrolled_sweeps", sweeps))
    else:
        reset = hypergradient_through_sweeps(PROBLEM, THETA, sweeps=sweeps)
        assert np.abs(found - reset).max() > 1e-9  # where it starts counts


def test_a_carried_best_response_is_one():
    best = solve_follower(PROBLEM, THETA)
    exact = hypergradient(PROBLEM, THETA)
    carried = hypergradient_through_sweeps(PROBLEM, THETA, sweeps=300, start=best)
    assert np.abs(carried - exact.value).max() < 1e-11
    under = formula_under(PROBLEM, THETA, best)
    np.testing.assert_array_equal(under.value, exact.value)
    assert under.error_bound == exact.error_bound


@pytest.mark.parametrize(("sweeps", "variation", "cosine"), [(50, 0.423, 0.9895), (100, 0.016, 1.0), (200, 0.0, 1.0)])
def test_four_rooms_at_zero(sweeps, variation, cosine):
    problem, theta = four_rooms(temperature=0.003), np.zeros(105)
    exact = hypergradient(problem, theta)
    hasty = solve_follower(problem, theta, method="value_iteration", stop_after=sweeps - 1)
    off = 0.5 * np.abs(hasty.policy - exact.follower.policy).sum(axis=1).max()
    assert off == pytest.approx(variation, abs=5e-4)
    own = hypergradient_through_sweeps(problem, theta, sweeps=sweeps)
    for found in (own, formula_under(problem, theta, hasty).value):
        along = found @ exact.value / np.linalg.norm(found) / np.linalg.norm(exact.value)
        assert along == pytest.approx(cosine, abs=3e-4)
    rough = formula_under(problem, theta, hasty)
    gap = np.abs(rough.value - exact.value).max()
    assert gap <= rough.error_bound
    if sweeps == 200:
        assert 1e-10 < gap < rough.error_bound < 1e3 * gap
    else:
        assert rough.error_bound == np.inf  # the first order says nothing of a policy so far off
