"""AMD's recursion: tables of derivatives that are swept alongside the values, k times from zero.

At a solved follower, with `Y` for ∇Q_F, `Q` for Q_L and `Z` for the derivative of Q_L plus what the response adds in
its own state, every sweep reads the old tables:

    Y ← ∇r_F + γ_F ∇P V_F + γ_F P Σ_a π Y,                                                                       (1)
    Z ← ∇r_L + γ_L ∇P V + (Y - Σ_a π Y) (Q - V) / β + γ_L P Σ_a π Z,     V = Σ_a π Q,                            (2)
    Q ← r_L + γ_L P V.                                                                                           (3)

The estimate is `Σ μ π Z`. Its fixed point is exact; after k sweeps each of three errors has shrunk by γ_F^k or γ_L^k,
in products that k comes in front of. Published runs sweep a hundred times from the tables of the iteration before.
"""

from __future__ import annotations

import numpy as np

from bilevelrl.reference.approximations.adjoints import steps_of
from bilevelrl.reference.approximations.approximation import Approximation, register_approximation
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import UnsupportedError
from bilevelrl.reference.problem import Objective
from bilevelrl.reference.tabular.error_bounds import dense_jacobian
from bilevelrl.reference.tabular.follower import solve_tabular
from bilevelrl.reference.tabular.model import TabularAt

__all__ = ["alternating_tables"]


def alternating_tables(at: TabularAt, objective: Objective, knob: float) -> FloatArray:
    """Return what the recursion has after k sweeps.

    Raises
    ------
    UnsupportedError
        For episodes of T steps: the tables know no time.
    """
    if objective.horizon is not None:
        raise UnsupportedError(f"horizon={objective.horizon}: AMD's tables know no time; expected None")
    problem, tables, kernel, count = at.problem, at.tables, at.kernel, at.theta.size
    follower = solve_tabular(at)
    policy, value = follower.policy, follower.value_without(at.constant)
    jacobian = problem.jacobian(at.theta)
    none = np.zeros((*policy.shape, count))
    moved = dense_jacobian(tables, jacobian["transition"]) if "transition" in jacobian else None

    def moving(ahead: FloatArray) -> FloatArray:
        return none if moved is None else np.einsum("satn,t->san", moved, ahead)

    def mean(table: FloatArray) -> FloatArray:
        result: FloatArray = np.matmul(policy[:, None, :], table.reshape(*policy.shape, -1))[:, 0]
        return result.reshape(len(policy), *table.shape[2:])

    source = jacobian.get("reward_follower", none) + problem.discount_follower * moving(value)
    direct, reward = jacobian.get("reward_leader", none), np.asarray(tables.reward_leader) - at.centres[1]
    heard, led, gained = none, none, np.zeros(policy.shape)
    for _ in range(steps_of(knob)):
        worth, known = mean(gained), mean(heard)
        guided = (heard - known[:, None]) * ((gained - worth[:, None]) / problem.temperature)[..., None]
        ahead = problem.discount_leader * (moving(worth) + np.tensordot(kernel, mean(led), axes=1))
        led = direct + guided + ahead  # (2)
        heard = source + problem.discount_follower * np.tensordot(kernel, known, axes=1)  # (1)
        gained = reward + problem.discount_leader * (kernel @ worth)  # (3)
    own = np.asarray(tables.initial) @ mean(led)
    own = own + (jacobian["initial"].T @ mean(gained) if "initial" in jacobian else 0.0)
    result: FloatArray = own + problem.regulariser_gradient(at.theta)
    return result


register_approximation(
    Approximation(
        name="alternating_tables",
        summary="AMD: tables of ∇Q_F, Q_L and ∇Q_L after k sweeps from zero at a solved follower",
        knob="sweeps",
        knobs=(1, 2, 5, 10, 20, 50, 100),
        geometric=True,
        rate=lambda at: max(at.problem.discount_follower, at.problem.discount_leader),
        source="Chen et al. (2022), as HPGD's release runs it: arXiv:2406.01575",
        function=alternating_tables,
    )
)
