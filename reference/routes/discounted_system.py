"""Linear systems `(I - γ C) x = b` of a process that moves by C, as several routes solve them; no Bellman code."""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import dgetrf, dgetrs

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import IllPosedError, refusal

__all__ = ["solve_discounted"]


def solve_discounted(chain: FloatArray, discount: float, right: FloatArray) -> FloatArray:
    """Return `(I - γ C)^{-1} b`, in which what a row does not reach leaves no rounding.

    Rows of the matrix are diagonally dominant, so columns of its transpose are, and elimination of the transpose leaves
    every pivot where it stands. Elimination of the matrix itself exchanges rows, and then 10^12 in a state that nobody
    reaches leaves 10^-5 in the others.

    Parameters
    ----------
    chain, discount
        C (n, n) with rows ≥ 0 that sum to at most one, and γ in [0, 1).
    right
        b, (n,) or (n, K).

    Raises
    ------
    IllPosedError
        If the matrix is singular.

    Examples
    --------
    >>> solve_discounted(np.array([[0.5, 0.0], [0.5, 0.5]]), 0.8, np.array([3.0, 1e12]))[0] == 3.0 / 0.6
    np.True_
    """
    factors, pivots, zero_pivot = dgetrf((np.eye(len(chain)) - discount * chain).T)
    if zero_pivot:
        remedy = "discount below one"
        raise IllPosedError(refusal("I - γ C", f"pivot {zero_pivot} is zero", "a regular matrix", remedy))
    solved: FloatArray = dgetrs(factors, pivots, right, trans=1)[0]
    return solved.reshape(np.shape(right))
