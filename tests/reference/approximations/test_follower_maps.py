"""Followers that learn, as maps of θ: derivatives against differences of plain loops, bounds, the law of samples."""

import importlib
from dataclasses import replace

import numpy as np
import pytest

from bilevelrl.estimators.followers import NaturalPolicyGradient, SharedDynamics, SoftQLearning
from bilevelrl.reference import TabularFollower, hypergradient, leader_objective, solve_follower
from bilevelrl.reference.approximations import (
    FOLLOWER_MAPS,
    follower_policy,
    hypergradient_through,
    hypergradient_through_sweeps,
    sampled_soft_q_learning,
    variation_bound,
)
from bilevelrl.reference.approximations.follower_maps.sampled_soft_q_learning import _Moves
from bilevelrl.reference.errors import (
    InvalidInputError,
    ShapeError,
    StochasticityError,
    SupportError,
    UnknownNameError,
    UnsupportedError,
)
from bilevelrl.reference.tabular.transitions import DiscountedSystem
from bilevelrl.tasks import random_mdp

pytestmark = pytest.mark.exact

PROBLEM = random_mdp(seed=0, termination=0.05)
THETA = np.array([0.3, -0.5, 0.2])
TABLE = np.array([[0.5, -1.0], [2.0, 0.0], [0.0, 0.3], [-0.7, 1.0]])
POLICY = np.array([[0.7, 0.3], [0.2, 0.8], [0.5, 0.5], [0.9, 0.1]])
SMALL = random_mdp(states=2, actions=2, parameters=3, seed=4, termination=0.1)


