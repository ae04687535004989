"""The objective as a function of five θ: the response by planned policies, all else in the measured problem."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.problem import PARTS, AnswerBounds, Objective, Part, split_objective
from bilevelrl.reference.separate_kernels.leader import separate_error_bound
from bilevelrl.reference.separate_kernels.model import SeparateAt, SeparateKernels
from bilevelrl.reference.tabular.follower import TabularFollower, solve_tabular
from bilevelrl.reference.tabular.split import TabularSplit

__all__ = ["SeparateSplit", "split_separate"]


@split_objective.register(SeparateKernels)
def split_separate(at: SeparateAt, objective: Objective, *, warm_start: TabularFollower | None = None) -> SeparateSplit:
    """Split the objective of a problem of separate kernels."""
    for own in (at.planned, at.measured):
        own.problem.derivatives.refuse_noise(at.theta)
    return SeparateSplit(at, solve_tabular(at.planned, warm_start=warm_start), objective)


class SeparateSplit:
    """The objective with one of its five θ moved; see `SplitObjective`."""

    parts = PARTS

    def __init__(self, at: SeparateAt, follower: TabularFollower, objective: Objective) -> None:
        self.follower, self._objective = follower, objective
        self._planned = TabularSplit(at.planned, follower, objective)
        self._measured = TabularSplit(at.measured, follower, objective)
        self.base, self.condition = self._measured.base, self._planned.condition

    def depends(self, part: Part) -> bool:
        """Whether the part can be anything but zero."""
        return (self._planned if part == "response" else self._measured).depends(part)

    def noise(self, part: Part) -> float:
        """Bound on the rounding of the values."""
        return self._measured.noise(part, self._planned.response_errors() if part == "response" else None)

    def values(self, part: Part, moved: Sequence[SeparateAt]) -> FloatArray:
        """The objective with one part moved."""
        if part != "response":
            return self._measured.values(part, [at.measured for at in moved])
        played = self._planned.responses([at.planned.tables for at in moved])
        return np.array([self._measured.earned(policy) for policy in played])

    def error_bound(self, at: SeparateAt) -> AnswerBounds:
        """What the exact derivative makes of the errors of the policy."""
        return separate_error_bound(at.problem.linearised(at.theta).at(at.theta), self.follower, self._objective)
