"""The problems: Four-Rooms, grids of rooms of any size, and generators of small problems.

A task is a function that returns a problem of `bilevelrl.reference`; it is registered by name in `TASKS`.
"""

from bilevelrl.tasks.four_rooms import FOUR_ROOMS_GRID, FOUR_ROOMS_KERNELS, four_rooms, initial_theta
from bilevelrl.tasks.registry import TASKS, Task, make_task, register_task
from bilevelrl.tasks.room_grid import RoomGrid

__all__ = [
    "FOUR_ROOMS_GRID",
    "FOUR_ROOMS_KERNELS",
    "TASKS",
    "RoomGrid",
    "Task",
    "four_rooms",
    "initial_theta",
    "make_task",
    "register_task",
]
