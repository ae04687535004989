"""A report of one row, as commands print and save it."""

from bilevelrl.verification import Report
from bilevelrl.verification.checks.verdicts import Verdict
from bilevelrl.verification.pipeline.results import EstimatorRow


def a_report(outcome):
    row = EstimatorRow(
        problem="layered",
        temperature=0.4,
        estimator="mine",
        level="formula",
        claim="unbiased",
        draw="trajectory",
        target="infinite horizon",
        method="enumeration",
        bias=0.1,
        verdict=Verdict(outcome=outcome, detectable=0.01, reason="a reason"),
    )
    return Report(estimators=(row,), seconds=0.5)
