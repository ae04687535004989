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

from bilevelrl.reference.approximations.adjoints import ruling_rate, steps_of
from bilevelrl.reference.approximations.approximation import Approximation, register_approximation
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import UnsupportedError
from bilevelrl.reference.problem import Objective
from bilevelrl.reference.tabular.error_bounds import dense_jacobian
from bilevelrl.reference.tabular.follower import TabularFollower, solve_tabular
from bilevelrl.reference.tabular.model import TabularAt

__all__ = ["AlternatingRecursion", "alternating_tables", "ruling_table"]

_SEEN = 1e-9  # of the largest share
_BASIS = 1e10


class AlternatingRecursion:
    """One sweep at a follower, and what the tables say.

    Parameters
    ----------
    at
        The problem at θ.
    follower
        Whose policy and values are read; None: the best response.
    """

    def __init__(self, at: TabularAt, follower: TabularFollower | None = None) -> None:
        self.at, self.problem = at, at.problem
        follower, jacobian = follower or solve_tabular(at), at.problem.jacobian(at.theta)
        self.policy, value = follower.policy, follower.value_without(at.constant)
        self.none = np.zeros((*self.policy.shape, at.theta.size))
        self.initial = jacobian.get("initial")
        self.moved = dense_jacobian(at.tables, jacobian["transition"]) if "transition" in jacobian else None
        ahead = self.problem.discount_follower * self.moving(value)
        self.source = jacobian.get("reward_follower", self.none) + ahead
        self.direct = jacobian.get("reward_leader", self.none)
        self.reward = np.asarray(at.tables.reward_leader) - at.centres[1]

    def moving(self, ahead: FloatArray) -> FloatArray:
        """Return Σ_s' ∇P V(s')."""
        return self.none if self.moved is None else np.einsum("satn,t->san", self.moved, ahead)

    def mean(self, table: FloatArray) -> FloatArray:
        """Return Σ_a π of a table (S, A, ...)."""
        result: FloatArray = np.matmul(self.policy[:, None, :], table.reshape(*self.policy.shape, -1))[:, 0]
        return result.reshape(len(self.policy), *table.shape[2:])

    def sweep(
        self, led: FloatArray, heard: FloatArray, gained: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the next Z, Y and Q."""
        problem, kernel, worth, known = self.problem, self.at.kernel, self.mean(gained), self.mean(heard)
        guided = (heard - known[:, None]) * ((gained - worth[:, None]) / problem.temperature)[..., None]
        ahead = problem.discount_leader * (self.moving(worth) + np.tensordot(kernel, self.mean(led), axes=1))
        return (
            self.direct + guided + ahead,  # (2)
            self.source + problem.discount_follower * np.tensordot(kernel, known, axes=1),  # (1)
            self.reward + problem.discount_leader * (kernel @ worth),  # (3)
        )

    def rests(self, source: FloatArray, discount: float) -> FloatArray:
        """Return the fixed point of table ← source + γ P Σ_a π table."""
        chain = np.matmul(self.policy[:, None, :], self.at.kernel)[:, 0, :]
        mean = np.linalg.solve(np.eye(len(chain)) - discount * chain, self.mean(source))
        result: FloatArray = source + discount * np.tensordot(self.at.kernel, mean, axes=1)
        return result


def alternating_tables(at: TabularAt, objective: Objective, knob: float) -> FloatArray:
    """Return what the recursion has after k sweeps.

    Raises
    ------
    UnsupportedError
        For episodes of T steps: the tables know no time.
    """
    if objective.horizon is not None:
        raise UnsupportedError(f"horizon={objective.horizon}: AMD's tables know no time; expected None")
    of = AlternatingRecursion(at)
    led, heard, gained = of.none, of.none, np.zeros(of.policy.shape)
    for _ in range(steps_of(knob)):
        led, heard, gained = of.sweep(led, heard, gained)
    own = np.asarray(at.tables.initial) @ of.mean(led)
    own = own + (of.initial.T @ of.mean(gained) if of.initial is not None else 0.0)
    result: FloatArray = own + at.problem.regulariser_gradient(at.theta)
    return result


def ruling_table(at: TabularAt) -> float:
    """Return the largest modulus among what rules Y and the eigenvalues of γ_L P_π by which Z reaches the estimate.

    A constant Z is among them wherever the chain goes on for ever and earns. NaN where P_π has no basis of
    eigenvectors.
    """
    of, problem = AlternatingRecursion(at), at.problem
    heard, gained = of.rests(of.source, problem.discount_follower), of.rests(of.reward, problem.discount_leader)
    source = of.mean(of.sweep(of.none, heard, gained)[0])
    chain = problem.discount_leader * np.matmul(of.policy[:, None, :], at.kernel)[:, 0, :]
    sizes, vectors = np.linalg.eig(chain)
    if np.linalg.cond(vectors) > _BASIS:
        return float("nan")
    start = np.asarray(at.tables.initial) @ vectors
    seen = np.abs(start) * np.linalg.norm(np.linalg.solve(vectors, source.astype(np.complex128)), axis=1)
    told = seen > _SEEN * seen.max(initial=0.0)
    return max(ruling_rate(at), float(np.abs(sizes[told]).max(initial=0.0)))


register_approximation(
    Approximation(
        name="alternating_tables",
        summary="AMD: tables of ∇Q_F, Q_L and ∇Q_L after k sweeps from zero at a solved follower",
        knob="sweeps",
        knobs=(1, 2, 5, 10, 20, 50, 100),
        geometric=True,
        rate=lambda at: max(at.problem.discount_follower, at.problem.discount_leader),
        rules=ruling_table,
        source="Chen et al. (2022), as HPGD's release runs it: arXiv:2406.01575",
        function=alternating_tables,
    )
)
