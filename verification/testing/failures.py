"""Checks that failed: the error that says so, and the known mistake that would explain them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import BilevelRLError
from bilevelrl.tasks import Scenario
from bilevelrl.verification.causes.explain import EXPLAIN_SECONDS, explain
from bilevelrl.verification.causes.explanation import Evidence, Explanation
from bilevelrl.verification.checks.results import CheckResult
from bilevelrl.verification.processes.jobs import Progress

__all__ = ["CheckFailedError", "check_kind", "explain_results"]


class CheckFailedError(BilevelRLError, AssertionError):
    """A check found an estimator or a gradient wrong, or could not tell.

    Attributes
    ----------
    results : tuple of CheckResult
        What was found, where it was found deterministically.
    explanation : Explanation or None
        The nearest known mistake.
    """

    @checked
    def __init__(
        self, message: str, *, results: Sequence[CheckResult] = (), explanation: Explanation | None = None
    ) -> None:
        super().__init__(message)
        self.results = tuple(results)
        self.explanation = explanation


def check_kind(check: str) -> str:
    """Return the kind of a check: what stands before the comma that says under which circumstances.

    Examples
    --------
    >>> check_kind("bias, truncated"), check_kind("parts")
    ('bias', 'parts')
    """
    return check.partition(",")[0]


def explain_results(
    results: Iterable[CheckResult],
    at: Sequence[Scenario],
    *,
    seconds: float = EXPLAIN_SECONDS,
    progress: Progress | None = None,
) -> Explanation | None:
    """Return the cause of what checks of one estimator found, or None where nothing is off.

    Parameters
    ----------
    results
        Of `check_estimator` or `check_gradient`.
    at
        The scenarios.
    seconds, progress
        As in `explain`.
    """
    by_name = {entry.name: entry for entry in at}
    seen, off = [], False
    for result in results:
        if (
            check_kind(result.check) not in ("bias", "truth")
            or result.difference is None
            or result.truth is None
            or result.scenario not in by_name
        ):
            continue
        on = by_name[result.scenario]
        # A difference that failed is known to what was allowed; one that passed is known to be no larger than it is.
        largest = float(np.abs(result.difference).max())
        if largest > 1e150:  # squares overflow, and no known mistake is so large
            continue
        known_to = 10.0 * largest / result.margin if result.failed else 2.0 * largest + 1e-12
        slack = np.full(on.theta.size, known_to)
        seen.append(Evidence(scenario=on, truth=result.truth, difference=result.difference, uncertainty=slack))
        off |= result.failed
    return explain(seen, seconds=seconds, progress=progress) if off else None
