"""Leader critics of linear-quadratic games for many runs: networks trained by temporal differences, or the truth.

The network reads (x, a, l). As published: two hidden layers of 64 rectified units, Adam, a target network and a target
leader that move by a small share once per outer iteration, and targets at the modes of both players' policies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.critics.gaussian_game import LQRGameCritic
from bilevelrl.estimators.critics.networks import DenseNetwork
from bilevelrl.estimators.estimator import Context
from bilevelrl.estimators.sampling.gaussian_game import LQRGameBatch, StackedFollowers, check_linear_leader
from bilevelrl.estimators.sampling.linear_quadratic import gaussian_root
from bilevelrl.estimators.training.optimisers import Adam
from bilevelrl.reference import LQRGame, named_stream
from bilevelrl.reference.arrays import FloatArray, IntArray
from bilevelrl.reference.problem import Objective

__all__ = ["ExactGameCritics", "NetworkCritics"]

_HIDDEN = (64, 64)
_PROBES = 512
_BLOCK = 1024


@dataclass(slots=True, kw_only=True)
class NetworkCritics:
    """One network per run, with its target.

    Attributes
    ----------
    game : LQRGame
    rate : float
        Adam's learning rate.
    target_share : float
        By which targets move towards their originals in each call of `follow`.
    modes : bool
        Bootstrap at the mean actions of both players, not at drawn ones.
    weights, target : (R, P)
    target_gains : (R, p, n)
    state : dict
        Adam's.
    """

    game: LQRGame
    rate: float
    target_share: float
    modes: bool
    weights: FloatArray
    target: FloatArray
    target_gains: FloatArray
    state: dict[str, FloatArray]

    @classmethod
    def start(
        cls,
        game: LQRGame,
        gains: FloatArray,
        *,
        rate: float,
        target_share: float,
        modes: bool,
        rng: Sequence[Generator],
    ) -> NetworkCritics:
        """Return networks drawn from each run's generator, Xavier-normal, with targets equal to them.

        Examples
        --------
        >>> from bilevelrl.tasks import lqr_game
        >>> critics = NetworkCritics.start(lqr_game(), np.zeros((1, 1, 2)), rate=0.1, target_share=0.01, modes=True,
        ...                                rng=[np.random.default_rng(0)])
        >>> critics.action_value(np.zeros((1, 5, 2)), np.zeros((1, 5, 1)), np.zeros((1, 5, 1)))
        array([[0., 0., 0., 0., 0.]])
        """
        network = _network(game)
        weights = np.stack([network.initialise(one) for one in rng])
        return cls(
            game=game,
            rate=rate,
            target_share=target_share,
            modes=modes,
            weights=weights,
            target=weights.copy(),
            target_gains=gains.copy(),
            state=Adam().start((len(weights), network.parameters)),
        )

    def action_value(self, state: FloatArray, leader_action: FloatArray, action: FloatArray) -> FloatArray:
        """Return Q_L, (R, B)."""
        network = _network(self.game)
        inputs = np.concatenate([state, action, leader_action], axis=2).astype(network.dtype)
        found = np.empty(inputs.shape[:2])
        for row in range(len(inputs)):  # run by run in blocks that stay in the processor's cache
            for first in range(0, inputs.shape[1], _BLOCK):
                block = slice(first, first + _BLOCK)
                found[row, block] = network.forward(self.weights[row : row + 1], inputs[row, block])[0][0, :, 0]
        return found

    def learn(
        self,
        followers: StackedFollowers,
        batch: LQRGameBatch,
        episode: IntArray,
        time: IntArray,
        rng: Sequence[Generator],
    ) -> None:
        """Make one step on stored transitions (R, B): the mean square of their temporal differences."""
        game, network = self.game, _network(self.game)
        at = np.arange(len(episode))[:, None]
        state, state_tp1 = batch.state_t[at, episode, time], batch.state_t[at, episode, time + 1]
        leader, action = batch.leader_action_t[at, episode, time], batch.action_t[at, episode, time]
        leader_tp1 = state_tp1 @ np.swapaxes(self.target_gains, 1, 2)
        if not self.modes:
            root = gaussian_root(check_linear_leader(game))
            leader_tp1 = leader_tp1 + np.stack([one.standard_normal(leader.shape[1:]) for one in rng]) @ root.T
        planned = state_tp1 @ game.dynamics_state.T + leader_tp1 @ game.dynamics_leader.T
        action_tp1 = -planned @ np.swapaxes(followers.reaction, 1, 2)
        if not self.modes:
            roots = np.stack([gaussian_root(covariance) for covariance in followers.covariance])
            drawn = np.stack([one.standard_normal(action.shape[1:]) for one in rng])
            action_tp1 = action_tp1 + drawn @ np.swapaxes(roots, 1, 2)
        later, _ = network.forward(self.target, np.concatenate([state_tp1, action_tp1, leader_tp1], axis=2))
        wanted = game.reward_leader(state) + game.discount_leader * later[..., 0]
        found, tape = network.forward(self.weights, np.concatenate([state, action, leader], axis=2))
        off = (2.0 / episode.shape[1]) * (wanted[..., None] - found)
        gradient = network.backward(tape, off).astype(np.float64)  # squares of far states leave single precision
        step, self.state = Adam().step(gradient, np.full(len(self.weights), self.rate), self.state)
        self.weights = (self.weights + step).astype(network.dtype)

    def follow(self, gains: FloatArray) -> None:
        """Let the target network and the target leader follow."""
        share = self.weights.dtype.type(self.target_share)
        self.target = self.target + share * (self.weights - self.target)
        self.target_gains = self.target_gains + self.target_share * (gains - self.target_gains)

    def dead_share(self) -> FloatArray:
        """Return the share of last hidden units that are zero at all of 512 standard normal inputs, (R,)."""
        network = _network(self.game)
        probes = named_stream(0, "dead units", network.sizes[0]).standard_normal((_PROBES, network.sizes[0]))
        _, tape = network.forward(self.weights, probes)
        dead: FloatArray = (tape.activations[-1] <= 0.0).all(axis=1).mean(axis=1)
        return dead

    def arrays(self) -> dict[str, FloatArray]:
        """Return what `restore` needs."""
        stored = {f"adam.{name}": array for name, array in self.state.items()}
        return {**stored, "weights": self.weights, "target": self.target, "target_gains": self.target_gains}

    def restore(self, arrays: Mapping[str, FloatArray]) -> None:
        """Continue from what `arrays` returned."""
        self.weights, self.target = arrays["weights"], arrays["target"]
        self.target_gains = arrays["target_gains"]
        self.state = {name.removeprefix("adam."): array for name, array in arrays.items() if name.startswith("adam.")}


def _network(game: LQRGame) -> DenseNetwork:
    (n, m), p = game.dynamics_action.shape, game.dynamics_leader.shape[1]
    return DenseNetwork(sizes=(n + m + p, *_HIDDEN, 1), dtype=np.float32)  # as published


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
