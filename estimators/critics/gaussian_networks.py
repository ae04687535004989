"""Leader critics of linear-quadratic games for many runs: networks on (x, a, l) trained by temporal differences.

One step makes the mean of

    (r_L(x_t) + γ_L Q'(x_{t+1}, a', l') - Q(x_t, a_t, l_t))²                                                         (1)

over stored transitions smaller, with Q' the lagged networks, and a', l' of both players' policies at x_{t+1}, the
leader's lagged too. As published: two hidden layers of 64 rectified units, targets at the modes of both policies, and
lagged copies that move by a small share once per outer iteration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.critics.gaussian_game import LQRGameCritic
from bilevelrl.estimators.critics.networks import DenseNetwork, NetworkCritic
from bilevelrl.estimators.estimator import Context
from bilevelrl.estimators.sampling.gaussian_game import LQRGameBatch, StackedFollowers, check_linear_leader
from bilevelrl.estimators.sampling.linear_quadratic import gaussian_root
from bilevelrl.reference import LQRGame, named_stream
from bilevelrl.reference.arrays import FloatArray, IntArray
from bilevelrl.reference.problem import Objective

__all__ = ["ExactGameCritics", "GameNetworks"]

_HIDDEN = (64, 64)
_PROBES = 512
_BLOCK = 1024


class GameNetworks(NetworkCritic):
    """One network per run of an LQR game, drawn from the run's generator, Xavier-normal, with lagged copies.

    Parameters
    ----------
    game
        The game.
    gains : (R, p, n)
        The leaders', of which a lagged copy is kept.
    rates : (R,)
        Adam's learning rates.
    modes
        Bootstrap at the mean actions of both players, not at drawn ones.
    rng
        One generator per run.

    Examples
    --------
    >>> from bilevelrl.tasks import lqr_game
    >>> critics = GameNetworks(lqr_game(), np.zeros((1, 1, 2)), np.array([0.1]), modes=True,
    ...                        rng=[np.random.default_rng(0)])
    >>> critics.action_value(np.zeros((1, 5, 2)), np.zeros((1, 5, 1)), np.zeros((1, 5, 1)))
    array([[0., 0., 0., 0., 0.]])
    """

    def __init__(
        self, game: LQRGame, gains: FloatArray, rates: FloatArray, *, modes: bool, rng: Sequence[Generator]
    ) -> None:
        (n, m), p = game.dynamics_action.shape, game.dynamics_leader.shape[1]
        network = DenseNetwork(sizes=(n + m + p, *_HIDDEN, 1), dtype=np.float32)  # as published
        super().__init__(network, np.stack([network.initialise(one) for one in rng]), rates)
        self.game, self.lagged_gains, self.modes, self.rng = game, gains, modes, rng

    def action_value(self, state: FloatArray, leader_action: FloatArray, action: FloatArray) -> FloatArray:
        """Return Q_L, (R, B)."""
        inputs = np.concatenate([state, action, leader_action], axis=2).astype(self.network.dtype)
        found = np.empty(inputs.shape[:2])
        for row in range(len(inputs)):  # run by run in blocks that stay in the processor's cache
            for first in range(0, inputs.shape[1], _BLOCK):
                block = slice(first, first + _BLOCK)
                found[row, block] = self.network.forward(self.weights[row : row + 1], inputs[row, block])[0][0, :, 0]
        return found

    def learn(self, followers: StackedFollowers, batch: LQRGameBatch, episode: IntArray, time: IntArray) -> None:
        """Take one step on stored transitions (R, B)."""
        game = self.game
        at = np.arange(len(episode))[:, None]
        state, state_tp1 = batch.state_t[at, episode, time], batch.state_t[at, episode, time + 1]
        leader, action = batch.leader_action_t[at, episode, time], batch.action_t[at, episode, time]
        leader_tp1 = state_tp1 @ np.swapaxes(self.lagged_gains, 1, 2)
        if not self.modes:
            root = gaussian_root(check_linear_leader(game))
            leader_tp1 = leader_tp1 + np.stack([one.standard_normal(leader.shape[1:]) for one in self.rng]) @ root.T
        planned = state_tp1 @ game.dynamics_state.T + leader_tp1 @ game.dynamics_leader.T
        action_tp1 = -planned @ np.swapaxes(followers.reaction, 1, 2)
        if not self.modes:
            roots = np.stack([gaussian_root(covariance) for covariance in followers.covariance])
            drawn = np.stack([one.standard_normal(action.shape[1:]) for one in self.rng])
            action_tp1 = action_tp1 + drawn @ np.swapaxes(roots, 1, 2)
        later = self.outputs(np.concatenate([state_tp1, action_tp1, leader_tp1], axis=2), lagged=True)
        wanted = game.reward_leader(state) + game.discount_leader * later[..., 0]
        share = 2.0 / episode.shape[1]
        self.step(np.concatenate([state, action, leader], axis=2), lambda q: share * (wanted[..., None] - q))  # (1)

    def follow_leader(self, share: float, gains: FloatArray) -> None:
        """Let the lagged copies of the networks and of the leader's gains follow."""
        self.follow(share)
        self.lagged_gains = self.lagged_gains + share * (gains - self.lagged_gains)

    def dead_share(self) -> FloatArray:
        """Return the share of last hidden units that are zero at all of 512 standard normal inputs, (R,)."""
        size = self.network.sizes[0]
        probes = named_stream(0, "dead units", size).standard_normal((_PROBES, size))
        _, tape = self.network.forward(self.weights, probes)
        dead: FloatArray = (tape.activations[-1] <= 0.0).all(axis=1).mean(axis=1)
        return dead

    def arrays(self) -> dict[str, FloatArray]:
        """Return what learning goes on from."""
        return {**super().arrays(), "lagged_gains": self.lagged_gains}

    def restore(self, arrays: Mapping[str, FloatArray]) -> None:
        """Continue from what `arrays` returned."""
        super().restore(arrays)
        self.lagged_gains = arrays["lagged_gains"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactGameCritics:
    """The exact action values of every run, over a number of steps from every state: a control, not a method.

    Attributes
    ----------
    critics : tuple of LQRGameCritic
    """

    critics: tuple[LQRGameCritic, ...]

    @classmethod
    def solve(cls, game: LQRGame, thetas: FloatArray, followers: StackedFollowers, *, steps: int) -> ExactGameCritics:
        """Return the exact critics at θ (R, N)."""
        contexts = (
            Context(problem=game, theta=theta, follower=follower)
            for theta, follower in zip(thetas, followers.solutions, strict=True)
        )
        return cls(critics=tuple(LQRGameCritic.solve(context, Objective(horizon=steps)) for context in contexts))

    def action_value(self, state: FloatArray, leader_action: FloatArray, action: FloatArray) -> FloatArray:
        """Return Q_L, (R, B)."""
        found = np.empty(state.shape[:2])
        for row, critic in enumerate(self.critics):
            game = critic.game
            state_tp1 = state[row] @ game.dynamics_state.T + action[row] @ game.dynamics_action.T
            state_tp1 = state_tp1 + leader_action[row] @ game.dynamics_leader.T
            found[row] = game.reward_leader(state[row]) + critic.discount * critic.value(state_tp1)
        return found

    def over_follower(self, state: FloatArray, leader_action: FloatArray) -> FloatArray:
        """Return E_a Q_L given the leader's action, (R, B), in closed form."""
        found = np.empty(state.shape[:2])
        for row, critic in enumerate(self.critics):
            found[row] = critic.over_follower(state[row], leader_action[row])
        return found
