"""The command `bilevelrl`: verify, card, gradient, certify, digits, routes, list; and whatever other packages add.

Another package adds a subcommand by an entry point of the group `bilevelrl.commands` whose object is a function that
takes the object of `argparse.ArgumentParser.add_subparsers` and registers itself there with
`set_defaults(run=function of the parsed arguments)`; `run` returns the exit status.

Exit status: 0 where everything holds, 1 where a check failed, 2 where the question could not be answered; the others
are in `ending`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from bilevelrl.estimators import ESTIMATORS
from bilevelrl.reference import HYPERGRADIENT_ROUTES, hypergradient
from bilevelrl.reference.storage import software_versions, writable_file, writable_folder, write_atomically
from bilevelrl.tasks import TASKS, make_task
from bilevelrl.verification.commands.arguments import Parser, add_limits, count, limits, seed
from bilevelrl.verification.commands.attribute import register_attribute
from bilevelrl.verification.commands.card import register_card
from bilevelrl.verification.commands.certify import register_certify
from bilevelrl.verification.commands.digits import register_digits
from bilevelrl.verification.commands.false_alarms import register_false_alarms
from bilevelrl.verification.commands.fresh_seeds import register_fresh_seeds
from bilevelrl.verification.commands.judge import register_judge
from bilevelrl.verification.commands.places import add_place, read_place, read_theta
from bilevelrl.verification.commands.report import register_report
from bilevelrl.verification.pipeline.verify import verify
from bilevelrl.verification.processes.ending import CHECK_FAILED, HOLDS, UNANSWERED, ended
from bilevelrl.verification.reading.named_objects import named_object
from bilevelrl.verification.reports.overview import missing_figures, save_figure
from bilevelrl.verification.reports.terminal import print_report, progress_bar

__all__ = ["COMMAND_GROUP", "build_parser", "main"]

COMMAND_GROUP = "bilevelrl.commands"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    Parameters
    ----------
    arguments
        Words after the program's name; default: those of this process.

    Examples
    --------
    >>> main(["gradient", "--task", "chain", "--route", "implicit", "--horizon", "0"])
    2
    """
    return ended(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    parser = build_parser()
    words = sys.argv[1:] if arguments is None else list(arguments)
    for word in words:
        if word.startswith("--") and word.endswith("=--"):  # argparse would make a list of it
            parser.error(f"argument {word[:-3]}: expected a value, not '--'")
    parsed = parser.parse_args(words)
    if not hasattr(parsed, "run"):
        parser.print_help()
        return UNANSWERED
    return int(parsed.run(parsed))


def build_parser() -> Parser:
    """Return the parser, with the subcommands of other installed packages."""
    parser = Parser(prog="bilevelrl", description="Hypergradients for bi-level reinforcement learning, verified.")
    parser.add_argument("--version", action="version", version=f"bilevelrl {software_versions()['bilevelrl']}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    add = commands.add_parser("verify", help="hold every route and estimator, or your own, against the truth")
    add_place(add)
    add.add_argument("--horizon", type=count, help="steps of a stream on --task or --problem (default: computed)")
    add.add_argument("--estimator", metavar="MODULE:NAME", help="verify only this function or estimator of your own")
    add_limits(add)
    add.add_argument("--output", metavar="DIR", type=Path, help="write verify.csv, verify.json and verify.png there")
    add.add_argument("--seed", type=seed, default=0, help="root of all random streams (default 0)")
    add.add_argument("--quick", action="store_true", help="one temperature and a tenth of the sampling")
    add.add_argument("--workers", type=count, default=min(2, os.cpu_count() or 1), help="processes (default 2)")
    add.set_defaults(run=_verify)

    add = commands.add_parser("gradient", help="print one exact hypergradient")
    add.add_argument("--task", required=True, help="a task of `bilevelrl list`")
    add.add_argument("--route", default="implicit", help="a route of `bilevelrl routes` (default implicit)")
    add.add_argument("--theta", default="zeros", help="a .npy or .csv file, or zeros (default)")
    add.add_argument("--temperature", type=float, help="the follower's β (default: the task's)")
    add.add_argument("--horizon", type=count, help="episodes of so many steps (default: for ever)")
    add.add_argument("--undiscounted", action="store_true", help="undiscounted leader returns; needs --horizon")
    add.add_argument("--json", action="store_true", help="print JSON with all parts")
    add.set_defaults(run=_gradient)

    register_card(commands)
    register_certify(commands)
    register_digits(commands)
    register_judge(commands)
    register_attribute(commands)
    register_report(commands)
    register_fresh_seeds(commands)
    register_false_alarms(commands)

    add = commands.add_parser("routes", help="list the exact routes and what each promises")
    add.set_defaults(run=_routes)
    add = commands.add_parser("list", help="list tasks and estimators")
    add.set_defaults(run=_list)

    add = commands.add_parser("mutants", help="print which check kills which planted error (some minutes)")
    add.add_argument("names", nargs="*", metavar="NAME", help="mutants to run (default: all, and what must survive)")
    add.add_argument("--output", metavar="FILE", type=Path, help="also write every margin to this .csv file")
    add.add_argument("--page", metavar="FILE", type=Path, help="also write the table as Markdown")
    add.add_argument("--list", action="store_true", help="only list the mutants and where each comes from")
    add.set_defaults(run=_mutants)

    for entry in sorted(metadata.entry_points(group=COMMAND_GROUP), key=lambda entry: entry.name):
        _join(entry, commands)
    return parser


def _join(entry: metadata.EntryPoint, commands: Any) -> None:
    try:
        register: Callable[[Any], None] = entry.load()
        register(commands)
    except Exception as broken:  # a broken plug-in must not take the other commands with it
        print(f"bilevelrl: command {entry.name!r} of {entry.value} does not load: {broken}", file=sys.stderr)


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


def _gradient(parsed: argparse.Namespace) -> int:
    options = {} if parsed.temperature is None else {"temperature": parsed.temperature}
    problem = make_task(parsed.task, **options)
    theta = read_theta(parsed.theta, problem, parsed.task)
    found = hypergradient(
        problem, theta, route=parsed.route, horizon=parsed.horizon, discounted=not parsed.undiscounted
    )
    if parsed.json:
        record = {
            "task": parsed.task,
            "temperature": problem.temperature,
            "route": found.route,
            "horizon": parsed.horizon,
            "discounted": not parsed.undiscounted,
            "objective": found.objective,
            "norm": float(np.linalg.norm(found.value)),
            "error_bound": found.error_bound if np.isfinite(found.error_bound) else None,
            "residual": found.residual,
            "status": found.status,
            "counters": dict(found.counters),
            "value": found.value.tolist(),
            "parts": {part: value.tolist() for part, value in found.parts.items()},
            "versions": software_versions(),
        }
        print(json.dumps(record, indent=1))
        return 0
    print(f"{parsed.task}, β = {problem.temperature:g}, route {found.route}: {found.status}")
    print(f"J(θ)    {found.objective:.12g}")
    print(f"‖∇J‖    {float(np.linalg.norm(found.value)):.12g}   (each entry known to {found.error_bound:.1g})")
    for part, value in found.parts.items():
        print(f"  {part:<12}{float(np.linalg.norm(value)):.6g}")
    print(np.array2string(found.value, precision=10, max_line_width=100, threshold=10**6))
    return 0


def _routes(parsed: argparse.Namespace) -> int:
    width = max(map(len, HYPERGRADIENT_ROUTES))
    for name, route in HYPERGRADIENT_ROUTES.items():
        print(f"{name:<{width}}  {route.summary}\n{'':<{width}}  family: {route.family}; {route.accuracy}")
    return 0


def _list(parsed: argparse.Namespace) -> int:
    tasks = [(name, task.summary) for name, task in TASKS.items()]
    estimators = [(name, f"{entry.summary} ({entry.level} level)") for name, entry in ESTIMATORS.items()]
    for title, entries in (("Tasks", tasks), ("Estimators", estimators)):
        width = max((len(name) for name, _ in entries), default=0)
        print(title)
        for name, summary in entries:
            print(f"  {name:<{width}}  {summary}")
    return 0


def _mutants(parsed: argparse.Namespace) -> int:
    from bilevelrl.verification.mutants.catalogue import MUTANTS
    from bilevelrl.verification.mutants.kill_matrix import KillMatrix, kill_matrix
    from bilevelrl.verification.mutants.page import kill_page

    if parsed.list:
        width = max(map(len, MUTANTS))
        for name, mutant in MUTANTS.items():
            print(f"{name:<{width}}  {mutant.changes} ({mutant.origin}); killed by {mutant.meant_for}")
        return 0
    for option, path in (("--output", parsed.output), ("--page", parsed.page)):
        if path is not None:
            writable_file(option, path)
    matrix = kill_matrix(mutants=parsed.names, correct=()) if parsed.names else kill_matrix()
    print(matrix)
    for path, write in ((parsed.output, KillMatrix.to_csv), (parsed.page, kill_page)):
        if path is not None:
            write_atomically(path, write(matrix))
            print(f"wrote {path}", file=sys.stderr)
    return 0 if matrix.complete else 1


if __name__ == "__main__":
    raise SystemExit(main())
