"""The discounted Riccati equation in balls: interval Newton proves that a box holds exactly one solution.

    F(P) = Q + γ A'PA - γ² A'PB S⁻¹ B'PA - P,       S = R + γ B'PB.                                                (1)

A midpoint P̃ is found by fixed-point steps and Newton's method, which proves nothing. With the Jacobian of F over a box
X around it,

    F'(P) H = γ (A - B K̃)' H (A - B K) - H,      N(X) = P̃ - F'(X)⁻¹ F(P̃)                                          (2)

inside X proves that X holds one solution and no other; the closed loop is then shown to be stable, √γ (A - B K) having
a power of norm below one, so that this solution is the optimal cost.
"""

from __future__ import annotations

from dataclasses import dataclass

from flint import arb, arb_mat, ctx

from bilevelrl.reference.certified.balls import float_above, largest, upper, widened
from bilevelrl.reference.errors import IllPosedError, PrecisionError

__all__ = ["Regulator", "RiccatiSolution", "enclose_riccati", "is_contracting", "lyapunov", "stein_matrix"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Regulator:
    """A discounted linear-quadratic control problem in balls; costs x'Qx + a'Ra, dynamics x' = A x + B a.

    Attributes
    ----------
    dynamics, control, cost_state, cost_action : arb_mat
        A, B, Q and R.
    discount : arb
        γ.
    """

    dynamics: arb_mat
    control: arb_mat
    cost_state: arb_mat
    cost_action: arb_mat
    discount: arb

    def midpoint(self) -> Regulator:
        """Return the problem at the midpoints."""
        return Regulator(
            dynamics=self.dynamics.mid(),
            control=self.control.mid(),
            cost_state=self.cost_state.mid(),
            cost_action=self.cost_action.mid(),
            discount=self.discount.mid(),
        )

    def step(self, value: arb_mat) -> tuple[arb_mat, arb_mat, arb_mat]:
        """Return (Ric(P), A - B K, A - B K̃) with K̃ the gain of P': both closed loops coincide where P is symmetric."""
        a, b, gamma = self.dynamics, self.control, self.discount
        seen = b.transpose() * value
        mirrored = b.transpose() * value.transpose()
        try:
            gain = (self.cost_action + seen * b * gamma).solve(seen * a) * gamma
            other = (self.cost_action.transpose() + mirrored * b * gamma).solve(mirrored * a) * gamma
        except ZeroDivisionError:
            raise PrecisionError(
                f"Riccati equation: S = R + γ B'PB is not shown to be regular at {ctx.prec} bits; raise the limit"
            ) from None
        moved = self.cost_state + a.transpose() * value * (a - b * gain) * gamma  # (1)
        return moved, a - b * gain, a - b * other


def stein_matrix(left: arb_mat, right: arb_mat, discount: arb) -> arb_mat:
    """Return the matrix of H → H - γ L' H R on matrices read row by row."""
    size, columns = left.ncols(), right.ncols()
    rows = []
    for i in range(size):
        for j in range(columns):
            rows.append(
                [
                    arb(int(i == k and j == m)) - discount * left[k, i] * right[m, j]
                    for k in range(left.nrows())
                    for m in range(right.nrows())
                ]
            )
    return arb_mat(rows)


def lyapunov(left: arb_mat, right: arb_mat, discount: arb, source: arb_mat) -> arb_mat:
    """Return H with H = source + γ L' H R, enclosed.

    Raises
    ------
    PrecisionError
        If the equation cannot be shown to be regular at this precision.
    """
    entries = arb_mat(source.nrows() * source.ncols(), 1, source.entries())
    try:
        found = stein_matrix(left, right, discount).solve(entries)
    except ZeroDivisionError:
        raise PrecisionError(
            f"Lyapunov equation: not shown to be regular at {ctx.prec} bits; raise the limit"
        ) from None
    return arb_mat(source.nrows(), source.ncols(), found.entries())


def is_contracting(loop: arb_mat, discount: arb) -> bool:
    """Whether √γ · loop is proven to have spectral radius below one: some power has norm below one."""
    power, weight = loop, discount
    for _ in range(40):
        norm = largest(sum((upper(e) for e in row), arb(0)) for row in power.tolist())
        if norm * norm * weight < 1:
            return True
        if not norm.is_finite():
            return False
        power, weight = power * power, weight * weight
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class RiccatiSolution:
    """The stabilising solution, enclosed.

    Attributes
    ----------
    value, closed_loop : arb_mat
        P and A - B K.
    residual : arb
        Upper bound on |F| at the midpoint.
    steps : int
        Fixed-point and Newton steps.
    """

    value: arb_mat
    closed_loop: arb_mat
    residual: arb
    steps: int


def enclose_riccati(regulator: Regulator) -> RiccatiSolution:
    """Enclose the stabilising solution of the discounted Riccati equation.

    Raises
    ------
    IllPosedError
        If no stabilising solution is found.
    PrecisionError
        If the box that Newton's operator maps into itself is not found at this precision.
    """
    middle, steps = _approximate(regulator.midpoint())
    moved, loop, mirrored = regulator.step(middle)
    defect = moved - middle
    size, tiny = middle.nrows(), arb(2) ** (-ctx.prec)
    found = largest(middle.entries())
    unit = (found if found > 0 else largest(regulator.cost_action.entries()) * tiny) * tiny  # a box has an inside
    radius = [upper(entry) * 2 + unit for entry in lyapunov(mirrored, loop, regulator.discount, defect).entries()]
    for _ in range(30):
        box = arb_mat(size, size, [widened(p, r) for p, r in zip(middle.entries(), radius, strict=True)])
        _, loop, mirrored = regulator.step(box)
        image = (middle + lyapunov(mirrored, loop, regulator.discount, defect)).entries()  # (2)
        if all(
            inner.is_finite() and outer.contains_interior(inner)
            for inner, outer in zip(image, box.entries(), strict=True)
        ):
            value = arb_mat(size, size, image)
            _, loop, _ = regulator.step(value)
            if not is_contracting(loop, regulator.discount):
                raise IllPosedError(
                    "Riccati equation: a solution exists, but its closed loop is not shown to be stable under the "
                    "discount; expected a stabilisable pair (√γ A, B) with every unstable mode in the cost"
                )
            return RiccatiSolution(value=value, closed_loop=loop, residual=largest(defect.entries()), steps=steps)
        radius = [upper(inner - p) * 2 + unit for inner, p in zip(image, middle.entries(), strict=True)]
    raise PrecisionError(
        f"Riccati equation: no box of width {float_above(largest(radius)):.1e} is mapped into itself at {ctx.prec} bits"
    )


def _approximate(regulator: Regulator) -> tuple[arb_mat, int]:
    value, steps = regulator.cost_state, 0
    while True:
        moved = _symmetric(regulator.step(value)[0])
        change, value, steps = largest((moved - value).entries()), moved, steps + 1
        if not change.is_finite() or steps > 5000:
            raise IllPosedError("Riccati iteration: does not settle; expected a stabilisable pair (√γ A, B)")
        if change <= largest(value.entries()) * arb(10) ** -4:
            break
    for _ in range(100):
        moved, loop, mirrored = regulator.step(value)
        update = lyapunov(mirrored.mid(), loop.mid(), regulator.discount, (moved - value).mid())
        value, steps = _symmetric(value + update), steps + 1
        if largest(update.mid().entries()) <= largest(value.entries()) * arb(2) ** -(ctx.prec - 30):
            return value, steps
    raise PrecisionError(f"Riccati equation: Newton's method does not settle at {ctx.prec} bits")


def _symmetric(matrix: arb_mat) -> arb_mat:
    half: arb_mat = ((matrix + matrix.transpose()) / 2).mid()
    return half
