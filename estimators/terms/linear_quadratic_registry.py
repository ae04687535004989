"""Configurations of estimators for configurable LQRs that tables have no use for, by name."""

from __future__ import annotations

from collections.abc import Callable

from bilevelrl.estimators.estimator import Estimator, EstimatorEntry, Target
from bilevelrl.reference.doors import checked

__all__ = ["LQR_ESTIMATORS", "register_lqr_estimator"]

LQR_ESTIMATORS: dict[str, EstimatorEntry] = {}
"""Every registered configuration for configurable LQRs alone; some of `ESTIMATORS` take them too."""


@checked
def register_lqr_estimator(name: str, *, summary: str, level: str, make: Callable[[Target], Estimator]) -> None:
    """Add a configuration to `LQR_ESTIMATORS`; a file that is imported again replaces its own."""
    LQR_ESTIMATORS[name] = EstimatorEntry(name=name, summary=summary, level=level, make=make)
