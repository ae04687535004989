"""The objective of a linear-quadratic game as a function of three θ, as finite differences take it."""

from __future__ import annotations

from collections.abc import Mapping

from bilevelrl.reference.lqr.follower import LQRFollower, action_covariance
from bilevelrl.reference.lqr.solvers import RiccatiSolution, solve_riccati
from bilevelrl.reference.lqr.split import QuadraticSplit
from bilevelrl.reference.lqr_game.error_bounds import lqr_game_error_bounds
from bilevelrl.reference.lqr_game.leader import closed_loop, evaluate_game_leader
from bilevelrl.reference.lqr_game.model import LQRGame, LQRGameAt, solve_lqr_game
from bilevelrl.reference.problem import GAME_PARTS, AnswerBounds, Objective, Part, split_objective

__all__ = ["LQRGameSplit", "split_lqr_game"]


class LQRGameSplit(QuadraticSplit[LQRGameAt]):
    """The objective of a linear-quadratic game with one of its three θ moved; see `SplitObjective`."""

    parts = GAME_PARTS
    entries: Mapping[Part, tuple[str, ...]] = {
        "policy": ("gain", "covariance"),
        "response": ("gain",),
        "regulariser": ("regulariser",),
    }

    def size(self) -> float:
        """The largest reward."""
        return 1.0

    def linearised(self, at: LQRGameAt) -> LQRGameAt:
        """The game whose leader's policy is affine in θ."""
        return at.problem.linearised(at.theta).at(at.theta)

    def bounds(self, at: LQRGameAt, riccati: RiccatiSolution, *, frozen: bool, gradient: bool) -> AnswerBounds:
        """See `lqr_game_error_bounds`."""
        cost = riccati.cost_to_go
        return lqr_game_error_bounds(at, cost, objective=self._objective, frozen=frozen, gradient=gradient)

    def solved(self, at: LQRGameAt) -> RiccatiSolution:
        """The follower's Riccati equation, solved by SciPy."""
        a, b, q, r = at.follower_system
        return solve_riccati(a, b, q, r, at.problem.discount_follower, method="scipy")

    def value(self, part: Part, moved: LQRGameAt) -> float:
        """The objective with one part evaluated at another θ."""
        game, played = self._at.problem, self._at.policy
        added = float(played.regulariser)
        reaction, covariance = self.follower.riccati.reaction, self.follower.covariance
        if part == "response":
            riccati = self.solved(moved)
            reaction, covariance = riccati.reaction, action_covariance(riccati.curvature, game.temperature)
        elif part == "policy":
            played = moved.policy
        else:
            added = float(moved.policy.regulariser)
        loop = closed_loop(game, played.gain, played.covariance, reaction, covariance)
        return evaluate_game_leader(game, loop, objective=self._objective, derivatives=False).objective + added


@split_objective.register(LQRGame)
def split_lqr_game(at: LQRGameAt, objective: Objective, *, warm_start: LQRFollower | None = None) -> LQRGameSplit:
    """Split the objective of a linear-quadratic game."""
    at.problem.derivatives.refuse_noise(at.theta)
    moving = at.problem.derivatives.dependent(at.theta)
    return LQRGameSplit(at, solve_lqr_game(at, warm_start=warm_start), moving, objective)
