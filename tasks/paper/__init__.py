"""The paper's four tasks."""

from bilevelrl.tasks.paper.four_rooms import BUDGET, FOUR_ROOMS_GRID, FOUR_ROOMS_MARKS, GOAL, SECOND_GOAL, START, TARGET

__all__ = ["BUDGET", "FOUR_ROOMS_GRID", "FOUR_ROOMS_MARKS", "GOAL", "SECOND_GOAL", "START", "TARGET"]
