"""Every approximation against another way to compute the same number, and where it ends up."""

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
import scipy.integrate
from scipy import optimize

from bilevelrl.reference import hypergradient, leader_objective, solve_follower
from bilevelrl.reference.approximations import APPROXIMATIONS, approximate_hypergradient, tabular_at
from bilevelrl.reference.approximations import bellman_penalty as bellman_module
from bilevelrl.reference.approximations.adjoints import ruling_rate
from bilevelrl.reference.approximations.alternating_tables import ruling_table
from bilevelrl.reference.approximations.bellman_penalty import _weights, penalised_policy
from bilevelrl.reference.errors import (
    InvalidInputError,
    NotConvergedError,
    TooLargeError,
    UnknownNameError,
    UnsupportedError,
)
from bilevelrl.reference.problem import Objective
from bilevelrl.reference.tabular import evaluate_leader
from bilevelrl.tasks import four_rooms, random_lqr, random_markov_game, random_mdp

pytestmark = pytest.mark.exact

THETA = np.array([0.3, -0.5, 0.2])
MDP = random_mdp(states=4, actions=2, parameters=3, seed=0, discount_leader=0.8, discount_follower=0.9)
SMALL = random_mdp(states=3, actions=2, parameters=1, seed=1)
OBJECTIVES = [{}, {"horizon": 5}]


def error(problem, theta, method, knob, **objective):
    truth = hypergradient(problem, theta, **objective).value
    found = approximate_hypergradient(problem, theta, method, knob, **objective)
    return np.linalg.norm(found - truth) / np.linalg.norm(truth)


def return_after(sweeps, start, theta, horizon):
    """J of a follower that makes so many sweeps from given values, traceable."""
    tables, value = MDP.evaluate(theta), start
    for _ in range(sweeps):
        action_value = tables.reward_follower + MDP.discount_follower * anp.sum(tables.transition * value, axis=2)
        scaled = action_value / MDP.temperature
        peak = anp.max(scaled, axis=1, keepdims=True)
        soft = peak + anp.log(anp.sum(anp.exp(scaled - peak), axis=1, keepdims=True))
        policy, value = anp.exp(scaled - soft), MDP.temperature * soft[:, 0]
    earned = anp.sum(policy * tables.reward_leader, axis=1)
    chain = anp.sum(policy[:, :, None] * tables.transition, axis=1)
    if horizon is None:
        gained = anp.linalg.solve(anp.eye(4) - MDP.discount_leader * chain, earned)
    else:
        gained = anp.zeros(4)
        for _ in range(horizon):
            gained = earned + MDP.discount_leader * anp.dot(chain, gained)
    return anp.dot(tables.initial, gained) + tables.regulariser


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("sweeps", [1, 2, 7])
@pytest.mark.parametrize("method", ["differentiated_sweeps", "unrolled_sweeps"])
def test_sweeps_are_those_of_a_tape(method, sweeps, objective):
    solved = solve_follower(MDP, THETA).value if method == "differentiated_sweeps" else np.zeros(4)
    taped = autograd.grad(return_after, 2)(sweeps, solved, THETA, objective.get("horizon"))
    found = approximate_hypergradient(MDP, THETA, method, sweeps, **objective)
    assert np.abs(found - taped).max() <= 1e-12 * np.abs(taped).max()


def test_tables_after_few_sweeps_are_those_of_sums_along_paths():
    """After k sweeps: ∇Q_F, Q_L and the response as they stand with so many steps to go, by explicit sums."""
    tables, jacobian = MDP.tables_at(THETA), MDP.jacobian(THETA)
    follower = solve_follower(MDP, THETA)
    policy, slopes = follower.policy, jacobian["transition"]
    own = jacobian["reward_follower"] + MDP.discount_follower * np.einsum("satn,t->san", slopes, follower.value)

    def heard(k):
        if k == 0:
            return 0.0 * own
        mean = np.einsum("sa,san->sn", policy, heard(k - 1))
        return own + MDP.discount_follower * np.einsum("sat,tn->san", tables.transition, mean)

    def gained(k):
        if k == 0:
            return np.zeros(policy.shape)
        return tables.reward_leader + MDP.discount_leader * tables.transition @ (policy * gained(k - 1)).sum(axis=1)

    def led(k):
        if k == 0:
            return 0.0 * own
        worth = (policy * gained(k - 1)).sum(axis=1)
        covariance = (heard(k - 1) - np.einsum("sa,san->sn", policy, heard(k - 1))[:, None]) * (
            gained(k - 1) - worth[:, None]
        )[..., None]
        mean = np.einsum("sa,san->sn", policy, led(k - 1))
        ahead = np.einsum("satn,t->san", slopes, worth) + np.einsum("sat,tn->san", tables.transition, mean)
        return jacobian["reward_leader"] + covariance / MDP.temperature + MDP.discount_leader * ahead

    for k in (1, 2, 4):
        expected = tables.initial @ np.einsum("sa,san->sn", policy, led(k))
        expected = expected + jacobian["initial"].T @ (policy * gained(k)).sum(axis=1) + MDP.regulariser_gradient(THETA)
        found = approximate_hypergradient(MDP, THETA, "alternating_tables", k)
        assert np.abs(found - expected).max() <= 1e-12


