"""What estimators along trajectories ask of a kind of problem, and who answers.

Every kind answers in one file of its own, as functions; nothing is registered, so nothing depends on what was imported
first. A new kind is a new file and an entry of `ANSWERS`. Its exact expectations are in `estimators.expectations`, its
samples in `estimators.sampling`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

from bilevelrl.estimators.critics.joint_tables import Baseline, JointReading, Operator
from bilevelrl.estimators.critics.tables import CriticReading
from bilevelrl.estimators.estimator import Context, LeaderCritic
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.terms import gaussian_game, joint_actions, linear_quadratic, tabular
from bilevelrl.reference import ConfigurableLQR, LQRGame, MarkovGame, Problem
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.problem import Objective, Part, Term

__all__ = ["ANSWERS", "Answers", "Reading", "Units", "answers_of", "follower_terms"]

Reading: TypeAlias = CriticReading | JointReading
"""Leader's values along trajectories."""

Units: TypeAlias = Mapping[Term, FloatArray | float]
"""{term: what one unit of a step's weight or trace weighs it with}, (streams, steps) each."""


class Answers(Protocol):
    """The questions."""

    @property
    def ALLOWED(self) -> Mapping[str, tuple[Any, ...]]:  # noqa: N802 - a constant of a module
        """{option of an estimator: its values that make sense here}, the default first."""
        ...

    @property
    def WEIGHED(self) -> bool:  # noqa: N802
        """Whether trajectories may carry weights of their own, in place of γ_L^t."""
        ...

    def exact_critic(
        self, context: Context, objective: Objective, *, target: Objective, operator: Operator
    ) -> LeaderCritic:
        """Return the leader's exact values of an objective under the context's follower, for an estimator's target."""
        ...

    def read(
        self, context: Context, critic: Any, trajectories: Trajectories, *, horizon: int | None, baseline: Baseline
    ) -> Any:
        """Return the reading of a critic along trajectories."""
        ...

    def follower_terms(
        self, context: Context, batch: Any, *, centred: bool | None = None
    ) -> tuple[int, Mapping[Term, FloatArray | float]]:
        """Return where the inner sum of ∇Q_F starts, 0 or 1 steps ahead, and what its steps consist of.

        `centred`: subtract from what a score is weighed with its mean given what was known before; None: as is usual.
        """
        ...

    def leader_terms(
        self, context: Context, batch: Any, reading: Any, *, discount: float, centred: bool
    ) -> Mapping[Part, Mapping[Term, FloatArray | float]]:
        """Return what the steps of the leader's own terms consist of; the part "initial" counts at starts alone."""
        ...


ANSWERS: dict[type, Answers] = {
    ConfigurableLQR: linear_quadratic,
    MarkovGame: joint_actions,
    LQRGame: gaussian_game,
}
"""{kind of problem: who answers}; what is of no other kind has tables."""


def answers_of(problem: Problem) -> Answers:
    """Return who answers for a problem.

    Examples
    --------
    >>> from bilevelrl.tasks import building_thermal_control, random_mdp
    >>> [answers_of(problem).__name__.split(".")[-1] for problem in (building_thermal_control(), random_mdp())]
    ['linear_quadratic', 'tabular']
    """
    return next((answers for kind, answers in ANSWERS.items() if isinstance(problem, kind)), tabular)


def follower_terms(context: Context, batch: Any, *, centred: bool | None = None) -> tuple[int, Units]:
    """Return where the inner sum of ∇Q_F starts and what its steps consist of; see `Answers`."""
    return answers_of(context.problem).follower_terms(context, batch, centred=centred)
