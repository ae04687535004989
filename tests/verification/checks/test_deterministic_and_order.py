"""The deterministic checks, the order checks and bias attribution: what they see, what they refuse, what they leave."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bilevelrl.estimators import BCHG, Claim, Context, NaivePGD, Objective, SoBiRL
from bilevelrl.estimators.critics.tables import ExactCritic
from bilevelrl.reference import hypergradient, leader_objective, solve_follower
from bilevelrl.reference.errors import EstimatorError, TooLargeError, UnknownNameError
from bilevelrl.tasks import scenario, scenarios
from bilevelrl.tasks.scenarios.scenario import Truth
from bilevelrl.verification.checks.changed_problems import permuted, reward_shifted, shaped
from bilevelrl.verification.checks.deterministic import check_estimator, enumerate_scenario
from bilevelrl.verification.checks.gradients import check_gradient, evaluate_gradient
from bilevelrl.verification.checks.order import (
    check_history,
    check_orders,
    check_permutation,
    check_reparameterisation,
    check_reward_shift,
    check_shaping,
    check_solvers,
    check_taylor,
    taylor_test,
)
from bilevelrl.verification.checks.results import worst
from bilevelrl.verification.checks.verdicts import Outcome
from bilevelrl.verification.mutants.attribution import CAUSES, attribute, attribute_bias
from bilevelrl.verification.mutants.exact import ExactFormula
from bilevelrl.verification.mutants.sample import SampleFormula


def right(problem, theta):
    return hypergradient(problem, theta).value


# --- deterministic checks


def test_bias_vector_covariance_and_part_bias() -> None:
    """Naive-PGD's bias is minus the response; its covariance is that of BC-HG's other parts on their own."""
    entry = scenario("layered")
    found = enumerate_scenario(NaivePGD(), entry)
    response = entry.truth.parts["response"]
    assert np.abs(found.bias + response).max() <= found.tolerance.max()
    assert np.abs(found.part_bias["direct"]).max() <= found.tolerance.max()
    by_hand = enumerate_scenario(lambda trajectories, context: NaivePGD()(trajectories, context), entry)
    assert np.allclose(found.covariance, by_hand.covariance, rtol=1e-12)
    assert np.linalg.eigvalsh(found.covariance).min() >= -1e-12


def test_an_error_of_a_billionth_is_seen() -> None:
    """Non-vacuous: the smallest planted bias that every scenario's tolerance sees, relative to the largest part."""

    def almost(trajectories, context):
        rows = SampleFormula()(trajectories, context)
        return {part: (1.0 + 1e-9) * values for part, values in rows.items()}

    results = check_estimator(almost, scenarios(without="slow"))
    judged = [result for result in results if result.check.startswith("bias")]
    assert all(result.failed for result in judged if result.scenario != "hot bandit")


def test_a_gradient_wrong_by_ten_times_its_accuracy_is_refused_everywhere() -> None:
    for accuracy in (1e-9, 1e-4):

        def wrong(problem, theta, factor=1.0 + 40 * accuracy):
            return factor * hypergradient(problem, theta).value

        results = check_gradient(wrong, accuracy=accuracy)
        assert all(result.failed for result in results if result.check == "truth" and result.scenario != "hot bandit")
        assert not any(result.failed for result in check_gradient(right, accuracy=accuracy))


def test_a_wrong_stored_truth_refuses_a_right_estimator() -> None:
    entry = scenario("toll")
    parts = {**entry.truth.parts, "direct": 1.001 * entry.truth.parts["direct"]}
    truth = Truth.of(objective=entry.truth.objective, parts=parts, error_bound=entry.truth.error_bound)
    wrong = replace(entry, truths={Objective(): truth})
    assert worst(check_estimator(BCHG(), [wrong]))["bias"].failed
    assert worst(check_gradient(right, [wrong]))["truth"].failed
    assert not worst(check_estimator(BCHG(), [entry]))["bias"].failed


