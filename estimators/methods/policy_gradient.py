"""The naive policy gradient in a Markov game: the leader's own term, as if the follower did not respond."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from bilevelrl.estimators.estimator import Context, Contribution, EstimatorEntry
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.terms.joint_leader import GameSide
from bilevelrl.reference import LQRGame, MarkovGame
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked
from bilevelrl.reference.problem import Part

__all__ = ["PolicyGradient"]


@checked
@dataclass(frozen=True, kw_only=True)
class PolicyGradient(GameSide):
    """Partial gradient with the follower's response held fixed: biased by exactly the response part.

    Parameters
    ----------
    target, stopping, critic, baseline, behaviour_theta
        As in `GameSide`.

    Raises
    ------
    UnknownNameError, InvalidInputError
        As `GameSide`.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevelrl.reference import hypergradient, solve_follower
    >>> from bilevelrl.tasks.generators.random_games import layered_markov_game
    >>> game, theta = layered_markov_game(), np.zeros(4)
    >>> context = Context(problem=game, theta=theta, follower=solve_follower(game, theta))
    >>> expected = sum(PolicyGradient().expectation(context, horizon=2).values())
    >>> truth = hypergradient(game, theta)
    >>> bool(np.allclose(expected, truth.value - truth.parts["response"], rtol=1e-12))
    True
    """

    continuous: ClassVar[bool] = True
    name: str = field(default="policy gradient")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._claim(biased=True)

    @checked
    def contributions(self, trajectories: Trajectories, context: Context) -> Sequence[Contribution]:
        """Return the weights of the leader's own term."""
        self.game(trajectories, context)
        trajectories = self.stopped(trajectories, context)
        return [self.policy_term(trajectories, context, self.leader_critic(context))]

    @checked
    def expectation(self, context: Context, *, horizon: int) -> Mapping[Part, FloatArray]:
        """Return the exact expectation for streams of `horizon` steps; with stopping, whatever the horizon."""
        return self.expected(context, horizon=horizon, influence=None, first=0)


CONFIGURATIONS = (
    EstimatorEntry(
        kinds=(MarkovGame, LQRGame),
        name="policy_gradient",
        summary="the leader's own term alone, with the exact critic",
        level="formula",
        make=lambda target: PolicyGradient(target=target),
    ),
)
