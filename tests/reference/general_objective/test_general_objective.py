"""General objectives: routes against each other and against dense Jacobians of policy and occupancy, written here."""

import importlib
import pickle
from dataclasses import replace

import autograd.numpy as anp
import numpy as np
import pytest
from autograd.tracer import getval
from scipy.special import logsumexp

from bilevelrl.estimators import BCHG, Claim, Context, NaivePGD, sample_trajectories
from bilevelrl.reference import ConfigurableMDP, hypergradient, leader_objective, solve_follower
from bilevelrl.reference.approximations import approximate_hypergradient
from bilevelrl.reference.errors import (
    DerivativeError,
    InvalidInputError,
    ShapeError,
    SupportError,
    UnknownNameError,
    UnsupportedError,
)
from bilevelrl.reference.general_objective import GeneralObjective, ordinary_problem
from bilevelrl.reference.registry import objective_error_bound
from bilevelrl.tasks import chain, garnet, layered_mdp, random_mdp
from bilevelrl.tasks.paper import policy_norm, policy_norm_start
from bilevelrl.verification import verify

pytestmark = pytest.mark.exact

PROCESS = random_mdp(states=4, actions=2, parameters=3, seed=0)
THETA = np.array([0.3, -0.5, 0.2])
OBJECTIVES = ({}, {"horizon": 5}, {"horizon": 5, "discounted": False})
linear = importlib.import_module("bilevelrl.reference.general_objective.linearise")
response = importlib.import_module("bilevelrl.reference.general_objective.response")


def wanted(theta, policy, occupancy):
    """The occupancy of an expert, matched: inverse reinforcement learning."""
    return -anp.sum((occupancy[:, None] * policy - np.array([[0.4, 0.1], [0.1, 0.0], [0.2, 0.1], [0.0, 0.1]])) ** 2)


def preferred(theta, policy, occupancy):
    """PARL's form for segments of one step: which of two visited pairs is preferred, under rewards that θ shifts."""
    pairs = anp.ravel(occupancy[:, None] * policy)
    worth = np.array([[0.0, 1.0, -1.0, 0.5, 0.2, 0.7, -0.3, 0.1]]) * anp.exp(theta[0]) + theta[1]
    judged = np.arange(8)[:, None] > np.arange(8)[None, :]
    return -anp.dot(pairs, anp.dot(judged * anp.log(1.0 + anp.exp(worth - worth.T)), pairs))


def risky(theta, policy, occupancy):
    """Entropic risk of what a step earns, drawn from the occupancy."""
    earned = np.arange(8.0).reshape(4, 2) / 4.0
    return -anp.log(anp.sum(occupancy[:, None] * policy * anp.exp(-2.0 * earned))) / 2.0


def mixed(theta, policy, occupancy):
    """Everything in everything, the entropy of the policy included."""
    paid = anp.sum(occupancy[:, None] * policy * anp.log(policy))
    return anp.sum(occupancy**2) * anp.sin(theta[0]) + anp.sum(policy**3) * anp.exp(theta[1]) + paid + theta[2] ** 2


FORMS = {
    "matching": GeneralObjective(process=PROCESS, objective=wanted, normalised=True),
    "preferences": GeneralObjective(process=PROCESS, objective=preferred, normalised=True),
    "risk": GeneralObjective(process=PROCESS, objective=risky, normalised=True),
    "mixed": GeneralObjective(process=PROCESS, objective=mixed),
    "sparse": GeneralObjective(
        process=garnet(states=5, actions=2, parameters=3, seed=3), objective=lambda t, p, d: anp.sum(d**2 * p[:, 0])
    ),
}


