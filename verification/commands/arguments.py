"""What commands take: numbers within bounds, refused by name before any work, in one line as every refusal is."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any, NoReturn

from bilevelrl.reference.errors import InvalidInputError
from bilevelrl.reference.storage import writable_file

__all__ = ["Parser", "add_files", "add_limits", "count", "limits", "natural", "refuse_unwritable", "seed"]

LARGEST = 10**9


class Parser(argparse.ArgumentParser):
    """A parser whose errors are refusals: one line with the remedy, and the same exit status.

    Parameters
    ----------
    filled_by
        "module:function" that adds the arguments when the parser is first asked; its module is not loaded before.
    """

    def __init__(self, *args: Any, filled_by: str | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._filled_by = filled_by

    def fill(self) -> None:
        """Add the arguments that are not there yet."""
        if self._filled_by is not None:
            module, _, function = self._filled_by.partition(":")
            self._filled_by = None
            getattr(importlib.import_module(module), function)(self)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; see `argparse.ArgumentParser`."""
        self.fill()
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Refuse.

        Examples
        --------
        >>> Parser(prog="bilevelrl").parse_args(["--no-such-option"])
        Traceback (most recent call last):
            ...
        bilevelrl.reference.errors.InvalidInputError: unrecognized arguments: --no-such-option; see `bilevelrl --help`
        """
        raise InvalidInputError(f"{message}; see `{self.prog} --help`")


def count(text: str) -> int:
    """Read how many there are of something, at least one.

    Examples
    --------
    >>> count("3")
    3
    >>> count("0")
    Traceback (most recent call last):
        ...
    argparse.ArgumentTypeError: '0': expected an integer from 1 to 1000000000
    """
    return _integer(text, 1, LARGEST)


def natural(text: str) -> int:
    """Read how many there are of something that may be missing.

    Examples
    --------
    >>> natural("0")
    0
    """
    return _integer(text, 0, LARGEST)


def seed(text: str) -> int:
    """Read a root of random streams.

    Examples
    --------
    >>> seed("0")
    0
    """
    return _integer(text, 0, 2**128 - 1)


def _integer(text: str, least: int, most: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        shown = text if len(text) < 60 else f"{text[:57]}..."
        raise argparse.ArgumentTypeError(f"{shown!r}: expected an integer from {least} to {most}")
    return value


def add_limits(add: argparse.ArgumentParser) -> None:
    """Add the flags that say how exact an estimator is, and how long a cause is looked for."""
    add.add_argument("--accuracy", type=float, metavar="A", help="relative error that is allowed (default: rounding)")
    add.add_argument("--explain-seconds", type=float, metavar="S", help="limit of the search for a cause (default 5)")


def limits(parsed: argparse.Namespace) -> dict[str, Any]:
    """Return as arguments those of the two that were given.

    Examples
    --------
    >>> limits(argparse.Namespace(accuracy=None, explain_seconds=2.0))
    {'explain_seconds': 2.0}
    """
    given = {"accuracy": parsed.accuracy, "explain_seconds": parsed.explain_seconds}
    return {name: value for name, value in given.items() if value is not None}


def add_files(add: argparse.ArgumentParser) -> None:
    """Add the flags of files for the tools of other people's repositories."""
    add.add_argument("--sarif", metavar="FILE", type=Path, help="write what is wrong as SARIF 2.1.0")
    add.add_argument("--junit", metavar="FILE", type=Path, help="write every check as JUnit's XML")


def refuse_unwritable(parsed: argparse.Namespace) -> None:
    """Refuse such files that cannot be written: before the work, not after it.

    Examples
    --------
    >>> refuse_unwritable(argparse.Namespace(sarif=None, junit=None))
    """
    for name, file in (("--sarif", parsed.sarif), ("--junit", parsed.junit)):
        if file is not None:
            writable_file(name, file)
