"""One estimator on scenarios: rows of a report, failures that are expected, and the likely cause of the others."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from bilevelrl.estimators import ESTIMATORS, Claim, Estimator
from bilevelrl.reference.errors import (
    BilevelRLError,
    EstimatorError,
    SupportError,
    TooLargeError,
    UnknownNameError,
    UnsupportedError,
)
from bilevelrl.tasks import Scenario
from bilevelrl.tasks.scenarios import Truth
from bilevelrl.verification.causes.explain import EXPLAIN_SECONDS
from bilevelrl.verification.causes.explanation import Explanation
from bilevelrl.verification.checks.deterministic import MAX_MULTISETS, enumerate_scenario
from bilevelrl.verification.checks.enumerated import judge_enumerated
from bilevelrl.verification.checks.once import evaluated_once
from bilevelrl.verification.checks.results import CheckResult, failed_by, shown
from bilevelrl.verification.checks.verdicts import Outcome, Verdict, unjudged
from bilevelrl.verification.enumeration.contract import EstimatorFunction, estimator_name
from bilevelrl.verification.enumeration.limits import TookTooLongError, within
from bilevelrl.verification.pipeline.given import GivenEstimator
from bilevelrl.verification.pipeline.rows import EstimatorRow, described, exact_measures
from bilevelrl.verification.pipeline.sampled import sampled_row
from bilevelrl.verification.pipeline.sampling import SamplingPlan
from bilevelrl.verification.processes.jobs import Progress
from bilevelrl.verification.statistics.designs import MeanTest
from bilevelrl.verification.testing.failures import check_kind, explain_results
from bilevelrl.verification.testing.pytest_support import CHECKS

__all__ = ["check_registered", "checked_row", "enumerated_row", "rows_on_scenarios"]

TIME_LIMIT = 60.0
"""Seconds that an estimator may take on a scenario."""


PAIRS = 20_000
"""Batches of two that are listed where a scenario has few paths on purpose."""


def rows_on_scenarios(
    estimator: Estimator | EstimatorFunction,
    at: Sequence[Scenario],
    *,
    claim: Claim | None = None,
    expected_failures: Mapping[str, str] | None = None,
    plan: SamplingPlan | None = None,
    time_limit: float = TIME_LIMIT,
    accuracy: float = 0.0,
    explain_seconds: float = EXPLAIN_SECONDS,
    progress: Progress | None = None,
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
    plan
        Of the draws on scenarios that are too large to list.
    time_limit
        Seconds that the estimator may take on each.
    accuracy
        Error relative to the largest part of the truth that is allowed beside rounding.
    explain_seconds
        Seconds that the search for the cause may take.
    progress
        Told after each scenario, and of that search.

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
    for done, entry in enumerate(at, 1):
        with evaluated_once(entry):
            row, results = checked_row(
                estimator, entry, claim=claim, plan=plan, time_limit=time_limit, accuracy=accuracy
            )
        failed = [result for result in results if result.failed]
        reasons = {result.check: _reason(result, excused, used) for result in failed}
        if failed and all(reason is not None for reason in reasons.values()):
            said = "; ".join(dict.fromkeys(str(reason) for reason in reasons.values()))
            row = replace(row, verdict=unjudged(Outcome.EXPECTED, f"expected: {said} ({row.verdict.reason})"))
        else:
            kept.extend(results)
        rows.append(row)
        if progress is not None:
            progress(done, len(at), f"{row.estimator} on {entry.name}")
    rows.extend(_surprise(estimator, rows, key, reason) for key, reason in excused.items() if key not in used)
    return rows, explain_results(kept, at, seconds=explain_seconds, progress=progress)


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


def checked_row(
    estimator: Estimator | EstimatorFunction,
    on: Scenario,
    *,
    claim: Claim | None = None,
    plan: SamplingPlan | None = None,
    time_limit: float = TIME_LIMIT,
    accuracy: float = 0.0,
) -> tuple[EstimatorRow, list[CheckResult]]:
    """Return an estimator's row on a scenario, exact where its paths can be listed or integrated over, else by draws.

    Whatever the estimator does (raise, hang, print, end the program, change its inputs) is a row with a reason.
    """
    on.solved(getattr(estimator, "target", on.target))  # what is wrong with the problem is not the estimator's failure
    try:
        with within(time_limit, estimator_name(estimator)):
            if "large" not in on.tags:
                return enumerated_row(estimator, on, claim=claim, accuracy=accuracy)
            plan = replace(
                SamplingPlan(seed=0, step_budget=600_000) if plan is None else plan, horizon=on.horizon, checks=1
            )
            made = estimator if isinstance(estimator, Estimator) else GivenEstimator(estimator, on, claim)
            row, test = sampled_row(made, on, plan, accuracy=accuracy)
            return row, _sampled_results(row, test, on, on.truth_of(made.target))
    except TookTooLongError as slow:
        return replace(described(estimator, on, claim=claim), verdict=_slow(slow)), []
    except BilevelRLError as broken:
        broke = failed_by("contract", on.name, str(broken))
        return replace(described(estimator, on, claim=claim), check="contract", verdict=broke.verdict), [broke]


def _slow(limit: TookTooLongError) -> Verdict:
    """A right estimator may be slow, and so may the truth: nothing was found out."""
    return unjudged(Outcome.NOT_APPLICABLE, f"not judged: {limit}")


def enumerated_row(
    estimator: Estimator | EstimatorFunction,
    on: Scenario,
    *,
    claim: Claim | None = None,
    level: str = "yours",
    accuracy: float = 0.0,
) -> tuple[EstimatorRow, list[CheckResult]]:
    """Return exact bias and standard deviation on a scenario, judged against what is claimed, and all its checks.

    "Not applicable" where the estimator says that it does not apply, "failed" where it breaks its contract. Where
    streams are cut that the infinite horizon is claimed of, truncation is told first and taken off.
    """
    started = time.perf_counter()
    row = described(estimator, on, claim=claim, level=level)
    try:
        most = PAIRS if "pairs" in on.tags else MAX_MULTISETS
        found = enumerate_scenario(estimator, on, claim=claim, max_multisets=most, accuracy=accuracy)
    except (UnsupportedError, SupportError, TooLargeError) as refused:
        return replace(row, verdict=unjudged(Outcome.NOT_APPLICABLE, str(refused))), []
    except TookTooLongError as slow:
        return replace(row, verdict=_slow(slow)), []
    except EstimatorError as broken:
        broke = failed_by("contract", on.name, str(broken))
        return replace(row, check="contract", verdict=broke.verdict), [broke]
    expected = None if found.expected is None else sum(found.expected.values(), np.zeros_like(found.bias))
    results = judge_enumerated(found)
    judged = {check_kind(result.check): result.verdict for result in results}
    failed = [result for result in results if result.failed]
    held = next((result.truth for result in results if result.truth is not None), None)
    measured = replace(
        row,
        **exact_measures(found.moments, found.truth.value, found.truth.parts, expected),
        tested={} if held is None else shown(held, found.tolerance),
        seconds=time.perf_counter() - started,
        check=check_kind(failed[0].check) if failed else "bias",
        verdict=failed[0].verdict if failed else judged["bias"],
    )
    return measured, results


def _sampled_results(row: EstimatorRow, test: MeanTest | None, on: Scenario, truth: Truth) -> list[CheckResult]:
    """What draws say of the bias at each parameter, as far as it is known; nothing unless they found one."""
    if test is None or not row.verdict.failed:
        return []
    difference, known_to = test.bias[-on.theta.size :], float(test.half_width[-on.theta.size :].max())
    margin = 10.0 * float(np.abs(difference).max()) / max(known_to, np.finfo(np.float64).tiny)
    # A copy of the truth: planted mistakes, which are enumerated, are not compared with where nothing can be.
    copied, verdict = replace(truth), row.verdict
    found = CheckResult(
        check="bias", scenario=on.name, verdict=verdict, margin=margin, difference=difference, truth=copied
    )
    return [found]


def check_registered(name: str, on: Scenario) -> EstimatorRow:
    """Enumerate a registered estimator, made for the truth that this scenario's trajectories can see."""
    entry = ESTIMATORS[name]
    return replace(enumerated_row(entry.make(on.target), on, level=entry.level)[0], estimator=name)
