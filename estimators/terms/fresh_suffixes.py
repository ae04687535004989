"""Fresh trajectories from visited states: sums of derivatives along them, and their exact mean and covariance.

An oracle that can reset the process to (s, a) or to s estimates the gradients of the follower's values without bias,

    ∇Q_F(s,a) = E[ Σ_k γ_F^k x_k | s_0=s, a_0=a ],                                                                   (1)
    x_k = ∇r_F(s_k,a_k) + γ_F V_F(s_{k+1}) ∇log P(s_{k+1}|s_k,a_k),                                                  (2)

by a suffix of a fixed number of steps (exact where the process has ended by then) or by an undiscounted sum that stops
at a geometric time, `Pr(κ ≥ k) = γ_F^k` (exact always).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.estimator import Context, Contribution
from bilevelrl.estimators.sampling.sample import sample_suffixes
from bilevelrl.estimators.sampling.trajectories import Trajectories, TransitionVisits
from bilevelrl.estimators.terms.answers import follower_terms
from bilevelrl.estimators.terms.tabular import Scores
from bilevelrl.reference.arrays import FloatArray, IntArray
from bilevelrl.reference.errors import EstimatorError
from bilevelrl.reference.problem import Term, TransitionBatch

__all__ = [
    "VisitList",
    "fresh_gradient_sums",
    "fresh_guiding_term",
    "own_generator",
    "per_stream_contribution",
    "weighted_steps",
]

# Suffixes are drawn in rectangles of at most so many steps: 32 MiB for each recorded array.
ENTRIES_AT_ONCE = 4 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class VisitList:
    """Weighted visits (V,) of the follower's per-step derivative x, each counted for one stream."""

    stream: IntArray
    state_t: IntArray
    action_t: IntArray
    state_tp1: IntArray
    weight: FloatArray


_NOWHERE = np.zeros(0, dtype=np.int64)
_NO_VISITS = VisitList(
    stream=_NOWHERE, state_t=_NOWHERE, action_t=_NOWHERE, state_tp1=_NOWHERE, weight=np.zeros(0, dtype=np.float64)
)


def own_generator(name: str, rng: Generator | None) -> Generator:
    """Return the generator, or say that there is none.

    Raises
    ------
    EstimatorError
        If it is None.
    """
    if rng is None:
        raise EstimatorError(f"{name}: draws fresh samples of its own; expected Context(rng=Generator), got None")
    return rng


def weighted_steps(
    context: Context, visits: TransitionBatch, weight: FloatArray, scores: Scores = "value"
) -> dict[Term, FloatArray]:
    """Return the weights of ∇r_F and ∇log P that make up `weight` times x, arrays of the shape of the visits.

    `scores`: "value": scores weigh γ_F V_F(s'); "td_error": minus its expectation given (s, a), for the same mean.
    """
    _, units = follower_terms(context, visits, centred=scores == "td_error")
    return {term: weight * unit for term, unit in units.items()}  # (2)


def per_stream_contribution(context: Context, streams: int, lists: Sequence[VisitList], scores: Scores) -> Contribution:
    """Return the response contribution of weighted visits, laid out with one row per stream."""
    lists = lists or [_NO_VISITS]  # where every benefit is zero, as with a single action, nothing is drawn
    stream = np.concatenate([visits.stream for visits in lists])
    order = np.argsort(stream, kind="stable")
    counts = np.bincount(stream, minlength=streams)
    column = np.arange(stream.size) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = (streams, max(1, int(counts.max(initial=0))))

    def laid_out(name: str, dtype: Any) -> Any:
        table = np.zeros(shape, dtype=dtype)
        table[stream[order], column] = np.concatenate([getattr(visits, name) for visits in lists])[order]
        return table

    batch = TransitionVisits(
        state_t=laid_out("state_t", np.int64),
        action_t=laid_out("action_t", np.int64),
        state_tp1=laid_out("state_tp1", np.int64),
    )
    weight = laid_out("weight", np.float64)
    return Contribution(part="response", batch=batch, weights=weighted_steps(context, batch, weight, scores))


def fresh_guiding_term(
    trajectories: Trajectories,
    factors: FloatArray,
    context: Context,
    *,
    steps: int | None,
    scores: Scores,
    rng: Generator,
) -> Contribution:
    """Return Σ_t factors_t (∇Q_F - ∇V_F)(s_t, a_t), each gradient from a fresh suffix; arguments as below."""
    stream, step = np.nonzero(np.where(trajectories.valid, factors, 0.0))
    state, action = trajectories.state_t[stream, step], trajectories.action_t[stream, step]
    lists = []
    for sign, first_action in ((1.0, action), (-1.0, None)):
        weight = sign * factors[stream, step]
        visits, _ = fresh_gradient_sums(
            context, stream=stream, state=state, action=first_action, weight=weight, steps=steps, rng=rng
        )
        lists.extend(visits)
    return per_stream_contribution(context, trajectories.streams, lists, scores)


def fresh_gradient_sums(
    context: Context,
    *,
    stream: IntArray,
    state: IntArray,
    action: IntArray | None,
    weight: FloatArray,
    steps: int | None,
    rng: Generator,
) -> tuple[list[VisitList], int]:
    """Draw one fresh suffix per visit and return its weighted visits, and how many steps were taken.

    Parameters
    ----------
    context
        Problem, follower and simulator.
    stream, state, action, weight
        (V,): which stream each visit counts for, where its suffix starts, and its factor. `action=None`: the first
        action is drawn too, for ∇V_F.
    steps
        Length of a suffix; None: undiscounted, stopped at a geometric time.
    rng
        Source of randomness.
    """
    discount = context.problem.discount_follower
    if steps is None:
        # NumPy counts trials, so the number of observed steps κ + 1 has Pr(κ + 1 > k) = γ_F^k.
        lengths, discount = rng.geometric(1.0 - discount, size=np.shape(state)), 1.0
    else:
        lengths = np.full(np.shape(state), steps)
    pieces, taken = [], 0
    for chosen in _chunks(lengths):
        longest = int(lengths[chosen].max())
        suffixes = sample_suffixes(
            context.problem,
            context.theta,
            context.follower,
            state=state[chosen],
            action=None if action is None else action[chosen],
            steps=longest,
            lengths=lengths[chosen],
            rng=rng,
            simulator=context.simulator,
        )
        powers = np.power(discount, np.arange(suffixes.steps))[None, :]
        factor = np.where(suffixes.valid, powers * weight[chosen, None], 0.0)  # (1)
        visit, step = np.nonzero(factor)
        pieces.append(
            VisitList(
                stream=stream[chosen][visit],
                state_t=suffixes.state_t[visit, step],
                action_t=suffixes.action_t[visit, step],
                state_tp1=suffixes.state_tp1[visit, step],
                weight=factor[visit, step],
            )
        )
        taken += int(suffixes.valid.sum())
    return pieces, taken


def _chunks(lengths: IntArray) -> Iterator[IntArray]:
    """Yield indices of suffixes of similar length, so that rectangles of them are small and hold little padding."""
    order = np.argsort(lengths, kind="stable")
    while order.size:
        entries = np.arange(1, order.size + 1) * lengths[order]
        size = max(1, int(np.searchsorted(entries, ENTRIES_AT_ONCE, side="right")))
        yield order[:size]
        order = order[size:]
