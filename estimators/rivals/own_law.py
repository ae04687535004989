"""Which samples a declared expectation is about; what rivals share that add a response to the leader's own terms."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bilevelrl.estimators.estimator import Context
from bilevelrl.estimators.expectations.along_trajectories import ExpectedAlongTrajectories
from bilevelrl.estimators.sampling.tabular import TabularSimulator
from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, UnsupportedError, refusal
from bilevelrl.reference.problem import Part

__all__ = ["WithResponse", "own_law"]


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


@dataclass(frozen=True, kw_only=True)
class WithResponse(ExpectedAlongTrajectories):
    """The leader's own terms and a response that is biased by design: one row per stream, no geometric times."""

    kinds: ClassVar[tuple[type, ...]] = (ConfigurableMDP,)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._declare(biased=True)
        for option, only in (("stopping", None), ("normalisation", "streams"), ("leader_average", "trajectory")):
            if (found := getattr(self, option)) != only:
                raise InvalidInputError(refusal(f"{self.name}: {option}", found, repr(only), "use BCHG"))

    @checked
    def expectation(self, context: Context, *, horizon: int) -> Mapping[Part, FloatArray]:
        """Return the exact expectation for streams of `horizon` steps.

        Raises
        ------
        UnsupportedError
            If samples come from another law than the problem's.
        """
        own_law(self.name, context)
        parts = dict(super().expectation(context, horizon=horizon))
        parts["response"] = self._expected_response(context, horizon)
        return parts

    @abstractmethod
    def _expected_response(self, context: Context, horizon: int) -> FloatArray:
        """Return what is added, (N,)."""
        ...
