"""Estimators that pay followers in games, and where the pay changes in time."""

from dataclasses import replace

import numpy as np
import pytest
from paid_cases import DRAWS, ENDING, FIVE, LAYERED, THETA, VARIANTS, context_of

from bilevelrl.estimators import Context, Objective, sample_trajectories
from bilevelrl.estimators.expectations.nudged import _overlaps
from bilevelrl.estimators.methods import NudgedFollowers
from bilevelrl.reference import hypergradient, solve_follower
from bilevelrl.reference.game import reduce_game
from bilevelrl.reference.nudged import PaidFollower
from bilevelrl.tasks import random_markov_game, random_mdp
from bilevelrl.verification import enumerate_moments


def ending(leader, follower):
    return replace(ENDING, discount_leader=leader, discount_follower=follower)


def game(leader=0.9, follower=0.9, *, sees=True, states=2):
    return random_markov_game(
        states=states, leader_actions=2, actions=2, seed=3, follower_sees_leader_action=sees, termination=0.2,
        regularised=True, discount_leader=leader, discount_follower=follower,
    )  # fmt: skip


PAID_IN_TIME = {
    "pay that dies": (ending(0.7, 0.9), Objective()),
    "pay that grows": (ending(0.9, 0.8), Objective()),
    "an episode": (ending(0.8, 0.9), Objective(2)),
    "an undiscounted episode": (ending(0.8, 0.9), Objective(2, False)),
    "seen": (game(), Objective()),
    "seen, pay that dies": (game(0.7, 0.9), Objective()),
    "not seen": (game(sees=False), Objective()),
    "not seen, pay that grows": (game(0.9, 0.8, sees=False), Objective()),
    "not seen, an episode": (game(0.9, 0.8, sees=False), Objective(2)),
}

"""Games, and pay that changes in time."""

FOR_EVER = random_mdp(states=3, actions=2, parameters=3, seed=1, discount_leader=0.9, discount_follower=0.7)


def at_its_own(problem, seed=0):
    theta = THETA if problem.theta_shape is None else np.resize(THETA, problem.theta_shape)
    return Context(
        problem=problem, theta=theta, follower=solve_follower(problem, theta), rng=np.random.default_rng(seed)
    )


@pytest.mark.exact
@pytest.mark.parametrize(("sides", "numbers"), [(2, "common"), (1, "independent")])
@pytest.mark.parametrize("case", PAID_IN_TIME)
def test_enumeration_finds_what_is_declared_in_games_and_where_pay_changes_in_time(case, sides, numbers):
    problem, target = PAID_IN_TIME[case]
    context = at_its_own(problem)
    for unpaid in (True, False):
        estimator = NudgedFollowers(pay=0.3, sides=sides, numbers=numbers, unpaid=unpaid, target=target)
        declared = sum(estimator.expectation(context, horizon=3).values())
        moments = enumerate_moments(estimator, problem, context.theta, horizon=3)
        assert np.abs(moments.mean - declared).max() <= 1e-12


@pytest.mark.exact
@pytest.mark.parametrize("sides", [2, 1])
@pytest.mark.parametrize("case", PAID_IN_TIME)
def test_long_streams_declare_the_paid_followers_whole_quotient(case, sides):
    """What reference/nudged finds from the problem that a game reduces to; a test there holds it to a tape."""
    problem, target = PAID_IN_TIME[case]
    context = at_its_own(problem)
    is_game = not hasattr(problem, "tables")
    reduced = reduce_game(problem) if is_game else problem
    follower = PaidFollower(reduced.at(context.theta), target, solve_follower(reduced, context.theta))
    w = 0.3 * problem.temperature
    exact = follower.difference(w, -w if sides == 2 else 0.0)
    estimator = NudgedFollowers(pay=0.3, sides=sides, unpaid=False, target=target)
    declared = estimator.expectation(context, horizon=250)
    if is_game:
        exact["policy"] = exact.pop("initial") + exact.pop("direct") + exact.pop("transition")
    assert set(declared) == set(exact)
    for part, value in exact.items():
        assert np.abs(declared[part] - value).max() <= 1e-10 * max(1.0, np.abs(value).max()), part


@pytest.mark.exact
@pytest.mark.parametrize(
    ("case", "power"),
    [("seen", 2.0), ("seen, pay that dies", 2.0), ("not seen", 2.0), ("pay that dies", 2.0), ("an episode", 2.0),
     ("pay that grows for ever", np.log(0.9) / np.log(0.7 / 0.9))],
)  # fmt: skip
def test_its_bias_falls_with_its_order_in_games_and_in_time(case, power):
    problem, target = {**PAID_IN_TIME, "pay that grows for ever": (FOR_EVER, Objective())}[case]
    context = at_its_own(problem)
    truth = hypergradient(problem, context.theta, horizon=target.horizon, discounted=target.discounted).value
    pays = (1e-3, 1e-4) if power < 1.0 else (0.02, 0.01)
    errors = [
        np.abs(sum(NudgedFollowers(pay=pay, target=target).expectation(context, horizon=300).values()) - truth).max()
        for pay in pays
    ]
    assert np.log(errors[0] / errors[1]) / np.log(pays[0] / pays[1]) == pytest.approx(power, abs=0.05)
    _, order = NudgedFollowers(pay=pays[0], target=target)._bias(context, 300)
    assert order == pytest.approx(power, abs=0.02)


