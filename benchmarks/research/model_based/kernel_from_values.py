"""What followers' soft values say about the kernel: a linear equation per pair and incentive that was played.

Where a follower plays its best response at θ_k, its values and its policy give Q_F(s,a) = V_F(s) + β log π(a|s), and
its Bellman equation is linear in the unknown row of the kernel:

    Σ_s' P(s'|s,a) V_F(s'; θ_k) = (V_F(s; θ_k) + β log π(a|s; θ_k) - r_F(s,a; θ_k)) / γ_F

As many different θ_k as there are states determine the kernel that the follower plans with, without a single sample.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bilevelrl.reference.arrays import FloatArray, check_positive
from bilevelrl.reference.errors import InvalidInputError, ShapeError, refusal

__all__ = ["continuations", "kernel_from_values"]

_NOTHING = 1e-7


def continuations(
    value: FloatArray, policy: FloatArray, reward: FloatArray, *, temperature: float, discount: float
) -> FloatArray:
    """Return what the follower expects of the next state, Σ_s' P(s'|s,a) V_F(s'), read off its answer.

    Parameters
    ----------
    value, policy, reward : (..., S), (..., S, A), (..., S, A)
        V_F, π* and r_F at the same θ.
    temperature, discount
        β and γ_F.

    Returns
    -------
    ndarray
        (..., S, A); NaN where the probability is too small to be a normal number, which says nothing any more.

    Raises
    ------
    InvalidInputError
        If the temperature is not positive, the discount not in (0, 1), or an array not finite.

    Examples
    --------
    >>> found = continuations(np.zeros(1), np.array([[0.5, 0.5]]), np.zeros((1, 2)), temperature=1.0, discount=0.5)
    >>> found.round(4)
    array([[-1.3863, -1.3863]])
    """
    temperature = check_positive("temperature", temperature, "pass the follower's")
    discount = check_positive("discount", discount, "pass the follower's")
    if discount >= 1.0:
        raise InvalidInputError(refusal("discount", discount, "a number in (0, 1)", "pass the follower's"))
    for name, given in (("value", value), ("policy", policy), ("reward", reward)):
        if not np.isfinite(given).all():
            raise InvalidInputError(f"{name}: expected finite numbers; solve the follower again")
    seen = policy >= np.finfo(np.float64).tiny
    logarithm = np.log(np.where(seen, policy, 1.0))
    expected: FloatArray = (value[..., None] + temperature * logarithm - reward) / discount
    return np.where(seen, expected, np.nan)


def kernel_from_values(
    values: FloatArray, expected: FloatArray, guess: FloatArray, *, cutoff: float = 1e-9
) -> FloatArray:
    """Return the kernel closest to a guess that agrees with the followers' values.

    Parameters
    ----------
    values : (K, S)
        V_F at K incentives.
    expected : (K, S, A)
        `continuations` there.
    guess : (S, A, S)
        What is kept in directions in which the values do not differ.
    cutoff
        Singular values of `values` below this share of the largest count as no difference: their equations are drowned
        by the followers' rounding.

    Returns
    -------
    ndarray
        (S, A, S), at least 0, rows of sum at most 1; entries below 1e-7 count as rounding, and are 0.

    Raises
    ------
    ShapeError, InvalidInputError
        If shapes do not match, or the cutoff is not in (0, 1).

    Examples
    --------
    Two states and two incentives: the values determine the row (0.25, 0.75).

    >>> values = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> row = np.array([0.25, 0.75])
    >>> expected = np.broadcast_to((values @ row)[:, None, None], (2, 2, 1))
    >>> kernel_from_values(values, expected, np.full((2, 1, 2), 0.5))[0, 0]
    array([0.25, 0.75])
    """
    plays, states = np.shape(values)
    if np.shape(guess)[0] != states or np.shape(expected) != (plays, *np.shape(guess)[:2]):
        raise ShapeError(
            refusal("expected.shape", np.shape(expected), f"({plays}, {states}, A)", "give all at the same incentives")
        )
    if not 0.0 < cutoff < 1.0:
        raise InvalidInputError(refusal("cutoff", cutoff, "a number in (0, 1)", "1e-9 suits values exact to 1e-11"))
    for name, given in (("values", values), ("guess", guess)):
        if not np.isfinite(given).all():
            raise InvalidInputError(f"{name}: expected finite numbers; only `expected` may have gaps")
    rows = guess.reshape(-1, states)
    missing = expected.reshape(plays, -1) - values @ rows.T
    unseen = np.isnan(missing)
    whole = ~unseen.any(axis=0)
    found = rows.copy()
    found[whole] += (_inverse(values, cutoff) @ missing[:, whole]).T
    for pair in np.flatnonzero(~whole):
        seen = ~unseen[:, pair]
        if seen.any():
            found[pair] += _inverse(values[seen], cutoff) @ missing[seen, pair]
    found[found < _NOTHING] = 0.0
    total: Any = found.sum(axis=1, keepdims=True)
    result: FloatArray = (found / np.maximum(1.0, total)).reshape(guess.shape)
    return result


def _inverse(values: FloatArray, cutoff: float) -> FloatArray:
    inverse: FloatArray = np.asarray(np.linalg.pinv(values, rcond=cutoff), dtype=np.float64)
    return inverse
