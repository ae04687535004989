"""The leader's critics in a Markov game for many runs at once: networks with lagged copies, or tables.

A critic is rows of weights that become tables Q_L (R, S, L, A). It learns from the frequency of each transition in a
minibatch, n(s,l,a,s'), which is all that a minibatch of a game with finitely many transitions says:

    y(s,l,a) = Σ_s' n (r_L + γ_L v(s')),                                                                            (1)
    loss = Σ n (Q - r_L - γ_L v)²,                                                                                  (2)

with v(s') what the lagged copy says of the next state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from bilevelrl.estimators.critics.networks import DenseNetwork, LearningCritic, NetworkCritic
from bilevelrl.reference import MarkovGame
from bilevelrl.reference.arrays import FloatArray

__all__ = ["JointNetworks", "JointTables", "NextValue", "Targets"]

HIDDEN = (64, 64)

Targets: TypeAlias = Literal["modes", "expected", "sampled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NextValue:
    """What each run's leader expects of a state, by its operator.

    Attributes
    ----------
    policies : (R, S, L)
        f, or its lagged copy.
    responses : (R, S, L, A)
        g.
    stackelberg : (R,)
        Rows that pick the best leader action given the follower's most probable answer.
    targets
        What the others expect.
    """

    policies: FloatArray
    responses: FloatArray
    stackelberg: Any
    targets: Targets

    def __call__(self, tables: FloatArray) -> FloatArray:
        """Return v(s), (R, S), of tables (R, S, L, A)."""
        likely = self.responses.argmax(axis=3)[..., None]
        answered = np.take_along_axis(tables, likely, axis=3)[..., 0]
        if self.targets == "modes":
            chosen = self.policies.argmax(axis=2)[..., None]
            value = np.take_along_axis(answered, chosen, axis=2)[..., 0]
        else:
            value = np.vecdot(self.policies, np.vecdot(self.responses, tables))
        return np.where(self.stackelberg[:, None], answered.max(axis=2), value)


class JointNetworks(NetworkCritic):
    """64-64 ReLU networks on one-hot states and follower actions, one output per leader action."""

    def __init__(self, game: MarkovGame, weights: FloatArray, rates: FloatArray) -> None:
        super().__init__(self.architecture(game), weights, rates)
        states, leader_actions, actions = game.reward_leader.shape
        self.inputs = np.hstack([np.repeat(np.eye(states), actions, axis=0), np.tile(np.eye(actions), (states, 1))])
        self.shape = (states, actions, leader_actions)

    @staticmethod
    def architecture(game: MarkovGame) -> DenseNetwork:
        """Return the network."""
        states, leader_actions, actions = game.reward_leader.shape
        return DenseNetwork(sizes=(states + actions, *HIDDEN, leader_actions))

    def tables(self, *, lagged: bool = False) -> FloatArray:
        """Return Q_L (R, S, L, A), or what the lagged copies say of it."""
        return self._as_tables(self.outputs(self.inputs, lagged=lagged))

    def learn(self, frequencies: FloatArray, wanted: FloatArray) -> None:
        """Take one step on the loss (2): frequencies n(s,l,a) and sums of targets y(s,l,a), (R, S, L, A) each."""

        def uphill(outputs: FloatArray) -> FloatArray:
            missing = 2.0 * (wanted - frequencies * self._as_tables(outputs))  # (2)
            return missing.transpose(0, 1, 3, 2).reshape(outputs.shape)

        self.step(self.inputs, uphill)

    def _as_tables(self, outputs: FloatArray) -> FloatArray:
        return outputs.reshape(-1, *self.shape).transpose(0, 1, 3, 2)


class JointTables(LearningCritic):
    """Tables whose visited entries move to the mean of their targets."""

    def __init__(self, game: MarkovGame, weights: FloatArray, rates: FloatArray) -> None:
        super().__init__(weights, rates)
        self.shape = game.reward_leader.shape

    def tables(self, *, lagged: bool = False) -> FloatArray:
        """Return Q_L (R, S, L, A), or what the lagged copies say of it."""
        return (self.lagged if lagged else self.weights).reshape(-1, *self.shape)

    def learn(self, frequencies: FloatArray, wanted: FloatArray) -> None:
        """Move visited entries: frequencies n(s,l,a) and sums of targets y(s,l,a), (R, S, L, A) each."""
        tables, seen = self.tables(), frequencies > 0.0
        mean = np.where(seen, wanted / np.where(seen, frequencies, 1.0), tables)
        moved = tables + self.rates[:, None, None, None] * (mean - tables)
        self.weights = moved.reshape(self.weights.shape)
