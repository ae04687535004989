"""Planned in one kernel, measured in another, lived in a third: routes, bounds, and the mean of samples."""

import importlib
import itertools
import pickle
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logsumexp

from bilevelrl.estimators import BCHG, Context, NaivePGD, sample_trajectories
from bilevelrl.reference import hypergradient, leader_objective, solve_follower
from bilevelrl.reference.errors import InvalidInputError, ShapeError, UnsupportedError
from bilevelrl.reference.problem import Objective
from bilevelrl.reference.registry import objective_error_bound
from bilevelrl.reference.seen import Seen, seen_by_estimators
from bilevelrl.reference.separate_kernels import SeparateKernels, separate_error_bound
from bilevelrl.tasks import Scenario, layered_mdp, random_mdp
from bilevelrl.tasks.paper import published_four_rooms
from bilevelrl.verification import Outcome, judge, verify
from bilevelrl.verification.checks.deterministic import enumerate_scenario

pytestmark = pytest.mark.exact

PLANNED, MEASURED, LIVED = (random_mdp(seed=seed) for seed in range(3))
PROBLEM = SeparateKernels(planned=PLANNED, measured=MEASURED, lived=LIVED)
THETA = np.array([0.3, -0.5, 0.2])
OBJECTIVES = ({}, {"horizon": 5}, {"horizon": 5, "discounted": False})
ROUTES = ("implicit", "unrolled", "complex_step", "finite_difference")
linear = importlib.import_module("bilevelrl.reference.separate_kernels.linearise")


def dense(planned, measured, theta, *, horizon=None, discounted=True):
    """∇J by parts from ∂π/∂θ as a matrix and laws carried forwards: no adjoint and no leader's values."""
    gamma, beta, step = planned.discount_follower, planned.temperature, 1e-30

    def tables_and_slopes(problem):
        slopes = {}
        for j in range(theta.size):
            moved = theta.astype(complex)
            moved[j] += 1j * step
            for name, entry in problem.evaluate(moved).differentiable().items():
                slopes.setdefault(name, []).append(np.imag(entry) / step)
        return problem.tables_at(theta), {name: np.stack(rows, axis=-1) for name, rows in slopes.items()}

    own, own_slopes = tables_and_slopes(planned)
    value, by_value = np.zeros(own.states), np.zeros((own.states, theta.size))
    for _ in range(400):
        action_value = own.reward_follower + gamma * own.transition @ value
        by_action = own_slopes["reward_follower"] + gamma * (
            np.einsum("satn,t->san", own_slopes["transition"], value) + own.transition @ by_value
        )
        new = beta * logsumexp(action_value / beta, axis=1)
        policy = np.exp((action_value - new[:, None]) / beta)
        value, by_value = new, np.einsum("sa,san->sn", policy, by_action)
    by_policy = policy[:, :, None] * (by_action - by_value[:, None]) / beta
    paid, slopes = tables_and_slopes(measured)
    weight = measured.discount_leader if discounted else 1.0
    chain = np.einsum("sa,sat->st", policy, paid.transition)
    reward = (policy * paid.reward_leader).sum(axis=1)
    law, laws = np.asarray(paid.initial), dict.fromkeys(("initial", "transition", "response"), 0.0)
    laws = {part: np.zeros((own.states, theta.size)) for part in laws} | {"initial": slopes["initial"]}
    parts = {part: np.zeros(theta.size) for part in (*laws, "direct")}
    for _ in range(400 if horizon is None else horizon):
        parts["direct"] += np.einsum("s,sa,san->n", law, policy, slopes["reward_leader"])
        parts["response"] += np.einsum("s,san,sa->n", law, by_policy, paid.reward_leader)
        for part in laws:
            parts[part] += reward @ laws[part]
            laws[part] = weight * chain.T @ laws[part]
        laws["transition"] += weight * np.einsum("s,sa,satn->tn", law, policy, slopes["transition"])
        laws["response"] += weight * np.einsum("s,san,sat->tn", law, by_policy, paid.transition)
        law = weight * law @ chain
    return {**parts, "regulariser": slopes["regulariser"]}


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_routes_agree_within_their_bounds_and_with_dense_jacobians(objective):
    truth = dense(PLANNED, MEASURED, THETA, **objective)
    found = {route: hypergradient(PROBLEM, THETA, route=route, **objective) for route in ROUTES}
    for one, other in itertools.combinations(found.values(), 2):
        allowed = one.error_bound + other.error_bound
        assert allowed < 1e-8
        assert abs(one.objective - other.objective) <= one.objective_error_bound + other.objective_error_bound
        for part, value in one.parts.items():
            assert np.abs(value - other.parts[part]).max() <= allowed, part
    for part, value in found["implicit"].parts.items():
        np.testing.assert_allclose(value, truth[part], rtol=0.0, atol=1e-10, err_msg=part)
        assert np.abs(value).max() > 1e-3
    assert leader_objective(PROBLEM, THETA, **objective) == pytest.approx(found["implicit"].objective, rel=1e-13)
    assert objective_error_bound(PROBLEM, THETA, **objective) < 1e-10


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_one_kernel_for_all_is_the_ordinary_problem(objective):
    same, ordinary = (
        hypergradient(p, THETA, **objective) for p in (SeparateKernels(planned=PLANNED, measured=PLANNED), PLANNED)
    )
    for part, value in ordinary.parts.items():
        assert np.abs(value - same.parts[part]).max() <= ordinary.error_bound
    assert same.error_bound == pytest.approx(ordinary.error_bound, rel=0.5)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_bounds_cover_the_error_of_a_follower_that_is_off(temperature):
    """Errors of the response far above rounding travel as the bound says: it covers what they do."""
    problem = SeparateKernels(
        planned=random_mdp(seed=3, temperature=temperature), measured=random_mdp(seed=4, temperature=temperature)
    )
    at = problem.at(THETA)
    exact = hypergradient(problem, THETA)
    moved = exact.follower.value + 1e-4 * np.array([1.0, -1.0, 0.5, 2.0])
    hasty = solve_follower(problem, THETA, warm_start=moved, stop_after=0)
    bound = separate_error_bound(at, hasty, Objective())
    system = linear.DiscountedSystem.factorise(
        linear.policy_transition(at.planned.tables.transition, hasty.policy), problem.discount_follower
    )
    evaluation = linear.evaluate_leader(
        at.measured.tables, hasty.policy, problem.discount_leader, centre=at.measured.centres[1]
    )
    rough = at.planned.pullback(linear.response_cotangents(at.planned, hasty, system, evaluation.benefit_weight))
    off = np.abs(rough - exact.parts["response"]).max()
    assert 1e3 * exact.error_bound < off <= bound.gradient < 1e4 * off


