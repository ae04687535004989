"""Random streams by name: a run's numbers depend on its own names and on the root entropy, on nothing else."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.random import Generator, SeedSequence

from bilevelrl.reference.doors import Seed, checked
from bilevelrl.reference.errors import InvalidInputError, refusal

__all__ = ["named_stream"]


@checked
def named_stream(entropy: Seed, *names: str | int) -> Generator:
    """Return the generator that belongs to a sequence of names.

    Parameters
    ----------
    entropy
        Root entropy, stored with the results.
    names
        What the stream is for, e.g. ("four_rooms", "bc_hg", 3). Other names give independent streams, so that adding
        a run changes no other run.

    Examples
    --------
    >>> a = named_stream(7, "task", "estimator", 0).random()
    >>> b = named_stream(7, "task", "estimator", 0).random()
    >>> c = named_stream(7, "task", "estimator", 1).random()
    >>> a == b, a == c
    (True, False)
    """
    for name in names:
        if not isinstance(name, (str, int)):
            raise InvalidInputError(refusal("names", name, "strings and integers", "name what the stream is for"))
    digest = hashlib.sha256("\x1f".join(f"{type(n).__name__}:{n}" for n in names).encode()).digest()
    key = tuple(int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4))
    return np.random.default_rng(SeedSequence(entropy=entropy, spawn_key=key))
