"""Which samples a declared expectation is about."""

from __future__ import annotations

from bilevelrl.estimators.estimator import Context
from bilevelrl.estimators.sampling.tabular import TabularSimulator
from bilevelrl.reference.errors import UnsupportedError

__all__ = ["own_law"]


def own_law(name: str, context: Context) -> None:
    """Refuse a simulator whose samples are not those of the problem's own law, one whole stream each.

    Raises
    ------
    UnsupportedError
        If it has another kernel or start, or cuts episodes.
    """
    simulator = context.simulator or TabularSimulator()
    if simulator.dynamics is not None or simulator.restart != "initial" or simulator.step_limit is not None:
        raise UnsupportedError(f"{name}: samples come from another law: expected the problem's own simulator")
