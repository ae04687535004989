"""Enumerated batches, estimators with randomness of their own, and what cannot be listed."""

import itertools
import math

import autograd.numpy as anp
import numpy as np
import pytest
from moment_cases import ENDING, EXITS, LAYERED, check_by_enumeration, leader_return, plain_paths

from bilevelrl.estimators import BCHG, Claim, Context, Draw, TabularSimulator, sample_trajectories
from bilevelrl.estimators.critics.tables import ExactCritic
from bilevelrl.reference import (
    ConfigurableMDP,
    Tables,
    named_stream,
    solve_follower,
)
from bilevelrl.reference.errors import EstimatorError, InvalidInputError, TooLargeError, UnsupportedError
from bilevelrl.tasks import layered_mdp, random_mdp
from bilevelrl.verification import enumerate_moments, mean_test
from bilevelrl.verification.enumeration.contract import OwnRandomnessError, forbidden_generator
from bilevelrl.verification.enumeration.paths import multiset_count

# Batches, and estimators with randomness of their own.


def state_average(trajectories, context):
    """A ratio: the mean reward over the visits of state 0 in the batch, 0 where it was not visited."""
    visits = trajectories.valid & (trajectories.state_t == 0)
    total = (visits * trajectories.reward_leader_t).sum()
    return np.array([[total / max(visits.sum(), 1), 1.0]])


@pytest.mark.exact
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_batches_agree_with_all_ordered_tuples(batch):
    problem, theta = layered_mdp(layers=2, width=2, parameters=2, seed=6), np.zeros(2)
    reward = problem.tables_at(theta).reward_leader
    paths = plain_paths(problem, theta, 2)
    mean, second = 0.0, 0.0
    for chosen in itertools.product(paths, repeat=batch):
        probability = math.prod(p for p, _ in chosen)
        earned = [reward[s, a] for _, path in chosen for s, a, _, _ in path if s == 0]
        value = sum(earned) / max(len(earned), 1)
        mean, second = mean + probability * value, second + probability * value**2
    moments = enumerate_moments(state_average, problem, theta, horizon=2, batch=batch)
    assert moments.draws == multiset_count(len(paths), batch)
    assert moments.draw is Draw.BATCH
    assert abs(moments.probability - 1.0) < 1e-14
    assert moments.mean[0] == pytest.approx(mean, rel=1e-12)
    assert moments.covariance[0, 0] == pytest.approx(second - mean**2, rel=1e-9)


@pytest.mark.exact
def test_a_mean_over_a_batch_has_the_mean_and_half_the_covariance():
    problem, theta = layered_mdp(layers=2, width=2, parameters=2, seed=6), np.zeros(2)
    one = enumerate_moments(leader_return, problem, theta, horizon=2)
    two = enumerate_moments(
        lambda trajectories, context: leader_return(trajectories, context).mean(axis=0),
        problem,
        theta,
        horizon=2,
        batch=2,
    )
    np.testing.assert_allclose(two.mean, one.mean, rtol=1e-13)
    np.testing.assert_allclose(two.covariance, one.covariance / 2, rtol=1e-11)


class NoisyReturn:
    """The return plus a standard normal number times the path's length."""

    name = "noisy return"
    draw = Draw.TRAJECTORY
    claim = Claim.MEASURED

    def __call__(self, trajectories, context):
        noise = context.rng.standard_normal(trajectories.streams) * trajectories.valid.sum(axis=1)
        return leader_return(trajectories, context) + np.stack([noise, 0.0 * noise], axis=1)


class HonestNoisyReturn(NoisyReturn):
    def conditional_moments(self, trajectories, context):
        covariance = np.zeros((trajectories.streams, 2, 2))
        covariance[:, 0, 0] = trajectories.valid.sum(axis=1) ** 2
        return leader_return(trajectories, context), covariance


