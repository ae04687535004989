"""Training on configurable MDPs: the declared training, and the world of runs that share their dynamics.

Outer iteration k: the followers respond to θ_k; every run draws its batch from its own random stream; SARSA critics
learn from it; estimators give a direction. Exact hypergradient ascent is one of the methods.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from bilevelrl.estimators.followers.solving import (
    ExactFollower,
    FollowerRule,
)
from bilevelrl.estimators.sampling.tabular import TabularSimulator
from bilevelrl.estimators.training.runs import LeaderTraining
from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.reference.tabular import to_dense

__all__ = ["Training", "published_simulator"]


def published_simulator(dynamics: ConfigurableMDP | None = None) -> TabularSimulator:
    """Return the way the paper's experiments sample: episodes follow each other and are cut after 200 steps.

    Parameters
    ----------
    dynamics
        Whose kernel moves the samples; None: the problem's own.
    """
    return TabularSimulator(dynamics=dynamics, step_limit=200, single_episode=False)


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class Training(LeaderTraining):
    """All runs of one configurable MDP that are trained together; see `LeaderTraining` for what is not listed here.

    Parameters
    ----------
    problem
        Runs are trained together, which is faster, where θ does not enter its dynamics.
    follower, simulator
        How followers respond, how samples are made.

    Raises
    ------
    InvalidInputError
        If there is no run, one is there twice, or a number is out of range.
    UnknownNameError
        If a method or a schedule is not known.

    Examples
    --------
    >>> from bilevelrl.estimators.training import Run
    >>> from bilevelrl.tasks import four_rooms
    >>> runs = [Run(method="exact", seed=seed, learning_rate=0.5) for seed in range(3)]
    >>> Training(problem=four_rooms(), runs=runs, iterations=10).start().shape
    (3, 105)
    """

    kind = ConfigurableMDP

    problem: ConfigurableMDP
    follower: FollowerRule = field(default_factory=ExactFollower)
    simulator: TabularSimulator = field(default_factory=published_simulator)

    def __post_init__(self) -> None:
        LeaderTraining.__post_init__(self)  # slots make a new class, which super() without arguments does not find
        if self.ascent_steps != 1:
            raise InvalidInputError(
                refusal("ascent_steps", self.ascent_steps, "1 on a configurable MDP", "raise iterations instead")
            )
        _ = self.theta_shape  # refuses a θ of any shape

    def problem_arrays(self) -> Iterable[FloatArray]:
        """Return the tables at θ_0, and the kernel that moves the samples."""
        theta = self.start()[0].reshape(self.theta_shape)
        tables = self.problem.tables_at(theta).differentiable()
        yield from (np.asarray(tables[name], dtype=np.float64) for name in sorted(tables))
        if isinstance(self.simulator.dynamics, ConfigurableMDP):
            yield to_dense(self.simulator.dynamics.tables_at(theta).transition)
