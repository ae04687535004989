"""One estimator on scenarios: rows of a report, failures that are expected, and the likely cause of the others."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from bilevelrl.estimators import ESTIMATORS, Claim, Estimator
from bilevelrl.reference.errors import EstimatorError, SupportError, TooLargeError, UnknownNameError, UnsupportedError
from bilevelrl.tasks import Scenario
from bilevelrl.verification.checks.deterministic import (
    CheckResult,
    enumerate_scenario,
    failed_by,
    judge_enumerated,
)
from bilevelrl.verification.checks.verdicts import Outcome, Verdict, unjudged
from bilevelrl.verification.enumeration.contract import EstimatorFunction
from bilevelrl.verification.mutants.causes import Explanation
from bilevelrl.verification.pipeline.rows import EstimatorRow, described, exact_measures
from bilevelrl.verification.testing.assertions import check_kind, explain_results
from bilevelrl.verification.testing.pytest_support import CHECKS

__all__ = ["check_registered", "enumerated_row", "rows_on_scenarios"]

PAIRS = 20_000
"""Batches of two that are listed where a scenario has few paths on purpose."""


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
        row, results = enumerated_row(estimator, entry, claim=claim)
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
    return replace(described(estimator, None), problem=key, verdict=verdict)


def enumerated_row(
    estimator: Estimator | EstimatorFunction, on: Scenario, *, claim: Claim | None = None, level: str = "yours"
) -> tuple[EstimatorRow, list[CheckResult]]:
    """Return exact bias and standard deviation on a scenario, judged against what is claimed, and all its checks.

    "Not applicable" where the estimator says that it does not apply, "failed" where it breaks its contract.
    """
    started = time.perf_counter()
    row = described(estimator, on, claim=claim, level=level)
    try:
        found = enumerate_scenario(
            estimator, on, claim=claim, **({"max_multisets": PAIRS} if "pairs" in on.tags else {})
        )
    except (UnsupportedError, SupportError, TooLargeError) as refused:
        return replace(row, verdict=unjudged(Outcome.NOT_APPLICABLE, str(refused))), []
    except EstimatorError as broken:
        broke = failed_by("contract", on.name, str(broken))
        return replace(row, verdict=broke.verdict), [broke]
    results = judge_enumerated(found)
    expected = None if found.expected is None else sum(found.expected.values(), np.zeros_like(found.bias))
    judged = {check_kind(result.check): result.verdict for result in results}
    failed = [result.verdict for result in results if result.failed]
    measured = replace(
        row,
        **exact_measures(found.moments, found.truth.value, found.truth.parts, expected),
        seconds=time.perf_counter() - started,
        verdict=failed[0] if failed else judged["bias"],
    )
    return measured, results


def check_registered(name: str, on: Scenario) -> EstimatorRow:
    """Enumerate a registered estimator, made for the truth that this scenario's trajectories can see."""
    entry = ESTIMATORS[name]
    return replace(enumerated_row(entry.make(on.target), on, level=entry.level)[0], estimator=name)
