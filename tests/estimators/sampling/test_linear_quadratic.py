"""Samples of linear-quadratic problems, and the scores of their terms."""

from dataclasses import replace

import numpy as np
import pytest
from lqr_contexts import THETA, context_of, one_dimensional

from bilevelrl.estimators import BCHG, Context, Objective, sample_trajectories
from bilevelrl.estimators.sampling.linear_quadratic import LQRSimulator
from bilevelrl.estimators.sampling.stopping import sample_stopped_trajectories
from bilevelrl.estimators.terms.answers import follower_terms
from bilevelrl.reference import LQRMatrices, hypergradient, named_stream, solve_follower
from bilevelrl.reference.errors import EstimatorError, InvalidInputError, SupportError, UnsupportedError
from bilevelrl.tasks import building_thermal_control, random_lqr, random_lqr_game
from bilevelrl.verification.enumeration.quadrature import quadrature_moments

# --- samples ------------------------------------------------------------------------------------------------------


@pytest.mark.statistical
def test_samples_have_the_moments_of_quadrature():
    """Each coordinate's z-score below 5 (error rate 6e-7 each), for a batch that sees biases of a few per cent."""
    problem = one_dimensional()
    context = context_of(problem)
    estimator = BCHG(target=Objective(horizon=2), critic="exact_truncated", scores="td_error")
    exact = quadrature_moments(estimator, problem, THETA, horizon=2, nodes=7)
    batch = estimator.sample(
        problem, THETA, context.follower, streams=40_000, steps=2, rng=named_stream(7, "quadrature against samples")
    )
    rows = estimator(batch, context)
    error = exact.standard_deviation / np.sqrt(len(rows))
    assert (np.abs(rows.mean(axis=0) - exact.mean) <= 5.0 * error).all()
    assert error.max() < 0.05 * np.abs(exact.mean).max()
    np.testing.assert_allclose(rows.std(axis=0), exact.standard_deviation, rtol=0.1)
    np.testing.assert_allclose(estimator.estimate(batch, context).mean, rows.mean(axis=0), rtol=1e-10)


@pytest.mark.statistical
def test_geometric_stopping_meets_the_infinite_horizon():
    problem = one_dimensional(discount_leader=0.5, discount_follower=0.5)
    context = context_of(problem)
    estimator = BCHG(stopping="sum", scores="td_error")
    truth = hypergradient(problem, THETA)
    batch = sample_stopped_trajectories(
        problem, THETA, context.follower, streams=40_000, rng=named_stream(7, "geometric stopping")
    )
    rows = estimator(batch, context)
    error = rows.std(axis=0) / np.sqrt(len(rows))
    assert (np.abs(rows.mean(axis=0) - truth.value) <= 5.0 * error).all()
    assert error.max() < 0.1 * np.abs(truth.value).max()


def test_sampled_values_fit_the_model():
    problem = random_lqr(seed=4)
    context = context_of(problem)
    batch = sample_trajectories(problem, THETA, context.follower, streams=50, steps=6, rng=np.random.default_rng(0))
    m = problem.matrices_at(THETA)
    quadratic = -np.vecdot(batch.state_t @ m.cost_state_leader, batch.state_t)
    quadratic -= np.vecdot(batch.action_t @ m.cost_action_leader, batch.action_t) + m.cost_constant_leader
    np.testing.assert_allclose(batch.reward_leader_t, quadratic, rtol=1e-12)
    np.testing.assert_array_equal(batch.state_t[:, 1:], batch.state_tp1[:, :-1])
    assert batch.truncated[:, -1].all()
    assert not batch.terminated.any()
    # The baseline is the mean of V_F at the next state: averaged over the disturbance by an exact rule.
    points, weights = np.polynomial.hermite_e.hermegauss(3)
    root = np.linalg.cholesky(m.noise_covariance)
    mean = batch.state_t @ m.dynamics_state.T + batch.action_t @ m.dynamics_action.T
    normals = np.stack(np.meshgrid(points, points, points), axis=-1).reshape(-1, 3)
    masses = np.prod(np.stack(np.meshgrid(weights, weights, weights), axis=-1).reshape(-1, 3), axis=1)
    values = context.follower.value_at(mean[..., None, :] + normals @ root.T)
    expected = problem.discount_follower * values @ (masses / masses.sum())
    plain, centred = (follower_terms(context, batch, centred=each)[1]["log_transition"] for each in (False, True))
    np.testing.assert_allclose(plain, problem.discount_follower * context.follower.value_at(batch.state_tp1))
    np.testing.assert_allclose(plain - centred, expected, rtol=1e-10)


def test_several_episodes_follow_each_other():
    problem, theta = building_thermal_control(), np.zeros(8)
    follower = solve_follower(problem, theta)
    simulator = LQRSimulator(single_episode=False, step_limit=100)
    batch = sample_trajectories(
        problem, theta, follower, streams=2, steps=300, rng=np.random.default_rng(0), simulator=simulator
    )
    assert batch.episode_starts.sum() == 6
    assert batch.truncated.sum() == 6
    assert (batch.time_in_episode.max(axis=1) == 99).all()
    assert not np.array_equal(batch.state_tp1[:, 99], batch.state_t[:, 100])


