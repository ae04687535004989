"""Moments of what streams of nudged followers say, over all pairs of streams that two populations may see together.

With D what one step of both streams says and m', M' the moments of what is said later, those at a pair of states are

    m = E[D + γ m'],      M = E[D D' + D (γ m')' + (γ m') D' + γ² M'],                                              (1)

over the joint law of both steps: the product of both, or, where both meet the same uniform numbers, their overlaps.
"""

from __future__ import annotations

import numpy as np

from bilevelrl.estimators.terms.paid import PaidPlay, at_time
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import TooLargeError

__all__ = ["paid_moments"]

LARGEST = 400
"""Pairs of states for which the covariance of coupled streams is worked out."""


def paid_moments(
    play: PaidPlay,
    law: tuple[FloatArray, FloatArray, int],
    *,
    coupled: bool,
    starts_count: bool,
    name: str,
) -> tuple[FloatArray, FloatArray]:
    """Return mean and second moment of what paid streams say, by dynamic programming over pairs.

    Parameters
    ----------
    play
        Both populations.
    law
        The kernel and the initial law that streams have, and their length.
    coupled
        Whether both meet the same uniform numbers.
    starts_count
        Whether what the first state says is the first population's.
    name
        Of the estimator.

    Raises
    ------
    TooLargeError
        If there are more than `LARGEST` pairs of states.
    """
    kernel, initial, steps = law
    states, discount, count = len(kernel), play.context.problem.discount_follower, play.context.theta.size
    if (states + 1) ** 2 > LARGEST:
        raise TooLargeError(f"{name}: {(states + 1) ** 2} pairs of states, expected at most {LARGEST}")
    couple = _overlaps if coupled else np.multiply.outer
    moves = np.concatenate([kernel, np.maximum(1.0 - kernel.sum(axis=2, keepdims=True), 0.0)], axis=2)
    still = np.zeros((kernel.shape[1], states + 1))
    still[:, states] = 1.0
    moves = np.concatenate([moves, still[None]])
    pairs = states + 1
    mean, second = np.zeros((pairs, pairs, count)), np.zeros((pairs, pairs, count, count))
    alike = all(len(each.policy) == 1 for each in play.populations)
    for t in reversed(range(steps)):
        if t == steps - 1 or not alike:
            terms = [play.said(kernel, each, t) for each in play.populations]
            policies = [
                np.concatenate([at_time(each.policy, t), np.eye(1, kernel.shape[1])]) for each in play.populations
            ]
        new_mean, new_second = np.zeros_like(mean), np.zeros_like(second)
        for s in range(pairs):
            for u in range(pairs):
                actions = couple(policies[0][s], policies[1][u])
                for a, b in zip(*np.nonzero(actions), strict=True):
                    chance = actions[a, b] * couple(moves[s, a], moves[u, b])
                    step = terms[0][s, a][:, None] + terms[1][u, b][None, :]
                    ahead = discount * mean
                    new_mean[s, u] += np.einsum("xy,xyn->n", chance, step + ahead)
                    cross = np.einsum("xy,xyi,xyj->ij", chance, step, ahead)
                    new_second[s, u] += np.einsum("xy,xyi,xyj->ij", chance, step, step) + cross + cross.T
                    new_second[s, u] += discount**2 * np.einsum("xy,xyij->ij", chance, second)
        mean, second = new_mean, new_second
    if starts_count and (initial_slopes := play.initial_slopes()) is not None:  # said by the first population
        chance = initial[:, None]
        slope = np.divide(initial_slopes, chance, out=np.zeros((states, count)), where=chance > 0.0)
        said = np.concatenate([play.gained[:, None] * slope, np.zeros((1, count))])[:, None]
        cross = np.einsum("sui,suj->suij", np.broadcast_to(said, mean.shape), mean)
        second = second + cross + cross.transpose(0, 1, 3, 2) + said[..., :, None] * said[..., None, :]
        mean = mean + said
    first = np.append(initial, 0.0)
    starts = couple(first, first)
    return np.einsum("su,sun->n", starts, mean), np.einsum("su,suij->ij", starts, second)


def _overlaps(one: FloatArray, other: FloatArray) -> FloatArray:
    """Return the joint law of two laws that are inverted at the same uniform number."""
    ends, others = np.cumsum(one), np.cumsum(other)
    upper = np.minimum(ends[:, None], others[None, :])
    lower = np.maximum((ends - one)[:, None], (others - other)[None, :])
    return np.asarray(np.maximum(upper - lower, 0.0))
