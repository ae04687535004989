"""Large sparse systems I - γ P_π by Krylov iteration: no factor is formed, so memory stays linear in the states.

Half of the states of a map have no edges among themselves (the black squares of a chessboard; staying where one is does
not count). They are eliminated exactly. With the rows scaled to a unit diagonal, `A = D (I + N)`, and E the eliminated
states, C the others, what is left to iterate on is

    (I + N_CC - N_CE N_EC) x_C = b_C/D_C - N_CE b_E/D_E,      x_E = b_E/D_E - N_EC x_C,                            (1)

half as long and, since two steps of the process count as one, solved in half as many iterations. The transposed system
is the same with the blocks transposed and D on the other side.

A solve that has to be exact is refined until its residual is that of rounding, `|b - A x| ≤ u (|b| + |x|)` in the
2-norm. Whatever does not get there within its iterations is solved by a factorisation, and says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import breadth_first_order
from scipy.sparse.linalg import LinearOperator, bicgstab

from bilevelrl.reference.arrays import AnyArray, BoolArray, FloatArray, check_memory, is_frozen, refuse_differentiation
from bilevelrl.reference.tabular.transitions import DiscountedSystem, Matrix, SparseTransition, policy_transition

__all__ = ["DIRECT", "FELL_BACK", "KRYLOV", "KRYLOV_FROM", "KrylovSystem", "Pattern", "forcing", "solver_name"]

KRYLOV_FROM = 8_000
"""States beyond which sparse systems are iterated on: no bound is worked out there, which would count on a factor."""

DIRECT = ""
KRYLOV = "; linear systems by Krylov iteration"
FELL_BACK = "; linear systems by Krylov iteration, which stagnated, then by factorisation"

_FIRST, _LEAST = 1e-2, 1e-8  # relative residuals: of a first Newton step, and the smallest that one solve is asked for
_BASE, _PER_DECADE = 60, 60  # iterations of one solve
_REFINEMENTS = 4
_WORTH = 0.25  # share of states below which eliminating them costs more than it saves


def solver_name(*, iterated: bool, fell_back: bool) -> str:
    """Return what solved the linear systems, as the end of a status.

    Examples
    --------
    >>> solver_name(iterated=True, fell_back=False)
    '; linear systems by Krylov iteration'
    """
    return FELL_BACK if fell_back else KRYLOV if iterated else DIRECT


def forcing(residual: float, before: float | None) -> float:
    """Return how exactly to solve for a Newton step: two digits at first, as many as it can use once it converges.

    Examples
    --------
    >>> forcing(1.0, None), forcing(1e-6, 1e-3)
    (0.01, 1e-07)
    """
    if before is None:
        return _FIRST
    return min(_FIRST, max(0.1 * (residual / before) ** 2, _LEAST))


class Pattern:
    """Which states a sparse kernel links, and which of them are eliminated; the same for every policy.

    Attributes
    ----------
    kernel
        The kernel.
    columns : (S, W)
        Successors of each state under any action.
    shared : bool
        Whether every action lists the same successors, W = K; else W = A K.
    eliminated, kept : (E,), (C,)
        States without an edge among themselves, and the others.
    """

    def __init__(self, kernel: SparseTransition) -> None:
        self.kernel = kernel
        given = kernel.successor
        states = given.shape[0]
        self.shared = given.strides[1] == 0 or bool((given == given[:, :1]).all())
        linked = given[:, 0] if self.shared else given.reshape(states, -1)
        self.columns: AnyArray = linked.astype(np.int32)
        own = self.columns == np.arange(states, dtype=np.int32)[:, None]
        out = self._independent(own)
        self.eliminated, self.kept = (np.flatnonzero(which).astype(np.int32) for which in (out, ~out))
        place = np.empty(states, dtype=np.int32)
        for group in (self.eliminated, self.kept):
            place[group] = np.arange(group.size, dtype=np.int32)
        into = out[self.columns]
        self._blocks = [
            self._block(self.eliminated, ~into & ~own, place),
            self._block(self.kept, into, place),
            self._block(self.kept, ~into & ~own, place),
        ]
        self._own = own

    def _independent(self, own: BoolArray) -> BoolArray:
        """Return which states to eliminate: of odd distance from the first one, without an edge to another such."""
        states, width = self.columns.shape
        pointers = np.arange(0, states * width + 1, width, dtype=np.int32)
        graph = scipy.sparse.csr_array(
            (np.ones(states * width, dtype=np.float32), self.columns.ravel(), pointers), (states, states)
        )
        _, ancestor = breadth_first_order(graph, 0, directed=False)
        reached = ancestor >= 0
        odd = reached.copy()
        reached[0] = True
        ancestor = np.where(odd, ancestor, np.arange(states, dtype=np.int32))
        while ancestor[reached].any():  # by doubling: the distance to the ancestor's ancestor is the sum of two
            odd, ancestor = odd ^ odd[ancestor], ancestor[ancestor]
        odd &= ~(odd[self.columns] & ~own).any(axis=1)
        return np.asarray(odd) if odd.mean() >= _WORTH else np.zeros(states, dtype=np.bool_)

    def _block(self, rows: AnyArray, used: BoolArray, place: AnyArray) -> tuple[AnyArray, BoolArray] | None:
        """Return a block's columns and which of its entries count; None where none does."""
        counts = used[rows]
        return (np.where(counts, place[self.columns[rows]], 0).ravel(), counts) if counts.any() else None

    @classmethod
    def of(cls, kernel: object, memory: dict[str, object]) -> Pattern | None:
        """Return the pattern of a kernel that is iterated on, kept in a problem's memory; None: it is factorised."""
        if not isinstance(kernel, SparseTransition) or kernel.shape[0] <= KRYLOV_FROM:
            return None
        known = memory.get("pattern")
        if isinstance(known, Pattern) and known.kernel is kernel and is_frozen(kernel.successor):
            return known
        states, actions, _ = kernel.shape
        wide = kernel.successor[0].size if kernel.successor.strides[1] else kernel.successor.shape[2]
        check_memory("transition", states * (24 * wide + 64 * actions + 256), "a hypergradient", "solve fewer states")
        found = memory["pattern"] = cls(kernel)
        return found

    def pushed(self, weight: FloatArray) -> FloatArray:
        """Return Σ_(s,a) weight(s, a) P(s'|s,a), (S,)."""
        flow = self.mixed(weight)
        pushed = np.bincount(self.columns.ravel(), weights=flow.ravel(), minlength=len(weight))
        return pushed.astype(np.float64, copy=False)

    def mixed(self, weight: FloatArray) -> FloatArray:
        """Return Σ_a weight(s, a) P(s'|s,a) at the columns, (S, W)."""
        if self.shared:
            return cast(FloatArray, np.einsum("sa,sak->sk", weight, self.kernel.probability))
        listed: FloatArray = weight[:, :, None] * self.kernel.probability
        return listed.reshape(self.columns.shape)

    def split(self, entries: FloatArray) -> tuple[FloatArray, list[Matrix]]:
        """Return D (S,) and the blocks N_EC, N_CE, N_CC (None: empty) of `I - entries`, entries (S, W)."""
        diagonal = 1.0 - (entries * self._own).sum(axis=1)
        scaled = entries / -diagonal[:, None]
        size = self.eliminated.size, self.kept.size
        shapes = [(size[0], size[1]), (size[1], size[0]), (size[1], size[1])]
        blocks: list[Matrix] = []
        for block, rows, shape in zip(self._blocks, (self.eliminated, self.kept, self.kept), shapes, strict=True):
            if block is None:
                blocks.append(None)
                continue
            columns, counts = block
            pointers = np.arange(0, columns.size + 1, entries.shape[1], dtype=np.int32)
            blocks.append(scipy.sparse.csr_array(((scaled[rows] * counts).ravel(), columns, pointers), shape))
        return diagonal, blocks


