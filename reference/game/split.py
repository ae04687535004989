"""The objective of a Markov game as a function of three θ: what finite differences know of a hypergradient.

The follower is solved for all moved policies at once by Newton's method on stacked systems, with the game's own tables.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import NotConvergedError
from bilevelrl.reference.game.error_bounds import follower_error_bound, game_objective_noise
from bilevelrl.reference.game.follower import GameFollower, game_operator, solve_game
from bilevelrl.reference.game.model import GameAt, MarkovGame
from bilevelrl.reference.problem import GAME_PARTS, AnswerBounds, Objective, Part, split_objective
from bilevelrl.reference.tabular.value_errors import value_errors

__all__ = ["GameSplit", "split_game"]

_NEWTON_LIMIT = 200


@split_objective.register(MarkovGame)
def split_game(at: GameAt, objective: Objective, *, warm_start: GameFollower | None = None) -> GameSplit:
    """Split the objective of a Markov game."""
    at.problem.derivatives.refuse_noise(at.theta)
    return GameSplit(at, solve_game(at, warm_start=warm_start), objective)


class GameSplit:
    """The objective of a Markov game with one of its three θ moved; see `SplitObjective`."""

    parts = GAME_PARTS

    def __init__(self, at: GameAt, follower: GameFollower, objective: Objective) -> None:
        game = at.problem
        self.follower = follower
        self._at, self._game, self._policy, self._points = at, game, at.policy, at.points
        self._objective, self._horizon = objective, objective.horizon
        self._discount = objective.discount(game.discount_leader)
        self._moving = game.derivatives.dependent(at.theta)
        self._reward = game.reward_leader - self._points.centre_leader
        self._length = objective.constant_return(1.0, game.discount_leader)
        self.condition = (1 + game.discount_follower) / (1 - game.discount_follower)
        self.base = (
            float(self._leader(self._policy[None], follower.policy[None])[0])
            + objective.constant_return(self._points.centre_leader, game.discount_leader)
            + at.regulariser
        )

    def error_bound(self, at: GameAt) -> AnswerBounds:
        """What the exact derivative makes of the errors of the response."""
        return follower_error_bound(at.problem.linearised(at.theta).at(at.theta), self.follower, self._objective)

    def depends(self, part: Part) -> bool:
        """Whether the part depends on θ at all."""
        return ("regulariser" if part == "regulariser" else "policy") in self._moving

    def noise(self, part: Part) -> float:
        """Bound on the rounding of the values that are differenced, with 16 ulp for the policy's own formula."""
        ulps = 16.0 * float(np.finfo(np.float64).eps)
        game, follower = self._game, self.follower
        if part == "regulariser":
            return ulps * abs(self._at.regulariser)
        errors = None
        if part == "response":  # f's own rounding moves what the follower averages
            operator = game_operator(self._points, game.discount_follower, game.temperature)
            size = np.abs(game.reward_follower - self._points.centre_follower)
            size += game.discount_follower * (game.transition @ np.abs(follower.centred_state_value))
            if not game.follower_sees_leader_action:
                size = np.matmul(self._policy[:, None, :], size)
            errors = value_errors(operator, follower.centred_state_value, ulps * size)
        noise = game_objective_noise(
            game,
            self._policy,
            self._points,
            follower.response,
            discount=self._discount,
            errors=errors,
            horizon=self._horizon,
        )
        return noise + ulps * self._length * self._length * float(np.abs(self._reward).max())

    def values(self, part: Part, moved: Sequence[GameAt]) -> FloatArray:
        """The objective with one part moved."""
        if part == "regulariser":
            return np.array([at.regulariser for at in moved])
        policies = np.stack([at.policy for at in moved])
        results = []
        for first in range(0, len(moved), 256):
            chunk = policies[first : first + 256]
            if part == "policy":
                results.append(self._leader(chunk, self.follower.policy[None]))
            else:
                results.append(self._leader(self._policy[None], self._responses(chunk)))
        return np.concatenate(results)

    def _responses(self, policies: FloatArray) -> FloatArray:
        """The follower's responses (B, S, L or 1, A) to B policies."""
        game, sees = self._game, self._game.follower_sees_leader_action
        reward, discount = game.reward_follower - self._points.centre_follower, game.discount_follower
        rows = game.transition.reshape(-1, game.states).T
        value = np.repeat(self.follower.centred_state_value[None], policies.shape[0], axis=0)
        best = np.full(policies.shape[0], np.inf)
        for _ in range(_NEWTON_LIMIT):
            action_value = reward + discount * (value @ rows).reshape(-1, *reward.shape)
            if not sees:
                action_value = np.einsum("bsl,bsla->bsa", policies, action_value)[:, :, None]
            peak = action_value.max(axis=3, keepdims=True)
            weights = np.exp((action_value - peak) / game.temperature)
            total = weights.sum(axis=3, keepdims=True)
            response = weights / total
            soft = (peak + game.temperature * np.log(total))[..., 0]
            change = (np.einsum("bsl,bsl->bs", policies, soft) if sees else soft[:, :, 0]) - value
            residual = np.abs(change).max(axis=1)
            floor = self._points.unit() * float(np.abs(action_value).max())
            # The values are within rounding, and one more step does not bring them closer.
            if ((residual <= floor) & (residual >= 0.5 * best)).all() or not residual.any():
                found: FloatArray = response
                return found
            best = np.minimum(best, residual)
            chain = np.einsum("bsla,slat->bst", policies[..., None] * response, game.transition)
            value = value + _solved(chain, discount, change)
        raise NotConvergedError(
            f"follower batch: residual {residual.max():.3g} after {_NEWTON_LIMIT} Newton iterations"
        )

    def _leader(self, policies: FloatArray, responses: FloatArray) -> FloatArray:
        """μ·V_L (B,) under policies (B or 1, S, L) and responses (B or 1, S, L or 1, A)."""
        joint = policies[..., None] * responses
        earned = np.einsum("bsla,sla->bs", joint, self._reward)
        chain = np.einsum("bsla,slat->bst", joint, self._game.transition)
        if self._horizon is None:
            value = _solved(chain, self._discount, earned)
        else:
            value = np.zeros_like(earned)
            for _ in range(self._horizon):
                value = earned + self._discount * np.matmul(chain, value[:, :, None])[:, :, 0]
        result: FloatArray = value @ self._game.initial
        return result


def _solved(chain: FloatArray, discount: float, right: FloatArray) -> FloatArray:
    """Solve `(I - γ C) x = b` for each of a batch, (B, S), by inverses of the transposes: these exchange no rows."""
    inverse = np.linalg.inv(np.eye(chain.shape[-1]) - discount * np.swapaxes(chain, 1, 2))
    solved: FloatArray = np.matmul(right[:, None, :], inverse)[:, 0, :]
    return solved
