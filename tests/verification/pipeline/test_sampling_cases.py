"""Sampling on the continuous tasks: what there is power for is judged, what there is none for says so."""

from dataclasses import replace

import numpy as np
import pytest

from bilevelrl.estimators import PolicyCovariance
from bilevelrl.estimators.registry import ESTIMATORS, estimators_for, register_estimator
from bilevelrl.reference import ConfigurableLQR, MarkovGame, hypergradient
from bilevelrl.verification.checks.verdicts import Outcome
from bilevelrl.verification.pipeline import sampled, sampling_cases
from bilevelrl.verification.pipeline.sampled import SamplingPlan, check_by_sampling
from bilevelrl.verification.pipeline.sampling_cases import (
    CONTINUOUS_CASES,
    FOUR_ROOMS_TEMPERATURES,
    GAME_CASES,
    four_rooms_case,
)

PLAN = SamplingPlan(seed=0, checks=80)
BUILDING, LQR_GAME = CONTINUOUS_CASES


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
    row = check_by_sampling("bc_hg", replace(BUILDING, share=0.05), PLAN)
    assert row.verdict.outcome is Outcome.NO_POWER
    assert row.standard_deviation > 1e4  # relative to the truth
    assert "draws are needed" in row.verdict.reason


@pytest.mark.statistical
def test_what_declares_no_expectation_here_is_measured():
    row = check_by_sampling("policy_gradient", replace(LQR_GAME, share=0.05), PLAN)
    assert row.verdict.outcome is Outcome.MEASURED
    assert "no closed-form expectation" in row.verdict.reason


@pytest.mark.exact
def test_cases_name_estimators_that_exist_and_streams_of_their_own():
    cases = (*map(four_rooms_case, FOUR_ROOMS_TEMPERATURES), *GAME_CASES, *CONTINUOUS_CASES)
    assert len({case.key for case in cases}) == len(cases)
    for case in cases:
        problem, theta = case.make_problem(), case.make_theta(0)
        assert case.entries()
        assert theta.shape == tuple(problem.theta_shape)
    assert set(estimators_for(ConfigurableLQR)) == set(BUILDING.entries())
    assert {name for name, entry in estimators_for(MarkovGame).items() if entry.level == "formula"} == set(
        GAME_CASES[0].entries()
    )
    assert sampling_cases.FOUR_ROOMS_TEMPERATURES == (0.001, 0.003, 0.005)


@pytest.mark.exact
def test_the_truth_of_every_case_is_known_far_better_than_any_sample():
    for case in (*map(four_rooms_case, FOUR_ROOMS_TEMPERATURES[1:]), *GAME_CASES, *CONTINUOUS_CASES):
        for horizon in (None, PLAN.horizon):
            truth = hypergradient(case.make_problem(), case.make_theta(0), horizon=horizon)
            assert truth.error_bound <= 1e-6 * np.linalg.norm(truth.value), (case.title, horizon)


@pytest.mark.exact
def test_where_no_number_of_draws_is_enough_the_job_goes_on():
    plan = PLAN
    pilot = sampled.SampleMoments.of(1e12 * np.random.default_rng(0).standard_normal((64, 1)))
    assert sampled._draws_for_power(pilot, 1.0, plan) == np.inf
    assert 1e18 < sampled._draws_wanted(pilot, 1.0, plan) < np.inf  # the median of means has a closed form
