"""LQR games: the leader plays Gaussian actions that the follower sees."""

from bilevelrl.reference.lqr_game.leader import closed_loop, evaluate_game_leader, game_steps
from bilevelrl.reference.lqr_game.model import LeaderGaussian

__all__ = ["LeaderGaussian", "closed_loop", "evaluate_game_leader", "game_steps"]
