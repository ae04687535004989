"""Generators of random and structured problems."""

from bilevelrl.tasks.generators.closed_form_json import problem_to_json, read_number
from bilevelrl.tasks.generators.random_games import layered_markov_game

__all__ = ["layered_markov_game", "problem_to_json", "read_number"]
