"""Critics that learn values and gradients by λ-returns."""

from __future__ import annotations

import numpy as np
import pytest
from lambda_cases import DECAYS, SMALL, TRAJECTORY, context_of

from bilevelrl.estimators import (
    sample_trajectories,
)
from bilevelrl.estimators.critics.gradient_tables import GradientTable, follower_steps
from bilevelrl.estimators.critics.sarsa_lambda import SarsaLambdaCritic
from bilevelrl.estimators.sums.lambda_returns import lambda_returns
from bilevelrl.reference.routes.theorem1 import follower_gradients, follower_source
from bilevelrl.reference.tabular.transitions import to_dense
from bilevelrl.tasks import garnet
from bilevelrl.verification import enumerate_moments

# --- critics ----------------------------------------------------------------------------------------------------------


@pytest.mark.exact
@pytest.mark.parametrize("name", TRAJECTORY)
def test_exact_gradients_are_those_of_theorem_1(name):
    problem, theta = SMALL[name].problem, SMALL[name].theta
    context = context_of(problem, theta)
    tables, policy = problem.tables_at(theta), context.follower.policy
    source = follower_source(
        tables, problem.jacobian(theta), context.follower.value, problem.discount_follower, theta.size
    )
    pairs = follower_gradients(to_dense(tables.transition), policy, source, problem.discount_follower)
    expected = np.einsum("sa,san->sn", policy, pairs)
    np.testing.assert_allclose(GradientTable.solve(context).gradients, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.exact
@pytest.mark.parametrize("decay", DECAYS)
def test_exact_gradients_are_the_expectation_of_their_own_returns(decay):
    """The fixed point of TD(λ): E[G^λ_0] = Σ μ ∇V_F, over all trajectories."""
    problem, theta = SMALL["going on"].problem, SMALL["going on"].theta
    gradients = GradientTable.solve(context_of(problem, theta))

    def first_return(trajectories, context):
        return lambda_returns(
            trajectories,
            follower_steps(context, trajectories),
            gradients.value(trajectories.state_tp1),
            discount=problem.discount_follower,
            trace_decay=decay,
        )[:, 0]

    found = enumerate_moments(first_return, problem, theta, horizon=4)
    expected = problem.tables_at(theta).initial @ gradients.gradients
    np.testing.assert_allclose(found.mean, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.exact
def test_a_whole_step_at_one_visit_writes_the_return_down():
    problem, theta = SMALL["layered"].problem, SMALL["layered"].theta
    context = context_of(problem, theta)
    batch = sample_trajectories(problem, theta, context.follower, streams=1, steps=3, rng=np.random.default_rng(0))
    learnt = GradientTable.zeros(context).updated(batch, context, step_size=1.0, trace_decay=1.0)
    steps = follower_steps(context, batch)[0]
    suffix = sum(problem.discount_follower**k * steps[k] for k in range(batch.steps))
    np.testing.assert_allclose(learnt.gradients[batch.state_t[0, 0]], suffix, rtol=1e-13)
    seen = np.isin(np.arange(learnt.gradients.shape[0]), batch.state_t)
    assert not learnt.gradients[~seen].any()


@pytest.mark.statistical
def test_gradients_are_learnt():
    """The mean over late passes is near the exact table: within five of its standard errors, themselves small."""
    problem = garnet(states=4, actions=2, branching=2, parameters=3, seed=3, termination=0.2)
    theta = np.full(3, 0.3)
    context = context_of(problem, theta)
    exact, rng = GradientTable.solve(context).gradients, np.random.default_rng(0)
    table, seen = GradientTable.zeros(context), []
    for index in range(40):
        batch = sample_trajectories(problem, theta, context.follower, streams=100, steps=10, rng=rng)
        table = table.updated(batch, context, step_size=0.01, trace_decay=0.8)
        if index >= 10:  # each pass visits every state over a hundred times: little of the table before is left
            seen.append(table.gradients)
    error = np.std(seen, axis=0, ddof=1) / np.sqrt(len(seen) / 2)
    assert (np.abs(np.mean(seen, axis=0) - exact) < 5 * error).all()
    assert error.max() < 0.05 * np.abs(exact).max()


@pytest.mark.exact
def test_expected_sarsa_moves_to_the_average_ahead():
    problem, theta = SMALL["going on"].problem, SMALL["going on"].theta
    context = context_of(problem, theta)
    policy = context.follower.policy
    batch = sample_trajectories(problem, theta, context.follower, streams=1, steps=1, rng=np.random.default_rng(0))
    table = np.random.default_rng(1).standard_normal(policy.shape)
    critic = SarsaLambdaCritic(
        table=table, policy=policy, discount_leader=0.7, step_size=1.0, trace_decay=0.4, expected=True
    )
    s, a, s1 = batch.state_t[0, 0], batch.action_t[0, 0], batch.state_tp1[0, 0]
    expected = table.copy()
    expected[s, a] = batch.reward_leader_t[0, 0] + 0.7 * policy[s1] @ table[s1]
    np.testing.assert_allclose(critic.updated(batch).table, expected, rtol=1e-14)
