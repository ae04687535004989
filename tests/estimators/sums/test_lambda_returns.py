"""λ-returns, and BC-HG with them: against mixtures written out, and by enumeration."""

from __future__ import annotations

import numpy as np
import pytest
from lambda_cases import DECAYS, SMALL, TRAJECTORY, context_of

from bilevelrl.estimators import (
    BCHG,
    ESTIMATORS,
    Claim,
    Context,
    LambdaBCHG,
    Objective,
    SarsaCritic,
    TableCritic,
    TabularSimulator,
    sample_trajectories,
)
from bilevelrl.estimators.critics.gradient_tables import GradientTable, follower_steps
from bilevelrl.estimators.critics.sarsa import sarsa_pass
from bilevelrl.estimators.critics.sarsa_lambda import SarsaLambdaCritic
from bilevelrl.estimators.sums.lambda_returns import bootstrap_shares, lambda_returns
from bilevelrl.reference import hypergradient, solve_follower
from bilevelrl.reference.errors import (
    EstimatorError,
    InvalidInputError,
    ShapeError,
    UnknownNameError,
    UnsupportedError,
)
from bilevelrl.tasks import garnet, random_lqr, random_markov_game
from bilevelrl.verification import enumerate_moments
from bilevelrl.verification.mutants.catalogue import MUTANTS
from bilevelrl.verification.mutants.lambda_returns import LambdaFormula


@pytest.fixture(scope="module")
def several_episodes():
    """Streams that hold several episodes, some cut by a step limit, on a problem that also ends by itself."""
    problem = garnet(states=4, actions=2, branching=2, parameters=3, seed=3, termination=0.2)
    theta = np.full(3, 0.3)
    context = context_of(problem, theta)
    batch = sample_trajectories(
        problem,
        theta,
        context.follower,
        streams=6,
        steps=15,
        rng=np.random.default_rng(1),
        simulator=TabularSimulator(single_episode=False, step_limit=4),
    )
    assert batch.terminated.any()
    assert batch.truncated.any()
    return context, batch


def mixture(batch, increments, ahead, discount, decay):
    """λ-returns from n-step sums, one by one."""
    result = np.zeros_like(increments)
    for m in range(batch.streams):
        for t in np.flatnonzero(batch.valid[m]):
            total, weights, n = np.zeros(increments.shape[2]), 0.0, 0
            while True:
                k = t + n
                total = total + discount**n * increments[m, k]
                more = k + 1 < batch.steps and batch.valid[m, k + 1] and batch.time_in_episode[m, k + 1] > 0
                share = (1.0 - decay) * decay**n if more else decay**n
                result[m, t] += share * (total + discount ** (n + 1) * ahead[m, k])
                weights, n = weights + share, n + 1
                if not more:
                    break
            assert weights == pytest.approx(1.0)
    return result


@pytest.mark.exact
@pytest.mark.parametrize("decay", DECAYS)
def test_recursion_is_the_mixture_of_n_step_sums(several_episodes, decay):
    _, batch = several_episodes
    rng = np.random.default_rng(0)
    increments = rng.standard_normal((*batch.valid.shape, 2))
    ahead = np.where(batch.terminated[..., None], 0.0, rng.standard_normal(increments.shape))
    found = lambda_returns(batch, increments, ahead, discount=0.8, trace_decay=decay)
    np.testing.assert_allclose(found, mixture(batch, increments, ahead, 0.8, decay), rtol=1e-13, atol=1e-14)


@pytest.mark.exact
def test_weights_sum_to_one_at_every_step(several_episodes):
    """Nothing earned, no discount, a critic that is one everywhere: every λ-return is one."""
    _, batch = several_episodes
    zeros, ones = np.zeros(batch.valid.shape), np.ones(batch.valid.shape)
    for decay in DECAYS:
        found = lambda_returns(batch, zeros, ones, discount=1.0, trace_decay=decay)
        np.testing.assert_allclose(found[batch.valid], 1.0, rtol=1e-14)


