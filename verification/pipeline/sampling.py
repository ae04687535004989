"""Independent draws of an estimator on a scenario, within what they may cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators import (
    Claim,
    Context,
    Draw,
    Estimator,
    SarsaCritic,
    Trajectories,
)
from bilevelrl.estimators.sampling import LQRSimulator, TabularSimulator
from bilevelrl.reference import ConfigurableLQR, ConfigurableMDP, LQRGame, MarkovGame, Problem, named_stream
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import EstimatorError, UnsupportedError
from bilevelrl.tasks import Scenario
from bilevelrl.tasks.scenarios import Truth
from bilevelrl.verification.checks.once import exact_critic
from bilevelrl.verification.checks.verdicts import ROUNDED
from bilevelrl.verification.pipeline.given import GivenEstimator

__all__ = ["CHUNK_STEPS", "FEW", "Sampler", "SamplingPlan", "share"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingPlan:
    """How much to sample.

    Attributes
    ----------
    seed : int
        Root entropy; every estimator and temperature has a stream of its own.
    horizon : int
        Steps of a formula-level trajectory.
    step_budget : int
        Environment steps that one formula-level check may take.
    batches, batch_budget : int
        Replicates of a practical-level batch, and the steps that they may take, oracle steps included.
    batch_streams, batch_steps, step_limit : int
        Shape of a practical batch, and where its episodes are truncated.
    critic_batches : int
        Batches that SARSA learns from before the first replicate; the table is then carried unchanged.
    checks : int
        Checks of the whole run. Half the error rate is split over their comparisons along the truth, where power is
        wanted most, and half over all others.
    """

    seed: int
    horizon: int = 100
    step_budget: int = 6_000_000
    batches: int = 250
    batch_budget: int = 300_000
    batch_streams: int = 1
    batch_steps: int = 100
    step_limit: int = 200
    critic_batches: int = 200
    checks: int = 1


CHUNK_STEPS = 400_000

_EPS = float(np.finfo(np.float64).eps)

# Of so few draws each and so few parameters, means cost less from single draws, of many streams together.
FEW = 16


class Sampler:
    """Independent draws of one estimator."""

    def __init__(self, name: str, estimator: Estimator, on: Scenario, plan: SamplingPlan) -> None:
        self.estimator, self._plan = estimator, plan
        self._problem, self._theta = on.problem, on.theta
        self._follower: Any = on.solved(estimator.target).follower
        self._batched = estimator.draw is Draw.BATCH
        first, *rest = on.name.split()
        self._rng = named_stream(plan.seed, first, name, *rest)
        self._simulator = _simulator(on.problem, plan.step_limit if self._batched else None)
        self._critic: Any = (
            self._learnt_critic(named_stream(plan.seed, "critic", name, *rest))
            if self._batched
            else exact_critic(on, estimator.target)
        )
        self.budget = share(on) * plan.step_budget
        self.steps = 0
        self.drawn = 0
        self._coarsest = _EPS

    @property
    def horizon(self) -> int:
        """Steps of a stream."""
        return self._plan.horizon

    @property
    def rounding(self) -> float:
        """What coarser numbers than doubles may be off by, relative to the truth; 0 for doubles."""
        coarsest = max(self._coarsest, getattr(self.estimator, "epsilon", 0.0))
        return ROUNDED * coarsest if coarsest > _EPS else 0.0

    @property
    def context(self) -> Context:
        """What the estimator is told."""
        return Context(
            problem=self._problem,
            theta=self._theta,
            follower=self._follower,
            critic=self._critic,
            simulator=self._simulator,
            rng=self._rng,
        )

    def hold_contract(self) -> None:
        """Hold a function's answers on a few streams of their own against the contract."""
        if isinstance(self.estimator, GivenEstimator):
            few = self._sample(8, self._plan.horizon, named_stream(self._plan.seed, "contract"))
            self.estimator.hold_contract(few, self.context)

    def expected(self, truth: Truth) -> FloatArray:
        """Return the expectation that the estimator claims."""
        if self.estimator.claim is Claim.UNBIASED:
            return truth.value
        declared = self.estimator.expectation(self.context, horizon=self._plan.horizon)
        return sum(declared.values(), np.zeros(self._theta.size))

    def rows(self, draws: int) -> FloatArray:
        """Return single draws (draws, N)."""
        if self._batched:
            return np.array([self._mean(batch) for batch in self._batches(draws, self._rng)])
        each = max(self._plan.horizon, self.steps // max(self.drawn, 1))
        chunk = max(1, CHUNK_STEPS // each)
        pieces = []
        for first in range(0, draws, chunk):
            trajectories = self._sample(min(chunk, draws - first), self._plan.horizon, self._rng)
            pieces.append(self._checked(self.estimator(trajectories, self.context), trajectories.streams))
            self._count(trajectories, sum(self.estimator.cost(trajectories, self.context).values()))
        return np.concatenate(pieces)

    def group_means(self, groups: int, size: int) -> FloatArray:
        """Return means of `size` draws each (groups, N): one vector-Jacobian product per group, unless all is small."""
        if max(size, self._theta.size) <= FEW:
            means: FloatArray = self.rows(groups * size).reshape(groups, size, -1).mean(axis=1)
            return means
        return np.array([self._mean(self._sample(size, self._plan.horizon, self._rng)) for _ in range(groups)])

    def _mean(self, trajectories: Trajectories) -> FloatArray:
        estimate = self.estimator.estimate(trajectories, self.context)
        self._count(trajectories, sum(estimate.cost.values()))
        mean: FloatArray = self._checked(estimate.mean[None], 1)[0]
        return mean

    def _checked(self, rows: FloatArray, draws: int) -> FloatArray:
        if rows.shape != (draws, self._theta.size) or not np.isfinite(rows).all():
            raise EstimatorError(f"{self.estimator.name}: expected finite rows {(draws, self._theta.size)}")
        self._coarsest = max(self._coarsest, float(np.finfo(rows.dtype).eps))
        return rows.astype(np.float64, copy=False)

    def _count(self, trajectories: Trajectories, steps: int) -> None:
        self.steps += steps
        self.drawn += 1 if self._batched else trajectories.streams

    def _batches(self, count: int, rng: Generator) -> list[Trajectories]:
        """Draw independent batches, all their streams at once."""
        size = self._plan.batch_streams
        together = self._sample(count * size, self._plan.batch_steps, rng)
        return [together.select(slice(first, first + size)) for first in range(0, count * size, size)]

    def _sample(self, streams: int, steps: int, rng: Generator) -> Trajectories:
        if self._simulator is None:
            own = getattr(self._problem, "sample", None)
            if own is None:
                kind = type(self._problem).__name__
                raise UnsupportedError(
                    f"problem of type {kind}: expected a method sample(theta, follower, *, streams, steps, rng) → "
                    "Trajectories, for it is of no kind of this package; add it, or judge draws"
                )
            drawn: Trajectories = own(self._theta, self._follower, streams=streams, steps=steps, rng=rng)
            return drawn
        return self.estimator.sample(
            self._problem,
            self._theta,
            self._follower,
            streams=streams,
            steps=steps,
            rng=rng,
            simulator=self._simulator,
        )

    def _learnt_critic(self, rng: Generator) -> SarsaCritic:
        critic = SarsaCritic.start(self._follower, self._problem.discount_leader, rng=rng)
        for batch in self._batches(self._plan.critic_batches, rng):
            critic = critic.updated(batch, rng=rng)
        return critic


def _simulator(problem: Problem, step_limit: int | None) -> Any:
    """Where samples come from; with a limit, episodes of so many steps follow each other in a stream."""
    if isinstance(problem, (ConfigurableLQR, LQRGame)):
        return LQRSimulator()
    if not isinstance(problem, (ConfigurableMDP, MarkovGame)):
        return None  # a kind of one's own brings its samples
    return TabularSimulator(step_limit=step_limit, single_episode=step_limit is None)


def share(on: Scenario) -> float:
    """Return the share of a plan's budget of steps that a scenario gets."""
    return 1.0 if isinstance(on.problem, ConfigurableMDP) else 0.3
