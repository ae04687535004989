"""Followers known by their actions: what they tell of the hypergradient, as theorems, and what counts must hold."""

from dataclasses import replace

import autograd.numpy as anp
import numpy as np
import pytest

from bilevelrl.estimators import BCHG, Context
from bilevelrl.reference import TabularFollower, hypergradient, solve_follower
from bilevelrl.reference.approximations import formula_under
from bilevelrl.reference.errors import InvalidInputError, ShapeError, StochasticityError, SupportError
from bilevelrl.reference.observed import check_actions, count_actions, policy_from_counts, reward_of_policy
from bilevelrl.reference.problem import Status
from bilevelrl.tasks import random_mdp

THETA = np.array([0.3, -0.5, 0.2])
IN_REWARDS = ("reward_follower", "reward_leader", "initial", "regulariser")
SHAPE = np.array([1.0, -2.0, 0.5, 3.0])


def shaped(problem, *, moving):
    """The same problem with the follower's reward shaped by φ: with the kernel at THETA, or with that of each θ."""
    at = problem.tables_at(THETA).transition

    def tables(theta):
        found = problem.evaluate(theta)
        kernel = found.transition if moving else at
        return found.replace({"reward_follower": found.reward_follower + 0.9 * anp.dot(kernel, SHAPE) - SHAPE[:, None]})

    return replace(problem, tables=tables, tables_jacobian=None, tables_pullback=None)


@pytest.mark.exact
def test_shaping_leaves_the_policy_and_moves_the_values():
    problem = random_mdp(seed=0)
    plain, other = (solve_follower(p, THETA) for p in (problem, shaped(problem, moving=False)))
    np.testing.assert_allclose(other.policy, plain.policy, rtol=1e-11)
    np.testing.assert_allclose(other.value, plain.value - SHAPE, rtol=1e-11)


@pytest.mark.exact
def test_all_is_identified_where_theta_enters_rewards():
    """Whatever V is: the hypergradient from a reconstructed reward is the true one, if ∇r_F is the leader's own."""
    problem = random_mdp(seed=0, theta_in=IN_REWARDS)
    exact = hypergradient(problem, THETA)
    for found in (shaped(problem, moving=False), shaped(problem, moving=True)):
        assert np.abs(hypergradient(found, THETA).value - exact.value).max() <= 10.0 * exact.error_bound


@pytest.mark.exact
def test_the_score_term_is_not_identified_where_theta_moves_the_dynamics():
    """Two followers of one policy at θ, and hypergradients apart by `γ_F Σ w φ(s') ∇P`, (2) of the module."""
    problem = random_mdp(seed=0)
    exact = hypergradient(problem, THETA)
    same_at_theta = hypergradient(shaped(problem, moving=False), THETA)
    same_everywhere = hypergradient(shaped(problem, moving=True), THETA)
    assert np.abs(same_everywhere.value - exact.value).max() <= 10.0 * exact.error_bound
    tables, follower = problem.tables_at(THETA), exact.follower
    chain = np.einsum("sa,sat->st", follower.policy, tables.transition)
    value = np.linalg.solve(np.eye(4) - 0.8 * chain, (follower.policy * tables.reward_leader).sum(axis=1))
    action = tables.reward_leader + 0.8 * tables.transition @ value
    visits = np.linalg.solve(np.eye(4) - 0.8 * chain.T, tables.initial)[:, None] * follower.policy
    q = visits * (action - value[:, None]) / problem.temperature
    carried = np.linalg.solve(np.eye(4) - 0.9 * chain.T, 0.9 * np.einsum("sa,sat->t", q, tables.transition))
    weight = q + carried[:, None] * follower.policy
    moved = -0.9 * np.einsum("sa,t,satn->n", weight, SHAPE, problem.jacobian(THETA)["transition"])
    assert np.abs(moved).max() > 1e-2
    np.testing.assert_allclose(same_at_theta.value - exact.value, moved, rtol=0.0, atol=1e-10)


@pytest.mark.exact
def test_rewards_that_explain_a_policy():
    problem = random_mdp(seed=1)
    seen = solve_follower(problem, THETA)
    for value in (None, seen.value, SHAPE):
        reward = reward_of_policy(problem, THETA, seen.policy, value=value)
        explained = replace(
            problem,
            tables=lambda theta, reward=reward: problem.evaluate(theta).replace({"reward_follower": reward}),
            tables_jacobian=None,
            tables_pullback=None,
        )
        again = solve_follower(explained, THETA)
        np.testing.assert_allclose(again.policy, seen.policy, rtol=1e-10)
        np.testing.assert_allclose(again.value, np.zeros(4) if value is None else value, rtol=0.0, atol=1e-11)
    np.testing.assert_allclose(
        reward_of_policy(problem, THETA, seen.policy, value=seen.value),
        problem.tables_at(THETA).reward_follower,
        atol=1e-11,
    )