@pytest.mark.exact
@pytest.mark.parametrize("decay", DECAYS)
def test_the_guiding_term_is_the_double_sum(several_episodes, decay):
    """The trace form, against λ-returns of vectors, in streams of several episodes: a mean over those that finished."""
    context, batch = several_episodes
    rng = np.random.default_rng(2)
    table = GradientTable(gradients=rng.standard_normal((4, 3)))
    context = Context(problem=context.problem, theta=context.theta, follower=context.follower, follower_gradient=table)
    estimator = LambdaBCHG(trace_decay=decay, gradient_critic="context", normalisation="episodes")
    found = estimator.estimate(batch, context).parts["response"]
    returns = lambda_returns(
        batch,
        follower_steps(context, batch),
        table.value(batch.state_tp1),
        discount=context.problem.discount_follower,
        trace_decay=decay,
    )
    estimator = BCHG(normalisation="episodes")
    benefit = estimator.read(batch, context).benefit_t
    weight = estimator.leader_weight(batch, context) * benefit / context.problem.temperature
    finished = int((batch.valid & (batch.terminated | batch.truncated)).sum())
    np.testing.assert_allclose(found, np.einsum("mt,mtn->n", weight, returns) / finished, rtol=1e-11, atol=1e-12)


@pytest.mark.exact
def test_without_decay_and_critic_it_is_bc_hg(several_episodes):
    context, batch = several_episodes
    context = Context(
        problem=context.problem,
        theta=context.theta,
        follower=context.follower,
        follower_gradient=GradientTable.zeros(context),
    )
    ours = LambdaBCHG(trace_decay=1.0, gradient_critic="context", normalisation="episodes").estimate(batch, context)
    np.testing.assert_array_equal(ours.mean, BCHG(normalisation="episodes").estimate(batch, context).mean)


@pytest.mark.exact
@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("name", TRAJECTORY)
def test_exact_critic_leaves_no_bias_for_any_decay_even_where_streams_are_cut(name, decay):
    small = SMALL[name]
    problem, theta = small.problem, small.theta
    truth = hypergradient(problem, theta, horizon=small.target.horizon)
    critic = "exact" if small.ends else "exact_truncated"
    estimator = LambdaBCHG(target=small.target, critic=critic, trace_decay=decay)
    found = enumerate_moments(estimator, problem, theta, horizon=small.horizon)
    assert estimator.claim is Claim.UNBIASED
    assert np.abs(found.mean - truth.value).max() < 1e-12 * max(1.0, found.magnitude.max())
    if not small.ends:  # and there is something to leave out: plain BC-HG is off by far more
        plain = enumerate_moments(BCHG(target=small.target, critic=critic), problem, theta, horizon=small.horizon)
        assert np.abs(plain.mean - truth.value).max() > 1e-3


@pytest.mark.exact
@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("scores", ["value", "td_error"])
@pytest.mark.parametrize("name", ["layered, with exits", "going on", "garnet"])
def test_a_wrong_critic_is_off_by_exactly_what_is_declared(name, scores, decay):
    small = SMALL[name]
    problem, theta = small.problem, small.theta
    rng = np.random.default_rng(4)
    shape = solve_follower(problem, theta).policy.shape
    context = context_of(
        problem, theta, follower_gradient=GradientTable(gradients=rng.standard_normal((shape[0], theta.size)))
    )
    critic = "exact" if small.ends else "exact_truncated"
    estimator = LambdaBCHG(
        target=small.target,
        critic=critic,
        trace_decay=decay,
        gradient_critic="context",
        state_baseline="step",
        scores=scores,
    )
    assert estimator.claim is Claim.DECLARED

    def rows(trajectories, given):
        told = Context(
            problem=problem, theta=theta, follower=given.follower, follower_gradient=context.follower_gradient
        )
        return estimator(trajectories, told)

    found = enumerate_moments(rows, problem, theta, horizon=small.horizon)
    expected = sum(estimator.expectation(context, horizon=small.horizon).values())
    assert np.abs(found.mean - expected).max() < 1e-12 * max(1.0, found.magnitude.max())
    bias = np.abs(expected - hypergradient(problem, theta, horizon=small.target.horizon).value).max()
    if decay < 1.0 or not small.ends:
        assert bias > 1e-3
    else:
        assert bias < 1e-12  # every stream sees its end: the critic is never read


