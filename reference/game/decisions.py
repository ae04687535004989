"""Where the follower of a Markov game decides, and what it meets there: the pairs (s, l), or the states s."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.tabular.fixed_point import reward_centres
from bilevelrl.reference.tabular.transitions import law_error

__all__ = ["DecisionPoints", "game_reward_centre"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionPoints:
    """Where the follower decides, D points per state, and what it meets there.

    Attributes
    ----------
    reach : (S, D)
        Probability of the decision point given the state.
    kernel : (S, D, A, S)
        Transition from there.
    reward_follower, reward_leader : (S, D, A)
        Rewards, without the constants `centre_follower` and `centre_leader`.
    centre_follower, centre_leader : float
        Constants split off the rewards; zero unless every row of the kernel is a law.
    law_error : float
        How far the doubles of the game's laws are from one, relatively: see `law_error`.
    """

    reach: FloatArray
    kernel: FloatArray
    reward_follower: FloatArray
    reward_leader: FloatArray
    centre_follower: float
    centre_leader: float
    law_error: float

    @classmethod
    def of(
        cls,
        transition: FloatArray,
        reward_follower: FloatArray,
        reward_leader: FloatArray,
        policy: FloatArray,
        *,
        sees_leader_action: bool,
    ) -> DecisionPoints:
        """Return the decision points of a game's tables under a leader policy (S, L)."""
        kernel = transition
        centre_follower, centre_leader = (
            game_reward_centre(kernel, reward) for reward in (reward_follower, reward_leader)
        )
        follower, leader = reward_follower - centre_follower, reward_leader - centre_leader
        reach = policy
        if not sees_leader_action:
            states, _, actions, _ = kernel.shape
            weights = policy[:, None, :]
            kernel = np.matmul(weights, kernel.reshape(states, -1, actions * states)).reshape(
                states, 1, actions, states
            )
            follower, leader = np.matmul(weights, follower), np.matmul(weights, leader)
            reach = np.ones((states, 1))
        return cls(
            reach=reach,
            kernel=kernel,
            reward_follower=follower,
            reward_leader=leader,
            centre_follower=centre_follower,
            centre_leader=centre_leader,
            law_error=law_error(transition, policy),
        )

    def ahead(self, value: FloatArray) -> FloatArray:
        """Return Σ_s' K(s'|s,d,a) value(s'), (S, D, A[, N]), for value (S[, N])."""
        shape = self.kernel.shape
        result: FloatArray = (self.kernel.reshape(-1, shape[3]) @ value).reshape(*shape[:3], *value.shape[1:])
        return result

    def pushed(self, weights: FloatArray) -> FloatArray:
        """Return Σ_{s,d,a} weights(s,d,a) K(s'|s,d,a), (S,): the transpose of `ahead`."""
        result: FloatArray = weights.ravel() @ self.kernel.reshape(-1, self.kernel.shape[3])
        return result

    def chain(self, response: FloatArray) -> FloatArray:
        """Return the states' transition matrix (S, S) under a response (S, D, A)."""
        states = self.kernel.shape[0]
        weights = (self.reach[:, :, None] * response).reshape(states, 1, -1)
        result: FloatArray = np.matmul(weights, self.kernel.reshape(states, -1, states))[:, 0, :]
        return result

    def average(self, response: FloatArray, values: FloatArray) -> FloatArray:
        """Return Σ_{d,a} reach g values, (S,)."""
        result: FloatArray = np.vecdot(self.reach, np.vecdot(response, values))
        return result

    def unit(self) -> float:
        """Relative rounding of one backup: sums over s', d and a, and laws not divided by their sums."""
        states, points, actions, _ = self.kernel.shape
        return float((states + points + actions + 8) * np.finfo(np.float64).eps) + self.law_error


def game_reward_centre(transition: FloatArray, reward: FloatArray) -> float:
    """Return the constant reward to split off: zero unless every row is a law, for only then does it move V alone.

    θ moves no row, so the constant moves no derivative either.
    """
    states = transition.shape[0]
    return float(reward_centres(transition.reshape(1, states, -1, states), reward.reshape(1, states, -1))[0])