def dense(problem, theta, *, horizon=None, discounted=True):
    """The same total derivative with ∂π/∂θ and ∂d/∂θ as matrices: no adjoint, no value of the leader."""
    process, beta = problem.process, problem.temperature
    tables, gamma = process.tables_at(theta), process.discount_follower
    states, actions, count = tables.states, tables.actions, theta.size
    kernel = process.at(theta).kernel
    slopes = {name: np.zeros((*shape, count)) for name, shape in (
        ("reward_follower", (states, actions)), ("transition", kernel.shape), ("initial", (states,)))}  # fmt: skip
    step = 1e-30  # complex step of the tables alone
    for j in range(count):
        moved = theta.astype(complex)
        moved[j] += 1j * step
        found = process.evaluate(moved)
        for name in slopes:
            entry = getattr(found, name)
            entry = entry.to_dense() if hasattr(entry, "to_dense") else entry
            slopes[name][..., j] = np.imag(entry) / step
    value = np.zeros(states)
    for _ in range(400):
        action_value = tables.reward_follower + gamma * kernel @ value
        value = beta * logsumexp(action_value / beta, axis=1)
    policy = np.exp((action_value - value[:, None]) / beta)
    source = slopes["reward_follower"] + gamma * np.einsum("satn,t->san", slopes["transition"], value)
    chain_ = np.einsum("sa,sat->st", policy, kernel)
    by_value = np.linalg.solve(np.eye(states) - gamma * chain_, np.einsum("sa,san->sn", policy, source))
    by_action = source + gamma * np.einsum("sat,tn->san", kernel, by_value)
    by_policy = policy[:, :, None] * (by_action - by_value[:, None]) / beta
    weight = process.discount_leader if discounted else 1.0
    moved_chain = np.einsum("san,sat->stn", by_policy, kernel) + np.einsum("sa,satn->stn", policy, slopes["transition"])
    law, law_slope = np.asarray(tables.initial), slopes["initial"]
    visits, visits_slope = np.zeros(states), np.zeros((states, count))
    total = 0.0
    for t in range(400 if horizon is None else horizon):
        visits, visits_slope, total = visits + law, visits_slope + law_slope, total + weight**t
        law_slope = weight * (np.einsum("s,stn->tn", law, moved_chain) + chain_.T @ law_slope)
        law = weight * law @ chain_
    scale = 1.0 / total if problem.normalised else 1.0
    plain = replace(problem, cotangents=None)
    by = plain.slopes(theta, policy, scale * visits)
    along = by.theta + np.einsum("sa,san->n", by.policy, by_policy) + scale * by.occupancy @ visits_slope
    return along, scale * visits, policy


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
@pytest.mark.parametrize("name", FORMS)
def test_routes_agree_with_each_other_and_with_dense_jacobians(name, objective):
    """To 1e-11 of the largest part: rounding times the conditioning of ten discounted steps; differences to 1e-8."""
    problem = FORMS[name]
    along, occupancy, policy = dense(problem, THETA, **objective)
    found = {
        route: hypergradient(problem, THETA, route=route, **objective)
        for route in ("implicit", "unrolled", "complex_step", "finite_difference")
    }
    parts = found["implicit"].parts
    size = max(float(np.abs(part).max()) for part in parts.values())
    assert size > 1e-3
    np.testing.assert_allclose(found["implicit"].value, along, rtol=0.0, atol=1e-11 * size)
    for route, other in found.items():
        close = 1e-8 if route == "finite_difference" else 1e-11
        assert other.parts.keys() == parts.keys()
        for part, value in other.parts.items():
            np.testing.assert_allclose(value, parts[part], rtol=0.0, atol=close * size)
        assert other.objective == pytest.approx(problem.objective(THETA, policy, occupancy), rel=1e-11)
        assert other.error_bound == np.inf
    assert leader_objective(problem, THETA, **objective) == found["implicit"].objective
    ordinary = ordinary_problem(problem, THETA, **objective)
    same = hypergradient(ordinary, THETA, **objective)
    np.testing.assert_allclose(same.value, along, rtol=0.0, atol=1e-10 * size)
    assert same.objective == pytest.approx(found["implicit"].objective, rel=1e-10)
    assert same.error_bound < 1e-7 * size


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_the_ordinary_return_is_one_case(objective):
    process = random_mdp(states=4, actions=3, parameters=3, seed=5)

    def earned(theta, policy, occupancy):
        tables = process.evaluate(theta)
        return tables.regulariser + anp.sum(occupancy[:, None] * policy * tables.reward_leader)

    general = hypergradient(GeneralObjective(process=process, objective=earned), THETA, **objective)
    ordinary = hypergradient(process, THETA, **objective)
    allowed = 2.0 * ordinary.error_bound
    assert np.abs(general.value - ordinary.value).max() <= allowed
    for part in ("initial", "transition", "response"):
        assert np.abs(general.parts[part] - ordinary.parts[part]).max() <= allowed
    assert general.objective == pytest.approx(ordinary.objective, rel=1e-13)


