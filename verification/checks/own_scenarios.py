"""Scenarios of the user's own, held against their problems before anything is held against them.

What the package stores was agreed on by four routes. A scenario made elsewhere may carry the truth of another θ,
problem or horizon, or promise that paths end which do not; every right estimator would then be called wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from bilevelrl.reference import HYPERGRADIENT_ROUTES, ConfigurableMDP, Problem, hypergradient
from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.reference.problem import Objective
from bilevelrl.tasks import Scenario, scenarios
from bilevelrl.tasks.scenarios import ROUNDING, Structure, Truth, find_scenario

__all__ = ["ROUTES", "chosen_scenarios", "default_scenarios", "hold_to_its_problem"]

ROUTES = ("theorem1", "theorem2", "finite_difference", "implicit")
"""Recompute the truth, the first that serves the kind; all but the last share no Bellman code with `implicit`, which
makes critics and tolerances."""

_KNOWN = 1e-12  # of the largest part: roundings of a truth by hand


@lru_cache(maxsize=512)
def hold_to_its_problem(on: Scenario) -> Scenario:
    """Return a scenario whose stored truths are those of its problem, recomputed unless it is the package's own.

    Raises
    ------
    InvalidInputError
        If a stored truth is another, or the tag "ends" stands on paths that go on.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from bilevelrl.tasks import scenario
    >>> stale = replace(scenario("toll"), theta=np.array([0.2]))
    >>> try:
    ...     hold_to_its_problem(stale)
    ... except InvalidInputError as error:
    ...     print(str(error).split(":")[0], "…", str(error).split("; ")[-1])
    toll … leave it out, or recompute it by `hypergradient` at this θ
    """
    if on in scenarios(kind=type(on.problem)):
        return on
    structure = Structure.of(on.problem, on.theta)
    left = 1.0 if structure is None else structure.left(on.horizon)
    if on.ends and left > ROUNDING:
        raise InvalidInputError(
            refusal(f"{on.name}: tags", "ends", f"that no path goes on after {on.horizon} steps", "leave the tag out")
            + f" (the probability is {left:.2g})"
        )
    for objective, truth in on.truths.items():
        _compare(on, objective, truth)
    return on


def chosen_scenarios(
    on: Scenario | str | Iterable[Scenario | str] | None,
    *,
    problem: Problem | None = None,
    theta: object = None,
    horizon: int | None = None,
    argument: str = "on",
) -> tuple[Scenario, ...] | None:
    """Return what is to be checked: scenarios, or the one of a problem at θ; None where neither is given.

    Raises
    ------
    InvalidInputError
        If both are given, θ or a horizon without a problem, two scenarios have one name, or a scenario's truth is not
        that of its problem.
    """
    if problem is not None:
        if on is not None:
            raise InvalidInputError(f"{argument} and problem: expected one of them; a problem is a scenario of its own")
        return (Scenario.of(problem, theta, horizon=horizon),)
    for name, value in (("theta", theta), ("horizon", horizon)):
        if value is not None:
            raise InvalidInputError(
                refusal(name, value, "a problem that it belongs to", "pass problem=..., or leave it out")
            )
    if on is None:
        return None
    listed = [on] if isinstance(on, (Scenario, str)) else list(on)
    found = tuple(
        find_scenario(argument, entry) if isinstance(entry, str) else hold_to_its_problem(entry) for entry in listed
    )
    names = [entry.name for entry in found]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        remedy = "pass each once, or `Scenario.of(..., name=...)`"
        raise InvalidInputError(refusal(f"{argument}: names", twice, "a name of its own for each scenario", remedy))
    return found


def _compare(on: Scenario, objective: Objective, stored: Truth) -> None:
    route = next(name for name in ROUTES if set(HYPERGRADIENT_ROUTES[name].kinds) & set(type(on.problem).__mro__))
    horizon, discounted = objective.horizon, objective.discounted
    found = hypergradient(on.problem, on.theta, route=route, horizon=horizon, discounted=discounted)
    size = max(1e-300, *(float(np.abs(part).max()) for part in found.parts.values()))
    # Rounding stands beside both error bounds, for truths by hand whose bound counts few roundings.
    allowed = stored.error_bound + found.error_bound + _KNOWN * size
    zero = np.zeros(on.theta.size)
    names = dict.fromkeys([*found.parts, *stored.parts])
    off = {part: float(np.abs(stored.parts.get(part, zero) - found.parts.get(part, zero)).max()) for part in names}
    worst = max(off, key=lambda part: off[part])
    if not off[worst] <= allowed:
        kind = "truth" if horizon is None else "truncated"
        raise InvalidInputError(
            f"{on.name}: {kind}.parts[{worst!r}]: expected that of the problem at theta={on.theta.tolist()} to "
            f"{allowed:.1g}, off by {off[worst]:.3g}; leave it out, or recompute it by `hypergradient` at this θ"
        )


def default_scenarios(kind: type = ConfigurableMDP) -> tuple[Scenario, ...]:
    """Return the scenarios of a kind whose paths all end, and those of which it is known what is cut.

    Of linear-quadratic problems, whose paths never end, those whose means are quadratures.

    Examples
    --------
    >>> [entry.name for entry in default_scenarios() if not entry.ends]
    ['cut']
    """
    return tuple(entry for entry in scenarios(kind=kind) if entry.tags & {"ends", "cut", "integrable"})
