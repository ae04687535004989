"""How many sweeps the game's sweeping routes make, from the tolerance and the game's own mixing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.game.error_bounds import game_error_bound
from bilevelrl.reference.game.follower import game_value_errors
from bilevelrl.reference.game.model import GameAt
from bilevelrl.reference.problem import AnswerBounds, Objective
from bilevelrl.reference.tabular.sweeps import mixing_sweeps, settle

__all__ = ["GameSweepPlan", "plan_game_sweeps"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GameSweepPlan:
    """Sweeps for the follower (values, then derivatives) and for the leader, and what they leave.

    Attributes
    ----------
    follower, leader : int
        Numbers of sweeps.
    remainder : float
        Largest relative truncation error that is left.
    residual : float
        The follower's last change.
    state_value, response : (S,), (S, D, A)
        Where the follower's sweeps ended, without the constant.
    """

    follower: int
    leader: int
    remainder: float
    residual: float
    state_value: FloatArray
    response: FloatArray

    def error_bound(self, at: GameAt, objective: Objective) -> AnswerBounds:
        """Return the bounds on the hypergradient's error for a route that makes these sweeps."""
        return game_error_bound(
            at,
            response=self.response,
            state_value=self.state_value,
            objective=objective,
            errors=game_value_errors(at.problem, at.points, self.state_value),
            remainder=self.remainder,
        )


def plan_game_sweeps(at: GameAt) -> GameSweepPlan:
    """Sweep once without derivatives and count what the tolerance needs.

    Raises
    ------
    TooLargeError
        If more than the limit of sweeps is needed.
    """
    game, points = at.problem, at.points
    discount, temperature = game.discount_follower, game.temperature

    def sweep(value: FloatArray) -> tuple[FloatArray, FloatArray]:
        action_value = points.reward_follower + discount * points.kernel @ value
        top = action_value.max(axis=2)
        weights = np.exp((action_value - top[:, :, None]) / temperature)
        mass = weights.sum(axis=2)
        return (points.reach * (top + temperature * np.log(mass))).sum(axis=1), weights / mass[:, :, None]

    def level(value: FloatArray, response: FloatArray) -> FloatArray:
        size = np.abs(points.reward_follower) + discount * points.kernel @ np.abs(value)
        noise: FloatArray = 4 * points.unit() * (points.reach * (response * size).sum(axis=2)).sum(axis=1)
        return noise

    value, response, residual, sweeps = settle(
        sweep, np.zeros(game.states), discount=discount, temperature=temperature, level=level
    )
    chain = points.chain(response)
    extra, left_follower = mixing_sweeps(chain, discount)
    leader, left_leader = mixing_sweeps(chain, game.discount_leader)
    # The leader's derivatives sweep along with the values that they are derivatives of, whose own tails add up.
    left_leader *= 1.0 + leader * (1.0 - game.discount_leader)
    return GameSweepPlan(
        follower=sweeps + extra,
        leader=leader,
        remainder=max(left_follower, left_leader),
        residual=residual,
        state_value=value,
        response=response,
    )
