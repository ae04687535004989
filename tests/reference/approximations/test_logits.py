"""Approximations through the follower's logits, against a tape that differentiates F and J themselves."""

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from scipy.special import logsumexp

from bilevelrl.reference import hypergradient, solve_follower
from bilevelrl.reference.approximations import approximate_hypergradient
from bilevelrl.reference.approximations.through_logits import network_policy as network_module
from bilevelrl.reference.approximations.through_logits.follower import (
    fisher_blocks,
    follower_after,
    follower_at,
    mixed_slope,
)
from bilevelrl.reference.approximations.through_logits.nystroem import DAMPING
from bilevelrl.reference.approximations.through_logits.unsolved import own_hessian
from bilevelrl.reference.errors import InvalidInputError, NotConvergedError, TooLargeError, UnsupportedError
from bilevelrl.tasks import four_rooms, random_mdp, toy_markov_game

pytestmark = pytest.mark.exact

THETA = np.array([0.3, -0.5, 0.2])
MDP = random_mdp(states=4, actions=2, parameters=3, seed=0, discount_leader=0.8, discount_follower=0.9)
ONE = random_mdp(states=4, actions=2, parameters=3, seed=0, discount_leader=0.9, discount_follower=0.9)
BETA = MDP.temperature


def played(phi):
    table = anp.reshape(phi, (4, 2))
    return table - anp.log(anp.sum(anp.exp(table), axis=1, keepdims=True))


def follower_return(phi, theta):
    """F: the follower's regularised return from the initial law, under logits."""
    tables, log_policy = MDP.evaluate(theta), played(phi)
    policy = anp.exp(log_policy)
    chain = anp.sum(policy[:, :, None] * tables.transition, axis=1)
    earned = anp.sum(policy * (tables.reward_follower - BETA * log_policy), axis=1)
    return anp.dot(tables.initial, anp.linalg.solve(anp.eye(4) - MDP.discount_follower * chain, earned))


def leader_return(phi, theta):
    tables, policy = MDP.evaluate(theta), anp.exp(played(phi))
    chain = anp.sum(policy[:, :, None] * tables.transition, axis=1)
    earned = anp.sum(policy * tables.reward_leader, axis=1)
    gained = anp.linalg.solve(anp.eye(4) - MDP.discount_leader * chain, earned)
    return anp.dot(tables.initial, gained) + tables.regulariser


def taped(phi):
    """∂_θJ, p, ∂²_φφF and ∂²_φθF at logits (8,)."""
    gradient = autograd.grad(follower_return, 0)
    return (
        autograd.grad(leader_return, 1)(phi, THETA),
        autograd.grad(leader_return, 0)(phi, THETA),
        autograd.jacobian(gradient, 0)(phi, THETA),
        autograd.jacobian(gradient, 1)(phi, THETA),
    )


def solved_logits():
    return np.log(solve_follower(MDP, THETA).policy).ravel()


def logits_after(sweeps):
    """By plain sweeps, in another library's log-sum-exp."""
    tables, value = MDP.tables_at(THETA), np.zeros(4)
    for _ in range(sweeps):
        action_value = tables.reward_follower + MDP.discount_follower * tables.transition @ value
        value = BETA * logsumexp(action_value / BETA, axis=1)
    return ((action_value - value[:, None]) / BETA).ravel()


def fisher(phi):
    """E Σ γ_F^t score scoreᵀ, by visits of plain linear algebra and one outer product per state and action."""
    tables, policy = MDP.tables_at(THETA), np.exp(played(phi))
    chain = np.einsum("sa,sat->st", policy, tables.transition)
    visits = np.linalg.solve(np.eye(4) - MDP.discount_follower * chain.T, tables.initial)
    found = np.zeros((8, 8))
    for s in range(4):
        for a in range(2):
            score = np.zeros((4, 2))
            score[s] = np.eye(2)[a] - policy[s]
            found += visits[s] * policy[s, a] * np.outer(score.ravel(), score.ravel())
    return found


def assert_close(found, expected, rtol=1e-9):
    assert np.abs(found - expected).max() <= rtol * np.abs(expected).max()


@pytest.mark.parametrize("sweeps", [1, 3])
def test_the_hessian_and_the_mixed_slope_are_those_of_a_tape_at_any_follower(sweeps):
    at, phi = MDP.at(THETA), logits_after(sweeps)
    follower = follower_after(at, sweeps)
    _, _, hessian, mixed = taped(phi)
    assert_close(own_hessian(at, follower).reshape(8, 8), hessian)
    direction = np.random.default_rng(sweeps).standard_normal(8)
    assert_close(mixed_slope(at, follower.policy, direction.reshape(4, 2)), direction @ mixed)


def test_at_the_best_response_the_fisher_information_is_the_hessian():
    phi = solved_logits()
    _, _, hessian, _ = taped(phi)
    assert np.abs(hessian + BETA * fisher(phi)).max() <= 1e-10 * np.abs(hessian).max()
    follower = follower_at(MDP.at(THETA), solve_follower(MDP, THETA).policy)
    blocks = fisher_blocks(follower.visits, follower.policy)
    for s in range(4):
        assert_close(blocks[s], fisher(phi).reshape(4, 2, 4, 2)[s, :, s])
    away = logits_after(2)
    assert np.abs(taped(away)[2] + BETA * fisher(away)).max() > 1e-3