def test_what_the_occupancy_is():
    """Its sum is that of the steps' weights, one where normalised, and less where paths end."""
    seen = {}

    def kept(theta, policy, occupancy):
        seen["sum"] = float(np.sum(occupancy))
        return 0.0 * anp.sum(occupancy)

    for process, normalised, objective, total in (
        (PROCESS, False, {}, 1.0 / (1.0 - 0.8)),
        (PROCESS, True, {}, 1.0),
        (PROCESS, False, {"horizon": 3}, 1.0 + 0.8 + 0.64),
        (PROCESS, False, {"horizon": 3, "discounted": False}, 3.0),
        (PROCESS, True, {"horizon": 3, "discounted": False}, 1.0),
    ):
        leader_objective(GeneralObjective(process=process, objective=kept, normalised=normalised), THETA, **objective)
        assert seen["sum"] == pytest.approx(total, rel=1e-13)
    ending = GeneralObjective(process=random_mdp(termination=0.5), objective=kept, normalised=True)
    leader_objective(ending, THETA)
    assert seen["sum"] < 0.7


def _without_policy(at, policy, objective, *, play=response.play, **options):
    found = play(at, policy, objective, **options)
    return replace(found, slopes=found.slopes._replace(policy=np.zeros_like(policy)))


def _without_occupancy(at, policy, objective, *, play=response.play, **options):
    found = play(at, policy, objective, **options)
    nothing = response.evaluate_leader(
        response.paid(at.process.tables, np.zeros((1, 1))), policy, at.problem.discount_leader, objective=objective
    )
    return replace(found, evaluation=nothing)


def _wrongly_normalised(at, policy, objective, *, play=response.play, **options):
    return play(
        replace(at, problem=replace(at.problem, normalised=not at.problem.normalised)), policy, objective, **options
    )


def _at_the_followers_discount(at, policy, objective, *, play=response.play, **options):
    moved = replace(at.problem, process=replace(at.problem.process, discount_leader=at.problem.discount_follower))
    return play(replace(at, problem=moved), policy, objective, **options)


@pytest.mark.parametrize(
    "mutant", [_without_policy, _without_occupancy, _wrongly_normalised, _at_the_followers_discount]
)
def test_planted_errors_are_seen(mutant, monkeypatch):
    problem = FORMS["mixed"]
    along, *_ = dense(problem, THETA)
    monkeypatch.setattr(linear, "play", mutant)
    assert np.abs(hypergradient(problem, THETA).value - along).max() > 1e-3


def test_warm_starts_and_pickles():
    problem = policy_norm(states=6, actions=3, parameters=8)
    theta = policy_norm_start(parameters=8)
    first = hypergradient(problem, theta)
    again = hypergradient(problem, theta + 0.001, warm_start=first)
    cold = hypergradient(problem, theta + 0.001)
    assert again.counters["sweeps"] < cold.counters["sweeps"]
    np.testing.assert_allclose(again.value, cold.value, rtol=1e-11)
    copied = pickle.loads(pickle.dumps(problem))
    np.testing.assert_array_equal(hypergradient(copied, theta).value, first.value)
    assert objective_error_bound(problem, theta) == np.inf


def m_sobirl(problem, x, steps, *, sweeps=10, adjoint_steps=1, rate=8e-3, adjoint_rate=0.5):
    """SoBiRL's released loop: stale values, one gradient step on its adjoint, a policy that is not normalised."""
    beta, gamma = problem.temperature, problem.discount_follower
    rng, states = np.random.default_rng(0), problem.process.states_at(x)
    adjoint, value, history = rng.standard_normal(states), np.zeros(states), []
    policy = np.full((states, problem.process.tables_at(x).actions), 0.2)
    for _ in range(steps):
        tables = problem.process.tables_at(x)
        kernel, reward = tables.transition, tables.reward_follower
        matrix = (np.eye(states) - gamma * np.einsum("sa,sat->st", policy, kernel)).T
        weight = policy**2
        right = weight.sum(axis=1) - gamma * np.einsum("sa,sat->t", weight, kernel)
        for _ in range(adjoint_steps):
            adjoint = adjoint - adjoint_rate * (matrix.T @ (matrix @ adjoint - right))
        action_value = (reward + gamma * kernel @ value) / beta
        played = np.exp(action_value - logsumexp(action_value, axis=1)[:, None])
        pull = problem.process.pullback_at(x)
        gradient = x + pull({"reward_follower": (weight - adjoint[:, None] * played) / beta})
        history.append((0.5 * x @ x + 0.5 * (policy**2).sum(), float(np.linalg.norm(gradient)), gradient))
        x = x - rate * gradient
        reward = problem.process.tables_at(x).reward_follower
        for _ in range(sweeps):
            value = beta * logsumexp((reward + gamma * kernel @ value) / beta, axis=1)
        policy = np.exp((reward + gamma * kernel @ value - value[:, None]) / beta)
    return history


