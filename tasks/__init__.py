"""The problems: Four-Rooms, grids of rooms of any size, and generators of small problems.

A task is a function that returns a problem of `bilevelrl.reference`; it is registered by name in `TASKS`.
"""

from bilevelrl.tasks.generators.chain import chain
from bilevelrl.tasks.generators.grid_rooms import grid_rooms
from bilevelrl.tasks.generators.mdps import garnet, layered_mdp, random_mdp
from bilevelrl.tasks.generators.random_games import random_markov_game
from bilevelrl.tasks.generators.random_lqr import random_lqr, random_lqr_game
from bilevelrl.tasks.importing import (
    from_arrays,
    from_explicit_files,
    from_gymnasium,
    from_jax,
    from_pettingzoo,
    from_torch,
)
from bilevelrl.tasks.paper.bilevel_lqr import lqr_game
from bilevelrl.tasks.paper.building import building_thermal_control
from bilevelrl.tasks.paper.four_rooms import contextual_four_rooms, four_rooms, initial_theta
from bilevelrl.tasks.paper.toy_game import toy_game_theta, toy_markov_game
from bilevelrl.tasks.registry import TASKS, make_task
from bilevelrl.tasks.scenarios.catalogue import scenario, scenarios
from bilevelrl.tasks.scenarios.reference_data import reference_problem
from bilevelrl.tasks.scenarios.scenario import Scenario

__all__ = [
    "TASKS",
    "Scenario",
    "building_thermal_control",
    "chain",
    "contextual_four_rooms",
    "four_rooms",
    "from_arrays",
    "from_explicit_files",
    "from_gymnasium",
    "from_jax",
    "from_pettingzoo",
    "from_torch",
    "garnet",
    "grid_rooms",
    "initial_theta",
    "layered_mdp",
    "lqr_game",
    "make_task",
    "random_lqr",
    "random_lqr_game",
    "random_markov_game",
    "random_mdp",
    "reference_problem",
    "scenario",
    "scenarios",
    "toy_game_theta",
    "toy_markov_game",
]
