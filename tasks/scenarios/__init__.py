"""Scenarios: problems with θ and their truth, those of the main job, and what a problem's paths look like."""

from bilevelrl.tasks.scenarios.catalogue import find_scenario
from bilevelrl.tasks.scenarios.main_job import FOUR_ROOMS_TEMPERATURES, paper_scenarios, small_scenarios
from bilevelrl.tasks.scenarios.reference_data import (
    DATA_DIGITS,
    DATA_FORMAT,
    DATA_VERSION,
    ReferenceProblem,
    StoredNumber,
    agreeing_digits,
    check_header,
    parse_reference_problem,
    reference_names,
    reference_problems,
)
from bilevelrl.tasks.scenarios.scenario import Truth
from bilevelrl.tasks.scenarios.structure import ROUNDING, Structure

__all__ = [
    "DATA_DIGITS",
    "DATA_FORMAT",
    "DATA_VERSION",
    "FOUR_ROOMS_TEMPERATURES",
    "ROUNDING",
    "ReferenceProblem",
    "StoredNumber",
    "Structure",
    "Truth",
    "agreeing_digits",
    "check_header",
    "find_scenario",
    "paper_scenarios",
    "parse_reference_problem",
    "reference_names",
    "reference_problems",
    "small_scenarios",
]
