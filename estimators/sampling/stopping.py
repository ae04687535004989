"""Geometric stopping: trajectories that end at random times, so that infinite discounted sums are finite and unbiased.

With independent τ, κ on {0, 1, ...},

    Pr(τ ≥ t) = γ_L^t,    Pr(κ ≥ k) = γ_F^k,                                                                       (1)

whatever the path, undiscounted sums up to them have the expectation of discounted sums:

    E Σ_{t ≤ τ} x_t = Σ_t γ_L^t E x_t.                                                                             (2)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.sampling.linear_quadratic import LQRSimulator
from bilevelrl.estimators.sampling.sample import SampledProblem, default_simulator
from bilevelrl.estimators.sampling.tabular import TabularSimulator
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.reference.arrays import IntArray
from bilevelrl.reference.doors import Count, checked
from bilevelrl.reference.errors import InvalidInputError

__all__ = ["geometric_times", "sample_stopped_trajectories"]


@checked
def sample_stopped_trajectories(
    problem: SampledProblem,
    theta: Any,
    follower: Any,
    *,
    streams: Count,
    rng: Generator,
    simulator: TabularSimulator | LQRSimulator | None = None,
) -> Trajectories:
    """Draw trajectories that stop at geometric times, so that infinite discounted sums have unbiased estimates.

    Each stream draws τ and κ on {0, 1, ...}, with Pr(τ ≥ t) = γ_L^t and Pr(κ ≥ k) = γ_F^k whatever the path, and is
    observed for τ + κ + 1 steps or to its termination. `Trajectories.stopping` holds (τ, κ).

    Parameters
    ----------
    problem, theta, follower, streams, rng
        As in `sample_trajectories`.
    simulator
        As in `sample_trajectories`; a step limit would bring the bias back and is refused.

    Returns
    -------
    Trajectories

    Raises
    ------
    InvalidInputError
        If the simulator has a step limit or several episodes per stream.

    Examples
    --------
    >>> from bilevelrl.reference import ConfigurableMDP, Tables
    >>> def tables(theta):
    ...     return Tables(transition=np.ones((1, 1, 1)), reward_follower=np.zeros((1, 1)),
    ...                   reward_leader=np.ones((1, 1)), initial=np.ones(1))
    >>> problem = ConfigurableMDP(tables=tables, discount_leader=0.9, discount_follower=0.5, temperature=1.0)
    >>> batch = sample_stopped_trajectories(
    ...     problem, np.zeros(1), np.ones((1, 1)), streams=5, rng=np.random.default_rng(0))
    >>> bool((batch.valid.sum(axis=1) == batch.stopping.sum(axis=1) + 1).all())
    True
    """
    chosen: Any = default_simulator(problem) if simulator is None else simulator
    if chosen.step_limit is not None or not chosen.single_episode:
        raise InvalidInputError(
            f"simulator={chosen!r}: expected no step limit and one episode per stream; geometric times end the streams"
        )
    stopping = geometric_times(problem, streams, rng)
    lengths = stopping.sum(axis=1) + 1
    longest = int(lengths.max())
    batch: Trajectories = chosen.sample(
        problem, theta, follower, streams=streams, steps=longest, rng=rng, lengths=lengths
    )
    return batch.with_stopping(stopping)


def geometric_times(problem: SampledProblem, streams: int, rng: Generator) -> IntArray:
    """Return (streams, 2) independent times (τ, κ) on {0, 1, ...} with Pr(τ ≥ t) = γ_L^t and Pr(κ ≥ k) = γ_F^k.

    Examples
    --------
    >>> from bilevelrl.tasks import random_mdp
    >>> geometric_times(random_mdp(), 10_000, np.random.default_rng(0)).min(axis=0)
    array([0, 0])
    """
    # (1); NumPy's geometric law counts trials and starts at 1.
    discounts = (problem.discount_leader, problem.discount_follower)
    return np.stack([rng.geometric(1.0 - discount, streams) - 1 for discount in discounts], axis=1)