def test_planted_confusions_of_kernels_are_seen(monkeypatch):
    truth = sum(dense(PLANNED, MEASURED, THETA).values())
    for planned, measured in ((MEASURED, MEASURED), (LIVED, MEASURED), (PLANNED, PLANNED), (PLANNED, LIVED)):
        confused = hypergradient(SeparateKernels(planned=planned, measured=measured), THETA).value
        assert np.abs(confused - truth).max() > 1e-2
    right = linear.evaluate_leader
    monkeypatch.setattr(
        linear, "evaluate_leader", lambda tables, *rest, **options: right(PLANNED.tables_at(THETA), *rest, **options)
    )
    assert np.abs(hypergradient(PROBLEM, THETA).value - truth).max() > 1e-2
    monkeypatch.undo()
    carried = linear.response_cotangents
    monkeypatch.setattr(
        linear, "response_cotangents", lambda planned, *rest: carried(MEASURED.at(THETA), *rest)
    )  # the living kernel carries the response back
    assert np.abs(hypergradient(PROBLEM, THETA).value - truth).max() > 1e-2


def apart(**lived):
    """Layers whose follower plans in another's: samples end, so that nothing is cut."""
    planned, measured = layered_mdp(seed=0), layered_mdp(seed=1)
    return SeparateKernels(planned=planned, measured=measured, **lived), np.full(3, 0.1)


def test_the_mean_of_estimates_on_such_samples_is_known_exactly(monkeypatch):
    """By enumeration and by dynamic programming alike: with the planned follower, in the kernel that is lived in."""
    problem, theta = apart(lived=layered_mdp(seed=2))
    on = Scenario.of(problem, theta)
    assert on.problem is problem.lived
    assert on.truth_of_problem is problem
    follower = solve_follower(problem, theta)
    context = Context(problem=problem.lived, theta=theta, follower=follower)
    declared = sum(BCHG().expectation(context, horizon=on.horizon).values())
    found = enumerate_scenario(BCHG(), on)
    np.testing.assert_allclose(found.moments.mean, declared, rtol=1e-11)
    truth = sum(dense(problem.planned, problem.measured, theta).values())
    np.testing.assert_allclose(found.bias, declared - truth, rtol=1e-9)
    assert np.abs(found.bias).max() > 1e-2
    monkeypatch.setitem(  # lived in what is planned in: another mean
        seen_by_estimators._answers, SeparateKernels, lambda at: Seen(samples=at.problem.planned, truth=at.problem)
    )
    assert np.abs(enumerate_scenario(BCHG(), Scenario.of(problem, theta)).moments.mean - declared).max() > 1e-2


