"""Matrices of a configurable LQR at one θ, and what is asked of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from bilevelrl.reference.arrays import FloatArray, Traced, check_shape, check_vectors
from bilevelrl.reference.derivatives.array_values import check_changes, differentiable_array
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, ShapeError, refusal
from bilevelrl.reference.lqr.units import smallest_direction

__all__ = ["MATRIX_NAMES", "LQRMatrices", "check_covariance", "check_matrices", "check_matrix"]

_TOLERANCE = 1e-12  # of asymmetry and of negative eigenvalues, relative to the largest entry; of definiteness


@dataclass(frozen=True, slots=True, kw_only=True)
class LQRMatrices:
    """The matrices of a configurable LQR at one θ, n state and m action dimensions; traceable by autograd.

    Attributes
    ----------
    dynamics_state : (n, n)
        A.
    dynamics_action : (n, m)
        B.
    noise_covariance : (n, n)
        W, positive semi-definite; scores of transitions need it definite.
    cost_state_follower : (n, n)
        Q, positive semi-definite.
    cost_action_follower : (m, m)
        R, positive definite.
    cost_state_leader : (n, n)
        C, symmetric.
    cost_action_leader : (m, m)
        D, symmetric.
    cost_constant_leader : ()
        k, paid in every step.
    initial_mean : (n,)
        m_0.
    initial_covariance : (n, n)
        Z_0, positive semi-definite.
    regulariser : ()
        ρ, added to the objective once.
    """

    dynamics_state: Traced
    dynamics_action: Traced
    noise_covariance: Traced
    cost_state_follower: Traced
    cost_action_follower: Traced
    cost_state_leader: Traced
    cost_action_leader: Traced
    initial_mean: Traced
    initial_covariance: Traced
    cost_constant_leader: Traced = 0.0
    regulariser: Traced = 0.0

    def __post_init__(self) -> None:
        for name, value in self.differentiable().items():
            object.__setattr__(self, name, differentiable_array(name, value))

    @property
    def states(self) -> int:
        """Dimension n of the state."""
        return int(np.shape(self.dynamics_action)[0])

    @property
    def actions(self) -> int:
        """Dimension m of the follower's action."""
        return int(np.shape(self.dynamics_action)[1])

    def differentiable(self) -> dict[str, Traced]:
        """Return {name: array}, the form in which derivatives are taken."""
        return {name: getattr(self, name) for name in MATRIX_NAMES}

    def reward_leader(self, state: object, action: object) -> Traced:
        """Return r_L = -(x'C x + a'D a) - k at states (..., n) and actions (..., m)."""
        state, action = check_vectors("state", state, self.states), check_vectors("action", action, self.actions)
        return -(
            np.vecdot(state @ self.cost_state_leader, state)
            + np.vecdot(action @ self.cost_action_leader, action)
            + self.cost_constant_leader
        )

    @checked
    def replace(self, changes: Mapping[str, Traced]) -> LQRMatrices:
        """Return a copy with some matrices replaced."""
        return replace(self, **check_changes(changes, MATRIX_NAMES))


MATRIX_NAMES: tuple[str, ...] = tuple(entry.name for entry in fields(LQRMatrices))


def check_matrix(name: str, value: Traced, shape: tuple[int, ...]) -> FloatArray:
    """Return a finite float64 array of a shape, or raise `ShapeError` or `InvalidInputError`.

    Examples
    --------
    >>> check_matrix("dynamics_action", [[1.0], [0.5]], (2, 1)).shape
    (2, 1)
    """
    check_shape(name, value, shape, "match the dimensions of dynamics_action")
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise ShapeError(refusal(f"{name}.dtype", str(array.dtype), "real numbers", "pass float64"))
    if not np.isfinite(array).all():
        raise InvalidInputError(refusal(name, array.tolist(), "finite numbers", "check the matrices at this θ"))
    return array.astype(np.float64, copy=False)


def check_covariance(name: str, value: FloatArray, *, definite: bool | None = False) -> None:
    """Refuse a matrix that is not symmetric, or not positive (semi-)definite; None asks for symmetry alone.

    Raises
    ------
    InvalidInputError
        With the smallest eigenvalue.
    """
    scale = float(np.abs(value).max(initial=0.0))
    if float(np.abs(value - value.T).max(initial=0.0)) > _TOLERANCE * scale:
        raise InvalidInputError(refusal(name, value.tolist(), "a symmetric matrix", "use its symmetric part"))
    if definite is None:
        return
    smallest = float(np.linalg.eigvalsh(value).min())
    if definite:
        if not smallest_direction(value) > _TOLERANCE:
            raise InvalidInputError(
                refusal(f"smallest eigenvalue of {name}", smallest, "positive", "make every direction count")
            )
    elif not smallest >= -_TOLERANCE * scale:
        raise InvalidInputError(
            refusal(f"smallest eigenvalue of {name}", smallest, "at least 0", "an indefinite matrix has no minimum")
        )


_DEFINITENESS: dict[str, bool | None] = {
    "noise_covariance": False,
    "cost_state_follower": False,
    "cost_action_follower": True,
    "cost_state_leader": None,
    "cost_action_leader": None,
    "initial_covariance": False,
}


def check_matrices(matrices: LQRMatrices, checked: Iterable[str] = ()) -> LQRMatrices:
    """Return the matrices as float64 arrays; `checked` names those known to be valid.

    Raises
    ------
    ShapeError
        If dimensions do not match.
    InvalidInputError
        If an entry is not finite, a cost or covariance not symmetric or not (semi-)definite.
    """
    shape = np.shape(matrices.dynamics_action)
    if len(shape) != 2 or min(shape) < 1:
        raise ShapeError(refusal("dynamics_action.shape", shape, "(n, m) with both >= 1", "one column per action"))
    n, m = shape
    shapes: dict[str, tuple[int, ...]] = {
        "dynamics_action": (n, m),
        "cost_action_follower": (m, m),
        "cost_action_leader": (m, m),
        "initial_mean": (n,),
        "cost_constant_leader": (),
        "regulariser": (),
    }
    arrays: dict[str, FloatArray] = {}
    known = frozenset(checked)
    for name, value in matrices.differentiable().items():
        if name in known:
            arrays[name] = value
            continue
        arrays[name] = check_matrix(name, value, shapes.get(name, (n, n)))
        if name in _DEFINITENESS:
            check_covariance(name, arrays[name], definite=_DEFINITENESS[name])
    return LQRMatrices(**arrays)
