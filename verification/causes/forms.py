"""What forms with blanks of every kind of problem share, and what all of them read of a scenario."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Literal, TypeAlias

from bilevelrl.tasks import Scenario

__all__ = ["AtScenario", "Blanks", "Style"]

Style: TypeAlias = Literal["critic", "steps"]
"""What right is on cut streams: infinite values to the last step, or values by steps to go and complete suffixes."""


@dataclass(frozen=True, kw_only=True)
class Blanks:
    """What is written into the blanks of a form: each field is a blank, and its default is right.

    Examples
    --------
    >>> @dataclass(frozen=True, kw_only=True)
    ... class Sum(Blanks):
    ...     weight: str = "γ_L^t"
    >>> Sum().differs(), Sum(weight="1").differs()
    ({}, {'weight': '1'})
    """

    def differs(self) -> dict[str, str]:
        """{blank: what is wrong in it}."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}


@dataclass(frozen=True, kw_only=True)
class AtScenario:
    """What is read of a scenario.

    Attributes
    ----------
    on
        Where.
    """

    on: Scenario

    @cached_property
    def discounts(self) -> tuple[float, float]:
        """γ_L and γ_F."""
        return float(self.on.problem.discount_leader), float(self.on.problem.discount_follower)