def test_the_fixed_point_of_the_tables_is_exact_and_episodes_are_refused():
    assert error(MDP, THETA, "alternating_tables", 500) < 1e-11
    assert error(MDP, THETA, "alternating_tables", 5) > 1e-3
    with pytest.raises(UnsupportedError, match="know no time"):
        approximate_hypergradient(MDP, THETA, "alternating_tables", 5, horizon=5)


@pytest.mark.parametrize("method", ["differentiated_sweeps", "unrolled_sweeps", "conjugate_gradients"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_many_steps_are_exact(method, objective):
    assert error(MDP, THETA, method, 300, **objective) < 1e-11
    assert error(MDP, THETA, method, 1, **objective) > 1e-3


def test_conjugate_gradients_end_after_as_many_steps_as_there_are_states():
    assert error(MDP, THETA, "conjugate_gradients", 4) < 1e-11
    assert error(MDP, THETA, "conjugate_gradients", 2) > 1e-4


def test_the_rate_that_rules_is_not_the_discount():
    """On Four-Rooms at β = .003: the response through 10, 50 and 100 sweeps is off by .62, .039 and 3.0e-4."""
    problem, theta = four_rooms(temperature=0.003), np.zeros(105)
    truth = hypergradient(problem, theta)
    size = np.linalg.norm(truth.parts["response"])
    off = {
        sweeps: np.linalg.norm(approximate_hypergradient(problem, theta, "differentiated_sweeps", sweeps) - truth.value)
        for sweeps in (10, 50, 100, 150)
    }
    for sweeps, expected in ((10, 0.62), (50, 0.039), (100, 3.0e-4)):
        assert off[sweeps] / size == pytest.approx(expected, rel=0.02)
    rules = ruling_rate(problem.at(theta))
    assert rules == pytest.approx(0.904, abs=0.001)
    assert (off[150] / off[100]) ** (1 / 50) == pytest.approx(rules, abs=0.01)
    assert (off[150] / off[100]) ** (1 / 50) < 0.95 < problem.discount_follower


@pytest.mark.parametrize(
    ("problem", "theta", "knobs", "near"),
    [
        (MDP, THETA, (100, 120), 0.8),  # what is earned goes on: γ_L, and the follower's own is faster
        (random_mdp(states=4, actions=2, parameters=3, seed=0, termination=0.5), THETA, (30, 40), 0.55),
        (four_rooms(temperature=0.003), np.zeros(105), (150, 200), 0.904),  # goals end it
    ],
    ids=["goes on", "ends", "four rooms"],
)
def test_the_eigenvalue_that_rules_amd_is_the_rate_that_is_measured(problem, theta, knobs, near):
    rules = ruling_table(problem.at(theta))
    first, second = (error(problem, theta, "alternating_tables", knob) for knob in knobs)
    assert (second / first) ** (1.0 / (knobs[1] - knobs[0])) == pytest.approx(rules, abs=0.02)
    assert rules == pytest.approx(near, abs=0.1)


@pytest.mark.parametrize(("sides", "order"), [("one", 1.0), ("two", 2.0)])
def test_penalties_have_their_order_at_equal_discounts(sides, order):
    problem = random_mdp(states=4, actions=2, parameters=3, seed=0)
    errors = [error(problem, THETA, f"value_penalty_{sides}_sided", w) for w in (2e-3, 1e-3)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.05)


def penalised(theta, pay, weights):
    """The best of J(θ, π) - (β/w) Σ ν KL(π | π*), and the policy that has it."""
    at = MDP.at(theta)
    best = solve_follower(MDP, theta).policy
    policy = penalised_policy(at, best, weights, pay)
    return penalised_value(at, policy, best, pay, weights), policy, best


def penalised_value(at, policy, best, pay, weights):
    divergence = (policy * np.log(policy / best)).sum(axis=1)
    earned = (policy * at.tables.reward_leader).sum(axis=1)
    chain = (policy[:, :, None] * at.tables.transition).sum(axis=1)
    gained = np.linalg.solve(np.eye(4) - MDP.discount_leader * chain, earned)
    return at.tables.initial @ gained + at.tables.regulariser - MDP.temperature / pay * (weights @ divergence)


@pytest.mark.parametrize("pay", [0.3, 0.05])
def test_the_bellman_penalty_is_the_slope_of_the_best_penalised_objective(pay):
    """By differences of its maximum, which know nothing of adjoints; and nothing else is better."""
    at = MDP.at(THETA)
    weights = _weights(at, solve_follower(MDP, THETA).policy)
    value, policy, best = penalised(THETA, pay, weights)
    found = optimize.minimize(
        lambda x: -penalised_value(at, _softmax(x.reshape(4, 2)), best, pay, weights), np.log(best).ravel(), tol=1e-10
    )
    assert -found.fun == pytest.approx(value, abs=1e-9)
    assert np.abs(_softmax(found.x.reshape(4, 2)) - policy).max() < 1e-4
    step = 1e-4
    slopes = [
        (penalised(THETA + step * e, pay, weights)[0] - penalised(THETA - step * e, pay, weights)[0]) / (2 * step)
        for e in np.eye(3)
    ]
    exact = approximate_hypergradient(MDP, THETA, "bellman_penalty_one_sided", pay / MDP.temperature)
    assert np.abs(exact - slopes).max() < 1e-6


def _softmax(logits):
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("sides", "order"), [("one", 1.0), ("two", 2.0)])
def test_bellman_penalties_have_their_order_at_any_discounts(sides, order):
    errors = [error(MDP, THETA, f"bellman_penalty_{sides}_sided", w) for w in (2e-3, 1e-3)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.05)


def test_bellman_penalties_refuse_what_they_cannot_answer(monkeypatch):
    with pytest.raises(InvalidInputError, match="rounding"):
        approximate_hypergradient(MDP, THETA, "bellman_penalty_one_sided", 0.0)
    with pytest.raises(UnsupportedError, match="knows no time"):
        approximate_hypergradient(MDP, THETA, "bellman_penalty_one_sided", 0.1, horizon=5)
    monkeypatch.setattr(bellman_module, "_ITERATIONS", 3)
    with pytest.raises(NotConvergedError, match="smaller pay"):
        approximate_hypergradient(MDP, THETA, "bellman_penalty_one_sided", 0.5)


def test_smoothing_is_an_integral_of_the_objective():
    theta, u = np.array([0.2]), 0.3

    def integrand(z):
        moved = leader_objective(SMALL, theta + u * z)
        return moved * z / u * np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi)

    expected, _ = scipy.integrate.quad(integrand, -9.0, 9.0, epsabs=1e-11, epsrel=1e-11)
    found = approximate_hypergradient(SMALL, theta, "smoothing", u)
    assert found[0] == pytest.approx(expected, rel=1e-7)
    errors = [error(SMALL, theta, "smoothing", u) for u in (0.02, 0.01)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("sees", [True, False])
def test_games_are_taken_through_the_problem_that_they_reduce_to(sees):
    game = random_markov_game(states=3, leader_actions=2, actions=2, seed=0)
    object.__setattr__(game, "follower_sees_leader_action", sees)
    for method, knob in (("differentiated_sweeps", 400), ("value_penalty_two_sided", 1e-4)):
        assert error(game, THETA, method, knob) < 1e-6


def test_what_makes_no_sense_is_refused():
    with pytest.raises(UnknownNameError, match="differentiated_sweeps"):
        approximate_hypergradient(MDP, THETA, "differentiated_sweep", 1)
    for knob in (0, 1.5, -1):
        with pytest.raises(InvalidInputError, match="integer >= 1"):
            approximate_hypergradient(MDP, THETA, "conjugate_gradients", knob)
    with pytest.raises(InvalidInputError, match="other than zero"):
        approximate_hypergradient(MDP, THETA, "value_penalty_two_sided", 0.0)
    with pytest.raises(InvalidInputError, match="rounding"):
        approximate_hypergradient(SMALL, np.zeros(1), "smoothing", 1e-16)
    with pytest.raises(InvalidInputError, match="positive"):
        approximate_hypergradient(SMALL, np.zeros(1), "smoothing", 0.0)
    with pytest.raises(TooLargeError, match="sample it"):
        approximate_hypergradient(MDP, THETA, "smoothing", 0.1)
    with pytest.raises(UnsupportedError, match="MarkovGame"):
        approximate_hypergradient(random_lqr(), THETA, "conjugate_gradients", 1)


@pytest.mark.parametrize("name", APPROXIMATIONS)
def test_each_says_what_it_is(name):
    entry = APPROXIMATIONS[name]
    assert entry.name == name
    assert entry.summary
    assert entry.source
    if entry.rate is not None:
        rate = entry.rate(tabular_at(MDP, THETA))
        assert 0.0 < rate < 1.0 if entry.geometric else rate >= 1.0 or name == "attenuated_penalty"


@pytest.mark.parametrize("method", ["differentiated_sweeps", "conjugate_gradients"])
def test_an_adjoint_that_has_not_converged_is_named_with_what_is_left_of_it(method):
    with pytest.raises(NotConvergedError, match=r"knob=3.0: 0\.\d+ of the right-hand side.*route='implicit'"):
        approximate_hypergradient(MDP, THETA, method, 3, tolerance=1e-8)
    found = approximate_hypergradient(MDP, THETA, method, 300, tolerance=1e-8)
    assert np.array_equal(found, approximate_hypergradient(MDP, THETA, method, 300))
    with pytest.raises(UnsupportedError, match="adjoints are solved by"):
        approximate_hypergradient(MDP, THETA, "alternating_tables", 3, tolerance=1e-8)


def test_what_is_left_of_the_series_is_the_power_that_is_cut():
    """b - (I - M) Σ_{j<k-1} M^j b = M^(k-1) b, by powers of the matrix."""
    at = MDP.at(THETA)
    policy = solve_follower(MDP, THETA).policy
    matrix = MDP.discount_follower * np.einsum("sa,sat->st", policy, at.tables.transition).T
    q = evaluate_leader(at.tables, policy, MDP.discount_leader).benefit_weight / MDP.temperature
    b = MDP.discount_follower * np.einsum("sa,sat->t", q, at.tables.transition)
    left = APPROXIMATIONS["differentiated_sweeps"].residual(at, Objective(), 4)
    assert left == pytest.approx(np.linalg.norm(np.linalg.matrix_power(matrix, 3) @ b) / np.linalg.norm(b), rel=1e-9)


def test_a_planted_mistake_in_the_series_is_seen(monkeypatch):
    """One sweep too many counts as k sweeps: the tape of the test above says which is right."""
    taped = autograd.grad(return_after, 2)(3, solve_follower(MDP, THETA).value, THETA, None)
    wrong = approximate_hypergradient(MDP, THETA, "differentiated_sweeps", 4)
    assert np.abs(wrong - taped).max() > 1e-4 * np.abs(taped).max()


def implicit_in_single_precision(problem, theta):
    """∇J and its response with every array and every solve in float32; only the weights' pullback is in double."""
    at, tables = problem.at(theta), problem.tables_at(theta)
    single = np.float32
    kernel, follower, leader, initial = (
        np.asarray(each, dtype=single)
        for each in (at.kernel, tables.reward_follower, tables.reward_leader, tables.initial)
    )
    states, beta, discounts = len(initial), single(problem.temperature), problem.discount_follower
    value, discount, identity = np.zeros(states, dtype=single), single(discounts), np.eye(states, dtype=single)
    for _ in range(2000):
        action_value = follower + discount * (kernel @ value)
        peak = action_value.max(axis=1)
        weights = np.exp((action_value - peak[:, None]) / beta)
        value = peak + beta * np.log(weights.sum(axis=1))
    policy = weights / weights.sum(axis=1, keepdims=True)
    chain = np.matmul(policy[:, None, :], kernel)[:, 0]
    led = np.linalg.solve(identity - discount * chain, (policy * leader).sum(axis=1))
    benefit = leader + discount * (kernel @ led)
    benefit = benefit - (policy * benefit).sum(axis=1, keepdims=True)
    visits = np.linalg.solve(identity - discount * chain.T, initial)
    cotangent = visits[:, None] * policy * benefit / beta
    pushed = discount * np.einsum("sa,sat->t", cotangent, kernel)
    weight = cotangent + np.linalg.solve(identity - discount * chain.T, pushed)[:, None] * policy
    assert weight.dtype == single
    response = at.pullback({"reward_follower": weight.astype(float)})
    own = {"reward_leader": (visits[:, None] * policy).astype(float), "regulariser": np.ones(())}
    return response + at.pullback(own), response, np.linalg.cond(identity - discount * chain)


@pytest.mark.parametrize(
    ("temperature", "condition", "whole", "response"),
    [(0.001, 62, 1.4e-4, 1.4e-3), (0.003, 62, 1.9e-4, 8e-4), (0.005, 67, 9e-5, 1.4e-4)],
)
def test_what_single_precision_loses_on_four_rooms(temperature, condition, whole, response):
    """The order of operations moves these numbers by a factor of four either way; five is what is allowed."""
    problem, theta = four_rooms(temperature=temperature), np.zeros(105)
    assert problem.discount_leader == problem.discount_follower
    truth = hypergradient(problem, theta)
    value, own, found = implicit_in_single_precision(problem, theta)
    assert found == pytest.approx(condition, abs=1.0)
    size = np.linalg.norm(truth.value)
    assert whole / 5.0 < np.linalg.norm(value - truth.value) / size < 5.0 * whole
    lost = np.linalg.norm(own - truth.parts["response"]) / np.linalg.norm(truth.parts["response"])
    assert response / 5.0 < lost < 5.0 * response
