"""The total derivative with a Nyström inverse of r columns, as BLPO uses it.

    β B ≈ C W⁺ Cᵀ,   y = (C W⁺ Cᵀ + ρ I)^{-1} p = (p - C (ρ W + CᵀC)^{-1} Cᵀ p) / ρ,                           (1)

C being r columns of `β B`, W their crossing. Published runs draw the columns at random; here they are those of the
largest diagonal, and ρ is the published hundredth, of the largest entry. What the columns do not span is divided by ρ,
where its eigenvalue should be: seldom visited states are not left out but overrated, by `ρ / eigenvalue` the other way
round only once the columns reach them. With all columns it is the inverse damped by ρ.
"""

from __future__ import annotations

import numpy as np

from bilevelrl.reference.approximations.adjoints import steps_of
from bilevelrl.reference.approximations.approximation import Approximation, register_approximation
from bilevelrl.reference.approximations.through_logits.follower import Inverse, through_inverse
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.problem import Objective
from bilevelrl.reference.tabular.model import TabularAt

__all__ = ["columned", "nystroem"]

DAMPING = 1e-2


def columned(knob: float) -> Inverse:
    """Return (1) of so many columns; more than there are count as all."""
    wanted = steps_of(knob)

    def inverse(blocks: FloatArray, pushed: FloatArray, beta: float) -> FloatArray:
        states, actions = pushed.shape
        spread = np.zeros((states, actions, states, actions))
        spread[range(states), :, range(states), :] = beta * blocks
        matrix = spread.reshape(states * actions, -1)
        damping = DAMPING * float(np.abs(matrix).max())
        chosen = np.argsort(-np.diagonal(matrix), kind="stable")[:wanted]
        columns, crossing = matrix[:, chosen], matrix[np.ix_(chosen, chosen)]
        small = damping * crossing + columns.T @ columns
        pushed = pushed.ravel()
        found = (pushed - columns @ np.linalg.lstsq(small, columns.T @ pushed, rcond=1e-14)[0]) / damping  # (1)
        return np.asarray(found.reshape(states, actions))

    return inverse


def nystroem(at: TabularAt, objective: Objective, knob: float) -> FloatArray:
    """Return the gradient with (1)."""
    return through_inverse(at, objective, columned(knob))


register_approximation(
    Approximation(
        name="nystroem",
        summary="total derivative through the follower's logits with a Nyström inverse of r columns, damped",
        knob="columns",
        knobs=(1, 5, 20, 100, 500),
        geometric=False,
        rate=None,
        source="Prakash et al. (2025), arXiv:2505.11714; Hataya and Yamada (2023), arXiv:2302.09726",
        function=nystroem,
    )
)
