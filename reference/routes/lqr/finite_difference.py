"""Central finite differences of exact objectives of linear-quadratic problems, part by part."""

from __future__ import annotations

from typing import Any

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import IllPosedError, InvalidInputError, NotConvergedError
from bilevelrl.reference.lqr.error_bounds import lqr_error_bounds
from bilevelrl.reference.lqr.follower import LQRFollower, action_covariance, solve_lqr
from bilevelrl.reference.lqr.leader import evaluate_lqr_leader
from bilevelrl.reference.lqr.model import ConfigurableLQR, LQRAt
from bilevelrl.reference.lqr.solvers import RiccatiSolution, solve_riccati
from bilevelrl.reference.lqr_game.error_bounds import lqr_game_error_bounds
from bilevelrl.reference.lqr_game.leader import closed_loop, evaluate_game_leader
from bilevelrl.reference.lqr_game.model import LQRGame, LQRGameAt, solve_lqr_game
from bilevelrl.reference.objective import INFINITE_HORIZON, Objective
from bilevelrl.reference.on_demand import AnswerBounds, when_read
from bilevelrl.reference.problem import GAME_PARTS, PARTS, Part
from bilevelrl.reference.registry import Hypergradient, register_route
from bilevelrl.reference.routes.tabular.finite_difference import SplitObjective, differentiate_part

__all__ = ["lqr_finite_difference"]

_ENTRIES: dict[Part, tuple[str, ...]] = {
    "initial": ("initial_mean", "initial_covariance"),
    "direct": ("cost_state_leader", "cost_action_leader", "cost_constant_leader"),
    "transition": ("dynamics_state", "dynamics_action", "noise_covariance"),
    "response": ("dynamics_state", "dynamics_action", "cost_state_follower", "cost_action_follower"),
    "policy": ("gain", "covariance"),
    "regulariser": ("regulariser",),
}


_GUESS = 1e-12  # of the objective, where no bound on its rounding is known


class _Split:
    """What both kinds of problem share: which parts move, and the loop over displaced θ."""

    def __init__(self, at: Any, objective: Objective, warm_start: LQRFollower | None) -> None:
        self._at, self._problem, self._theta = at, at.problem, at.theta
        self._objective = objective
        solve: Any = solve_lqr_game if isinstance(at, LQRGameAt) else solve_lqr
        self.follower: LQRFollower = solve(at, warm_start=warm_start)
        self._moving: frozenset[str] = at.problem.derivatives.dependent(at.theta)
        self.evaluations = 0
        self.base = self.objective("regulariser", at)

    def depends(self, part: Part) -> bool:
        """Whether the part can be anything but zero."""
        names = ("gain",) if part == "response" and isinstance(self._problem, LQRGame) else _ENTRIES[part]
        return bool(self._moving.intersection(names))

    def noise(self, part: Part) -> float:
        """Bound on the rounding of the values that are differenced, the solver's part in it only where it is called."""
        solved = part == "response"
        found = self.solved(self._at) if solved else self.follower.riccati
        bound = self.bounds(self._at, found, frozen=not solved, gradient=False).objective
        # Steps have to be chosen where nothing is proven, too; the error bound is infinite there.
        return bound if np.isfinite(bound) else _GUESS * (self.size() + abs(self.base))

    def size(self) -> float:
        """The size of the leader's rewards."""
        raise NotImplementedError

    def bounds(self, at: Any, riccati: RiccatiSolution, *, frozen: bool, gradient: bool) -> AnswerBounds:
        """Bounds on what the objective, or its exact derivative, makes of a computed follower and of rounding."""
        bounds: Any = lqr_game_error_bounds if isinstance(at, LQRGameAt) else lqr_error_bounds
        found: AnswerBounds = bounds(
            at.problem.linearised(at.theta).at(at.theta) if gradient else at,
            riccati.cost_to_go,
            objective=self._objective,
            frozen=frozen,
            gradient=gradient,
        )
        return found

    def solved(self, at: Any) -> RiccatiSolution:
        """The follower's Riccati equation, by a solver that other routes do not start from."""
        a, b, q, r = at.follower_system
        return solve_riccati(a, b, q, r, at.problem.discount_follower, method="scipy")

    def objective(self, part: Part, moved: Any) -> float:
        """The objective with one part evaluated at another θ."""
        raise NotImplementedError

    def values(self, part: Part, x: FloatArray, j: Any) -> FloatArray:
        """Objective at θ + x e_j inside one part; x and j broadcast."""
        x, j = np.broadcast_arrays(x, j)
        result = np.empty(x.size)
        for i, (offset, coordinate) in enumerate(zip(x.ravel(), j.ravel(), strict=True)):
            point = self._theta.copy()
            point.flat[int(coordinate)] += offset
            try:
                result[i] = self.objective(part, self._problem.at(point))
            except (IllPosedError, InvalidInputError, NotConvergedError):  # the step has left what has a value
                result[i] = np.nan
        self.evaluations += x.size
        return result.reshape(x.shape)


