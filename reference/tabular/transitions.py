"""Transition kernels, dense or sparse, behind the same few operations.

Conventions
-----------
A dense kernel is an array `(S, A, S)` indexed `[state_t, action_t, state_tp1]`. A sparse kernel lists K successors per
state and action: `successor (S, A, K)` (integers, constants) and `probability (S, A, K)` (may depend on θ). A successor
may be listed twice; its probabilities add.

A row whose sum is within `ROW_SUM_TOLERANCE` of one is a law that was rounded, and means the row divided by its exact
sum: the episode goes on for certain. Every other row may sum to less than one and is taken as the doubles that it
is: the rest is the probability of termination, after which everything is worth zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from scipy.linalg.lapack import dgetrf, dgetrs

from bilevelrl.reference.arrays import BoolArray, FloatArray, IntArray, Traced, check_memory, refuse_differentiation
from bilevelrl.reference.derivatives.array_values import differentiable_array
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import IllPosedError, InvalidInputError, ShapeError, StochasticityError, refusal

__all__ = [
    "DiscountedSystem",
    "Matrix",
    "SparseTransition",
    "Transition",
    "check_rows",
    "check_transition",
    "divided",
    "expected_next",
    "factorised_in_place",
    "is_law",
    "law_error",
    "policy_transition",
    "to_dense",
    "transition_shape",
]

# How far rounding takes a law's sum from one. One number for every layout and size of a row, so that a problem does not
# change its meaning with them: thousands of terms stay below it, single precision and a termination of 1e-9 are above.
ROW_SUM_TOLERANCE = 1e-12


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class SparseTransition:
    """A kernel as a list of K successors per state and action.

    Parameters
    ----------
    successor
        (S, A, K) integers in [0, S).
    probability
        (S, A, K), non-negative, sums over K at most 1, read as float64. May be an autograd tracer.

    Raises
    ------
    ShapeError
        If the two shapes differ or do not have three axes.
    InvalidInputError
        If a successor is outside [0, S).

    Examples
    --------
    >>> kernel = SparseTransition(successor=np.array([[[0, 1]], [[1, 1]]]), probability=np.full((2, 1, 2), 0.5))
    >>> kernel.to_dense()[:, 0]
    array([[0.5, 0.5],
           [0. , 1. ]])
    """

    successor: IntArray
    probability: Traced

    def __post_init__(self) -> None:
        object.__setattr__(self, "probability", differentiable_array("probability", self.probability))
        if np.ndim(self.successor) != 3 or np.shape(self.successor) != np.shape(self.probability):
            raise ShapeError(
                refusal(
                    "SparseTransition shapes",
                    (np.shape(self.successor), np.shape(self.probability)),
                    "successor and probability both (S, A, K)",
                    "list the same number of successors for every pair; pad with probability 0",
                )
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(S, A, S), as for a dense kernel."""
        states, actions, _ = self.successor.shape
        return (states, actions, states)

    def to_dense(self) -> FloatArray:
        """Return the kernel as an (S, A, S) array."""
        states, actions, _ = self.shape
        check_memory("transition", 8.0 * states * actions * states, "a dense kernel", "use what takes sparse ones")
        dense = np.zeros(
            (states, actions, states), dtype=np.asarray(self.probability).dtype
        )  # complex in a complex step
        rows, columns = np.ogrid[:states, :actions]
        for k in range(self.successor.shape[2]):
            np.add.at(dense, (rows, columns, self.successor[:, :, k]), self.probability[:, :, k])
        return dense


Matrix: TypeAlias = Any  # dense or sparse, (S, S)
Transition: TypeAlias = Traced  # an (S, A, S) array, a SparseTransition, or either of them under autograd


def transition_shape(transition: Transition) -> tuple[int, ...]:
    """Return (S, A, S) for either representation."""
    return tuple(np.shape(transition))


def to_dense(transition: Transition) -> FloatArray:
    """Return an (S, A, S) array whatever the representation."""
    if isinstance(transition, SparseTransition):
        return transition.to_dense()
    result: FloatArray = transition
    return result


def is_law(rows: FloatArray) -> BoolArray:
    """Tell which rows (last axis) sum to one as far as rounding allows, and so mean themselves divided by their sum.

    Examples
    --------
    >>> is_law(np.array([[0.1, 0.2, 0.7], [0.1, 0.2, 0.69]]))
    array([ True, False])
    """
    result: BoolArray = np.abs(rows.sum(axis=-1) - 1.0) <= ROW_SUM_TOLERANCE
    return result


