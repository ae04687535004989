"""Checkpoints that are there whole or not at all, and that know which training they belong to.

A checkpoint is written beside its place, flushed to disk, and then renamed onto it: an interruption at any moment, or a
full disk, leaves the previous one as it was.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import BilevelRLError, InvalidInputError

__all__ = ["StorageError", "load_checkpoint", "save_checkpoint", "write_atomically"]


class StorageError(BilevelRLError, OSError):
    """A result could not be written or read; what was there before is still there."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all.

    Raises
    ------
    StorageError
        If the disk is full or the folder cannot be written; an older file of that name is untouched.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomically(Path(folder) / "a.txt", b"whole")
    ...     (Path(folder) / "a.txt").read_bytes(), len(list(Path(folder).iterdir()))
    (b'whole', 1)
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as failed:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise StorageError(
            f"{path}: cannot be written ({failed.strerror or failed}); earlier results are untouched, "
            "free space or choose another folder and start again to continue"
        ) from failed


def save_checkpoint(
    path: Path,
    *,
    fingerprint: str,
    iteration: int,
    arrays: Mapping[str, FloatArray],
    generators: Mapping[str, Generator],
) -> None:
    """Store the state of a training.

    Parameters
    ----------
    path
        The file, `.npz`.
    fingerprint
        Of the training, `Training.fingerprint`.
    iteration
        The next outer iteration.
    arrays
        Everything numerical.
    generators
        Random streams, by name.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    states = {name: rng.bit_generator.state for name, rng in generators.items()}
    header = json.dumps({"fingerprint": fingerprint, "iteration": iteration, "generators": states})
    content = io.BytesIO()
    members: dict[str, Any] = {**arrays, "header": np.array(header)}
    np.savez(content, **members)
    write_atomically(path, content.getvalue())


def load_checkpoint(path: Path, *, fingerprint: str) -> tuple[int, dict[str, FloatArray], dict[str, Any]]:
    """Return iteration, arrays and the states of generators of a stored training.

    Raises
    ------
    StorageError
        If the file is damaged.
    InvalidInputError
        If it belongs to another training.
    """
    try:
        with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        header = json.loads(str(arrays.pop("header")))
        found, iteration, states = header["fingerprint"], int(header["iteration"]), header["generators"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as broken:
        raise StorageError(
            f"{path}: not a whole checkpoint ({broken}); remove it to start this training anew"
        ) from None
    if found != fingerprint:
        raise InvalidInputError(
            f"{path}: checkpoint of another configuration ({found[:12]}, this one is {fingerprint[:12]}); "
            "use another file, or the configuration that it was made with"
        )
    return iteration, arrays, states
