"""Assertions as a stranger's test suite uses them: right code passes in silence, wrong code is told what and why."""

import random
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from bilevelrl.estimators import BCHG, Claim, NaivePGD
from bilevelrl.reference import hypergradient, named_stream
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError
from bilevelrl.tasks import scenario
from bilevelrl.verification.checks.deterministic import enumerate_scenario
from bilevelrl.verification.testing.assertions import (
    assert_matches_truth,
    assert_unbiased,
    assert_variance_below,
    default_scenarios,
)
from bilevelrl.verification.testing.failures import CheckFailedError
from bilevelrl.verification.testing.pytest_support import CHECKS, estimator_checks, parametrize_with_checks


def leader_terms(trajectories, context):
    """Five lines: right but for the response, which is left out."""
    problem, critic = context.problem, context.critic
    discount = problem.discount_leader**trajectories.time_in_episode * trajectories.valid
    weights = {
        "reward_leader": discount,
        "log_transition": discount * problem.discount_leader * critic.value(trajectories.state_tp1),
        "log_initial": trajectories.episode_starts * critic.value(trajectories.state_t),
    }
    rows = problem.pullback(context.theta, trajectories, weights, per_stream=True)
    return rows + problem.regulariser_gradient(context.theta)


class TestMatchesTruth:
    def test_right_gradients_pass_on_all_scenarios(self):
        assert_matches_truth(lambda problem, theta: hypergradient(problem, theta).value)

    def test_parts_are_compared_too(self):
        at = scenario("layered")
        parts = dict(at.truth.parts)
        assert_matches_truth(parts, at)
        # The sum is right, two parts are mixed up.
        parts["direct"], parts["response"] = parts["response"], parts["direct"]
        with pytest.raises(CheckFailedError, match=r"in the (direct|response) part: off by"):
            assert_matches_truth(parts, at)

    def test_message_names_scenario_parameter_and_cause(self):
        at = scenario("layered")
        with pytest.raises(CheckFailedError) as failed:
            assert_matches_truth(at.truth.value - at.truth.parts["transition"], at)
        message = str(failed.value)
        assert "layered: off by" in message
        assert "worst at parameter 0" in message
        assert "the cause: the transition part is missing (agrees with every difference" in message
        assert failed.value.explanation.exact

    def test_a_wrong_factor_is_named_over_many_scenarios(self):
        def without_temperature(problem, theta):
            found = hypergradient(problem, theta)
            return found.value + (problem.temperature - 1.0) * found.parts["response"]

        with pytest.raises(CheckFailedError, match="the factor 1/β of the response is missing"):
            assert_matches_truth(without_temperature)

    def test_float32_needs_its_own_accuracy(self):
        at = scenario("layered")
        single = at.truth.value.astype(np.float32)
        with pytest.raises(CheckFailedError, match="off by"):
            assert_matches_truth(single, at)
        assert_matches_truth(single, at, accuracy=1e-6)

    def test_an_array_needs_one_scenario(self):
        with pytest.raises(InvalidInputError, match="one scenario"):
            assert_matches_truth(np.zeros(3))


class TestUnbiased:
    def test_right_estimators_pass(self):
        assert_unbiased(BCHG())
        assert_unbiased(NaivePGD())  # it declares its bias, and has exactly that one

    def test_a_strangers_five_lines_are_told_their_cause(self):
        with pytest.raises(CheckFailedError) as failed:
            assert_unbiased(leader_terms)
        assert failed.value.explanation.cause == "the response part is missing"
        assert failed.value.explanation.exact
        # Where no response exists it is unbiased, and is not accused.
        blamed = {result.scenario for result in failed.value.results if result.failed}
        assert "layered, one action" not in blamed
        assert "layered" in blamed

    def test_expected_failures_are_excused_and_must_happen(self):
        at = [scenario("layered"), scenario("layered, one action")]
        assert_unbiased(leader_terms, at, expected_failures={"layered": "no response on purpose"})
        with pytest.raises(CheckFailedError, match="does not any more"):
            assert_unbiased(leader_terms, at, expected_failures={e.name: "no response" for e in at})
        with pytest.raises(InvalidInputError, match="names of scenarios"):
            assert_unbiased(leader_terms, at, expected_failures={"elsewhere": "?"})

    @pytest.mark.statistical
    def test_draws(self):
        at = scenario("layered")
        draws = at.truth.value + named_stream(1, "noise").standard_normal((20_000, 3))
        assert_unbiased(draws, at)
        with pytest.raises(CheckFailedError, match="the direct part has the wrong sign"):
            assert_unbiased(draws - 2 * at.truth.parts["direct"], at)
        with pytest.raises(CheckFailedError, match="NO POWER"):
            assert_unbiased(draws[:50], at)
        with pytest.raises(InvalidInputError, match="exactly one scenario"):
            assert_unbiased(draws)

    def test_nothing_judged_is_no_success(self):
        with pytest.raises(CheckFailedError, match="nothing could be judged"):
            assert_unbiased(leader_terms, "layered", claim=Claim.MEASURED)


