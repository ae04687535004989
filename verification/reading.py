"""Files and arrays of numbers read as what they are, or refused with the place and what was expected there.

Whatever is not a table of real, finite numbers is refused, never converted: imaginary parts, dates, masks, objects and
fields would be lost. A .csv file is UTF-8 (a byte-order mark is no part of it), with commas between numbers and points
in them; blank lines and what follows a `#` say nothing; its first line may name the columns. Draws may be more than
memory holds: `open_draws` hands them out in blocks, as often as asked.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import BilevelRLError, InvalidInputError, ShapeError, refusal
from bilevelrl.verification.pipeline.jobs import Progress

__all__ = ["Draws", "open_draws", "read_array", "read_text"]

BLOCK_ENTRIES = 2**18
"""Numbers that are worked on at once."""
LARGEST = 1e150
"""Larger draws would overflow when squared."""
_CHUNK = 2**22
_DOUBLE = float(np.finfo(np.float64).eps)
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_NAME = re.compile(r"""["']?(?!\d)([^\W\d]|[^\x00-\x7f])[^,;"']*["']?""")
_NO_NUMBER = frozenset({"na", "n/a", "nan", "inf", "infinity", "nil", "none", "null", "missing", "true", "false"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """Draws (R, N) of an estimator, read block by block.

    Attributes
    ----------
    name : str
        For messages: the argument, or the file.
    count, width : int
        R and N.
    read : function
        (start, stop) → draws (stop − start, N), of any real dtype.
    progress : function or None
        Told after each block.
    epsilon : float
        Unit of the last place of the numbers as they were given.
    """

    name: str
    count: int
    width: int
    read: Callable[[int, int], NDArray[Any]]
    progress: Progress | None = None
    epsilon: float = _DOUBLE

    def blocks(self, label: str = "reading draws") -> Iterator[FloatArray]:
        """Yield all draws in order, as doubles (r, N); may be called again.

        Raises
        ------
        InvalidInputError
            If a draw is not finite, or too large to be squared.
        """
        step = max(1, BLOCK_ENTRIES // self.width)
        for start in range(0, self.count, step):
            stop = min(start + step, self.count)
            with np.errstate(over="ignore"):
                rows = np.asarray(self.read(start, stop), dtype=np.float64)
            bad = ~(np.abs(rows) <= LARGEST)
            if bad.any():
                draw, parameter = (int(i) for i in np.argwhere(bad)[0])
                place, value = f"{self.name}[{start + draw}, {parameter}]", float(rows[draw, parameter])
                raise InvalidInputError(_not_finite(place, value))
            if self.progress is not None:
                self.progress(stop, self.count, label)
            yield rows


@contextmanager
def open_draws(draws: Any, width: int, *, progress: Progress | None = None) -> Iterator[Draws]:
    """Open draws of N = `width` entries, wherever they are.

    Parameters
    ----------
    draws
        An array (R, N) or what converts to one; the path of a .csv (one draw per line), .npy, or .npz file with one
        array; or an iterator over blocks (r, N). A .csv file and an iterator are read once and kept in a temporary
        file, a .npy file is read where it lies.
    width
        N.
    progress
        Told after each block.

    Raises
    ------
    ShapeError
        If there are fewer than four draws, or they have another width.
    InvalidInputError
        If a file cannot be read, or something is not a real, finite number.

    Examples
    --------
    >>> with open_draws(iter([np.ones((3, 2)), np.zeros((1, 2))]), 2) as found:
    ...     found.count, [rows.shape for rows in found.blocks()]
    (4, [(4, 2)])
    """
    if isinstance(draws, (str, os.PathLike)):
        path = Path(draws)
        if _suffix(path, "draws") == ".csv":
            with _spooled(_csv_blocks(path, width, progress), str(path), width, progress) as kept:
                yield kept
            return
        whole: NDArray[Any] | None = _load(path)
        count = _checked_shape(np.asarray(whole), str(path), width).shape[0]
        if isinstance(whole, np.memmap):
            whole = None  # mapped anew for each block, so that pages that were read do not add up

        def read(start: int, stop: int) -> NDArray[Any]:
            return _columns(_load(path) if whole is None else whole, width)[start:stop]

        epsilon = _epsilon(_load(path))
        yield Draws(name=str(path), count=count, width=width, read=read, progress=progress, epsilon=epsilon)
    elif isinstance(draws, Iterator):
        epsilons = [_DOUBLE]

        def pieces() -> Iterator[FloatArray]:
            for place, piece in enumerate(draws):
                rows = _block(piece, place, width)
                epsilons.append(_epsilon(rows))
                yield rows.astype(np.float64)

        with _spooled(pieces(), "draws", width, progress) as kept:
            yield replace(kept, epsilon=max(epsilons))
    else:
        rows = _checked_shape(real_array(draws, "draws"), "draws", width)
        yield Draws(
            name="draws",
            count=rows.shape[0],
            width=width,
            read=lambda start, stop: rows[start:stop],
            progress=progress,
            epsilon=_epsilon(rows),
        )


def read_array(path: str | Path, name: str = "draws") -> FloatArray:
    """Read a .csv, .npy, or .npz file with one array, whole; a .csv file gives two axes.

    Raises
    ------
    InvalidInputError
        If the file cannot be read, or something in it is not a real, finite number.
    """
    file = Path(path)
    if _suffix(file, name) == ".csv":
        return np.concatenate(list(_csv_blocks(file, None, None)))
    with np.errstate(over="ignore"):
        found = np.array(_load(file), dtype=np.float64)
    if not np.isfinite(found).all():
        place = np.argwhere(~np.isfinite(found))[0].tolist()
        raise InvalidInputError(_not_finite(f"{file}{place}", float(found[tuple(place)])))
    return found


def read_text(path: str | Path) -> str:
    """Read a text file in UTF-8, with or without a byte-order mark.

    Raises
    ------
    InvalidInputError
        If it cannot be read, or is in another encoding.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as broken:
        raise InvalidInputError(_unreadable(path, broken, "a text file in UTF-8")) from None


