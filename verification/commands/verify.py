"""`bilevelrl verify`: every route and estimator, or one of your own, held against the truth."""

from __future__ import annotations

import argparse
import math
import os
import sys
from pathlib import Path
from typing import Any

from bilevelrl.estimators import ESTIMATORS
from bilevelrl.reference.problem import Objective
from bilevelrl.reference.storage import writable_folder
from bilevelrl.verification.checks.verdicts import Outcome
from bilevelrl.verification.commands.arguments import add_files, add_limits, count, limits, refuse_unwritable, seed
from bilevelrl.verification.commands.places import add_place, read_place
from bilevelrl.verification.pipeline.results import EstimatorRow, Report
from bilevelrl.verification.pipeline.verify import verify
from bilevelrl.verification.processes.ending import CHECK_FAILED, HOLDS, UNANSWERED
from bilevelrl.verification.reading.named_objects import named_object
from bilevelrl.verification.reports.overview import missing_figures, save_figure
from bilevelrl.verification.reports.terminal import print_report, progress_bar
from bilevelrl.verification.testing.records import Finding, written_in
from bilevelrl.verification.testing.sarif import write_findings

__all__ = ["fill_verify"]


def fill_verify(add: argparse.ArgumentParser) -> None:
    """Add the arguments of `verify`."""
    add_place(add)
    add.add_argument("--horizon", type=count, help="steps of a stream on --task or --problem (default: computed)")
    add.add_argument("--estimator", metavar="MODULE:NAME", help="verify only this function or estimator of your own")
    add_limits(add)
    add.add_argument("--output", metavar="DIR", type=Path, help="write verify.csv, verify.json and verify.png there")
    add_files(add)
    add.add_argument("--seed", type=seed, default=0, help="root of all random streams (default 0)")
    add.add_argument("--quick", action="store_true", help="one temperature and a tenth of the sampling")
    add.add_argument("--workers", type=count, default=min(2, os.cpu_count() or 1), help="processes (default 2)")
    add.set_defaults(run=_verify)


def _verify(parsed: argparse.Namespace) -> int:
    without_figure = None
    refuse_unwritable(parsed)
    if parsed.output is not None:  # before a minute of work, not after it
        writable_folder("--output", parsed.output)
        without_figure = missing_figures()
        if without_figure is not None:
            print(f"bilevelrl: there will be no verify.png: {without_figure}", file=sys.stderr)
    problem, theta = read_place(parsed)
    estimator = None if parsed.estimator is None else named_object("--estimator", parsed.estimator)
    estimator = estimator() if isinstance(estimator, type) else estimator
    own: dict[str, Any] = {"workers": parsed.workers}
    if estimator is not None or limits(parsed):
        own = limits(parsed)
    with progress_bar() as progress:
        report = verify(
            estimator=estimator,
            problem=problem,
            theta=theta,
            horizon=parsed.horizon,
            seed=parsed.seed,
            quick=parsed.quick,
            progress=progress,
            **own,
        )
    print_report(report)
    if parsed.output is not None:
        written = report.save(parsed.output)
        if without_figure is None:
            written += (save_figure(report, parsed.output / "verify.png"),)
        for path in written:
            print(f"wrote {path}", file=sys.stderr)
    if parsed.sarif is not None or parsed.junit is not None:
        found, said = _findings(report, estimator), report.headline
        for path in write_findings(found, sarif=parsed.sarif, junit=parsed.junit, headline=said):
            print(f"wrote {path}", file=sys.stderr)
    if report.failures:
        return CHECK_FAILED
    return HOLDS if report.passed else UNANSWERED


def _findings(report: Report, own: Any) -> list[Finding]:
    """Return the rows that claim something, as the headline counts them, as findings; `own`: the given estimator."""
    found = []
    for row in report.rows:
        if row.verdict.outcome is Outcome.MEASURED:
            continue
        if isinstance(row, EstimatorRow):
            name, check = row.estimator, row.check
            file, line = written_in(own if own is not None else ESTIMATORS[name].make(Objective()))
        else:
            name, check, file, line = f"route {row.route}", "truth", "", 0
        verdict = row.verdict
        found.append(
            Finding(
                estimator=name,
                check=check,
                scenario=f"{row.problem} (β = {row.temperature:g})",
                outcome=verdict.outcome.value,
                reason=verdict.reason,
                detectable=verdict.detectable if math.isfinite(verdict.detectable) else None,
                cause="" if report.explanation is None or not verdict.failed else str(report.explanation),
                file=file,
                line=line,
            )
        )
    return found
