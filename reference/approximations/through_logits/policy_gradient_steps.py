"""Differentiating k policy-gradient steps of the follower; LOLA looks ahead by one.

A follower at its best response that climbs `φ ← φ + α ∂F/∂φ` has moved with θ, after k steps, by

    dφ_k = Σ_{j<k} (I - α β B)^j α ∂²_φθF = (I - (I - α β B)^k) (β B)^{-1} ∂²_φθF,                               (1)

B the Fisher information. Here α is the largest step that overshoots nowhere, 1/(β max eigenvalue of B). The error
shrinks by `1 - eigenvalue / largest` per step, for the eigenvalues of B that p and ∂²_φθF meet: what is seldom visited
or seldom chosen is waited for almost for ever, whatever the discount. A natural gradient's steps do not see B.
"""

from __future__ import annotations

import numpy as np

from bilevelrl.reference.approximations.adjoints import steps_of
from bilevelrl.reference.approximations.approximation import Approximation, register_approximation
from bilevelrl.reference.approximations.through_logits.follower import (
    Inverse,
    fisher_blocks,
    follower_at,
    through_inverse,
)
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.problem import Objective
from bilevelrl.reference.tabular.follower import solve_tabular
from bilevelrl.reference.tabular.model import TabularAt

__all__ = ["policy_gradient_steps", "waited"]

_SEEN = 1e-9
"""Of the largest eigenvalue: below it nothing is counted as seen."""


def waited(knob: float) -> Inverse:
    """Return what k steps of (1) have in place of the inverse."""
    steps = steps_of(knob)

    def inverse(blocks: FloatArray, pushed: FloatArray, beta: float) -> FloatArray:
        sizes, vectors = np.linalg.eigh(blocks)
        largest = float(sizes.max())
        shares = np.clip(sizes / largest, 0.0, 1.0)
        # (1 - (1-x)^k) / x without cancellation, k where x is nothing.
        grown = -np.expm1(steps * np.log1p(-np.minimum(shares, 1.0 - 1e-16)))
        count = np.where(shares > 0.0, grown / np.where(shares > 0.0, shares, 1.0), float(steps))
        along = np.matmul(vectors.transpose(0, 2, 1), pushed[:, :, None])[:, :, 0]
        found: FloatArray = np.matmul(vectors, (count * along)[:, :, None])[:, :, 0] / (beta * largest)
        return found

    return inverse


def policy_gradient_steps(at: TabularAt, objective: Objective, knob: float) -> FloatArray:
    """Return the gradient through the last k policy-gradient steps of a solved follower, (1)."""
    return through_inverse(at, objective, waited(knob))  # (1)


def _slowest(at: TabularAt) -> float:
    """Return 1 - least / largest of the eigenvalues of B that can be told from zero."""
    policy = solve_tabular(at).policy
    sizes = np.linalg.eigvalsh(fisher_blocks(follower_at(at, policy).visits, policy))
    told = sizes[sizes > _SEEN * sizes.max()]
    return float(1.0 - told.min() / told.max()) if told.size and told.min() < told.max() else 0.5


register_approximation(
    Approximation(
        name="policy_gradient_steps",
        summary="reverse mode through the last k policy-gradient steps of a solved follower; LOLA is k = 1",
        knob="steps",
        knobs=(1, 10, 100, 1000, 10_000, 100_000),
        geometric=True,
        rate=_slowest,
        source="Foerster et al. (2018), arXiv:1709.04326, k = 1",
        function=policy_gradient_steps,
    )
)