@pytest.mark.exact
@pytest.mark.parametrize("case", ["pay that dies", "pay that grows", "seen, pay that dies"])
def test_a_pay_that_stays_the_same_at_two_discounts_is_seen(case, monkeypatch):
    """The planted one answers for a leader with the follower's discount, whatever the pay."""
    problem, _ = PAID_IN_TIME[case]
    context = at_its_own(problem)
    truth = hypergradient(problem, context.theta).value
    right, wrong = (
        sum(NudgedFollowers(pay=1e-3).expectation(replace(context, problem=each), horizon=300).values())
        for each in (problem, replace(problem, discount_leader=problem.discount_follower))
    )
    assert np.linalg.norm(wrong - truth) > 5.0 * np.linalg.norm(right - truth)
    assert np.linalg.norm(wrong - truth) > 0.05 * np.linalg.norm(truth)


@pytest.mark.statistical
@pytest.mark.parametrize("numbers", ["independent", "common"])
@pytest.mark.parametrize("case", ["pay that grows", "seen", "not seen, pay that grows"])
def test_draws_of_games_and_in_time_have_the_declared_mean_and_covariance(case, numbers):
    problem, target = PAID_IN_TIME[case]
    estimator = NudgedFollowers(pay=0.3, numbers=numbers, unpaid=False, target=target)
    context = at_its_own(problem, seed=3)
    moments = enumerate_moments(estimator, problem, context.theta, horizon=3)
    rng = np.random.default_rng(4)
    batch = sample_trajectories(problem, context.theta, context.follower, streams=DRAWS, steps=3, rng=rng)
    off = estimator(batch, context) - moments.mean
    assert (np.abs(off.mean(axis=0)) < FIVE * off.std(axis=0) / np.sqrt(DRAWS)).all()
    squares = off[:, :, None] * off[:, None, :]
    spread = squares.std(axis=0) / np.sqrt(DRAWS)
    assert (np.abs(squares.mean(axis=0) - moments.covariance) < FIVE * spread).all()


@pytest.mark.exact
@pytest.mark.parametrize(
    ("problem", "sides", "numbers"),
    [*((LAYERED, *variant) for variant in VARIANTS), (replace(LAYERED, discount_follower=0.8), 2, "common")],
)
def test_the_best_pay_is_where_the_exact_error_is_least(problem, sides, numbers):
    """Bias and variance of the paid term from enumeration, on a grid of pays around what the formula says."""
    streams = 10**7  # so many that the best pay is small, where the leading order is all there is
    estimator = NudgedFollowers(pay=0.01, sides=sides, numbers=numbers)
    context = context_of(problem)
    best = estimator.best_pay(context, horizon=3, streams=streams)
    truth = hypergradient(problem, THETA).value
    grid = best * np.geomspace(0.5, 2.0, 9)

    def squared_error(pay):
        moments = enumerate_moments(replace(estimator, pay=float(pay)), problem, THETA, horizon=3)
        return np.sum((moments.mean - truth) ** 2) + np.trace(moments.covariance) / streams

    errors = [squared_error(pay) for pay in grid]
    assert 3 <= int(np.argmin(errors)) <= 5
    assert errors[0] > 1.05 * min(errors)
    assert errors[-1] > 1.05 * min(errors)


@pytest.mark.exact
def test_streams_of_coupled_followers_have_the_law_of_overlaps():
    one, other = np.array([0.2, 0.5, 0.3]), np.array([0.6, 0.1, 0.3])
    joint = _overlaps(one, other)
    np.testing.assert_allclose(joint.sum(axis=1), one, atol=1e-15)
    np.testing.assert_allclose(joint.sum(axis=0), other, atol=1e-15)
    np.testing.assert_allclose(joint, [[0.2, 0.0, 0.0], [0.4, 0.1, 0.0], [0.0, 0.0, 0.3]], atol=1e-15)


@pytest.mark.exact
@pytest.mark.parametrize(("numbers", "same"), [("common", True), ("independent", False)])
def test_followers_that_meet_the_same_numbers_part_only_where_they_choose_otherwise(numbers, same):
    """Paid next to nothing they choose alike, and the two populations are one."""
    context = context_of(ENDING)
    batch = sample_trajectories(ENDING, THETA, context.follower, streams=500, steps=6, rng=np.random.default_rng(1))
    items = NudgedFollowers(pay=1e-6, numbers=numbers).contributions(batch, context)
    one, other = (item.batch for item in items if item.part == "response")
    assert ((one.state_tp1 == other.state_tp1) | ~one.valid).all() == same
    assert (one.state_tp1[one.valid] == 3).any()  # episodes end
