"""Sampling on the paper's tasks: what there is power for is judged, what there is none for says so."""

from dataclasses import replace

import numpy as np
import pytest

from bilevelrl.estimators.methods import PolicyCovariance
from bilevelrl.estimators.registry import ESTIMATORS, estimators_for, register_estimator
from bilevelrl.reference import ConfigurableLQR, MarkovGame
from bilevelrl.tasks.scenarios.main_job import paper_scenarios
from bilevelrl.verification.checks.verdicts import Outcome
from bilevelrl.verification.pipeline import sampled
from bilevelrl.verification.pipeline.sampled import check_by_sampling, sampled_estimators
from bilevelrl.verification.pipeline.sampling import SamplingPlan

PLAN = SamplingPlan(seed=0, checks=80)
SMALL = replace(PLAN, step_budget=PLAN.step_budget // 6)
TOY, BUILDING, LQR_GAME = paper_scenarios(())


class _Doubled(PolicyCovariance):
    """Counts the follower's response twice."""

    def contributions(self, trajectories, context):
        found = super().contributions(trajectories, context)
        return [*found, *(item for item in found if item.part == "response")]


@pytest.mark.statistical
def test_the_buildings_closed_form_covariance_agrees_and_a_wrong_one_does_not():
    right = check_by_sampling("policy_covariance", BUILDING, PLAN)
    assert right.verdict.outcome is Outcome.PASSED
    assert right.verdict.detectable < 0.1
    register_estimator(
        "doubled",
        summary="planted",
        level="formula",
        make=lambda target: _Doubled(target=target),
        kinds=(ConfigurableLQR,),
    )
    try:
        wrong = check_by_sampling("doubled", BUILDING, PLAN)
    finally:
        del ESTIMATORS["doubled"]
    assert wrong.verdict.outcome is Outcome.FAILED


@pytest.mark.statistical
def test_the_buildings_published_guiding_term_has_no_power():
    row = check_by_sampling("bc_hg", BUILDING, SMALL)
    assert row.verdict.outcome is Outcome.NO_POWER
    assert row.standard_deviation > 1e4  # relative to the truth
    assert "draws are needed" in row.verdict.reason


@pytest.mark.statistical
def test_what_declares_no_expectation_here_is_measured():
    row = check_by_sampling("policy_gradient", LQR_GAME, SMALL)
    assert row.verdict.outcome is Outcome.MEASURED
    assert "no closed-form expectation" in row.verdict.reason


@pytest.mark.exact
def test_cases_name_estimators_that_exist_and_streams_of_their_own():
    assert len({on.name for on in paper_scenarios()}) == len(paper_scenarios()) == 6
    assert all(sampled_estimators(on) for on in paper_scenarios())
    assert set(estimators_for(ConfigurableLQR)) == set(sampled_estimators(BUILDING))
    assert {name for name, entry in estimators_for(MarkovGame).items() if entry.level == "formula"} == set(
        sampled_estimators(TOY)
    )


@pytest.mark.exact
def test_the_truth_of_every_case_is_known_far_better_than_any_sample():
    for on in paper_scenarios()[1:]:
        for truth in (on.truth, on.truncated):
            assert truth.error_bound <= 1e-6 * np.linalg.norm(truth.value), on.name


@pytest.mark.exact
def test_where_no_number_of_draws_is_enough_the_job_goes_on():
    plan = PLAN
    pilot = sampled.SampleMoments.of(1e12 * np.random.default_rng(0).standard_normal((64, 1)))
    assert sampled._draws_for_power(pilot, 1.0, plan) == np.inf
    assert 1e18 < sampled._draws_wanted(pilot, 1.0, plan) < np.inf  # the median of means has a closed form


@pytest.mark.parametrize(("name", "rare"), [("nudged", False), ("nudged_common", True), ("k_step", True)])
def test_what_rests_on_rare_draws_is_measured_and_says_so(name, rare):
    (on,) = [each for each in paper_scenarios() if each.name == "four_rooms 0.001"]
    row = check_by_sampling(name, on, SamplingPlan(seed=0, step_budget=60_000))
    assert ("rests on rare draws" in row.verdict.reason) is rare
    assert (row.verdict.outcome is Outcome.MEASURED) is rare
