"""Naive policy gradient: the leader's own terms, as if the follower did not respond."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from bilevelrl.estimators.estimator import Context, Contribution, EstimatorEntry
from bilevelrl.estimators.expectations.along_trajectories import expected_parts
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.terms.along_trajectories import AlongTrajectories, exact_critic_kind
from bilevelrl.reference import ConfigurableLQR, ConfigurableMDP, LQRGame, MarkovGame
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked
from bilevelrl.reference.problem import Part

__all__ = ["NaivePGD"]


@checked
@dataclass(frozen=True, kw_only=True)
class NaivePGD(AlongTrajectories):
    """Partial gradient with the follower's response held fixed: biased by exactly the response part.

    Parameters
    ----------
    target, critic, stopping, normalisation, leader_average, scores, baseline, behaviour_theta
        As in `AlongTrajectories`.

    Raises
    ------
    UnknownNameError, InvalidInputError
        As `AlongTrajectories`.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevelrl.estimators import Context, NaivePGD
    >>> from bilevelrl.reference import hypergradient, solve_follower
    >>> from bilevelrl.tasks import layered_mdp
    >>> problem, theta = layered_mdp(seed=0), np.zeros(3)
    >>> context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    >>> expected = sum(NaivePGD().expectation(context, horizon=3).values())
    >>> truth = hypergradient(problem, theta)
    >>> bool(np.allclose(expected, truth.value - truth.parts["response"], rtol=1e-12))
    True
    """

    kinds: ClassVar[tuple[type, ...]] = (ConfigurableMDP, MarkovGame, ConfigurableLQR, LQRGame)
    name: str = field(default="Naive-PGD")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._declare(biased=True)

    @checked
    def contributions(self, trajectories: Trajectories, context: Context) -> Sequence[Contribution]:
        """Return the weights of the leader's terms."""
        trajectories = self.stopped(trajectories, context)
        return self.partial_gradient(trajectories, context, self.read(trajectories, context))

    @checked
    def expectation(self, context: Context, *, horizon: int) -> Mapping[Part, FloatArray]:
        """Return the exact expectation for streams of `horizon` steps; with stopping, whatever the horizon.

        Raises
        ------
        EstimatorError
            For averages inside a batch: a ratio has no such formula.
        """
        return expected_parts(self, context, horizon=horizon, guiding=False)


CONFIGURATIONS = (
    EstimatorEntry(
        kinds=(ConfigurableMDP, ConfigurableLQR),
        name="naive_pgd",
        summary="the leader's own terms alone, with the exact critic",
        level="formula",
        make=lambda target: NaivePGD(target=target, critic=exact_critic_kind(target)),
    ),
    EstimatorEntry(
        name="naive_pgd_practical",
        summary="the leader's own terms alone, averaged over visits of start states as published experiments do",
        level="practical",
        make=lambda target: NaivePGD(
            target=target, critic="context", normalisation="episodes", leader_average="start_visits"
        ),
    ),
    EstimatorEntry(
        name="policy_gradient",
        summary="the leader's own term alone, with the exact critic, in games",
        level="formula",
        kinds=(MarkovGame, LQRGame),
        make=lambda target: NaivePGD(target=target, critic=exact_critic_kind(target)),
    ),
)
