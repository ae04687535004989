"""Action counts per state: made from observations, made into a policy, and held against probabilities.

With n observations of a state, `|n_a/n - π(a)| ≤ √(log(2SA/δ)/(2n))` for all pairs at once with probability 1 - δ at
least (Hoeffding and a union bound, no large numbers needed), whatever δ:                                           (1)
what is farther off contradicts the probabilities, and so does an action that has none.
"""

from __future__ import annotations

import numpy as np

from bilevelrl.reference.arrays import FloatArray, IntArray, check_array, check_indices, check_shape
from bilevelrl.reference.doors import Count, NonNegative, Probability, checked
from bilevelrl.reference.errors import InvalidInputError, ShapeError, SupportError, refusal
from bilevelrl.reference.tabular import check_rows

__all__ = ["check_actions", "count_actions", "policy_from_counts"]


@checked
def count_actions(state: object, action: object, *, states: Count, actions: Count) -> IntArray:
    """Return how often each action was seen in each state, (S, A).

    Parameters
    ----------
    state, action
        Integers of one shape: what was done where.
    states, actions
        S and A.

    Raises
    ------
    InvalidInputError
        If one is outside the problem.

    Examples
    --------
    >>> count_actions([0, 1, 0], [1, 0, 1], states=2, actions=2)
    array([[0, 2],
           [1, 0]])
    """
    rows, columns = check_indices("state", state, states), check_indices("action", action, actions)
    check_shape("action", columns, rows.shape, "one for each state")
    found: IntArray = np.bincount((rows * actions + columns).ravel(), minlength=states * actions)
    return found.reshape(states, actions)


@checked
def policy_from_counts(counts: object, *, prior: NonNegative = 0.0) -> FloatArray:
    """Return observed frequencies as a policy (S, A).

    Parameters
    ----------
    counts : (S, A)
        How often each action was seen.
    prior
        Added to each count: with 0 these are the frequencies, the estimate of largest likelihood.

    Raises
    ------
    SupportError
        If a state was never seen and there is no prior.
    InvalidInputError, ShapeError
        If they are no counts.

    Examples
    --------
    >>> policy_from_counts([[3, 1], [0, 0]], prior=1.0)
    array([[0.66666667, 0.33333333],
           [0.5       , 0.5       ]])
    """
    seen = _counts(counts)
    unseen = np.flatnonzero(seen.sum(axis=1) == 0)
    if unseen.size and prior == 0.0:
        raise SupportError(
            f"counts[{int(unseen[0])}]: state {int(unseen[0])} was never seen ({unseen.size} of {len(seen)} were not), "
            "expected an action in each; observe longer, or pass prior=1.0 and say that those rows are uniform"
        )
    weights = seen + prior
    result: FloatArray = weights / weights.sum(axis=1, keepdims=True)
    return result


@checked
def check_actions(policy: object, counts: object, *, error_rate: Probability = 1e-6) -> float:
    """Hold a follower's sampled actions against its probabilities; return the largest |frequency - π| over its limit.

    Parameters
    ----------
    policy : (S, A)
        What the follower says that it plays.
    counts : (S, A)
        What it was seen to play, independent draws; states that were not seen are not held.
    error_rate
        δ of (1): how often, at most, the right policy is refused.

    Raises
    ------
    InvalidInputError
        If a frequency is farther off than (1), or an action was seen that has no probability; with state and action.

    Examples
    --------
    >>> round(check_actions([[0.5, 0.5]], [[52, 48]]), 3)
    0.073
    >>> check_actions([[0.5, 0.5]], [[90, 10]])
    Traceback (most recent call last):
        ...
    bilevelrl.reference.errors.InvalidInputError: counts[0, 0]=90: 0.9 of 100 actions seen in state 0, expected 0.5 ...
    """
    seen, claimed = _counts(counts), np.asarray(check_array("policy", policy, dtype=np.float64, finite=True))
    check_shape("policy", claimed, seen.shape, "one probability for each entry of counts")
    check_rows("policy", claimed, "normalise its rows")
    if error_rate == 0.0:
        raise InvalidInputError(refusal("error_rate", error_rate, "a number in (0, 1)", "1e-6 is usual"))
    total = seen.sum(axis=1, keepdims=True)
    limit = np.sqrt(np.log(2.0 * seen.size / error_rate) / (2.0 * np.maximum(total, 1)))  # (1)
    frequency = seen / np.maximum(total, 1)
    off = np.where(total > 0, np.abs(frequency - claimed) / limit, 0.0)
    off = np.where((seen > 0) & (claimed == 0.0), np.inf, off)
    worst = np.unravel_index(int(np.argmax(off)), off.shape)
    if off[worst] > 1.0:
        s, a = (int(i) for i in worst)
        allowed = 0.0 if claimed[s, a] == 0.0 else limit[s, 0]
        raise InvalidInputError(
            f"counts[{s}, {a}]={int(seen[s, a])}: {frequency[s, a]:.3g} of {int(total[s, 0])} actions seen in state "
            f"{s}, expected {claimed[s, a]:.3g} ± {allowed:.3g} (error rate {error_rate:g}); the follower does not "
            "play what it says: take its policy from the counts"
        )
    return float(off[worst])


def _counts(counts: object) -> FloatArray:
    found = np.asarray(check_array("counts", counts, dtype=np.float64, finite=True))
    if found.ndim != 2 or not found.size:
        raise ShapeError(refusal("counts.shape", found.shape, "(S, A)", "one count for each state and action"))
    if (found < 0.0).any() or (found != np.round(found)).any():
        wrong = float(found[(found < 0.0) | (found != np.round(found))][0])
        raise InvalidInputError(refusal("counts", wrong, "integers >= 0", "count actions"))
    return found
