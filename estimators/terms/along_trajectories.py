"""Estimators that sum along trajectories: which steps count, and how much, with or without geometric stopping."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.critics.tables import leader_discount
from bilevelrl.estimators.estimator import Claim, Context, Draw, Estimator
from bilevelrl.estimators.sampling.linear_quadratic import LQRSimulator
from bilevelrl.estimators.sampling.tabular import (
    TabularSimulator,
    geometric_times,
    sample_stopped_trajectories,
    sample_trajectories,
)
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.sums.traces import continues, discount_powers
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import EstimatorError
from bilevelrl.reference.objective import Objective

__all__ = ["AlongTrajectories", "Stopping"]

Stopping: TypeAlias = Literal["single", "sum"]
"""Geometric stopping: one leader step at the time τ, or all leader steps up to τ."""


@dataclass(frozen=True, kw_only=True)
class AlongTrajectories(Estimator):
    """Base of estimators along trajectories: the weights of steps.

    Parameters
    ----------
    target
        The truth it is held against.
    stopping
        None: discounted sums over all observed steps. "single", "sum": geometric stopping, see
        `sample_stopped_trajectories`; unbiased over an infinite horizon.
    """

    target: Objective = field(default_factory=Objective)
    stopping: Stopping | None = None
    draw: Draw = field(init=False)
    claim: Claim = field(init=False)

    @checked
    def sample(
        self,
        problem: Any,
        theta: Any,
        follower: Any,
        *,
        streams: int,
        steps: int,
        rng: Generator,
        simulator: TabularSimulator | LQRSimulator | None = None,
    ) -> Trajectories:
        """Draw trajectories of the kind the claim is about: stopped at geometric times where the estimator says so."""
        if self.stopping is not None:
            return sample_stopped_trajectories(problem, theta, follower, streams=streams, rng=rng, simulator=simulator)
        return sample_trajectories(problem, theta, follower, streams=streams, steps=steps, rng=rng, simulator=simulator)

    @checked
    def leader_weight(self, trajectories: Trajectories, context: Context) -> FloatArray:
        """Return (streams, steps): the weight with which the leader counts a step, γ_L^t or its stopped form.

        The trajectories' own weights come before γ_L^t.
        """
        if trajectories.weight_t is not None:
            return np.where(trajectories.valid, trajectories.weight_t, 0.0)
        discount = leader_discount(context.problem, self.target)
        if self.stopping is None:
            return discount_powers(trajectories, discount, horizon=self.target.horizon)
        assert trajectories.stopping is not None  # `stopped` has seen to it
        tau = trajectories.stopping[:, :1]
        if self.stopping == "single":
            return np.where(trajectories.valid & (trajectories.time_in_episode == tau), 1.0 / (1.0 - discount), 0.0)
        return np.where(trajectories.valid & (trajectories.time_in_episode <= tau), 1.0, 0.0)

    @checked
    def stopped(self, trajectories: Trajectories, context: Context) -> Trajectories:
        """Return the trajectories with geometric times, drawn now if they have none, where the estimator needs them.

        Raises
        ------
        EstimatorError
            If a stream was cut before its time, holds several episodes, or has weights of its own.
        """
        if self.stopping is None:
            return trajectories
        if trajectories.weight_t is not None:
            raise EstimatorError(
                f"{self.name}: weight_t: expected None with geometric times, which weigh steps already"
            )
        if trajectories.stopping is None:
            if context.rng is None:
                raise EstimatorError(f"{self.name}: trajectories without stopping times; draw them by `sample`")
            times = geometric_times(context.problem, trajectories.streams, context.rng)
            trajectories = trajectories.with_stopping(times)
        assert trajectories.stopping is not None
        seen = trajectories.valid.sum(axis=1)
        needed = trajectories.stopping.sum(axis=1) + 1
        cut = (seen < needed) & ~(trajectories.valid & trajectories.terminated).any(axis=1)
        if cut.any():
            stream = int(np.argmax(cut))
            raise EstimatorError(
                f"{self.name}: stream {stream} was observed for {int(seen[stream])} steps, its geometric times need "
                f"{int(needed[stream])}; draw trajectories by `sample`, which stop where they must"
            )
        if (trajectories.valid[:, 1:] & ~continues(trajectories)[:, 1:]).any():
            raise EstimatorError(f"{self.name}: expected one episode per stream; use single_episode=True")
        return trajectories
