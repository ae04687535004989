"""Training on configurable MDPs: the declared training, and the world of runs that share their dynamics.

Outer iteration k: the followers respond to θ_k; every run draws its batch from its own random stream; SARSA critics
learn from it; estimators give a direction. Exact hypergradient ascent is one of the methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from bilevelrl.estimators.followers.solving import (
    ExactFollower,
    FollowerRule,
)
from bilevelrl.estimators.sampling.tabular import TabularSimulator
from bilevelrl.estimators.training.runs import LeaderTraining
from bilevelrl.reference import ConfigurableMDP, SparseTransition
from bilevelrl.reference.arrays import FloatArray, Traced
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, refusal

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
        """Return the tables at two θ, of the problem and of what moves the samples."""
        for problem in (self.problem, self.simulator.dynamics):
            if isinstance(problem, ConfigurableMDP):
                yield from self.of_theta(_numbers(problem))


def _numbers(problem: ConfigurableMDP) -> Callable[[FloatArray], dict[str, Traced]]:
    """Return the function θ → all arrays of its tables, those too that cannot depend on θ."""

    def evaluate(theta: FloatArray) -> dict[str, Traced]:
        tables = problem.evaluate(theta)
        kernel = tables.transition
        fixed = {
            "action_mask": tables.action_mask,
            "successor": kernel.successor if isinstance(kernel, SparseTransition) else None,
        }
        return tables.differentiable() | {name: array for name, array in fixed.items() if array is not None}

    return evaluate
