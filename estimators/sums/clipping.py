"""Shortening of rows to a largest norm, whole or block by block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from bilevelrl.reference.arrays import FloatArray, check_positive
from bilevelrl.reference.errors import InvalidInputError, refusal

__all__ = ["LargestNorm", "check_positive_or_infinite", "clip_to_norm"]


def clip_to_norm(gradients: FloatArray, largest: float, blocks: Sequence[int] = ()) -> FloatArray:
    """Return each row shortened to a Euclidean norm of at most `largest`.

    Parameters
    ----------
    gradients : (runs, N)
        One gradient per run.
    largest
        Infinity leaves all as they are.
    blocks
        Sizes of blocks of columns that are shortened one by one; empty: rows as a whole.

    Raises
    ------
    InvalidInputError
        If `largest` is not positive, or the blocks do not add up to N.

    Examples
    --------
    >>> clip_to_norm(np.array([[3.0, 4.0], [0.3, 0.4]]), 1.0)
    array([[0.6, 0.8],
           [0.3, 0.4]])
    >>> clip_to_norm(np.array([[3.0, 4.0]]), 1.0, blocks=(1, 1))
    array([[1., 1.]])
    """
    check_positive_or_infinite("largest norm", largest)
    if blocks:
        if sum(blocks) != gradients.shape[1]:
            raise InvalidInputError(
                refusal("clip_blocks", tuple(blocks), f"sizes that add up to {gradients.shape[1]}", "count θ's entries")
            )
        parts = np.split(gradients, np.cumsum(blocks)[:-1], axis=1)
        return np.concatenate([clip_to_norm(part, largest) for part in parts], axis=1)
    norm = np.sqrt(np.einsum("rn,rn->r", gradients, gradients))
    with np.errstate(divide="ignore"):
        factor = np.minimum(1.0, largest / norm)
    return gradients * np.where(norm > 0.0, factor, 1.0)[:, None]


def check_positive_or_infinite(name: str, value: object) -> float:
    """Return a number > 0, which may be infinite, or raise `InvalidInputError`."""
    unlimited = isinstance(value, float) and value == np.inf
    return np.inf if unlimited else check_positive(name, value, "pass numpy.inf for no limit")


LargestNorm = Annotated[float, check_positive_or_infinite]
"""A number > 0, or infinity: no limit."""
