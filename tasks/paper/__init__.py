"""The paper's four tasks, SoBiRL's synthetic problem and HPGD's tax design."""

from bilevelrl.tasks.paper.four_rooms import BUDGET, FOUR_ROOMS_GRID, FOUR_ROOMS_MARKS, GOAL, SECOND_GOAL, START, TARGET
from bilevelrl.tasks.paper.policy_norm import policy_norm, policy_norm_start
from bilevelrl.tasks.paper.published_kernels import published_four_rooms
from bilevelrl.tasks.paper.tax_design import tax_design, tax_theta

__all__ = [
    "BUDGET",
    "FOUR_ROOMS_GRID",
    "FOUR_ROOMS_MARKS",
    "GOAL",
    "SECOND_GOAL",
    "START",
    "TARGET",
    "policy_norm",
    "policy_norm_start",
    "published_four_rooms",
    "tax_design",
    "tax_theta",
]
