"""The follower's fixed point in balls, and the linear systems around it.

The follower's values are found by Newton's method on midpoints, which proves nothing, and then enclosed by

    ‖V - V*‖ ≤ ‖T V - V‖ / (1 - q),      q = γ_F max_(s,a) Σ_s' P(s'|s,a) < 1,                                     (1)

with T V evaluated in balls. Linear systems with I - γ P_π are treated alike: an approximate solution, its residual in
balls, and the bound

    ‖(I - γ P_π)⁻¹‖ ≤ 1/(1 - q)                                                                                    (2)

on the inverse, in the maximum norm, or for the transpose in the sum norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flint import arb, arb_mat, ctx

from bilevelrl.reference.certified.balls import column, largest, peak, softmax, upper, widened
from bilevelrl.reference.certified.tabular.tables import BallTables
from bilevelrl.reference.errors import IllPosedError, PrecisionError, refusal

__all__ = ["BallFollower", "enclose_follower", "identity_minus", "solve"]

NEWTON_LIMIT = 500
START_BITS = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class BallFollower:
    """The follower's best response in balls.

    Attributes
    ----------
    value : [s], policy : [s][a]
        V_F and π*.
    residual : arb
        Upper bound on ‖T V - V‖ at the midpoint.
    chain : arb_mat
        P_π.
    steps : int
        Newton steps taken.
    """

    value: Sequence[arb]
    policy: Sequence[Sequence[arb]]
    residual: arb
    chain: arb_mat
    steps: int


def soft_values(rows: Sequence[Sequence[arb]], temperature: arb) -> list[arb]:
    """Return β log Σ_a exp(Q/β), [s]."""
    values = []
    for row in rows:
        shift = peak(row)
        mass = sum((((entry - shift) / temperature).exp() for entry in row), arb(0))
        values.append(shift + temperature * mass.log())
    return values


def soft_policy(rows: Sequence[Sequence[arb]], temperature: arb) -> list[list[arb]]:
    """Return exp((Q - V)/β) with V the soft value of Q, [s][a]."""
    return [softmax([entry / temperature for entry in row]) for row in rows]


def midpoints(matrix: arb_mat) -> list[arb]:
    """Return the midpoints of all entries."""
    return [entry.mid() for entry in matrix.entries()]


def solve(system: arb_mat, right: arb_mat, modulus: arb, *, transposed: bool = False) -> list[arb]:
    """Enclose the solution of (I - M) x = b where M ≥ 0 has row sums at most `modulus` < 1, or of its transpose.

    Raises
    ------
    PrecisionError
        If the precision does not suffice for an approximate solution.
    """
    matrix = system.transpose() if transposed else system
    try:
        approximate = column(midpoints(matrix.mid().solve(right.mid(), algorithm="approx")))
    except ZeroDivisionError:
        raise PrecisionError(f"linear system: no approximate solution at {ctx.prec} bits; raise the limit") from None
    residual = (right - matrix * approximate).entries()
    size = sum((upper(entry) for entry in residual), arb(0)) if transposed else largest(residual)
    return [widened(entry, size / (1 - modulus)) for entry in approximate.entries()]  # (2)


def identity_minus(chain: arb_mat, discount: arb) -> arb_mat:
    """Return I - discount · chain."""
    size = chain.nrows()
    identity = arb_mat(size, size)
    for i in range(size):
        identity[i, i] = 1
    return identity - chain * discount


def _newton(tables: BallTables, value: list[arb]) -> tuple[list[arb], int]:
    """Soft policy iteration on midpoints: monotone from the first step on, and quadratic at the end."""
    target = ctx.prec
    steps = 0
    for bits in (min(START_BITS, target), target):
        with ctx.workprec(bits):
            previous = None
            while True:
                rows = tables.action_values(value)
                change = [
                    (new - old).mid() for new, old in zip(soft_values(rows, tables.temperature), value, strict=True)
                ]
                policy = [[p.mid() for p in row] for row in soft_policy(rows, tables.temperature)]
                system = identity_minus(tables.chain(policy), tables.discount_follower).mid()
                try:
                    step = midpoints(system.solve(column(change), algorithm="approx"))
                except ZeroDivisionError:
                    raise PrecisionError(f"Newton's method breaks down at {bits} bits; raise the limit") from None
                value = [(old + move).mid() for old, move in zip(value, step, strict=True)]
                steps += 1
                size = largest(step)
                if size <= largest(value) * arb(2) ** -(bits - 20) or size.is_zero():
                    break
                # Near the solution steps shrink quadratically until rounding takes over, and then not at all.
                if previous is not None and size >= previous and size <= largest(value) * arb(2) ** -(bits // 2):
                    break
                if not size.is_finite() or steps >= NEWTON_LIMIT:
                    raise PrecisionError(f"Newton's method does not settle within {steps} steps at {bits} bits")
                previous = size
    return value, steps


def enclose_follower(tables: BallTables, start: Sequence[arb] | None = None) -> BallFollower:
    """Enclose the follower's fixed point at the working precision.

    Parameters
    ----------
    tables
        The problem in balls.
    start
        Where Newton's method starts; zeros by default. Changes the cost, never the validity.

    Raises
    ------
    StochasticityError, IllPosedError
        If a row is no law, or the soft Bellman map no contraction.
    PrecisionError
        If the precision does not suffice for Newton's method to settle.
    """
    tables.check()
    modulus = tables.modulus(tables.discount_follower)
    if not modulus < 1:
        raise IllPosedError(
            refusal(
                "discount_follower x row sum", float(modulus), "below 1", "normalise the rows or lower the discount"
            )
        )
    value, steps = _newton(tables, [arb(0)] * len(tables.kernel) if start is None else [v.mid() for v in start])
    moved = soft_values(tables.action_values(value), tables.temperature)
    residual = largest(new - old for new, old in zip(moved, value, strict=True))
    radius = residual / (1 - modulus)  # (1)
    enclosed = [widened(entry, radius) for entry in value]
    policy = soft_policy(tables.action_values(enclosed), tables.temperature)
    return BallFollower(value=enclosed, policy=policy, residual=residual, chain=tables.chain(policy), steps=steps)
