"""Discounted Riccati and Lyapunov equations.

The follower's cost-to-go P solves, with `S = R + γ B'P B` and `G = γ S^{-1} B'P`,

    P = Q + γ A'P A - γ A'P B G A,        closed loop A_c = A - B G A,                                          (1)

and values and occupations solve `X = C + γ A'X A`. Both are the undiscounted equations of `(√γ A, √γ B)`.

Each equation has two solvers that share nothing: doubling (NumPy products only), and SciPy's Schur methods.

Real numbers only: SciPy's solvers drop imaginary parts or rotate them, so a complex step through them would be wrong
without a word. Here it raises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import scipy.linalg

from bilevelrl.reference.arrays import FloatArray, Traced, refuse_differentiation
from bilevelrl.reference.errors import IllPosedError, NotConvergedError, UnknownNameError
from bilevelrl.reference.lqr.units import Units, check_follower_problem, smallest_direction, symmetric

__all__ = [
    "EquationSolver",
    "RiccatiSolution",
    "discounted_lyapunov",
    "riccati_backup",
    "solve_riccati",
    "spectral_radius",
    "symmetric",
]

EquationSolver: TypeAlias = Literal["doubling", "scipy"]
"""Doubling: NumPy products, quadratically convergent. scipy: Schur methods."""

SOLVERS: tuple[EquationSolver, ...] = ("doubling", "scipy")

_EPS = float(np.finfo(np.float64).eps)
_SETTLED = 1e-6  # of P: what its residual times the amplification may be for the first order to mean anything
_DEFINITE = 1e-12  # of S: fewer than four digits of its inverse are left below
_DOUBLINGS = 60  # 2^60 steps of the plain iteration
_DIVERGED = 1e60  # squared size of a power of the matrix that no stable matrix of this package's sizes reaches


def spectral_radius(matrix: FloatArray) -> float:
    """Return the largest modulus of an eigenvalue.

    Examples
    --------
    >>> spectral_radius(np.array([[0.0, 1.0], [0.0, -0.5]]))
    0.5
    """
    return float(np.abs(np.linalg.eigvals(matrix)).max(initial=0.0))


def discounted_lyapunov(
    matrix: FloatArray, constant: FloatArray, discount: float, *, method: EquationSolver = "doubling"
) -> FloatArray:
    """Solve `X = constant + discount · matrix' X matrix`.

    Parameters
    ----------
    matrix
        (n, n).
    constant
        (..., n, n); several right-hand sides share the work. Need not be symmetric.
    discount
        ≥ 0.
    method
        "doubling" or "scipy".

    Returns
    -------
    (..., n, n) array.

    Raises
    ------
    IllPosedError
        If √discount · matrix has an eigenvalue on or outside the unit circle: the sum behind X diverges.
    UnknownNameError
        If the method is not known.
    IndependenceError
        If an argument is complex or an autograd tracer.

    Examples
    --------
    >>> discounted_lyapunov(np.array([[0.5]]), np.array([[3.0]]), 1.0)
    array([[4.]])
    """
    refuse_differentiation("discounted_lyapunov", matrix, constant)
    if method not in SOLVERS:
        raise UnknownNameError("method", method, SOLVERS)
    step = np.sqrt(discount) * matrix
    if method == "scipy":
        radius = spectral_radius(step)
        if not radius < 1.0:
            raise IllPosedError(_diverges(radius))
        flat = np.reshape(constant, (-1, *np.shape(matrix)))
        solved = [scipy.linalg.solve_discrete_lyapunov(step.T, item, method="direct") for item in flat]
        return np.reshape(np.array(solved), np.shape(constant))
    total: FloatArray = np.array(constant, dtype=np.float64)
    for _ in range(_DOUBLINGS):
        size = float(np.vdot(step, step))
        if not size < _DIVERGED:
            break
        total = total + step.T @ total @ step
        if size * size <= 0.25 * _EPS:  # what is left is the next term, smaller by the square of the step
            return total
        step = step @ step
    raise IllPosedError(_diverges(np.sqrt(discount) * spectral_radius(matrix)))


def _diverges(radius: float) -> str:
    return (
        f"spectral radius of sqrt(discount) * matrix={radius:.6g}: expected below 1; quadratic costs of an unstable "
        "closed loop have no finite value over an infinite horizon: pass a horizon, or a smaller discount"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RiccatiSolution:
    """The follower's optimal cost-to-go and what follows from it.

    Attributes
    ----------
    cost_to_go : (n, n)
        P, symmetric.
    curvature : (m, m)
        S = R + γ B'P B.
    reaction : (m, n)
        G = γ S^{-1} B'P: the optimal action is `-G y` where the next state is `y + B a`.
    gain : (m, n)
        K = G A.
    closed_loop : (n, n)
        A_c = A - B K.
    residual : float
        Frobenius norm of one Riccati backup of P minus P.
    amplification : float
        Largest eigenvalue of the solution of `X = I + γ A_c'X A_c`: errors of P are at most residuals times this, to
        first order, in the spectral norm.
    iterations : int
        Doubling steps, or Riccati sweeps.
    """

    cost_to_go: FloatArray
    curvature: FloatArray
    reaction: FloatArray
    gain: FloatArray
    closed_loop: FloatArray
    residual: float
    amplification: float
    iterations: int

    @property
    def error_bound(self) -> float:
        """First-order bound on the spectral norm of the error of P, the rounding of the residual included."""
        # γ A'PA and K'SK cancel where control is cheap: both are larger than P = Q + γ A'PA - K'SK there.
        gain = np.abs(self.gain)
        terms = np.linalg.norm(self.cost_to_go) + 2.0 * np.linalg.norm(gain.T @ np.abs(self.curvature) @ gain)
        rounding = 8.0 * (len(self.cost_to_go) + 2) * _EPS * float(terms)
        return (self.residual + rounding) * self.amplification

    def undone(self, units: Units) -> RiccatiSolution:
        """Return a solution found in these units as the problem was written."""
        back = 1.0 / units.money
        return replace(
            self,
            cost_to_go=self.cost_to_go * back,
            curvature=self.curvature / units.control[:, None] / units.control * back,
            reaction=self.reaction * units.control[:, None],
            gain=self.gain * units.control[:, None],
            residual=self.residual * float(back),
        )


def riccati_backup(
    cost_to_go: Traced,
    a: Traced,
    b: Traced,
    q: Traced,
    r: Traced,
    discount: float,
    *,
    solve: Callable[..., Traced] = np.linalg.solve,
) -> tuple[Traced, Traced, Traced]:
    """Return one Riccati backup of P, with S and G; `solve` may be autograd's, and complex numbers are welcome."""
    weighted = discount * b.T @ cost_to_go
    curvature = r + weighted @ b
    reaction = solve(curvature, weighted)
    through = cost_to_go @ a
    updated = q + discount * a.T @ through - (weighted @ a).T @ (reaction @ a)  # (1)
    return 0.5 * (updated + updated.T), curvature, reaction


