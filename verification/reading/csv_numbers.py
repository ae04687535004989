"""Numbers of .csv files, read piece by piece, or refused with the line and column and what was expected there.

A file is UTF-8 (a byte-order mark is no part of it), with commas between numbers and points in them; blank lines and
what follows a `#` say nothing; its first line may name the columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import BilevelRLError, InvalidInputError, ShapeError, refusal
from bilevelrl.verification.processes.jobs import Progress

__all__ = ["LARGEST", "csv_blocks", "not_finite", "unreadable"]

LARGEST = 1e150
"""Larger draws would overflow when squared."""
_CHUNK = 2**22
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_NAME = re.compile(r"""["']?(?!\d)([^\W\d]|[^\x00-\x7f])[^,;"']*["']?""")
_NO_NUMBER = frozenset({"na", "n/a", "nan", "inf", "infinity", "nil", "none", "null", "missing", "true", "false"})


def csv_blocks(path: Path, width: int | None, progress: Progress | None) -> Iterator[FloatArray]:
    """Yield the numbers of a .csv file, as many lines at once as make a few megabytes."""
    try:
        size = path.stat().st_size
        with path.open(encoding="utf-8-sig") as file:
            number, names, done, lines = 0, 0, 0, [""]
            while lines and not _said(lines[0]):
                number, lines = number + 1, file.readlines(1)
            if lines and (names := _names(lines[0], f"{path}, line {number}")):
                number, lines = number + 1, []
            lines += file.readlines(_CHUNK)
            if not names and _counts(lines):
                raise InvalidInputError(
                    f"{path}, line {number}: {_short(lines[0])} counts the columns and is no draw; expected names or "
                    "numbers; leave that line out (pandas: header=False)"
                )
            empty = True
            while lines:
                rows = _numbers(lines, number, path, width)
                number, done = number + len(lines), done + sum(map(len, lines))
                if rows is not None:
                    empty, width = False, rows.shape[1]
                    if names not in (0, width):
                        raise ShapeError(
                            f"{path}: its first line names {names} columns where lines hold {width} numbers; expected "
                            "one name per column; name all of them, or none"
                        )
                    yield rows
                if progress is not None:
                    progress(min(done, size), size, f"reading {path.name}")
                lines = file.readlines(_CHUNK)
    except BilevelRLError:
        raise
    except (OSError, ValueError) as broken:
        raise InvalidInputError(unreadable(path, broken, "lines of numbers in UTF-8, with commas between")) from None
    if empty:
        raise InvalidInputError(f"{path}: holds no numbers; expected lines of numbers with commas between")


def _said(line: str) -> str:
    """What a line says: blanks at its ends and comments say nothing."""
    return line.partition("#")[0].strip()


def _names(line: str, place: str) -> int:
    """How many columns a first line names; 0 where it holds numbers; refused where it is neither."""
    cells = [cell.strip() for cell in _said(line).split(",")]
    if any(_NUMBER.fullmatch(cell) or cell.strip("\"'+-").lower() in _NO_NUMBER for cell in cells):
        return 0  # numbers, whole or broken: the reader of numbers says which
    if all(_NAME.fullmatch(cell) for cell in cells) and len(set(cells)) == len(cells):
        return len(cells)
    raise InvalidInputError(
        f"{place}: {_short(line)} is neither numbers nor names of columns; expected commas between numbers, points in "
        "them, or different names that begin with a letter; mend that line"
    )


def _counts(lines: list[str]) -> bool:
    """Whether a first line counts 0, 1, … over columns that hold fractions: names given by a program."""
    rows = [said.split(",") for said in map(_said, lines[:50]) if said][:2]
    whole = len(rows) == 2 and [cell.strip() for cell in rows[0]] == [str(i) for i in range(len(rows[0]))]
    return whole and len(rows[0]) > 1 and any(not cell.strip().lstrip("+-").isdigit() for cell in rows[1])


def _numbers(lines: list[str], first: int, path: Path, width: int | None) -> FloatArray | None:
    """The numbers of some lines, (r, N); None where they say nothing."""
    if not any(map(_said, lines)):
        return None
    try:
        rows = np.loadtxt(lines, delimiter=",", ndmin=2)
        if width in (None, rows.shape[1]) and np.isfinite(rows).all():
            return rows
    except ValueError:
        pass
    # Something is wrong, or only blanks: line by line it shows where.
    found = []
    for number, line in enumerate(lines, first):
        if not (said := _said(line)):
            continue
        cells = said.split(",")
        for place, cell in enumerate(cells, 1):
            where = f"{path}, line {number}, column {place}"
            if not _NUMBER.fullmatch(cell):
                hint = "write points in numbers and commas between them" if ";" in cell else "mend that line"
                raise InvalidInputError(f"{where}: {_short(cell)}: expected a number such as -1.5e-3; {hint}")
            if not np.isfinite(float(cell)):
                raise InvalidInputError(not_finite(where, float(cell)))
        width = len(cells) if width is None else width
        if len(cells) != width:
            raise ShapeError(
                refusal(f"{path}, line {number}: numbers", len(cells), f"{width} on each line", "mend that line")
            )
        found.append([float(cell) for cell in cells])
    return np.array(found)


def not_finite(place: str, value: float) -> str:
    """Return the refusal of a number that is not finite, or too large."""
    if np.isfinite(value):
        return refusal(place, value, f"numbers of at most {LARGEST:g} in size", "choose larger units")
    return refusal(place, value, "finite numbers", "check the estimator")


def unreadable(path: str | Path, broken: Exception, expected: str) -> str:
    """Return the refusal of a file that cannot be read."""
    why = " ".join(str(broken).split()) or type(broken).__name__
    return f"{path}: cannot be read ({why}); expected {expected}; check the file"


def _short(text: str) -> str:
    shown = repr(text.strip())
    return shown if len(shown) < 60 else f"{shown[:56]}…{shown[0]}"
