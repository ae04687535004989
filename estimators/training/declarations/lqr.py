"""Training of leaders of configurable LQRs, such as the building: what is declared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from bilevelrl.estimators.sampling.linear_quadratic import LQRSimulator
from bilevelrl.estimators.training.declarations.critic_rules import CriticRule, LeastSquaresCritics
from bilevelrl.estimators.training.runs import LeaderTraining
from bilevelrl.reference import ConfigurableLQR
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import Count, checked

__all__ = ["LQRTraining"]


@checked
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

    kind = ConfigurableLQR

    problem: ConfigurableLQR
    critics: CriticRule = field(default_factory=LeastSquaresCritics)
    streams: Count = 100
    separate_critics: bool = False
    simulator: LQRSimulator = field(default_factory=LQRSimulator)

    def __post_init__(self) -> None:
        LeaderTraining.__post_init__(self)
        _ = self.theta_shape  # refuses a θ of any shape

    @property
    def parameters(self) -> int:
        """N."""
        return int(np.prod(self.theta_shape))

    def problem_arrays(self) -> Iterable[FloatArray]:
        """Return the matrices at two θ."""
        return self.of_theta(lambda theta: self.problem.evaluate(theta).differentiable())
