"""Configurable MDPs whose leader is not paid by the step: any function of θ, of the policy and of the occupancy."""

from bilevelrl.reference.general_objective.linearise import linearise_general
from bilevelrl.reference.general_objective.model import GeneralAt, GeneralObjective
from bilevelrl.reference.general_objective.ordinary import ordinary_problem
from bilevelrl.reference.general_objective.response import general_leader_objective, solve_general
from bilevelrl.reference.general_objective.split import split_general
from bilevelrl.reference.general_objective.sweeps import general_complex_parts, unroll_general

__all__ = [
    "GeneralAt",
    "GeneralObjective",
    "general_complex_parts",
    "general_leader_objective",
    "linearise_general",
    "ordinary_problem",
    "solve_general",
    "split_general",
    "unroll_general",
]
