"""Draws judged without their estimator: right ones pass, wrong ones are named, dependent and too few are not judged."""

import json

import numpy as np
import pytest
from scipy import stats

from bilevelrl.estimators import BCHG, Context, ExactCritic, sample_trajectories
from bilevelrl.reference import MarkovGame, named_stream, solve_follower
from bilevelrl.reference.errors import InvalidInputError, ShapeError, UnknownNameError
from bilevelrl.tasks import scenario, scenarios
from bilevelrl.verification.causes.explain import explain, part_causes
from bilevelrl.verification.causes.explanation import Evidence
from bilevelrl.verification.checks.verdicts import POWER_LIMIT, Outcome
from bilevelrl.verification.commands.command_line import main
from bilevelrl.verification.commands.false_alarms import false_alarms, known_laws
from bilevelrl.verification.testing.judge import judge, judge_draws


def bchg_draws(name, count, seed=0):
    at = scenario(name)
    follower = solve_follower(at.problem, at.theta)
    trajectories = sample_trajectories(
        at.problem, at.theta, follower, streams=count, steps=at.horizon, rng=named_stream(seed, name)
    )
    critic = ExactCritic.solve(at.problem, at.theta, follower.policy)
    return BCHG()(trajectories, Context(problem=at.problem, theta=at.theta, follower=follower, critic=critic))


@pytest.fixture(scope="module")
def right():
    return bchg_draws("layered", 100_000)


