r"""A hypergradient of linear-quadratic games from sampled paths: no leader critic, no scores, no exact response.

Leaders that know the dynamics, their own reward, and the follower's V_F and π* can differentiate the reward along each
sampled path instead of weighing scores by returns. With `y = A x + C l`, `x' = y + B a` and `a = -G y + ξ`,

    E Σ_t γ_L^t ∇r_L(x_t)  =  policy part (through l = K x + ζ)  +  response part (through ∇G and ∇Σ).               (1)

Backwards, with `q_t` the derivative of what is still to be earned in the state `x_t`: `C'H'q_{t+1} x_t'` is the
cotangent of K, `-B'q_{t+1} y_t'` that of G, `½ B'q_{t+1} ξ_t' Σ^{-1}` that of Σ, and `H = I - B G`.

The response
------------
`∇Q_F(x, l, a) = γ_F ∇V_F(x')`, and `∇V_F(x)` is the expected discounted sum of `∂V_F(x_k, l_k)/∂l · x_k` along the
path: the pathwise form of Theorem 2's `∇log f · V_F`. It is quadratic in x, `-x'∇P x` and a constant, so least-squares
temporal differences on quadratic features contain the truth. The Boltzmann policy turns it into
`∇log π* = (∇Q_F - E ∇Q_F) / β`, and for a Gaussian policy the covariance `E[B ∇Q_F] / β` is, by Stein's identity, the
pathwise derivative with

    ∇G = γ_F S^{-1} B' ∇P H,        ∇Σ = -(2/β) γ_F Σ B' ∇P B Σ.                                                     (2)

Noise
-----
Given (x, l) the next state is Gaussian, so each reward may be replaced by its mean over the follower's own noise, which
widens the bump from D to `D + B Σ B'` (Rao-Blackwell). Bias: none in the policy part; in the response part that of
least squares on one batch, O(1/samples), because the fitted ∇P multiplies a path that it was fitted on. Noise
is also what tells the entries of ∇P apart: a single noiseless path from one start does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bilevelrl.estimators.sampling.gaussian_game import LQRGameBatch, StackedFollowers
from bilevelrl.reference import LQRGame
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked

__all__ = ["PathwiseGame", "fit_cost_gradient"]

_RIDGE = 1e-12  # relative to the mean diagonal of the scaled normal matrix: for batches that never leave a line


def fit_cost_gradient(game: LQRGame, followers: StackedFollowers, batch: LQRGameBatch) -> FloatArray:
    """Return an estimate of ∇P (R, N, n, n) by least-squares temporal differences on quadratic features.

    Parameters
    ----------
    game, followers, batch
        The game, the followers that played, and what they played.
    """
    runs, n = len(batch.state_t), game.dynamics_action.shape[0]
    visited = batch.state_t[:, :, :-1].reshape(runs, -1, n)
    following = batch.state_t[:, :, 1:].reshape(runs, -1, n)
    leader = batch.leader_action_t.reshape(runs, visited.shape[1], -1)
    upper = np.triu_indices(n)
    ones = np.ones((*visited.shape[:2], 1))
    features, ahead = (
        np.concatenate([x[..., upper[0]] * x[..., upper[1]], ones], axis=2) for x in (visited, following)
    )
    scale = np.sqrt(np.mean(features**2, axis=1, keepdims=True))
    scale = np.where(scale > 0.0, scale, 1.0)
    features, ahead = features / scale, ahead / scale
    joint = np.concatenate([visited, leader], axis=2)
    worth = -2.0 * (joint @ followers.cost_seen)[..., n:]  # ∂V_F/∂l
    earned = (worth[..., :, None] * visited[..., None, :]).reshape(*visited.shape[:2], -1)
    turned = np.swapaxes(features, 1, 2)
    normal = turned @ (features - game.discount_follower * ahead)
    size = features.shape[2]
    ridge = _RIDGE * np.trace(turned @ features, axis1=1, axis2=2) / size
    weights = np.linalg.solve(normal + ridge[:, None, None] * np.eye(size), turned @ earned)
    weights = weights / np.swapaxes(scale, 1, 2)
    gradient = np.zeros((runs, weights.shape[2], n, n))
    for row, (i, j) in enumerate(zip(*upper, strict=True)):
        gradient[:, :, i, j] -= 0.5 * weights[:, row]
        gradient[:, :, j, i] -= 0.5 * weights[:, row]
    return gradient


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class PathwiseGame:
    """Pathwise hypergradient of a linear-quadratic game whose θ is the leader's gain.

    Held against `hypergradient(game, theta, horizon=T)`, discounted, for episodes of T steps.

    Parameters
    ----------
    average_reward
        Replace every reward by its mean over the follower's noise in the last step.
    response
        "lstd": with the response part. "none": without it, the policy part alone.

    Raises
    ------
    UnknownNameError
        If `response` is not known.

    Examples
    --------
    >>> from bilevelrl.estimators.sampling.gaussian_game import sample_games
    >>> from bilevelrl.reference import hypergradient
    >>> from bilevelrl.tasks import lqr_game
    >>> game, theta = lqr_game(), np.array([-9.0, -9.0])
    >>> followers = StackedFollowers.solve(game, theta[None])
    >>> batch = sample_games(game, followers, streams=200, steps=100, rng=[np.random.default_rng(0)])
    >>> parts = PathwiseGame().parts(game, followers, batch)
    >>> exact = hypergradient(game, theta, horizon=100).value
    >>> bool(np.linalg.norm(sum(parts.values())[0] - exact) < 0.1 * np.linalg.norm(exact))
    True
    """

    average_reward: bool = True
    response: Literal["lstd", "none"] = "lstd"

    def parts(self, game: LQRGame, followers: StackedFollowers, batch: LQRGameBatch) -> dict[str, FloatArray]:
        """Return {"policy": (R, N), "response": (R, N)}, the mean over the streams of each run."""
        runs, streams, steps = batch.action_t.shape[:3]
        a, b, c = game.dynamics_state, game.dynamics_action, game.dynamics_leader
        n, m = b.shape
        visited = batch.state_t[:, :, :-1].reshape(runs, -1, n)
        leader = batch.leader_action_t.reshape(runs, visited.shape[1], -1)
        planned = visited @ a.T + leader @ c.T
        mean_action = -planned @ np.swapaxes(followers.reaction, 1, 2)
        tremble = batch.action_t.reshape(runs, -1, m) - mean_action
        by_mean, by_covariance = self._reward_cotangents(game, followers, batch, planned + mean_action @ b.T)

        # `ahead` is what the state after the step is still worth; `total` adds the reward paid in it.
        after = np.eye(n) - b @ followers.reaction
        loop = after @ (a + c @ followers.gains)
        paid = np.ascontiguousarray(np.moveaxis(by_mean.reshape(runs, streams, steps, n), 2, 0))
        total, ahead = np.empty_like(paid), np.empty_like(paid)
        later = np.zeros_like(paid[0])
        for t in range(steps - 1, -1, -1):
            ahead[t] = later
            total[t] = paid[t] + later
            later = total[t] @ loop
        flat_total = np.moveaxis(total, 0, 2).reshape(runs, -1, n)
        by_gain = np.swapaxes(flat_total @ (after @ c), 1, 2) @ visited / streams
        parts = {"policy": by_gain.reshape(runs, -1)}  # (1)
        if self.response == "none":
            return {**parts, "response": np.zeros_like(parts["policy"])}
        onward = np.moveaxis(ahead, 0, 2).reshape(runs, -1, n)
        if not self.average_reward:
            onward = flat_total
        by_reaction = -np.swapaxes(flat_total @ b, 1, 2) @ planned / streams
        shaken = np.swapaxes(onward @ b, 1, 2) @ tremble / streams
        by_spread = 0.5 * shaken @ np.linalg.inv(followers.covariance)
        if by_covariance is not None:
            by_spread = by_spread + b.T @ by_covariance @ b / streams
        return {**parts, "response": self._response(game, followers, batch, after, by_reaction, by_spread)}

    def _reward_cotangents(
        self, game: LQRGame, followers: StackedFollowers, batch: LQRGameBatch, mean_tp1: FloatArray
    ) -> tuple[FloatArray, FloatArray | None]:
        """Return derivatives of discounted rewards by each next state, (R, M T, n), and of all by D, (R, n, n)."""
        runs, streams, steps = batch.action_t.shape[:3]
        n, b = game.dynamics_action.shape[0], game.dynamics_action
        # The last state is beyond the horizon: T rewards belong to the states before each of T steps.
        discount = game.discount_leader ** np.arange(1.0, steps + 1.0)
        discount[-1] = 0.0
        weight = np.broadcast_to(discount, (streams, steps)).ravel()
        if self.average_reward:
            wide = np.linalg.inv(game.width + b @ followers.covariance @ b.T)
            off = mean_tp1 - game.target
        else:
            wide = np.broadcast_to(np.linalg.inv(game.width), (runs, n, n))
            off = batch.state_t[:, :, 1:].reshape(runs, -1, n) - game.target
        pull = off @ wide
        level = np.sqrt(np.linalg.det(wide) * np.linalg.det(game.width))
        reward = weight * level[:, None] * np.exp(-0.5 * np.vecdot(off, pull))
        by_mean = -reward[..., None] * pull
        if not self.average_reward:
            return by_mean, None
        outer = np.swapaxes(pull * reward[..., None], 1, 2) @ pull
        return by_mean, 0.5 * (outer - reward.sum(axis=1)[:, None, None] * wide)

    def _response(
        self,
        game: LQRGame,
        followers: StackedFollowers,
        batch: LQRGameBatch,
        after: FloatArray,
        by_reaction: FloatArray,
        by_spread: FloatArray,
    ) -> FloatArray:
        """Pull cotangents of G and Σ through the fitted ∇P, (R, N)."""
        fitted = fit_cost_gradient(game, followers, batch)
        b = game.dynamics_action
        moved = game.discount_follower * (b.T @ fitted)  # (R, N, m, n)
        reaction = np.linalg.solve(followers.curvature[:, None], moved @ after[:, None])  # (2)
        sigma = followers.covariance[:, None]
        spread = -(2.0 / game.temperature) * sigma @ (moved @ b) @ sigma  # (2)
        through_gain: FloatArray = np.sum(by_reaction[:, None] * reaction, axis=(2, 3))
        through_noise: FloatArray = np.sum(by_spread[:, None] * spread, axis=(2, 3))
        return through_gain + through_noise
