"""The total derivative with a damped inverse, as Stackelberg actor-critics and ST-MADDPG regularise it.

    ∇J ≈ ∂_θJ + pᵀ (β B + λ I)^{-1} ∂²_φθF,    λ = knob · β max B,                                               (1)

at a solved follower, whose Hessian is -β B with B its Fisher information: (1) is the natural gradient's form too.
What a state adds to the response is shrunk by `β d π / (β d π + λ)`, roughly: first of all what is seldom visited or
seldom chosen. Off by O(λ) once λ is below the least eigenvalue that p meets.
"""

from __future__ import annotations

import numpy as np

from bilevelrl.reference.approximations.approximation import Approximation, register_approximation
from bilevelrl.reference.approximations.through_logits.follower import Inverse, through_inverse
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.reference.problem import Objective
from bilevelrl.reference.tabular.model import TabularAt

__all__ = ["damped", "damped_inverse"]


def damped(knob: float) -> Inverse:
    """Return the damped inverse of (1).

    Raises
    ------
    InvalidInputError
        If the damping is no positive number.
    """
    if isinstance(knob, bool) or not 0.0 < knob < np.inf:
        raise InvalidInputError(refusal("knob", knob, "a positive number", "damp by a hundredth of the Hessian"))

    def inverse(blocks: FloatArray, pushed: FloatArray, beta: float) -> FloatArray:
        matrix = beta * blocks + knob * beta * float(np.abs(blocks).max()) * np.eye(blocks.shape[1])
        return np.asarray(np.linalg.solve(matrix, pushed[:, :, None])[:, :, 0], dtype=np.float64)

    return inverse


def damped_inverse(at: TabularAt, objective: Objective, knob: float) -> FloatArray:
    """Return (1)."""
    return through_inverse(at, objective, damped(knob))


register_approximation(
    Approximation(
        name="damped_inverse",
        summary="total derivative through the follower's logits, its Hessian (here the Fisher information) damped",
        knob="λ over the largest entry",
        knobs=(1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-6, 1e-8),
        geometric=False,
        rate=lambda at: 1.0,
        source="Zheng et al. (2022), arXiv:2109.12286; Yang et al. (2023), arXiv:2305.03735",
        function=damped_inverse,
    )
)
