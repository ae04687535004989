"""Hypergradient methods for configurable LQRs beyond BC-HG: HPGD with learnt gradients, closed-form covariances."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bilevelrl.estimators import BCHG, Claim, Context, NaivePGD, Objective, sample_trajectories
from bilevelrl.estimators.critics.least_squares import QuadraticRegression
from bilevelrl.estimators.critics.quadratic import QuadraticCritic, fit_lstd_critic
from bilevelrl.estimators.critics.quadratic_gradients import (
    QuadraticGradientCritic,
    QuadraticStateGradient,
    fit_lstd_gradient,
    score_rewards,
)
from bilevelrl.estimators.methods.hpgd import HPGD
from bilevelrl.estimators.methods.pathwise import PathwiseBCHG
from bilevelrl.estimators.methods.policy_covariance import PolicyCovariance
from bilevelrl.estimators.sums.single_transitions import single_derivatives
from bilevelrl.estimators.terms.batched import SeedBatch
from bilevelrl.reference import LQRMatrices, hypergradient, named_stream, solve_follower
from bilevelrl.reference.errors import EstimatorError, InvalidInputError, UnknownNameError, UnsupportedError
from bilevelrl.tasks import building_thermal_control, four_rooms, layered_mdp, random_lqr, random_mdp
from bilevelrl.verification.enumeration.quadrature import quadrature_moments

THETA = np.array([0.3, -0.2, 0.1])


def context_of(problem, theta=THETA, **changes):
    return Context(problem=problem, theta=theta, follower=solve_follower(problem, theta), **changes)


def one_dimensional(seed=1, **changes):
    return random_lqr(states=1, actions=1, seed=seed, **changes)


def worst(found, truth):
    size = max(np.abs(part).max() for part in truth.values())
    return max(np.abs(found[name] - part).max() for name, part in truth.items()) / size


# --- critics of the gradient --------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(st.integers(1, 3), st.integers(1, 2), st.integers(0, 10_000))
def test_the_exact_gradient_critic_is_the_derivative_of_the_value(states, actions, seed):
    """Against the complex-free route: Richardson differences of V_F, θ in every matrix."""
    problem = random_lqr(states=states, actions=actions, seed=seed)
    state = np.linspace(-1.0, 1.5, states)
    exact = QuadraticGradientCritic.solve(context_of(problem)).value(state)

    def value(theta):
        return solve_follower(problem, theta).value_at(state)

    def difference(unit, step):
        return (value(THETA + step * unit) - value(THETA - step * unit)) / (2.0 * step)

    found = [(4.0 * difference(unit, 5e-4) - difference(unit, 1e-3)) / 3.0 for unit in np.eye(3)]
    np.testing.assert_allclose(exact, found, rtol=1e-7, atol=1e-7 * np.abs(exact).max())


def test_the_average_over_the_policy_is_one_over_actions():
    problem = one_dimensional()
    context = context_of(problem)
    critic, state = QuadraticGradientCritic.solve(context), np.array([0.7])
    points, weights = np.polynomial.hermite_e.hermegauss(4)
    played = context.follower.mean(state) + np.sqrt(context.follower.covariance[0, 0]) * points
    found = weights / weights.sum() @ critic.action_value(np.full((4, 1), 0.7), played[:, None])
    np.testing.assert_allclose(critic.value(state), found, rtol=1e-12)
    np.testing.assert_allclose(critic.over_policy().value(state), found, rtol=1e-12)


def without_noise(problem):
    n = problem.matrices_at(THETA).states
    return replace(
        problem,
        matrices=lambda theta: LQRMatrices(
            **(problem.matrices(theta).differentiable() | {"noise_covariance": np.zeros((n, n))})
        ),
    )


@pytest.mark.parametrize("inputs", ["state", "state_action"])
def test_least_squares_recovers_the_gradients(inputs):
    """Without disturbance the regression on states and actions is exact; with it the error falls as 1/√n."""
    problem = random_lqr(states=2, actions=1, seed=3)
    silent = context_of(without_noise(problem))
    if inputs == "state_action":
        batch = sample_trajectories(
            silent.problem, THETA, silent.follower, streams=30, steps=3, rng=np.random.default_rng(0)
        )
        fitted, exact = fit_lstd_gradient(batch, silent), QuadraticGradientCritic.solve(silent)
        np.testing.assert_allclose(fitted.matrices, exact.matrices, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(fitted.offsets, exact.offsets, rtol=1e-7, atol=1e-8)
    context = context_of(problem)
    exact = QuadraticGradientCritic.solve(context)
    truth = exact if inputs == "state_action" else exact.over_policy()
    errors = {"expected": [], "score": []}
    for rewards, found in errors.items():
        for streams in (400, 20_000):
            rng, squares = named_stream(5, "gradient"), []
            for _ in range(8):
                batch = sample_trajectories(problem, THETA, context.follower, streams=streams, steps=4, rng=rng)
                fitted = fit_lstd_gradient(batch, context, rewards=rewards, inputs=inputs)
                squares.append(np.sum((fitted.matrices - truth.matrices) ** 2))
            found.append(np.sqrt(np.mean(squares)))
        assert 0.07 < found[1] / found[0] < 0.28  # 0.14 in theory
    assert errors["expected"][1] < errors["score"][1]


def test_both_rewards_have_one_mean():
    """Scores times values ahead average to the derivative of the expected value ahead."""
    problem = one_dimensional()
    context = context_of(problem)
    from bilevelrl.estimators.critics.quadratic_gradients import StepGradient, _quadratic
    from bilevelrl.verification.enumeration.quadrature import quadrature_trajectories

    batch, weight = quadrature_trajectories(problem, THETA, context.follower, horizon=1, nodes=5)
    step = StepGradient.of(context)
    expected = _quadratic(np.concatenate([batch.state_t, batch.action_t], axis=-1), step.matrices, step.offsets)
    sampled = score_rewards(batch, context)
    for power in (0, 2):  # also weighed by a feature of the state
        feature = weight[:, None] * batch.state_t[:, 0] ** power
        np.testing.assert_allclose((feature * sampled[:, 0]).sum(0), (feature * expected[:, 0]).sum(0), rtol=1e-11)


# --- HPGD ---------------------------------------------------------------------------------------------------------


def a_wrong_baseline(context):
    exact = QuadraticGradientCritic.solve(context).over_policy()
    return QuadraticStateGradient(matrices=0.5 * exact.matrices + 1.0, offsets=exact.offsets - 2.0)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("wrong", [False, True])
@pytest.mark.parametrize("horizon", [None, 2])
def test_quadrature_is_what_hpgd_declares(seed, wrong, horizon):
    """The benefit forgives every baseline; the raw action value pays exactly what is declared."""
    problem = one_dimensional(seed)
    context = context_of(problem)
    baseline = a_wrong_baseline(context) if wrong else None
    context = replace(context, follower_gradient=baseline)
    options = {"target": Objective(horizon=horizon), "critic": "exact" if horizon is None else "exact_truncated"}
    plain = BCHG(**options).expectation(context, horizon=2)
    for factor in ("benefit", "action_value"):
        estimator = HPGD(variant="critic", factor=factor, **options)
        expected = estimator.expectation(context, horizon=2)
        moments = quadrature_moments(estimator, problem, THETA, horizon=2, nodes=5, follower_gradient=baseline)
        assert worst(moments.parts, dict(expected)) <= 1e-10
        apart = worst({"response": expected["response"]}, {"response": plain["response"]})
        assert (apart <= 1e-12) if factor == "benefit" else (apart > 1e-3)


def test_the_raw_action_value_is_right_in_the_limit_alone():
    """With the exact ∇V_F and long streams the raw Q_L declares the truth; with another baseline it never does."""
    problem = one_dimensional(discount_leader=0.7, discount_follower=0.8)
    context, truth = (
        context_of(problem),
        hypergradient(one_dimensional(discount_leader=0.7, discount_follower=0.8), THETA),
    )
    estimator = HPGD(variant="critic", factor="action_value")
    assert worst(estimator.expectation(context, horizon=250), truth.parts) <= 1e-11
    wrong = replace(context, follower_gradient=a_wrong_baseline(context))
    assert worst(estimator.expectation(wrong, horizon=250), truth.parts) > 1e-2


def test_the_return_of_the_same_suffix_uses_samples_twice():
    problem = one_dimensional(discount_leader=0.7, discount_follower=0.8)
    context = context_of(problem)
    options = {"target": Objective(horizon=2), "critic": "exact_truncated"}
    returned = quadrature_moments(
        HPGD(variant="critic", factor="return", **options), problem, THETA, horizon=2, nodes=7
    )
    raw = quadrature_moments(
        HPGD(variant="critic", factor="action_value", **options), problem, THETA, horizon=2, nodes=7
    )
    assert worst(returned.parts, raw.parts) > 1e-2
    with pytest.raises(EstimatorError):
        HPGD(variant="critic", factor="return", largest_score=1.0).expectation(context, horizon=2)


def test_claims_follow_from_the_options():
    assert HPGD(variant="critic").claim is Claim.UNBIASED
    assert HPGD(variant="critic", factor="action_value").claim is Claim.DECLARED
    assert HPGD(variant="critic", factor="return").claim is Claim.MEASURED
    assert BCHG(largest_score=1.0).claim is Claim.MEASURED
    assert PolicyCovariance().claim is Claim.UNBIASED
    with pytest.raises(UnknownNameError):
        HPGD(variant="critic", factor="q")
    with pytest.raises(InvalidInputError, match="stopping"):
        HPGD(variant="critic", stopping="sum")
    with pytest.raises(InvalidInputError, match="stopping"):
        PolicyCovariance(stopping="sum")
    with pytest.raises(InvalidInputError, match="factor"):
        HPGD(factor="return")


# --- shortened scores ---------------------------------------------------------------------------------------------


def test_shortened_scores_are_shortened_one_by_one():
    problem, theta = building_thermal_control(), np.zeros(8)
    context = context_of(problem, theta)
    batch = sample_trajectories(problem, theta, context.follower, streams=3, steps=4, rng=np.random.default_rng(0))
    free, loose = NaivePGD(), NaivePGD(largest_score=np.inf)
    np.testing.assert_allclose(loose(batch, context), free(batch, context), rtol=1e-9)
    estimator = NaivePGD(largest_score=1.0, score_blocks=(4, 4))
    found = estimator.parts_per_draw(batch, context)["transition"]
    scores = single_derivatives(context, batch, "log_transition")
    value = QuadraticCritic.solve(context).value(batch.state_tp1)
    expected = np.zeros((3, 8))
    for stream in range(3):
        for t in range(4):
            for block in (slice(0, 4), slice(4, 8)):
                score = scores[stream, t, block]
                score = score / max(1.0, np.linalg.norm(score))
                expected[stream, block] += 0.9 ** (t + 1) * value[stream, t] * score
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert (np.linalg.norm(scores[..., :4], axis=-1) > 1.0).mean() > 0.5  # the limit binds
    with pytest.raises(EstimatorError, match="shortened"):
        estimator.expectation(context, horizon=3)
    with pytest.raises(InvalidInputError, match="score_blocks"):
        NaivePGD(score_blocks=(4, 4))


def test_shortened_scores_serve_tables_one_seed_at_a_time():
    tabular, zeros = random_mdp(seed=0), np.zeros(3)
    context = Context(problem=tabular, theta=zeros, follower=solve_follower(tabular, zeros))
    batch = sample_trajectories(tabular, zeros, context.follower, streams=3, steps=3, rng=np.random.default_rng(0))
    whole, short = (NaivePGD(largest_score=largest)(batch, context) for largest in (np.inf, 1e-3))
    np.testing.assert_allclose(whole, NaivePGD()(batch, context), rtol=1e-12)
    assert np.abs(short - whole).max() > 1e-2
    seeds = SeedBatch.solve(four_rooms(), np.zeros((1, 105)))
    paths = seeds.sample(streams=2, steps=3, rng=np.random.default_rng(0))
    with pytest.raises(UnsupportedError, match="seed after seed"):
        seeds.estimate(NaivePGD(critic="context", largest_score=1.0), paths, seeds.exact_critic())
    with pytest.raises(InvalidInputError, match="largest_score"):
        PathwiseBCHG(largest_score=1.0)
    with pytest.raises(InvalidInputError, match="leader_average"):
        NaivePGD(largest_score=1.0, leader_average="start_visits")


def test_what_shortening_scores_costs_in_bias():
    """On one dimension, by quadrature: the shortened partial term is not the partial derivative."""
    problem = one_dimensional()
    context = context_of(problem)
    moments = quadrature_moments(NaivePGD(largest_score=1.0), problem, THETA, horizon=2, nodes=9)
    truth = NaivePGD().expectation(context, horizon=2)
    assert worst(moments.parts, dict(truth)) > 1e-2


# --- the closed-form covariance -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_the_covariance_meets_the_hypergradient_by_quadrature(seed):
    """No follower's suffix is cut: two steps suffice for the truth of a horizon of two, which BC-HG does not reach."""
    problem = one_dimensional(seed)
    truth = hypergradient(problem, THETA, horizon=2)
    options = {"target": Objective(horizon=2), "critic": "exact_truncated"}
    moments = quadrature_moments(PolicyCovariance(**options), problem, THETA, horizon=2, nodes=5)
    assert worst(moments.parts, truth.parts) <= 1e-10
    assert moments.standard_deviation.max() > 0.1 * np.abs(moments.mean).max()
    assert worst(BCHG(**options).expectation(context_of(problem), horizon=2), truth.parts) > 1e-3