def real_array(values: Any, name: str) -> NDArray[Any]:
    """Return an array of integers or real floats, of any shape and not copied.

    Raises
    ------
    InvalidInputError
        If it is complex, masked, of dates, truth values, texts, objects or fields, or converts to no array.

    Examples
    --------
    >>> real_array(np.ma.masked_less([1.0, -1.0], 0.0), "draws")
    Traceback (most recent call last):
        ...
    bilevelrl.reference.errors.InvalidInputError: draws: 1 of 2 entries are masked; expected numbers only; ...
    """
    masks = values if isinstance(values, (list, tuple)) else (values,)
    if any(np.ma.is_masked(part) for part in masks):
        hidden = sum(int(np.ma.getmaskarray(part).sum()) for part in masks)
        every = sum(int(np.size(part)) for part in masks)
        raise InvalidInputError(
            f"{name}: {hidden} of {every} entries are masked; expected numbers only; leave out the rows you do not want"
        )
    try:
        found = np.asarray(values)
    except Exception as broken:  # arrays of other libraries raise what they like
        raise ShapeError(
            f"{name}: a {type(values).__name__} does not convert to an array ({broken}); expected numbers, one row per "
            "draw; convert it to NumPy"
        ) from None
    if found.dtype.kind not in "fiu":
        hint = {
            "c": "check the imaginary parts, then pass the real ones",
            "O": "pass an array of floats; rows of different lengths make objects",
            "V": "pass the fields as columns",
        }
        raise InvalidInputError(
            refusal(f"{name}.dtype", str(found.dtype), "real numbers", hint.get(found.dtype.kind, "convert them"))
        )
    return found


def _checked_shape(found: NDArray[Any], name: str, width: int) -> NDArray[Any]:
    rows = _columns(found, width)
    if rows.ndim != 2 or rows.shape[1] != width or rows.shape[0] < 4:
        hint = "one independent estimate per row; a mean of them cannot be judged"
        raise ShapeError(refusal(f"{name}.shape", found.shape, f"(R, {width}) with R >= 4", hint))
    return rows


