"""State baselines: what they do to variances, by enumeration; and variances without enumeration."""

from __future__ import annotations

from dataclasses import replace

import autograd.numpy as anp
import numpy as np
import pytest

from bilevelrl.estimators import (
    BCHG,
    ESTIMATORS,
    HPGD,
    Context,
    ExactCritic,
    LambdaBCHG,
    NaivePGD,
    Objective,
    TableCritic,
    TabularSimulator,
    sample_trajectories,
)
from bilevelrl.estimators.critics.gradient_tables import GradientTable
from bilevelrl.estimators.critics.state_baselines import StateBaseline
from bilevelrl.reference import solve_follower
from bilevelrl.reference.errors import InvalidInputError, ShapeError, UnknownNameError, UnsupportedError
from bilevelrl.tasks import four_rooms, layered_mdp, random_mdp
from bilevelrl.tasks.scenarios.main_job import small_scenarios
from bilevelrl.verification import enumerate_moments
from bilevelrl.verification.enumeration.exact_spread import exact_spread
from bilevelrl.verification.pipeline.studies import study_estimator

SMALL = {small.name: small for small in small_scenarios()}
ENDING = ("layered", "layered, with exits", "layered, θ in rewards")


def context_of(problem, theta, **known):
    return Context(problem=problem, theta=theta, follower=solve_follower(problem, theta), **known)


def variances(problem, theta, table, decay, horizon, *, listed=False):
    """Exact mean and variances of BC-HG(λ) less a baseline."""
    estimator = LambdaBCHG(trace_decay=decay, state_baseline="context")
    context = context_of(problem, theta, baseline=StateBaseline(table=table))
    if not listed:
        spread = exact_spread(estimator, context, horizon=horizon)
        return spread.mean, spread.variance
    found = enumerate_moments(
        lambda trajectories, given: estimator(trajectories, replace(given, baseline=context.baseline)),
        problem,
        theta,
        horizon=horizon,
    )
    return found.mean, np.diag(found.covariance)


@pytest.mark.exact
@pytest.mark.parametrize("decay", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("name", ENDING)
def test_no_state_baseline_moves_the_mean_and_the_optimal_one_is_at_the_bottom(name, decay):
    """Each variance is a parabola in each entry of the table, least where both sides are as high."""
    small = SMALL[name]
    problem, theta = small.problem, small.theta
    context = context_of(problem, theta)
    best = StateBaseline.solve("estimate", context, trace_decay=decay).table
    step = StateBaseline.solve("step", context, trace_decay=decay).table
    rng, skewed = np.random.default_rng(0), 0.0
    mean, lowest = variances(problem, theta, best, decay, small.horizon)
    for listed in (False, False, name == "layered"):
        away = rng.standard_normal(best.shape)
        (mean_1, above), (mean_2, below) = (
            variances(problem, theta, best + sign * away, decay, small.horizon, listed=listed) for sign in (1, -1)
        )
        np.testing.assert_allclose(above, below, rtol=1e-10)
        assert (above > lowest * (1 + 1e-3)).all()
        np.testing.assert_allclose(mean_1, mean, atol=1e-12)
        np.testing.assert_allclose(mean_2, mean, atol=1e-12)
        sides = [variances(problem, theta, step + sign * away, decay, small.horizon)[1] for sign in (1, -1)]
        skewed = max(skewed, float(np.abs(sides[0] / sides[1] - 1).max()))
    assert skewed > 1e-2  # another baseline is not at the bottom, and the test sees it


@pytest.mark.exact
def test_the_optimum_is_that_of_the_critics_that_are_read():
    """With wrong tables of both critics the bottom is elsewhere, and still at the bottom."""
    problem, theta = SMALL["layered, with exits"].problem, SMALL["layered, with exits"].theta
    rng = np.random.default_rng(3)
    context = context_of(problem, theta)
    policy = context.follower.policy
    critic = TableCritic(action_values=rng.standard_normal(policy.shape), policy=policy)
    gradients = GradientTable(gradients=rng.standard_normal((policy.shape[0], theta.size)))
    told = replace(context, critic=critic, follower_gradient=gradients)
    best = StateBaseline.solve("estimate", told, trace_decay=0.6, critic=critic, gradient_critic=gradients).table
    away, estimator = (
        rng.standard_normal(best.shape),
        LambdaBCHG(trace_decay=0.6, critic="context", gradient_critic="context", state_baseline="context"),
    )

    def at(table):
        return exact_spread(estimator, replace(told, baseline=StateBaseline(table=table)), horizon=3).variance

    np.testing.assert_allclose(at(best + away), at(best - away), rtol=1e-10)
    assert (at(best) < at(StateBaseline.solve("estimate", context, trace_decay=0.6).table)).all()
    solved = replace(estimator, state_baseline="estimate")
    np.testing.assert_array_equal(exact_spread(solved, told, horizon=3).variance, at(best))


@pytest.mark.exact
def test_states_do_not_share_their_parabolas():
    """Moving two entries costs the sum of what moving each costs."""
    small = SMALL["layered"]
    problem, theta = small.problem, small.theta
    best = StateBaseline.solve("estimate", context_of(problem, theta)).table
    lowest = variances(problem, theta, best, 1.0, small.horizon)[1]
    costs = []
    for moved in ([0], [3], [0, 3]):
        table = best.copy()
        table[moved] += 1.0
        costs.append(variances(problem, theta, table, 1.0, small.horizon)[1] - lowest)
    np.testing.assert_allclose(costs[0] + costs[1], costs[2], rtol=1e-10)


@pytest.mark.exact
def test_where_there_is_one_step_and_nothing_else_each_step_s_own_optimum_is_the_whole_one():
    problem = layered_mdp(layers=1, width=3, actions=3, parameters=3, seed=2, theta_in=("reward_follower",))
    context = context_of(problem, np.full(3, 0.2))
    own, whole = (StateBaseline.solve(kind, context).table for kind in ("step", "estimate"))
    np.testing.assert_allclose(own, whole, rtol=1e-10)
    assert np.abs(own - GradientTable.solve(context).gradients).max() > 1e-3


@pytest.mark.exact
def test_in_a_bandit_it_takes_away_all_variance_and_studies_say_so():
    row = study_estimator("bc_hg_step_baseline", "bandit", samples=(1,), replicates=3)[0]
    assert row.moments == "exact"
    assert row.standard_deviation < 1e-7
    assert study_estimator("bc_hg", "bandit", samples=(1,), replicates=3)[0].standard_deviation > 0.1


@pytest.mark.exact
def test_where_there_is_no_choice_the_table_is_the_value_gradient():
    problem = layered_mdp(layers=2, width=2, actions=1, parameters=3, seed=2)
    context = context_of(problem, np.full(3, 0.2))
    expected = GradientTable.solve(context).gradients
    for kind in ("value", "step", "estimate"):
        np.testing.assert_array_equal(StateBaseline.solve(kind, context).table, expected)


@pytest.mark.statistical
def test_learnt_baselines_tend_to_each_step_s_own_optimum():
    small = SMALL["layered, with exits"]
    problem, theta = small.problem, small.theta
    context = context_of(problem, theta)
    exact = StateBaseline.solve("step", context, trace_decay=0.6).table
    critic = ExactCritic.solve(problem, theta, context.follower.policy)
    gradients, rng, found = GradientTable.solve(context), np.random.default_rng(0), []
    for _ in range(30):
        batch = sample_trajectories(problem, theta, context.follower, streams=2000, steps=3, rng=rng)
        learnt = StateBaseline.learn(batch, context, critic=critic, gradient_critic=gradients, trace_decay=0.6)
        found.append(learnt.table)
    error = np.std(found, axis=0, ddof=1) / np.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - exact) <= 5 * error + 1e-12).all()
    assert error.max() < 0.05 * np.abs(exact).max()