@pytest.mark.parametrize("sweeps", [1, 2, 4])
@pytest.mark.parametrize("method", ["implicit_unsolved", "fisher_unsolved"])
def test_total_derivatives_at_an_unsolved_follower(method, sweeps):
    phi = logits_after(sweeps)
    own, pushed, hessian, mixed = taped(phi)
    if method == "fisher_unsolved":
        hessian = -BETA * fisher(phi)
    expected = own - pushed @ np.linalg.pinv(hessian, rcond=1e-10) @ mixed
    found = approximate_hypergradient(MDP, THETA, method, sweeps)
    assert_close(found, expected)
    # The one is not the other before the follower has arrived.
    other = {"implicit_unsolved": "fisher_unsolved", "fisher_unsolved": "implicit_unsolved"}[method]
    assert np.abs(found - approximate_hypergradient(MDP, THETA, other, sweeps)).max() > 1e-6 * np.abs(found).max()


@pytest.mark.parametrize("damping", [0.5, 1e-3])
def test_the_damped_inverse_is_that_of_the_whole_matrix(damping):
    own, pushed, _, mixed = taped(solved_logits())
    matrix = BETA * fisher(solved_logits())
    expected = own + pushed @ np.linalg.inv(matrix + damping * np.abs(matrix).max() * np.eye(8)) @ mixed
    assert_close(approximate_hypergradient(MDP, THETA, "damped_inverse", damping), expected, 1e-8)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_policy_gradient_steps_are_those_of_a_tape_through_them(steps):
    start = solved_logits()
    rate = 1.0 / (BETA * np.linalg.eigvalsh(fisher(start)).max())
    gradient = autograd.grad(follower_return, 0)

    def after(theta):
        phi = start
        for _ in range(steps):
            phi = phi + rate * gradient(phi, theta)
        return leader_return(phi, theta)

    assert_close(
        approximate_hypergradient(MDP, THETA, "policy_gradient_steps", steps), autograd.grad(after)(THETA), 1e-8
    )


def test_one_policy_gradient_step_is_lola():
    """∂_θJ + α (∂_φJ)ᵀ ∂²_φθF, and nothing is inverted."""
    own, pushed, _, mixed = taped(solved_logits())
    rate = 1.0 / (BETA * np.linalg.eigvalsh(fisher(solved_logits())).max())
    assert_close(approximate_hypergradient(MDP, THETA, "policy_gradient_steps", 1), own + rate * pushed @ mixed, 1e-8)


@pytest.mark.parametrize("columns", [1, 3, 8])
def test_nystroem_is_the_inverse_of_what_the_columns_span(columns):
    own, pushed, _, mixed = taped(solved_logits())
    matrix = BETA * fisher(solved_logits())
    chosen = np.argsort(-np.diag(matrix), kind="stable")[:columns]
    spanned = matrix[:, chosen] @ np.linalg.pinv(matrix[np.ix_(chosen, chosen)], rcond=1e-12) @ matrix[chosen]
    inverse = np.linalg.inv(spanned + DAMPING * np.abs(matrix).max() * np.eye(8))
    assert_close(approximate_hypergradient(MDP, THETA, "nystroem", columns), own + pushed @ inverse @ mixed, 1e-7)


@pytest.mark.parametrize("sweeps", [1, 3])
def test_the_log_derivative_form_is_the_slope_of_the_follower_s_data(sweeps):
    """What stands behind the scores is data; the dynamics under it are moved by a tape."""
    phi = logits_after(sweeps)
    own, pushed, _, _ = taped(phi)
    tables, policy = MDP.tables_at(THETA), np.exp(played(phi))
    chain = np.einsum("sa,sat->st", policy, tables.transition)
    soft = tables.reward_follower - BETA * np.log(policy)
    value = np.linalg.solve(np.eye(4) - MDP.discount_follower * chain, (policy * soft).sum(axis=1))
    advantage = soft + MDP.discount_follower * tables.transition @ value - value[:, None]
    direction = (np.linalg.pinv(BETA * fisher(phi), rcond=1e-10) @ pushed).reshape(4, 2)
    weighed = (policy * (direction - (policy * direction).sum(axis=1, keepdims=True)) * advantage).sum(axis=1)

    def data(theta):
        moved = MDP.evaluate(theta)
        followed = anp.sum(policy[:, :, None] * moved.transition, axis=1)
        return anp.dot(moved.initial, anp.linalg.solve(anp.eye(4) - MDP.discount_follower * followed, weighed))

    found = approximate_hypergradient(MDP, THETA, "log_derivative", sweeps)
    assert_close(found, own + autograd.grad(data)(THETA))
    assert np.abs(found - own).max() > 1e-3


def test_at_the_best_response_the_log_derivative_form_is_the_partial_gradient():
    truth = hypergradient(MDP, THETA)
    found = approximate_hypergradient(MDP, THETA, "log_derivative", 400)
    assert np.abs(found - (truth.value - truth.parts["response"])).max() <= 1e-10
    assert np.abs(truth.parts["response"]).max() > 0.1


