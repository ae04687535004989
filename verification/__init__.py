"""Estimators against truth: enumeration, statistical checks, verdicts, reports and the command line."""

from typing import TYPE_CHECKING

from bilevelrl.reference.doors import on_demand

if TYPE_CHECKING:
    from bilevelrl.verification.checks.deterministic import check_estimator
    from bilevelrl.verification.checks.gradients import check_gradient
    from bilevelrl.verification.checks.verdicts import Outcome
    from bilevelrl.verification.commands.certify import certify_results
    from bilevelrl.verification.commands.report import write_report
    from bilevelrl.verification.enumeration.exact_spread import exact_spread
    from bilevelrl.verification.enumeration.moments import enumerate_moments
    from bilevelrl.verification.mutants.kill_matrix import kill_matrix
    from bilevelrl.verification.pipeline.results import Report
    from bilevelrl.verification.pipeline.studies import run_study
    from bilevelrl.verification.pipeline.verify import verify
    from bilevelrl.verification.statistics.means import mean_test
    from bilevelrl.verification.testing.assertions import assert_matches_truth, assert_unbiased, assert_variance_below
    from bilevelrl.verification.testing.judge import judge, judge_draws
    from bilevelrl.verification.testing.pytest_support import estimator_checks, parametrize_with_checks

__all__ = [
    "Outcome",
    "Report",
    "assert_matches_truth",
    "assert_unbiased",
    "assert_variance_below",
    "certify_results",
    "check_estimator",
    "check_gradient",
    "enumerate_moments",
    "estimator_checks",
    "exact_spread",
    "judge",
    "judge_draws",
    "kill_matrix",
    "mean_test",
    "parametrize_with_checks",
    "run_study",
    "verify",
    "write_report",
]

__getattr__, __dir__ = on_demand(globals())
