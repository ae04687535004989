"""Estimators against truth: enumeration, statistical checks, verdicts, reports and the command line."""

from bilevelrl.verification.checks.deterministic import CheckResult, check_estimator, check_gradient, enumerate_scenario
from bilevelrl.verification.checks.order import check_orders
from bilevelrl.verification.checks.verdicts import POWER_LIMIT, Outcome, Verdict
from bilevelrl.verification.commands.certify import Agreement, certify_results
from bilevelrl.verification.commands.report import write_report
from bilevelrl.verification.enumeration.exact_spread import ExactSpread, exact_spread
from bilevelrl.verification.enumeration.moments import Moments, enumerate_moments
from bilevelrl.verification.enumeration.quadrature import game_expected_parts, quadrature_moments, soft_bellman_residual
from bilevelrl.verification.mutants.attribution import CAUSES, Attribution, attribute, attribute_bias
from bilevelrl.verification.mutants.catalogue import MUTANTS, Mutant
from bilevelrl.verification.mutants.causes import Explanation, explain
from bilevelrl.verification.mutants.kill_matrix import KillMatrix, kill_matrix
from bilevelrl.verification.pipeline.results import EstimatorRow, Report, RouteRow
from bilevelrl.verification.pipeline.studies import Study, StudyRow, run_study
from bilevelrl.verification.pipeline.verify import verify
from bilevelrl.verification.statistics.anytime import AnytimeTest
from bilevelrl.verification.statistics.bounded import bounded_mean_test
from bilevelrl.verification.statistics.error_budget import ErrorBudget
from bilevelrl.verification.statistics.means import (
    MeanTest,
    SampleMoments,
    draws_needed,
    mean_test,
    smallest_detectable_bias,
)
from bilevelrl.verification.statistics.moments import covariance_test, variance_test
from bilevelrl.verification.statistics.sequential import StagedDesign, staged_mean_test
from bilevelrl.verification.testing.assertions import (
    CheckFailedError,
    assert_matches_truth,
    assert_unbiased,
    assert_variance_below,
)
from bilevelrl.verification.testing.judge import Judgement, judge_draws, read_draws
from bilevelrl.verification.testing.pytest_support import estimator_checks, parametrize_with_checks

__all__ = [
    "CAUSES",
    "MUTANTS",
    "POWER_LIMIT",
    "Agreement",
    "AnytimeTest",
    "Attribution",
    "CheckFailedError",
    "CheckResult",
    "ErrorBudget",
    "EstimatorRow",
    "ExactSpread",
    "Explanation",
    "Judgement",
    "KillMatrix",
    "MeanTest",
    "Moments",
    "Mutant",
    "Outcome",
    "Report",
    "RouteRow",
    "SampleMoments",
    "StagedDesign",
    "Study",
    "StudyRow",
    "Verdict",
    "assert_matches_truth",
    "assert_unbiased",
    "assert_variance_below",
    "attribute",
    "attribute_bias",
    "bounded_mean_test",
    "certify_results",
    "check_estimator",
    "check_gradient",
    "check_orders",
    "covariance_test",
    "draws_needed",
    "enumerate_moments",
    "enumerate_scenario",
    "estimator_checks",
    "exact_spread",
    "explain",
    "game_expected_parts",
    "judge_draws",
    "kill_matrix",
    "mean_test",
    "parametrize_with_checks",
    "quadrature_moments",
    "read_draws",
    "run_study",
    "smallest_detectable_bias",
    "soft_bellman_residual",
    "staged_mean_test",
    "variance_test",
    "verify",
    "write_report",
]
