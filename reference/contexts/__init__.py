"""Mixtures of contexts: one leader, several followers with known weights, and the answers of all of them, weighted."""

from bilevelrl.reference.contexts.follower import MixtureFollower
from bilevelrl.reference.contexts.leader import composed_hypergradient
from bilevelrl.reference.contexts.model import Mixture, MixtureAt, weighted
from bilevelrl.reference.contexts.reduction import reduce_contexts

__all__ = [
    "Mixture",
    "MixtureAt",
    "MixtureFollower",
    "composed_hypergradient",
    "reduce_contexts",
    "weighted",
]
