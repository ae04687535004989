"""Critics of configurable LQRs as small networks trained by temporal differences on whole batches.

The published critic (arXiv:2603.14867, Appendix C): two hidden layers of 64, 5,000 steps of Adam on the whole batch in
every outer iteration, targets `r + γ f(next)` recomputed with the current weights and not differentiated, no target
network, and the same initial weights again in the next outer iteration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.critics.networks import DenseNetwork, NetworkCritic
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.sums.clipping import clip_to_norm
from bilevelrl.estimators.sums.traces import continues
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.lqr import LQRFollower

__all__ = ["ActionValueNetwork", "StateNetwork", "TDOptions", "fit_network"]

_ROWS = 1000  # of a block: activations of this many samples stay in the processor's cache


@dataclass(frozen=True, slots=True, kw_only=True)
class TDOptions:
    """How a network is trained on one batch.

    Attributes
    ----------
    steps : int
        Steps of Adam on the whole batch.
    learning_rate, largest_norm : float
        Of Adam, and to which gradients are shortened.
    """

    steps: int = 5000
    learning_rate: float = 1e-4
    largest_norm: float = 1.0


def fit_network(
    network: DenseNetwork,
    weights: FloatArray,
    inputs: FloatArray,
    rewards: FloatArray,
    trajectories: Trajectories,
    *,
    discount: float,
    options: TDOptions,
) -> FloatArray:
    """Return the weights (P,) after semi-gradient steps on the mean squared temporal difference.

    Parameters
    ----------
    network, weights
        What is trained, and where it starts, (P,).
    inputs : (streams, steps, in)
        What the network sees; the entry after a transition is its successor's.
    rewards : (streams, steps, out)
    trajectories
        Which transitions have a successor in the batch; others are left out.
    discount
        γ.
    options
        Steps and step sizes.

    Examples
    --------
    >>> from bilevelrl.estimators.sampling.linear_quadratic import LQRSimulator
    >>> from bilevelrl.reference import solve_follower
    >>> from bilevelrl.tasks import random_lqr
    >>> problem, theta = random_lqr(seed=0), np.zeros(3)
    >>> batch = LQRSimulator().sample(
    ...     problem, theta, solve_follower(problem, theta), streams=4, steps=5, rng=np.random.default_rng(0))
    >>> network = DenseNetwork(sizes=(batch.state_t.shape[2], 8, 1))
    >>> start = network.initialise(np.random.default_rng(0))
    >>> fitted = fit_network(network, start, batch.state_t, batch.reward_leader_t[..., None], batch,
    ...                      discount=0.9, options=TDOptions(steps=3))
    >>> bool(0.0 < np.abs(fitted - start).max() < 4e-4)
    True
    """
    followed = np.zeros((*rewards.shape[:2], 1), dtype=np.float64)
    followed[:, :-1, 0] = continues(trajectories)[:, 1:] & trajectories.valid[:, :-1]
    share = 2.0 / max(1.0, followed.sum() * rewards.shape[2])
    blocks = _blocks(network, inputs, rewards, share * followed)
    critic = NetworkCritic(network, np.asarray(weights, dtype=np.float64)[None], np.array([options.learning_rate]))
    kept = np.asarray(discount, dtype=network.dtype)
    for _ in range(options.steps):
        gradient: FloatArray = np.zeros((1, network.parameters))
        current = critic.weights.astype(network.dtype)
        for seen, paid, counted in blocks:
            outputs, tape = network.forward(current, seen)
            difference = outputs[0] - paid
            difference[:-1] -= kept * outputs[0, 1:]
            difference *= counted
            gradient += network.backward(tape, difference[None])
        critic.ascend(-clip_to_norm(gradient, options.largest_norm))
    return np.asarray(critic.weights[0].astype(network.dtype))


def _blocks(network: DenseNetwork, *arrays: FloatArray) -> list[list[FloatArray]]:
    """Cut the arrays into groups of whole streams, flat and contiguous."""
    streams, steps = arrays[0].shape[:2]
    size = max(1, _ROWS // steps)
    return [
        [np.ascontiguousarray(array[i : i + size].reshape(-1, array.shape[2]), dtype=network.dtype) for array in arrays]
        for i in range(0, streams, size)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class StateNetwork:
    """Outputs of a state: V_L as a `LeaderCritic`, or the N outputs of ∇V_F as a critic of gradients.

    It knows no action: asked for Q_L it answers V_L, and the benefit is zero.

    Attributes
    ----------
    network, weights
    scale : (out,)
        Multiplies the outputs.
    """

    network: DenseNetwork
    weights: FloatArray
    scale: FloatArray

    def outputs(self, state: Any) -> FloatArray:
        """Return (..., out)."""
        return _outputs(self.network, self.weights, np.asarray(state)) * self.scale

    def action_value(self, state: Any, action: Any, *, steps_to_go: Any = None) -> FloatArray:
        """Return V_L."""
        return self.value(state)

    def value(self, state: Any, *, steps_to_go: Any = None) -> FloatArray:
        """Return V_L, or ∇V_F, (..., N), where there is more than one output."""
        found = self.outputs(state)
        return found[..., 0] if self.network.sizes[-1] == 1 else found


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionValueNetwork:
    """Q_L of state and action, and V_L as its mean over freshly drawn actions.

    Attributes
    ----------
    network, weights
    scale : (1,)
        Multiplies the output.
    follower : LQRFollower
        Draws the actions.
    actions : int
        How many for each state; 256 as published.
    rng : Generator
    """

    network: DenseNetwork
    weights: FloatArray
    scale: FloatArray
    follower: LQRFollower
    actions: int
    rng: Generator

    def action_value(self, state: Any, action: Any, *, steps_to_go: Any = None) -> FloatArray:
        """Return Q_L, (...)."""
        found = _outputs(self.network, self.weights, np.concatenate([state, action], axis=-1))
        return np.asarray(found[..., 0] * self.scale[0])

    def value(self, state: Any, *, steps_to_go: Any = None) -> FloatArray:
        """Return the mean of Q_L over fresh actions, (...)."""
        x = np.asarray(state)
        rows = x.reshape(-1, x.shape[-1])
        found = np.empty(len(rows))
        size = max(1, 8 * _ROWS // self.actions)
        for begin in range(0, len(rows), size):
            here = np.repeat(rows[begin : begin + size], self.actions, axis=0)
            values = self.action_value(here, self.follower.sample(here, self.rng))
            found[begin : begin + size] = values.reshape(-1, self.actions).mean(axis=1)
        return found.reshape(x.shape[:-1])


def _outputs(network: DenseNetwork, weights: FloatArray, inputs: FloatArray) -> FloatArray:
    flat = inputs.reshape(-1, inputs.shape[-1])
    outputs, _ = network.forward(weights[None], flat)
    return np.asarray(outputs[0], dtype=np.float64).reshape(*inputs.shape[:-1], -1)


Carried = Mapping[str, FloatArray]
"""Weights by name, from one outer iteration to the next."""
