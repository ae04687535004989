"""How the followers of many leaders in one Markov game respond: by the right operator or the published, fully or not.

The follower sees the leader's action. What it expects of a state before anybody has moved is

    best_response               W(s) = Σ_l f(l|s) β log Σ_a exp(Q(s,l,a)/β)                                          (1)
    log_sum_exp_of_the_mean     W(s) = β log Σ_a exp(Σ_l f(l|s) Q(s,l,a)/β)                                          (2)

and `Q = r_F + γ_F P W`. The second plans as a follower that would not see the leader's next action, and then acts,
having seen the present one: it is no best response of either information structure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.random import Generator

from bilevelrl.reference import MarkovGame
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import Natural, checked
from bilevelrl.reference.errors import NotConvergedError
from bilevelrl.reference.game import soft_values

__all__ = ["FollowerOperator", "GameFollowerRule", "GameResponses"]

FollowerOperator: TypeAlias = Literal["best_response", "log_sum_exp_of_the_mean"]
FOLLOWER_OPERATORS: tuple[FollowerOperator, ...] = ("best_response", "log_sum_exp_of_the_mean")
_MOST_ITERATIONS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class GameResponses:
    """What the followers of R leaders do.

    Attributes
    ----------
    table : (R, S, L, A)
        Q_F, to carry on from.
    value : (R, S, L)
        V_F once the leader's action is seen.
    policy : (R, S, L, A)
        g(a|s, l).
    """

    table: FloatArray
    value: FloatArray
    policy: FloatArray

    @classmethod
    def of_table(cls, table: FloatArray, temperature: float) -> GameResponses:
        """Return the soft response to action values."""
        value, policy = soft_values(table, temperature)
        return cls(table=table, value=value, policy=policy)


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class GameFollowerRule:
    """How followers respond in every outer iteration.

    Parameters
    ----------
    operator
        Whose fixed point they seek: see the module.
    sweeps
        None: to the fixed point, by Newton's method. Otherwise as many sweeps of the operator, at least 0.
    beginning
        "carried": the sweeps go on from the table of the last outer iteration (zeros at first). "reset": they begin
        with a table of independent N(0, 1) entries each time.

    Raises
    ------
    UnknownNameError, InvalidInputError
        If an option is not known, or the number of sweeps out of range.

    Examples
    --------
    >>> from bilevelrl.tasks import toy_game_theta, toy_markov_game
    >>> game = toy_markov_game()
    >>> policies = game.policy_at(toy_game_theta(0.3))[None]
    >>> table = np.zeros((1, 3, 2, 3))
    >>> [round(float(GameFollowerRule(operator=operator).respond(game, policies, table, []).policy[0, 0, 0, 1]), 4)
    ...  for operator in FOLLOWER_OPERATORS]
    [0.7147, 0.6583]
    """

    operator: FollowerOperator = "best_response"
    sweeps: Natural | None = None
    beginning: Literal["carried", "reset"] = "carried"

    def respond(
        self, game: MarkovGame, policies: FloatArray, table: FloatArray, rng: Sequence[Generator]
    ) -> GameResponses:
        """Return the responses to leader policies (R, S, L), from the tables (R, S, L, A) of the last time.

        Raises
        ------
        NotConvergedError
            If Newton's method does not reach rounding.
        """
        if self.sweeps is not None and self.beginning == "reset":
            table = np.stack([stream.standard_normal(table.shape[1:]) for stream in rng])
        if self.sweeps is None:
            table = self._fixed_point(game, policies, table)
        else:
            for _ in range(self.sweeps):
                table = _backup(game, self._expected(game, policies, table)[0])
        return GameResponses.of_table(table, game.temperature)

    def _expected(self, game: MarkovGame, policies: FloatArray, table: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return W (R, S) and ∂W/∂Q, (R, S, L, A)."""
        if self.operator == "best_response":
            soft, response = soft_values(table, game.temperature)
            return np.vecdot(policies, soft), policies[..., None] * response  # (1)
        mean = np.matmul(policies[:, :, None], table)[:, :, 0]
        value, response = soft_values(mean, game.temperature)
        return value, policies[..., None] * response[:, :, None]  # (2)

    def _fixed_point(self, game: MarkovGame, policies: FloatArray, table: FloatArray) -> FloatArray:
        """Newton's method on W, each row until its own residual is rounding."""
        runs, states = policies.shape[:2]
        flat = game.transition.reshape(states, -1, states)
        value, _ = self._expected(game, policies, table)
        open_rows = np.ones(runs, dtype=bool)
        rounding = (sum(game.transition.shape) + 8) * np.finfo(np.float64).eps
        smallest = np.full(runs, np.inf)
        for _ in range(_MOST_ITERATIONS):
            table = _backup(game, value)
            backed, slope = self._expected(game, policies, table)
            change = backed - value
            residual = np.abs(change).max(axis=1)
            bound = rounding * np.maximum(np.abs(table).max(axis=(1, 2, 3)), 1.0)
            # A residual of some roundings may stay for ever: near there, not getting better is the end too.
            open_rows &= ~((residual <= bound) | ((residual <= 100.0 * bound) & (residual >= 0.5 * smallest)))
            smallest = np.minimum(smallest, residual)
            if not open_rows.any():
                return table
            if not np.isfinite(residual).all():
                break
            chain = np.matmul(slope.reshape(runs, states, 1, -1), flat)[:, :, 0]
            step = np.linalg.solve(np.eye(states) - game.discount_follower * chain, change[..., None])[..., 0]
            value = np.where(open_rows[:, None], value + step, value)
        row = int(np.argmax(open_rows))
        raise NotConvergedError(
            f"followers: row {row} has a residual of {residual[row]:.2e} after {_MOST_ITERATIONS} Newton steps; "
            "raise the temperature"
        )


def _backup(game: MarkovGame, value: FloatArray) -> FloatArray:
    """Return r_F + γ_F P W, (R, S, L, A), run by run so that no row depends on the others."""
    shape = game.transition.shape
    ahead = np.matmul(value[:, None, :], game.transition.reshape(-1, shape[3]).T)[:, 0]
    table: FloatArray = game.reward_follower + game.discount_follower * ahead.reshape(-1, *shape[:3])
    return table