@settings(max_examples=15)
@given(st.integers(1, 4), st.integers(1, 2), st.integers(0, 10_000))
def test_the_covariance_declares_the_truth_for_long_streams(states, actions, seed):
    problem = random_lqr(states=states, actions=actions, seed=seed, discount_leader=0.7, discount_follower=0.8)
    context = context_of(problem)
    truth = hypergradient(problem, THETA)
    assert worst(PolicyCovariance().expectation(context, horizon=250), truth.parts) <= 1e-11


def test_given_the_states_it_is_the_conditional_expectation():
    """The response of each episode is Σ γ^t E_π[B ∇Q_F](x_t) / β at the visited states, by quadrature over actions."""
    problem = one_dimensional()
    context = context_of(problem)
    batch = sample_trajectories(problem, THETA, context.follower, streams=3, steps=4, rng=np.random.default_rng(0))
    found = PolicyCovariance().parts_per_draw(batch, context)["response"]
    leader, gradient = QuadraticCritic.solve(context), QuadraticGradientCritic.solve(context)
    points, weights = np.polynomial.hermite_e.hermegauss(5)
    actions = context.follower.mean(batch.state_t) + np.sqrt(context.follower.covariance[0, 0]) * points
    state = np.broadcast_to(batch.state_t[:, :, None], (3, 4, 5, 1))
    benefit = leader.action_value(state, actions[..., None]) - leader.value(batch.state_t)[..., None]
    product = benefit[..., None] * gradient.action_value(state, actions[..., None])
    averaged = np.einsum("k,mtkn->mtn", weights / weights.sum(), product)
    powers = problem.discount_leader ** np.arange(4) / problem.temperature
    np.testing.assert_allclose(found, np.einsum("t,mtn->mn", powers, averaged), rtol=1e-10)


