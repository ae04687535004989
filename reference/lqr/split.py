"""The objective of linear-quadratic problems as a function of one θ per part: what finite differences know of them.

The follower's Riccati equation is solved by SciPy where the θ that it reads is moved: a solver that other routes do not
start from.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import IllPosedError, InvalidInputError, NotConvergedError
from bilevelrl.reference.lqr.error_bounds import lqr_error_bounds
from bilevelrl.reference.lqr.follower import LQRFollower, action_covariance, solve_lqr
from bilevelrl.reference.lqr.leader import evaluate_lqr_leader
from bilevelrl.reference.lqr.model import ConfigurableLQR, LQRAt
from bilevelrl.reference.lqr.solvers import RiccatiSolution, solve_riccati
from bilevelrl.reference.problem import PARTS, AnswerBounds, Objective, Part, split_objective

__all__ = ["LQRSplit", "QuadraticSplit", "split_lqr"]

_GUESS = 1e-12  # of the objective, where no bound on its rounding is known

AtT = TypeVar("AtT")


class QuadraticSplit(ABC, Generic[AtT]):
    """What both linear-quadratic kinds share: which parts move, the rounding, and the loop over evaluations."""

    parts: tuple[Part, ...]
    entries: Mapping[Part, tuple[str, ...]]
    """The entries that each part reads."""

    def __init__(self, at: AtT, follower: LQRFollower, moving: frozenset[str], objective: Objective) -> None:
        self.follower, self._at, self._moving, self._objective = follower, at, moving, objective
        self.condition = follower.riccati.amplification
        self.base = self.value("regulariser", at)

    def depends(self, part: Part) -> bool:
        """Whether the part can be anything but zero."""
        return bool(self._moving.intersection(self.entries[part]))

    def noise(self, part: Part) -> float:
        """Bound on the rounding of the values that are differenced, the solver's part in it only where it is called."""
        solved = part == "response"
        found = self.solved(self._at) if solved else self.follower.riccati
        bound = self.bounds(self._at, found, frozen=not solved, gradient=False).objective
        # Steps have to be chosen where nothing is proven, too; the error bound is infinite there.
        return bound if np.isfinite(bound) else _GUESS * (self.size() + abs(self.base))

    def error_bound(self, at: AtT) -> AnswerBounds:
        """What the exact derivative makes of the errors of the follower, which differences do not see."""
        return self.bounds(self.linearised(at), self.follower.riccati, frozen=False, gradient=True)

    def values(self, part: Part, moved: Sequence[AtT]) -> FloatArray:
        """The objective with one part moved, NaN where the step has left what has a value."""
        return np.array([self._tried(part, at) for at in moved])

    def _tried(self, part: Part, moved: AtT) -> float:
        try:
            return self.value(part, moved)
        except (IllPosedError, InvalidInputError, NotConvergedError):
            return np.nan

    @abstractmethod
    def size(self) -> float:
        """The size of the leader's rewards."""

    @abstractmethod
    def linearised(self, at: AtT) -> AtT:
        """The problem whose entries are affine in θ and the same to first order."""

    @abstractmethod
    def bounds(self, at: AtT, riccati: RiccatiSolution, *, frozen: bool, gradient: bool) -> AnswerBounds:
        """Bounds on what the objective, or its exact derivative, makes of a computed follower and of rounding."""

    @abstractmethod
    def solved(self, at: AtT) -> RiccatiSolution:
        """The follower's Riccati equation, solved by SciPy."""

    @abstractmethod
    def value(self, part: Part, moved: AtT) -> float:
        """The objective with one part evaluated at another θ."""


class LQRSplit(QuadraticSplit[LQRAt]):
    """The objective of a configurable LQR with one of its five θ moved; see `SplitObjective`."""

    parts = PARTS
    entries: Mapping[Part, tuple[str, ...]] = {
        "initial": ("initial_mean", "initial_covariance"),
        "direct": ("cost_state_leader", "cost_action_leader", "cost_constant_leader"),
        "transition": ("dynamics_state", "dynamics_action", "noise_covariance"),
        "response": ("dynamics_state", "dynamics_action", "cost_state_follower", "cost_action_follower"),
        "regulariser": ("regulariser",),
    }

    def size(self) -> float:
        """The size of the leader's costs in the first step."""
        at = self._at.matrices
        mean = at.initial_mean
        moment = np.abs(np.outer(mean, mean)) + np.abs(at.initial_covariance) + np.abs(at.noise_covariance)
        effort = np.vdot(np.abs(at.cost_action_leader), np.abs(self.follower.covariance))
        return float(np.vdot(np.abs(at.cost_state_leader), moment) + effort + np.abs(at.cost_constant_leader))

    def linearised(self, at: LQRAt) -> LQRAt:
        """The problem whose matrices are affine in θ."""
        return at.problem.linearised(at.theta).at(at.theta)

    def bounds(self, at: LQRAt, riccati: RiccatiSolution, *, frozen: bool, gradient: bool) -> AnswerBounds:
        """See `lqr_error_bounds`."""
        cost = riccati.cost_to_go
        return lqr_error_bounds(at, cost, objective=self._objective, frozen=frozen, gradient=gradient)

    def solved(self, at: LQRAt) -> RiccatiSolution:
        """The follower's Riccati equation, solved by SciPy."""
        a, b, q, r = at.follower_system
        return solve_riccati(a, b, q, r, at.problem.discount_follower, method="scipy")

    def value(self, part: Part, moved: LQRAt) -> float:
        """The objective with one part's matrices taken from another θ."""
        base, problem = self._at.matrices, self._at.problem
        gain, covariance = self.follower.gain, self.follower.covariance
        if part == "response":
            riccati = self.solved(moved)
            gain, covariance = riccati.gain, action_covariance(riccati.curvature, problem.temperature)
        else:
            base = base.replace({name: getattr(moved.matrices, name) for name in self.entries[part]})
        return evaluate_lqr_leader(base, gain, covariance, problem.discount_leader, objective=self._objective).objective


@split_objective.register(ConfigurableLQR)
def split_lqr(at: LQRAt, objective: Objective, *, warm_start: LQRFollower | None = None) -> LQRSplit:
    """Split the objective of a configurable LQR."""
    at.problem.derivatives.refuse_noise(at.theta)
    moving = at.problem.derivatives.dependent(at.theta)
    return LQRSplit(at, solve_lqr(at, warm_start=warm_start), moving, objective)
