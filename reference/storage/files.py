"""Results on disk: whole or not at all, in folders that one process writes at a time, with the software that made them.

A file is written beside its place, flushed to disk, and then renamed onto it: an interruption at any moment, or a full
disk, leaves the previous one as it was.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import platform
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import IO, TypeAlias

from bilevelrl.reference.errors import InvalidInputError, StorageError, refusal

__all__ = ["Content", "csv_text", "locked", "software_versions", "writable_file", "writable_folder", "write_atomically"]

Content: TypeAlias = bytes | str | Callable[[IO[bytes]], object]
"""Of a file: its bytes, its text in UTF-8, or a function that writes into an open file."""


def write_atomically(path: str | Path, content: Content) -> Path:
    """Write a file that appears whole or not at all, and return its path.

    Folders are made where they are missing. A link is followed, and what is no file, `/dev/stdout` say, is written to.

    Raises
    ------
    StorageError
        If the disk is full or the folder cannot be written; an older file of that name is untouched.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_atomically(Path(folder) / "a.txt", "whole")
    ...     path.read_bytes(), len(list(Path(folder).iterdir()))
    (b'whole', 1)
    """
    given = Path(path)
    beside: Path | None = None
    try:
        if given.exists() and not given.is_file() and not given.is_dir():
            with given.open("wb") as file:
                _fill(file, content)
            return given
        target = Path(os.path.realpath(given))
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = _beside(target)
        with beside.open("wb") as file:
            _fill(file, content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except BaseException as failed:
        if beside is not None:
            with contextlib.suppress(OSError):
                beside.unlink()
        if isinstance(failed, OSError) and not isinstance(failed, StorageError):
            raise StorageError(
                f"{given}: cannot be written ({failed.strerror or failed}); earlier results are untouched, "
                "free space or choose another folder and start again to continue"
            ) from failed
        raise
    return given


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Return rows as the text of a table with commas, one per line; the first may be the names.

    Examples
    --------
    >>> csv_text([("a", "b"), (1, 0.5)]).splitlines()
    ['a,b', '1,0.5']
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def writable_file(argument: str, path: str | Path) -> Path:
    """Return the path of a file that can be written, with its folder made; ask before the work, not after it.

    Raises
    ------
    InvalidInputError
        If it cannot be.

    Examples
    --------
    >>> writable_file("--output", "/proc/none/report.html")
    Traceback (most recent call last):
        ...
    bilevelrl.reference.errors.InvalidInputError: --output='/proc/none/report.html': expected a file that can be ...
    """
    file = Path(path)
    try:
        if file.is_dir() or not file.name:
            raise IsADirectoryError("it is a folder")
        if not file.exists() or file.is_file():
            _try_out(Path(os.path.realpath(file)))
    except (OSError, ValueError) as broken:
        raise InvalidInputError(_unwritable(argument, path, "a file", broken)) from None
    return file


def writable_folder(argument: str, path: str | Path) -> Path:
    """Return the path of a folder that files can be written to, made where it is missing.

    Raises
    ------
    InvalidInputError
        If it cannot be.
    """
    folder = Path(path)
    try:
        _try_out(folder / "new")
    except (OSError, ValueError) as broken:
        raise InvalidInputError(_unwritable(argument, path, "a folder", broken)) from None
    return folder


@contextlib.contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Keep other processes out of a folder; the lock ends with the process, however it ends.

    Raises
    ------
    StorageError
        If another process is at work in the folder, or it cannot be locked.
    """
    import fcntl  # not on every system, and nothing else here needs it

    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        file = (place / ".lock").open("a+", encoding="utf-8")
    except OSError as broken:
        raise StorageError(f"{place}: cannot be written ({broken.strerror or broken}); choose another folder") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            other = file.read().strip() or "of an unknown number"
            raise StorageError(
                f"{place}: process {other} is at work there; wait until it ends, end it, or choose another folder"
            ) from None
        except OSError as broken:
            raise StorageError(
                f"{place}: cannot be locked ({broken.strerror or broken}); choose a folder on a local disk"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def software_versions() -> dict[str, str]:
    """Return the versions that a result depends on.

    Examples
    --------
    >>> sorted(software_versions())
    ['autograd', 'bilevelrl', 'machine', 'numpy', 'python', 'scipy']
    """
    packages = {name: metadata.version(name) for name in ("bilevelrl", "numpy", "scipy", "autograd")}
    return {"python": platform.python_version(), "machine": platform.machine(), **packages}


def _fill(file: IO[bytes], content: Content) -> None:
    if callable(content):
        content(file)
    else:
        file.write(content.encode() if isinstance(content, str) else content)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _try_out(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = _beside(path)
    beside.touch()
    beside.unlink()


def _unwritable(argument: str, path: str | Path, what: str, broken: Exception) -> str:
    reason = getattr(broken, "strerror", None) or broken
    return refusal(argument, str(path), f"{what} that can be written ({reason})", "choose another place")
