"""What forms with blanks of every kind of problem share, and what all of them read of a scenario."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.tasks import Scenario

__all__ = ["ALONE", "AtScenario", "Blanks", "Style", "entry_of"]

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


ALONE = " alone at "
"""In the name of an entry before a step or a lag: all other numbers of the entry are 0."""


def entry_of(entries: Mapping[str, Callable[[Any], FloatArray]], name: str, model: Any) -> FloatArray:
    """Return the numbers of an entry, (T,) by step or (T, T) by the steps of a suffix, or those of one step or lag.

    Examples
    --------
    >>> entries = {"γ_L^t": lambda model: 0.5 ** np.arange(3.0)}
    >>> entry_of(entries, "γ_L^t alone at 1", None), entry_of(entries, "γ_L^t alone at -1", None)
    (array([0. , 0.5, 0. ]), array([0.  , 0.  , 0.25]))
    """
    entry, alone, place = name.partition(ALONE)
    numbers = entries[entry](model)
    if not alone:
        return numbers
    steps, wanted = np.arange(len(numbers)), int(place)
    if numbers.ndim == 2:
        return np.where(steps[None, :] - steps[:, None] == wanted, numbers, 0.0)
    return np.where(steps == (wanted if wanted >= 0 else len(numbers) + wanted), numbers, 0.0)
