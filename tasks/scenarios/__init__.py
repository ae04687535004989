"""Scenarios: problems with θ, stored truth and provenance."""

from bilevelrl.tasks.scenarios.catalogue import find_scenario
from bilevelrl.tasks.scenarios.reference_data import (
    DATA_FORMAT,
    DATA_VERSION,
    ReferenceProblem,
    StoredNumber,
    agreeing_digits,
    check_header,
    reference_names,
    reference_problems,
)
from bilevelrl.tasks.scenarios.scenario import Truth

__all__ = [
    "DATA_FORMAT",
    "DATA_VERSION",
    "ReferenceProblem",
    "StoredNumber",
    "Truth",
    "agreeing_digits",
    "check_header",
    "find_scenario",
    "reference_names",
    "reference_problems",
]
