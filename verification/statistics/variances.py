"""Variances as means: one square per pair of draws, so that every test of means is a test of variances."""

from __future__ import annotations

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import ShapeError, refusal

__all__ = ["paired_squares"]


@checked
def paired_squares(rows: FloatArray) -> FloatArray:
    """Return one unbiased estimate of each variance per pair of draws, `½ (X - X')²`.

    For independent X, X' of the same distribution its expectation is the variance exactly, and its own variance
    `½ (m + σ⁴)` with m the fourth central moment: for Gaussian draws 2σ⁴, twice what the sample variance needs. What
    that buys is that no variance of a variance has to be guessed.

    Parameters
    ----------
    rows : (n, K)
        Independent draws; an odd last one is not used.

    Returns
    -------
    (⌊n/2⌋, K)

    Raises
    ------
    ShapeError
        If there are fewer than four draws.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevelrl.verification.statistics.means import mean_test
    >>> rows = np.random.default_rng(0).exponential(size=(60_000, 1))
    >>> [mean_test(paired_squares(rows), np.array([v])).rejected.tolist() for v in (1.0, 1.2)]
    [[False], [True]]
    """
    if rows.ndim != 2 or rows.shape[0] < 4:
        raise ShapeError(refusal("rows.shape", rows.shape, "(n, K) with n >= 4", "draw more replicates"))
    pairs = rows.shape[0] // 2
    squares: FloatArray = 0.5 * (rows[:pairs] - rows[pairs : 2 * pairs]) ** 2
    return squares
