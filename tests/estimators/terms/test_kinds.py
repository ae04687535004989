"""What a kind of problem answers to estimators along trajectories."""

from dataclasses import replace

import numpy as np
import pytest

from bilevelrl.estimators import BCHG, HPGD, Context, NaivePGD, SoBiRL, sample_trajectories
from bilevelrl.estimators.terms import gaussian_game, joint_actions, linear_quadratic, tabular
from bilevelrl.estimators.terms.answers import answers_of, follower_terms
from bilevelrl.reference import solve_follower
from bilevelrl.reference.errors import UnsupportedError
from bilevelrl.tasks import layered_mdp, lqr_game, random_lqr
from bilevelrl.tasks.generators.random_games import layered_markov_game

pytestmark = pytest.mark.exact

KINDS = {
    "configurable MDP": (layered_mdp(seed=0), np.zeros(3), tabular),
    "configurable LQR": (random_lqr(seed=0), np.zeros(3), linear_quadratic),
    "Markov game": (layered_markov_game(), np.zeros(4), joint_actions),
    "LQR game": (lqr_game(), np.array([-7.0, -3.0]), gaussian_game),
}


def drawn(kind):
    problem, theta, _ = KINDS[kind]
    context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    batch = sample_trajectories(problem, theta, context.follower, streams=4, steps=3, rng=np.random.default_rng(0))
    return context, batch


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_its_own_answers_and_takes_every_default(kind):
    context, batch = drawn(kind)
    answers = answers_of(context.problem)
    assert answers is KINDS[kind][2]
    estimator = BCHG()
    for option, allowed in answers.ALLOWED.items():
        assert getattr(estimator, option) == allowed[0] or getattr(estimator, option) is allowed[0], option
    for method in (estimator, NaivePGD()):
        assert np.isfinite(method.estimate(batch, context).mean).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_guiding_term_is_the_double_sum_over_steps(kind):
    """Trace form against the sum over pairs of steps t ≤ k that the paper writes."""
    context, batch = drawn(kind)
    estimator, problem = BCHG(), context.problem
    first, units = follower_terms(context, batch)
    factor = estimator.leader_weight(batch, context) * estimator.read(batch, context).benefit_t / problem.temperature
    weight = np.zeros(factor.shape)
    for k in range(batch.steps):
        for t in range(k + 1 - first):
            weight[:, k] += problem.discount_follower ** (k - t) * factor[:, t]
    weight = np.where(batch.valid, weight, 0.0)  # one episode per stream, then padding
    expected = problem.pullback(
        context.theta, batch, {term: weight * unit for term, unit in units.items()}, per_stream=True
    )
    found = estimator.parts_per_draw(batch, context)["response"]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13 * np.abs(expected).max())
    other = replace(problem, discount_follower=0.9 * problem.discount_follower)
    moved = estimator.parts_per_draw(batch, replace(context, problem=other))["response"]
    assert np.abs(moved - expected).max() > 1e-6 * np.abs(expected).max()  # the planted discount is seen


@pytest.mark.parametrize("kind", ["Markov game", "LQR game"])
def test_methods_of_configurable_problems_refuse_games(kind):
    context, batch = drawn(kind)
    for method in (SoBiRL(), HPGD(), HPGD(variant="critic")):
        with pytest.raises(UnsupportedError, match="expected a Configurable"):
            method.estimate(batch, context)
        with pytest.raises(UnsupportedError):
            method.expectation(context, horizon=2)
