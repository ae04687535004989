"""All exact routes side by side: do they agree within their own error bounds?"""

from __future__ import annotations

import math
import time

import numpy as np

from bilevelrl.reference import HYPERGRADIENT_ROUTES, hypergradient
from bilevelrl.reference.errors import BilevelRLError, MissingExtraError, UnsupportedError
from bilevelrl.verification.checks.verdicts import Outcome, Verdict, judge_exact, unjudged
from bilevelrl.verification.pipeline.rows import RouteRow
from bilevelrl.verification.pipeline.sampling_cases import SamplingCase

__all__ = ["check_route"]


def check_route(route: str, case: SamplingCase, seed: int) -> RouteRow:
    """Return one route's hypergradient on a case, judged against `implicit` within both error bounds.

    Examples
    --------
    >>> from bilevelrl.verification.pipeline.sampling_cases import four_rooms_case
    >>> check_route("theorem1", four_rooms_case(0.003), seed=0).verdict.outcome.value
    'passed'
    """
    problem, theta = case.make_problem(), case.make_theta(seed)
    reference = hypergradient(problem, theta, route="implicit")
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
        problem=case.title,
        temperature=problem.temperature,
        route=route,
        family=HYPERGRADIENT_ROUTES[route].family,
        norm=norm,
        difference=difference,
        error_bound=bound,
        seconds=time.perf_counter() - started,
        verdict=verdict,
    )