def _columns(found: NDArray[Any], width: int) -> NDArray[Any]:
    return found[:, None] if found.ndim == 1 and width == 1 else found


def _epsilon(found: NDArray[Any]) -> float:
    return max(_DOUBLE, float(np.finfo(found.dtype).eps)) if found.dtype.kind == "f" else _DOUBLE


def _block(piece: Any, place: int, width: int) -> NDArray[Any]:
    rows = _columns(real_array(piece, f"draws, block {place}"), width)
    if rows.ndim != 2 or rows.shape[1] != width:
        raise ShapeError(refusal(f"draws, block {place}: shape", rows.shape, f"(r, {width})", "one draw per row"))
    return rows


@contextmanager
def _spooled(pieces: Iterator[FloatArray], name: str, width: int, progress: Progress | None) -> Iterator[Draws]:
    """Keep blocks that come once in a temporary file, from which they can be read again."""
    with tempfile.TemporaryFile() as file:
        count = 0
        for rows in pieces:
            try:
                np.ascontiguousarray(rows, dtype=np.float64).tofile(file)
            except OSError as full:
                raise InvalidInputError(
                    f"{name}: no room for a temporary copy ({full}); expected as much space as the draws take in "
                    f"{tempfile.gettempdir()}; set TMPDIR, or save them as .npy, which is read where it lies"
                ) from None
            count += rows.shape[0]
        if count < 4:
            raise ShapeError(refusal(f"{name}: draws", count, "4 or more", "one independent estimate per row"))
        file.flush()

        def read(start: int, stop: int) -> FloatArray:
            file.seek(start * width * 8)
            return np.fromfile(file, dtype=np.float64, count=(stop - start) * width).reshape(-1, width)

        yield Draws(name=name, count=count, width=width, read=read, progress=progress)


def _suffix(path: Path, name: str) -> str:
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".npy", ".npz"):
        raise InvalidInputError(refusal(name, str(path), "a .csv, .npy or .npz file", "name the file so"))
    return suffix


def _load(path: Path) -> NDArray[Any]:
    """The array of a .npy file, mapped, or the only one of a .npz file, loaded."""
    try:
        with path.open("rb") as file:
            if file.read(2) != b"PK":
                found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
            else:
                file.seek(0)
                archive: NpzFile = np.load(file, allow_pickle=False)
                if len(archive.files) != 1:
                    raise InvalidInputError(
                        f"{path}: holds {len(archive.files)} arrays {archive.files[:5]}; expected one; save it alone"
                    )
                found = archive[archive.files[0]]
    except BilevelRLError:
        raise
    except Exception as broken:  # a broken archive fails in whichever library meets it first
        raise InvalidInputError(_unreadable(path, broken, "one array of numbers, as numpy.save writes it")) from None
    real_array(found, str(path))
    return found


def _csv_blocks(path: Path, width: int | None, progress: Progress | None) -> Iterator[FloatArray]:
    """The numbers of a .csv file, as many lines at once as make a few megabytes."""
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
        raise InvalidInputError(_unreadable(path, broken, "lines of numbers in UTF-8, with commas between")) from None
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
                raise InvalidInputError(_not_finite(where, float(cell)))
        width = len(cells) if width is None else width
        if len(cells) != width:
            raise ShapeError(
                refusal(f"{path}, line {number}: numbers", len(cells), f"{width} on each line", "mend that line")
            )
        found.append([float(cell) for cell in cells])
    return np.array(found)


def _not_finite(place: str, value: float) -> str:
    if np.isfinite(value):
        return refusal(place, value, f"numbers of at most {LARGEST:g} in size", "choose larger units")
    return refusal(place, value, "finite numbers", "check the estimator")


def _unreadable(path: str | Path, broken: Exception, expected: str) -> str:
    why = " ".join(str(broken).split()) or type(broken).__name__
    return f"{path}: cannot be read ({why}); expected {expected}; check the file"


def _short(text: str) -> str:
    shown = repr(text.strip())
    return shown if len(shown) < 60 else f"{shown[:56]}…{shown[0]}"
