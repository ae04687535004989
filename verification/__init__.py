"""Estimators against truth: enumeration, statistical checks, verdicts, reports and the command line."""

from bilevelrl.verification.attribution import CAUSES, Attribution, attribute, attribute_bias
from bilevelrl.verification.certify import Agreement, certify_results
from bilevelrl.verification.deterministic_checks import CheckResult, check_estimator, check_gradient, enumerate_scenario
from bilevelrl.verification.enumeration import Moments, enumerate_moments
from bilevelrl.verification.kill_matrix import KillMatrix, kill_matrix
from bilevelrl.verification.mutants import MUTANTS, Mutant
from bilevelrl.verification.order_checks import check_orders
from bilevelrl.verification.quadrature import game_expected_parts, quadrature_moments, soft_bellman_residual
from bilevelrl.verification.results import EstimatorRow, Report, RouteRow
from bilevelrl.verification.statistics import (
    MeanTest,
    SampleMoments,
    draws_needed,
    mean_test,
    smallest_detectable_bias,
)
from bilevelrl.verification.verdicts import POWER_LIMIT, Outcome, Verdict
from bilevelrl.verification.verify import verify

__all__ = [
    "CAUSES",
    "MUTANTS",
    "POWER_LIMIT",
    "Agreement",
    "Attribution",
    "CheckResult",
    "EstimatorRow",
    "KillMatrix",
    "MeanTest",
    "Moments",
    "Mutant",
    "Outcome",
    "Report",
    "RouteRow",
    "SampleMoments",
    "Verdict",
    "attribute",
    "attribute_bias",
    "certify_results",
    "check_estimator",
    "check_gradient",
    "check_orders",
    "draws_needed",
    "enumerate_moments",
    "enumerate_scenario",
    "game_expected_parts",
    "kill_matrix",
    "mean_test",
    "quadrature_moments",
    "smallest_detectable_bias",
    "soft_bellman_residual",
    "verify",
]
