"""Pictures of problems."""

from bilevelrl.tasks.pictures.diagram import draw_game, game_moves
from bilevelrl.tasks.pictures.rendering import draw_follower, draw_map, draw_penalties

__all__ = ["draw_follower", "draw_game", "draw_map", "draw_penalties", "game_moves"]
