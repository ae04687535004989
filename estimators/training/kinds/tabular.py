"""Training on configurable MDPs: the declared training, and the world of runs that share their dynamics.

Outer iteration k: the followers respond to θ_k; every run draws its batch from its own random stream; SARSA critics
learn from it; estimators give a direction. Exact hypergradient ascent is one of the methods.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from bilevelrl.estimators.sampling.tabular import TabularSimulator
from bilevelrl.estimators.training.followers.solving import (
    ExactFollower,
    FollowerRule,
)
from bilevelrl.estimators.training.methods import METHODS
from bilevelrl.estimators.training.runs import LeaderTraining, check_count
from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.reference.tabular.transitions import to_dense

__all__ = ["Training", "published_simulator"]


def published_simulator(dynamics: ConfigurableMDP | None = None) -> TabularSimulator:
    """Return the way the paper's experiments sample: episodes follow each other and are cut after 200 steps.

    Parameters
    ----------
    dynamics
        Whose kernel moves the samples; None: the problem's own.
    """
    return TabularSimulator(dynamics=dynamics, step_limit=200, single_episode=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training(LeaderTraining):
    """All runs of one configurable MDP that are trained together; see `LeaderTraining` for what is not listed here.

    Parameters
    ----------
    problem
        Runs are trained together, which is faster, where θ does not enter its dynamics.
    streams, steps
        Of the batch that every run draws in every outer iteration.
    follower, simulator
        How followers respond, how samples are made.
    start_scale
        θ_0 has independent entries N(0, start_scale²); 0: zeros.

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

    problem: ConfigurableMDP
    streams: int = 1
    steps: int = 100
    follower: FollowerRule = field(default_factory=ExactFollower)
    simulator: TabularSimulator = field(default_factory=published_simulator)
    start_scale: float = 0.01

    def __post_init__(self) -> None:
        LeaderTraining.__post_init__(self)  # slots make a new class, which super() without arguments does not find
        for name in ("streams", "steps"):
            check_count(name, getattr(self, name))
        if self.ascent_steps != 1:
            raise InvalidInputError(
                refusal("ascent_steps", self.ascent_steps, "1 on a configurable MDP", "raise iterations instead")
            )
        if not (np.isfinite(self.start_scale) and self.start_scale >= 0.0):
            raise InvalidInputError(refusal("start_scale", self.start_scale, "a finite number >= 0", "0.01 is usual"))
        if self.problem.theta_shape is None:
            raise InvalidInputError("problem.theta_shape=None: expected a fixed shape of θ; pass theta_shape=(N,)")

    @property
    def theta_shape(self) -> tuple[int, ...]:
        """Shape of one run's θ."""
        assert self.problem.theta_shape is not None  # refused in the constructor
        return tuple(self.problem.theta_shape)

    def methods(self) -> Iterable[str]:
        """Return the names in `METHODS`."""
        return METHODS[ConfigurableMDP]

    def start(self) -> FloatArray:
        """Return the leaders' starting points (runs, N), the same for runs of the same seed."""
        size = int(np.prod(self.theta_shape))
        return self.starts(lambda rng: self.start_scale * rng.standard_normal(size))

    def problem_arrays(self) -> Iterable[FloatArray]:
        """Return the tables at θ_0, and the kernel that moves the samples."""
        theta = self.start()[0].reshape(self.theta_shape)
        tables = self.problem.tables_at(theta).differentiable()
        yield from (np.asarray(tables[name], dtype=np.float64) for name in sorted(tables))
        if isinstance(self.simulator.dynamics, ConfigurableMDP):
            yield to_dense(self.simulator.dynamics.tables_at(theta).transition)
