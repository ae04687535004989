"""Least-squares temporal differences on quadratic features, the shared part of all critics of configurable LQRs.

Under a linear Gaussian policy every discounted sum of quadratic rewards is quadratic in the state and action, or in the
state alone. So

    Σ ω φ (φ - γ φ')' w = Σ ω φ r                                                                                  (1)

with φ all products and a constant has no error of approximation; what is left is sampling, through the disturbance ξ of
the next state. A quadratic value varies by about |x| |ξ| + |ξ|², so
that the transitions far out, which count most, are the noisiest; `ω = 1 / (|x|² + tr W)` makes up for it. Any weight
that depends on the present state alone leaves the solution consistent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from bilevelrl.estimators.estimator import Context
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.reference.arrays import BoolArray, FloatArray, check_shape
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import EstimatorError, InvalidInputError, refusal

__all__ = [
    "QuadraticRegression",
    "RegressionInputs",
    "RegressionWeighting",
    "pack_quadratic",
    "quadratic_features",
    "unpack_quadratic",
]

RegressionInputs: TypeAlias = Literal["state", "state_action"]
"""What features are made of; next to a state and action stands the average over the policy at the next state."""

RegressionWeighting: TypeAlias = Literal["none", "precision"]
"""ω of each transition: 1, or 1 / (|x|² + tr W)."""


def quadratic_features(z: FloatArray, second: FloatArray | None = None) -> FloatArray:
    """Return all products z_i z_j, i ≤ j, and one, (features, samples).

    Parameters
    ----------
    z : (samples, k)
    second : (k, k)
        A covariance added to z z'.

    Examples
    --------
    >>> quadratic_features(np.array([[2.0, 3.0]]))[:, 0]
    array([4., 6., 9., 1.])
    """
    samples, k = z.shape
    across = np.ascontiguousarray(z.T)
    products = np.empty((k * (k + 1) // 2 + 1, samples))
    begin = 0
    for i, row in enumerate(across):
        np.multiply(row, across[i:], out=products[begin : begin + k - i])
        begin += k - i
    products[-1] = 1.0
    if second is not None:
        products[:-1] += second[np.triu_indices(k)][:, None]
    return products


def unpack_quadratic(weights: FloatArray, k: int) -> tuple[FloatArray, FloatArray]:
    """Return symmetric matrices (outputs, k, k) and offsets (outputs,) of `φ'w = -z'J z - offset`.

    Examples
    --------
    >>> matrices, offsets = unpack_quadratic(np.array([[-1.0], [-1.0], [-3.0], [2.0]]), 2)
    >>> matrices[0].tolist(), offsets.tolist()
    ([[1.0, 0.5], [0.5, 3.0]], [-2.0])
    """
    rows, columns = np.triu_indices(k)
    joint = np.zeros((weights.shape[1], k, k))
    joint[:, rows, columns] = -weights[:-1].T
    return 0.5 * (joint + np.swapaxes(joint, 1, 2)), -weights[-1]


def pack_quadratic(matrices: FloatArray, offsets: FloatArray) -> FloatArray:
    """Return the weights (features, outputs) of `-z'J z - offset`, the inverse of `unpack_quadratic`.

    Examples
    --------
    >>> pack_quadratic(np.array([[[1.0, 0.5], [0.5, 3.0]]]), np.array([-2.0]))[:, 0]
    array([-1., -1., -3.,  2.])
    """
    rows, columns = np.triu_indices(matrices.shape[1])
    doubled = np.where(rows == columns, -1.0, -2.0)
    both = 0.5 * (matrices[:, rows, columns] + matrices[:, columns, rows])
    return np.concatenate([(doubled * both).T, -offsets[None]])


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class QuadraticRegression:
    """The sums of a batch from which critics of any rewards and any discount are solved.

    Attributes
    ----------
    instruments : (F, samples)
        ω φ.
    products, products_next : (F, F)
        Σ ω φ φ' and Σ ω φ φ'_{t+1}.
    used : (streams, steps)
        Which transitions the samples are.
    dimension : int
        k, of what the features are made of.
    """

    instruments: FloatArray
    products: FloatArray
    products_next: FloatArray
    used: BoolArray
    dimension: int

    @classmethod
    @checked
    def of(
        cls,
        trajectories: Trajectories,
        context: Context,
        *,
        inputs: RegressionInputs = "state_action",
        weighting: RegressionWeighting = "none",
    ) -> QuadraticRegression:
        """Sum over all valid transitions; the observed next state of a truncated step counts.

        Raises
        ------
        UnknownNameError
            If an option is not known.
        """
        follower, used = context.follower, trajectories.valid
        whole = bool(used.all())

        def kept(entries: FloatArray) -> FloatArray:
            return entries.reshape(used.size, -1) if whole else entries[used]

        z, z_tp1 = kept(trajectories.state_t), kept(trajectories.state_tp1)
        weight = None
        if weighting == "precision":
            noise = context.problem.matrices_at(context.theta).noise_covariance
            weight = 1.0 / (np.vecdot(z, z) + max(float(np.trace(noise)), np.finfo(np.float64).tiny))
        spread = None
        if inputs == "state_action":
            n, m = z.shape[1], follower.covariance.shape[0]
            spread = np.zeros((n + m, n + m))
            spread[n:, n:] = follower.covariance
            z = np.concatenate([z, kept(trajectories.action_t)], axis=1)
            z_tp1 = np.concatenate([z_tp1, follower.mean(z_tp1)], axis=1)
        now, after = quadratic_features(z), quadratic_features(z_tp1, spread)
        weighed = now if weight is None else now * weight
        return cls(
            instruments=weighed,
            products=weighed @ now.T,
            products_next=weighed @ after.T,
            used=used,
            dimension=z.shape[1],
        )

    @checked
    def solve(self, moments: FloatArray, discount: float, *, ridge: float = 0.0) -> FloatArray:
        """Return the weights (F, outputs) of the critic.

        Parameters
        ----------
        moments : (F, outputs)
            Σ ω φ r.
        discount
            Of the critic.
        ridge
            Multiple of the identity added to the normal matrix, relative to its mean diagonal.

        Raises
        ------
        InvalidInputError
            If the ridge is negative.
        EstimatorError
            If the batch does not determine the critic.
        """
        if not ridge >= 0.0:
            raise InvalidInputError(f"ridge={ridge!r}: expected a number >= 0; 0 is plain least squares")
        if not 0.0 <= discount <= 1.0:
            raise InvalidInputError(refusal("discount", discount, "a number in [0, 1]", "1 is no discount"))
        size, samples = self.instruments.shape
        check_shape("moments", moments, (size, None), "one row per feature")
        scale = np.sqrt(np.diag(self.products) / samples)
        scale[scale == 0.0] = 1.0
        normal = (self.products - discount * self.products_next) / (scale[:, None] * scale)
        normal += ridge * np.trace(normal) / size * np.eye(size)
        if samples < size or not np.linalg.cond(normal) < 1e13:
            raise EstimatorError(
                f"least-squares critic: {samples} transitions do not determine {size} coefficients; "
                "sample more, or pass ridge > 0"
            )
        weights: FloatArray = np.linalg.solve(normal, moments / scale[:, None]) / scale[:, None]  # (1)
        return weights
