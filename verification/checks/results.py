"""What one check found on one scenario, and the ways in which a check ends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked_record
from bilevelrl.tasks import Scenario
from bilevelrl.tasks.scenarios import Truth
from bilevelrl.verification.checks.verdicts import Outcome, Verdict, judge_exact, unjudged

__all__ = ["CheckResult", "contract_kept", "failed_by", "not_judged", "result_of", "shown", "worst"]


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What one check found on one scenario.

    Attributes
    ----------
    check, scenario : str
        Which check, where.
    verdict : Verdict
        Passed, failed, no power, or not judged, and why.
    margin : float
        Largest |difference| / allowed: at most 1 unless the check failed.
    difference : (N,) or None
        Found minus claimed, where the check has such a thing.
    truth : Truth or None
        What the difference is from: the truth, or the mean of a right estimate on streams that are cut.
    """

    check: str
    scenario: str
    verdict: Verdict
    margin: float
    difference: FloatArray | None = None
    truth: Truth | None = None

    @property
    def failed(self) -> bool:
        """Whether the check found something wrong."""
        return self.verdict.failed


def shown(truth: Truth, known_to: FloatArray | float) -> dict[str, float]:
    """Return the norm of each part of a truth, 0 where it is not told from zero: there a check does not test it."""
    return {
        str(part): float(np.linalg.norm(value)) if (np.abs(value) > known_to).any() else 0.0
        for part, value in truth.parts.items()
    }


def result_of(
    check: str,
    on: Scenario,
    difference: FloatArray,
    allowed: FloatArray | float,
    *,
    size: float | None = None,
    truth: Truth | None = None,
) -> CheckResult:
    """Judge a difference from a truth against what is allowed, (N,) or a number; `size`: the norm of the truth."""
    size = float(np.linalg.norm(on.target_truth.value)) if size is None else size
    verdict = judge_exact(difference, tolerance=allowed, scale=size if size > 0.0 else 1.0)
    with np.errstate(over="ignore"):
        margin = float((np.abs(difference) / np.maximum(allowed, np.finfo(np.float64).tiny)).max(initial=0.0))
    return CheckResult(
        check=check, scenario=on.name, verdict=verdict, margin=margin, difference=difference, truth=truth
    )


def failed_by(check: str, where: str, reason: str) -> CheckResult:
    """Return the result of a check that fails without a number."""
    verdict = Verdict(outcome=Outcome.FAILED, detectable=0.0, reason=reason)
    return CheckResult(check=check, scenario=where, verdict=verdict, margin=np.inf)


def worst(results: Iterable[CheckResult]) -> dict[str, CheckResult]:
    """Return for each check the judged result with the largest margin.

    Examples
    --------
    >>> from bilevelrl.estimators import Claim, NaivePGD
    >>> from bilevelrl.tasks import scenario
    >>> from bilevelrl.verification import check_estimator
    >>> found = worst(check_estimator(NaivePGD(), [scenario("toll")], claim=Claim.UNBIASED))
    >>> found["bias"].failed, found["contract"].failed
    (True, False)
    """
    found: dict[str, CheckResult] = {}
    for result in results:
        judged = result.verdict.outcome not in (Outcome.MEASURED, Outcome.NOT_APPLICABLE)
        if judged and (result.check not in found or result.margin > found[result.check].margin):
            found[result.check] = result
    return found


def contract_kept(on: Scenario, what: str) -> CheckResult:
    """Return the result of a contract that was kept, and what that is."""
    verdict = Verdict(outcome=Outcome.PASSED, detectable=0.0, reason=what)
    return CheckResult(check="contract", scenario=on.name, verdict=verdict, margin=0.0)


def not_judged(check: str, on: Scenario, outcome: Outcome, reason: str) -> CheckResult:
    """Return the result of a check that was not judged, and why."""
    return CheckResult(check=check, scenario=on.name, verdict=unjudged(outcome, reason), margin=0.0)
