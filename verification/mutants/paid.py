"""The mixed derivative of the follower's own value with one slip each: as a gradient function, and from samples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bilevelrl.estimators import Context, Trajectories
from bilevelrl.estimators.methods import NudgedFollowers
from bilevelrl.reference import ConfigurableMDP, solve_follower
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.nudged import PaidFollower
from bilevelrl.reference.problem import Objective, Part, nudged_slopes

__all__ = ["PAID_SLIPS", "PaidFormula", "SharedNumbers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidFormula:
    """∇J by a follower that is paid; right as it stands, wrong with a switch.

    Attributes
    ----------
    name : str
        Whose.
    constant : bool
        The pay is w at every step in place of w (γ_L/γ_F)^t.
    one_sided : bool
        The difference quotient of a follower that is paid β and one that is not.
    forgets_temperature : bool
        The response to w is read as that to w/β.
    forgets_values : bool
        V ∇P is left out of what θ says of the paid follower's value.
    """

    name: str = "paid formula"
    constant: bool = False
    one_sided: bool = False
    forgets_temperature: bool = False
    forgets_values: bool = False

    def __call__(self, problem: ConfigurableMDP, theta: FloatArray) -> dict[Part, FloatArray]:
        """Return the parts at θ."""
        if self.constant:
            problem = replace(problem, discount_leader=problem.discount_follower)
        at = problem.at(theta)
        if self.one_sided and problem.discount_leader <= problem.discount_follower:  # pay that grows is refused
            return PaidFollower(at, Objective(), solve_follower(problem, theta)).difference(problem.temperature, 0.0)
        entries = {part: dict(slopes) for part, slopes in nudged_slopes(at, Objective()).cotangents.items()}
        if self.forgets_values:
            entries["response"].pop("transition", None)
        parts = {part: at.pullback(slopes) for part, slopes in entries.items()}
        if self.forgets_temperature:
            parts["response"] = problem.temperature * parts["response"]
        return {part: np.asarray(value) for part, value in parts.items()}


PAID_SLIPS: tuple[tuple[str, str, PaidFormula], ...] = (
    ("constant pay", "w r_L for w (γ_L/γ_F)^t r_L", PaidFormula(name="constant pay", constant=True)),
    ("one side for two", "a penalty's quotient over w = β", PaidFormula(name="one side for two", one_sided=True)),
    ("w for w over β", "1 for 1/β", PaidFormula(name="w for w over β", forgets_temperature=True)),
    ("paid values left out", "V_w ∇P missing", PaidFormula(name="paid values left out", forgets_values=True)),
)
"""(name, what is wrong, the mutant)."""


@dataclass(frozen=True, kw_only=True)
class SharedNumbers(NudgedFollowers):
    """Nudged followers that meet the same random numbers and declare that they share nothing; no mean shows it."""

    def contributions(self, trajectories: Trajectories, context: Context) -> Any:
        """Return those of followers with common numbers."""
        common = NudgedFollowers(pay=self.pay, sides=self.sides, numbers="common", unpaid=self.unpaid)
        return common.contributions(trajectories, context)