@pytest.mark.exact
def test_own_randomness_is_integrated_by_the_laws_of_total_expectation_and_covariance():
    problem, theta = random_mdp(states=2, actions=2, parameters=2, seed=4, termination=0.3), np.zeros(2)
    plain = enumerate_moments(leader_return, problem, theta, horizon=3)
    noisy = enumerate_moments(HonestNoisyReturn(), problem, theta, horizon=3)
    squares = math.fsum(p * len(path) ** 2 for p, path in plain_paths(problem, theta, 3))
    np.testing.assert_allclose(noisy.mean, plain.mean, rtol=1e-14)
    np.testing.assert_allclose(noisy.covariance - plain.covariance, [[squares, 0], [0, 0]], atol=1e-12)


@pytest.mark.exact
def test_own_randomness_without_its_law_is_named():
    problem = random_mdp(states=2, actions=2, parameters=2, seed=4)
    with pytest.raises(EstimatorError, match=r"noisy return: draws random numbers of its own .*conditional_moments"):
        enumerate_moments(NoisyReturn(), problem, np.zeros(2), horizon=2)
    with pytest.raises(OwnRandomnessError, match=r"context\.rng"):
        forbidden_generator().random()


@pytest.mark.exact
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"horizon": 40}, TooLargeError, "about 2e\\+24 trajectories"),
        ({"horizon": 4000}, TooLargeError, "about 3e\\+2408 trajectories"),
        ({"horizon": 4, "max_paths": 10}, TooLargeError, "max_paths=10"),
        ({"horizon": 0}, InvalidInputError, "horizon=0"),
        ({"horizon": None}, InvalidInputError, "horizon=None"),
        ({"horizon": 3, "batch": 4}, InvalidInputError, "batch=4"),
        ({"horizon": 4, "batch": 3}, TooLargeError, "multisets"),
        ({"horizon": 3, "simulator": TabularSimulator(step_limit=2)}, UnsupportedError, "step_limit=2"),
    ],
)
def test_what_cannot_be_listed_is_refused(options, error, message):
    problem = random_mdp(states=2, actions=2, parameters=2, seed=4)
    with pytest.raises(error, match=message):
        enumerate_moments(leader_return, problem, np.zeros(2), **options)


@pytest.mark.exact
def test_other_problems_are_refused():
    with pytest.raises(InvalidInputError, match="problem=<object"):
        enumerate_moments(leader_return, object(), np.zeros(2), horizon=2)


@pytest.mark.statistical
def test_the_sampler_draws_from_the_enumerated_law():
    problem, theta = random_mdp(states=2, actions=2, parameters=2, seed=4, termination=0.3), np.array([0.3, -0.4])
    follower = solve_follower(problem, theta)
    moments = enumerate_moments(leader_return, problem, theta, horizon=4)
    trajectories = sample_trajectories(
        problem, theta, follower, streams=200_000, steps=4, rng=named_stream(3, "sampler")
    )
    context = Context(problem=problem, theta=theta, follower=follower)
    test = mean_test(leader_return(trajectories, context), moments.mean)
    assert not test.rejected.any()
    # Not vacuous: a wrong law of a hundredth of the mean would have been seen.
    assert (test.detectable < 0.02 * moments.standard_deviation).all()
    assert mean_test(leader_return(trajectories, context), moments.mean + test.detectable).rejected.all()


@pytest.mark.exact
def test_exact_critic_of_the_target_is_what_an_estimator_is_given():
    problem, theta = LAYERED.problem, LAYERED.theta
    seen = []

    def look(trajectories, context):
        seen.append(context)
        return np.zeros((trajectories.streams, 3))

    check_by_enumeration(look, LAYERED)
    truth = ExactCritic.solve(problem, theta, solve_follower(problem, theta).policy)
    np.testing.assert_allclose(seen[0].critic.value(np.arange(7)), truth.value(np.arange(7)), rtol=1e-12)


def derivative_reader(trajectories, context):
    """Rows by the problem's own derivatives, asked for at θ and beside it."""
    weight = {"log_transition": trajectories.valid * 1.0, "reward_leader": trajectories.valid * 1.0}
    here = context.problem.pullback(context.theta, trajectories, weight, per_stream=True)
    beside = context.problem.pullback(context.theta + 0.5, trajectories, weight, per_stream=True)
    return here + beside + context.problem.regulariser_gradient(context.theta)