def test_clipping_is_off_and_binds_when_on():
    problem, theta = building_thermal_control(), np.zeros(8)
    follower = solve_follower(problem, theta)

    def batch(simulator):
        return sample_trajectories(
            problem, theta, follower, streams=200, steps=30, rng=np.random.default_rng(3), simulator=simulator
        )

    free, wide = batch(None), batch(LQRSimulator(state_limit=30.0))
    np.testing.assert_array_equal(free.state_t, wide.state_t)  # the published limit never binds
    narrow, truncated = batch(LQRSimulator(state_limit=1.0)), batch(LQRSimulator(state_limit=1.0, truncated_noise=True))
    assert np.abs(narrow.state_tp1).max() > 1.0
    assert np.abs(truncated.state_tp1).max() <= 1.0
    context = Context(problem=problem, theta=theta, follower=follower, simulator=LQRSimulator(state_limit=1.0))
    with pytest.raises(EstimatorError, match="unclipped"):
        BCHG().expectation(context, horizon=3)


@pytest.mark.parametrize(
    "options",
    [{"state_limit": 0.0}, {"truncated_noise": True}, {"step_limit": 0}, {"single_episode": False}],
)
def test_simulators_refuse_contradictions(options):
    with pytest.raises(InvalidInputError):
        LQRSimulator(**options)


# --- scores -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("term", ["reward_leader", "reward_follower", "log_transition", "log_initial"])
def test_pullbacks_are_derivatives_of_the_terms(term):
    problem = random_lqr(states=2, actions=2, seed=5)
    context = context_of(problem)
    batch = sample_trajectories(problem, THETA, context.follower, streams=3, steps=2, rng=np.random.default_rng(0))
    weight = np.random.default_rng(1).standard_normal((3, 2))

    def density(off, covariance):
        _, size = np.linalg.slogdet(covariance)
        return -0.5 * (np.vecdot(off @ np.linalg.inv(covariance), off) + size)

    def value(theta):
        m = problem.matrices_at(theta)
        if term == "reward_leader":
            entries = m.reward_leader(batch.state_t, batch.action_t)
        elif term == "reward_follower":
            entries = -np.vecdot(batch.state_t @ m.cost_state_follower, batch.state_t)
            entries -= np.vecdot(batch.action_t @ m.cost_action_follower, batch.action_t)
        elif term == "log_transition":
            mean = batch.state_t @ m.dynamics_state.T + batch.action_t @ m.dynamics_action.T
            entries = density(batch.state_tp1 - mean, m.noise_covariance)
        else:
            entries = density(batch.state_t - m.initial_mean, m.initial_covariance)
        return np.sum(weight * entries)

    pulled = problem.pullback(THETA, batch, {term: weight})
    per_stream = problem.pullback(THETA, batch, {term: weight}, per_stream=True)
    np.testing.assert_allclose(per_stream.sum(axis=0), pulled, rtol=1e-10)
    step = 1e-5
    differences = [(value(THETA + step * e) - value(THETA - step * e)) / (2.0 * step) for e in np.eye(3)]
    np.testing.assert_allclose(pulled, differences, rtol=1e-6, atol=1e-6 * np.abs(pulled).max())


def test_the_leader_policy_of_a_game_has_its_score():
    game = random_lqr_game(seed=5, leader_actions=2)
    follower = solve_follower(game, THETA)
    batch = LQRSimulator().sample(game, THETA, follower, streams=3, steps=2, rng=np.random.default_rng(0))
    np.testing.assert_allclose(batch.reward_leader_t, game.reward_leader(batch.state_t))
    weight = np.random.default_rng(1).standard_normal((3, 2))

    def value(theta):
        policy = game.policy_at(theta)
        off = batch.leader_action_t - batch.state_t @ policy.gain.T
        _, size = np.linalg.slogdet(policy.covariance)
        return np.sum(weight * -0.5 * (np.vecdot(off @ np.linalg.inv(policy.covariance), off) + size))

    pulled = game.pullback(THETA, batch, {"log_policy_leader": weight})
    per_stream = game.pullback(THETA, batch, {"log_policy_leader": weight}, per_stream=True)
    np.testing.assert_allclose(per_stream.sum(axis=0), pulled, rtol=1e-10)
    differences = [(value(THETA + 1e-5 * e) - value(THETA - 1e-5 * e)) / 2e-5 for e in np.eye(3)]
    np.testing.assert_allclose(pulled, differences, rtol=1e-6, atol=1e-6 * np.abs(pulled).max())


def test_scores_without_density_are_refused():
    problem = one_dimensional()
    silent = replace(
        problem,
        matrices=lambda theta: LQRMatrices(
            **(problem.matrices(theta).differentiable() | {"noise_covariance": np.zeros((1, 1))})
        ),
    )
    context = context_of(silent)
    batch = sample_trajectories(silent, THETA, context.follower, streams=2, steps=2, rng=np.random.default_rng(0))
    with pytest.raises(SupportError, match="noise_covariance"):
        BCHG().estimate(batch, context)
    with pytest.raises(UnsupportedError, match="leader policy"):
        problem.pullback(THETA, batch, {"log_policy_leader": np.ones((2, 2))})
