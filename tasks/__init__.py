"""The problems: Four-Rooms, grids of rooms of any size, and generators of small problems.

A task is a function that returns a problem of `bilevelrl.reference`; it is registered by name in `TASKS`.
"""

from bilevelrl.tasks.generators.chain import chain
from bilevelrl.tasks.generators.grid_rooms import grid_rooms
from bilevelrl.tasks.generators.mdps import (
    absorbing_mdp,
    garnet,
    layered_mdp,
    periodic_mdp,
    random_mdp,
    small_problems,
    unreachable_mdp,
)
from bilevelrl.tasks.generators.random_games import (
    GAME_CASES,
    hard_markov_game,
    layered_markov_game,
    random_markov_game,
)
from bilevelrl.tasks.generators.random_lqr import random_lqr, random_lqr_game
from bilevelrl.tasks.generators.smooth_mdp import smooth_mdp
from bilevelrl.tasks.paper.bilevel_lqr import lqr_game
from bilevelrl.tasks.paper.building import Building, building_thermal_control
from bilevelrl.tasks.paper.four_rooms import (
    FOUR_ROOMS_GRID,
    FOUR_ROOMS_KERNELS,
    FOUR_ROOMS_MARKS,
    four_rooms,
    initial_theta,
)
from bilevelrl.tasks.paper.room_grid import RoomGrid
from bilevelrl.tasks.paper.toy_game import TOY_GAME_STATES, toy_game_theta, toy_markov_game
from bilevelrl.tasks.pictures.diagram import GameMove, draw_game, game_moves
from bilevelrl.tasks.pictures.rendering import (
    draw_follower,
    draw_map,
    draw_penalties,
    draw_values,
    intended_path,
    most_likely_path,
)
from bilevelrl.tasks.registry import TASKS, Task, make_task, register_task
from bilevelrl.tasks.scenarios.catalogue import scenario, scenario_names, scenarios
from bilevelrl.tasks.scenarios.joint import GameScenario, game_scenarios
from bilevelrl.tasks.scenarios.reference_data import (
    ReferenceProblem,
    reference_names,
    reference_problem,
    reference_problems,
)
from bilevelrl.tasks.scenarios.scenario import SCENARIO_TAGS, Provenance, Scenario, Truth

__all__ = [
    "FOUR_ROOMS_GRID",
    "FOUR_ROOMS_KERNELS",
    "FOUR_ROOMS_MARKS",
    "GAME_CASES",
    "SCENARIO_TAGS",
    "TASKS",
    "TOY_GAME_STATES",
    "Building",
    "GameMove",
    "GameScenario",
    "Provenance",
    "ReferenceProblem",
    "RoomGrid",
    "Scenario",
    "Task",
    "Truth",
    "absorbing_mdp",
    "building_thermal_control",
    "chain",
    "draw_follower",
    "draw_game",
    "draw_map",
    "draw_penalties",
    "draw_values",
    "four_rooms",
    "game_moves",
    "game_scenarios",
    "garnet",
    "grid_rooms",
    "hard_markov_game",
    "initial_theta",
    "intended_path",
    "layered_markov_game",
    "layered_mdp",
    "lqr_game",
    "make_task",
    "most_likely_path",
    "periodic_mdp",
    "random_lqr",
    "random_lqr_game",
    "random_markov_game",
    "random_mdp",
    "reference_names",
    "reference_problem",
    "reference_problems",
    "register_task",
    "scenario",
    "scenario_names",
    "scenarios",
    "small_problems",
    "smooth_mdp",
    "toy_game_theta",
    "toy_markov_game",
    "unreachable_mdp",
]
