"""Bi-AC: the naive actor step with the values of a Stackelberg stage game (arXiv:2603.14867, (46)-(49)).

The critic believes that from the next state on the leader picks the action that is best for it given the follower's
most probable answer. Its table is the fixed point of `Q = r_L + γ_L P max_l Q(s', l, a*(s', l))`, which is not the
value of the policy that is followed; the actor then climbs it as a policy gradient would, as if the follower did not
respond.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from bilevelrl.estimators.critics.joint_tables import Operator
from bilevelrl.estimators.estimator import EstimatorEntry
from bilevelrl.estimators.methods.naive_pgd import NaivePGD
from bilevelrl.estimators.terms.along_trajectories import exact_critic_kind
from bilevelrl.reference import MarkovGame
from bilevelrl.reference.doors import checked

__all__ = ["BiAC"]


@checked
@dataclass(frozen=True, kw_only=True)
class BiAC(NaivePGD):
    """Bi-AC in its exact expected form: Theorem 2's first term with the values of its own operator.

    Parameters
    ----------
    target, stopping, baseline, behaviour_theta
        As in `AlongTrajectories`.
    critic
        "exact": the fixed point of the Stackelberg operator. "context": a table learnt with it, see
        `learn_game_critic(..., operator="stackelberg")`.

    Raises
    ------
    UnknownNameError, InvalidInputError
        As `AlongTrajectories`.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevelrl.estimators import Context
    >>> from bilevelrl.reference import solve_follower
    >>> from bilevelrl.tasks import toy_game_theta, toy_markov_game
    >>> game, theta = toy_markov_game(), toy_game_theta(0.3)
    >>> context = Context(problem=game, theta=theta, follower=solve_follower(game, theta))
    >>> bool(BiAC().leader_critic(context).action_values[0, 0, 0, 1] > 50.0)  # it believes in S-A-S-A for ever
    True
    """

    kinds: ClassVar[tuple[type, ...]] = (MarkovGame,)
    name: str = field(default="Bi-AC")

    @property
    def operator(self) -> Operator:
        """The Stackelberg operator."""
        return "stackelberg"


CONFIGURATIONS = (
    EstimatorEntry(
        kinds=(MarkovGame,),
        name="bi_ac",
        summary="the naive actor step with the fixed point of the Stackelberg operator",
        level="formula",
        make=lambda target: BiAC(target=target, critic=exact_critic_kind(target)),
    ),
)
