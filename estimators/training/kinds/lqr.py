"""Training of leaders of configurable LQRs, such as the building: what is declared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from bilevelrl.estimators.sampling.linear_quadratic import LQRSimulator
from bilevelrl.estimators.training.methods import METHODS
from bilevelrl.estimators.training.runs import LeaderTraining, check_count
from bilevelrl.estimators.training.worlds.critic_rules import CriticRule, LeastSquaresCritics
from bilevelrl.reference import ConfigurableLQR
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import InvalidInputError, refusal

__all__ = ["LQRTraining"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LQRTraining(LeaderTraining):
    """All runs on one configurable LQR that are trained together.

    Parameters
    ----------
    problem
        With a fixed shape of θ.
    runs, iterations, optimiser, schedule, largest_norm, clip_blocks, ascent_steps, evaluate_every, entropy
        As in `LeaderTraining`; methods are those of `METHODS`.
    critics
        Where leader values and gradients of the follower's values come from.
    streams, steps
        Episodes of each batch, and their length.
    separate_critics
        Let critics learn from a batch of their own, as large: no sample is used twice.
    simulator
        How samples are made.
    start_scale
        θ_0 has independent entries N(0, start_scale²).

    Raises
    ------
    InvalidInputError, UnknownNameError
        As `LeaderTraining`, or if a number is out of range.

    Examples
    --------
    >>> from bilevelrl.estimators.training import Run, train
    >>> from bilevelrl.tasks import building_thermal_control
    >>> runs = [Run(method="exact", seed=0, learning_rate=0.1)]
    >>> training = LQRTraining(
    ...     problem=building_thermal_control(), runs=runs, iterations=100, clip_blocks=(4, 4), evaluate_every=99)
    >>> train(training).objective[:, 0].round(0).tolist()
    [-262.0, -164.0]
    """

    problem: ConfigurableLQR
    critics: CriticRule = field(default_factory=LeastSquaresCritics)
    streams: int = 100
    steps: int = 100
    separate_critics: bool = False
    simulator: LQRSimulator = field(default_factory=LQRSimulator)
    start_scale: float = 0.01

    def __post_init__(self) -> None:
        LeaderTraining.__post_init__(self)
        for name in ("streams", "steps"):
            check_count(name, getattr(self, name))
        if not (np.isfinite(self.start_scale) and self.start_scale >= 0.0):
            raise InvalidInputError(refusal("start_scale", self.start_scale, "a finite number >= 0", "0.01 is usual"))
        if self.problem.theta_shape is None:
            raise InvalidInputError("problem.theta_shape=None: expected a fixed shape of θ; pass theta_shape=(N,)")

    @property
    def parameters(self) -> int:
        """N."""
        assert self.problem.theta_shape is not None  # refused on construction
        return int(np.prod(self.problem.theta_shape))

    def methods(self) -> Iterable[str]:
        """Return the names in `METHODS`."""
        return METHODS[ConfigurableLQR]

    def start(self) -> FloatArray:
        """Return the leaders' starting points (runs, N), the same for runs of the same seed."""
        return self.starts(lambda rng: self.start_scale * rng.standard_normal(self.parameters))

    def problem_arrays(self) -> Iterable[FloatArray]:
        """Return the matrices at the first starting point."""
        entries = self.problem.matrices_at(self.start()[0]).differentiable()
        return [np.asarray(entries[name]) for name in sorted(entries)]
