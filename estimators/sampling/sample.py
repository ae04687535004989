"""Samples of any kind of problem: trajectories of the follower's play, and fresh ones from states that are chosen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.sampling.linear_quadratic import LQRSimulator
from bilevelrl.estimators.sampling.tabular import TabularSimulator
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.reference import ConfigurableLQR, ConfigurableMDP, LQRGame, MarkovGame
from bilevelrl.reference.arrays import IntArray, check_array, check_indices, check_shape
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, refusal

__all__ = ["SampledProblem", "default_simulator", "sample_suffixes", "sample_trajectories"]

SampledProblem: TypeAlias = ConfigurableMDP | MarkovGame | ConfigurableLQR | LQRGame
"""A problem that a simulator of this package moves through."""


@checked
def sample_trajectories(
    problem: SampledProblem,
    theta: Any,
    follower: Any,
    *,
    streams: int,
    steps: int,
    rng: Generator,
    simulator: TabularSimulator | LQRSimulator | None = None,
) -> Trajectories:
    """Draw a batch of trajectories of the follower's play.

    Parameters
    ----------
    problem, theta
        The problem and the leader's parameter.
    follower
        A solution with a `policy` (S, A), or a policy array (S, A), or (B, S, A): one for each of B groups of
        equally many consecutive streams. In a Markov game (S, L, A).
    streams, steps
        Number of streams and of time steps in each.
    rng
        Source of randomness.
    simulator
        How samples are made. None: the problem's own model, one episode per stream, horizon `steps`.

    Returns
    -------
    Trajectories

    Raises
    ------
    InvalidInputError
        If a size is not a positive integer or `rng` not a generator.
    ShapeError
        If the policy does not fit the problem.

    Examples
    --------
    >>> from bilevelrl.reference import Tables
    >>> def tables(theta):
    ...     return Tables(transition=np.full((2, 1, 2), 0.25), reward_follower=np.zeros((2, 1)),
    ...                   reward_leader=np.ones((2, 1)), initial=np.array([1.0, 0.0]))
    >>> problem = ConfigurableMDP(tables=tables, discount_leader=0.9, discount_follower=0.9, temperature=1.0)
    >>> batch = sample_trajectories(
    ...     problem, np.zeros(1), np.ones((2, 1)), streams=3, steps=4, rng=np.random.default_rng(0))
    >>> batch.streams, batch.steps, bool((batch.state_t[:, 0] == 0).all())
    (3, 4, True)
    """
    chosen: Any = default_simulator(problem) if simulator is None else simulator
    if not callable(getattr(chosen, "sample", None)):
        raise InvalidInputError(
            refusal("simulator", simulator, "a simulator or None", "build one with TabularSimulator(...)")
        )
    batch: Trajectories = chosen.sample(problem, theta, follower, streams=streams, steps=steps, rng=rng)
    return batch


@checked
def sample_suffixes(
    problem: ConfigurableMDP,
    theta: Any,
    follower: Any,
    *,
    state: Any,
    steps: int,
    rng: Generator,
    action: Any = None,
    lengths: IntArray | None = None,
    simulator: TabularSimulator | None = None,
) -> Trajectories:
    """Draw fresh trajectories from given states, and given first actions: what an oracle with resets can do.

    Parameters
    ----------
    problem, theta, follower, rng
        As in `sample_trajectories`.
    state, action
        (streams,) integers: where each stream starts. `action=None`: the first action is the follower's too.
    steps
        Steps per stream; a stream ends earlier where the process terminates.
    lengths
        (streams,) integers in [1, steps]: observe so many steps of each stream only.
    simulator
        As in `sample_trajectories`; one episode per stream always, which its `step_limit` does not cut.

    Returns
    -------
    Trajectories
        `behaviour_log_prob` is 0 at forced first actions: they were drawn with certainty.

    Raises
    ------
    InvalidInputError
        If a state or an action is outside the problem, or there is none.

    Examples
    --------
    >>> from bilevelrl.reference import Tables
    >>> def tables(theta):
    ...     return Tables(transition=np.full((2, 1, 2), 0.5), reward_follower=np.zeros((2, 1)),
    ...                   reward_leader=np.ones((2, 1)), initial=np.array([1.0, 0.0]))
    >>> problem = ConfigurableMDP(tables=tables, discount_leader=0.9, discount_follower=0.9, temperature=1.0)
    >>> fresh = sample_suffixes(
    ...     problem, np.zeros(1), np.ones((2, 1)), state=[1, 0, 1], steps=2, rng=np.random.default_rng(0))
    >>> fresh.state_t[:, 0]
    array([1, 0, 1])
    """
    chosen = TabularSimulator() if simulator is None else simulator
    if not chosen.single_episode or chosen.step_limit is not None:
        # A suffix estimates what follows a state by its own length: where episodes are cut has no say.
        chosen = replace(chosen, single_episode=True, step_limit=None)
    start = check_array("state", state, dtype=np.int64)
    check_shape("state", start, (None,), "one per stream")
    tables = problem.tables_at(theta)
    if action is not None:
        action = check_indices("action", action, tables.actions)
        check_shape("action", action, start.shape, "one per entry of state")
    if lengths is not None:
        check_shape("lengths", lengths, start.shape, "one per entry of state")
    return chosen.sample(
        problem,
        theta,
        follower,
        streams=start.size,
        steps=steps,
        rng=rng,
        first_state=check_indices("state", start, tables.states),
        first_action=action,
        lengths=lengths,
    )


def default_simulator(problem: SampledProblem) -> TabularSimulator | LQRSimulator:
    """Return the problem's own model, one episode per stream."""
    return LQRSimulator() if isinstance(problem, ConfigurableLQR | LQRGame) else TabularSimulator()
