"""Markov games given as doubles: tables, policy and policy Jacobian at θ, read exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flint import arb

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.certified.balls import as_law, ball, law_cotangent
from bilevelrl.reference.certified.game import BallGame
from bilevelrl.reference.certified.tabular.tables import Row, check_size
from bilevelrl.reference.game.model import MarkovGame

__all__ = ["DoubleGame"]


@dataclass(frozen=True, slots=True)
class DoubleGame:
    """A game whose tables, policy and policy Jacobian at θ are read exactly from the doubles that they are.

    Rows that sum to one as far as rounding allows are divided by their exact sums: see `MarkovGame`. The leader's
    policy sums to one at every θ, and its derivative is that of the quotient.
    """

    problem: MarkovGame
    policy: FloatArray
    jacobian: FloatArray
    regulariser: float
    slope: FloatArray

    @classmethod
    def at(cls, problem: MarkovGame, theta: FloatArray) -> DoubleGame:
        """Evaluate the policy and the derivatives once."""
        check_size(problem.states * (problem.leader_actions if problem.follower_sees_leader_action else 1))
        at = problem.at(theta)
        slope = at.pullback({"regulariser": np.ones(())})
        return cls(problem, at.policy, problem.policy_jacobian(theta), at.regulariser, slope)

    def game(self, *, discounted: bool) -> BallGame:
        """Return the game at the working precision."""
        problem = self.problem
        return BallGame(
            kernel=[[[_successors(row) for row in rows] for rows in table] for table in problem.transition],
            reward_follower=_nested(problem.reward_follower),
            reward_leader=_nested(problem.reward_leader),
            initial=as_law(_exact(problem.initial)),
            policy=[as_law(_exact(row)) for row in self.policy],
            regulariser=ball(self.regulariser),
            discount_leader=ball(problem.discount_leader if discounted else 1.0),
            discount_follower=ball(problem.discount_follower),
            temperature=ball(problem.temperature),
            follower_sees_leader_action=bool(problem.follower_sees_leader_action),
        )

    def pull_policy(self, weight: Sequence[Sequence[arb]]) -> list[arb]:
        """Return Σ weight ∂f/∂θ over the Jacobian's non-zero entries."""
        total = [arb(0)] * self.jacobian.shape[2]
        rows = [_exact(row) for row in self.policy]
        listed = [law_cotangent(as_law(row), given, row) for row, given in zip(rows, weight, strict=True)]
        for s, leader, j in np.argwhere(self.jacobian != 0.0).tolist():
            total[j] += listed[s][leader] * ball(float(self.jacobian[s, leader, j]))
        return total

    def pull_regulariser(self) -> list[arb]:
        """Return ∇ρ."""
        return [ball(float(entry)) for entry in self.slope]


def _exact(row: FloatArray) -> list[arb]:
    return [ball(float(entry)) for entry in row]


def _successors(row: FloatArray) -> Row:
    places = np.flatnonzero(row)
    return tuple(zip(places.tolist(), as_law(_exact(row[places])), strict=True))


def _nested(table: FloatArray) -> list[list[list[arb]]]:
    return [[_exact(row) for row in rows] for rows in table]
