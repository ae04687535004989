"""Followers of whom nothing but actions is seen: their policy from counts, and the rewards that explain it."""

from bilevelrl.reference.observed.actions import check_actions, count_actions, policy_from_counts
from bilevelrl.reference.observed.rewards import reward_of_policy

__all__ = ["check_actions", "count_actions", "policy_from_counts", "reward_of_policy"]
