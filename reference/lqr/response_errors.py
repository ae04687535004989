"""The follower's side of error bounds for linear-quadratic problems: what a computed P is off by, and what it moves.

The computed P has a residual r, so that its error is `E = r + γ_F A_c'E A_c` to first order, A_c its closed loop; so
have the solutions of the other equations. Everything that follows from P is a formula in a `Ledger`
(`bilevelrl.reference.lqr.rounding`), which adds up the effects of these residuals and of every rounding.

The first order holds where the closed loop's uncertainty times the amplification of its Lyapunov equations,
`‖I + γ A_c'A_c + γ² A_c²'A_c² + ...‖`, is small. Where it is not, or the closed loop is not shown to be stable under a
discount that needs it, bounds are infinite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import autograd.numpy as anp
import numpy as np
import scipy.linalg

from bilevelrl.reference.arrays import FloatArray, Traced
from bilevelrl.reference.errors import IllPosedError
from bilevelrl.reference.lqr.riccati_derivative import lyapunov_primitive
from bilevelrl.reference.lqr.rounding import EPSILON, Ledger, UnprovenError, first_order_errors, plain
from bilevelrl.reference.lqr.solvers import discounted_lyapunov, riccati_backup
from bilevelrl.reference.problem import AnswerBounds, Part
from bilevelrl.reference.problem.on_demand import FIRST_ORDER

__all__ = [
    "UNKNOWN",
    "Response",
    "Tail",
    "bounds_of",
    "column",
    "pulled",
    "respond",
    "response_cotangents",
    "stretch_of",
]

_REPEATED = 2.0  # a residual may differ by rounding where the same equation is solved again
_ROUNDINGS = 16.0 * EPSILON  # of each Jacobian's own formula
_UNDERFLOW = 1e-290


UNKNOWN = AnswerBounds(gradient=float(np.inf), objective=float(np.inf))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """What is missing where the follower is solved by sweeps on a tape, so many of them at the solution.

    Attributes
    ----------
    later : int
        Sweeps through which the derivative passes at the settled closed loop.
    spread : float
        Trace of `E_{k+1} = I + γ A_k'E_k A_k` over the earlier sweeps: what they can make of what reaches them.
    """

    later: int
    spread: float

    @classmethod
    def of(
        cls, a: FloatArray, b: FloatArray, q: FloatArray, r: FloatArray, discount: float, *, earlier: int, later: int
    ) -> Tail:
        """Repeat the earlier sweeps from Q."""
        cost, spread = q, np.eye(len(a))
        for _ in range(earlier):
            cost, _, reaction = riccati_backup(cost, a, b, q, r, discount)
            loop = a - b @ (reaction @ a)
            spread = np.eye(len(a)) + discount * loop.T @ spread @ loop
        return cls(later=later, spread=float(np.trace(spread)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """The follower's solution inside a formula: P, S^{-1}, G, Σ, K and A_c, and what A_c is not known to.

    Attributes
    ----------
    cost_to_go, inverse_curvature, reaction, covariance, gain, loop
        As in `RiccatiSolution`.
    loop_error : (n, n)
        Bounds on the errors of the entries of A_c.
    """

    cost_to_go: Traced
    inverse_curvature: Traced
    reaction: Traced
    covariance: Traced
    gain: Traced
    loop: Traced
    loop_error: FloatArray


def column(vector: FloatArray) -> FloatArray:
    """Return (n, 1)."""
    return np.reshape(vector, (-1, 1))


def _units(loop: FloatArray) -> FloatArray:
    """Units (n,) of the state in which the loop's rows and columns are of similar size: norms depend on them."""
    _, (units, _) = scipy.linalg.matrix_balance(loop, permute=False, separate=True)
    return np.asarray(units, dtype=np.float64)


