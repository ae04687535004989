"""Hypergradients that are not exact, with their knobs; importing this package registers them."""

from bilevelrl.reference.approximations import adjoints as _adjoints
from bilevelrl.reference.approximations import bellman_penalty as _bellman_penalty
from bilevelrl.reference.approximations import smoothing as _smoothing
from bilevelrl.reference.approximations import value_penalty as _value_penalty
from bilevelrl.reference.approximations.adjoints import ruling_rate
from bilevelrl.reference.approximations.alternating_tables import AlternatingRecursion
from bilevelrl.reference.approximations.approximation import (
    APPROXIMATIONS,
    Approximation,
    approximate_hypergradient,
    tabular_at,
)
from bilevelrl.reference.approximations.attenuated_penalty import SweptFollower, swept_followers
from bilevelrl.reference.approximations.follower_maps import (
    FOLLOWER_MAPS,
    FollowerMap,
    LearntLaw,
    follower_policy,
    hypergradient_through,
    sampled_soft_q_learning,
    variation_bound,
)
from bilevelrl.reference.approximations.through_logits import (
    INVERSES,
    fisher_blocks,
    follower_at,
    solved_scores,
    weighed_advantages,
)
from bilevelrl.reference.approximations.under_follower import formula_under
from bilevelrl.reference.approximations.unrolled_sweeps import hypergradient_through_sweeps

__all__ = [
    "APPROXIMATIONS",
    "FOLLOWER_MAPS",
    "INVERSES",
    "AlternatingRecursion",
    "Approximation",
    "FollowerMap",
    "LearntLaw",
    "SweptFollower",
    "approximate_hypergradient",
    "fisher_blocks",
    "follower_at",
    "follower_policy",
    "formula_under",
    "hypergradient_through",
    "hypergradient_through_sweeps",
    "ruling_rate",
    "sampled_soft_q_learning",
    "solved_scores",
    "swept_followers",
    "tabular_at",
    "variation_bound",
    "weighed_advantages",
]

del _adjoints, _bellman_penalty, _smoothing, _value_penalty
