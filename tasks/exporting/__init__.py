"""Problems for other people's code: environments of Gymnasium and PettingZoo, and arrays in files, of every kind."""

from bilevelrl.tasks.exporting.environments import as_gymnasium, as_pettingzoo
from bilevelrl.tasks.exporting.problem_arrays import load_problem, problem_arrays, save_problem
from bilevelrl.tasks.exporting.scenario_arrays import scenario_arrays, write_npz

__all__ = [
    "as_gymnasium",
    "as_pettingzoo",
    "load_problem",
    "problem_arrays",
    "save_problem",
    "scenario_arrays",
    "write_npz",
]
