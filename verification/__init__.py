"""Estimators against truth: enumeration, statistical checks, verdicts, reports and the command line."""

from bilevelrl.verification.enumeration import Moments, enumerate_moments
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
    "mean_test",
    "smallest_detectable_bias",
    "verify",
]
