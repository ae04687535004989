"""Checkpoints that are there whole or not at all, and that know which training they belong to."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import InvalidInputError, StorageError
from bilevelrl.reference.storage import software_versions, write_atomically

__all__ = ["group", "join_groups", "load_checkpoint", "save_checkpoint"]


def join_groups(groups: Mapping[str, Mapping[str, FloatArray]]) -> dict[str, FloatArray]:
    """Return arrays of several groups as one mapping, named `group.name`.

    Examples
    --------
    >>> list(join_groups({"world": {"tables": np.zeros(1)}}))
    ['world.tables']
    """
    return {f"{own}.{name}": array for own, named in groups.items() for name, array in named.items()}


def group(arrays: Mapping[str, FloatArray], own: str) -> dict[str, FloatArray]:
    """Return the arrays of one group of `join_groups`."""
    prefix = f"{own}."
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


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
    record = {"fingerprint": fingerprint, "iteration": iteration, "generators": states, "versions": software_versions()}
    content = io.BytesIO()
    members: dict[str, Any] = {**arrays, "header": np.array(json.dumps(record))}
    np.savez(content, **members)
    write_atomically(path, content.getvalue())


def load_checkpoint(path: Path, *, fingerprint: str) -> tuple[int, dict[str, FloatArray], dict[str, Any]]:
    """Return iteration, arrays and the states of generators of a stored training.

    A checkpoint of before versions were recorded is taken as it is.

    Raises
    ------
    StorageError
        If the file is damaged.
    InvalidInputError
        If it belongs to another training, or was made by other versions: what continues it would be of neither.
    """
    try:
        with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        header = json.loads(str(arrays.pop("header")))
        found, iteration, states = header["fingerprint"], int(header["iteration"]), header["generators"]
    except (OSError, ValueError, KeyError, TypeError, EOFError, RecursionError, zipfile.BadZipFile) as broken:
        raise StorageError(
            f"{path}: not a whole checkpoint ({broken}); remove it to start this training anew"
        ) from None
    if found != fingerprint:
        raise InvalidInputError(
            f"{path}: checkpoint of another configuration ({found[:12]}, this one is {fingerprint[:12]}); "
            "use another file, or the configuration that it was made with"
        )
    now, before = software_versions(), header.get("versions", {})
    if changed := [f"{name} {before[name]} (now {now.get(name)})" for name in before if before[name] != now.get(name)]:
        raise InvalidInputError(
            f"{path}: checkpoint of other software: {', '.join(changed)}; remove it to start this training anew, or "
            "install what it was made with"
        )
    return iteration, arrays, states
