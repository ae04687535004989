"""Configurable MDPs: a tabular process whose tables depend on θ, its follower and its leader."""

from bilevelrl.reference.tabular.error_bounds import dense_jacobian
from bilevelrl.reference.tabular.fixed_point import entropy, state_scale
from bilevelrl.reference.tabular.leader import evaluate_leader, leader_action_values
from bilevelrl.reference.tabular.stacked.newton import newton_batch, solve_followers
from bilevelrl.reference.tabular.tables import TABLE_NAMES, check_values
from bilevelrl.reference.tabular.transitions import (
    ROW_SUM_TOLERANCE,
    DiscountedSystem,
    Transition,
    check_rows,
    check_transition,
    expected_next,
    policy_transition,
    to_dense,
    transition_shape,
)
from bilevelrl.reference.tabular.unrolled import swept_objective

__all__ = [
    "ROW_SUM_TOLERANCE",
    "TABLE_NAMES",
    "DiscountedSystem",
    "Transition",
    "check_rows",
    "check_transition",
    "check_values",
    "dense_jacobian",
    "entropy",
    "evaluate_leader",
    "expected_next",
    "leader_action_values",
    "newton_batch",
    "policy_transition",
    "solve_followers",
    "state_scale",
    "swept_objective",
    "to_dense",
    "transition_shape",
]
