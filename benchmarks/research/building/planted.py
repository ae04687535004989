"""Benefits with planted errors, to see which of them would make an estimator on the building drift, and how far.

A benefit that is right has mean zero given the state and does not know the noise of its own transition. Errors that
break the first: a constant that is added to every benefit, or one that depends on the state alone, and is largest where
the state has come to rest. One that breaks the second: a share of the surprise of the benefit's own transition,
`γ (V_L(x') - E[V_L(x')])`. A critic that has learnt a sample by heart has a positive share; a share of one is the
action value's Monte-Carlo return, one step long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators import Context, LeaderCritic, Trajectories
from bilevelrl.estimators.training import ExactCritics, LearntCritics, Wanted
from bilevelrl.reference.arrays import FloatArray

__all__ = ["PlantedCritics"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Added:
    """A critic whose action values, and they alone, have something added; for the batch that it is made from."""

    critic: LeaderCritic
    added: FloatArray

    def action_value(self, state: Any, action: Any, *, steps_to_go: Any = None) -> FloatArray:
        return self.critic.action_value(state, action, steps_to_go=steps_to_go) + self.added

    def value(self, state: Any, *, steps_to_go: Any = None) -> FloatArray:
        return self.critic.value(state, steps_to_go=steps_to_go)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedCritics:
    """The exact critics, with an error in the action values of the batch.

    Parameters
    ----------
    offset
        A constant, in units of the leader's return.
    at_rest
        Divided by |x|², and added.
    surprise
        The share of each transition's own surprise.

    Examples
    --------
    >>> PlantedCritics(offset=4.0).start(Wanted(), 4, 2, 8, np.random.default_rng(0))
    {}
    """

    offset: float = 0.0
    at_rest: float = 0.0
    surprise: float = 0.0

    def start(
        self, wanted: Wanted, states: int, actions: int, parameters: int, rng: Generator
    ) -> Mapping[str, FloatArray]:
        """Return nothing."""
        return ExactCritics().start(wanted, states, actions, parameters, rng)

    def learn(
        self,
        wanted: Wanted,
        trajectories: Trajectories,
        context: Context,
        carried: Mapping[str, FloatArray],
        rng: Generator,
    ) -> LearntCritics:
        """Solve for them, and add the error."""
        learnt = ExactCritics().learn(wanted, trajectories, context, carried, rng)
        state, action = trajectories.state_t, trajectories.action_t
        reward = trajectories.reward_leader_t
        discount = context.problem.discount_leader
        happened = reward + discount * learnt.leader.value(trajectories.state_tp1)
        surprise = happened - learnt.leader.action_value(state, action)
        added = self.offset + self.at_rest / np.sum(state**2, axis=-1) + self.surprise * surprise
        return replace(learnt, leader=_Added(critic=learnt.leader, added=added))
