"""Followers of many leaders during training: solved, stopped early, or learning from samples."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from bilevelrl.estimators.followers.joint import GameFollowerRule, GameResponses
from bilevelrl.estimators.followers.observed import Imitation, WatchedFollower
from bilevelrl.estimators.followers.sampled import ExpectedSoftQLearning, NaturalPolicyGradient, SoftQLearning
from bilevelrl.estimators.followers.solving import (
    Carried,
    ExactFollower,
    FollowerRule,
    SharedDynamics,
    SweepingFollower,
)
from bilevelrl.estimators.followers.truths import batch_hypergradients, batch_objectives, batch_truths

__all__ = [
    "FOLLOWER_RULES",
    "Carried",
    "ExactFollower",
    "ExpectedSoftQLearning",
    "FollowerRule",
    "GameFollowerRule",
    "GameResponses",
    "Imitation",
    "NaturalPolicyGradient",
    "SharedDynamics",
    "SoftQLearning",
    "SweepingFollower",
    "WatchedFollower",
    "batch_hypergradients",
    "batch_objectives",
    "batch_truths",
]

FOLLOWER_RULES: Mapping[str, Callable[..., FollowerRule]] = MappingProxyType(
    {
        "exact": ExactFollower,
        "sweeping": SweepingFollower,
        "soft_q_learning": SoftQLearning,
        "expected_soft_q_learning": ExpectedSoftQLearning,
        "natural_policy_gradient": NaturalPolicyGradient,
        "exact_natural_policy_gradient": partial(NaturalPolicyGradient, samples=None),
        "imitation": Imitation,
        "watched": WatchedFollower,
    }
)
"""{name: how followers on a configurable MDP respond to each θ of a training}."""
