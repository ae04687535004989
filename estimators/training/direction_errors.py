"""How far directions are from the truth, run by run."""

from __future__ import annotations

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import ShapeError, refusal

__all__ = ["GRADIENT_COLUMNS", "gradient_errors"]

GRADIENT_COLUMNS = ("cosine", "relative_error")
"""Names of what `gradient_errors` returns."""


@checked
def gradient_errors(direction: FloatArray, truth: FloatArray) -> dict[str, FloatArray]:
    """Return the cosine of directions with the exact hypergradient, and their distance relative to its norm.

    Parameters
    ----------
    direction, truth : (runs, N)
        Unclipped.

    Returns
    -------
    dict
        `cosine` (runs,), 0 where either is zero, and `relative_error` (runs,), where the truth is zero the distance
        itself.

    Raises
    ------
    InvalidInputError, ShapeError
        If they are not finite numbers of one shape.

    Examples
    --------
    >>> found = gradient_errors(np.array([[0.0, 2.0]]), np.array([[0.0, 1.0]]))
    >>> found["cosine"], found["relative_error"]
    (array([1.]), array([1.]))
    """
    if direction.ndim != 2 or truth.shape != direction.shape:
        raise ShapeError(refusal("truth.shape", truth.shape, f"direction's, {direction.shape}, (runs, N)", "one a run"))
    # Row by row sums of fixed order, so that no run depends on the others.
    length, size = _norms(direction), _norms(truth)
    tiny = np.finfo(np.float64).tiny
    cosine = np.einsum(
        "rn,rn->r", direction / np.maximum(length, tiny)[:, None], truth / np.maximum(size, tiny)[:, None]
    )
    distance = _norms(direction - truth)
    relative = distance / np.where(size > 0.0, size, 1.0)
    return {"cosine": np.clip(cosine, -1.0, 1.0), "relative_error": relative}


def _norms(rows: FloatArray) -> FloatArray:
    largest = np.abs(rows).max(axis=1)
    scale = np.where(largest > 0.0, largest, 1.0)  # squares of tiny or huge entries would under- or overflow
    norms: FloatArray = scale * np.sqrt(np.einsum("rn,rn->r", rows / scale[:, None], rows / scale[:, None]))
    return norms
