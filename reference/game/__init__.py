"""Two-player Markov games: the leader's policy is θ, the follower answers with or without seeing its action."""

from bilevelrl.reference.game.follower import GameFollower, soft_values
from bilevelrl.reference.game.leader import game_leader_action_values
from bilevelrl.reference.game.leader_policies import NeuralPolicy
from bilevelrl.reference.game.reduction import reduce_game

__all__ = ["GameFollower", "NeuralPolicy", "game_leader_action_values", "reduce_game", "soft_values"]
