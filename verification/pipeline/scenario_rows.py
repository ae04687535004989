"""One estimator on scenarios: rows of a report, failures that are expected, and the likely cause of the others."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bilevelrl.estimators import Claim, Draw, Estimator, Objective
from bilevelrl.reference.errors import EstimatorError, SupportError, TooLargeError, UnknownNameError, UnsupportedError
from bilevelrl.tasks import Scenario
from bilevelrl.verification.checks.deterministic import (
    CheckResult,
    Enumerated,
    enumerate_scenario,
    failed_by,
    judge_enumerated,
)
from bilevelrl.verification.checks.verdicts import Outcome, Verdict, unjudged
from bilevelrl.verification.enumeration.contract import EstimatorFunction, estimator_name
from bilevelrl.verification.mutants.causes import Explanation
from bilevelrl.verification.pipeline.rows import EstimatorRow, exact_measures
from bilevelrl.verification.pipeline.small_problems import target_name
from bilevelrl.verification.testing.assertions import check_kind, explain_results
from bilevelrl.verification.testing.pytest_support import CHECKS

__all__ = ["rows_on_scenarios"]


def rows_on_scenarios(
    estimator: Estimator | EstimatorFunction,
    at: Sequence[Scenario],
    *,
    claim: Claim | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> tuple[list[EstimatorRow], Explanation | None]:
    """Return one row per scenario, by enumeration, and the likely cause where something is off unexpectedly.

    Parameters
    ----------
    estimator
        An `Estimator`, or a function (trajectories, context) → rows.
    at
        The scenarios.
    claim
        What a plain function claims; default: unbiased.
    expected_failures
        {check: reason}, check one of `CHECKS`, alone or with a scenario as in "bias[layered]". A failure that is
        expected and does not happen anywhere is a failure.

    Raises
    ------
    UnknownNameError
        If an expected failure names no check.

    Examples
    --------
    >>> from bilevelrl.estimators import NaivePGD
    >>> from bilevelrl.tasks import scenario
    >>> rows, cause = rows_on_scenarios(NaivePGD(), [scenario("toll")], claim=Claim.UNBIASED)
    >>> rows[0].verdict.outcome.value, cause.cause
    ('failed', 'the response part is missing')
    >>> rows, cause = rows_on_scenarios(NaivePGD(), [scenario("toll")], claim=Claim.UNBIASED,
    ...                                 expected_failures={"bias": "no response", "parts": "no response"})
    >>> rows[0].verdict.outcome.value, cause
    ('expected failure', None)
    """
    excused = dict(expected_failures or {})
    known = {*CHECKS, *(f"{check}[{entry.name}]" for check in CHECKS for entry in at)}
    for key in excused:
        if key not in known:
            raise UnknownNameError("expected_failures", key, known)
    rows: list[EstimatorRow] = []
    kept: list[CheckResult] = []
    used: set[str] = set()
    for entry in at:
        row, results = _row(estimator, entry, claim)
        failed = [result for result in results if result.failed]
        reasons = {result.check: _reason(result, excused, used) for result in failed}
        if failed and all(reason is not None for reason in reasons.values()):
            said = "; ".join(dict.fromkeys(str(reason) for reason in reasons.values()))
            row = replace(row, verdict=unjudged(Outcome.EXPECTED, f"expected: {said} ({row.verdict.reason})"))
        else:
            kept.extend(results)
        rows.append(row)
    rows.extend(_surprise(estimator, rows, key, reason) for key, reason in excused.items() if key not in used)
    return rows, explain_results(kept, at, lambda entry: entry.target_truth)


def _reason(result: CheckResult, excused: Mapping[str, str], used: set[str]) -> str | None:
    kind = check_kind(result.check)
    for key in (f"{kind}[{result.scenario}]", kind):
        if key in excused:
            used.add(key)
            return excused[key]
    return None


def _surprise(
    estimator: Estimator | EstimatorFunction, rows: Sequence[EstimatorRow], key: str, reason: str
) -> EstimatorRow:
    verdict = Verdict(
        outcome=Outcome.FAILED,
        detectable=0.0,
        reason=f"{key} was expected to fail ({reason}) and does not; remove it from expected_failures",
    )
    return replace(_described(estimator, None, None), problem=key, verdict=verdict)


def _row(
    estimator: Estimator | EstimatorFunction, on: Scenario, claim: Claim | None
) -> tuple[EstimatorRow, list[CheckResult]]:
    started = time.perf_counter()
    described = _described(estimator, on, claim)
    try:
        found = enumerate_scenario(estimator, on, claim=claim)
    except (UnsupportedError, SupportError, TooLargeError) as refused:
        return replace(described, verdict=unjudged(Outcome.NOT_APPLICABLE, str(refused))), []
    except EstimatorError as broken:
        broke = failed_by("contract", on.name, str(broken))
        return replace(described, verdict=broke.verdict), [broke]
    results = judge_enumerated(found)
    return _measured(described, found, results, time.perf_counter() - started), results


def _measured(
    described: EstimatorRow, found: Enumerated, results: Sequence[CheckResult], seconds: float
) -> EstimatorRow:
    judged = {check_kind(result.check): result.verdict for result in results}
    expected = None if found.expected is None else sum(found.expected.values(), np.zeros_like(found.bias))
    failed = [result.verdict for result in results if result.failed]
    return replace(
        described,
        **exact_measures(found.moments, found.truth.value, found.truth.parts, expected),
        seconds=seconds,
        verdict=failed[0] if failed else judged["bias"],
    )


def _described(estimator: Any, on: Scenario | None, claim: Claim | None) -> EstimatorRow:
    batched = getattr(estimator, "draw", Draw.TRAJECTORY) is Draw.BATCH
    stated = claim if claim is not None else getattr(estimator, "claim", Claim.UNBIASED)
    target = getattr(estimator, "target", Objective(horizon=None if on is None else on.target_horizon))
    return EstimatorRow(
        problem="" if on is None else on.name,
        temperature=float("nan") if on is None else on.problem.temperature,
        estimator=estimator_name(estimator),
        level="yours",
        claim=stated.name.lower(),
        draw="2 trajectories" if batched else "trajectory",
        target=target_name(target),
        method="enumeration",
        verdict=unjudged(Outcome.MEASURED, "not judged yet"),
    )