def _spread(loop: FloatArray, discount: float, steps: int | None) -> FloatArray:
    """Σ_k γ^k F'^k F^k over so many steps; None: the infinite sum, if it is shown to exist."""
    identity = np.eye(len(loop))
    if steps is None:
        try:
            found = discounted_lyapunov(loop, identity, discount)
        except IllPosedError as unstable:
            raise UnprovenError(str(unstable)) from None
        left = np.linalg.eigvalsh(found - discount * loop.T @ found @ loop)[0]
        if not (left >= 0.5 and np.linalg.eigvalsh(found)[0] >= 0.5):  # Lyapunov's theorem: stable
            raise UnprovenError("the closed loop is not shown to be stable")
        return found
    step = np.sqrt(discount) * loop
    total, power = identity, step
    for bit in bin(steps)[3:]:  # twice as many, and one more where the bit says so
        total, power = total + power.T @ total @ power, power @ power
        if bit == "1":
            total, power = identity + step.T @ total @ step, power @ step
    if not np.isfinite(total).all():
        raise UnprovenError("the closed loop grows beyond all numbers")
    return total


def stretch_of(loop: FloatArray, loop_error: FloatArray, discount: float, steps: int | None) -> float:
    """Return the relative change of a Lyapunov operator, or of a recursion of so many steps, that an error can make.

    With Y the spread, it is at most `|γ (δF'Y F + F'Y δF + δF'Y δF)|`, for the loop or its transpose, in units in which
    the loop is balanced.

    Raises
    ------
    UnprovenError
        If the loop is not shown to be stable, or the change is not small.
    """
    units = _units(loop)
    scaled, off = loop * units / units[:, None], loop_error * units / units[:, None]
    stretch = 0.0
    for matrix, error in ((scaled, off), (scaled.T, off.T)):
        spread = _spread(matrix, discount, steps)
        change = error.T @ (2.0 * np.abs(spread @ matrix) + np.abs(spread) @ error)
        stretch = max(stretch, discount * float(np.linalg.norm(change)))
    if not stretch < FIRST_ORDER:
        raise UnprovenError("the closed loop is known too coarsely for the first order")
    return stretch


def respond(
    ledger: Ledger,
    a: Traced,
    b: FloatArray,
    q: Traced,
    r: Traced,
    discount: float,
    temperature: float,
    cost_to_go: FloatArray,
    *,
    frozen: bool = False,
) -> Response:
    """Return the best response from a computed P.

    `frozen`: P is taken as it is, so that only rounding remains, not what it lacks to the solution.
    """
    plain_a, plain_q, plain_r = (plain(matrix) for matrix in (a, q, r))
    updated, curvature, reaction = riccati_backup(cost_to_go, plain_a, b, plain_q, plain_r, discount)
    gain = reaction @ plain_a
    loop = plain_a - b @ gain
    abs_a, abs_b, abs_p, abs_k, abs_f = (np.abs(matrix) for matrix in (plain_a, b, cost_to_go, gain, loop))
    unit = (3 * len(plain_a) + 8) * EPSILON
    # The residual is stationary in K: with K as it is, the error of K enters squared, that of A - B K as it is.
    off_loop = unit * (abs_a + abs_b @ abs_k)
    inverse = np.abs(np.linalg.inv(curvature))
    off_gain = unit * inverse @ (np.abs(curvature) @ abs_k + discount * abs_b.T @ abs_p @ abs_a)
    carried = abs_f.T @ abs_p
    size = _REPEATED * np.abs(updated - cost_to_go)
    size += unit * (np.abs(plain_q) + abs_p + abs_k.T @ np.abs(plain_r) @ abs_k + discount * carried @ abs_f)
    size += discount * (carried @ off_loop + off_loop.T @ carried.T) + off_gain.T @ np.abs(curvature) @ off_gain
    p: Traced = cost_to_go
    # -spread ≤ E ≤ spread, so that |u'E v| ≤ sqrt(u'spread u · v'spread v); A_c moves by -γ B S^{-1} B'E A_c.
    units = _units(loop)
    _spread(loop * units / units[:, None], discount, None)  # refuses what is not shown to be stable
    spread = discounted_lyapunov(loop, np.diag(size @ units / units), discount)
    by_action, by_loop = (np.sqrt(np.abs(np.diagonal(m.T @ spread @ m))) for m in (b, loop))
    moved = discount * np.abs(b @ np.linalg.inv(curvature)) @ np.outer(by_action, by_loop)
    loop_error = moved + off_loop + abs_b @ off_gain
    if not frozen:
        p = cost_to_go + lyapunov_primitive(loop, ledger.off(np.zeros_like(cost_to_go), size), discount)
    pushed = ledger.product(discount * b.T, p)
    inverted = ledger.inverse(ledger.total((1.0, r), (1.0, pushed, b)))
    reaction = ledger.product(inverted, pushed)
    gain = ledger.product(reaction, a)
    return Response(
        cost_to_go=p,
        inverse_curvature=inverted,
        reaction=reaction,
        covariance=0.5 * temperature * inverted,
        gain=gain,
        loop=ledger.total((1.0, a), (-1.0, b, gain)),
        loop_error=loop_error,
    )


