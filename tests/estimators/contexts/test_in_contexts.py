"""Estimators on mixtures: declared means are weighted sums, and the draw of the context is part of the variance."""

import numpy as np
import pytest

from bilevelrl.estimators import BCHG, ESTIMATORS, Claim, Draw, Objective
from bilevelrl.estimators.contexts import InContexts
from bilevelrl.reference import ConfigurableMDP, hypergradient, solve_follower
from bilevelrl.reference.contexts import Mixture, reduce_contexts
from bilevelrl.reference.errors import EstimatorError, InvalidInputError
from bilevelrl.tasks import Scenario, layered_mdp
from bilevelrl.verification import Outcome, enumerate_moments, judge, verify
from bilevelrl.verification.enumeration import mixture_moments

pytestmark = pytest.mark.exact

MEMBERS = [layered_mdp(layers=2, width=2, seed=seed) for seed in (0, 1)]
WEIGHTS = np.array([0.3, 0.7])
MIXTURE = Mixture(contexts=MEMBERS, weights=WEIGHTS)
THETA = np.array([0.3, -0.5, 0.2])
FOLLOWER = solve_follower(MIXTURE, THETA)
DECLARING = sorted(
    name
    for name, entry in ESTIMATORS.items()
    if ConfigurableMDP in entry.kinds and entry.make(Objective()).claim is not Claim.MEASURED
)


@pytest.mark.parametrize("name", DECLARING)
def test_what_is_declared_is_the_weighted_sum_and_enumeration_agrees(name):
    estimator = ESTIMATORS[name].make(Objective())
    if estimator.draw is Draw.BATCH or estimator.rests_on_rare_draws:
        pytest.skip("batches are enumerated in pairs elsewhere")
    try:
        declared = InContexts(estimator=estimator).expectation(MIXTURE, THETA, FOLLOWER, horizon=2)
    except EstimatorError:
        declared = {"all": hypergradient(MIXTURE, THETA).value}
        assert estimator.claim is Claim.UNBIASED
    try:
        found = mixture_moments(estimator, MIXTURE, THETA, horizon=2)
    except (NotImplementedError, MemoryError) as refused:
        pytest.skip(str(refused))
    np.testing.assert_allclose(found.mean, sum(declared.values()), rtol=1e-9, atol=1e-9)


def test_the_spread_is_that_of_the_one_mdp_and_of_its_batches():
    # Without ρ: the one MDP knows that of all contexts in every draw, and a context its own.
    entries = ("transition", "reward_follower", "reward_leader", "initial")
    members = [layered_mdp(layers=2, width=2, seed=seed, theta_in=entries) for seed in (0, 1)]
    mixture = Mixture(contexts=members, weights=WEIGHTS)
    one = enumerate_moments(BCHG(), reduce_contexts(mixture), THETA, horizon=2)
    drawn = mixture_moments(BCHG(), mixture, THETA, horizon=2)
    np.testing.assert_allclose(drawn.mean, one.mean, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(drawn.covariance, one.covariance, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(drawn.mean, hypergradient(mixture, THETA).value, rtol=1e-9, atol=1e-11)
    each = [enumerate_moments(BCHG(), member, THETA, horizon=2) for member in members]
    between = sum(p * np.outer(m.mean - drawn.mean, m.mean - drawn.mean) for p, m in zip(WEIGHTS, each, strict=True))
    many = mixture_moments(BCHG(), mixture, THETA, horizon=2, trajectories=10**6)
    # What the draw adds stays; without it the variance of a batch would go to zero.
    np.testing.assert_allclose(many.covariance, between, rtol=1e-3, atol=1e-4)
    assert np.trace(between) > 1e-2
    summed = mixture_moments(BCHG(), mixture, THETA, horizon=2, contexts="sum")
    expected = sum(p**2 * m.covariance for p, m in zip(WEIGHTS, each, strict=True))
    np.testing.assert_allclose(summed.covariance, expected, rtol=1e-12)


@pytest.mark.statistical
@pytest.mark.parametrize("contexts", ["draw", "sum"])
def test_samples_have_the_declared_moments(contexts):
    """120 batches of five trajectories; five standard errors of the mean: a false alarm once in a million."""
    inside = InContexts(estimator=BCHG(critic="context"), contexts=contexts)
    exact = mixture_moments(BCHG(), MIXTURE, THETA, horizon=2, contexts=contexts, trajectories=5)
    rng = np.random.default_rng(0)
    rows = np.array([inside.estimate(MIXTURE, THETA, FOLLOWER, streams=5, steps=2, rng=rng).mean for _ in range(800)])
    error = exact.standard_deviation / np.sqrt(len(rows))
    assert (np.abs(rows.mean(axis=0) - exact.mean) <= 5.0 * error).all()
    spread = rows.std(axis=0, ddof=1) / exact.standard_deviation
    assert (np.abs(spread - 1.0) < 0.5).all()
    uniform = mixture_moments(BCHG(), Mixture(contexts=MEMBERS, weights=[0.5, 0.5]), THETA, horizon=2)
    assert (np.abs(rows.mean(axis=0) - uniform.mean) > 5.0 * error).any()


def test_verify_and_judge_take_a_mixture():
    report = verify(BCHG(), problem=MIXTURE, theta=THETA)
    assert report.passed
    assert report.estimators[0].problem == "mixture"
    assert verify(lambda t, c: BCHG()(t, c) * 0.9, problem=MIXTURE, theta=THETA).failures
    on = Scenario.of(MIXTURE, THETA)
    assert on.ends
    np.testing.assert_allclose(on.truth.value, hypergradient(MIXTURE, THETA).value, rtol=1e-10, atol=1e-12)
    noise = np.random.default_rng(0).standard_normal((4000, 3)) * 0.01
    assert judge(on.truth.value + noise, problem=MIXTURE, theta=THETA).verdict.outcome is Outcome.PASSED
    alone = hypergradient(MEMBERS[0], THETA).value
    assert judge(alone + noise, problem=MIXTURE, theta=THETA).verdict.failed


def test_one_follower_too_few_is_refused():
    short = solve_follower(Mixture(contexts=MEMBERS[:1], weights=[1.0]), THETA)
    with pytest.raises(InvalidInputError, match=r"len\(follower.contexts\)=1"):
        InContexts(estimator=BCHG()).expectation(MIXTURE, THETA, short, horizon=2)
    with pytest.raises(InvalidInputError, match=r"len\(critics\)=1"):
        InContexts(estimator=BCHG()).expectation(MIXTURE, THETA, FOLLOWER, horizon=2, critics=[None])