@pytest.mark.exact
def test_a_learnt_benefit_keeps_its_declared_expectation():
    small = SMALL["going on"]
    problem, theta = small.problem, small.theta
    context = context_of(problem, theta)
    policy = context.follower.policy
    critic = TableCritic(action_values=np.random.default_rng(5).standard_normal(policy.shape), policy=policy)
    context = context_of(problem, theta, critic=critic)
    estimator = LambdaBCHG(target=small.target, critic="context", trace_decay=0.5, state_baseline="estimate")
    found = enumerate_moments(estimator, problem, theta, horizon=small.horizon, critic=critic)
    expected = sum(estimator.expectation(context, horizon=small.horizon).values())
    assert estimator.claim is Claim.DECLARED
    assert np.abs(found.mean - expected).max() < 1e-12 * max(1.0, found.magnitude.max())


@pytest.mark.exact
def test_fresh_suffixes_for_the_benefit_leave_no_bias_and_add_their_variance():
    small = SMALL["going on"]
    problem, theta = small.problem, small.theta
    truth = hypergradient(problem, theta, horizon=small.target.horizon)
    spread = {}
    for critic in ("independent", "exact_truncated"):
        estimator = LambdaBCHG(target=small.target, critic=critic, trace_decay=0.5, state_baseline="value")
        assert estimator.claim is Claim.UNBIASED
        found = enumerate_moments(estimator, problem, theta, horizon=small.horizon)
        assert np.abs(found.mean - truth.value).max() < 1e-12 * max(1.0, found.magnitude.max())
        spread[critic] = np.diag(found.covariance)
    assert (spread["independent"] > spread["exact_truncated"]).all()


@pytest.mark.exact
@pytest.mark.parametrize("baseline", [None, "estimate"])
def test_samples_of_another_kernel_have_the_declared_expectation(baseline):
    small = SMALL["going on"]
    problem, theta = small.problem, small.theta
    other = SMALL["going on, θ in rewards"].problem
    simulator = TabularSimulator(dynamics=other)
    estimator = LambdaBCHG(target=small.target, critic="exact_truncated", trace_decay=0.5, state_baseline=baseline)
    found = enumerate_moments(estimator, problem, theta, horizon=small.horizon, simulator=simulator)
    context = context_of(problem, theta, simulator=simulator)
    expected = sum(estimator.expectation(context, horizon=small.horizon).values())
    assert np.abs(found.mean - expected).max() < 1e-12 * max(1.0, found.magnitude.max())
    own = sum(estimator.expectation(context_of(problem, theta), horizon=small.horizon).values())
    assert np.abs(own - expected).max() > 1e-3


@pytest.mark.exact
@pytest.mark.parametrize("truncation", ["bootstrap", "cut"])
def test_without_decay_it_is_one_step_sarsa_backwards_in_time(several_episodes, truncation):
    context, batch = several_episodes
    rng = np.random.default_rng(0)
    one = batch.select([0])
    table = rng.standard_normal(context.follower.policy.shape)
    options = {
        "table": table,
        "policy": context.follower.policy,
        "discount_leader": 0.8,
        "step_size": 0.3,
        "truncation": truncation,
    }
    backwards = np.arange(one.steps)[::-1]
    expected = SarsaCritic(**options).updated(one, order=backwards).table
    np.testing.assert_allclose(SarsaLambdaCritic(**options, trace_decay=0.0).updated(one).table, expected, rtol=1e-13)
    other = SarsaLambdaCritic(**options, trace_decay=0.5).updated(one).table
    assert np.abs(other - expected).max() > 1e-3
    assert (
        np.abs(SarsaLambdaCritic(**options, trace_decay=0.0, expected=True).updated(one).table - expected).max() > 1e-3
    )
    np.testing.assert_array_equal(
        expected,
        sarsa_pass(
            table,
            one,
            context.follower.policy,
            discount_leader=0.8,
            step_size=0.3,
            truncation=truncation,
            order=backwards,
        ),
    )


