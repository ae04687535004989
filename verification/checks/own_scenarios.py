"""Scenarios of the user's own, held against their problems before anything is held against them.

What the package stores was agreed on by four routes. A scenario made elsewhere may carry the truth of another θ,
problem or horizon, or promise that paths end which do not; every right estimator would then be called wrong.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from bilevelrl.reference import hypergradient
from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.reference.tabular import to_dense
from bilevelrl.tasks import Scenario, scenarios
from bilevelrl.tasks.scenarios import Truth

__all__ = ["ROUTE", "hold_to_its_problem"]

ROUTE = "theorem1"
"""Recomputes the truth: it shares no Bellman code with the route that makes critics and tolerances."""

# Of the objective and the largest part; beside both error bounds, for truths by hand whose bound counts few roundings.
_ROUNDING = 1e-12


@lru_cache(maxsize=512)
def hold_to_its_problem(on: Scenario) -> Scenario:
    """Return a scenario whose truth is that of its problem, recomputed unless it is the package's own.

    Raises
    ------
    InvalidInputError
        If the stored truth is another, or the tag "ends" stands on paths that go on.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from bilevelrl.tasks import scenario
    >>> stale = replace(scenario("toll"), theta=np.array([0.2]))
    >>> try:
    ...     hold_to_its_problem(stale)
    ... except InvalidInputError as error:
    ...     print(str(error).split(":")[0], "…", str(error).split("; ")[-1])
    toll … recompute it by `hypergradient` at this θ
    """
    if on in scenarios():
        return on
    left = _going_on(on)
    if on.ends and left > _ROUNDING:
        raise InvalidInputError(
            refusal(f"{on.name}: tags", "ends", f"that no path goes on after {on.horizon} steps", "leave the tag out")
            + f" (the probability is {left:.2g})"
        )
    _compare(on, "truth", on.truth, None)
    if not on.ends:
        _compare(on, "truncated", on.truncated, on.horizon)
    return on


def _compare(on: Scenario, kind: str, stored: Truth, horizon: int | None) -> None:
    found = hypergradient(on.problem, on.theta, route=ROUTE, horizon=horizon)
    size = max(1e-300, *(float(np.abs(part).max()) for part in found.parts.values()))
    allowed = stored.error_bound + found.error_bound + _ROUNDING * size
    off = {part: float(np.abs(stored.parts[part] - value).max()) for part, value in found.parts.items()}
    worst = max(off, key=lambda part: off[part])
    if off[worst] > allowed:
        raise InvalidInputError(
            f"{on.name}: {kind}.parts[{worst!r}]: expected that of the problem at theta={on.theta.tolist()} to "
            f"{allowed:.1g}, off by {off[worst]:.3g}; recompute it by `hypergradient` at this θ"
        )


def _going_on(on: Scenario) -> float:
    """The probability that a path goes on after the horizon, where the follower tries every action alike."""
    tables = on.problem.tables_at(on.theta)
    chain = np.asarray(to_dense(tables.transition)).mean(axis=1)
    law = np.asarray(tables.initial, dtype=np.float64)
    for _ in range(on.horizon):
        law = law @ chain
    return float(law.sum())
