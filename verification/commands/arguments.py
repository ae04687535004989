"""What commands take: numbers within bounds, refused by name before any work, in one line as every refusal is."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from bilevelrl.reference.errors import InvalidInputError

__all__ = ["Parser", "add_explain_seconds", "count", "explain_seconds", "natural", "seed"]

LARGEST = 10**9


class Parser(argparse.ArgumentParser):
    """A parser whose errors are refusals: one line with the remedy, and the same exit status."""

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


def add_explain_seconds(add: argparse.ArgumentParser) -> None:
    """Add the flag that limits the search for causes."""
    add.add_argument("--explain-seconds", type=float, metavar="S", help="limit of the search for a cause (default 5)")


def explain_seconds(parsed: argparse.Namespace) -> dict[str, Any]:
    """Return the limit as an argument, where it was given.

    Examples
    --------
    >>> explain_seconds(argparse.Namespace(explain_seconds=None))
    {}
    """
    given = parsed.explain_seconds
    return {} if given is None else {"explain_seconds": given}