@pytest.mark.statistical
def test_with_learnt_critics_the_error_on_the_building_falls_as_one_over_the_root_of_the_samples():
    problem, theta = building_thermal_control(), np.zeros(8)
    base = context_of(problem, theta)
    truth = hypergradient(problem, theta).value
    estimator = PolicyCovariance(critic="context")
    errors = []
    for streams in (10, 500):
        squares = []
        for batch_number in range(8):
            batch = sample_trajectories(
                problem, theta, base.follower, streams=streams, steps=100, rng=named_stream(3, streams, batch_number)
            )
            sums = QuadraticRegression.of(batch, base, weighting="precision")
            context = replace(
                base,
                critic=fit_lstd_critic(batch, base, regression=sums),
                follower_gradient=fit_lstd_gradient(batch, base, regression=sums),
            )
            squares.append(np.sum((estimator.estimate(batch, context).mean - truth) ** 2))
        errors.append(np.sqrt(np.mean(squares)))
    assert 0.07 < errors[1] / errors[0] < 0.28  # 0.14 in theory, each error known to a fifth
    assert errors[1] < 0.2 * np.linalg.norm(truth)


def test_it_needs_quadratic_critics_of_an_lqr():
    problem = one_dimensional()
    context = context_of(problem)
    batch = sample_trajectories(problem, THETA, context.follower, streams=3, steps=3, rng=np.random.default_rng(0))
    wrong = replace(context, follower_gradient=QuadraticGradientCritic.solve(context).over_policy())
    with pytest.raises(UnsupportedError, match="QuadraticGradientCritic"):
        PolicyCovariance().estimate(batch, wrong)
    with pytest.raises(EstimatorError, match="random"):
        PolicyCovariance().conditional_moments(batch, context)
    tabular, zeros = layered_mdp(seed=0), np.zeros(3)
    table = Context(problem=tabular, theta=zeros, follower=solve_follower(tabular, zeros))
    paths = sample_trajectories(tabular, zeros, table.follower, streams=3, steps=3, rng=np.random.default_rng(0))
    for estimator in (PolicyCovariance(), HPGD(variant="critic")):
        with pytest.raises(UnsupportedError, match="ConfigurableLQR"):
            estimator.estimate(paths, table)
