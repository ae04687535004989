"""Derivatives of the solutions of Riccati and Lyapunov equations, as functions that autograd can differentiate.

Each derivative has two derivations: forward, one Lyapunov equation per direction; and adjoint, one for all of them,

    dP = γ A_c' dP A_c + F,                                                                                     (1)
    F  = dQ + K'dR K + γ (dA - dB K)' P A_c + γ A_c' P (dA - dB K),    K = G A,                                 (2)
    Λ  = P̄ + γ A_c Λ A_c',    ⟨P̄, dP⟩ = ⟨Λ, F⟩.                                                               (3)
"""

from __future__ import annotations

import numpy as np
from autograd.extend import defjvp_argnums, defvjp_argnums, primitive

from bilevelrl.reference.arrays import Traced
from bilevelrl.reference.lqr.solvers import (
    EquationSolver,
    discounted_lyapunov,
    riccati_backup,
    solve_riccati,
    symmetric,
)

__all__ = ["lyapunov_primitive", "recurrence_primitive", "riccati_primitive"]


@primitive
def riccati_primitive(
    a: Traced, b: Traced, q: Traced, r: Traced, discount: float, method: EquationSolver = "doubling"
) -> Traced:
    """Return P for autograd, by the adjoint and the forward derivation above; see `solve_riccati`."""
    return solve_riccati(a, b, q, r, discount, method=method).cost_to_go


def _riccati_vjp(argnums: Traced, ans: Traced, args: Traced, kwargs: Traced) -> Traced:
    a, b, q, r, discount = args[:5]
    _, _, reaction = riccati_backup(ans, a, b, q, r, discount)
    gain = reaction @ a
    closed_loop = a - b @ gain

    def pull(cotangent: Traced) -> tuple[Traced, ...]:
        weight = discounted_lyapunov(closed_loop.T, symmetric(np.asarray(cotangent)), discount)  # (3)
        through = 2.0 * discount * ans @ closed_loop @ weight
        by_argument = (through, -through @ gain.T, weight, gain @ weight @ gain.T)
        return tuple(by_argument[argnum] for argnum in argnums)

    return pull


def _riccati_jvp(argnums: Traced, tangents: Traced, ans: Traced, args: Traced, kwargs: Traced) -> Traced:
    a, b, q, r, discount = args[:5]
    _, _, reaction = riccati_backup(ans, a, b, q, r, discount)
    gain = reaction @ a
    closed_loop = a - b @ gain
    moved = dict(zip(argnums, tangents, strict=True))
    drift = moved.get(0, 0.0 * a) - moved.get(1, 0.0 * b) @ gain
    half = discount * closed_loop.T @ ans @ drift
    forcing = moved.get(2, 0.0 * q) + gain.T @ moved.get(3, 0.0 * r) @ gain + half + half.T  # (2)
    return discounted_lyapunov(closed_loop, symmetric(forcing), discount)  # (1)


defvjp_argnums(riccati_primitive, _riccati_vjp)
defjvp_argnums(riccati_primitive, _riccati_jvp)


@primitive
def lyapunov_primitive(
    matrix: Traced, constant: Traced, discount: float, method: EquationSolver = "doubling"
) -> Traced:
    """Return X = constant + discount · matrix' X matrix for autograd; see `discounted_lyapunov`."""
    return discounted_lyapunov(matrix, constant, discount, method=method)


def _lyapunov_vjp(argnums: Traced, ans: Traced, args: Traced, kwargs: Traced) -> Traced:
    matrix, _, discount = args[:3]

    def pull(cotangent: Traced) -> tuple[Traced, ...]:
        weight = discounted_lyapunov(matrix.T, np.asarray(cotangent), discount)
        by_argument = (discount * (ans @ matrix @ weight.T + ans.T @ matrix @ weight), weight)
        return tuple(by_argument[argnum] for argnum in argnums)

    return pull


def _lyapunov_jvp(argnums: Traced, tangents: Traced, ans: Traced, args: Traced, kwargs: Traced) -> Traced:
    matrix, constant, discount = args[:3]
    moved = dict(zip(argnums, tangents, strict=True))
    change = moved.get(0, 0.0 * matrix)
    forcing = moved.get(1, 0.0 * constant) + discount * (change.T @ ans @ matrix + matrix.T @ ans @ change)
    return discounted_lyapunov(matrix, forcing, discount)


defvjp_argnums(lyapunov_primitive, _lyapunov_vjp)
defjvp_argnums(lyapunov_primitive, _lyapunov_jvp)


@primitive
def recurrence_primitive(left: Traced, right: Traced, start: Traced, constants: Traced) -> Traced:
    """Return X_0 = start and `X_{t+1} = constants_t + left X_t right` as a stack (T, n, m) for autograd.

    Examples
    --------
    >>> half, one = np.array([[0.5]]), np.array([[1.0]])
    >>> recurrence_primitive(half, one, one, np.ones((2, 1, 1))).ravel()
    array([1.  , 1.5 , 1.75])
    """
    found = np.empty((len(constants) + 1, *np.shape(start)))
    found[0] = start
    with np.errstate(over="ignore", invalid="ignore"):
        for t, constant in enumerate(constants):
            found[t + 1] = constant + left @ found[t] @ right
    return found


def _recurrence_vjp(argnums: Traced, ans: Traced, args: Traced, kwargs: Traced) -> Traced:
    left, right = args[:2]

    def pull(cotangent: Traced) -> tuple[Traced, ...]:
        flipped = recurrence_primitive(left.T, right.T, cotangent[-1], cotangent[-2::-1])
        adjoint = flipped[::-1]
        ahead, behind = adjoint[1:], ans[:-1]
        by_argument = (
            (ahead @ (behind @ right).swapaxes(1, 2)).sum(axis=0),
            ((left @ behind).swapaxes(1, 2) @ ahead).sum(axis=0),
            adjoint[0],
            ahead,
        )
        return tuple(by_argument[argnum] for argnum in argnums)

    return pull


defvjp_argnums(recurrence_primitive, _recurrence_vjp)
