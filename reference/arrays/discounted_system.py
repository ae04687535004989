"""Linear systems `(I - γ C) x = b` of a process that moves by C, as several routes solve them; no Bellman code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg.lapack import dgetrf, dgetrs

from bilevelrl.reference.arrays import FloatArray, IntArray
from bilevelrl.reference.errors import IllPosedError, refusal

__all__ = ["FactorisedSystem", "solve_discounted"]


@dataclass(frozen=True, slots=True)
class FactorisedSystem:
    """`I - γ C` factorised, for any number of solves.

    Rows of the matrix are diagonally dominant, so columns of its transpose are, and elimination of the transpose leaves
    every pivot where it stands. Elimination of the matrix itself exchanges rows, and then 10^12 in a state that nobody
    reaches leaves 10^-5 in the others.

    Examples
    --------
    >>> system = FactorisedSystem.of(np.array([[0.5, 0.0], [0.5, 0.5]]), 0.8)
    >>> system.solve(np.array([3.0, 1e12]))[0] == 3.0 / 0.6
    np.True_
    """

    norm: float
    factors: FloatArray
    pivots: IntArray

    @classmethod
    def of(cls, chain: FloatArray, discount: float) -> FactorisedSystem:
        """Factorise for C (n, n) with rows ≥ 0 that sum to at most one, and γ in [0, 1).

        Raises
        ------
        IllPosedError
            If the matrix is singular.
        """
        matrix = np.eye(len(chain)) - discount * chain
        factors, pivots, zero_pivot = dgetrf(matrix.T)
        if zero_pivot:
            remedy = "discount below one"
            raise IllPosedError(refusal("I - γ C", f"pivot {zero_pivot} is zero", "a regular matrix", remedy))
        return cls(float(np.abs(matrix).sum(axis=1).max()), factors, pivots)

    def solve(self, right: FloatArray) -> FloatArray:
        """Return `(I - γ C)^{-1} b` for b (n,) or (n, K)."""
        solved: FloatArray = dgetrs(self.factors, self.pivots, right, trans=1)[0]
        return solved.reshape(np.shape(right))

    def solve_transposed(self, right: FloatArray) -> FloatArray:
        """Return `(I - γ Cᵀ)^{-1} b` for b (n,) or (n, K)."""
        solved: FloatArray = dgetrs(self.factors, self.pivots, right, trans=0)[0]
        return solved.reshape(np.shape(right))

    def condition(self) -> float:
        """Return the condition number in the maximum norm; exact, because the inverse has no negative entry."""
        return self.norm * float(self.solve(np.ones(len(self.factors))).max())


def solve_discounted(chain: FloatArray, discount: float, right: FloatArray) -> FloatArray:
    """Return `(I - γ C)^{-1} b`; see `FactorisedSystem`.

    Examples
    --------
    >>> solve_discounted(np.array([[0.5, 0.0], [0.5, 0.5]]), 0.8, np.array([3.0, 1e12]))[0] == 3.0 / 0.6
    np.True_
    """
    return FactorisedSystem.of(chain, discount).solve(right)