def test_sobirls_model_based_method_is_exact_at_its_fixed_point():
    """With x at rest, values and adjoint settle at γ^k, and its direction is the hypergradient of the minimised f."""
    problem, x = policy_norm(), policy_norm_start()
    exact = hypergradient(problem, x)
    settled = m_sobirl(problem, x, 12, rate=0.0, adjoint_steps=100)[-1]
    assert np.linalg.norm(settled[2] + exact.value) <= 1e-10 * np.linalg.norm(exact.value)
    assert settled[0] == pytest.approx(-exact.objective, rel=1e-12)
    started = m_sobirl(problem, x, 1, rate=0.0)[-1]
    assert np.linalg.norm(started[2] + exact.value) > 0.1 * np.linalg.norm(exact.value)
    inner = replace(problem, normalised=True)  # no occupancy in it: nothing changes
    np.testing.assert_array_equal(hypergradient(inner, x).value, exact.value)


def test_estimators_see_the_ordinary_problem():
    """Exact, by enumeration: BC-HG's mean is the general objective's hypergradient, the naive estimate's not."""
    process, theta = layered_mdp(seed=0), np.full(3, 0.1)
    problem = GeneralObjective(
        process=process, objective=lambda t, p, d: anp.sum(d**2 * anp.sum(p**2, axis=1)) * anp.exp(t[0])
    )
    assert verify(BCHG(), problem=problem, theta=theta).passed
    assert not verify(NaivePGD(), problem=problem, theta=theta, claim=Claim.UNBIASED).passed
    ordinary = ordinary_problem(problem, theta)
    assert isinstance(ordinary, ConfigurableMDP)
    follower = solve_follower(problem, theta)
    context = Context(problem=ordinary, theta=theta, follower=follower)
    expected = sum(BCHG().expectation(context, horizon=3).values())
    exact = hypergradient(problem, theta).value
    np.testing.assert_allclose(expected, exact, rtol=0.0, atol=1e-12 * np.abs(exact).max())
    penalty = approximate_hypergradient(ordinary, theta, "value_penalty_two_sided", 1e-3)
    assert np.abs(penalty - exact).max() < 1e-4 * np.abs(exact).max()
    batch = sample_trajectories(ordinary, theta, follower, streams=2, steps=3, rng=np.random.default_rng(0))
    with pytest.raises(UnsupportedError, match=r"GeneralObjective.*seen_by_estimators"):
        BCHG()(batch, replace(context, problem=problem))
    with pytest.raises(UnsupportedError, match="ordinary_problem"):
        problem.pullback(theta, batch, {})
    for route in ("forward", "theorem1", "m_sobirl", "mixed_derivative", "certified"):
        with pytest.raises(UnsupportedError, match=rf"{route}.*GeneralObjective.*implicit"):
            hypergradient(problem, theta, route=route)
    with pytest.raises(UnsupportedError, match="GeneralObjective"):
        approximate_hypergradient(problem, theta, "value_penalty_two_sided", 1e-3)


def test_a_policy_that_counts_where_nobody_comes_is_refused_to_estimators():
    process = random_mdp(states=4, actions=2, parameters=3, seed=0, theta_in=("reward_follower",))
    tables = process.tables_at(np.zeros(3))
    alone = np.zeros((4, 2, 4))
    alone[:, :, 0] = 1.0
    start = np.eye(4)[0]
    cut = replace(
        process,
        tables=lambda x: process.evaluate(x).replace({"transition": alone, "initial": start}),
        tables_jacobian=None,
        tables_pullback=None,
    )
    problem = GeneralObjective(process=cut, objective=lambda t, p, d: anp.sum(p**2))
    assert np.abs(hypergradient(problem, THETA).value).max() > 1e-3
    with pytest.raises(SupportError, match="state 1 is never visited"):
        ordinary_problem(problem, THETA)
    assert tables.states == 4


