"""Discounted sums along trajectories, forwards and backwards, as one pass of scalars over time.

Double sums over pairs of steps turn into single ones when they are swapped (k ≥ t within one episode):

    Σ_t x_t Σ_{k≥t} γ^{k-t} g_k  =  Σ_k e_k g_k,     e_k = γ e_{k-1} + x_k,                                          (1)

so that the derivatives g_k, of any dimension, are never summed along time themselves. Both kinds of sum restart with
each episode, and padding carries nothing.
"""

from __future__ import annotations

import numpy as np

from bilevelrl.estimators.sampling.compiled import compiled, trace_loop
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.reference.arrays import BoolArray, FloatArray, IntArray

FEW_STEPS = 16

__all__ = ["average_over_visits", "backward_sum", "continues", "discount_powers", "forward_trace", "windowed_trace"]


def continues(trajectories: Trajectories) -> BoolArray:
    """Return (streams, steps): whether a step continues the episode of the step before it."""
    inside: BoolArray = trajectories.valid & (trajectories.time_in_episode > 0)
    inside[:, 0] = False
    return inside


def discount_powers(trajectories: Trajectories, discount: float, *, horizon: int | None = None) -> FloatArray:
    """Return (streams, steps): discount^(time in the episode); 0 at padding and from `horizon` steps on.

    Examples
    --------
    >>> discount_powers(_two_episodes(), 0.5)
    array([[1. , 0.5, 1. , 0. ]])
    """
    time = trajectories.time_in_episode
    powers = np.power(discount, np.arange(int(time.max()) + 1))
    if horizon is not None:
        powers[horizon:] = 0.0
    result: FloatArray = np.where(trajectories.valid, powers[time], 0.0)
    return result


def forward_trace(trajectories: Trajectories, impulses: FloatArray, discount: float) -> FloatArray:
    """Return e_k = discount e_{k-1} + x_k within each episode.

    Parameters
    ----------
    trajectories
        Where episodes begin, and what is padding.
    impulses
        (streams, steps), x; ignored at padding.
    discount
        Of the sum that the trace replaces: `discount_follower` for the gradient of the follower's values.

    Returns
    -------
    (streams, steps) array, 0 at padding.

    Examples
    --------
    >>> forward_trace(_two_episodes(), np.array([[1.0, 1.0, 1.0, 1.0]]), 0.5)
    array([[1. , 1.5, 1. , 0. ]])
    """
    return _summed(np.where(trajectories.valid, impulses, 0.0), continues(trajectories), discount)


def windowed_trace(trajectories: Trajectories, impulses: FloatArray, window: IntArray) -> FloatArray:
    """Return e_k = Σ x_t over the steps t of the same episode with k - window ≤ t ≤ k, undiscounted.

    Parameters
    ----------
    trajectories
        One episode per stream.
    impulses
        (streams, steps), x; ignored at padding.
    window
        (streams,) integers ≥ 0.

    Returns
    -------
    (streams, steps) array, 0 at padding.

    Examples
    --------
    >>> windowed_trace(_two_episodes().select([0]), np.array([[1.0, 2.0, 0.0, 0.0]]), np.array([0]))
    array([[1., 2., 0., 0.]])
    """
    x = np.where(trajectories.valid, impulses, 0.0)
    total = np.zeros((x.shape[0], x.shape[1] + 1))
    np.cumsum(x, axis=1, out=total[:, 1:])
    last = np.arange(x.shape[1])[None, :]
    first = np.maximum(last - window[:, None], 0)
    inside = total[:, 1:] - np.take_along_axis(total, first, axis=1)
    return np.where(trajectories.valid, inside, 0.0)


def backward_sum(trajectories: Trajectories, values: FloatArray, discount: float) -> FloatArray:
    """Return R_t = x_t + discount R_{t+1} within each episode, to the last observed step.

    Parameters
    ----------
    trajectories
        Where episodes end, and what is padding.
    values
        (streams, steps), x; ignored at padding.
    discount
        `discount_leader` for the leader's returns.

    Returns
    -------
    (streams, steps) array, 0 at padding.

    Examples
    --------
    >>> backward_sum(_two_episodes(), np.array([[1.0, 1.0, 1.0, 1.0]]), 0.5)
    array([[1.5, 1. , 1. , 0. ]])
    """
    x, goes_on = np.where(trajectories.valid, values, 0.0), np.zeros(np.shape(trajectories.valid), dtype=np.bool_)
    # Backwards, a step continues from the one after it.
    goes_on[:, 1:] = continues(trajectories)[:, :0:-1]
    return _summed(x[:, ::-1], goes_on, discount)[:, ::-1]


def _summed(x: FloatArray, goes_on: BoolArray, discount: float) -> FloatArray:
    """Return e_k = discount e_{k-1} + x_k where step k goes on from the one before, else x_k; (streams, steps)."""
    # A few steps are no reason to wait for the compiler to be imported.
    fast = compiled(trace_loop) if x.shape[1] > FEW_STEPS else None
    if fast is not None:
        trace = np.empty(x.shape)
        fast(np.ascontiguousarray(x), np.ascontiguousarray(goes_on), float(discount), trace)
        return trace
    by_step = np.empty(x.shape[::-1])
    carried, running = discount * goes_on.T, np.zeros(x.shape[0])
    for k, each in enumerate(np.ascontiguousarray(x.T)):
        running = carried[k] * running + each  # (1)
        by_step[k] = running
    return by_step.T


def average_over_visits(values: FloatArray, index: IntArray, valid: BoolArray) -> FloatArray:
    """Replace each step's value by the plain average over all valid visits of the same index in the batch.

    Parameters
    ----------
    values
        (streams, steps).
    index
        (streams, steps) integers ≥ 0: the state, or the number of the state-action pair.
    valid
        (streams, steps); other steps neither count nor receive anything.

    Returns
    -------
    (streams, steps) array, 0 where not valid.

    Examples
    --------
    >>> average_over_visits(np.array([[1.0, 2.0, 3.0]]), np.array([[0, 5, 0]]), np.ones((1, 3), dtype=bool))
    array([[2., 2., 2.]])
    """
    _, place = np.unique(index[valid], return_inverse=True)
    averages = np.bincount(place, weights=values[valid]) / np.bincount(place)
    result = np.zeros(values.shape)
    result[valid] = averages[place]
    return result


def _two_episodes() -> Trajectories:
    """One stream of two finished episodes, of two steps and of one, and one step of padding."""
    ended = np.array([[False, True, True, False]])
    still = np.zeros((1, 4), dtype=np.int64)
    return Trajectories(
        state_t=still,
        action_t=still,
        state_tp1=np.where(ended, 1, still),
        reward_leader_t=np.zeros((1, 4)),
        terminated=ended,
        truncated=np.zeros((1, 4), dtype=np.bool_),
        time_in_episode=np.array([[0, 1, 0, 0]]),
        valid=np.array([[True, True, True, False]]),
        behaviour_log_prob=np.zeros((1, 4)),
    )
