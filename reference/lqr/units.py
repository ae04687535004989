"""Units of linear-quadratic problems: what can be solved, and what comes out, depends on none.

Costs in other money and actions in other units are the same problem. Equations are solved in units in which nothing is
large or small, powers of two, and matrices are called singular by their directions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilevelrl.reference.arrays import FloatArray, Traced
from bilevelrl.reference.errors import IllPosedError

__all__ = ["Units", "check_follower_problem", "smallest_direction", "symmetric"]


def symmetric(matrix: Traced) -> Traced:
    """Return the symmetric part of the last two axes."""
    return 0.5 * (matrix + np.swapaxes(matrix, -1, -2))


def smallest_direction(matrix: FloatArray) -> float:
    """Return the smallest eigenvalue of a symmetric matrix in units in which its diagonal is one.

    Not positive where the matrix is not definite; rounding makes of a singular one any value below 1e-12 or so.

    Examples
    --------
    >>> round(smallest_direction(np.array([[1.0, 0.5e-9], [0.5e-9, 1e-18]])), 6)
    0.5
    """
    diagonal = np.diagonal(matrix)
    if not (diagonal > 0.0).all():
        return float(diagonal.min())
    units = np.sqrt(diagonal)
    return float(np.linalg.eigvalsh(symmetric(matrix / units / units[:, None]))[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """Powers of two (): of costs, and (m,): of the actions, in which no cost and no column of B is large or small.

    Without them an answer, and whether there is one, would depend on the units in which a problem is written.
    """

    money: Traced
    control: Traced

    @classmethod
    def of(cls, b: FloatArray, q: FloatArray, r: FloatArray) -> Units:
        """Return the units for a system's B, Q and R."""
        control = _reciprocal_power(np.abs(b).max(axis=0))
        costs = np.concatenate([q.ravel(), (r * control[:, None] * control).ravel()])
        return cls(money=_reciprocal_power(np.abs(costs).max()), control=control)


def _reciprocal_power(size: Traced) -> Traced:
    """Return the power of two that brings sizes into [½, 1); one for zero."""
    return np.where(size > 0.0, np.ldexp(1.0, -np.clip(np.frexp(size)[1], -1000, 1000)), 1.0)


def check_follower_problem(a: FloatArray, b: FloatArray, q: FloatArray, discount: float) -> None:
    """Refuse pairs that no feedback stabilises, and unstable modes that the cost does not see.

    Popov-Belevitch-Hautus: at every eigenvalue λ of √γ A with |λ| ≥ 1, `[λI - √γ A, √γ B]` and `[λI - √γ A; Q]` must
    have full rank.

    Raises
    ------
    IllPosedError
        Naming the eigenvalue.
    """
    root = np.sqrt(discount)
    eigenvalues = np.linalg.eigvals(root * a)
    identity = np.eye(a.shape[0])
    scale = max(1.0, float(np.abs(a).max(initial=0.0)))
    # A column of B counts by its direction, not by its unit; so do the costs.
    columns = b * (scale * _reciprocal_power(np.abs(b).max(axis=0)))
    costs = q * (scale * _reciprocal_power(np.abs(q).max()))
    for eigenvalue in eigenvalues[np.abs(eigenvalues) >= 1.0 - 1e-12]:
        shifted = eigenvalue * identity - root * a
        for name, pair in (
            ("stabilised (A, B)", np.hstack([shifted, root * columns])),
            ("detected (A, Q)", np.vstack([shifted, costs])),
        ):
            if np.linalg.svd(pair, compute_uv=False).min() <= 1e-10 * scale:
                raise IllPosedError(
                    f"eigenvalue {complex(eigenvalue):.6g} of sqrt(discount_follower) * A: expected a pair that can be "
                    f"{name}; the follower's optimal cost is not a stabilising Riccati solution: "
                    "let B or Q reach this mode, or discount more"
                )