@pytest.mark.exact
def test_what_was_not_visited_keeps_the_critic():
    problem, theta = SMALL["layered"].problem, SMALL["layered"].theta
    context = context_of(problem, theta)
    batch = sample_trajectories(problem, theta, context.follower, streams=1, steps=3, rng=np.random.default_rng(0))
    gradients = GradientTable.solve(context)
    critic = ExactCritic.solve(problem, theta, context.follower.policy)
    table = StateBaseline.learn(batch, context, critic=critic, gradient_critic=gradients).table
    seen = np.isin(np.arange(table.shape[0]), batch.state_t)
    np.testing.assert_array_equal(table[~seen], gradients.gradients[~seen])
    assert np.abs(table[seen] - gradients.gradients[seen]).max(axis=1).min() > 1e-3


# --- exact spreads ----------------------------------------------------------------------------------------------------

ALONG = ("bc_hg", "bc_hg_td", "bc_hg_completed", "bc_hg_lambda", "bc_hg_one_step", "bc_hg_optimal_baseline")


@pytest.mark.exact
@pytest.mark.parametrize("name", ["layered, with exits", "going on", "garnet"])
@pytest.mark.parametrize("estimator", ALONG)
def test_exact_spreads_are_those_of_enumeration(name, estimator):
    small = SMALL[name]
    problem, theta = small.problem, small.theta
    chosen = ESTIMATORS[estimator].make(small.target)
    listed = enumerate_moments(chosen, problem, theta, horizon=small.horizon)
    found = exact_spread(chosen, context_of(problem, theta), horizon=small.horizon)
    np.testing.assert_allclose(found.mean, listed.mean, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(found.variance, np.diag(listed.covariance), rtol=1e-11)
    assert found.root_mean_square == pytest.approx(float(np.sqrt(np.trace(listed.covariance))))


@pytest.mark.exact
@pytest.mark.parametrize("constant", [1e3, 1e6, 1e9])
@pytest.mark.parametrize("estimator", ALONG)
def test_what_is_the_same_on_every_trajectory_takes_no_digits_of_a_spread(estimator, constant):
    """A term `constant · θ` of the leader's return shifts every estimate, and no variance by a digit."""
    small = SMALL["going on"]
    plain = small.problem

    def tables(theta):
        found = plain.tables(theta)
        return found.replace({"regulariser": found.regulariser + constant * anp.sum(theta)})

    shifted = replace(plain, tables=tables, tables_jacobian=None, tables_pullback=None)
    chosen = ESTIMATORS[estimator].make(small.target)
    right, found = (
        exact_spread(chosen, context_of(problem, small.theta), horizon=small.horizon) for problem in (plain, shifted)
    )
    np.testing.assert_allclose(found.mean, right.mean + constant, rtol=1e-14)
    np.testing.assert_allclose(found.variance, right.variance, rtol=1e-13)


@pytest.mark.exact
def test_on_four_rooms_the_mean_is_the_declared_one_and_baselines_take_spread_away():
    # Discounted so that sixty steps are all but endless, which is what the optimum is for.
    problem = four_rooms(temperature=0.05, discount_leader=0.7)
    theta = np.random.default_rng(0).standard_normal(105)
    context = context_of(problem, theta)
    spread = {}
    for baseline in (None, "value", "step", "estimate"):
        estimator = LambdaBCHG(trace_decay=0.9, state_baseline=baseline)
        found = exact_spread(estimator, context, horizon=60)
        expected = sum(estimator.expectation(context, horizon=60).values())
        np.testing.assert_allclose(found.mean, expected, rtol=1e-9, atol=1e-13)
        spread[baseline] = found.root_mean_square
    assert spread["estimate"] < spread["step"] < spread[None]
    assert spread["estimate"] < spread["value"]


# --- what is refused --------------------------------------------------------------------------------------------------


def test_wrong_tables_and_kinds_are_refused():
    context = context_of(layered_mdp(seed=0), np.zeros(3))
    with pytest.raises(ShapeError):
        StateBaseline(table=np.zeros(3))
    with pytest.raises(InvalidInputError, match="finite"):
        StateBaseline(table=np.full((2, 2), np.inf))
    with pytest.raises(UnknownNameError):
        StateBaseline.solve("optimal", context)


def test_spreads_of_other_estimators_are_refused():
    context = context_of(layered_mdp(seed=0), np.zeros(3))
    for estimator in (
        BCHG(stopping="sum"),
        BCHG(critic="monte_carlo"),
        BCHG(guiding_average="pairs"),
        BCHG(largest_score=1.0),
    ):
        with pytest.raises(UnsupportedError, match="table as critic"):
            exact_spread(estimator, context, horizon=3)
    for other in (NaivePGD(), HPGD()):  # HPGD is made of BCHG, with another guiding term
        with pytest.raises(UnsupportedError, match="expected BCHG or LambdaBCHG"):
            exact_spread(other, context, horizon=3)
    with pytest.raises(UnsupportedError, match="own samples"):
        exact_spread(BCHG(), replace(context, simulator=TabularSimulator()), horizon=3)
    for horizon in (0, True, 1.5):
        with pytest.raises(InvalidInputError):
            exact_spread(BCHG(target=Objective()), context, horizon=horizon)


@pytest.mark.exact
def test_what_is_kept_at_one_theta_belongs_to_one_follower_and_one_question():
    problem, theta = random_mdp(states=4, actions=2, parameters=3, seed=0), np.zeros(3)
    best = solve_follower(problem, theta)
    hasty = solve_follower(problem, theta, method="value_iteration", stop_after=2)
    contexts = [Context(problem=problem, theta=theta, follower=follower) for follower in (best, hasty)]

    def answers():
        found = []
        for context in contexts:
            policy = context.follower.policy
            for options in ({}, {"horizon": 3}, {"horizon": 3, "discounted": False}, {"reward": np.eye(4)[:, :2]}):
                found.append(ExactCritic.solve(problem, theta, policy, **options).action_values)
            found.append(GradientTable.solve(context).gradients)
            found += [StateBaseline.solve(kind, context, trace_decay=decay).table
                      for kind, decay in (("step", 1.0), ("estimate", 0.0), ("estimate", 1.0))]  # fmt: skip
        return found

    alone = answers()
    with problem.derivatives.cache.keeping(theta):
        for kept in (answers(), answers()):
            for one, other in zip(kept, alone, strict=True):
                np.testing.assert_array_equal(one, other)
    assert len({entries.tobytes() for entries in alone}) == len(alone)  # no two questions have one answer


@pytest.mark.exact
def test_a_simulator_follows_a_kernel_that_has_changed():
    simulator, theta = TabularSimulator(), np.zeros(3)
    one, other = random_mdp(seed=0), random_mdp(seed=1)
    policy = np.full(one.tables_at(theta).reward_follower.shape, 1.0 / one.tables_at(theta).actions)

    def walked(problem, by):
        rng = np.random.default_rng(0)
        return by.sample(problem, theta, policy, streams=5, steps=9, rng=rng).state_tp1

    for problem in (one, one, other, one):
        np.testing.assert_array_equal(walked(problem, simulator), walked(problem, TabularSimulator()))
    assert (walked(one, simulator) != walked(other, simulator)).any()