def divided(rows: FloatArray) -> FloatArray:
    """Return rows with each law divided by its sum in floating point, read-only.

    Examples
    --------
    >>> divided(np.array([[0.5, 0.5 + 2.0**-50], [0.5, 0.25]])).sum(axis=1)
    array([1.  , 0.75])
    """
    sums = rows.sum(axis=-1, keepdims=True)
    result: FloatArray = rows / np.where(is_law(rows)[..., None], sums, 1.0)
    result.setflags(write=False)
    return result


def law_error(*tables: Traced) -> float:
    """Return the sum over tables of the largest |sum - 1| of their laws: what reading them as doubles can be off by.

    Examples
    --------
    >>> law_error(np.array([0.5, 0.5]), np.array([[0.25, 0.5], [0.5, 0.5 + 2.0**-50]])) * 2.0**50
    1.0
    """
    off = 0.0
    for table in tables:
        rows = table.probability if isinstance(table, SparseTransition) else table
        excess = np.abs(rows.sum(axis=-1) - 1.0)
        off += float(np.where(excess <= ROW_SUM_TOLERANCE, excess, 0.0).max(initial=0.0))
    return off


def check_rows(name: str, rows: Traced, remedy: str) -> None:
    """Refuse probability rows (last axis) that are not finite, negative, sum to more than one, or to one in float32.

    Sums are taken in float64, whatever the rows are stored in. Rows of half- or single-precision numbers that miss one
    by no more than such numbers must are refused on either side of one: an episode that ends with probability 6e-8 is
    not what is meant.

    Raises
    ------
    StochasticityError
        Naming the first offending row.
    """
    values = np.asarray(rows, dtype=np.float64)
    sums = np.asarray(values.sum(axis=-1))
    if not np.isfinite(sums).all():
        index = _first(~np.isfinite(sums))
        raise StochasticityError(
            refusal(f"{name}{index}", values[tuple(index)].tolist(), "finite probabilities", remedy)
        )
    if values.size and values.min() < 0.0:
        index = _first(values < 0.0)
        raise StochasticityError(refusal(f"{name}{index}", float(values[tuple(index)]), "probabilities >= 0", remedy))
    off = np.abs(sums - 1.0)
    near = (off > ROW_SUM_TOLERANCE) & (off <= 2.0**-11 * values.shape[-1]) & (np.count_nonzero(values, axis=-1) > 1)
    for kind, precision in ((np.float16, "half"), (np.float32, "single")) if near.any() else ():
        narrow = np.asarray(near & (off <= 0.5 * float(np.finfo(kind).eps) * np.count_nonzero(values, axis=-1)))
        narrow[narrow] = (values[narrow].astype(kind) == values[narrow]).all(axis=-1)
        if narrow.any():
            index = _first(narrow)
            expected = f"1 within {ROW_SUM_TOLERANCE:g}: its numbers have {precision} precision"
            remedy = "convert the table to float64 first, then divide each row by its sum"
            raise StochasticityError(refusal(f"sum of {name}{index}", float(sums[tuple(index)]), expected, remedy))
    if sums.max(initial=0.0) > 1.0 + ROW_SUM_TOLERANCE:
        index = _first(sums > 1.0 + ROW_SUM_TOLERANCE)
        raise StochasticityError(
            refusal(f"sum of {name}{index}", float(sums[tuple(index)]), "at most 1 (less means termination)", remedy)
        )


def _first(mask: BoolArray) -> list[int]:
    return [int(i) for i in np.argwhere(mask)[0]]


def check_transition(transition: Transition) -> None:
    """Refuse a kernel whose rows are not (sub-)stochastic or whose successors are out of range."""
    remedy = "normalise each row over state_tp1; leave out mass only where the episode terminates"
    if isinstance(transition, SparseTransition):
        low, high = int(transition.successor.min()), int(transition.successor.max())
        if low < 0 or high >= transition.shape[0]:
            raise InvalidInputError(
                refusal("successor range", (low, high), f"indices in [0, {transition.shape[0]})", "renumber the states")
            )
        check_rows("transition", transition.probability, remedy)
    else:
        check_rows("transition", transition, remedy)


def expected_next(transition: Transition, values: Traced) -> Traced:
    """Return Σ_s' P(s'|s,a) values(s'), shape (S, A) or (S, A, N), for values (S,) or (S, N).

    Examples
    --------
    >>> expected_next(np.array([[[0.0, 1.0]], [[0.5, 0.0]]]), np.array([1.0, 2.0]))
    array([[2. ],
           [0.5]])
    """
    if isinstance(transition, SparseTransition):
        if transition.successor.strides[1] == 0 and values.ndim == 1:  # one list of successors for all actions
            return np.einsum("sak,sk->sa", transition.probability, values[transition.successor[:, 0]])
        gathered = values[transition.successor]  # (S, A, K[, N])
        if gathered.ndim == 3:
            return np.einsum("sak,sak->sa", transition.probability, gathered)
        return np.einsum("sak,sakn->san", transition.probability, gathered)
    states, actions, _ = transition.shape
    product = transition.reshape(states * actions, states) @ values
    return product.reshape(states, actions, *values.shape[1:])


