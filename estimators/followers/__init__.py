"""Followers of many leaders during training: solved, stopped early, or learning from samples."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from bilevelrl.estimators.followers.joint import GameFollowerRule, GameResponses
from bilevelrl.estimators.followers.sampled import NaturalPolicyGradient, SoftQLearning
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
    "FollowerRule",
    "GameFollowerRule",
    "GameResponses",
    "NaturalPolicyGradient",
    "SharedDynamics",
    "SoftQLearning",
    "SweepingFollower",
    "batch_hypergradients",
    "batch_objectives",
    "batch_truths",
]

FOLLOWER_RULES: Mapping[str, Callable[..., FollowerRule]] = MappingProxyType(
    {
        "exact": ExactFollower,
        "sweeping": SweepingFollower,
        "soft_q_learning": SoftQLearning,
        "natural_policy_gradient": NaturalPolicyGradient,
    }
)
"""{name: how followers on a configurable MDP respond to each θ of a training}."""