class TestContractViolationsAreNamed:
    """Each way of breaking the contract has its own words."""

    @staticmethod
    def rows(trajectories, context):
        return leader_terms(trajectories, context)

    @pytest.mark.parametrize(
        ("broken", "words"),
        [
            pytest.param(lambda t, c: 1 / 0, "raised ZeroDivisionError", id="raises"),
            pytest.param(lambda t, c: leader_terms(t, c)[:, :-1], r"shape \(.*, 2\); expected", id="shape"),
            pytest.param(lambda t, c: leader_terms(t, c) * np.nan, "nan at draw 0, parameter 0", id="nan"),
            pytest.param(lambda t, c: leader_terms(t, c).mean(axis=0), "do not average", id="mean"),
            pytest.param(lambda t, c: leader_terms(t, c) * 1j, "expected real numbers", id="complex"),
            pytest.param(
                lambda t, c: leader_terms(t, c) + np.random.normal(size=(t.streams, 3)),  # noqa: NPY002
                "numpy.random's global generator",
                id="global numpy",
            ),
            pytest.param(
                lambda t, c: leader_terms(t, c) + random.random(), "standard library's random", id="global random"
            ),
            pytest.param(
                lambda t, c: leader_terms(t, c) + np.random.default_rng().normal(size=(t.streams, 3)),
                "two calls on the same trajectories differ",
                id="fresh generator",
            ),
            pytest.param(
                lambda t, c: leader_terms(t, c) + c.rng.normal(size=(t.streams, 3)), "conditional_moments", id="own rng"
            ),
            pytest.param(
                lambda t, c: leader_terms(t, c) - leader_terms(t, c).mean(axis=0),
                "depends on the other trajectories",
                id="looks at other rows",
            ),
        ],
    )
    def test_named(self, broken, words):
        with pytest.raises(CheckFailedError, match=words):
            assert_unbiased(broken, "layered")

    def test_changed_inputs(self):
        def changes(trajectories, context):
            trajectories.reward_leader_t[:] = 0.0
            return leader_terms(trajectories, context)

        with pytest.raises(CheckFailedError, match="change its input"):
            assert_unbiased(changes, "layered")

    def test_padding(self):
        def reads_on(trajectories, context):
            return leader_terms(trajectories, context) + 1e-3 * trajectories.state_t.sum(axis=1)[:, None]

        with pytest.raises(CheckFailedError, match="padding"):
            assert_unbiased(reads_on, "random, terminating")

    def test_hidden_memory(self):
        calls = []

        def remembers(trajectories, context):
            calls.append(1)
            return leader_terms(trajectories, context) + len(calls)

        with pytest.raises(CheckFailedError, match="two calls"):
            assert_unbiased(remembers, "layered")


class TestVariance:
    def test_exact(self):
        at = scenario("layered")
        exact = float(np.trace(enumerate_scenario(BCHG(), at).covariance))
        assert_variance_below(BCHG(), exact * (1 + 1e-9), at)
        with pytest.raises(CheckFailedError, match="total variance"):
            assert_variance_below(BCHG(), exact * (1 - 1e-9), at)
        each = np.diag(enumerate_scenario(BCHG(), at).covariance) * 1.01
        assert_variance_below(BCHG(), each, at)
        each[2] *= 0.9
        with pytest.raises(CheckFailedError, match="at parameter 2"):
            assert_variance_below(BCHG(), each, at)

    @pytest.mark.statistical
    def test_draws(self):
        rows = named_stream(2, "noise").standard_normal((20_000, 3))
        assert_variance_below(rows, 4.0, "layered")
        with pytest.raises(CheckFailedError, match="is not below 2"):
            assert_variance_below(rows, 2.0, "layered")
        with pytest.raises(CheckFailedError, match="cannot be told from 3"):
            assert_variance_below(rows, 3.0, "layered")


class TestPytestSupport:
    def test_a_suite_of_someone_else(self, tmp_path):
        """Run by pytest in a process of its own: passes, expected failures and real ones are counted."""
        (tmp_path / "test_mine.py").write_text(
            textwrap.dedent("""
            from bilevelrl.estimators import BCHG, Claim, NaivePGD
            from bilevelrl.tasks import scenario
            from bilevelrl.verification.testing.pytest_support import parametrize_with_checks

            AT = [scenario("toll"), scenario("starting place")]

            @parametrize_with_checks([BCHG()], scenarios=AT)
            def test_right(estimator, check):
                check(estimator)

            @parametrize_with_checks([NaivePGD()], scenarios=AT, claim=Claim.UNBIASED,
                                     expected_failures={"bias[toll]": "no response", "parts": "no response"})
            def test_expected(estimator, check):
                check(estimator)

            @parametrize_with_checks([NaivePGD()], scenarios=AT, claim=Claim.UNBIASED)
            def test_wrong(estimator, check):
                check(estimator)

            @parametrize_with_checks([BCHG()], scenarios=AT, expected_failures={"bias[toll]": "wrongly expected"})
            def test_no_longer_failing(estimator, check):
                check(estimator)
            """)
        )
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", str(tmp_path)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )
        assert "3 failed" in ran.stdout, ran.stdout[-2000:]
        assert "18 passed" in ran.stdout
        assert "2 xfailed" in ran.stdout
        assert "1 xpassed" in ran.stdout
        assert "XPASS(strict)" in ran.stdout
        assert "the response part is missing (agrees with every difference" in ran.stdout
        assert "test_wrong[Naive-PGD-bias[toll]]" in ran.stdout

    def test_unknown_checks_are_refused(self):
        with pytest.raises(UnknownNameError, match="bias"):
            parametrize_with_checks([BCHG()], expected_failures={"bais": "?"})
        with pytest.raises(UnknownNameError, match="parts"):
            estimator_checks(names=["part"])

    def test_every_check_on_every_scenario(self):
        assert len(estimator_checks()) == len(CHECKS) * len(default_scenarios())
