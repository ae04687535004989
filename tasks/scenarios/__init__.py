"""Scenarios: problems with θ, stored truth and provenance."""

from bilevelrl.tasks.scenarios.catalogue import find_scenario

__all__ = ["find_scenario"]
