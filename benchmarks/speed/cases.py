"""What is timed: one exact hypergradient of Four-Rooms, the solves inside it, and the tape that it replaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import autograd
import numpy as np
from scipy.linalg.lapack import dgetrf, dgetrs

from bilevelrl.reference import (
    ConfigurableMDP,
    Hypergradient,
    TabularFollower,
    hypergradient,
    named_stream,
    solve_follower,
)
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.problem import Objective
from bilevelrl.reference.tabular import policy_transition, swept_objective
from bilevelrl.tasks import four_rooms

__all__ = ["WarmFourRooms", "reverse_mode", "warm_four_rooms"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmFourRooms:
    """Four-Rooms one ascent step after a solved point, as an outer loop meets it.

    Attributes
    ----------
    problem, theta
        Where the hypergradient is taken.
    previous
        The follower's solution one step earlier: the warm start.
    """

    problem: ConfigurableMDP
    theta: FloatArray
    previous: TabularFollower

    def gradient(self) -> Hypergradient:
        """One exact hypergradient, follower to 1e-12."""
        return hypergradient(self.problem, self.theta, warm_start=self.previous, bound=False)

    def bare_solves(self) -> Callable[[], object]:
        """Return the LAPACK calls of `gradient` and nothing else.

        Every Newton step factorises and solves once. Both discounts are equal, so the leader's values, the occupancy,
        the follower's adjoint and the condition number share one more factorisation.
        """
        newton = self.gradient().counters["factorisations"] - 1
        chain = policy_transition(self.problem.tables_at(self.theta).transition, self.previous.policy)
        matrix = np.asfortranarray(np.eye(chain.shape[0]) - self.problem.discount_follower * chain)
        ones = np.ones(chain.shape[0])

        def solves() -> None:
            for _ in range(newton):
                factor, pivots, _ = dgetrf(matrix)
                dgetrs(factor, pivots, ones)
            factor, pivots, _ = dgetrf(matrix)
            for transposed in (0, 1, 1, 0):
                dgetrs(factor, pivots, ones, trans=transposed)

        return solves

    def separate_solves(self) -> Callable[[], object]:
        """Return one `numpy.linalg.solve` per linear system: what a plain implementation calls."""
        systems = self.gradient().counters["linear_solves"]
        chain = policy_transition(self.problem.tables_at(self.theta).transition, self.previous.policy)
        matrix = np.eye(chain.shape[0]) - self.problem.discount_follower * chain
        ones = np.ones(chain.shape[0])

        def solves() -> None:
            for _ in range(systems):
                np.linalg.solve(matrix, ones)

        return solves


def warm_four_rooms(temperature: float = 0.003) -> WarmFourRooms:
    """Solve at a start drawn as in the paper, and take one ascent step of length at most 0.5."""
    problem = four_rooms(temperature=temperature)
    start = 0.01 * named_stream(0, "speed", "start").standard_normal(105)
    previous = solve_follower(problem, start)
    direction = hypergradient(problem, start, bound=False).value
    step = 0.5 * direction / max(1.0, float(np.linalg.norm(direction)))
    return WarmFourRooms(problem=problem, theta=start + step, previous=previous)


def reverse_mode(problem: ConfigurableMDP, theta: FloatArray, *, sweeps: int) -> FloatArray:
    """∇J by reverse mode through so many unrolled sweeps of the follower and of the leader."""

    def objective(x: FloatArray) -> object:
        return swept_objective(
            problem, (x, x, x, x, x), sweeps_follower=sweeps, sweeps_leader=sweeps, objective=Objective()
        )

    return np.asarray(autograd.grad(objective)(theta), dtype=np.float64)
