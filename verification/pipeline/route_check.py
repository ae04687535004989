"""All exact routes side by side: do they agree within their own error bounds?"""

from __future__ import annotations

import math
import time

import numpy as np

from bilevelrl.reference import HYPERGRADIENT_ROUTES, hypergradient
from bilevelrl.reference.errors import BilevelRLError, MissingExtraError, UnsupportedError
from bilevelrl.reference.problem import INFINITE_HORIZON
from bilevelrl.tasks import Scenario
from bilevelrl.verification.checks.verdicts import Outcome, Verdict, judge_exact, unjudged
from bilevelrl.verification.pipeline.rows import RouteRow

__all__ = ["check_route"]


def check_route(route: str, on: Scenario) -> RouteRow:
    """Return one route's hypergradient on a scenario, judged against `implicit` within both error bounds.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> check_route("theorem1", scenario("layered")).verdict.outcome.value
    'passed'
    """
    problem, theta = on.problem, on.theta
    reference = on.solved(INFINITE_HORIZON)
    started = time.perf_counter()
    norm, difference, bound = math.nan, math.nan, math.inf
    try:
        found = hypergradient(problem, theta, route=route)
        bound = found.error_bound
    except (MissingExtraError, UnsupportedError) as refused:
        verdict = unjudged(Outcome.NOT_APPLICABLE, str(refused))
    except BilevelRLError as broken:
        verdict = Verdict(outcome=Outcome.FAILED, detectable=math.inf, reason=str(broken))
    else:
        off = found.value - reference.value
        norm, difference = float(np.linalg.norm(found.value)), float(np.abs(off).max())
        verdict = judge_exact(
            off, tolerance=bound + reference.error_bound, scale=float(np.linalg.norm(reference.value))
        )
    return RouteRow(
        problem=on.title,
        temperature=problem.temperature,
        route=route,
        family=HYPERGRADIENT_ROUTES[route].family,
        norm=norm,
        difference=difference,
        error_bound=bound,
        seconds=time.perf_counter() - started,
        verdict=verdict,
    )
