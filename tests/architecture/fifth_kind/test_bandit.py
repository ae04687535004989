"""A fifth kind of problem is one folder: it registers its answers, and no file of the product knows of it."""

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import autograd.numpy as anp
import numpy as np
import pytest
from bandit import Bandit, linearise_bandit

from bilevelrl.estimators import Trajectories
from bilevelrl.reference import Problem, hypergradient, leader_objective, solve_follower
from bilevelrl.reference.errors import UnsupportedError
from bilevelrl.reference.problem import Follower, linearise
from bilevelrl.reference.registry import HYPERGRADIENT_ROUTES
from bilevelrl.verification import Outcome, judge, verify

pytestmark = pytest.mark.exact

ROOT = Path(__file__).resolve().parents[3]
THETA = np.array([0.3, -0.4, 0.7])


def entries(theta):
    return {
        "centre": anp.sin(theta[0]) + theta[1] ** 2,
        "precision": anp.exp(theta[2]),
        "target": anp.cos(theta[1]),
        "regulariser": -0.1 * anp.sum(theta**2),
    }


BANDIT = Bandit(entries=entries, temperature=0.5)


def test_it_is_a_problem_with_a_follower():
    assert isinstance(BANDIT, Problem)
    follower = solve_follower(BANDIT, THETA)
    assert isinstance(follower, Follower)
    assert follower.status.succeeded
    assert {name for name, route in HYPERGRADIENT_ROUTES.items() if Bandit in route.kinds} == {
        "implicit",
        "finite_difference",
    }


def test_the_objective_and_its_gradient_are_those_worked_out_by_hand():
    x, y, z = THETA
    off = np.sin(x) + y**2 - np.cos(y)
    assert leader_objective(BANDIT, THETA) == pytest.approx(
        -0.5 * (off**2 + 0.5 * np.exp(-z)) - 0.1 * np.sum(THETA**2), rel=1e-14
    )
    by_hand = [-off * np.cos(x), -off * (2.0 * y + np.sin(y)), 0.25 * np.exp(-z)]
    np.testing.assert_allclose(hypergradient(BANDIT, THETA).value, by_hand - 0.2 * THETA, rtol=1e-13)


def test_routes_for_every_kind_agree_within_their_bounds():
    exact, differences = (hypergradient(BANDIT, THETA, route=route) for route in ("implicit", "finite_difference"))
    for part, value in exact.parts.items():
        off = np.abs(value - differences.parts[part]).max()
        assert off <= exact.error_bound + differences.error_bound < 1e-7
    assert exact.objective == differences.objective == leader_objective(BANDIT, THETA)


def test_a_planted_error_is_seen(monkeypatch):
    def without_variance(at, objective, **options):
        found = linearise_bandit(at, objective, **options)
        response = {**found.cotangents["response"], "precision": np.zeros(())}
        monkeypatch.setitem(found.cotangents, "response", response)
        return found

    monkeypatch.setitem(linearise._answers, Bandit, without_variance)
    wrong, differences = (hypergradient(BANDIT, THETA, route=route) for route in ("implicit", "finite_difference"))
    assert np.abs(wrong.value - differences.value).max() > 1e3 * (wrong.error_bound + differences.error_bound)


@dataclass(frozen=True, kw_only=True)
class Sampled(Bandit):
    """A bandit that brings its samples, as estimators see them."""

    def sample(self, theta, follower, *, streams, steps, rng):
        at = self.at(theta)
        action = follower.sample(np.zeros(streams), rng)
        reward = -0.5 * (action - float(at.found["target"])) ** 2
        once = np.ones((streams, 1), dtype=np.bool_)
        return Trajectories(
            state_t=np.zeros((streams, 1, 1)),
            action_t=action[:, None],
            state_tp1=np.zeros((streams, 1, 1)),
            reward_leader_t=reward[:, None],
            terminated=once,
            truncated=~once,
            time_in_episode=np.zeros((streams, 1), dtype=np.int64),
            valid=once,
            behaviour_log_prob=np.zeros((streams, 1)),
        )


def score_estimate(trajectories, context, *, response=True):
    """∇r_L, and the follower's score of its action times the leader's reward."""
    at, theta = context.problem.at(context.theta), context.theta
    centre, precision, target = (float(at.found[name]) for name in ("centre", "precision", "target"))
    off = trajectories.action_t[:, 0] - centre
    score_centre = precision * off / context.problem.temperature
    score_precision = 0.5 / precision - 0.5 * off**2 / context.problem.temperature
    reward = trajectories.reward_leader_t[:, 0]
    rows = np.outer(trajectories.action_t[:, 0] - target, [0.0, -np.sin(theta[1]), 0.0])
    if response:
        rows = rows + np.outer(reward * score_centre, [np.cos(theta[0]), 2.0 * theta[1], 0.0])
        rows = rows + np.outer(reward * score_precision, [0.0, 0.0, np.exp(theta[2])])
    return rows + context.problem.regulariser_gradient(theta)


def test_estimators_and_draws_on_it_are_judged_like_any_others():
    """Seed 0; declared rate of false alarms 1e-6, and a bias of a tenth of the truth would be seen."""
    bandit = Sampled(entries=entries, temperature=0.5)
    good = verify(score_estimate, problem=bandit, theta=THETA, quick=True).estimators[0]
    assert good.verdict.outcome is Outcome.PASSED, good.verdict.reason
    bad = verify(partial(score_estimate, response=False), problem=bandit, theta=THETA, quick=True)
    assert bad.estimators[0].verdict.failed
    assert bad.explanation.cause == "the response part is missing"
    noise = np.random.default_rng(0).standard_normal((20_000, 3))
    assert judge(hypergradient(bandit, THETA).value + noise, problem=bandit, theta=THETA).passed
    without = verify(score_estimate, problem=BANDIT, theta=THETA).estimators[0]
    assert "expected a method sample" in without.verdict.reason


def test_what_it_does_not_answer_is_refused_by_name():
    with pytest.raises(UnsupportedError, match=r"route='unrolled'.*Bandit.*implicit"):
        hypergradient(BANDIT, THETA, route="unrolled")


def test_nothing_else_knows_of_it():
    packages = ("reference", "estimators", "tasks", "verification", "benchmarks")
    files = [path for package in packages for path in (ROOT / package).rglob("*.py")]
    assert files
    assert not [path for path in files if re.search(r"\bBandit\b|fifth_kind", path.read_text(encoding="utf-8"))]
