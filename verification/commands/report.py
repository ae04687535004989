"""The command `bilevelrl report`: every estimator on every scenario, studied and judged, as one HTML page."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from bilevelrl.estimators import estimators_for
from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, MissingExtraError, refusal
from bilevelrl.reference.storage import writable_file, write_atomically
from bilevelrl.tasks import Scenario, scenario, scenarios
from bilevelrl.verification.commands.arguments import add_limits, count, limits, seed
from bilevelrl.verification.commands.places import add_place, read_place
from bilevelrl.verification.pipeline.results import Report
from bilevelrl.verification.pipeline.scenario_rows import check_registered
from bilevelrl.verification.pipeline.studies import REPLICATES, run_study
from bilevelrl.verification.pipeline.study_tables import Study, StudyRow, read_study, study_csv
from bilevelrl.verification.pipeline.verify import verify
from bilevelrl.verification.processes.jobs import Job, Progress, run_jobs
from bilevelrl.verification.reading.named_objects import named_object
from bilevelrl.verification.reports.figures import bias_map, cosine_figure, error_figure
from bilevelrl.verification.reports.html import html_report
from bilevelrl.verification.reports.terminal import progress_bar

__all__ = ["FEATURED_SCENARIOS", "fill_report", "registered_report", "write_report"]

FEATURED_SCENARIOS = ("layered", "layered, cold", "garnet", "random", "periodic", "slow chain")
"""Scenarios whose curves are drawn: ending and going on, cold, sparse, dense, periodic and slow."""

QUICK_REPLICATES = 8


def registered_report(
    on: Iterable[Scenario] | None = None, *, workers: int = 1, progress: Progress | None = None
) -> Report:
    """Judge every registered estimator on scenarios, made for the truth that each scenario's trajectories can tell.

    Examples
    --------
    >>> report = registered_report([scenario("toll")])
    >>> report.passed, len(report.estimators) == len(estimators_for(ConfigurableMDP))
    (True, True)
    """
    started = time.perf_counter()
    at = scenarios() if on is None else tuple(on)
    names = estimators_for(ConfigurableMDP)
    jobs = [
        Job(function=check_registered, arguments=(name, entry), label=f"{name} on {entry.name}")
        for entry in at
        for name in names
    ]
    rows = run_jobs(jobs, workers=workers, progress=progress)
    configuration = {"scenarios": len(at), "estimators": len(names)}
    return Report(estimators=tuple(rows), configuration=configuration, seconds=time.perf_counter() - started)


@checked
def write_report(path: str | Path, report: Report, *, study: Study | None = None, title: str | None = None) -> Path:
    """Write a report, with the figures of a study, as one HTML file and return its path.

    Parameters
    ----------
    path
        The file.
    report
        What `verify` or `registered_report` returned.
    study
        What `run_study` returned; figures need matplotlib and are left out without it.
    title
        Of the page.
    """
    writable_file("path", path)
    options = {} if title is None else {"title": title}
    return write_atomically(
        path, html_report(report, study=study, figures=_figures(() if study is None else study.rows), **options)
    )


def fill_report(add: argparse.ArgumentParser) -> None:
    """Add the arguments of `report`."""
    add.add_argument("--output", metavar="FILE", type=Path, default=Path("report.html"), help="default report.html")
    add.add_argument("--study", metavar="FILE", type=Path, help="read the study from this .csv, or write it there")
    add.add_argument("--seed", type=seed, help="root of all random streams of the study (default 0)")
    add.add_argument("--quick", action="store_true", help="the featured scenarios only, few replicates")
    add.add_argument("--workers", type=count, default=1, help="processes (default 1)")
    add_place(add)
    add.add_argument("--horizon", type=count, help="steps of a stream on --task or --problem (default: computed)")
    add.add_argument("--estimator", metavar="MODULE:NAME", help="judge only this function or estimator of your own")
    add_limits(add)
    add.set_defaults(run=_report)


def _report(parsed: argparse.Namespace) -> int:
    writable_file("--output", parsed.output)
    problem, theta = read_place(parsed)
    estimator = None if parsed.estimator is None else named_object("--estimator", parsed.estimator)
    if estimator is not None or problem is not None:
        for name, given in (("--study", parsed.study), ("--quick", parsed.quick or None)):
            if given is not None:
                raise InvalidInputError(
                    refusal(name, given, "to be left out", "studies are of the package's scenarios")
                )
        with progress_bar() as progress:
            report = verify(
                estimator() if isinstance(estimator, type) else estimator,
                problem=problem,
                theta=theta,
                horizon=parsed.horizon,
                seed=parsed.seed or 0,
                progress=progress,
                **limits(parsed),
            )
        print(f"wrote {write_report(parsed.output, report)}", file=sys.stderr)
        return 0 if report.passed else 1
    for name, value in limits(parsed).items():
        raise InvalidInputError(
            refusal(f"--{name.replace('_', '-')}", value, "an estimator or problem that it is for", "pass --estimator")
        )
    at = [scenario(name) for name in FEATURED_SCENARIOS] if parsed.quick else list(scenarios())
    if parsed.study is not None and parsed.study.exists():
        study = read_study(parsed.study)
        _agrees(study, parsed)
    else:
        if parsed.study is not None:
            writable_file("--study", parsed.study)
        replicates = QUICK_REPLICATES if parsed.quick else REPLICATES
        with progress_bar() as progress:
            study = run_study(
                on=at, seed=parsed.seed or 0, replicates=replicates, workers=parsed.workers, progress=progress
            )
        if parsed.study is not None:
            write_atomically(parsed.study, study_csv(study))
    with progress_bar() as progress:
        report = registered_report(at, workers=parsed.workers, progress=progress)
    settings = {**report.configuration, "command": "bilevelrl report"}
    report = replace(report, configuration=settings)
    print(f"wrote {write_report(parsed.output, report, study=study)}", file=sys.stderr)
    return 0 if report.passed else 1


def _agrees(study: Study, parsed: argparse.Namespace) -> None:
    """Refuse arguments that say something else than the study that is read."""
    remedy = f"leave it out, or make a study of its own in another file than {parsed.study}"
    if parsed.seed not in (None, study.seed):
        raise InvalidInputError(refusal("--seed", parsed.seed, f"{study.seed}, as the study was made", remedy))
    made = (set(study.scenarios), study.replicates)
    if parsed.quick and made != (set(FEATURED_SCENARIOS), QUICK_REPLICATES):
        few = f"a study of {len(FEATURED_SCENARIOS)} scenarios with {QUICK_REPLICATES} replicates"
        found = f"{len(study.scenarios)} scenarios with {study.replicates} replicates"
        raise InvalidInputError(refusal("--quick", found, few, remedy))


def _figures(study: Sequence[StudyRow]) -> list[tuple[str, str]]:
    if not study:
        return []
    places = {row.scenario for row in study}
    shown = [name for name in FEATURED_SCENARIOS if name in places] or sorted(places)[:6]
    try:
        return [
            (
                cosine_figure(study, shown),
                "How well estimates point along ∇J: mean cosine over replicates; the bands of BC-HG and "
                "HPGD hold 90 % of single estimates. A biased estimator levels off below 1.",
            ),
            (
                error_figure(study, shown),
                "What an estimate costs: root mean square error against environment and oracle steps. Dotted: the "
                "estimator's bias, which no number of samples removes.",
            ),
            (
                bias_map(study),
                "Bias of every estimator on every scenario. Green: none, or below 1 % of ∇J; grey: the estimator does "
                "not apply, or ∇J is zero.",
            ),
        ]
    except MissingExtraError as missing:
        print(f"bilevelrl: {missing}", file=sys.stderr)
        return []