def test_estimators_that_declare_their_bias_are_held_to_it() -> None:
    entries = [scenario("layered"), scenario("gamble"), scenario("random")]
    for make in (lambda target: NaivePGD(target=target), lambda target: SoBiRL(target=target)):
        results = check_estimator(make, entries, made_for=True)
        assert not any(result.failed for result in results)
        # Held against the truth instead they fail.
        assert any(result.failed for result in check_estimator(make(Objective()), entries[:2], claim=Claim.UNBIASED))


def test_large_batches_are_refused_not_sampled() -> None:
    with pytest.raises(TooLargeError, match="batch=2 of"):
        enumerate_scenario(SampleFormula(batch="same batch"), scenario("random"))
    results = check_estimator(SampleFormula(batch="same batch"), [scenario("random")])
    assert [result.verdict.outcome for result in results] == [Outcome.NOT_APPLICABLE]
    assert not results[0].failed


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda problem, theta: np.zeros(theta.size + 1), "shape"),
        (lambda problem, theta: np.full(theta.size, np.nan), "not finite"),
        (lambda problem, theta: 1 / 0, "ZeroDivisionError"),
        (lambda problem, theta: np.zeros(theta.size, dtype=complex), "complex"),
        (lambda problem, theta: {"direct": np.zeros(0)}, "direct"),
    ],
)
def test_broken_gradient_functions_are_named(answer, words: str) -> None:
    entry = scenario("layered")
    with pytest.raises(EstimatorError, match=words):
        evaluate_gradient(answer, entry.problem, entry.theta)
    result = worst(check_gradient(answer, [entry]))["contract"]
    assert result.failed
    assert words in result.verdict.reason
    assert all(found.failed for found in check_orders(answer, ["gamble"]) if found.check == "contract")


def test_a_gradient_function_may_write_to_its_theta() -> None:
    def rude(problem, theta):
        value = right(problem, theta)
        theta[...] = 0.0
        return value

    assert not any(result.failed for result in check_gradient(rude, [scenario("toll"), scenario("layered")]))


# --- order checks


@pytest.mark.parametrize("relative_error", [1e-1, 1e-3, 1e-4])
def test_taylor_sees_small_errors(relative_error: float) -> None:
    for name in ("gamble", "layered", "random"):
        assert not check_taylor(right, name).failed

        def wrong(problem, theta):
            return (1.0 + relative_error) * right(problem, theta)

        found = check_taylor(wrong, name)
        assert found.failed
        assert found.verdict.detectable < 1.0


def test_taylor_rates_are_one_and_two() -> None:
    """On a cubic whose remainders are known: J = x + x² has rates 1 and 2; a linear one is exact at every step."""
    test = taylor_test(
        lambda x: float(x[0] + x[0] ** 2), np.array([0.3]), np.array([1.6]), np.array([1.0]), rounding=1e-16
    )
    assert test.rate_0 == pytest.approx(1.0, abs=1e-3)
    assert test.rate_1 == pytest.approx(2.0, abs=0.05)
    linear = taylor_test(lambda x: 3.0 * float(x[0]), np.zeros(1), np.array([3.0]), np.ones(1), rounding=1e-16)
    assert linear.exact
    assert not taylor_test(lambda x: 3.0 * float(x[0]), np.zeros(1), np.array([3.01]), np.ones(1), rounding=1e-16).exact


def test_taylor_stops_at_rounding() -> None:
    """Below the first step at the level of noise nothing is judged, whatever the noise looks like there."""
    rng = np.random.default_rng(0)

    def noisy(x):
        return float(np.exp(x[0])) + 1e-10 * float(rng.uniform(-1, 1))

    test = taylor_test(noisy, np.zeros(1), np.ones(1), np.ones(1), rounding=1e-10)
    assert test.rate_1 == pytest.approx(2.0, abs=0.2)
    assert test.steps[-1] > 1e-5
    blind = taylor_test(noisy, np.zeros(1), np.ones(1), np.ones(1), rounding=1e-17)
    assert blind.rate_1 != pytest.approx(2.0, abs=0.2)