class _SplitLQR(_Split):
    def size(self) -> float:
        at = self._at.matrices
        mean = at.initial_mean
        moment = np.abs(np.outer(mean, mean)) + np.abs(at.initial_covariance) + np.abs(at.noise_covariance)
        effort = np.vdot(np.abs(at.cost_action_leader), np.abs(self.follower.covariance))
        return float(np.vdot(np.abs(at.cost_state_leader), moment) + effort + np.abs(at.cost_constant_leader))

    def objective(self, part: Part, moved: Any) -> float:
        base = self._at.matrices
        gain, covariance = self.follower.gain, self.follower.covariance
        if part == "response":
            riccati = self.solved(moved)
            gain, covariance = riccati.gain, action_covariance(riccati.curvature, self._problem.temperature)
        else:
            base = base.replace({name: getattr(moved.matrices, name) for name in _ENTRIES[part]})
        return evaluate_lqr_leader(
            base,
            gain,
            covariance,
            self._problem.discount_leader,
            objective=self._objective,
        ).objective


class _SplitGame(_Split):
    def size(self) -> float:
        return 1.0

    def objective(self, part: Part, moved: Any) -> float:
        game, base = self._at.problem, self._at.policy
        reaction, covariance = self.follower.riccati.reaction, self.follower.covariance
        played, added = base, float(base.regulariser)
        if part == "response":
            riccati = self.solved(moved)
            reaction, covariance = riccati.reaction, action_covariance(riccati.curvature, game.temperature)
        elif part == "policy":
            played = moved.policy
        else:
            added = float(moved.policy.regulariser)
        loop = closed_loop(game, played.gain, played.covariance, reaction, covariance)
        evaluation = evaluate_game_leader(game, loop, objective=self._objective, derivatives=False)
        return evaluation.objective + added


def lqr_finite_difference(
    at: LQRAt | LQRGameAt,
    *,
    objective: Objective = INFINITE_HORIZON,
    warm_start: LQRFollower | None = None,
    bound: bool = True,
) -> Hypergradient:
    """∇J by finite differences.

    `error_bound` is the largest error estimate summed over the parts, plus what the exact derivative makes of the
    errors of the follower, which differences do not see.
    """
    problem, theta = at.problem, at.theta
    problem.derivatives.refuse_noise(theta)
    game = isinstance(at, LQRGameAt)
    split = (_SplitGame if game else _SplitLQR)(at, objective, warm_start)
    moved: SplitObjective = split
    parts: dict[Part, FloatArray] = {}
    error = np.zeros(theta.size)
    for part in GAME_PARTS if game else PARTS:
        parts[part], part_error = differentiate_part(moved, part, theta.size)
        error += part_error

    def error_bound(at: LQRAt | LQRGameAt) -> AnswerBounds:
        solved = split.bounds(at, split.follower.riccati, frozen=False, gradient=True)
        return solved._replace(gradient=float(error.max(initial=0.0)) + solved.gradient)

    return Hypergradient(
        value=sum(parts.values(), np.zeros(theta.size)),
        parts=parts,
        objective=split.base,
        residual=split.follower.residual,
        condition=split.follower.riccati.amplification,
        error_bound_source=when_read(at, error_bound) if bound else np.inf,
        route="finite_difference",
        follower=split.follower,
        status=split.follower.status.value,
        counters={"evaluations": split.evaluations},
    )


for _kind in (ConfigurableLQR, LQRGame):
    register_route(
        "finite_difference",
        _kind,
        summary="central differences of order 8 with an error estimate (scipy.differentiate)",
        family="objective values",
        accuracy="error_bound: its own error estimate plus rounding, 1e-9 relative where the objective allows",
    )(lqr_finite_difference)
