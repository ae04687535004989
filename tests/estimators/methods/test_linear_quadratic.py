"""Estimators on linear-quadratic problems: exact expectations, quadrature, planted mistakes, samples and critics."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bilevelrl.estimators import BCHG, ESTIMATORS, Context, NaivePGD, Objective, sample_trajectories
from bilevelrl.estimators.critics.quadratic import QuadraticCritic, fit_lstd_critic
from bilevelrl.estimators.methods.pathwise import PathwiseBCHG
from bilevelrl.estimators.registry import estimators_for
from bilevelrl.estimators.sampling.linear_quadratic import LQRSimulator
from bilevelrl.estimators.sampling.stopping import sample_stopped_trajectories
from bilevelrl.estimators.terms.answers import follower_terms
from bilevelrl.reference import ConfigurableLQR, LQRMatrices, hypergradient, named_stream, solve_follower
from bilevelrl.reference.errors import EstimatorError, InvalidInputError, SupportError, TooLargeError, UnsupportedError
from bilevelrl.tasks import building_thermal_control, random_lqr, random_lqr_game, random_mdp
from bilevelrl.verification.enumeration.quadrature import quadrature_moments, quadrature_trajectories
from bilevelrl.verification.enumeration.quadrature_truths import soft_bellman_residual

THETA = np.array([0.3, -0.2, 0.1])


def context_of(problem, theta=THETA, **changes):
    return Context(problem=problem, theta=theta, follower=solve_follower(problem, theta), **changes)


def one_dimensional(seed=1, **changes):
    return random_lqr(states=1, actions=1, seed=seed, **changes)


def worst(found, truth):
    size = max(np.abs(part).max() for part in truth.values())
    return max(np.abs(found[name] - part).max() for name, part in truth.items()) / size


# --- expectations -------------------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(st.integers(1, 4), st.integers(1, 2), st.integers(0, 10_000))
def test_long_streams_are_unbiased_on_drawn_problems(states, actions, seed):
    """The closed-form expectation tends to the hypergradient, part by part: Theorem 1 without a solver's derivative."""
    problem = random_lqr(states=states, actions=actions, seed=seed, discount_leader=0.7, discount_follower=0.8)
    context = context_of(problem)
    truth = hypergradient(problem, THETA)
    assert worst(BCHG().expectation(context, horizon=250), truth.parts) <= 1e-11
    geometric = BCHG(stopping="sum")
    assert worst(geometric.expectation(context, horizon=1), truth.parts) <= 1e-11
    naive = NaivePGD().expectation(context, horizon=250)
    assert "response" not in naive
    assert worst(naive, {name: part for name, part in truth.parts.items() if name != "response"}) <= 1e-11
    short = hypergradient(problem, THETA, horizon=4)
    truncated = BCHG(target=Objective(horizon=4), critic="exact_truncated")
    assert worst(truncated.expectation(context, horizon=250), short.parts) <= 1e-11


def test_short_streams_lose_what_the_expectation_says():
    context = context_of(random_lqr(seed=1, discount_follower=0.95))
    estimator = BCHG(target=Objective(horizon=4), critic="exact_truncated")
    truth = hypergradient(context.problem, THETA, horizon=4)
    losses = [worst(estimator.expectation(context, horizon=steps), truth.parts) for steps in (4, 8, 16)]
    assert losses[0] > losses[1] > losses[2]
    assert losses[0] > 1e-3


def test_the_building_is_unbiased_in_long_episodes():
    problem, theta = building_thermal_control(), np.zeros(8)
    context = context_of(problem, theta)
    truth = hypergradient(problem, theta)
    assert worst(BCHG().expectation(context, horizon=450), truth.parts) <= 1e-11
    lost = worst(BCHG().expectation(context, horizon=100), truth.parts)
    assert 1e-8 < lost < 1e-4  # what episodes of 100 steps cost the published estimator


# --- quadrature ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scores", ["value", "td_error"])
@pytest.mark.parametrize("critic", ["exact", "exact_truncated"])
def test_quadrature_is_the_declared_expectation(seed, scores, critic):
    problem = one_dimensional(seed)
    context = context_of(problem)
    target = Objective() if critic == "exact" else Objective(horizon=2)
    for estimator in (
        BCHG(target=target, critic=critic, scores=scores),
        NaivePGD(target=target, critic=critic, scores=scores),
    ):
        moments = quadrature_moments(estimator, problem, THETA, horizon=3, nodes=4)
        expected = estimator.expectation(context, horizon=3)
        assert worst(moments.parts, dict(expected)) <= 1e-10
        assert moments.probability == pytest.approx(1.0, abs=1e-12)
        assert moments.standard_deviation.max() > 0.1 * np.abs(moments.mean).max()  # a real estimator, not a constant


