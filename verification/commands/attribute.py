"""`bilevelrl attribute` and `bilevelrl mutants`: what causes of bias and planted errors do, exactly."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bilevelrl.reference.storage import writable_file, write_atomically
from bilevelrl.verification.commands.arguments import count
from bilevelrl.verification.mutants.attribution import CAUSES, attribute_bias
from bilevelrl.verification.mutants.catalogue import MUTANTS
from bilevelrl.verification.mutants.kill_matrix import KillMatrix, kill_matrix
from bilevelrl.verification.mutants.page import kill_page

__all__ = ["fill_attribute", "fill_mutants"]


def fill_attribute(add: argparse.ArgumentParser) -> None:
    """Add the arguments of `attribute`."""
    add.add_argument("--scenario", metavar="NAME", default="random, terminating", help="of `bilevelrl scenarios`")
    add.add_argument("--cause", metavar="NAME", action="append", help=f"repeatable; of {', '.join(CAUSES)}")
    add.add_argument("--horizon", type=count, default=2, help="steps of a trajectory (default 2)")
    add.set_defaults(run=_attribute)


def _attribute(parsed: argparse.Namespace) -> int:
    print(attribute_bias(parsed.scenario, causes=parsed.cause or tuple(CAUSES), horizon=parsed.horizon))
    return 0


def fill_mutants(add: argparse.ArgumentParser) -> None:
    """Add the arguments of `mutants`."""
    add.add_argument("names", nargs="*", metavar="NAME", help="mutants to run (default: all, and what must survive)")
    add.add_argument("--output", metavar="FILE", type=Path, help="also write every margin to this .csv file")
    add.add_argument("--page", metavar="FILE", type=Path, help="also write the table as Markdown")
    add.add_argument("--list", action="store_true", help="only list the mutants and where each comes from")
    add.set_defaults(run=_mutants)


def _mutants(parsed: argparse.Namespace) -> int:
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
