"""Followers and actions that are seen: one that imitates a best response, and one of whom the leader sees no more.

Actions of the best response are observed n times in each state, in every outer iteration anew, and counted:

    π_n(a|s) = (count(s,a) + prior) / (n + A prior).                                                             (1)

An *imitator* plays π_n itself. A *watched* follower plays its best response, and the leader, who sees actions alone,
takes (1) for its policy and the soft values of that policy for its values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.followers.sampled import exact_values
from bilevelrl.estimators.followers.solving import Carried, ExactFollower, Rewards, SharedDynamics
from bilevelrl.estimators.terms.batched import SeedBatch
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import Count, Positive, checked

__all__ = ["Imitation", "WatchedFollower", "counted"]


def counted(policy: FloatArray, observed: int, prior: float, generators: Sequence[Generator]) -> FloatArray:
    """Return policies (runs, S, A) as n observed actions per state show them, (1)."""
    drawn = [rng.multinomial(observed, own) for rng, own in zip(generators, _laws(policy), strict=True)]
    found: FloatArray = (np.stack(drawn) + prior) / (observed + prior * policy.shape[2])
    return found


def _laws(policy: FloatArray) -> FloatArray:
    """Return rows to draw from, the same whatever the last digits: on either side of 1/2 NumPy draws another way."""
    law: FloatArray = np.round(policy, 9)
    law /= law.sum(axis=2, keepdims=True)
    return law


def _with_values(dynamics: SharedDynamics, rewards: Rewards, policy: FloatArray) -> SeedBatch:
    log_policy = np.log(policy)
    action_value = exact_values(dynamics, rewards, policy, log_policy)
    value = (policy * (action_value - dynamics.problem.temperature * log_policy)).sum(axis=2)
    return dynamics.followers(rewards, value, action_value, policy)


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class Imitation:
    """A follower that plays what it saw a best response do, (1).

    Parameters
    ----------
    observed
        Actions in each state, for each θ.
    prior
        Added to each count, > 0: what was never seen is played too.

    Raises
    ------
    InvalidInputError
        If one is out of range.

    Examples
    --------
    >>> from bilevelrl.tasks import four_rooms
    >>> dynamics = SharedDynamics(four_rooms(), np.zeros(105))
    >>> rewards, rng = dynamics.rewards(np.zeros((1, 105))), np.random.default_rng(0)
    >>> best, _ = ExactFollower().respond(dynamics, rewards, {})
    >>> for observed in (10, 1000):
    ...     played, _ = Imitation(observed=observed).respond(dynamics, rewards, {}, [rng])
    ...     print(np.abs(played.policy - best.policy).max() < 0.1)
    False
    True
    """

    observed: Count = 100
    prior: Positive = 0.5

    def respond(
        self, dynamics: SharedDynamics, rewards: Rewards, carried: Carried, generators: Sequence[Generator]
    ) -> tuple[SeedBatch, Carried]:
        """Return what the followers play after watching."""
        dynamics.refuse_mask("Imitation")
        best, kept = ExactFollower().respond(dynamics, rewards, carried)
        seen = counted(best.policy, self.observed, self.prior, generators)
        return _with_values(dynamics, rewards, seen), kept


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedFollower:
    """A best response of whom the leader sees actions alone: it estimates as if (1) were played.

    Parameters
    ----------
    observed
        Actions in each state, for each θ.
    prior
        Added to each count, > 0: what was never seen has a probability all the same.

    Raises
    ------
    InvalidInputError
        If one is out of range.

    Examples
    --------
    >>> from bilevelrl.tasks import four_rooms
    >>> dynamics = SharedDynamics(four_rooms(), np.zeros(105))
    >>> rewards, watched = dynamics.rewards(np.zeros((1, 105))), WatchedFollower(observed=1000)
    >>> played, _ = watched.respond(dynamics, rewards, {}, [])
    >>> seen = watched.seen(dynamics, rewards, played, [np.random.default_rng(0)])
    >>> bool(0.0 < np.abs(seen.policy - played.policy).max() < 0.1)
    True
    """

    observed: Count = 100
    prior: Positive = 0.5

    def respond(
        self, dynamics: SharedDynamics, rewards: Rewards, carried: Carried, generators: Sequence[Generator]
    ) -> tuple[SeedBatch, Carried]:
        """Return the best responses, which are what is played."""
        dynamics.refuse_mask("WatchedFollower")
        return ExactFollower().respond(dynamics, rewards, carried)

    def seen(
        self, dynamics: SharedDynamics, rewards: Rewards, played: SeedBatch, generators: Sequence[Generator]
    ) -> SeedBatch:
        """Return what the leader takes the followers for."""
        return _with_values(dynamics, rewards, counted(played.policy, self.observed, self.prior, generators))
