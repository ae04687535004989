"""Estimators on linear-quadratic problems: expectations, quadrature and its planted mistakes, pathwise derivatives."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lqr_contexts import THETA, context_of, one_dimensional

from bilevelrl.estimators import BCHG, ESTIMATORS, Context, NaivePGD, Objective, sample_trajectories
from bilevelrl.estimators.critics.quadratic import QuadraticCritic
from bilevelrl.estimators.methods.pathwise import PathwiseBCHG
from bilevelrl.estimators.registry import estimators_for
from bilevelrl.reference import ConfigurableLQR, hypergradient, named_stream, solve_follower
from bilevelrl.reference.errors import EstimatorError, InvalidInputError, TooLargeError, UnsupportedError
from bilevelrl.tasks import building_thermal_control, random_lqr, random_mdp
from bilevelrl.verification.enumeration.quadrature import quadrature_moments
from bilevelrl.verification.enumeration.quadrature_truths import soft_bellman_residual


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
