"""Files and arrays of numbers read as what they are, or refused with the place and what was expected there.

Whatever is not a table of real, finite numbers is refused, never converted: imaginary parts, dates, masks, objects and
fields would be lost. Draws may be more than memory holds: `open_draws` hands them out in blocks, as often as asked.
"""

from __future__ import annotations

import os
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
from bilevelrl.verification.processes.jobs import Progress
from bilevelrl.verification.reading.csv_numbers import LARGEST, csv_blocks, not_finite, unreadable

__all__ = ["Draws", "open_draws", "read_array", "read_text"]

BLOCK_ENTRIES = 2**18
"""Numbers that are worked on at once."""
_DOUBLE = float(np.finfo(np.float64).eps)


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
                raise InvalidInputError(not_finite(place, value))
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
            with _spooled(csv_blocks(path, width, progress), str(path), width, progress) as kept:
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
        return np.concatenate(list(csv_blocks(file, None, None)))
    with np.errstate(over="ignore"):
        found = np.array(_load(file), dtype=np.float64)
    if not np.isfinite(found).all():
        place = np.argwhere(~np.isfinite(found))[0].tolist()
        raise InvalidInputError(not_finite(f"{file}{place}", float(found[tuple(place)])))
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
        raise InvalidInputError(unreadable(path, broken, "a text file in UTF-8")) from None


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
        raise InvalidInputError(unreadable(path, broken, "one array of numbers, as numpy.save writes it")) from None
    real_array(found, str(path))
    return found