def softmax(x):
    weights = np.exp(x - x.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def plain(learner, theta, updates, share, start):
    """π_k by a loop that knows nothing of the package but the tables."""
    tables, beta, discount = PROBLEM.tables_at(theta), PROBLEM.temperature, PROBLEM.discount_follower
    reward, kernel = tables.reward_follower, tables.transition
    if learner == "soft_q_learning":
        q = np.zeros(reward.shape) if start is None else start
        for _ in range(updates):
            q = q + share * (reward + discount * kernel @ (beta * np.log(np.exp(q / beta).sum(axis=1))) - q)
        return softmax(q / beta)
    policy = np.full(reward.shape, 0.5) if start is None else start
    if learner == "natural_policy_gradient":
        for _ in range(updates):
            value = np.zeros(len(reward))
            for _ in range(600):
                q = reward + discount * kernel @ value
                value = (policy * (q - beta * np.log(policy))).sum(axis=1)
            policy = softmax((1.0 - share) * np.log(policy) + share * (reward + discount * kernel @ value) / beta)
        return policy
    value = np.zeros(len(reward))
    for _ in range(600):
        q = reward + discount * kernel @ value
        value = beta * np.log(np.exp(q / beta).sum(axis=1))
    logits = np.log(policy)
    for _ in range(updates):
        logits = logits + share * (softmax(q / beta) - softmax(logits))
    return softmax(logits)


def difference(function, theta, h=1e-3):
    """Central differences of order four: 1e-9 of what is differentiated."""
    return np.array(
        [
            (8.0 * (function(theta + h * e) - function(theta - h * e))
             - (function(theta + 2 * h * e) - function(theta - 2 * h * e))) / (12.0 * h)
            for e in np.eye(len(theta))
        ]
    )  # fmt: skip


def start_of(learner, started):
    if not started:
        return None
    return TABLE if learner == "soft_q_learning" else POLICY


def slopes(learner, updates, share, start, horizon=None):
    def played(theta):
        policy = plain(learner, theta, updates, share, start)
        return leader_objective(
            PROBLEM, theta, follower=TabularFollower.from_policy(PROBLEM, theta, policy), horizon=horizon
        )

    return difference(played, THETA)


@pytest.mark.parametrize("started", [False, True], ids=["reset", "carried"])
@pytest.mark.parametrize(("updates", "share", "horizon"), [(1, 0.3, None), (4, 0.6, None), (3, 1.0, 4)])
@pytest.mark.parametrize("learner", FOLLOWER_MAPS)
def test_the_derivative_is_that_of_the_followers_own_map(learner, updates, share, horizon, started):
    start = start_of(learner, started)
    options = {"updates": updates, "step_size": share, "start": start}
    policy = follower_policy(PROBLEM, THETA, learner, **options)
    np.testing.assert_allclose(policy, plain(learner, THETA, updates, share, start), rtol=1e-10)
    found = hypergradient_through(PROBLEM, THETA, learner, horizon=horizon, **options)
    wanted = slopes(learner, updates, share, start, horizon)
    np.testing.assert_allclose(found, wanted, rtol=0.0, atol=1e-8 * np.abs(wanted).max())
    if started:
        reset = hypergradient_through(PROBLEM, THETA, learner, updates=updates, step_size=share, horizon=horizon)
        if not (learner == "natural_policy_gradient" and share == 1.0):
            assert np.abs(found - reset).max() > 1e-4 * np.abs(found).max()


def planted(learner):
    """A module, and what is broken in it: each a slip that leaves the policy as it is."""
    module = importlib.import_module(f"bilevelrl.reference.approximations.follower_maps.{learner}")
    if learner == "soft_q_learning":
        return module, "visited_next", lambda tables, *rest: 0.0
    if learner == "natural_policy_gradient":
        return DiscountedSystem, "solve_transposed", DiscountedSystem.solve
    return module, "follower_adjoint", lambda tables, policy, cotangent, system: cotangent


@pytest.mark.parametrize("learner", FOLLOWER_MAPS)
def test_planted_errors_in_pullbacks_are_caught(learner, monkeypatch):
    wanted = slopes(learner, 4, 0.6, None)
    monkeypatch.setattr(*planted(learner))
    wrong = hypergradient_through(PROBLEM, THETA, learner, updates=4, step_size=0.6)
    assert np.abs(wrong - wanted).max() > 1e-5 * np.abs(wanted).max()  # a thousand tolerances


def test_a_follower_starts_where_it_stood():
    best = solve_follower(PROBLEM, THETA)
    for learner in FOLLOWER_MAPS:
        carried = hypergradient_through(PROBLEM, THETA, learner, updates=1, step_size=0.5, start=best)
        field = "action_value" if learner == "soft_q_learning" else "policy"
        given = hypergradient_through(PROBLEM, THETA, learner, updates=1, step_size=0.5, start=getattr(best, field))
        np.testing.assert_allclose(carried, given, rtol=1e-10)
        policy = follower_policy(PROBLEM, THETA, learner, updates=1, step_size=0.5, start=best)
        np.testing.assert_allclose(policy, best.policy, rtol=1e-9)  # it stays at the best response
        # But its slope there is not the best response's: one update moves half of the way, and no further.
        assert np.abs(carried - hypergradient(PROBLEM, THETA).value).max() > 1e-3


def test_full_shares_of_expected_updates_are_sweeps():
    problem = random_mdp(seed=0)
    constant = np.full((4, 2), -problem.temperature * np.log(2.0))  # V_0 = 0
    for k in (1, 5):
        own = hypergradient_through(problem, THETA, "soft_q_learning", updates=k, step_size=1.0, start=constant)
        sweeps = hypergradient_through_sweeps(problem, THETA, sweeps=k)
        np.testing.assert_allclose(own, sweeps, rtol=1e-10)


@pytest.mark.parametrize("learner", ["natural_policy_gradient", "soft_q_learning"])
def test_enough_updates_give_the_hypergradient(learner):
    best = hypergradient(PROBLEM, THETA)
    found = hypergradient_through(PROBLEM, THETA, learner, updates=400, step_size=1.0)
    np.testing.assert_allclose(found, best.value, rtol=1e-9)


@pytest.mark.parametrize("share", [0.2, 1.0])
@pytest.mark.parametrize("learner", FOLLOWER_MAPS)
def test_bounds_on_the_variation_hold_and_say_something(learner, share):
    best = solve_follower(PROBLEM, THETA).policy
    for start in (None, start_of(learner, True)):
        told = 0
        for updates in (1, 10, 100, 1000):
            options = {"updates": updates, "step_size": share, "start": start}
            bound = variation_bound(PROBLEM, THETA, learner, **options)
            off = 0.5 * np.abs(follower_policy(PROBLEM, THETA, learner, **options) - best).sum(axis=1).max()
            assert off <= bound + 1e-12
            told += bound < 0.2
        assert told
    # A follower that forgets to move misses it.
    assert 0.5 * np.abs(np.full((4, 2), 0.5) - best).sum(axis=1).max() > 2.0 * bound


def test_rules_of_the_training_play_these_maps():
    dynamics = SharedDynamics(PROBLEM, THETA, shared=False)
    rule = NaturalPolicyGradient(updates=5, step_size=0.4, samples=None)
    played, _ = rule.respond(dynamics, dynamics.rewards(THETA[None]), {}, [])
    own = follower_policy(PROBLEM, THETA, "natural_policy_gradient", updates=5, step_size=0.4)
    np.testing.assert_allclose(played.policy[0], own, rtol=1e-10)


class TestSamples:
    def test_the_derivative_of_the_mean(self):
        law = sampled_soft_q_learning(SMALL, THETA, samples=2, step_size=0.7)
        assert law.probability.sum() == pytest.approx(1.0, rel=1e-14)

        def mean(theta):
            return sampled_soft_q_learning(SMALL, theta, samples=2, step_size=0.7).objective

        wanted = difference(mean, THETA)
        np.testing.assert_allclose(law.hypergradient, wanted, rtol=0.0, atol=1e-8 * np.abs(wanted).max())

    def test_a_law_that_stands_still_is_caught(self, monkeypatch):
        right = sampled_soft_q_learning(SMALL, THETA, samples=2, step_size=0.7).hypergradient
        monkeypatch.setattr(_Moves, "add_scores", lambda self, weight, on_kernel: None)
        wrong = sampled_soft_q_learning(SMALL, THETA, samples=2, step_size=0.7).hypergradient
        assert np.abs(wrong - right).max() > 1e-5 * np.abs(right).max()

    def test_the_mean_tends_to_expected_updates(self):
        """Equal after one sample, and apart by the cube of α for few: V is not linear, and Q varies by α²."""

        def gap(samples, share):
            law = sampled_soft_q_learning(SMALL, THETA, samples=samples, step_size=share)
            mean = np.tensordot(law.probability, law.table, 1)
            tables, beta, table = SMALL.tables_at(THETA), SMALL.temperature, np.zeros((2, 2))
            for _ in range(samples):
                value = beta * np.log(np.exp(table / beta).sum(axis=1))
                target = tables.reward_follower + SMALL.discount_follower * tables.transition @ value
                table = table + share / 4.0 * (target - table)
            return np.abs(mean - table).max()

        assert gap(1, 0.5) < 1e-15
        assert gap(3, 0.02) > 1e-8
        assert gap(3, 0.02) == pytest.approx(gap(3, 0.04) / 8.0, rel=0.1)

    def test_learners_of_the_training_draw_from_this_law(self):
        """Seeds are fixed: four thousand runs, each entry's mean within five standard errors (3e-6 for all)."""
        law = sampled_soft_q_learning(SMALL, THETA, samples=4, step_size=0.5)
        mean = np.tensordot(law.probability, law.table, 1)
        spread = np.sqrt(np.tensordot(law.probability, (law.table - mean) ** 2, 1))
        dynamics, runs = SharedDynamics(SMALL, THETA, shared=False), 4_000
        rewards = dynamics.rewards(THETA[None])
        rewards = replace(rewards, **{name: np.repeat(getattr(rewards, name), runs, axis=0) for name in
                                      ("thetas", "follower", "leader")})  # fmt: skip
        rng = np.random.default_rng(0)
        played, _ = SoftQLearning(steps=4, step_size=0.5).respond(dynamics, rewards, {}, [rng] * runs)
        off = np.abs(played.action_value.mean(axis=0) - mean) / (spread / np.sqrt(runs))
        assert off.max() < 5.0
        other = sampled_soft_q_learning(SMALL, THETA, samples=4, step_size=0.4)
        wrong = np.tensordot(other.probability, other.table, 1)
        assert (np.abs(played.action_value.mean(axis=0) - wrong) / (spread / np.sqrt(runs))).max() > 10.0


MASK = np.array([[True, False]] + 3 * [[True] * 2])
MASKED = replace(
    PROBLEM,
    tables=lambda theta: replace(PROBLEM.evaluate(theta), action_mask=MASK),
    tables_jacobian=None,
    tables_pullback=None,
)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: follower_policy(PROBLEM, THETA, "soft_q", updates=1), UnknownNameError, "soft_q_learning"),
        (lambda: follower_policy(PROBLEM, THETA, "imitation", updates=0), InvalidInputError, "updates=0"),
        (
            lambda: follower_policy(PROBLEM, THETA, "imitation", updates=1, step_size=1.5),
            InvalidInputError,
            "step_size",
        ),
        (lambda: hypergradient_through(PROBLEM, THETA, "imitation", updates=1, start=np.eye(2)), ShapeError, "start"),
        (
            lambda: hypergradient_through(PROBLEM, THETA, "imitation", updates=1, start=np.eye(2)[[0, 1, 0, 1]]),
            SupportError,
            "never tried",
        ),
        (
            lambda: variation_bound(PROBLEM, THETA, "natural_policy_gradient", updates=1, start=2.0 * POLICY),
            StochasticityError,
            "start",
        ),
        (lambda: follower_policy(MASKED, THETA, "soft_q_learning", updates=1), UnsupportedError, "action_mask"),
        (lambda: sampled_soft_q_learning(MASKED, THETA, samples=1), UnsupportedError, "action_mask"),
        (lambda: sampled_soft_q_learning(PROBLEM, THETA, samples=9), InvalidInputError, "samples=9"),
    ],
)
def test_bad_input_is_refused_by_name(call, error, message):
    with pytest.raises(error, match=message):
        call()