@pytest.mark.exact
def test_a_given_policy_is_worth_what_a_hand_computes_and_its_bounds_hold():
    problem = random_mdp(seed=2)
    tables, best = problem.tables_at(THETA), solve_follower(problem, THETA)
    policy = best.policy * (1.0 + 1e-4 * np.array([[1.0, -1.0]]))
    policy /= policy.sum(axis=1, keepdims=True)
    given = TabularFollower.from_policy(problem, THETA, policy)
    value = np.zeros(4)
    for _ in range(400):
        ahead = tables.reward_follower + 0.9 * tables.transition @ value
        value = (policy * (ahead - 0.5 * np.log(policy))).sum(axis=1)
    np.testing.assert_allclose(given.value, value, rtol=1e-12)
    assert given.status is Status.GIVEN
    assert not given.status.succeeded
    assert np.abs(given.value - best.value).max() <= given.error_bound + best.error_bound
    assert np.abs(policy / best.policy - 1.0).max() <= given.policy_error_bound < 1e-2
    rough, exact = formula_under(problem, THETA, given), hypergradient(problem, THETA)
    off = np.abs(rough.value - exact.value).max()
    assert 1e3 * exact.error_bound < off <= rough.error_bound < 1e3 * off
    solved = TabularFollower.from_policy(problem, THETA, best.policy)
    assert np.abs(formula_under(problem, THETA, solved).value - exact.value).max() <= 2.0 * exact.error_bound
    certain = TabularFollower.from_policy(problem, THETA, np.eye(2)[[0, 1, 0, 1]])
    assert certain.policy_error_bound == formula_under(problem, THETA, certain).error_bound == np.inf


@pytest.mark.exact
def test_the_mean_of_bc_hg_on_a_follower_that_is_only_seen():
    problem = random_mdp(seed=0)
    counts = np.array([[30, 10], [5, 40], [22, 20], [8, 3]])
    follower = TabularFollower.from_policy(problem, THETA, policy_from_counts(counts))
    context = Context(problem=problem, theta=THETA, follower=follower)
    expected = BCHG(stopping="sum").expectation(context, horizon=1)
    formula = formula_under(problem, THETA, follower)
    for part, value in formula.parts.items():
        np.testing.assert_allclose(expected[part], value, rtol=0.0, atol=1e-12)


@pytest.mark.statistical
def test_counts_are_held_against_probabilities():
    """Seed 0. The right policy is refused with probability 1e-6 at most; a tenth off is seen in 20,000 draws each."""
    rng, problem = np.random.default_rng(0), random_mdp(seed=0)
    best = solve_follower(problem, THETA)
    state = np.repeat(np.arange(4), 20_000)
    counts = count_actions(state, best.sample(state, rng), states=4, actions=2)
    assert check_actions(best.policy, counts) < 1.0
    wrong = best.policy + 0.1 * np.array([[1.0, -1.0]]) * np.where(best.policy[:, :1] > 0.5, -1.0, 1.0)
    with pytest.raises(InvalidInputError, match="does not play what it says"):
        check_actions(wrong, counts)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: policy_from_counts([[1, 2], [0, 0]]), SupportError, "state 1 was never seen"),
        (lambda: policy_from_counts([[1, -2]]), InvalidInputError, "count actions"),
        (lambda: policy_from_counts([1, 2]), ShapeError, r"\(S, A\)"),
        (lambda: check_actions([[1.0, 0.0]], [[5, 1]]), InvalidInputError, r"counts\[0, 1\]=1.*expected 0 ± 0"),
        (lambda: check_actions([[0.5, 0.5]], [[5, 1, 2]]), ShapeError, "policy"),
        (lambda: check_actions([[0.5, 0.5]], [[5, 1]], error_rate=0.0), InvalidInputError, "error_rate"),
        (lambda: count_actions([0, 4], [0, 0], states=4, actions=2), InvalidInputError, "state"),
        (lambda: count_actions([0, 1], [0], states=4, actions=2), ShapeError, "action"),
        (lambda: TabularFollower.from_policy(random_mdp(), THETA, np.ones((4, 2))), StochasticityError, "policy"),
        (lambda: TabularFollower.from_policy(random_mdp(), THETA, np.full((4, 2), 0.4)), StochasticityError, "sum of"),
        (lambda: TabularFollower.from_policy(random_mdp(), THETA, np.ones((4, 1))), ShapeError, "policy"),
        (lambda: reward_of_policy(random_mdp(), THETA, np.eye(2)[[0, 1, 0, 1]]), SupportError, "no finite reward"),
        (lambda: reward_of_policy(random_mdp(), THETA, np.full((4, 2), 0.5), value=[1.0]), ShapeError, "value"),
    ],
)
def test_bad_input_is_refused_by_name(call, error, message):
    with pytest.raises(error, match=message):
        call()
