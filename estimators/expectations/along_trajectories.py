"""Exact expectations of estimators along trajectories, by kind of problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from bilevelrl.estimators.estimator import Context, Contribution
from bilevelrl.estimators.expectations.joint_actions import joint_expected_parts
from bilevelrl.estimators.expectations.linear_quadratic import linear_quadratic_expected_parts
from bilevelrl.estimators.expectations.tabular import Completion, tabular_expected_parts
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.terms import tabular
from bilevelrl.estimators.terms.along_trajectories import AlongTrajectories
from bilevelrl.estimators.terms.answers import Reading, answers_of
from bilevelrl.reference import ConfigurableLQR, ConfigurableMDP, LQRGame, MarkovGame
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import EstimatorError, UnsupportedError
from bilevelrl.reference.problem import Part

__all__ = ["ExpectedAlongTrajectories", "expected_parts"]


def expected_parts(
    estimator: AlongTrajectories,
    context: Context,
    *,
    horizon: int,
    guiding: bool,
    completion: Completion | None = None,
) -> Mapping[Part, FloatArray]:
    """Return {part: (N,)}, the exact expectation of an estimate, given the follower and the critic.

    Parameters
    ----------
    estimator
        Whose target, critic, stopping and scores.
    context
        Problem, θ, follower, critic and simulator. The follower may be suboptimal, the critic wrong, the simulator
        another model: the expectation is that of what is computed from their samples.
    horizon
        Steps of every stream (one episode each). Not used with geometric stopping.
    guiding
        Whether BC-HG's guiding term is part of the estimate.
    completion
        In configurable MDPs, what λ-returns add to the guiding term, and baselines take away.

    Raises
    ------
    EstimatorError
        If the estimator averages inside a batch or shortens scores, or streams hold several episodes.
    SupportError
        If samples reach transitions of probability zero under the model, where scores do not exist.
    UnsupportedError
        In LQR games, and where the kind of problem has no use for an option of the estimator.
    """
    estimator.check_problem(context)
    if estimator.largest_score is not None:
        raise EstimatorError(
            f"{estimator.name}: shortened scores have no such formula; their bias can only be measured"
        )
    if isinstance(context.problem, LQRGame):
        raise UnsupportedError(
            f"{estimator.name}: no closed-form expectation in an LQRGame; use quadrature on a one-dimensional one"
        )
    if isinstance(context.problem, MarkovGame):
        return joint_expected_parts(estimator, context, horizon=horizon, guiding=guiding)
    if isinstance(context.problem, ConfigurableLQR):
        return linear_quadratic_expected_parts(estimator, context, horizon=horizon, guiding=guiding)
    if answers_of(context.problem) is not tabular:
        kind = type(context.problem).__name__
        raise UnsupportedError(f"{estimator.name}: no closed-form expectation is known for a {kind}; measure its bias")
    return tabular_expected_parts(estimator, context, horizon=horizon, guiding=guiding, completion=completion)


@dataclass(frozen=True, kw_only=True)
class ExpectedAlongTrajectories(AlongTrajectories):
    """The leader's own terms, and what a method adds to them, with the exact expectation of both."""

    kinds: ClassVar[tuple[type, ...]] = (ConfigurableMDP, MarkovGame, ConfigurableLQR, LQRGame)
    guiding: ClassVar[bool] = False
    """Whether BC-HG's guiding term is what is added."""

    @checked
    def contributions(self, trajectories: Trajectories, context: Context) -> Sequence[Contribution]:
        """Return the weights of the leader's terms and of what is added to them."""
        trajectories = self.stopped(trajectories, context)
        reading = self.read(trajectories, context)
        own = self.partial_gradient(trajectories, context, reading)
        return [*own, *self._added_terms(trajectories, context, reading)]

    def _added_terms(self, trajectories: Trajectories, context: Context, reading: Reading) -> Sequence[Contribution]:
        return ()

    @checked
    def expectation(self, context: Context, *, horizon: int) -> Mapping[Part, FloatArray]:
        """Return the exact expectation for streams of `horizon` steps; with stopping, whatever the horizon.

        Raises
        ------
        EstimatorError
            For averages inside a batch and for shortened scores, which have no such formula.
        """
        return expected_parts(self, context, horizon=horizon, guiding=self.guiding)
