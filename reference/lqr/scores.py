"""Cotangents of the matrices of linear-quadratic problems from weighted visits: what estimators weigh and sum.

With `e = x' - A x - B a` and `y = W^{-1} e`,

    ∇log N(x'; A x + B a, W):   Ā = y x',   B̄ = y a',   W̄ = ½ (y y' - W^{-1}),

and quadratic rewards give `Q̄ = -x x'`, `R̄ = -a a'`. A batch of any size turns into one cotangent per matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from bilevelrl.reference.arrays import FloatArray, check_shape, check_vectors
from bilevelrl.reference.errors import SupportError, UnsupportedError
from bilevelrl.reference.lqr.units import smallest_direction
from bilevelrl.reference.problem import Term, TransitionBatch

if TYPE_CHECKING:
    from bilevelrl.reference.lqr.matrices import LQRMatrices

__all__ = ["covariance_inverse", "gaussian_score", "lqr_cotangents", "weighted_outer", "weighted_sum"]


def covariance_inverse(name: str, covariance: FloatArray) -> FloatArray:
    """Return the inverse of a covariance, or raise.

    Raises
    ------
    SupportError
        If it is singular: the law has no density, and no score.

    Examples
    --------
    >>> covariance_inverse("noise_covariance", np.array([[4.0]]))
    array([[0.25]])
    """
    if not smallest_direction(covariance) > 1e-14:
        raise SupportError(
            f"{name}: smallest eigenvalue {np.linalg.eigvalsh(covariance)[0]:.3g}: expected a definite covariance for "
            "a score; a law without density has none: use an exact route, or add noise"
        )
    return np.asarray(np.linalg.inv(covariance), dtype=np.float64)


def weighted_outer(weight: FloatArray, left: FloatArray, right: FloatArray, per_stream: bool) -> FloatArray:
    """Return Σ_t w left right', (p, q), or one per stream."""
    if per_stream and weight.shape[1] == 1:  # products of single transitions need no matrix product each
        return np.asarray((left * weight[..., None])[:, 0, :, None] * right, dtype=np.float64)
    if per_stream:
        return np.asarray(np.matmul(np.swapaxes(left * weight[..., None], 1, 2), right), dtype=np.float64)
    scaled = (left * weight[..., None]).reshape(-1, left.shape[-1])
    return np.asarray(scaled.T @ right.reshape(-1, right.shape[-1]), dtype=np.float64)


def weighted_sum(weight: FloatArray, value: FloatArray, per_stream: bool) -> FloatArray:
    """Return Σ_t w value, (p,), or one per stream."""
    result: FloatArray = np.einsum("mt,mtp->mp" if per_stream else "mt,mtp->p", weight, value)
    return result


def gaussian_score(
    weight: FloatArray, residual: FloatArray, precision: FloatArray, per_stream: bool, *, covariance: bool = True
) -> tuple[FloatArray, FloatArray]:
    """Return the score's `y = precision · residual` (streams, steps, p), and the cotangent of the covariance.

    Without `covariance` the latter is not computed, and zero.
    """
    y = residual @ precision
    if not covariance:
        return y, np.zeros_like(precision)
    total = weight.sum(axis=1)[:, None, None] if per_stream else weight.sum()
    return y, 0.5 * (weighted_outer(weight, y, y, per_stream) - total * precision)


def lqr_cotangents(
    matrices: LQRMatrices,
    batch: TransitionBatch,
    weights: Mapping[Term, FloatArray],
    varying: frozenset[str],
    *,
    per_stream: bool,
) -> dict[str, FloatArray]:
    """Return {matrix name: Σ w ∂term/∂matrix}, each of the matrix's shape, with a leading axis when `per_stream`.

    Raises
    ------
    SupportError
        If a score is asked for whose covariance is singular.
    UnsupportedError
        If a term is not one of this kind of problem.
    """
    total: dict[str, FloatArray] = {}

    def add(name: str, value: FloatArray) -> None:
        total[name] = total[name] + value if name in total else value

    n, m = matrices.states, matrices.actions
    x, a = check_vectors("batch.state_t", batch.state_t, n), check_vectors("batch.action_t", batch.action_t, m)
    successor = check_vectors("batch.state_tp1", batch.state_tp1, n)
    for term, weight in weights.items():
        check_shape(f"weights[{term!r}]", weight, x.shape if term == "path_transition" else x.shape[:2], "per step")
        if term in ("reward_leader", "reward_follower"):
            player = "leader" if term == "reward_leader" else "follower"
            for name, visited in ((f"cost_state_{player}", x), (f"cost_action_{player}", a)):
                if name in varying:
                    add(name, -weighted_outer(weight, visited, visited, per_stream))
            if player == "leader":
                add("cost_constant_leader", -weight.sum(axis=1 if per_stream else None))
        elif term == "log_transition":
            if not varying.intersection(("dynamics_state", "dynamics_action", "noise_covariance")):
                continue
            precision = covariance_inverse("noise_covariance", matrices.noise_covariance)
            residual = successor - x @ matrices.dynamics_state.T - a @ matrices.dynamics_action.T
            y, covariance = gaussian_score(
                weight, residual, precision, per_stream, covariance="noise_covariance" in varying
            )
            for name, visited in (("dynamics_state", x), ("dynamics_action", a)):
                if name in varying:
                    add(name, weighted_outer(weight, y, visited, per_stream))
            if "noise_covariance" in varying:
                add("noise_covariance", covariance)
        elif term == "path_transition":
            ones = np.ones(weight.shape[:2])
            for name, visited in (("dynamics_state", x), ("dynamics_action", a)):
                if name in varying:
                    add(name, weighted_outer(ones, weight, visited, per_stream))
            if "noise_covariance" in varying:
                precision = covariance_inverse("noise_covariance", matrices.noise_covariance)
                residual = successor - x @ matrices.dynamics_state.T - a @ matrices.dynamics_action.T
                add("noise_covariance", 0.5 * weighted_outer(ones, weight, residual @ precision, per_stream))
        elif term == "log_initial":
            if not varying.intersection(("initial_mean", "initial_covariance")):
                continue
            precision = covariance_inverse("initial_covariance", matrices.initial_covariance)
            y, covariance = gaussian_score(weight, x - matrices.initial_mean, precision, per_stream)
            add("initial_mean", weighted_sum(weight, y, per_stream))
            add("initial_covariance", covariance)
        else:
            raise UnsupportedError(
                f"term={term!r}: a configurable LQR has no leader policy; expected a reward or a law of the states"
            )
    return total