@pytest.mark.parametrize("steps", [1, 3, 50])
def test_an_attenuated_penalty_is_that_of_plain_sweeps(steps):
    beta, gamma = ONE.temperature, ONE.discount_follower
    tables = ONE.tables_at(THETA)
    values, policies = [np.zeros(4), np.zeros(4)], [None, None]
    for j in range(1, steps + 1):
        for place, pay in enumerate((beta / np.sqrt(j), 0.0)):
            reward = tables.reward_follower + pay * tables.reward_leader
            action_value = reward + gamma * tables.transition @ values[place]
            values[place] = beta * logsumexp(action_value / beta, axis=1)
            policies[place] = np.exp((action_value - values[place][:, None]) / beta)

    def worth(theta, policy, pay):
        moved = ONE.evaluate(theta)
        chain = anp.sum(policy[:, :, None] * moved.transition, axis=1)
        soft = moved.reward_follower + pay * moved.reward_leader - beta * np.log(policy)
        return anp.dot(moved.initial, anp.linalg.solve(anp.eye(4) - gamma * chain, anp.sum(policy * soft, axis=1)))

    slope, pay = autograd.grad(worth), beta / np.sqrt(steps)
    expected = (slope(THETA, policies[0], pay) - slope(THETA, policies[1], 0.0)) / pay
    expected = expected + ONE.regulariser_gradient(THETA)
    assert_close(approximate_hypergradient(ONE, THETA, "attenuated_penalty", steps), expected)


def test_an_attenuated_penalty_has_the_order_of_its_pay():
    truth = hypergradient(ONE, THETA).value
    errors = [
        np.linalg.norm(approximate_hypergradient(ONE, THETA, "attenuated_penalty", k) - truth) for k in (2500, 10_000)
    ]
    assert np.log(errors[1] / errors[0]) / np.log(4.0) == pytest.approx(-0.5, abs=0.02)


def test_a_wide_network_is_exact_at_convergence_and_a_narrow_one_is_another_follower():
    game = toy_markov_game(temperature=0.5)
    theta = np.array([0.1, -0.2, 0.3])
    truth = hypergradient(game, theta).value
    wide, narrow = (approximate_hypergradient(game, theta, "network_policy", width) for width in (6, 1))
    assert np.abs(wide - truth).max() <= 1e-4 * np.abs(truth).max()
    assert np.abs(narrow - truth).max() > 1e-2 * np.abs(truth).max()


def test_a_network_s_total_derivative_is_that_of_its_own_best_response():
    """A follower that one unit cannot make best: differences of the leader's return under retrained networks."""
    problem = random_mdp(states=4, actions=3, parameters=2, seed=3, temperature=2.0)
    theta, step, returns = np.array([0.2, -0.1]), 1e-3, []
    seen = []
    real = network_module.follower_at

    def recorded(at, policy):
        seen.append(policy)
        return real(at, policy)

    found = approximate_hypergradient(problem, theta, "network_policy", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network_module, "follower_at", recorded)
        for unit in np.eye(2):
            for sign in (1.0, -1.0):
                moved = theta + sign * step * unit
                approximate_hypergradient(problem, moved, "network_policy", 1)
                tables, policy = problem.tables_at(moved), seen[-1]
                chain = np.einsum("sa,sat->st", policy, tables.transition)
                earned = (policy * tables.reward_leader).sum(axis=1)
                gained = np.linalg.solve(np.eye(4) - problem.discount_leader * chain, earned)
                returns.append(tables.initial @ gained + tables.regulariser)
    slopes = (np.array(returns[::2]) - returns[1::2]) / (2.0 * step)
    assert np.abs(found - slopes).max() <= 1e-4 * np.abs(slopes).max()
    assert np.abs(found - hypergradient(problem, theta).value).max() > 1e-2 * np.abs(slopes).max()


def test_what_they_cannot_answer_is_refused_by_name(monkeypatch):
    with pytest.raises(InvalidInputError, match="positive"):
        approximate_hypergradient(MDP, THETA, "damped_inverse", 0.0)
    with pytest.raises(UnsupportedError, match="one discount"):
        approximate_hypergradient(MDP, THETA, "attenuated_penalty", 10)
    with pytest.raises(UnsupportedError, match="horizon=5"):
        approximate_hypergradient(ONE, THETA, "attenuated_penalty", 10, horizon=5)
    with pytest.raises(TooLargeError, match="416 logits"):
        approximate_hypergradient(four_rooms(), np.zeros(105), "network_policy", 2)
    monkeypatch.setattr("bilevelrl.reference.approximations.through_logits.unsolved.LOGIT_LIMIT", 7)
    with pytest.raises(TooLargeError, match="use fisher_unsolved"):
        approximate_hypergradient(MDP, THETA, "implicit_unsolved", 2)
    monkeypatch.setattr(network_module, "_STILL", 1e-300)
    with pytest.raises(NotConvergedError, match="another width"):
        approximate_hypergradient(MDP, THETA, "network_policy", 1)