@pytest.mark.parametrize("name", ["gamble", "layered", "random", "garnet", "slow chain"])
def test_changed_problems_change_what_they_should(name: str) -> None:
    """The invariances are of the problems, checked on the objective and on the follower, not on any gradient."""
    entry = scenario(name)
    problem, theta = entry.problem, entry.theta
    states = problem.states_at(theta)
    objective = leader_objective(problem, theta)
    policy = solve_follower(problem, theta).policy
    order = np.roll(np.arange(states), 1)
    turned = permuted(problem, order)
    assert leader_objective(turned, theta) == pytest.approx(objective, rel=1e-11)
    assert np.allclose(solve_follower(turned, theta).policy, policy[order], rtol=1e-9)
    potential = np.linspace(-1.0, 2.0, states)
    moved = shaped(problem, potential)
    assert leader_objective(moved, theta) == pytest.approx(objective, rel=1e-9)
    assert np.allclose(
        solve_follower(moved, theta).value, solve_follower(problem, theta).value - potential, rtol=0, atol=1e-9
    )
    if bool(np.allclose(np.asarray(problem.tables_at(theta).transition).sum(axis=2), 1.0)):
        shifted = reward_shifted(problem, leader=-2.5, follower=1.5)
        wanted = objective - 2.5 / (1.0 - problem.discount_leader)
        assert leader_objective(shifted, theta) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(
    ("check", "wrong"),
    [
        (check_permutation, lambda problem, theta: right(problem, theta) * problem.tables_at(theta).initial[0]),
        (check_reward_shift, lambda problem, theta: sum(ExactFormula(benefit="value")(problem, theta).values())),
        (check_shaping, lambda problem, theta: sum(ExactFormula(follower_transition=0.0)(problem, theta).values())),
        (check_reparameterisation, lambda problem, theta: np.sign(right(problem, theta))),
    ],
)
def test_each_invariance_refuses_what_breaks_it(check, wrong) -> None:
    assert not check(right, "random").failed
    assert check(wrong, "random").failed


def test_invariances_that_do_not_apply_say_so() -> None:
    assert check_permutation(right, "survival").verdict.outcome is Outcome.NOT_APPLICABLE
    assert check_reward_shift(right, "gamble").verdict.outcome is Outcome.NOT_APPLICABLE


def test_history_sees_state_that_is_carried_over() -> None:
    calls = []

    def drifting(problem, theta):
        calls.append(theta)
        return right(problem, theta) * (1.0 + 1e-6 * len(calls))

    assert check_history(drifting, "layered").failed
    assert not check_history(right, "layered").failed


def test_solver_and_warm_start_do_not_matter() -> None:
    entry = scenario("layered, patient follower")

    def by(**options):
        def gradient(problem, theta):
            follower = solve_follower(problem, theta, **options)
            return hypergradient(problem, theta, warm_start=follower).value

        return gradient

    hasty = [lambda problem, theta, n=n: sum(ExactFormula(sweeps=n)(problem, theta).values()) for n in (1, 2)]
    variants = [right, by(method="value_iteration"), by(method="modified_policy_iteration")]
    assert not check_solvers(variants, entry).failed
    assert check_solvers(hasty, entry).failed
    with pytest.raises(EstimatorError, match="at least two"):
        check_solvers(variants[:1], entry)


# --- attribution


def test_causes_add_up_and_the_base_is_exact() -> None:
    found = attribute_bias(causes=["truncation", "double use", "critic error", "follower error", "mismatch"])
    scale = float(np.linalg.norm(found.truth))
    assert np.abs(found.base).max() <= 1e-13 * scale
    assert np.allclose(
        found.base + sum(found.alone.values()) + found.remainder, found.total, rtol=0, atol=1e-14 * scale
    )
    for cause, value in found.alone.items():
        assert np.abs(value).max() > 1e-6 * scale, cause
    text = str(found)
    assert all(cause in text for cause in found.alone)


