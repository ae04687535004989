"""First-order rounding analysis of matrix formulas: how far is the result from exact arithmetic?

A formula is written once, with the operations of a `Ledger`. Each of them may be off by a known amount, entry by entry:
a product with n inner terms by `(n + 8) ε |A| |B|`, ε = 2^-52, twice the usual bound and a few roundings of the factors
more, whatever the order of the sums; an inverse by what its residual says; the solution of an equation by its residual.
One reverse pass per result gives its derivative with respect to each of these errors, so that to first order

    |result - exact| ≤ Σ_steps ⟨|∂result/∂step|, size of the step's error⟩.

Intermediate errors never pile up in norms: what cancels in the formula cancels in the bound.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import autograd
import autograd.numpy as anp
import numpy as np
from autograd.extend import defvjp_argnums, primitive
from autograd.tracer import getval, isbox

from bilevelrl.reference.arrays import FloatArray, Traced
from bilevelrl.reference.lqr.riccati_derivative import lyapunov_primitive, recurrence_primitive
from bilevelrl.reference.lqr.solvers import EquationSolver

__all__ = ["EPSILON", "Ledger", "UnprovenError", "first_order_errors", "plain"]

EPSILON = float(np.finfo(np.float64).eps)
_SPARE = 8  # roundings beyond the inner dimensions
_REPEATED = 2.0  # a residual may differ by rounding where the same equation is solved again
_LARGEST_DEFECT = 0.1  # of an inverse, in the maximum row sum

Term = tuple[Traced, ...]


def plain(value: Traced) -> FloatArray:
    """Return the numbers of an array that may be traced."""
    return np.asarray(getval(value), dtype=np.float64)


class UnprovenError(ArithmeticError):
    """The first order says nothing here; bounds become infinite."""


@primitive
def _tap(value: Traced, dummy: Traced, slopes: list[Traced], step: int) -> Traced:
    """Return the value; the derivative with respect to it is left in `slopes[step]` on its way back."""
    return value


def _tap_vjp(argnums: Traced, ans: Traced, args: Traced, kwargs: Traced) -> Traced:
    slopes, step = args[2:]

    def pull(cotangent: Traced) -> tuple[Traced, ...]:
        slopes[step] = cotangent
        return tuple(cotangent if argnum == 0 else 0.0 for argnum in argnums)

    return pull


defvjp_argnums(_tap, _tap_vjp)


class Ledger:
    """The operations of a formula, with what each may be off by.

    Parameters
    ----------
    dummy
        A traced number; it carries the derivatives of what is otherwise constant, and has itself none.

    Attributes
    ----------
    sizes : list of arrays
        Bounds on the errors of the steps so far.
    slopes : list of arrays
        Derivatives of the result that was last pulled back, with respect to each step; zeros are None.
    """

    __slots__ = ("_dummy", "sizes", "slopes")

    def __init__(self, dummy: Traced) -> None:
        self._dummy = dummy
        self.sizes: list[FloatArray] = []
        self.slopes: list[Traced] = []

    def off(self, value: Traced, size: Traced) -> Traced:
        """Return a value that may be off by `size` in each entry.

        Raises
        ------
        UnprovenError
            If the size is not finite.
        """
        bound = np.array(np.broadcast_to(size, np.shape(plain(value))), dtype=np.float64)
        if not np.isfinite(bound).all():
            raise UnprovenError("a step of the computation is not finite")
        self.sizes.append(bound)
        self.slopes.append(None)
        dummy = 0.0 if isbox(value) else self._dummy
        return _tap(value, dummy, self.slopes, len(self.sizes) - 1)

    def error(self) -> float:
        """Return Σ ⟨|slope|, size⟩ over the steps."""
        pairs = zip(self.slopes, self.sizes, strict=True)
        return sum(float(np.vdot(np.abs(slope), size)) for slope, size in pairs if slope is not None)

    def symmetric(self, matrix: FloatArray) -> Traced:
        """Return an input of which the symmetric part is meant."""
        asymmetry = 0.5 * np.abs(matrix - matrix.T)
        return self.off(matrix, asymmetry) if asymmetry.any() else matrix

    def total(self, *terms: Term) -> Traced:
        """Return a sum of products: each term is an exact coefficient and its factors, one or more."""
        value, size = _sum(terms)
        return self.off(value, size + len(terms) * EPSILON * np.abs(plain(value)))

    def product(self, *factors: Traced) -> Traced:
        """Return one matrix product."""
        return self.total((1.0, *factors))

    def summed(self, *terms: Term) -> Traced:
        """Return `total` of stacks, summed over the first axis one after the other."""
        value, size = _sum(terms)
        stack = np.abs(plain(value))
        return self.off(anp.sum(value, axis=0), (size + (len(stack) + _SPARE) * EPSILON * stack).sum(axis=0))

    def inner(self, left: Traced, right: Traced) -> Traced:
        """Return ⟨A, B⟩ as (1, 1)."""
        entries = left * right
        size = (np.size(plain(entries)) + _SPARE) * EPSILON * float(np.abs(plain(entries)).sum())
        return self.off(anp.reshape(anp.sum(entries), (1, 1)), size)

    def inverse(self, matrix: Traced) -> Traced:
        """Return the inverse of a matrix or of each of a stack.

        Raises
        ------
        UnprovenError
            If the matrix may be singular.
        """
        found = anp.linalg.inv(matrix)
        numbers, inverse = np.abs(plain(matrix)), np.abs(plain(found))
        defect = 2.0 * _unit(numbers.shape[-1]) * (inverse @ numbers)
        if not defect.sum(axis=-1).max(initial=0.0) <= _LARGEST_DEFECT:
            raise UnprovenError("a matrix is not shown to be regular")
        return self.off(found, defect @ inverse)

    def lyapunov(
        self,
        loop: Traced,
        constant: Traced,
        discount: float,
        *,
        method: EquationSolver = "doubling",
        solution: FloatArray | None = None,
    ) -> Traced:
        """Return X of `X = constant + discount · loop' X loop`, found with the residual of `solution`."""
        f, c = plain(loop), plain(constant)
        if solution is None:
            solution = np.asarray(lyapunov_primitive(f, c, discount, method))
        residual = np.abs(c + discount * f.T @ solution @ f - solution)
        terms = np.abs(c) + discount * np.abs(f).T @ np.abs(solution) @ np.abs(f) + np.abs(solution)
        size = _REPEATED * residual + _unit(2 * len(f)) * terms
        return lyapunov_primitive(loop, self.off(constant, size), discount, method)

    def recurrence(self, left: Traced, right: Traced, start: object, constants: Traced) -> Traced:
        """Return X_0 = start and `X_{t+1} = constants_t + left X_t right` as a stack."""
        found = recurrence_primitive(plain(left), plain(right), plain(start), plain(constants))
        if not np.isfinite(found).all():
            raise UnprovenError("a recursion does not stay finite")
        before, after, added = (np.abs(plain(matrix)) for matrix in (left, right, constants))
        size = _unit(2 * len(before)) * (added + before @ np.abs(found[:-1]) @ after)
        return recurrence_primitive(left, right, start, self.off(constants, size))


def _unit(inner: int) -> float:
    return (inner + _SPARE) * EPSILON


def _sum(terms: tuple[Term, ...]) -> tuple[Traced, FloatArray]:
    values, sizes = [], []
    for coefficient, *factors in terms:
        values.append(coefficient * reduce(anp.matmul, factors))
        numbers = [np.abs(plain(factor)) for factor in factors]
        inner = sum(number.shape[-1] for number in numbers[:-1])
        sizes.append(_unit(inner) * np.abs(coefficient) * reduce(np.matmul, numbers))
    return reduce(anp.add, values), reduce(np.add, sizes)


def first_order_errors(formula: Callable[[Ledger], Traced]) -> tuple[FloatArray, FloatArray]:
    """Return the results (M,) of a formula and bounds (M,) on their errors.

    Raises
    ------
    UnprovenError
        If the formula says so.

    Examples
    --------
    >>> tiny = np.full((1, 1), 1e-8)
    >>> def formula(ledger):  # (1 + x) - 1 loses what x is smaller than one, and no more
    ...     more = ledger.total((1.0, np.ones((1, 1))), (1.0, tiny))
    ...     return anp.ravel(ledger.total((1.0, more), (-1.0, np.ones((1, 1)))))
    >>> value, error = first_order_errors(formula)
    >>> bool(abs(value[0] - 1e-8) <= error[0] <= 1e-14)
    True
    """
    ledgers: list[Ledger] = []

    def traced(dummy: Traced) -> Traced:
        ledgers.append(Ledger(dummy))
        return formula(ledgers[0])

    pull, found = autograd.make_vjp(traced)(0.0)
    values = np.asarray(found, dtype=np.float64)
    errors = np.zeros(values.size)
    for i, row in enumerate(np.eye(values.size)):
        ledgers[0].slopes[:] = [None] * len(ledgers[0].slopes)
        pull(row)
        errors[i] = ledgers[0].error()
    if not (np.isfinite(errors).all() and np.isfinite(values).all()):
        raise UnprovenError("a derivative with respect to a rounding is not finite")
    return values, errors
