"""The leader's exact critic in linear-quadratic games: sums of Gaussian bumps along the closed loop.

From state x the state j steps later is `N(F^j x, Z_j)`, so with

    g(m, Z) = |I + D^{-1} Z|^{-1/2} exp(-½ (m - x*)' (D + Z)^{-1} (m - x*))                                          (1)

    V^(h)(x) = Σ_{j<h} γ_L^j g(F^j x, Z_j),                                                                          (2)
    Q^(h)(x, l, a) = r_L(x) + γ_L V^(h-1)(A x + B a + C l),                                                          (3)

and averages over the follower's action only widen the bumps: `Z_j + F^j B Σ B' F^j'`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bilevelrl.estimators.critics.joint_tables import Baseline
from bilevelrl.estimators.estimator import Context
from bilevelrl.reference import LQRGame
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import UnsupportedError
from bilevelrl.reference.lqr import LQRFollower
from bilevelrl.reference.lqr_game import closed_loop, game_steps
from bilevelrl.reference.problem import Objective

__all__ = ["LQRGameCritic", "ValuesAtVisits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuesAtVisits:
    """Values that are known at one batch's visits: a learnt critic's, whose baseline has been subtracted already.

    Attributes
    ----------
    benefit, advantage : (streams, steps)
        B and A; the benefit may be zero where nothing reads it.
    """

    benefit: FloatArray
    advantage: FloatArray

    def benefit_t(self, visits: Any, steps_to_go: Any = None) -> FloatArray:
        """Return B."""
        return self.benefit

    def advantage_t(self, visits: Any, steps_to_go: Any = None, *, baseline: Baseline) -> FloatArray:
        """Return A, whatever the baseline."""
        return self.advantage

    def value(self, state: Any, *, steps_to_go: Any = None) -> FloatArray:
        """Refuse: other states are not known.

        Raises
        ------
        UnsupportedError
            Always.
        """
        raise UnsupportedError("ValuesAtVisits: expected to be read at its own batch's visits; pass a critic of states")

    def action_value(self, state: Any, action: Any, *, steps_to_go: Any = None) -> FloatArray:
        """Refuse, as `value` does."""
        return self.value(state)


@dataclass(frozen=True, slots=True, kw_only=True)
class LQRGameCritic:
    """Exact values under both players' policies.

    Attributes
    ----------
    game : LQRGame
    follower : LQRFollower
    discount : float
        γ_L, or 1 for undiscounted returns.
    powers, spreads : (H, n, n)
        F^j and Z_j for j < H.
    """

    game: LQRGame
    follower: LQRFollower
    discount: float
    powers: FloatArray
    spreads: FloatArray

    @classmethod
    def solve(cls, context: Context, target: Objective) -> LQRGameCritic:
        """Return the critic of a target: by steps to go, or over an infinite horizon to a tail of 1e-17.

        Examples
        --------
        >>> from bilevelrl.reference import leader_objective, solve_follower
        >>> from bilevelrl.tasks import lqr_game
        >>> game, theta = lqr_game(), np.array([-9.0, -9.0])
        >>> context = Context(problem=game, theta=theta, follower=solve_follower(game, theta))
        >>> critic = LQRGameCritic.solve(context, Objective(horizon=10))
        >>> start = critic.value(np.array([1.0, 0.0]), steps_to_go=10)
        >>> bool(np.isclose(start, leader_objective(game, theta, horizon=10)))
        True
        """
        game, follower = context.problem, context.follower
        policy = game.policy_at(context.theta)
        loop = closed_loop(game, policy.gain, policy.covariance, follower.riccati.reaction, follower.covariance)
        discount = game.discount_leader if target.discounted else 1.0
        steps = game_steps(discount, target.horizon)
        n = len(loop.matrix)
        powers, spreads = np.empty((steps, n, n)), np.empty((steps, n, n))
        powers[0], spreads[0] = np.eye(n), 0.0
        for j in range(1, steps):
            powers[j] = loop.matrix @ powers[j - 1]
            spreads[j] = loop.matrix @ spreads[j - 1] @ loop.matrix.T + loop.noise
        return cls(game=game, follower=follower, discount=discount, powers=powers, spreads=spreads)

    def _return(self, state: Any, extra: FloatArray, steps_to_go: Any) -> FloatArray:
        """Σ_{j<h} γ^j g(F^j x, Z_j + F^j extra F^j'), h by sample where `steps_to_go` is an array."""
        x = np.asarray(state, dtype=np.float64)
        shape, longest = x.shape[:-1], len(self.powers)
        to_go = np.maximum(np.broadcast_to(longest if steps_to_go is None else steps_to_go, shape).ravel(), 0)
        # One matrix product for all; those with the most steps to go first, so that the others drop out of the sum.
        order = np.argsort(-to_go, kind="stable")
        x = x.reshape(-1, x.shape[-1])[order]
        total, left = np.zeros(len(x)), np.cumsum(np.bincount(to_go, minlength=longest + 1)[::-1])[::-1]
        _, log_width = np.linalg.slogdet(self.game.width)
        steps = min(longest, int(np.max(to_go, initial=0)))
        added = np.zeros_like(self.spreads[:steps])
        for j, power in enumerate(self.powers[:steps]):
            added[j] = power @ extra @ power.T
        wide = np.linalg.inv(self.game.width + self.spreads[:steps] + added)
        _, log_wide = np.linalg.slogdet(wide)
        for j, power in enumerate(self.powers[:steps]):
            mean = _times(x[: left[j + 1]], power.T)
            if j % 16 == 0 and len(mean) > 1 and _is_forgotten(mean, self.game.target, wide[j]):
                x, mean = x[:1], mean[:1]  # from here on all bumps are one number
            off = mean - self.game.target
            bump = np.exp(0.5 * (log_wide[j] + log_width - np.vecdot(_times(off, wide[j]), off)))  # (1)
            total[: left[j + 1]] += self.discount**j * bump  # (2)
        result = np.empty_like(total)
        result[order] = total
        return result.reshape(shape)

    def value(self, state: Any, *, steps_to_go: Any = None) -> FloatArray:
        """Return V_L(x), before the leader's action is drawn."""
        return self._return(state, np.zeros_like(self.game.width), steps_to_go)

    def action_value(
        self, state: Any, action: Any, *, leader_action: Any = None, steps_to_go: Any = None
    ) -> FloatArray:
        """Return Q_L(x, l, a)."""
        return self._paid(state, steps_to_go) + self._ahead(state, leader_action, action, steps_to_go)  # (3)

    def over_follower(self, state: Any, leader_action: Any, *, steps_to_go: Any = None) -> FloatArray:
        """Return E_a Q_L given the leader's action."""
        return self._paid(state, steps_to_go) + self._ahead(state, leader_action, None, steps_to_go)

    def _paid(self, state: Any, steps_to_go: Any) -> FloatArray:
        paid = True if steps_to_go is None else steps_to_go > 0
        earned: FloatArray = np.where(paid, self.game.reward_leader(state), 0.0)
        return earned

    def _ahead(self, state: Any, leader_action: Any, action: Any, steps_to_go: Any) -> FloatArray:
        """γ E V_L(x'), of an action, or of the follower's policy where there is none."""
        game, averaged = self.game, action is None
        chosen = self.follower.mean(state, leader_action) if averaged else action
        state_tp1 = state @ game.dynamics_state.T + chosen @ game.dynamics_action.T
        state_tp1 = state_tp1 + leader_action @ game.dynamics_leader.T
        b = game.dynamics_action
        extra = b @ self.follower.covariance @ b.T * float(averaged)
        after = None if steps_to_go is None else np.maximum(steps_to_go - 1, 0)
        return self.discount * self._return(state_tp1, extra, after)

    def benefit_t(self, visits: Any, steps_to_go: Any = None) -> FloatArray:
        """Return B = Q_L - E_a Q_L at visited (x, l, a)."""
        at = visits.state_t, visits.leader_action_t
        return self._ahead(*at, visits.action_t, steps_to_go) - self._ahead(*at, None, steps_to_go)

    def advantage_t(self, visits: Any, steps_to_go: Any = None, *, baseline: Baseline) -> FloatArray:
        """Return Q_L minus a baseline at visited (x, l, a).

        Raises
        ------
        UnsupportedError
            For the baseline at the follower's own action, which has no closed form here.
        """
        if baseline == "action_dependent":
            raise UnsupportedError("baseline='action_dependent': expected 'state_value' or 'none' in an LQRGame")
        action_value = self.action_value(
            visits.state_t, visits.action_t, leader_action=visits.leader_action_t, steps_to_go=steps_to_go
        )
        if baseline == "none":
            return action_value
        return action_value - self.value(visits.state_t, steps_to_go=steps_to_go)


def _is_forgotten(mean: FloatArray, target: FloatArray, wide: FloatArray) -> bool:
    """Whether the exponent of (1) is the same at all means, to a thousandth of a rounding."""
    largest = np.abs(mean).max(axis=0)
    return bool(largest @ np.abs(wide) @ (2.0 * np.abs(target) + largest) < 1e-20)


def _times(rows: FloatArray, matrix: FloatArray) -> FloatArray:
    """The product rows · matrix, of single numbers without the cost of a matrix product for each."""
    return rows * matrix[0, 0] if matrix.size == 1 else rows @ matrix
