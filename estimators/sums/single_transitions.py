"""Derivatives of single transitions, for what is not linear in them: shortened scores, regressions on them."""

from __future__ import annotations

from typing import Any

import numpy as np

from bilevelrl.estimators.estimator import Context, Contribution
from bilevelrl.estimators.sampling.trajectories import TransitionVisits
from bilevelrl.estimators.sums.clipping import clip_to_norm
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.problem import Term

__all__ = ["clipped_scores", "single_derivatives"]


def single_derivatives(context: Context, batch: Any, term: Term) -> FloatArray:
    """Return the derivative of one term at every transition, (streams, steps, N); N times the cost of a sum.

    Examples
    --------
    >>> from bilevelrl.estimators.sampling.linear_quadratic import LQRSimulator
    >>> from bilevelrl.reference import solve_follower
    >>> from bilevelrl.tasks import random_lqr
    >>> problem, theta = random_lqr(seed=0), np.zeros(3)
    >>> context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    >>> batch = LQRSimulator().sample(
    ...     problem, theta, context.follower, streams=4, steps=2, rng=np.random.default_rng(0))
    >>> scores = single_derivatives(context, batch, "log_transition")
    >>> summed = problem.pullback(theta, batch, {"log_transition": np.ones((4, 2))})
    >>> scores.shape, bool(np.allclose(scores.sum(axis=(0, 1)), summed))
    ((4, 2, 3), True)
    """

    def alone(entries: Any) -> Any:
        return np.reshape(entries, (-1, 1, *np.shape(entries)[2:]))

    visits = TransitionVisits(
        state_t=alone(batch.state_t), action_t=alone(batch.action_t), state_tp1=alone(batch.state_tp1)
    )
    streams, steps = np.shape(batch.state_t)[:2]
    ones = np.ones((streams * steps, 1))
    rows = context.problem.pullback(context.theta, visits, {term: ones}, per_stream=True)
    return np.asarray(rows, dtype=np.float64).reshape(streams, steps, -1)


def clipped_scores(context: Context, item: Contribution, largest: float, blocks: tuple[int, ...]) -> Contribution:
    """Return the same contribution with the score of every transition shortened to a norm, block by block."""
    rows = item.rows
    weights = dict(item.weights)
    weight = weights.pop("log_transition")
    scores = single_derivatives(context, item.batch, "log_transition")
    shortened = clip_to_norm(scores.reshape(-1, scores.shape[-1]), largest, blocks).reshape(scores.shape)
    moved: FloatArray = np.einsum("mt,mtn->mn", weight, shortened)
    return Contribution(part=item.part, batch=item.batch, weights=weights, rows=moved if rows is None else rows + moved)
