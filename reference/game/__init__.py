"""Two-player Markov games: the leader's policy is θ, the follower answers with or without seeing its action."""

from bilevelrl.reference.game.follower import soft_values
from bilevelrl.reference.game.leader import game_leader_action_values

__all__ = ["game_leader_action_values", "soft_values"]
