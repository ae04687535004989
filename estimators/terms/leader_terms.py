"""The leader's own terms, which every method for configurable MDPs shares: initial, direct and transition part.

    V_L(s_0) ∇log μ(s_0) + Σ_t γ_L^t [ ∇r_L(s_t, a_t) + γ_L V_L(s_{t+1}) ∇log P(s_{t+1}|s_t, a_t) ]

They are the partial gradient, with the follower's response held fixed; the guiding term is what methods differ in.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from bilevelrl.estimators.critics.tables import CriticReading
from bilevelrl.estimators.estimator import Contribution
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.sums.traces import average_over_visits, forward_trace
from bilevelrl.reference.arrays import FloatArray, IntArray

__all__ = ["Scores", "finished_episodes", "leader_contributions", "start_visit_contributions"]

Scores: TypeAlias = Literal["value", "td_error"]
"""What scores of transitions are weighted with: values ahead, or temporal-difference errors (a baseline)."""


def leader_contributions(
    trajectories: Trajectories,
    reading: CriticReading,
    *,
    leader_weight: FloatArray,
    discount: float,
    scores: Scores = "value",
    scale: float | FloatArray = 1.0,
) -> list[Contribution]:
    """Return the weights of the initial, direct and transition part (paper, equation (5) without its guiding term).

    Parameters
    ----------
    trajectories, reading
        The batch, and the leader's values along it.
    leader_weight
        (streams, steps), γ_L^t for the plain sum; 0 where the leader is not paid.
    discount
        The leader's, between a step and the next: γ_L, or 1.
    scores
        "value": V_L(s_{t+1}); "td_error": minus its expectation given (s_t, a_t), for the same mean.
    scale
        Multiplies everything.

    Examples
    --------
    >>> from bilevelrl.estimators.sums.traces import _two_episodes
    >>> ones = np.ones((1, 4))
    >>> reading = CriticReading(benefit_t=ones, value_t=ones, value_tp1=ones, ahead_t=ones)
    >>> items = leader_contributions(_two_episodes(), reading, leader_weight=ones, discount=0.5)
    >>> [item.part for item in items]
    ['initial', 'direct', 'transition']
    """
    weight = scale * leader_weight
    ahead = discount * reading.value_tp1
    if scores == "td_error":
        ahead = ahead - reading.ahead_t
    return [
        Contribution(
            part="initial",
            batch=trajectories,
            weights={"log_initial": np.where(trajectories.episode_starts, scale * reading.value_t, 0.0)},
        ),
        Contribution(part="direct", batch=trajectories, weights={"reward_leader": weight}),
        Contribution(part="transition", batch=trajectories, weights={"log_transition": weight * ahead}),
    ]


def start_visit_contributions(
    trajectories: Trajectories, reading: CriticReading, *, discount: float, scores: Scores = "value"
) -> list[Contribution]:
    """Return the leader's terms as the published experiments average them: over episode starts and revisits of them.

    The partial gradient from a state is averaged over all visits of that state in the batch, in the middle of an
    episode too, to the last observed step; then over the episode starts. A ratio: biased at any finite batch.

    Parameters
    ----------
    trajectories, reading, discount, scores
        As in `leader_contributions`; the sum over all streams is the estimate.
    """
    starts = trajectories.episode_starts
    share = starts / trajectories.count_in_batch(starts)
    # Σ_starts average over visits of s_0  =  Σ_visits (share of starts among the visits of that state).
    impulses = average_over_visits(share, trajectories.state_t, trajectories.valid)
    weight = forward_trace(trajectories, impulses, discount)
    ahead = discount * reading.value_tp1
    if scores == "td_error":
        ahead = ahead - reading.ahead_t
    return [
        Contribution(part="initial", batch=trajectories, weights={"log_initial": share * reading.value_t}),
        Contribution(part="direct", batch=trajectories, weights={"reward_leader": weight}),
        Contribution(part="transition", batch=trajectories, weights={"log_transition": weight * ahead}),
    ]


def finished_episodes(trajectories: Trajectories) -> int | IntArray:
    """Return the number of episodes that terminated or were truncated, at least 1; see `count_in_batch`.

    The unfinished episode at the end of a stream of several is not among them.
    """
    return trajectories.count_in_batch(trajectories.valid & (trajectories.terminated | trajectories.truncated))
