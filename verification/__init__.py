"""Estimators against truth: enumeration, statistical checks, verdicts, reports and the command line."""

from bilevelrl.verification.enumeration import Moments, enumerate_moments
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
    "POWER_LIMIT",
    "EstimatorRow",
    "MeanTest",
    "Moments",
    "Outcome",
    "Report",
    "RouteRow",
    "SampleMoments",
    "Verdict",
    "draws_needed",
    "enumerate_moments",
    "game_expected_parts",
    "mean_test",
    "quadrature_moments",
    "smallest_detectable_bias",
    "soft_bellman_residual",
    "verify",
]
