"""The commands `bilevelrl judge` and `bilevelrl scenarios`: a file of draws held against a scenario; what there is."""

from __future__ import annotations

import argparse
from pathlib import Path

from bilevelrl.tasks import scenario, scenarios
from bilevelrl.verification.checks.verdicts import Outcome
from bilevelrl.verification.commands.arguments import add_limits, count, limits
from bilevelrl.verification.commands.places import add_place, read_place
from bilevelrl.verification.reports.terminal import progress_bar
from bilevelrl.verification.statistics.designs import ERROR_RATE
from bilevelrl.verification.testing.judge import judge

__all__ = ["fill_judge", "fill_scenarios"]


def fill_judge(add: argparse.ArgumentParser) -> None:
    """Add the arguments of `judge`."""
    add.add_argument("draws", type=Path, help="a .csv (one row per independent draw), .npy or .npz file")
    add.add_argument("--scenario", metavar="NAME", help="a scenario of `bilevelrl scenarios`")
    add_place(add)
    add.add_argument("--claim", choices=("unbiased", "ascent"), default="unbiased", help="default unbiased")
    add.add_argument("--horizon", type=count, help="of the objective that the draws estimate (default: infinite)")
    add.add_argument("--error-rate", type=float, default=ERROR_RATE, help="of false alarms (default 1e-6)")
    add.add_argument("--bounds", type=float, nargs=2, metavar=("LOW", "HIGH"), help="that no number leaves")
    add_limits(add)
    add.add_argument("--json", action="store_true", help="print everything as JSON")
    add.set_defaults(run=_judge)


def fill_scenarios(add: argparse.ArgumentParser) -> None:
    """Add the arguments of `scenarios`."""
    add.add_argument("--tag", action="append", default=[], help="only those with this tag (repeatable)")
    add.add_argument("--export", metavar="NAME", help="write this scenario")
    add.add_argument("--output", metavar="FILE", type=Path, help="where to (default NAME.npz)")
    add.set_defaults(run=_scenarios)


def _judge(parsed: argparse.Namespace) -> int:
    problem, theta = read_place(parsed)
    with progress_bar() as progress:
        judged = judge(
            parsed.draws,
            parsed.scenario,
            problem=problem,
            theta=theta,
            claim=parsed.claim,
            horizon=parsed.horizon,
            bounds=None if parsed.bounds is None else tuple(parsed.bounds),
            error_rate=parsed.error_rate,
            progress=progress,
            **limits(parsed),
        )
    print(judged.to_json() if parsed.json else judged)
    return {Outcome.PASSED: 0, Outcome.FAILED: 1}.get(judged.verdict.outcome, 2)


def _scenarios(parsed: argparse.Namespace) -> int:
    if parsed.export is not None:
        path = scenario(parsed.export).export_npz(parsed.output or Path(f"{parsed.export}.npz"))
        print(f"wrote {path}")
        return 0
    found = scenarios(tags=parsed.tag)
    width = max((len(entry.name) for entry in found), default=0)
    for entry in found:
        print(f"{entry.name:<{width}}  {entry.summary} [{', '.join(sorted(entry.tags))}]")
    return 0
