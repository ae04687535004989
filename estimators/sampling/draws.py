"""Drawing from rows of discrete laws by inverting cumulative sums, for any number of rows at once.

Only outcomes of positive probability are listed, and rows are searched by halving, so a draw costs the logarithm of the
number of possible outcomes whatever the number of states, and nothing of probability zero is ever drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilevelrl.reference import SparseTransition
from bilevelrl.reference.arrays import FloatArray, IntArray
from bilevelrl.reference.tabular import ROW_SUM_TOLERANCE, Transition

__all__ = ["Draws", "kernel_draws", "policy_draws"]


@dataclass(frozen=True, slots=True)
class Draws:
    """Rows of outcomes with their cumulative probabilities, searched by halving: width is a power of two."""

    threshold: FloatArray  # (rows * width,)
    outcome: IntArray  # (rows * width,)
    width: int

    @classmethod
    def build(cls, probability: FloatArray, outcome: IntArray) -> Draws:
        """Compile rows that sum to one up to rounding; the last outcome of positive probability takes the rest."""
        rows, count = probability.shape
        width = 1 << max(0, count - 1).bit_length()
        threshold = np.full((rows, width), np.inf)
        threshold[:, :count] = np.cumsum(probability, axis=1)
        last = count - 1 - np.argmax(probability[:, ::-1] > 0.0, axis=1)
        threshold[np.arange(width)[None, :] >= last[:, None]] = np.inf
        outcomes = np.zeros((rows, width), dtype=np.int64)
        outcomes[:, :count] = outcome
        return cls(threshold.ravel(), outcomes.ravel(), width)

    def draw(self, row: IntArray, uniform: FloatArray) -> IntArray:
        """Return one outcome per row index, where `uniform` falls among the row's cumulative sums."""
        position = row * self.width
        half = self.width // 2
        while half:
            position += half * (self.threshold[position + (half - 1)] <= uniform)
            half //= 2
        drawn: IntArray = self.outcome[position]
        return drawn


def policy_draws(policy: FloatArray) -> Draws:
    """One row per state, or per stream and state, and an absorbing row S where only action 0 is drawn."""
    actions = policy.shape[-1]
    blocks = policy.reshape(-1, *policy.shape[-2:])
    absorbed = np.zeros((blocks.shape[0], 1, actions))
    absorbed[:, :, 0] = 1.0
    rows = np.concatenate([blocks, absorbed], axis=1).reshape(-1, actions)
    return Draws.build(rows, np.broadcast_to(np.arange(actions), rows.shape))


def kernel_draws(kernel: Transition) -> Draws:
    """One row per state and action; termination is an outcome, state S, and S is absorbing."""
    states, actions, _ = kernel.shape
    if isinstance(kernel, SparseTransition):
        successor = kernel.successor.reshape(states * actions, -1)
        probability = np.asarray(kernel.probability).reshape(successor.shape)
    else:
        probability = np.asarray(kernel).reshape(states * actions, states)
        successor = np.broadcast_to(np.arange(states), probability.shape)
    rest = 1.0 - probability.sum(axis=1, keepdims=True)
    probability = np.hstack([probability, np.where(rest > ROW_SUM_TOLERANCE, rest, 0.0)])
    successor = np.hstack([successor, np.full_like(rest, states, dtype=np.int64)])
    possible = probability > 0.0
    front = np.argsort(~possible, axis=1, kind="stable")[:, : int(possible.sum(axis=1).max())]
    probability = np.take_along_axis(probability, front, axis=1)
    successor = np.take_along_axis(successor, front, axis=1)
    absorbing = np.zeros((actions, probability.shape[1]))
    absorbing[:, 0] = 1.0
    return Draws.build(
        np.vstack([probability, absorbing]),
        np.vstack([successor, np.full(absorbing.shape, states, dtype=np.int64)]),
    )
