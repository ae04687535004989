"""λ-returns: mixtures of n-step sums, each completed by a critic at the state that it reaches.

For increments x_t, a critic v of what is still to come and a discount γ, the n-step sum from t and the λ-return are

    G^(n)_t = Σ_{k<n} γ^k x_{t+k} + γ^n v_{t+n},      G^λ_t = (1-λ) Σ_{n≥1} λ^{n-1} G^(n)_t.                         (1)

Where the observation stops after m more steps the last sum takes the weight λ^{m-1} that is left, so that weights
always sum to one, and after a termination the critic is worth zero. λ = 0 is one step and the critic; λ = 1 the whole
observed suffix, and the critic only where it was cut. Backwards in time,

    G^λ_t = x_t + γ [ (1-λ) v_{t+1} + λ G^λ_{t+1} ].                                                                 (2)

References: Sutton (1988), "Learning to predict by the methods of temporal differences".
"""

from __future__ import annotations

import numpy as np

from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.sums.traces import continues
from bilevelrl.reference.arrays import BoolArray, FloatArray, IntArray
from bilevelrl.reference.errors import InvalidInputError, refusal

__all__ = ["bootstrap_shares", "check_trace_decay", "followed", "lambda_pass", "lambda_returns"]


def check_trace_decay(trace_decay: float) -> None:
    """Refuse what is not a number in [0, 1]."""
    if isinstance(trace_decay, bool) or not (np.isfinite(trace_decay) and 0.0 <= trace_decay <= 1.0):
        raise InvalidInputError(
            refusal("trace_decay", trace_decay, "λ, a number in [0, 1]", "1 is the whole suffix, 0 one step")
        )


def followed(trajectories: Trajectories) -> BoolArray:
    """Return (streams, steps): whether the next step of the same episode is recorded."""
    result: BoolArray = np.zeros(np.shape(trajectories.valid), dtype=np.bool_)
    result[:, :-1] = continues(trajectories)[:, 1:]
    return result


def bootstrap_shares(trajectories: Trajectories, trace_decay: float) -> FloatArray:
    """Return the weight of the critic at the state after each step: 1 - λ, or 1 at the last one; 0 at padding.

    Examples
    --------
    >>> from bilevelrl.estimators.sums.traces import _two_episodes
    >>> bootstrap_shares(_two_episodes(), 0.75)
    array([[0.25, 1.  , 1.  , 0.  ]])
    """
    shares = np.where(followed(trajectories), 1.0 - trace_decay, 1.0)
    return np.where(trajectories.valid, shares, 0.0)


def lambda_returns(
    trajectories: Trajectories, increments: FloatArray, ahead: FloatArray, *, discount: float, trace_decay: float
) -> FloatArray:
    """Return G^λ_t at every step.

    Parameters
    ----------
    trajectories
        Where episodes end, and what is padding.
    increments, ahead
        (streams, steps) or (streams, steps, N): x_t, and the critic at the state after each step, 0 after a
        termination; ignored at padding.
    discount
        γ of the sum: `discount_follower` for the gradient of the follower's values.
    trace_decay
        λ in [0, 1].

    Returns
    -------
    Array of the shape of `increments`, 0 at padding.

    Raises
    ------
    InvalidInputError
        If λ is out of range.

    Examples
    --------
    >>> from bilevelrl.estimators.sums.traces import _two_episodes
    >>> ones, zeros = np.ones((1, 4)), np.zeros((1, 4))
    >>> lambda_returns(_two_episodes(), ones, zeros, discount=0.5, trace_decay=1.0)  # the suffix
    array([[1.5, 1. , 1. , 0. ]])
    >>> lambda_returns(_two_episodes(), ones, 4.0 * ones, discount=0.5, trace_decay=0.0)  # one step and the critic
    array([[3., 3., 3., 0.]])
    """
    check_trace_decay(trace_decay)
    shape = (*np.shape(trajectories.valid), *(1,) * (np.ndim(increments) - 2))
    share = discount * bootstrap_shares(trajectories, trace_decay).reshape(shape)
    complete = np.where(trajectories.valid.reshape(shape), increments, 0.0) + share * ahead
    goes_on = discount * trace_decay * followed(trajectories).reshape(shape)
    result, running = np.zeros_like(complete), np.zeros_like(complete[:, 0])
    for t in range(complete.shape[1] - 1, -1, -1):
        running = complete[:, t] + goes_on[:, t] * running  # (2)
        result[:, t] = running
    return result


def lambda_pass(
    table: FloatArray,
    trajectories: Trajectories,
    *,
    place: IntArray,
    increments: FloatArray,
    ahead_place: IntArray,
    ahead_weight: FloatArray,
    discount: float,
    trace_decay: float,
    step_size: float,
) -> FloatArray:
    """Return a table of expected sums after one pass over a batch, stream by stream, each backwards in time.

    Each visited row moves by `step_size` towards its λ-return, whose critic is the table as the pass has left it so
    far: information travels from the end of a stream to its beginning in one pass.

    Parameters
    ----------
    table : (rows, D)
        Not changed.
    trajectories
        The batch; padding is skipped.
    place : (streams, steps)
        Row that each step visits.
    increments : (streams, steps, D)
        What each step adds.
    ahead_place, ahead_weight : (streams, steps, W)
        The critic at the next state is the sum of so many rows with these weights; weights 0 after a termination.
    discount, trace_decay
        γ and λ of the returns.
    step_size
        In (0, 1].

    Returns
    -------
    (rows, D)

    Raises
    ------
    InvalidInputError
        If λ or the step size is out of range.

    Examples
    --------
    Two steps that earn one each and end, discounted by a half:

    >>> from bilevelrl.estimators.sums.traces import _two_episodes
    >>> path = _two_episodes()
    >>> lambda_pass(
    ...     np.zeros((2, 1)), path, place=np.array([[0, 1, 1, 0]]), increments=np.ones((1, 4, 1)),
    ...     ahead_place=np.array([[[1], [0], [0], [0]]]), ahead_weight=np.array([[[1.0], [0.0], [0.0], [0.0]]]),
    ...     discount=0.5, trace_decay=0.0, step_size=1.0).ravel()
    array([1.5, 1. ])
    """
    check_trace_decay(trace_decay)
    if not (np.isfinite(step_size) and 0.0 < step_size <= 1.0):
        raise InvalidInputError(refusal("step_size", step_size, "a number in (0, 1]", "0.5 is a usual choice"))
    learnt = np.array(table, dtype=np.float64)
    share = bootstrap_shares(trajectories, trace_decay)
    carried = trace_decay * followed(trajectories)
    for m in range(trajectories.streams):
        target = np.zeros(learnt.shape[1])
        for t in np.flatnonzero(trajectories.valid[m])[::-1]:
            ahead = ahead_weight[m, t] @ learnt[ahead_place[m, t]]
            target = increments[m, t] + discount * (share[m, t] * ahead + carried[m, t] * target)  # (2)
            row = learnt[place[m, t]]
            row += step_size * (target - row)
    return learnt