@pytest.mark.exact
def test_a_problem_is_traced_once_at_its_parameter():
    problem, theta = EXITS.problem, EXITS.theta
    seen = []

    def tables(at):
        seen.append(at)
        return problem.tables(at)

    plain = ConfigurableMDP(tables=tables, discount_leader=0.9, discount_follower=0.8, temperature=0.5)
    follower = solve_follower(plain, theta)
    before = derivative_reader(*_first_paths(plain, theta, follower))
    seen.clear()
    with plain.derivatives.cache.keeping(theta):
        assert np.array_equal(derivative_reader(*_first_paths(plain, theta, follower)), before)
        first = len(seen)
        for name, value in plain.jacobian(theta).items():
            value[:] = 7.0  # what was handed out is the caller's own
            getattr(plain.tables_at(theta), name)[...] = 0.5
        assert np.array_equal(derivative_reader(*_first_paths(plain, theta, follower)), before)
    assert len(seen) - first < first  # what was asked beside θ is not kept
    assert "kept" not in plain.derivatives.cache


def _first_paths(problem, theta, follower):
    batch = sample_trajectories(problem, theta, follower, streams=4, steps=3, rng=np.random.default_rng(0))
    return batch, Context(problem=problem, theta=theta, follower=follower)


@pytest.mark.exact
def test_what_is_kept_is_forgotten_when_the_tables_have_changed():
    scale, theta, kept = [1.0], np.array([0.3]), {}

    def tables(at):
        return Tables(
            transition=np.ones((1, 2, 1)),
            reward_follower=np.zeros((1, 2)),
            reward_leader=scale[0] * anp.reshape(anp.concatenate([at, -at]), (1, 2)),
            initial=np.ones(1),
        )

    problem = ConfigurableMDP(tables=tables, discount_leader=0.5, discount_follower=0.5, temperature=1.0)
    for expected in (1.0, 3.0):
        scale[0] = expected
        with problem.derivatives.cache.keeping(theta, kept):
            assert problem.tables_at(theta).reward_leader[0, 0] == pytest.approx(0.3 * expected, rel=1e-15)
            assert problem.jacobian(theta)["reward_leader"].ravel() == pytest.approx([expected, -expected], rel=1e-15)


@pytest.mark.exact
@pytest.mark.parametrize("shared", [False, True])
def test_rows_in_a_buffer_that_is_used_again_are_right(shared):
    problem, theta = ENDING.problem, ENDING.theta
    buffer = {}

    def estimator(trajectories, context):
        rows = np.repeat(leader_return(trajectories, context)[:, :1], theta.size, axis=1)
        kept = buffer.setdefault(len(rows), np.empty_like(rows)) if shared else np.empty_like(rows)
        kept[:] = rows
        return kept

    def forgetful(trajectories, context):
        """Halves its answer at every call, in the same array."""
        rows = estimator(trajectories, context)
        forgetful.calls += 1
        rows /= 2.0**forgetful.calls
        return rows

    forgetful.calls = 0
    found = enumerate_moments(estimator, problem, theta, horizon=3)
    expected = enumerate_moments(leader_return_alone, problem, theta, horizon=3)
    assert np.array_equal(found.mean, expected.mean)
    with pytest.raises(EstimatorError, match="two calls"):
        enumerate_moments(forgetful, problem, theta, horizon=3)


def leader_return_alone(trajectories, context):
    return np.repeat(leader_return(trajectories, context)[:, :1], context.theta.size, axis=1)


@pytest.mark.exact
@pytest.mark.parametrize(("episodes", "error"), [(2**40, InvalidInputError), (30, TooLargeError)])
def test_more_episodes_than_can_be_listed_are_refused_by_name(episodes, error):
    problem = layered_mdp()
    with pytest.raises(error, match="episodes"):
        enumerate_moments(BCHG(), problem, np.zeros(3), horizon=3, episodes=episodes)
