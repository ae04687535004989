"""Followers as maps θ → π_k, with the exact derivative through each; importing this package registers them."""

from bilevelrl.reference.approximations.follower_maps import imitation as _imitation
from bilevelrl.reference.approximations.follower_maps import natural_policy_gradient as _natural_policy_gradient
from bilevelrl.reference.approximations.follower_maps import soft_q_learning as _soft_q_learning
from bilevelrl.reference.approximations.follower_maps.follower_map import (
    FOLLOWER_MAPS,
    FollowerMap,
    follower_policy,
    hypergradient_through,
    variation_bound,
)
from bilevelrl.reference.approximations.follower_maps.sampled_soft_q_learning import LearntLaw, sampled_soft_q_learning

__all__ = [
    "FOLLOWER_MAPS",
    "FollowerMap",
    "LearntLaw",
    "follower_policy",
    "hypergradient_through",
    "sampled_soft_q_learning",
    "variation_bound",
]

del _imitation, _natural_policy_gradient, _soft_q_learning
