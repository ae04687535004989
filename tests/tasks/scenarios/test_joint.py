"""Games with a certified truth: every route meets it, and an estimator that is wrong does not."""

import numpy as np
import pytest

from bilevelrl.estimators import Claim, Context, Objective
from bilevelrl.estimators.registry import estimators_for
from bilevelrl.reference import HYPERGRADIENT_ROUTES, MarkovGame, hypergradient, leader_objective, solve_follower
from bilevelrl.tasks import reference_problem, scenarios

SCENARIOS = scenarios(kind=MarkovGame, tags="random")
ROUTES = [name for name, entry in HYPERGRADIENT_ROUTES.items() if MarkovGame in entry.kinds and name != "certified"]
LONG = 4000  # .99 to this power is below 1e-17
ENDLESS = [entry for entry in SCENARIOS if entry.truths.keys() == {Objective()}]


def truth(on):
    """The certified one."""
    (stored,) = on.truths.values()
    return stored


def distance(found, on):
    return float(np.abs(found - truth(on).value).max())


def rounding(on):
    """What the problem's own rounding to doubles moves, with a hundredfold margin for the parts that cancel."""
    largest = max(float(np.abs(part).max()) for part in truth(on).parts.values())
    return 100.0 * largest * 10.0 ** -reference_problem(on.name).digits_in_double


@pytest.mark.exact
def test_both_information_structures_and_cold_followers_are_there():
    assert {entry.problem.follower_sees_leader_action for entry in SCENARIOS} == {True, False}
    assert min(entry.problem.temperature for entry in SCENARIOS) <= 0.05
    assert {asked.horizon for entry in SCENARIOS for asked in entry.truths} == {None, 150}
    assert len(SCENARIOS) == 16


@pytest.mark.exact
@pytest.mark.parametrize("on", SCENARIOS, ids=lambda on: on.name)
def test_the_objective_and_the_default_route_meet_the_truth(on):
    (asked,) = on.truths
    options = {"horizon": asked.horizon, "discounted": asked.discounted}
    assert leader_objective(on.problem, on.theta, **options) == pytest.approx(truth(on).objective, rel=1e-11, abs=1e-11)
    found = hypergradient(on.problem, on.theta, **options)
    assert distance(found.value, on) <= found.error_bound + rounding(on)
    planted = found.value + 10.0 * (found.error_bound + rounding(on))
    assert distance(planted, on) > found.error_bound + rounding(on)


@pytest.mark.exact
@pytest.mark.parametrize("route", ROUTES)
def test_every_route_meets_the_truth(route):
    judged = 0
    for on in ENDLESS:
        if on.problem.discount_follower > 0.95 or on.problem.temperature < 0.1:
            continue  # routes that sweep are slow there; the tests of routes have such games
        found = hypergradient(on.problem, on.theta, route=route)
        assert distance(found.value, on) <= found.error_bound + rounding(on), on.name
        judged += 1
    assert judged == 2


@pytest.mark.exact
@pytest.mark.parametrize(
    "name", [name for name, entry in estimators_for(MarkovGame).items() if entry.level == "formula"]
)
def test_estimators_that_claim_no_bias_have_none_and_the_naive_one_has_its_own(name):
    for on in ENDLESS:
        if not on.problem.follower_sees_leader_action or on.problem.discount_follower > 0.99:
            continue
        estimator = estimators_for(MarkovGame)[name].make(Objective())
        follower = solve_follower(on.problem, on.theta)
        context = Context(problem=on.problem, theta=on.theta, follower=follower)
        if estimator.claim is Claim.UNBIASED:
            expected = np.sum(list(estimator.expectation(context, horizon=LONG).values()), axis=0)
            scale = max(float(np.abs(part).max()) for part in truth(on).parts.values())
            assert distance(expected, on) <= 1e-6 * scale + rounding(on), on.name
        elif name == "policy_gradient":
            parts = estimator.expectation(context, horizon=LONG)
            naive = np.sum(list(parts.values()), axis=0)
            np.testing.assert_allclose(
                naive, truth(on).parts["policy"] + truth(on).parts["regulariser"], rtol=1e-6, atol=1e-6
            )
            assert np.abs(truth(on).parts["response"]).max() > 1e-3
