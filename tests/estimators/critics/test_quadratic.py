"""Critics of linear-quadratic problems: exact, and by least squares."""

from dataclasses import replace

import numpy as np
import pytest
from lqr_contexts import THETA, context_of, one_dimensional

from bilevelrl.estimators import BCHG, sample_trajectories
from bilevelrl.estimators.critics.quadratic import QuadraticCritic, fit_lstd_critic
from bilevelrl.reference import LQRMatrices, hypergradient, named_stream
from bilevelrl.reference.errors import EstimatorError, InvalidInputError
from bilevelrl.verification.enumeration.quadrature import quadrature_moments, quadrature_trajectories

# --- critics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("horizon", [None, 3])
def test_the_exact_critic_solves_its_bellman_equation(horizon):
    problem = one_dimensional(seed=2)
    context = context_of(problem)
    critic = QuadraticCritic.solve(context, horizon=horizon)
    batch, _ = quadrature_trajectories(problem, THETA, context.follower, horizon=1, nodes=4)
    state, action, m = batch.state_t[:, 0], batch.action_t[:, 0], problem.matrices_at(THETA)
    points, weights = np.polynomial.hermite_e.hermegauss(4)
    weights = weights / weights.sum()
    ahead = state @ m.dynamics_state.T + action @ m.dynamics_action.T
    drawn = ahead[..., None] + np.sqrt(m.noise_covariance[0, 0]) * points[:, None]
    after = None if horizon is None else horizon - 1
    expected = m.reward_leader(state, action) + problem.discount_leader * (
        critic.value(drawn, steps_to_go=after) @ weights
    )
    np.testing.assert_allclose(critic.action_value(state, action, steps_to_go=horizon), expected, rtol=1e-10)
    played = context.follower.mean(state)[..., None] + np.sqrt(context.follower.covariance[0, 0]) * points[:, None]
    averaged = critic.action_value(np.repeat(state[:, None], 4, axis=1), played, steps_to_go=horizon) @ weights
    np.testing.assert_allclose(critic.value(state, steps_to_go=horizon), averaged, rtol=1e-10)
    start = hypergradient(problem, THETA, horizon=horizon).objective - float(m.regulariser)
    first = m.initial_mean + np.sqrt(m.initial_covariance[0, 0]) * points[:, None]
    assert critic.value(first, steps_to_go=horizon) @ weights == pytest.approx(start, rel=1e-10)


def test_least_squares_recovers_the_true_critic():
    """Without disturbance every transition satisfies the Bellman equation exactly; with it the error shrinks."""
    problem = one_dimensional(seed=3)
    m = problem.matrices_at(THETA)
    silent = replace(
        problem,
        matrices=lambda theta: LQRMatrices(
            **(problem.matrices(theta).differentiable() | {"noise_covariance": np.zeros((1, 1))})
        ),
    )
    context = context_of(silent)
    batch = sample_trajectories(silent, THETA, context.follower, streams=20, steps=3, rng=np.random.default_rng(0))
    fitted, exact = fit_lstd_critic(batch, context), QuadraticCritic.solve(context)
    np.testing.assert_allclose(fitted.matrices, exact.matrices, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(fitted.offsets, exact.offsets, rtol=1e-8)
    noisy = context_of(problem)
    assert m.noise_covariance[0, 0] > 0.0
    errors = []
    for streams in (500, 50_000):
        batch = sample_trajectories(
            problem, THETA, noisy.follower, streams=streams, steps=3, rng=named_stream(5, "lstd")
        )
        errors.append(np.abs(fit_lstd_critic(batch, noisy).matrices - QuadraticCritic.solve(noisy).matrices).max())
    assert errors[1] < 0.5 * errors[0]
    with pytest.raises(EstimatorError, match="determine"):
        fit_lstd_critic(batch.select([0]), noisy)
    with pytest.raises(InvalidInputError, match="ridge"):
        fit_lstd_critic(batch, noisy, ridge=-1.0)


def test_a_learned_critic_enters_like_any_other():
    problem = one_dimensional()
    base = context_of(problem)
    batch = sample_trajectories(problem, THETA, base.follower, streams=4000, steps=6, rng=named_stream(2, "learned"))
    context = replace(base, critic=fit_lstd_critic(batch, base))
    estimator = BCHG(critic="context")
    expected = sum(estimator.expectation(context, horizon=3).values())
    moments = quadrature_moments(estimator, problem, THETA, horizon=3, nodes=4, critic=context.critic)
    np.testing.assert_allclose(moments.mean, expected, rtol=1e-9)
    exact = sum(BCHG().expectation(base, horizon=3).values())
    assert 1e-6 < np.abs(expected - exact).max() < 0.5 * np.abs(exact).max()