def test_quadrature_has_enough_nodes():
    """More nodes change neither mean nor covariance; fewer change both."""
    problem, estimator = one_dimensional(), BCHG()
    exact = quadrature_moments(estimator, problem, THETA, horizon=2, nodes=7)
    more = quadrature_moments(estimator, problem, THETA, horizon=2, nodes=9)
    np.testing.assert_allclose(more.mean, exact.mean, rtol=1e-10)
    np.testing.assert_allclose(more.covariance, exact.covariance, rtol=1e-8)
    fewer = quadrature_moments(estimator, problem, THETA, horizon=2, nodes=2)
    assert np.abs(fewer.mean - exact.mean).max() > 1e-4 * np.abs(exact.mean).max()


def test_without_a_future_bc_hg_is_exactly_unbiased():
    """With γ_F = 0 one step is the whole suffix: quadrature alone meets the hypergradient, no expectation between."""
    problem = one_dimensional(discount_follower=0.0)
    estimator = BCHG(target=Objective(horizon=3), critic="exact_truncated")
    moments = quadrature_moments(estimator, problem, THETA, horizon=3, nodes=4)
    truth = hypergradient(problem, THETA, horizon=3)
    assert worst(moments.parts, truth.parts) <= 1e-10


def mutants(problem):
    """Followers with one mistake each."""
    right = solve_follower(problem, THETA)
    beta, discount = problem.temperature, problem.discount_follower
    m = problem.matrices_at(THETA)
    _, log_curvature = np.linalg.slogdet(right.riccati.curvature)
    scaled = replace(problem, discount_follower=1.0 - 2.0 * (1.0 - discount))
    other = solve_follower(scaled, THETA)
    seen = right.cost_to_go - right.cost_to_go @ m.dynamics_action @ right.riccati.reaction
    noise = np.vdot(right.cost_to_go - seen, m.noise_covariance) * discount / (1.0 - discount)
    return {
        "sign of the gain": replace(right, gain=-right.gain),
        "half the covariance": replace(right, covariance=0.5 * right.covariance),
        "another discount in the Riccati equation": replace(other, offset=right.offset),
        "an observed disturbance": replace(right, offset=right.offset - float(noise)),
        "sign of the log-determinant": replace(
            right, offset=right.offset - beta * float(log_curvature) / (1.0 - discount)
        ),
    }


@pytest.mark.parametrize("name", sorted(mutants(one_dimensional())))
def test_planted_mistakes_are_caught(name):
    """Wrong policies move BC-HG off the truth; wrong values fail the soft Bellman equation; nothing right fails."""
    problem = one_dimensional(discount_leader=0.5, discount_follower=0.5)
    truth, estimator = (
        hypergradient(problem, THETA, horizon=2),
        BCHG(target=Objective(horizon=2), critic="exact_truncated"),
    )
    states = np.linspace(-2.0, 2.0, 5)[:, None]
    right, wrong = solve_follower(problem, THETA), mutants(problem)[name]

    def bias(follower):
        context = Context(problem=problem, theta=THETA, follower=follower)
        return worst(estimator.expectation(context, horizon=90), truth.parts)

    def off_density(follower):
        """Largest error of log π against (Q - V)/β, where V is found by quadrature."""
        action = follower.mean(states) + 0.3
        m, p = problem.matrices_at(THETA), follower.cost_to_go
        ahead = states @ m.dynamics_state.T + action @ m.dynamics_action.T
        value_tp1 = follower.value_at(ahead) - np.vdot(p, m.noise_covariance)
        q = -np.vecdot(states @ m.cost_state_follower, states) - np.vecdot(action @ m.cost_action_follower, action)
        value = follower.value_at(states) + soft_bellman_residual(problem, THETA, follower, states)
        log_density = (q + problem.discount_follower * value_tp1 - value) / problem.temperature
        return np.abs(log_density - follower.log_prob(states, action)).max()

    def bellman(follower):
        return np.abs(soft_bellman_residual(problem, THETA, follower, states)).max()

    assert bias(right) <= 1e-11
    assert off_density(right) <= 1e-10
    assert bellman(right) <= 1e-11
    # The offset v has mean zero against scores, so mistakes in it are the Bellman equation's to find.
    found = {
        "sign of the gain": bias(wrong) > 1e-2 and off_density(wrong) > 1e-2,
        "half the covariance": bias(wrong) > 1e-2 and off_density(wrong) > 1e-2,
        "another discount in the Riccati equation": bias(wrong) > 1e-3 and bellman(wrong) > 1e-3,
        "an observed disturbance": bellman(wrong) > 1e-3 and bias(wrong) <= 1e-11,
        "sign of the log-determinant": bellman(wrong) > 1e-3 and bias(wrong) <= 1e-11,
    }
    assert found[name]


