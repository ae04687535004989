"""Mean cosine of single estimates with a direction, with an interval that needs no limit theorem."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.verification.statistics.bounded import BoundedDesign
from bilevelrl.verification.statistics.stream import SampleMoments

__all__ = ["CosineInterval", "cosine_interval", "cosine_interval_of", "cosines"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CosineInterval:
    """Mean cosine between single estimates and the truth, with a confidence interval.

    Attributes
    ----------
    mean, low, high : float
        All in [−1, 1]. An estimate that is exactly zero counts as cosine 0.
    """

    mean: float
    low: float
    high: float


def cosine_interval(rows: FloatArray, truth: FloatArray, *, error_rate: float = 0.05) -> CosineInterval:
    """Return the mean cosine of the rows (n, N) with a direction, and an interval that holds at every n.

    That of `BoundedDesign` for values in [−1, 1].

    Examples
    --------
    >>> cosine_interval(np.ones((100, 2)), np.array([1.0, 0.0])).mean.__round__(4)
    0.7071
    """
    return cosine_interval_of(SampleMoments.of(cosines(rows, truth)), error_rate=error_rate)


def cosine_interval_of(sample: SampleMoments, *, error_rate: float = 0.05) -> CosineInterval:
    """Return the interval of `cosine_interval` from the moments of one column of `cosines`."""
    design = BoundedDesign(error_rate=error_rate, low=-1.0, high=1.0)
    half = float(design.half_width(sample.draws, sample.standard_deviation[0]))
    mean = float(sample.mean[0])
    return CosineInterval(mean=mean, low=max(-1.0, mean - half), high=min(1.0, mean + half))


def cosines(rows: FloatArray, truth: FloatArray) -> FloatArray:
    """Return the cosine of each row (n, N) with a direction (N,), as a column (n, 1); zero where either is zero."""
    # A power of two per row and of the truth takes their size away without rounding: squares keep within range.
    unit = np.ldexp(rows, -np.frexp(np.abs(rows).max(axis=1, keepdims=True))[1])
    along = np.ldexp(truth, -np.frexp(np.abs(truth).max())[1])
    lengths = np.sqrt(np.einsum("ij,ij->i", unit, unit)) * float(np.linalg.norm(along))
    found: FloatArray = np.divide(unit @ along, lengths, out=np.zeros(len(rows)), where=lengths > 0.0)
    return found[:, None]