def test_contributions_agree_with_declared_expectations() -> None:
    """Enumeration of one formula against closed forms of the package's estimators: no code in common."""
    entry = scenario("random, terminating")
    follower = solve_follower(entry.problem, entry.theta)
    context = Context(problem=entry.problem, theta=entry.theta, follower=follower)
    cut = sum(BCHG().expectation(context, horizon=2).values()) - entry.truth.value
    found = attribute_bias(entry, causes=["truncation"], expected={"truncation": cut})
    scale = float(np.linalg.norm(found.truth))
    assert found.deviations["truncation"] <= 1e-12 * scale
    wrong = attribute_bias(entry, causes=["truncation"], expected={"truncation": 1.01 * cut})
    assert wrong.deviations["truncation"] > 1e-4 * scale


def test_double_use_is_what_the_monte_carlo_form_declares() -> None:
    """Where every path ends the returns in the leader's own terms are unbiased, so all of it is the product."""
    entry = scenario("layered")
    context = Context(problem=entry.problem, theta=entry.theta, follower=solve_follower(entry.problem, entry.theta))
    declared = sum(BCHG(critic="monte_carlo").expectation(context, horizon=3).values()) - entry.truth.value
    found = attribute_bias(entry, causes=["double use"], horizon=3, expected={"double use": declared})
    assert found.deviations["double use"] <= 1e-12
    assert np.abs(declared).max() > 1e-2


def test_the_model_cause_is_what_sobirl_declares() -> None:
    entry = scenario("layered")
    follower = solve_follower(entry.problem, entry.theta)
    context = Context(
        problem=entry.problem,
        theta=entry.theta,
        follower=follower,
        critic=ExactCritic.solve(entry.problem, entry.theta, follower.policy),
    )
    declared = SoBiRL().expectation(context, horizon=3)["response"] - entry.truth.parts["response"]
    found = attribute_bias(entry, causes=["truncation", "model of ∇Q_F"], horizon=3)
    assert np.abs(found.alone["model of ∇Q_F"] - declared).max() <= 1e-12
    # Every path ends after three steps: nothing is cut, and the check of that is not vacuous at two.
    assert np.abs(found.alone["truncation"]).max() <= 1e-13
    assert np.abs(attribute_bias(entry, causes=["truncation"], horizon=2).alone["truncation"]).max() > 1e-3


def test_critic_error_is_linear_in_its_size() -> None:
    small, large = (
        attribute_bias(causes=["critic error"], critic_error=size).alone["critic error"] for size in (0.1, 0.3)
    )
    assert np.allclose(large, 3.0 * small, rtol=1e-9)


def test_ratio_averaging_vanishes_where_pairs_are_not_revisited() -> None:
    """In layers the suffixes of a pair are independent of how often it is visited; where paths revisit they are not."""
    entry = scenario("layered, three actions")
    ends = attribute_bias(entry, causes=["ratio averaging"], horizon=2)
    assert np.abs(ends.alone["ratio averaging"]).max() <= 1e-13
    goes_on = attribute_bias(causes=["ratio averaging"])
    assert np.abs(goes_on.alone["ratio averaging"]).max() > 1e-4


def test_attribution_of_anything_and_refusals() -> None:
    found = attribute(
        lambda on: np.array([float(len(on)) ** 2]), np.zeros(1), causes=("a", "b", "c"), expected={"a": np.array([1.0])}
    )
    assert found.remainder.tolist() == [6.0]
    assert found.last_in["a"].tolist() == [5.0]
    assert found.deviations == {"a": 0.0}
    with pytest.raises(UnknownNameError, match="truncation"):
        attribute_bias(causes=["truncaton"])
    assert len(CAUSES) == 7
