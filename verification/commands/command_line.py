"""The command `bilevelrl`: verify, card, gradient, certify, digits, routes, list; and whatever other packages add.

Another package adds a subcommand by an entry point of the group `bilevelrl.commands` whose object is a function that
takes the object of `argparse.ArgumentParser.add_subparsers` and registers itself there with
`add_parser(name, help=..., filled_by="module:function")`, or whole. That function adds the arguments to the parser when
the command is asked for, and `set_defaults(run=function of the parsed arguments)`; `run` returns the exit status. So
`bilevelrl --help` loads what no command needs alone.

Exit status: 0 where everything holds, 1 where a check failed, 2 where the question could not be answered; the others
are in `ending`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

from bilevelrl.reference.storage import software_versions
from bilevelrl.verification.commands.arguments import Parser
from bilevelrl.verification.processes.ending import UNANSWERED, ended

__all__ = ["COMMAND_GROUP", "build_parser", "main"]

COMMAND_GROUP = "bilevelrl.commands"

_HERE = "bilevelrl.verification.commands"
_COMMANDS = (
    ("verify", "hold every route and estimator, or your own, against the truth", f"{_HERE}.verify:fill_verify"),
    ("gradient", "print one exact hypergradient", f"{_HERE}.exact:fill_gradient"),
    (
        "card",
        "what an estimator claims and what enumeration says of it, on one page",
        f"{_HERE}.card:fill_card",
    ),
    (
        "certify",
        "hold your numbers, from any language, against certified reference data",
        f"{_HERE}.certify:fill_certify",
    ),
    ("digits", "correct digits of every floating-point route on the reference data", f"{_HERE}.digits:fill_digits"),
    ("judge", "hold draws of an estimator, from a file, against the truth", f"{_HERE}.judge:fill_judge"),
    ("scenarios", "list the scenarios, or write one as .npz for any other code", f"{_HERE}.judge:fill_scenarios"),
    (
        "attribute",
        "how much each cause of bias adds on a small scenario, exactly",
        f"{_HERE}.attribute:fill_attribute",
    ),
    ("report", "judge and study every estimator on every scenario, as one HTML page", f"{_HERE}.report:fill_report"),
    (
        "fresh-seeds",
        "many runs with fresh seeds: no correct estimator may be refused",
        f"{_HERE}.fresh_seeds:fill_fresh_seeds",
    ),
    ("false-alarms", "how often right draws fail, by their exact laws", f"{_HERE}.false_alarms:fill_false_alarms"),
    ("routes", "list the exact routes and what each promises", f"{_HERE}.exact:fill_routes"),
    ("list", "list tasks and estimators", f"{_HERE}.exact:fill_list"),
    ("mutants", "print which check kills which planted error (some minutes)", f"{_HERE}.attribute:fill_mutants"),
)
"""Name, what `--help` says, and the function that adds the arguments."""


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
    for name, summary, filled_by in _COMMANDS:
        commands.add_parser(name, help=summary, filled_by=filled_by)
    for entry in sorted(metadata.entry_points(group=COMMAND_GROUP), key=lambda entry: entry.name):
        _join(entry, commands)
    return parser


def _join(entry: metadata.EntryPoint, commands: Any) -> None:
    try:
        register: Callable[[Any], None] = entry.load()
        register(commands)
    except Exception as broken:  # a broken plug-in must not take the other commands with it
        print(f"bilevelrl: command {entry.name!r} of {entry.value} does not load: {broken}", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