def test_quadrature_refuses_what_is_too_large():
    with pytest.raises(TooLargeError, match="paths"):
        quadrature_moments(BCHG(), random_lqr(seed=0), THETA, horizon=3)
    with pytest.raises(EstimatorError, match="per trajectory"):
        quadrature_moments(BCHG(normalisation="episodes"), one_dimensional(), THETA, horizon=2)
    with pytest.raises(InvalidInputError, match="actions"):
        soft_bellman_residual(random_lqr(seed=0), THETA, solve_follower(random_lqr(seed=0), THETA), np.eye(3))


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


# --- pathwise derivatives -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("horizon", [None, 2])
def test_pathwise_derivatives_have_the_mean_of_scores_and_less_variance(seed, horizon):
    problem = one_dimensional(seed)
    context, target = context_of(problem), Objective(horizon=horizon)
    options = {"target": target, "critic": "exact" if horizon is None else "exact_truncated"}
    smooth, scored = PathwiseBCHG(**options), BCHG(**options)
    moments = quadrature_moments(smooth, problem, THETA, horizon=2, nodes=5)
    assert worst(moments.parts, dict(scored.expectation(context, horizon=2))) <= 1e-11
    other = quadrature_moments(scored, problem, THETA, horizon=2, nodes=7)
    assert (moments.standard_deviation < other.standard_deviation).all()


def test_pathwise_derivatives_need_what_they_differentiate():
    problem = one_dimensional()
    context = context_of(problem)
    batch = sample_trajectories(problem, THETA, context.follower, streams=3, steps=3, rng=np.random.default_rng(0))
    weight = np.random.default_rng(1).standard_normal((3, 3, 1))
    pulled = problem.pullback(THETA, batch, {"path_transition": weight})
    per_stream = problem.pullback(THETA, batch, {"path_transition": weight}, per_stream=True)
    np.testing.assert_allclose(per_stream.sum(axis=0), pulled, rtol=1e-10)
    deviation = np.sqrt(problem.matrices_at(THETA).noise_covariance[0, 0])
    m = problem.matrices_at(THETA)
    noise = (batch.state_tp1 - batch.state_t * m.dynamics_state - batch.action_t * m.dynamics_action) / deviation

    def moved(theta):
        m = problem.matrices_at(theta)
        path = batch.state_t * m.dynamics_state + batch.action_t * m.dynamics_action
        return np.sum(weight * (path + np.sqrt(m.noise_covariance) * noise))

    differences = [(moved(THETA + 1e-5 * e) - moved(THETA - 1e-5 * e)) / 2e-5 for e in np.eye(3)]
    np.testing.assert_allclose(pulled, differences, rtol=1e-6, atol=1e-8)
    with pytest.raises(UnsupportedError, match="ConfigurableLQR"):
        PathwiseBCHG().estimate(batch, replace(context, problem=random_mdp(seed=0)))


@pytest.mark.statistical
def test_what_scores_cost_on_the_building():
    """Per-episode standard deviations: raw scores drown the transition term, differences of values do not."""
    problem, theta = building_thermal_control(), np.zeros(8)
    context = context_of(problem, theta)
    batch = sample_trajectories(
        problem, theta, context.follower, streams=2000, steps=100, rng=named_stream(1, "building scores")
    )
    exact = np.linalg.norm(hypergradient(problem, theta).parts["transition"])
    spread = {}
    for name, estimator in (("raw", NaivePGD()), ("centred", NaivePGD(scores="td_error")), ("path", PathwiseBCHG())):
        rows = estimator.parts_per_draw(batch, context)["transition"]
        spread[name] = np.linalg.norm(rows.std(axis=0)) / np.sqrt(100)
    # Root-mean-square errors of batches of 100 episodes; the exact part is 24.8 long.
    assert exact == pytest.approx(24.77, abs=0.01)
    assert spread["raw"] == pytest.approx(580.0, rel=0.1)
    assert spread["centred"] == pytest.approx(4.3, rel=0.1)
    assert spread["path"] < spread["centred"]


SERVED = {"bc_hg_td", "bc_hg_monte_carlo", "bc_hg_game", "bc_hg_game_geometric", "policy_gradient"}
SERVED |= set(estimators_for(ConfigurableLQR))


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_every_registered_estimator_serves_the_problem_or_says_that_it_does_not(name):
    problem = random_lqr(seed=0)
    context = context_of(problem, rng=np.random.default_rng(0))
    context = replace(context, critic=QuadraticCritic.solve(context))
    batch = sample_trajectories(problem, THETA, context.follower, streams=3, steps=40, rng=np.random.default_rng(0))
    estimator = ESTIMATORS[name].make(Objective())
    if name in SERVED:
        if estimator.stopping is not None:
            batch = estimator.sample(
                problem, THETA, context.follower, streams=3, steps=40, rng=np.random.default_rng(0)
            )
        assert np.isfinite(estimator.estimate(batch, context).mean).all()
    else:
        with pytest.raises(UnsupportedError):
            estimator.estimate(batch, context)