def _finish(
    cost_to_go: FloatArray, a: FloatArray, b: FloatArray, q: FloatArray, r: FloatArray, discount: float, iterations: int
) -> RiccatiSolution:
    updated, curvature, reaction = riccati_backup(cost_to_go, a, b, q, r, discount)
    if not smallest_direction(curvature) > _DEFINITE:
        raise np.linalg.LinAlgError("S is singular to rounding")
    gain = reaction @ a
    closed_loop = a - b @ gain
    try:
        spread = discounted_lyapunov(closed_loop, np.eye(a.shape[0]), discount)
        amplification = float(np.linalg.eigvalsh(spread)[-1])
    except IllPosedError:
        amplification = np.inf
    return RiccatiSolution(
        cost_to_go=cost_to_go,
        curvature=curvature,
        reaction=reaction,
        gain=gain,
        closed_loop=closed_loop,
        residual=float(np.linalg.norm(updated - cost_to_go)),
        amplification=amplification,
        iterations=iterations,
    )


def solve_riccati(
    a: FloatArray,
    b: FloatArray,
    q: FloatArray,
    r: FloatArray,
    discount: float,
    *,
    method: EquationSolver | Literal["sweeps"] = "doubling",
    tolerance: float = 1e-13,
    max_iterations: int = 1_000_000,
    stop_after: int | None = None,
    start: FloatArray | None = None,
) -> RiccatiSolution:
    """Solve the follower's discounted Riccati equation (paper, Propositions 1 and 2).

    Parameters
    ----------
    a, b, q, r
        A (n, n), B (n, m), Q (n, n) positive semi-definite, R (m, m) positive definite.
    discount
        γ_F.
    method
        "doubling" or "scipy", each refined by one Newton step; "sweeps": the plain Riccati iteration from Q.
    tolerance, max_iterations, stop_after, start
        For sweeps: relative change of P at which they stop, their limit, a number of sweeps (a suboptimal follower),
        and the first P.

    Raises
    ------
    NotConvergedError
        If the iteration does not settle.
    IllPosedError
        If the pair cannot be stabilised.
    UnknownNameError
        If the method is not known.

    Examples
    --------
    >>> one = np.eye(1)
    >>> solve_riccati(one, one, one, one, 1.0).cost_to_go.round(12)
    array([[1.61803399]])
    """
    refuse_differentiation("solve_riccati", a, b, q, r)
    if method not in (*SOLVERS, "sweeps"):
        raise UnknownNameError("method", method, (*SOLVERS, "sweeps"))
    units = Units.of(b, q, r)
    b, q, r = b * units.control, q * units.money, r * units.money * units.control[:, None] * units.control
    try:
        if method == "sweeps":
            begun = q if start is None else start * units.money
            return _sweeps(a, b, q, r, discount, tolerance, max_iterations, stop_after, begun).undone(units)
        check_follower_problem(a, b, q, discount)
        return _solve(a, b, q, r, discount, method).undone(units)
    except np.linalg.LinAlgError as error:
        raise IllPosedError(
            f"discounted Riccati equation: {error}; expected S = R + discount B'PB that can be inverted: let R reach "
            "every action, beside what B'PB makes of it"
        ) from None