def policy_transition(transition: Transition, policy: Traced) -> Matrix:
    """Return P_π (S, S) = Σ_a π(a|s) P(s'|s,a); a CSR matrix where the kernel is sparse."""
    if isinstance(transition, SparseTransition):
        states, _, _ = transition.shape
        weights = policy[:, :, None] * transition.probability
        per_row = weights[0].size  # every row lists A·K successors, so the row pointers are known
        pointers = np.arange(0, weights.size + 1, per_row)
        matrix = scipy.sparse.csr_array((weights.ravel(), transition.successor.flatten(), pointers), (states, states))
        matrix.sum_duplicates()  # sorts in place, hence the copy of the successors
        return matrix
    return np.matmul(policy[:, None, :], transition)[:, 0, :]


def factorised_in_place(matrix: FloatArray) -> Callable[[FloatArray, bool], FloatArray]:
    """Return the solver (b, transposed?) of I - γ P_π (S, S), in C order, which holds its factors from then on.

    Raises
    ------
    IllPosedError
        If the matrix is singular, as it is at discount 1 where the process never ends.
    """
    # LAPACK reads columns first: it is given the transpose, which costs no copy, and solves with it transposed.
    # At 100 states SciPy's checked wrappers would cost as much as the factorisation.
    lu, pivots, zero_pivot = dgetrf(matrix.T, overwrite_a=True)
    if zero_pivot:
        raise IllPosedError(
            refusal("I - γ P_π", f"pivot {zero_pivot} is zero", "a regular matrix", "discount below one")
        )
    return lambda rhs, transposed: dgetrs(lu, pivots, rhs, trans=int(not transposed))[0]


@dataclass(frozen=True, slots=True)
class DiscountedSystem:
    """A factorisation of I - γ P_π, for any number of solves with it and with its transpose.

    Examples
    --------
    >>> system = DiscountedSystem.factorise(np.array([[0.5]]), 0.5)
    >>> system.solve(np.array([3.0])), system.solve_transposed(np.array([3.0]))
    (array([4.]), array([4.]))
    """

    policy_matrix: Matrix
    discount: float
    _solve: Callable[[FloatArray, bool], FloatArray]

    factorisations = 1
    iterations = 0

    @classmethod
    def factorise(cls, policy_matrix: Matrix, discount: float) -> DiscountedSystem:
        """Factorise once: LAPACK for arrays, SuperLU for sparse matrices.

        Raises
        ------
        IllPosedError
            If the matrix is singular, as it is at discount 1 where the process never ends.
        """
        refuse_differentiation("DiscountedSystem", policy_matrix)
        size = policy_matrix.shape[0]
        if not isinstance(policy_matrix, np.ndarray):
            identity: Matrix = scipy.sparse.eye_array(size, format="csc")
            matrix = (identity - discount * policy_matrix).tocsc()
            # Rows are diagonally dominant: a fill-reducing order of the symmetric pattern needs no pivoting.
            factor = scipy.sparse.linalg.splu(
                matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
            )
            solve: Any = factor.solve
            return cls(policy_matrix, discount, lambda rhs, transposed: solve(rhs, "T" if transposed else "N"))
        matrix = -discount * policy_matrix
        matrix.flat[:: size + 1] += 1.0
        return cls(policy_matrix, discount, factorised_in_place(matrix))

    def at_discount(self, discount: float) -> DiscountedSystem:
        """Return the system of the same P_π at another discount; itself, without a new factorisation, at its own."""
        return self if discount == self.discount else self.factorise(self.policy_matrix, discount)

    def solve(self, right_hand_side: FloatArray) -> FloatArray:
        """Return (I - γ P_π)^{-1} b for b (S,) or (S, N)."""
        result: FloatArray = self._solve(right_hand_side, False)
        return result

    def solve_transposed(self, right_hand_side: FloatArray) -> FloatArray:
        """Return (I - γ P_πᵀ)^{-1} b for b (S,) or (S, N)."""
        result: FloatArray = self._solve(right_hand_side, True)
        return result

    def condition(self) -> float:
        """The condition number in the maximum norm; exact, because the inverse has no negative entry."""
        chain = self.policy_matrix
        ones = np.ones(chain.shape[0])
        norm = float((1.0 + self.discount * (chain @ ones - 2.0 * chain.diagonal())).max())
        return norm * float(self.solve(ones).max())
