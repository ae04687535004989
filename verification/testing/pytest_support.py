"""One pytest case per estimator, check and scenario, in the manner of scikit-learn's `parametrize_with_checks`.

    from bilevelrl.verification.testing.pytest_support import parametrize_with_checks

    @parametrize_with_checks([my_estimator])
    def test_estimator(estimator, check):
        check(estimator)

Needs pytest, which the package itself does not. The plug-in in the folder `plugin` says at the end of a run how many
checks each estimator passed, of how many, and what bias would have been seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

from bilevelrl.estimators import Claim
from bilevelrl.reference import Problem
from bilevelrl.reference.doors import Horizon, NonNegative, as_is, checked
from bilevelrl.reference.errors import InvalidInputError, MissingExtraError, UnknownNameError, refusal
from bilevelrl.tasks import Scenario
from bilevelrl.verification.checks.deterministic import check_estimator
from bilevelrl.verification.checks.identity import Identity
from bilevelrl.verification.checks.own_scenarios import chosen_scenarios, default_scenarios
from bilevelrl.verification.checks.results import CheckResult
from bilevelrl.verification.checks.verdicts import Outcome
from bilevelrl.verification.enumeration.contract import estimator_name
from bilevelrl.verification.testing.failures import CheckFailedError, check_kind, explain_results
from bilevelrl.verification.testing.records import note

if TYPE_CHECKING:
    import pytest

__all__ = ["CHECKS", "ScenarioCheck", "estimator_checks", "parametrize_with_checks"]

CHECKS: Mapping[str, str] = {
    "contract": "rows per draw, finite, repeatable, inputs unchanged, no hidden randomness",
    "bias": "the exact mean is what the estimator claims",
    "parts": "so is the mean of each part, where parts are told",
}
"""Every check, and what it holds an estimator to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioCheck:
    """One check on one scenario: call it with an estimator.

    Attributes
    ----------
    name : str
        Of `CHECKS`.
    scenario : Scenario
        Where.
    claim : Claim or None
        What a plain function claims; None: unbiased.
    accuracy : float
        Error relative to the largest part of the truth that is allowed beside rounding, that of the rows' dtype.

    Examples
    --------
    >>> from bilevelrl.estimators import BCHG
    >>> from bilevelrl.tasks import scenario
    >>> ScenarioCheck(name="bias", scenario=scenario("toll"))(BCHG())
    """

    name: str
    scenario: Scenario
    claim: Claim | None = None
    accuracy: float = 0.0

    def __call__(self, estimator: Any) -> None:
        """Run it.

        Raises
        ------
        CheckFailedError
            If the estimator fails it, with the likely cause, or the check has no power.
        """
        results = _results(Identity(estimator), self.scenario, self.claim, self.accuracy)
        own = [result for result in results if check_kind(result.check) == self.name]
        note(estimator, estimator_name(estimator), [(self.name, one.scenario, one.verdict) for one in own])
        for result in results:
            if check_kind(result.check) == self.name and result.failed:
                found = explain_results(results, [self.scenario])
                hint = f"\n  {found}" if found is not None else ""
                where = f"{estimator_name(estimator)} on {self.scenario.name}"
                raise CheckFailedError(f"{where}: {result.verdict.reason}{hint}", results=results, explanation=found)
            if check_kind(result.check) == self.name and result.verdict.outcome is Outcome.NO_POWER:
                where = f"{estimator_name(estimator)} on {self.scenario.name}"
                raise CheckFailedError(f"{where}: could not tell: {result.verdict.reason}", results=results)

    def judges(self, estimator: Any) -> bool:
        """Whether it can say anything of the estimator; a check that cannot is to be skipped."""
        results = _results(Identity(estimator), self.scenario, self.claim, self.accuracy)
        return any(
            check_kind(r.check) == self.name and r.verdict.outcome in (Outcome.PASSED, Outcome.FAILED) for r in results
        )

    def __str__(self) -> str:
        """As in a test's id."""
        return f"{self.name}[{self.scenario.name}]"