def general(objective, cotangents=None, **options):
    return GeneralObjective(process=PROCESS, objective=objective, cotangents=cotangents, **options)


def squares(theta, policy, occupancy):
    return anp.sum(theta**2) + anp.sum(policy**2) + anp.sum(occupancy**2)


RIGHT = {
    "theta": lambda t, p, d: 2.0 * t,
    "policy": lambda t, p, d: 2.0 * p,
    "occupancy": lambda t, p, d: 2.0 * d,
}


@pytest.mark.parametrize("wrong", RIGHT)
def test_given_cotangents_are_held_against_differences(wrong):
    def given(factor):
        return lambda *point: {
            name: slope(*point) * (factor if name == wrong else 1.0) for name, slope in RIGHT.items()
        }

    right = hypergradient(general(squares, given(1.0)), THETA)
    np.testing.assert_allclose(right.value, hypergradient(general(squares), THETA).value, rtol=1e-13)
    with pytest.raises(DerivativeError, match=rf"cotangents\['{wrong}'\].* along {wrong} .* by cotangents, expected"):
        hypergradient(general(squares, given(1.0 + 1e-6)), THETA)
    unchecked = hypergradient(general(squares, given(2.0), verify_derivatives=False), THETA)
    assert np.abs(unchecked.value - right.value).max() > 1e-3


@pytest.mark.parametrize("route", ["implicit", "unrolled"])
def test_a_trace_that_is_lost_is_seen(route):
    problem = general(lambda t, p, d: anp.sum(d) + anp.sum(getval(p) ** 2))
    with pytest.raises(DerivativeError, match=r"cotangents\['policy'\].* is 0 by autograd"):
        hypergradient(problem, THETA, route=route)


def test_one_entry_that_others_hide_is_held_too():
    def faint(theta, policy, occupancy):
        return anp.sum(occupancy) + 1e-9 * policy[2, 1] ** 2

    def given(theta, policy, occupancy):
        return {"occupancy": np.ones(4), "policy": 1e-9 * 2.5 * policy * np.eye(4)[2][:, None] * np.eye(2)[1]}

    with pytest.raises(DerivativeError, match=r"cotangents\['policy'\]"):
        hypergradient(general(faint, given), THETA)


@pytest.mark.parametrize(
    ("objective", "cotangents", "error", "message"),
    [
        (squares, lambda t, p, d: {"policy": p[:, 0]}, ShapeError, r"cotangents\['policy'\].*\(4, 2\)"),
        (squares, lambda t, p, d: {"polcy": p}, UnknownNameError, "did you mean 'policy'"),
        (squares, lambda t, p, d: p, InvalidInputError, "expected a mapping"),
        (squares, lambda t, p, d: {"theta": t * np.nan}, DerivativeError, "slope of objective by theta"),
        (lambda t, p, d: p, None, ShapeError, "sum it to one number"),
        (lambda t, p, d: np.nan, None, InvalidInputError, "finite number"),
        (lambda t, p, d: t[7], None, InvalidInputError, "raised IndexError"),
        (lambda t, p, d: anp.sum(anp.abs(t - THETA)), None, DerivativeError, "found a kink"),
    ],
)
def test_bad_objectives_are_refused_by_name(objective, cotangents, error, message):
    with pytest.raises(error, match=message):
        hypergradient(general(objective, cotangents), THETA)


def test_what_the_process_must_be_and_what_is_not_analytic():
    with pytest.raises(InvalidInputError, match="process"):
        GeneralObjective(process=3, objective=squares)
    bent = general(lambda t, p, d: anp.sum(anp.abs(d - 0.31) ** 3))
    for route in ("implicit", "finite_difference", "unrolled"):
        hypergradient(bent, THETA, route=route)
    with pytest.raises(InvalidInputError, match=r"complex occupancy.*another route"):
        hypergradient(bent, THETA, route="complex_step")
    with pytest.raises(ShapeError, match=r"follower\.policy\.shape"):
        leader_objective(general(squares), THETA, follower=solve_follower(chain(), np.zeros(chain().theta_shape)))