class KrylovSystem:
    """I - γ P_π by BiCGStab on what elimination leaves; the operations of `DiscountedSystem`.

    Attributes
    ----------
    discount : float
        γ.
    pattern
        What the kernel links.
    iterations : int
        Of all solves so far.
    """

    def __init__(self, pattern: Pattern, policy: FloatArray, discount: float) -> None:
        refuse_differentiation("KrylovSystem", pattern.kernel.probability, policy)
        self.pattern, self.discount, self.iterations = pattern, discount, 0
        self._policy = policy
        self._diagonal, self._blocks = pattern.split(discount * pattern.mixed(policy))
        self._unit = (pattern.columns.shape[1] + 8) * float(np.finfo(np.float64).eps)
        self._direct: DiscountedSystem | None = None

    @property
    def factorisations(self) -> int:
        """One where a solve did not converge, else none."""
        return int(self._direct is not None)

    def at_discount(self, discount: float) -> KrylovSystem:
        """Return the system of the same P_π at another discount; itself at its own."""
        return self if discount == self.discount else KrylovSystem(self.pattern, self._policy, discount)

    def solve(self, right_hand_side: FloatArray) -> FloatArray:
        """Return (I - γ P_π)^{-1} b for b (S,), to rounding."""
        return self._exact(right_hand_side, transposed=False)

    def solve_transposed(self, right_hand_side: FloatArray) -> FloatArray:
        """Return (I - γ P_πᵀ)^{-1} b for b (S,), to rounding."""
        return self._exact(right_hand_side, transposed=True)

    def condition(self) -> float:
        """The condition number in the maximum norm; exact, because the inverse has no negative entry."""
        stays = 1.0 - self._diagonal
        row_sums = self.discount * self.pattern.mixed(self._policy).sum(axis=1)
        return float((1.0 + row_sums - 2.0 * stays).max()) * float(self.solve(np.ones(stays.size)).max())

    def approximate(
        self, right_hand_side: FloatArray, accuracy: float, *, transposed: bool = False
    ) -> FloatArray | None:
        """Return x with |b - A x| ≤ accuracy |b| in the 2-norm, or None where the iteration does not get there."""
        out, kept = self.pattern.eliminated, self.pattern.kept
        first, back, rest = self._blocks
        if not transposed:
            right_hand_side = right_hand_side / self._diagonal
        elif first is not None:
            first, back, rest = back.T, first.T, None if rest is None else rest.T
        elif rest is not None:
            rest = rest.T
        own, other = right_hand_side[out], right_hand_side[kept]
        if first is not None:
            other = other - back @ own

        def product(x: FloatArray) -> FloatArray:
            found = x if first is None else x - back @ (first @ x)
            return cast(FloatArray, found if rest is None else found + rest @ x)  # (1)

        found = self._iterate(product, other, accuracy * float(np.linalg.norm(right_hand_side)), accuracy)
        if found is None:
            return None
        result = np.empty(right_hand_side.size)
        result[kept] = found
        result[out] = own if first is None else own - first @ found  # (1)
        return result / self._diagonal if transposed else result

    def _iterate(
        self, product: Callable[[FloatArray], FloatArray], right: FloatArray, allowed: float, accuracy: float
    ) -> FloatArray | None:
        def count(_: object) -> None:
            self.iterations += 1

        size = float(np.linalg.norm(right))
        if size <= allowed:
            return np.zeros(right.size)
        operator = LinearOperator((right.size, right.size), matvec=product, dtype=np.float64)
        limit = _BASE + int(_PER_DECADE * max(-np.log10(accuracy), 1.0))
        with np.errstate(all="ignore"):  # a breakdown is told by what it leaves
            # SciPy takes scalar products below ε² for a breakdown, whatever the size of the right-hand side.
            found, failed = bicgstab(operator, right / size, rtol=allowed / size, maxiter=limit, callback=count)
        return None if failed or not np.isfinite(found).all() else size * np.asarray(found, dtype=np.float64)

    def product(self, x: FloatArray, *, transposed: bool = False) -> FloatArray:
        """Return A x or Aᵀ x, (S,)."""
        out, kept = self.pattern.eliminated, self.pattern.kept
        first, back, rest = self._blocks
        inner = self._diagonal * x if transposed else x
        result = inner.copy()
        own, other = inner[out], inner[kept]
        if rest is not None:
            result[kept] += (rest.T if transposed else rest) @ other
        if first is not None:
            result[out] += back.T @ other if transposed else first @ other
            result[kept] += first.T @ own if transposed else back @ own
        return result if transposed else self._diagonal * result

    def _exact(self, right_hand_side: FloatArray, *, transposed: bool) -> FloatArray:
        """Refine to the residual of rounding, or factorise."""
        right = np.asarray(right_hand_side, dtype=np.float64)
        x, residual, accuracy = np.zeros(right.shape), right, _LEAST
        size = norm = float(np.linalg.norm(right))
        for _ in range(_REFINEMENTS if self._direct is None and right.ndim == 1 else 0):
            step = self.approximate(residual, accuracy, transposed=transposed)
            if step is None:
                break
            x += step
            residual = right - self.product(x, transposed=transposed)
            left, size = float(np.linalg.norm(residual)), norm + float(np.linalg.norm(x))
            if left <= self._unit * size:
                return x
            accuracy = min(0.1, max(0.3 * self._unit * size / left, _LEAST))
        if self._direct is None:
            chain = policy_transition(self.pattern.kernel, self._policy)
            self._direct = DiscountedSystem.factorise(chain, self.discount)
        return self._direct.solve_transposed(right) if transposed else self._direct.solve(right)
