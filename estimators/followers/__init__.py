"""Followers of many leaders during training: solved, stopped early, or learning from samples."""

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
