"""Leader policies of many runs in a Markov game: logits from θ, and what a change of logits is worth back in θ."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.critics.networks import DenseNetwork
from bilevelrl.reference.arrays import FloatArray

__all__ = ["Actor", "NetworkActor", "TabularActor", "logit_cotangents", "softmax_rows"]


def softmax_rows(logits: FloatArray) -> FloatArray:
    """Return the softmax over the last axis."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    policies: FloatArray = weights / weights.sum(axis=-1, keepdims=True)
    return policies


def logit_cotangents(weights: FloatArray, policies: FloatArray) -> FloatArray:
    """Return Σ_l w(s,l) ∂log f(l|s)/∂logit(s,m), (R, S, L), for weights of scores and policies (R, S, L).

    Examples
    --------
    >>> logit_cotangents(np.array([[[1.0, 0.0]]]), np.array([[[0.25, 0.75]]])).tolist()
    [[[0.75, -0.75]]]
    """
    cotangents: FloatArray = weights - policies * weights.sum(axis=2, keepdims=True)
    return cotangents


class Actor(Protocol):
    """θ (R, N) to logits (R, S, L), and back."""

    def start(self, rng: Generator) -> FloatArray:
        """Draw θ_0, (N,)."""
        ...

    def logits(self, thetas: FloatArray) -> tuple[FloatArray, Any]:
        """Return logits (R, S, L) and what `pull` needs."""
        ...

    def pull(self, tape: Any, cotangents: FloatArray) -> FloatArray:
        """Return the gradient in θ (R, N) of what has the given derivatives (R, S, L) in the logits."""
        ...


class NetworkActor:
    """64-64 ReLU network on one-hot states, Xavier-uniform at the start."""

    def __init__(self, states: int, leader_actions: int) -> None:
        self.network = DenseNetwork(sizes=(states, 64, 64, leader_actions))
        self.inputs = np.eye(states)

    def start(self, rng: Generator) -> FloatArray:
        """Draw θ_0, (N,)."""
        return self.network.initialise(rng, "xavier_uniform")

    def logits(self, thetas: FloatArray) -> tuple[FloatArray, Any]:
        """Return logits (R, S, L) and the network's tape."""
        return self.network.forward(thetas, self.inputs)

    def pull(self, tape: Any, cotangents: FloatArray) -> FloatArray:
        """Return the gradient in θ, (R, N)."""
        return self.network.backward(tape, cotangents)


class TabularActor:
    """One logit per state and leader action but the first, as in `TabularSoftmaxPolicy`."""

    def __init__(self, states: int, leader_actions: int, scale: float) -> None:
        self.shape, self.scale = (states, leader_actions - 1), scale

    def start(self, rng: Generator) -> FloatArray:
        """Draw θ_0, (N,), with independent entries N(0, scale²)."""
        return self.scale * rng.standard_normal(self.shape[0] * self.shape[1])

    def logits(self, thetas: FloatArray) -> tuple[FloatArray, Any]:
        """Return logits (R, S, L); nothing is kept."""
        free = thetas.reshape(-1, *self.shape)
        return np.concatenate([np.zeros((*free.shape[:2], 1)), free], axis=2), None

    def pull(self, tape: Any, cotangents: FloatArray) -> FloatArray:
        """Return the gradient in θ, (R, N)."""
        return cotangents[:, :, 1:].reshape(len(cotangents), -1)
