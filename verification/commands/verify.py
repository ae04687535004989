"""`bilevelrl verify`: every route and estimator, or one of your own, held against the truth."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from bilevelrl.reference.storage import writable_folder
from bilevelrl.verification.commands.arguments import add_limits, count, limits, seed
from bilevelrl.verification.commands.places import add_place, read_place
from bilevelrl.verification.pipeline.verify import verify
from bilevelrl.verification.processes.ending import CHECK_FAILED, HOLDS, UNANSWERED
from bilevelrl.verification.reading.named_objects import named_object
from bilevelrl.verification.reports.overview import missing_figures, save_figure
from bilevelrl.verification.reports.terminal import print_report, progress_bar

__all__ = ["fill_verify"]


def fill_verify(add: argparse.ArgumentParser) -> None:
    """Add the arguments of `verify`."""
    add_place(add)
    add.add_argument("--horizon", type=count, help="steps of a stream on --task or --problem (default: computed)")
    add.add_argument("--estimator", metavar="MODULE:NAME", help="verify only this function or estimator of your own")
    add_limits(add)
    add.add_argument("--output", metavar="DIR", type=Path, help="write verify.csv, verify.json and verify.png there")
    add.add_argument("--seed", type=seed, default=0, help="root of all random streams (default 0)")
    add.add_argument("--quick", action="store_true", help="one temperature and a tenth of the sampling")
    add.add_argument("--workers", type=count, default=min(2, os.cpu_count() or 1), help="processes (default 2)")
    add.set_defaults(run=_verify)


def _verify(parsed: argparse.Namespace) -> int:
    without_figure = None
    if parsed.output is not None:  # before a minute of work, not after it
        writable_folder("--output", parsed.output)
        without_figure = missing_figures()
        if without_figure is not None:
            print(f"bilevelrl: there will be no verify.png: {without_figure}", file=sys.stderr)
    problem, theta = read_place(parsed)
    estimator = None if parsed.estimator is None else named_object("--estimator", parsed.estimator)
    own: dict[str, Any] = {"workers": parsed.workers}
    if estimator is not None or limits(parsed):
        own = limits(parsed)
    with progress_bar() as progress:
        report = verify(
            estimator=estimator() if isinstance(estimator, type) else estimator,
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
    if report.failures:
        return CHECK_FAILED
    return HOLDS if report.passed else UNANSWERED