# --- what is declared, refused and planted ----------------------------------------------------------------------------


def test_registered_configurations_say_what_they_are():
    names = ("completed", "lambda", "one_step", "value_baseline", "step_baseline", "optimal_baseline")
    for name in names:
        assert ESTIMATORS[f"bc_hg_{name}"].make(Objective()).claim is Claim.UNBIASED
        assert ESTIMATORS[f"bc_hg_{name}"].make(Objective(horizon=5)).claim is Claim.UNBIASED
    assert ESTIMATORS["bc_hg_lambda_practical"].make(Objective()).claim is Claim.MEASURED


def test_a_critic_of_another_horizon_is_no_reason_to_claim():
    assert LambdaBCHG(target=Objective(horizon=3), critic="exact").claim is Claim.DECLARED


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (InvalidInputError, {"trace_decay": 1.1}),
        (InvalidInputError, {"trace_decay": np.nan}),
        (InvalidInputError, {"trace_decay": True}),
        (UnknownNameError, {"gradient_critic": "learnt"}),
        (UnknownNameError, {"baseline": "optimal"}),
        (InvalidInputError, {"stopping": "sum"}),
        (InvalidInputError, {"critic": "monte_carlo"}),
    ],
)
def test_wrong_options_are_refused(error, options):
    with pytest.raises(error):
        LambdaBCHG(**options)


def test_what_is_missing_or_of_the_wrong_kind_is_named(several_episodes):
    context, batch = several_episodes
    with pytest.raises(EstimatorError, match="follower_gradient"):
        LambdaBCHG(gradient_critic="context", normalisation="episodes").estimate(batch, context)
    with pytest.raises(EstimatorError, match=r"context\.baseline"):
        LambdaBCHG(state_baseline="context", normalisation="episodes").estimate(batch, context)
    with pytest.raises(ShapeError):
        GradientTable(gradients=np.zeros(3))
    with pytest.raises(InvalidInputError, match="finite"):
        GradientTable(gradients=np.full((2, 2), np.nan))
    with pytest.raises(InvalidInputError, match="step_size"):
        GradientTable.zeros(context).updated(batch, context, step_size=0.0)
    critic = SarsaLambdaCritic.start(context.follower, 0.9)
    with pytest.raises(InvalidInputError, match="order"):
        critic.updated(batch, order=np.arange(3))
    with pytest.raises(InvalidInputError, match="trace_decay"):
        SarsaLambdaCritic.start(context.follower, 0.9).__class__(
            table=critic.table, policy=critic.policy, discount_leader=0.9, trace_decay=-0.1
        )


def test_problems_without_tables_are_refused():
    lqr = random_lqr(seed=0)
    context = context_of(lqr, np.zeros(3))
    with pytest.raises(UnsupportedError):
        LambdaBCHG().expectation(context, horizon=3)
    game = random_markov_game(seed=0)
    theta = np.zeros(game.theta_shape)
    with pytest.raises(UnsupportedError, match="ConfigurableMDP"):
        GradientTable.solve(context_of(game, theta))
    batch = sample_trajectories(
        game, theta, context_of(game, theta).follower, streams=2, steps=3, rng=np.random.default_rng(0)
    )
    with pytest.raises(UnsupportedError, match=BCHG.__name__):
        LambdaBCHG()(batch, context_of(game, theta))


def test_every_switch_of_the_plain_formula_is_some_mutant():
    right = LambdaFormula()
    own = set(LambdaFormula.__dataclass_fields__) - set(LambdaFormula.__mro__[1].__dataclass_fields__)
    turned = {
        name
        for mutant in MUTANTS.values()
        if isinstance(made := mutant.make(), LambdaFormula)
        for name in own
        if getattr(made, name) != getattr(right, name)
    }
    assert own - turned == {"trace_decay"}


def test_shares_are_what_is_left(several_episodes):
    _, batch = several_episodes
    shares = bootstrap_shares(batch, 0.7)
    assert set(np.unique(shares.round(12))) == ({0.3, 1.0} | ({0.0} if not batch.valid.all() else set()))
