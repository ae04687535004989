"""Linear-quadratic problems given as doubles, as closed forms: matrices and Jacobians at θ, taken exactly as they are.

To first order a problem is `matrix + Σ_j t_j ∂matrix/∂θ_j`, a closed form that is affine in t and taken at t = 0. Only
the symmetric part of a cost or a covariance matters, so that is what enters.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.certified.closed_form import ClosedForm, ClosedFormTable, Exact, FeatureBlock, Kind
from bilevelrl.reference.lqr.model import ConfigurableLQR
from bilevelrl.reference.lqr_game.model import LQRGame

__all__ = ["lqr_as_closed_form", "lqr_game_as_closed_form"]

_SYMMETRIC = ("cost", "noise", "initial_covariance", "covariance", "width")


def _symmetric(array: FloatArray) -> Mapping[int, Exact]:
    """Return (M + M')/2 exactly, with the zeros left out."""
    size = len(array)
    found: dict[int, Exact] = {}
    for i in range(size):
        for j in range(size):
            number = (Fraction(float(array[i, j])) + Fraction(float(array[j, i]))) / 2
            if number:
                found[i * size + j] = number
    return found


def _table(name: str, value: object, jacobian: FloatArray | None) -> ClosedFormTable:
    array = np.asarray(value, dtype=np.float64)
    symmetric = name.startswith(_SYMMETRIC) and array.ndim == 2
    base = _symmetric(array) if symmetric else {e: float(x) for e, x in enumerate(array.ravel()) if x != 0.0}
    slope: list[tuple[int, int, Exact]] = []
    for j in range(0 if jacobian is None else jacobian.shape[-1]):
        moved = jacobian[..., j] if jacobian is not None else array
        entries = _symmetric(moved) if symmetric else {e: float(x) for e, x in enumerate(moved.ravel()) if x != 0.0}
        slope += [(e, j, number) for e, number in entries.items()]
    return ClosedFormTable(shape=array.shape, base=base, slope=tuple(slope))


def _closed_form(
    problem: ConfigurableLQR | LQRGame, kind: Kind, matrices: Mapping[str, object],
    jacobian: Mapping[str, FloatArray], parameters: int, horizon: int | None, discounted: bool,
) -> ClosedForm:  # fmt: skip
    return ClosedForm(
        kind=kind,
        name=problem.name,
        tables={name: _table(name, value, jacobian.get(name)) for name, value in matrices.items()},
        features=(FeatureBlock(link="identity", length=parameters),),
        theta=(0,) * parameters,
        discount_leader=problem.discount_leader,
        discount_follower=problem.discount_follower,
        temperature=problem.temperature,
        horizon=horizon,
        discounted=discounted,
    )


def lqr_as_closed_form(
    problem: ConfigurableLQR, theta: FloatArray, *, horizon: int | None, discounted: bool
) -> ClosedForm:
    """Return the first-order problem at θ."""
    matrices = problem.matrices_at(theta).differentiable()
    return _closed_form(problem, "configurable_lqr", matrices, problem.jacobian(theta), theta.size, horizon, discounted)


def lqr_game_as_closed_form(
    problem: LQRGame, theta: FloatArray, *, horizon: int | None, discounted: bool
) -> ClosedForm:
    """Return the first-order game at θ."""
    names = (
        "dynamics_state", "dynamics_action", "dynamics_leader", "cost_state", "cost_action", "target", "width",
        "initial_mean", "initial_covariance",
    )  # fmt: skip
    matrices = {name: getattr(problem, name) for name in names} | problem.policy_at(theta).differentiable()
    return _closed_form(problem, "lqr_game", matrices, problem.jacobian(theta), theta.size, horizon, discounted)
