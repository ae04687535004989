"""Naive policy gradient: the leader's own terms, as if the follower did not respond."""

from __future__ import annotations

from dataclasses import dataclass, field

from bilevelrl.estimators.estimator import EstimatorEntry
from bilevelrl.estimators.expectations.along_trajectories import ExpectedAlongTrajectories
from bilevelrl.estimators.terms.along_trajectories import exact_critic_kind
from bilevelrl.reference import ConfigurableLQR, ConfigurableMDP, LQRGame, MarkovGame
from bilevelrl.reference.doors import checked

__all__ = ["NaivePGD"]


@checked
@dataclass(frozen=True, kw_only=True)
class NaivePGD(ExpectedAlongTrajectories):
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

    name: str = field(default="Naive-PGD")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._declare(biased=True)


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