def _half(matrix: Traced) -> Traced:
    return 0.5 * (matrix + matrix.T)


def response_cotangents(
    ledger: Ledger,
    response: Response,
    b: FloatArray,
    discount: float,
    temperature: float,
    *,
    by_reaction: Traced,
    by_covariance: Traced,
    tail: Tail | None,
) -> dict[str, Traced]:
    """Return the cotangents of A, B, Q and R, without the direct dependence of `K = G A` on A.

    `by_reaction` and `by_covariance` are those of G and Σ; `tail` is what sweeps leave out.
    """
    inverted, p = response.inverse_curvature, response.cost_to_go
    solved = ledger.product(inverted, by_reaction)
    curvature = _half(
        ledger.total(
            (-1.0, solved, response.reaction.T), (-0.5 * temperature, inverted, _half(by_covariance), inverted)
        )
    )
    pushed = _half(ledger.total((discount, b, solved), (discount, b, curvature, b.T)))
    weight = ledger.lyapunov(response.loop.T, pushed, discount)
    if tail is not None:
        loop, found, source = (plain(x) for x in (response.loop, weight, pushed))
        power = np.linalg.matrix_power(np.sqrt(discount) * loop, tail.later)
        arriving = float(np.linalg.norm(power @ source @ power.T))
        weight = ledger.off(weight, np.abs(power @ found @ power.T) + arriving * tail.spread)
    through = ledger.total((2.0 * discount, p, response.loop, weight))
    return {
        "dynamics_state": through,
        "dynamics_action": ledger.total(
            (discount, p, solved.T), (2.0 * discount, p, b, curvature), (-1.0, through, response.gain.T)
        ),
        "cost_state": weight,
        "cost_action": ledger.total((1.0, curvature), (1.0, response.gain, weight, response.gain.T)),
    }


def pulled(
    ledger: Ledger,
    cotangents: Mapping[Part, Mapping[str, Traced]],
    jacobian: Mapping[str, FloatArray],
    parts: Sequence[Part],
    parameters: int,
) -> list[Traced]:
    """Return the derivative of each part that θ enters, (N, 1) each."""
    found = []
    for part in parts:
        terms = []
        size = np.zeros((parameters, 1))
        for name, cotangent in cotangents[part].items():
            if name in jacobian:
                slope = np.reshape(jacobian[name], (-1, parameters)).T
                flat = anp.reshape(cotangent, (-1, 1))
                terms.append((1.0, slope, flat))
                size += _ROUNDINGS * np.abs(slope) @ np.abs(plain(flat))
        if terms:
            found.append(ledger.off(ledger.total(*terms), size))
    return found


def bounds_of(formula: Traced, parameters: int, stretch: Traced) -> AnswerBounds:
    """Return the bounds from a formula of (objective, parts), all flat, and the stretch that it has seen."""
    try:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            _, errors = first_order_errors(formula)
    except (UnprovenError, np.linalg.LinAlgError):
        return UNKNOWN
    errors = errors / (1.0 - stretch()) ** 4 + _UNDERFLOW  # each of several factors is off by a little more
    parts = errors[1:].reshape(-1, parameters) if parameters else np.zeros((0, 0))
    return AnswerBounds(gradient=float(parts.sum(axis=0).max(initial=0.0)), objective=float(errors[0]))