def test_estimators_are_judged_by_the_truth_of_all_kernels():
    problem, theta = apart()
    wrong = verify(BCHG(), problem=problem, theta=theta)
    assert wrong.estimators[0].verdict.failed
    naive, response = NaivePGD(), hypergradient(problem, theta).parts["response"]

    def right(trajectories, context):  # the leader's own terms from samples, and the response from the model
        return naive(trajectories, context) + response

    assert verify(right, problem=problem, theta=theta).passed
    cut = verify(BCHG(), problem=PROBLEM, theta=THETA).estimators[0].verdict  # whose own expectation is no excuse
    assert (cut.outcome, "streams are cut after 4 steps" in cut.reason) == (Outcome.NOT_APPLICABLE, True)
    assert verify(BCHG(), problem=SeparateKernels(planned=PLANNED, measured=PLANNED), theta=THETA).passed
    one = layered_mdp(seed=0)
    assert verify(BCHG(), problem=SeparateKernels(planned=one, measured=one), theta=theta).passed
    batch = sample_trajectories(
        one, theta, solve_follower(one, theta), streams=2, steps=3, rng=np.random.default_rng(0)
    )
    context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    with pytest.raises(UnsupportedError, match=r"SeparateKernels.*seen_by_estimators"):
        naive(batch, context)


@pytest.mark.parametrize(
    ("temperature", "planner", "simulator", "cosine"),
    [
        (0.001, -0.740644, -0.805664, 0.9992),
        (0.003, -0.725819, -0.795159, 0.9976),
        (0.005, -0.667413, -0.750116, 0.9857),
    ],
)
def test_what_samples_of_the_published_four_rooms_can_show(temperature, planner, simulator, cosine):
    """At θ = 0: the cosine of BC-HG's mean, of endless samples in the simulator's kernel, with the planner's truth."""
    problem, theta = published_four_rooms(temperature=temperature), np.zeros(105)
    truth = hypergradient(problem, theta, bound=False)
    consistent = hypergradient(problem.planned, theta, bound=False)
    np.testing.assert_allclose(truth.value, consistent.value, rtol=1e-9, atol=1e-15)
    assert truth.objective == pytest.approx(planner, abs=5e-7)
    lived = published_four_rooms(temperature=temperature, measured="paper")
    assert leader_objective(lived, theta) == pytest.approx(simulator, abs=5e-7)
    context = Context(problem=problem.lived, theta=theta, follower=truth.follower)
    mean = sum(BCHG(stopping="sum").expectation(context, horizon=1).values())
    along = mean @ truth.value / np.linalg.norm(mean) / np.linalg.norm(truth.value)
    assert along == pytest.approx(cosine, abs=5e-5)


def test_refusals_and_pickles():
    for route in ("forward", "theorem1", "hpgd_form", "m_sobirl", "mixed_derivative", "certified"):
        with pytest.raises(UnsupportedError, match=rf"{route}.*SeparateKernels.*implicit"):
            hypergradient(PROBLEM, THETA, route=route)
    with pytest.raises(InvalidInputError, match=r"measured\.temperature=1.*0\.5.*same numbers"):
        SeparateKernels(planned=PLANNED, measured=random_mdp(temperature=1.0))
    with pytest.raises(InvalidInputError, match=r"lived\.discount_leader"):
        SeparateKernels(planned=PLANNED, measured=MEASURED, lived=replace(LIVED, discount_leader=0.1))
    with pytest.raises(InvalidInputError, match="planned"):
        SeparateKernels(planned=3, measured=MEASURED)
    with pytest.raises(ShapeError, match=r"lived: states and actions.*\(4, 2\)"):
        SeparateKernels(planned=PLANNED, measured=MEASURED, lived=random_mdp(states=5)).at(THETA)
    copied = pickle.loads(pickle.dumps(PROBLEM))
    found = hypergradient(PROBLEM, THETA)
    np.testing.assert_array_equal(hypergradient(copied, THETA).value, found.value)
    again = hypergradient(PROBLEM, THETA + 0.001, warm_start=found)
    assert again.counters["sweeps"] < hypergradient(PROBLEM, THETA + 0.001).counters["sweeps"]


def test_draws_of_the_published_setting_are_judged():
    """Seed 0, error rate 1e-6: draws about the truth pass; about the mean of the published samples they do not."""
    problem, theta = published_four_rooms(temperature=0.005), np.zeros(105)
    truth = hypergradient(problem, theta, bound=False)
    context = Context(problem=problem.lived, theta=theta, follower=truth.follower)
    mean = sum(BCHG(stopping="sum").expectation(context, horizon=1).values())
    noise = 1e-4 * np.random.default_rng(0).standard_normal((20_000, 105))
    assert judge(truth.value + noise, problem=problem, theta=theta).passed
    assert judge(mean + noise, problem=problem, theta=theta).verdict.failed
