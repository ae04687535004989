"""Expectations of sums along streams by occupancies: no path is listed, whatever the horizon.

For a chain with kernel K(s'|s, j), joint actions j ~ π(j|s) and streams of T steps,

    E Σ_t w_t x(s_t, j_t) = Σ_t w_t Σ_s d_t(s) Σ_j π(j|s) x(s, j),                                                 (1)

with d_t the law of s_t, and for a product of a factor now and a sum over what comes later,

    E Σ_t w_t b_t(s_t, j_t) Σ_{k≥t} v_{t,k} x(s_k, j_k)
        = Σ_t w_t Σ_{s,j} d_t(s) π(j|s) b_t(s, j) [v_{t,t} x(s, j) + Σ_s' K(s'|s, j) Σ_{k>t} v_{t,k} Z_{k-t-1}(s')], (2)

where Z_n(s) = E[x(s_n, j_n) | s_0 = s] is a power of the chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bilevelrl.reference.arrays import FloatArray

__all__ = ["Walk"]


@dataclass(frozen=True, kw_only=True)
class Walk:
    """A chain under a policy, followed for some steps.

    Attributes
    ----------
    initial : (S,)
        Law of the first state.
    policy : (S, J)
        Law of the joint action.
    kernel : (S, J, S)
        Rows that sum to less than one end.
    steps : int
        T.

    Examples
    --------
    >>> walk = Walk(initial=np.ones(1), policy=np.ones((1, 1)), kernel=np.full((1, 1, 1), 0.5), steps=3)
    >>> walk.plain(np.ones(3), np.ones((1, 1, 1)))
    array([1.75])
    >>> walk.guided(np.ones(3), np.ones((1, 1)), np.triu(np.ones((3, 3))), np.ones((1, 1, 1)))
    array([2.75])
    """

    initial: FloatArray
    policy: FloatArray
    kernel: FloatArray
    steps: int

    @cached_property
    def chain(self) -> FloatArray:
        """(S, S)."""
        result: FloatArray = np.einsum("sj,sjp->sp", self.policy, self.kernel)
        return result

    @cached_property
    def occupancy(self) -> FloatArray:
        """(T, S): the law of each step's state; what is left to one has ended."""
        found = [self.initial]
        for _ in range(self.steps - 1):
            found.append(found[-1] @ self.chain)
        return np.array(found)

    def first_visits(self) -> FloatArray:
        """(T, S): the probability that a state is met at a step and was not before."""
        states = len(self.initial)
        found = np.zeros((self.steps, states))
        for place in range(states):
            others = np.arange(states) != place
            law = self.initial
            for t in range(self.steps):
                found[t, place] = law[place]
                law = (law * others) @ self.chain
        return found

    def no_return(self) -> FloatArray:
        """(T, S, J): the probability that a pair taken at a step is not taken again within the stream."""
        states, joint = self.policy.shape
        ended = 1.0 - self.kernel.sum(axis=2)
        found = np.ones((self.steps, states, joint))
        for pair in np.ndindex(states, joint):
            others = self.policy.copy()
            others[pair] = 0.0
            clear = np.ones(states)  # of the pair, over the steps that are left
            for t in range(self.steps - 1, -1, -1):
                found[(t, *pair)] = self.kernel[pair] @ clear + ended[pair]
                clear = (others * (self.kernel @ clear + ended)).sum(axis=1)
        return found

    def plain(self, weights: FloatArray, table: FloatArray, *, occupancy: FloatArray | None = None) -> FloatArray:
        """Return (1) for weights (T,) or (T, S, J) and x (S, J, N)."""
        law = self.occupancy if occupancy is None else occupancy
        if weights.ndim == 1:
            pairs = (weights @ law)[:, None] * self.policy
        else:
            pairs = np.einsum("tsj,ts,sj->sj", weights, law, self.policy)
        result: FloatArray = np.tensordot(pairs, table, axes=2)
        return result

    def later(self, sums: FloatArray, table: FloatArray, end: FloatArray | None = None) -> FloatArray:
        """Return what stands in brackets in (2) without its first term, before K: (T, S, N).

        `sums` is v, (T, T); `end` (S, N) is read at the state where the stream is cut, with the weight v would have
        there next, (T,) in the last column of a `sums` of (T, T + 1).
        """
        mean = np.einsum("sj,sjn->sn", self.policy, table)
        powers = np.empty((max(self.steps - 1, 1), *mean.shape))
        for n in range(len(powers)):
            powers[n] = mean
            mean = self.chain @ mean
        by_gap = np.zeros((self.steps, max(self.steps - 1, 1)))
        for t in range(self.steps - 1):
            by_gap[t, : self.steps - 1 - t] = sums[t, t + 1 : self.steps]
        result = np.tensordot(by_gap, powers, axes=1)
        if end is not None:
            cut = end
            for t in range(self.steps - 1, -1, -1):
                result[t] += sums[t, self.steps] * cut
                cut = self.chain @ cut
        return np.asarray(result)

    def guided(
        self,
        weights: FloatArray,
        factor: FloatArray,
        sums: FloatArray,
        table: FloatArray,
        *,
        end: FloatArray | None = None,
        occupancy: FloatArray | None = None,
    ) -> FloatArray:
        """Return (2) for w (T,), b (S, J) or (T, S, J), v (T, T) and x (S, J, N); see `later`."""
        law = self.occupancy if occupancy is None else occupancy
        later = self.later(sums, table, end)
        taken = (weights[:, None] * law)[:, :, None] * self.policy * factor  # (T, S, J)
        now = np.tensordot(np.einsum("tsj,t->sj", taken, np.diagonal(sums)), table, axes=2)
        reached = np.einsum("tsj,sjp->tp", taken, self.kernel)
        result: FloatArray = now + np.tensordot(reached, later, axes=2)
        return result

    def guided_ahead(
        self, taken: FloatArray, factor: FloatArray, sums: FloatArray, joint: FloatArray, later: FloatArray
    ) -> FloatArray:
        """Return (2) for a factor (T, S, J, S + 1) that reads the state reached.

        `taken` is w_t d_t(s) π(j|s), `joint` K(s'|s, j) x(s, j, s') (S, J, S + 1, N), both with the end last, and
        `later` as `later` returns it.
        """
        now = np.tensordot(np.einsum("tsj,tsjp,t->sjp", taken, factor, np.diagonal(sums)), joint, axes=3)
        reached = np.einsum("tsj,sjp,tsjp->tp", taken, self.kernel, factor[..., :-1])
        result: FloatArray = now + np.tensordot(reached, later, axes=2)
        return result