def _solve(
    a: FloatArray, b: FloatArray, q: FloatArray, r: FloatArray, discount: float, method: EquationSolver
) -> RiccatiSolution:
    root = np.sqrt(discount)
    if method == "scipy" and discount > 0.0:
        try:
            # SciPy refuses an asymmetry that the checks of this package let pass as rounding.
            q, r = symmetric(q), symmetric(r)
            cost, iterations = scipy.linalg.solve_discrete_are(root * a, root * b, q, r, balanced=False), 0
        except (np.linalg.LinAlgError, ValueError) as error:
            raise IllPosedError(
                f"discounted Riccati equation: {error}; expected a pair that can be stabilised"
            ) from None
    else:
        cost, iterations = _doubling(root * a, root * b, q, r)
    # Newton's method on the Riccati equation: the error squares, and what remains is rounding.
    _, _, reaction = riccati_backup(cost, a, b, q, r, discount)
    gain = reaction @ a
    cost = discounted_lyapunov(a - b @ gain, q + gain.T @ r @ gain, discount)
    found = _finish(symmetric(cost), a, b, q, r, discount, iterations)
    # Where states cost nothing P is 0, and SciPy's is a rounding: one that B'PB does not add to R by is none.
    known_to = found.residual * found.amplification
    unheard = known_to * float(np.linalg.norm(b)) ** 2 <= _EPS * float(np.linalg.eigvalsh(r)[0])
    if not (unheard or known_to <= _SETTLED * float(np.linalg.norm(found.cost_to_go))):
        raise NotConvergedError(
            f"discounted Riccati equation: residual {found.residual:.3g} times amplification {found.amplification:.3g} "
            f"for P of size {float(np.linalg.norm(found.cost_to_go)):.3g}; expected a solution that stabilises: Q "
            "positive semi-definite, and a pair that can be stabilised and detected with some margin"
        )
    return found


def _doubling(a: FloatArray, b: FloatArray, q: FloatArray, r: FloatArray) -> tuple[FloatArray, int]:
    """Structure-preserving doubling: step k has done 2^k plain Riccati sweeps from zero."""
    size = a.shape[0]
    identity = np.eye(size)
    spread = b @ np.linalg.solve(r, b.T)
    cost = q
    for count in range(1, _DOUBLINGS):
        solved = np.linalg.solve(identity + spread @ cost, np.concatenate([a, spread], axis=1))
        step, shared = solved[:, :size], solved[:, size:]
        change = a.T @ cost @ step
        cost = cost + change
        spread = spread + a @ shared @ a.T
        a = a @ step
        moved, total = float(np.abs(change).max()), float(np.abs(cost).max())
        if not np.isfinite(total):
            break
        if moved <= 1e-8 * total:  # the next change is its square
            return symmetric(cost), count
    raise NotConvergedError(
        "discounted Riccati equation: doubling did not settle; expected a pair that can be stabilised and detected "
        "with some margin: use method='sweeps', or a smaller discount"
    )


def _sweeps(
    a: FloatArray,
    b: FloatArray,
    q: FloatArray,
    r: FloatArray,
    discount: float,
    tolerance: float,
    max_iterations: int,
    stop_after: int | None,
    cost: FloatArray,
) -> RiccatiSolution:
    limit = max_iterations if stop_after is None else stop_after
    for count in range(limit):
        updated, _, _ = riccati_backup(cost, a, b, q, r, discount)
        change, size = float(np.linalg.norm(updated - cost)), float(np.linalg.norm(updated))
        cost = updated
        if not np.isfinite(size):
            break
        if stop_after is None and change <= tolerance * size:
            return _finish(cost, a, b, q, r, discount, count + 1)
    else:
        if stop_after is not None:
            return _finish(cost, a, b, q, r, discount, stop_after)
    raise NotConvergedError(
        f"discounted Riccati equation: {limit} sweeps did not bring the relative change below {tolerance:g}; "
        "raise max_iterations or use method='newton'"
    )
