"""What closed-form scenarios share: elementary functions in plain floating point, and how a truth by hand is stored."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.problem import Objective, Part
from bilevelrl.tasks.scenarios.scenario import Provenance, Scenario, Truth

__all__ = ["closed_form", "closed_form_scenario", "geometric_sum", "logistic", "small_problem"]

# Each closed form takes less than this many roundings, none of them ill conditioned.
_ROUNDINGS = 64


def logistic(x: float) -> float:
    """Return σ(x) = 1/(1 + exp(-x)).

    Examples
    --------
    >>> logistic(0.0)
    0.5
    """
    return 1.0 / (1.0 + math.exp(-x))


def geometric_sum(discount: float, steps: int) -> float:
    """Return 1 + γ + … + γ^(steps-1).

    Examples
    --------
    >>> geometric_sum(0.5, 3)
    1.75
    """
    return sum(discount**t for t in range(steps))


def closed_form(objective: float, parts: Mapping[Part, Iterable[float]]) -> Truth:
    """Return a truth by hand, with a bound for the rounding of its formula.

    Examples
    --------
    >>> closed_form(1.0, {"direct": [2.0]}).error_bound < 1e-13
    True
    """
    listed = {part: list(entries) for part, entries in parts.items()}
    size = max([abs(objective), *(abs(entry) for entries in listed.values() for entry in entries)])
    return Truth.of(objective=objective, parts=listed, error_bound=_ROUNDINGS * float(np.finfo(np.float64).eps) * size)


def closed_form_scenario(
    name: str,
    summary: str,
    problem: ConfigurableMDP,
    theta: Iterable[float],
    *,
    truth: Truth,
    truncated: Truth | None = None,
    tags: str,
    horizon: int,
) -> Scenario:
    """Return a scenario with a closed form; `truncated` left out says that every path ends."""
    ends = truncated is None
    return Scenario(
        name=name,
        summary=summary,
        problem=problem,
        theta=np.array(list(theta), dtype=np.float64),
        truths={Objective(): truth, Objective(horizon): truth if truncated is None else truncated},
        provenance=Provenance(source="closed form"),
        tags=frozenset(["textbook", "ends" if ends else "goes_on", *tags.split()]),
        horizon=horizon,
    )


def small_problem(
    tables: Any, name: str, parameters: int, leader: float, follower: float, beta: float
) -> ConfigurableMDP:
    """Return the problem of a table function."""
    return ConfigurableMDP(
        tables=tables,
        discount_leader=leader,
        discount_follower=follower,
        temperature=beta,
        theta_shape=(parameters,),
        name=name,
    )
