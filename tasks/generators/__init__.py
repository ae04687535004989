"""Generators of random and structured problems."""

from bilevelrl.tasks.generators.closed_form_json import parse_json, problem_from_json, problem_to_json, read_number
from bilevelrl.tasks.generators.last_bits import digits_surviving_rounding, level_of
from bilevelrl.tasks.generators.random_games import layered_markov_game

__all__ = [
    "digits_surviving_rounding",
    "layered_markov_game",
    "level_of",
    "parse_json",
    "problem_from_json",
    "problem_to_json",
    "read_number",
]