@checked
def estimator_checks(
    on: Iterable[Scenario] | None = None,
    *,
    problem: Annotated[Problem | None, as_is] = None,
    theta: Any = None,
    horizon: Horizon = None,
    claim: Claim | None = None,
    accuracy: NonNegative = 0.0,
    names: Sequence[str] = tuple(CHECKS),
) -> list[ScenarioCheck]:
    """Return every check on every scenario, or on a problem of your own at θ; default: scenarios whose paths end.

    Raises
    ------
    UnknownNameError
        If a check does not exist.

    Examples
    --------
    >>> from bilevelrl.tasks import scenarios
    >>> [str(check) for check in estimator_checks(scenarios(tags=["envelope", "textbook"]))]
    ['contract[envelope bandit]', 'bias[envelope bandit]', 'parts[envelope bandit]']
    """
    for name in names:
        if name not in CHECKS:
            raise UnknownNameError("names", name, CHECKS)
    asked = chosen_scenarios(on, problem=problem, theta=theta, horizon=horizon)
    at = default_scenarios() if asked is None else asked
    return [ScenarioCheck(name=name, scenario=entry, claim=claim, accuracy=accuracy) for entry in at for name in names]


@checked
def parametrize_with_checks(
    estimators: Sequence[Any],
    *,
    scenarios: Iterable[Scenario] | None = None,
    problem: Annotated[Problem | None, as_is] = None,
    theta: Any = None,
    horizon: Horizon = None,
    claim: Claim | None = None,
    accuracy: NonNegative = 0.0,
    expected_failures: Mapping[str, str] | Callable[[Any], Mapping[str, str]] | None = None,
) -> pytest.MarkDecorator:
    """Return a pytest decorator for a test with arguments `estimator` and `check`.

    Parameters
    ----------
    estimators
        Estimators, or functions (trajectories, context) → rows.
    scenarios
        Default: those whose paths end.
    problem, theta, horizon
        Instead: your own problem, as in `verify`.
    claim
        What plain functions claim.
    accuracy
        Error relative to the largest part of the truth that is allowed beside rounding, that of the rows' dtype.
    expected_failures
        {"bias[layered]": reason} fails the test if that check passes; {"bias": reason} allows the check to fail on any
        scenario. Or a function estimator → such a mapping.

    Raises
    ------
    MissingExtraError
        If pytest is not installed.
    UnknownNameError
        If an expected failure names no check.

    Examples
    --------
    >>> from bilevelrl.estimators import NaivePGD
    >>> mark = parametrize_with_checks([NaivePGD()], claim=Claim.UNBIASED,
    ...                                expected_failures={"bias[toll]": "the follower's response is left out"})
    >>> mark.name
    'parametrize'
    """
    try:
        import pytest
    except ImportError:
        raise MissingExtraError("parametrize_with_checks", "pytest", "dev") from None
    checks = estimator_checks(scenarios, problem=problem, theta=theta, horizon=horizon, claim=claim, accuracy=accuracy)
    known = {*CHECKS, *map(str, checks)}
    cases = []
    for estimator in estimators:
        expected: Any = expected_failures(estimator) if callable(expected_failures) else (expected_failures or {})
        if not isinstance(expected, Mapping):
            said = f"expected_failures({estimator_name(estimator)})"
            raise InvalidInputError(refusal(said, expected, "a mapping", "return {check: reason}"))
        for key in expected:
            if key not in known:
                raise UnknownNameError("expected_failures", key, known)
        for check in checks:
            marks = []
            if str(check) in expected:
                marks.append(pytest.mark.xfail(reason=expected[str(check)], strict=True, raises=CheckFailedError))
            elif check.name in expected:
                marks.append(pytest.mark.xfail(reason=expected[check.name], strict=False, raises=CheckFailedError))
            cases.append(pytest.param(estimator, check, marks=marks, id=f"{estimator_name(estimator)}-{check}"))
    return pytest.mark.parametrize(("estimator", "check"), cases)


@lru_cache(maxsize=16)
def _results(estimator: Identity, on: Scenario, claim: Claim | None, accuracy: float) -> list[CheckResult]:
    """All checks of a pair at once: three tests share one enumeration."""
    return check_estimator(estimator.objects[0], [on], claim=claim, accuracy=accuracy)