@pytest.mark.statistical
class TestVerdicts:
    def test_real_draws_pass(self, right):
        judged = judge_draws(right, "layered")
        assert judged.verdict.outcome is Outcome.PASSED
        assert judged.verdict.detectable <= POWER_LIMIT
        assert judged.explanation is None

    # The initial part is a thousandth of this truth: its isolating scenario is the place to look for it.
    @pytest.mark.parametrize("part", ["direct", "transition", "response", "regulariser"])
    @pytest.mark.parametrize(("factor", "name"), [(-1.0, "is missing"), (-2.0, "has the wrong sign")])
    def test_a_planted_cause_is_named(self, right, part, factor, name):
        truth = scenario("layered").truth
        judged = judge_draws(right + factor * truth.parts[part], "layered")
        assert judged.verdict.outcome is Outcome.FAILED
        assert judged.explanation.exact
        named = [judged.explanation.cause, *judged.explanation.alternatives]
        assert f"the {part} part {name}" in named

    def test_too_few_draws_have_no_power(self, right):
        judged = judge_draws(right[:500], "layered")
        assert judged.verdict.outcome is Outcome.NO_POWER
        # The advice is honest: with so many draws there is power, with half of them there is not.
        assert judge_draws(right[: judged.draws_needed * 2], "layered").verdict.outcome is Outcome.PASSED
        assert judge_draws(right[: judged.draws_needed // 2], "layered").verdict.outcome is Outcome.NO_POWER

    def test_a_declared_expectation(self, right):
        truth = scenario("layered").truth
        naive = right - truth.parts["response"]
        assert judge_draws(naive, "layered", claim=truth.value - truth.parts["response"]).passed
        assert judge_draws(naive, "layered").verdict.outcome is Outcome.FAILED

    def test_ascent(self, right):
        assert judge_draws(right, "layered", claim="ascent").passed
        assert judge_draws(-right, "layered", claim="ascent").verdict.outcome is Outcome.FAILED
        assert judge_draws(right[:4], "layered", claim="ascent").verdict.outcome is Outcome.NO_POWER

    def test_a_tolerated_bias(self, right):
        truth = scenario("layered").truth
        off = right + 0.08 * truth.value
        assert judge_draws(off, "layered").verdict.outcome is Outcome.FAILED
        assert judge_draws(off, "layered", tolerated_bias=0.1).verdict.outcome is not Outcome.FAILED

    def test_bounds_known_beforehand(self, right):
        """BC-HG's draws on the layered MDP are within ±30; what is said holds for any distribution there."""
        bounds = (-30.0, 30.0)
        truth = scenario("layered").truth
        assert judge(right, "layered", bounds=bounds).passed
        assert judge(right - truth.parts["response"], "layered", bounds=bounds).verdict.outcome is Outcome.FAILED
        few, told = judge(right[:20_000], "layered", bounds=bounds), judge(right[:20_000], "layered")
        assert told.verdict.detectable < few.verdict.detectable
        assert few.draws_needed > told.draws_needed
        with pytest.raises(InvalidInputError, match=r"rows\[\d+, \d\]=.*in \[-1, 1\]"):
            judge(right, "layered", bounds=(-1.0, 1.0))

    def test_what_never_varied_is_judged_within_bounds(self):
        truth = scenario("toll").truth.value
        rows = np.tile(truth, (100_000, 1))
        near = (float(truth.min()) - 0.1, float(truth.max()) + 0.1)
        assert judge(rows, "toll").verdict.outcome is Outcome.NO_POWER
        assert judge(rows, "toll", bounds=near).passed
        assert judge(rows + 0.05, "toll", bounds=near).verdict.outcome is Outcome.FAILED

    def test_dependent_draws_are_not_judged(self, right):
        repeated = np.repeat(right[:5000], 10, axis=0)
        judged = judge_draws(repeated, "layered")
        assert judged.verdict.outcome is Outcome.NOT_APPLICABLE
        assert "correlated" in judged.verdict.reason

    def test_truncated_draws_are_held_against_their_own_horizon(self):
        at = scenario("survival")
        noise = named_stream(1, "noise").standard_normal((20_000, 1))
        assert judge_draws(at.truncated.value + noise, at, horizon=at.horizon).passed
        assert judge_draws(at.truncated.value + noise, at).verdict.outcome is Outcome.FAILED

    def test_false_alarms_at_a_rate_that_can_be_seen(self):
        """600 judgements at α = 0.05 of Gaussian draws: no more refusals than a binomial bound at 1e-6 allows."""
        truth, rng, runs = scenario("layered").truth.value, named_stream(2, "false alarms"), 600
        outcomes = [
            judge_draws(truth + rng.standard_normal((60, 3)), "layered", error_rate=0.05).verdict.outcome
            for _ in range(runs)
        ]
        wrong = sum(outcome in (Outcome.FAILED, Outcome.NOT_APPLICABLE) for outcome in outcomes)
        assert wrong <= stats.binom.isf(1e-6, runs, 0.05)


class TestNoFalseAlarm:
    """What right draws look like when they are few, rare, equal or rounded: no power, never failed."""

    @pytest.mark.parametrize("name", ["a parameter per pair", "cold bandit", "shared purse", "toll"])
    @pytest.mark.parametrize("count", [4, 10, 100, 1000])
    def test_own_estimator_on_scenarios_with_rare_paths(self, name, count):
        found = [judge_draws(bchg_draws(name, count, seed), name).verdict.outcome for seed in range(20)]
        assert set(found) <= {Outcome.PASSED, Outcome.NO_POWER}

    @pytest.mark.parametrize("sigma", [1.0, 3.0])
    @pytest.mark.parametrize("count", [10, 50, 1000, 20_000])
    def test_lognormal_draws(self, sigma, count):
        truth = scenario("layered").truth.value
        for seed in range(50 if count <= 1000 else 5):
            noise = np.exp(sigma * named_stream(seed, "lognormal", count).standard_normal((count, 3)) - sigma**2 / 2)
            judged = judge_draws(truth * noise, "layered")
            assert judged.verdict.outcome in (Outcome.PASSED, Outcome.NO_POWER), seed

    @pytest.mark.parametrize("spread", [0.0, 6e-14])
    def test_deterministic_right_rows_are_equal_to_the_truth(self, spread):
        truth, rng = scenario("layered").truth.value, named_stream(7, "rounding")
        judged = judge_draws(truth * (1.0 + spread * rng.uniform(-1, 1, (2000, 3)) + 9e-14), "layered")
        assert judged.verdict.outcome is (Outcome.PASSED if spread else Outcome.NO_POWER)
        if not spread:
            assert "9 of 9 comparisons never varied, and are off by" in judged.verdict.reason
            assert "draws" not in str(judged).partition("needs about")[2]

    def test_deterministic_wrong_rows_are_not_judged_either(self):
        """A thousand equal rows may be what an unbiased estimator of rare large draws shows."""
        judged = judge_draws(np.tile(1.5 * scenario("toll").truth.value, (1000, 1)), "toll")
        assert judged.verdict.outcome is Outcome.NO_POWER
        assert "check_gradient" in judged.verdict.reason

    def test_a_coordinate_that_never_varies_does_not_hide_the_others(self, right):
        rows = right.copy()
        rows[:, 0] = 7.0
        judged = judge_draws(rows, "layered")
        assert judged.verdict.outcome is Outcome.FAILED  # along the truth, where it is off
        assert not judged.test.rejected[judged.names.index("at parameter 0")]

    def test_single_precision(self, right):
        truth = scenario("layered").truth.value
        noise = 1e-6 * named_stream(8, "noise").standard_normal((2000, 3))
        off = truth * (1.0 + 5e-5) + noise
        assert judge_draws(off.astype(np.float32), "layered").passed
        assert judge_draws(off, "layered").verdict.outcome is Outcome.FAILED
        assert judge_draws(off, "layered", accuracy=1e-4).passed
        assert judge_draws(off.astype(np.float32), "layered", accuracy=0.0).verdict.outcome is Outcome.FAILED
        assert judge_draws(iter([off.astype(np.float32)]), "layered").passed
        with pytest.raises(InvalidInputError, match="accuracy"):
            judge_draws(off, "layered", accuracy=np.nan)

    def test_workers_that_share_a_seed(self, right):
        judged = judge_draws(np.tile(right[:2000], (8, 1)), "layered")
        assert judged.verdict.outcome is Outcome.NOT_APPLICABLE
        assert "are copies of draws" in judged.verdict.reason

    def test_what_is_said_of_an_ascent_is_one_rule(self, right):
        said = str(judge_draws(right, "layered", claim="ascent"))
        assert "REJECTED" not in said
        assert "mean product" in said
        assert "rejected" not in judge_draws(right, "layered", claim="ascent").to_json()
        few = judge_draws(right[:100], "layered", claim="ascent")
        assert "an ascent by 10% of the truth needs" in str(few)
        assert "of unknown accuracy" in few.verdict.reason
        assert judge_draws(right[: 2 * few.draws_needed], "layered", claim="ascent").passed

    def test_exact_laws_at_a_rate_that_can_be_seen(self):
        """At α = 0.05 no more false alarms than a binomial bound at 1e-6 allows, and planted mistakes fail."""
        for record in false_alarms(340, seed=11, rates=[0.05], numbers=[10, 1000]):
            assert record["false_alarms"] <= stats.binom.isf(1e-6, record["judgements"], 0.05), record
        # Leaving the response out is seen wherever there is one and the rows vary, but for the rarest paths.
        wrong = [
            law for law in known_laws() if law.scenario.truth.parts["response"].any() and np.ptp(law.rows, axis=0).any()
        ]
        assert len(wrong) / 2 < record["planted_failed"] <= len(wrong)


class TestWhatIsHandedOver:
    def test_anything_that_converts_to_numpy(self):
        class Foreign:
            """As JAX and PyTorch arrays do."""

            def __init__(self, values):
                self.values = values

            def __array__(self, dtype=None, copy=None):
                return np.asarray(self.values, dtype=dtype)

        rows = scenario("toll").truth.value + named_stream(3, "noise").standard_normal((1000, 1))
        assert judge_draws(Foreign(rows), "toll").mean == judge_draws(rows.tolist(), "toll").mean

    @pytest.mark.parametrize(
        ("draws", "error", "match"),
        [
            (np.zeros(3), ShapeError, "independent estimate per row"),
            (np.zeros((10, 2)), ShapeError, r"\(R, 3\)"),
            (np.zeros((3, 3)), ShapeError, "R >= 4"),
            (np.full((10, 3), np.nan), InvalidInputError, r"draws\[0, 0\]"),
            (np.zeros((10, 3), dtype=complex), InvalidInputError, "real"),
        ],
    )
    def test_refusals(self, draws, error, match):
        with pytest.raises(error, match=match):
            judge_draws(draws, "layered")

    def test_unknown_names(self):
        with pytest.raises(UnknownNameError, match="layered"):
            judge_draws(np.zeros((10, 3)), "layred")
        with pytest.raises(UnknownNameError, match="unbiased"):
            judge_draws(np.ones((10, 3)), "layered", claim="unbiassed")


class TestCommand:
    def test_status_and_output(self, tmp_path, capsys):
        truth = scenario("layered").truth
        rows = truth.value + named_stream(5, "rows").standard_normal((20_000, 3))
        path = tmp_path / "draws.csv"
        np.savetxt(path, rows, delimiter=",")
        assert main(["judge", str(path), "--scenario", "layered"]) == 0
        assert "PASSED" in capsys.readouterr().out
        np.savetxt(path, rows - truth.parts["transition"], delimiter=",")
        assert main(["judge", str(path), "--scenario", "layered", "--json"]) == 1
        found = json.loads(capsys.readouterr().out)
        assert found["outcome"] == "failed"
        assert found["likely_cause"] == "the transition part is missing"
        np.savetxt(path, rows[:100], delimiter=",")
        assert main(["judge", str(path), "--scenario", "layered"]) == 2
        assert main(["judge", str(tmp_path / "none.csv"), "--scenario", "layered"]) == 2
        assert "cannot be read" in capsys.readouterr().err


class TestCauses:
    @pytest.mark.parametrize("cause", part_causes(), ids=lambda cause: cause.name)
    def test_each_cause_is_recovered_from_its_own_effect(self, cause):
        """Over all scenarios a mistake is named, alone or with others whose effect is the same everywhere."""
        seen = []
        for at in scenarios(kind=MarkovGame, tags="ends") if "policy" in cause.name else scenarios():
            effect = cause.effect(at, at.truth)
            slack = np.full(at.theta.size, 1e-12 * (1 + np.abs(at.truth.value).max()))
            seen.append(Evidence(scenario=at, truth=at.truth, difference=effect, uncertainty=slack))
        found = explain(seen)
        assert found.exact
        assert found.cause == cause.name
        # All games here have two actions of each player: twice is as often as there are actions.
        assert all("the number of " in other for other in found.alternatives)
        assert found.alternatives == () or "policy" in cause.name

    def test_an_unknown_mistake_is_not_given_a_name(self):
        seen = [
            Evidence(
                scenario=at,
                truth=at.truth,
                difference=named_stream(6, at.name).standard_normal(at.theta.size),
                uncertainty=np.full(at.theta.size, 1e-12),
            )
            for at in scenarios()
        ]
        found = explain(seen)
        assert found.cause is None
        assert "none of the known" in str(found)

    def test_no_effect_where_nothing_is_off(self):
        """A cause that fits one scenario is dropped where it would show in another that is right."""
        wrong, fine = scenario("layered"), scenario("layered, hot")
        seen = [
            Evidence(
                scenario=wrong,
                truth=wrong.truth,
                difference=-wrong.truth.parts["direct"],
                uncertainty=np.full(3, 1e-12),
            ),
            Evidence(scenario=fine, truth=fine.truth, difference=np.zeros(3), uncertainty=np.full(3, 1e-12)),
        ]
        assert explain(seen[:1]).exact
        assert not explain(seen).exact
