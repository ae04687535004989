"""Assertions for other people's test suites: their estimator or gradient against a scenario's truth.

    assert_matches_truth      a gradient (exact, or a function that computes it) is the stored one
    assert_unbiased           an estimator's exact mean, or independent draws, agree with the truth
    assert_variance_below     an estimator's exact variance, or that of draws, is below a bound

Each raises `CheckFailedError`, an `AssertionError` whose message names scenario, part, parameter and likely cause. With
draws in place of an estimator the check is statistical: it also fails where it could not have told ("no power"). Where
the follower's response is 0 in every truth, passing says nothing of it: `UntestedWarning`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from bilevelrl.estimators import Claim, Estimator
from bilevelrl.reference import Problem
from bilevelrl.reference.arrays import FloatArray, check_shape
from bilevelrl.reference.doors import Horizon, NonNegative, as_is, checked
from bilevelrl.reference.errors import InvalidInputError, ShapeError, refusal
from bilevelrl.tasks import Scenario, scenarios
from bilevelrl.tasks.scenarios import Truth
from bilevelrl.verification.checks.deterministic import check_estimator, enumerate_scenario
from bilevelrl.verification.checks.gradients import ACCURACY, check_gradient
from bilevelrl.verification.checks.own_scenarios import chosen_scenarios, default_scenarios
from bilevelrl.verification.checks.results import CheckResult, shown
from bilevelrl.verification.checks.verdicts import Outcome, Verdict, unjudged
from bilevelrl.verification.enumeration.contract import EstimatorFunction, estimator_name
from bilevelrl.verification.statistics.designs import ERROR_RATE, TestRate
from bilevelrl.verification.statistics.means import mean_test
from bilevelrl.verification.statistics.variances import paired_squares
from bilevelrl.verification.testing.failures import CheckFailedError, check_kind, explain_results
from bilevelrl.verification.testing.judge import judge_draws
from bilevelrl.verification.testing.records import note

__all__ = ["UntestedWarning", "assert_matches_truth", "assert_unbiased", "assert_variance_below", "default_scenarios"]


class UntestedWarning(UserWarning):
    """An assertion holds where the follower's response is 0, and would hold without the response as well."""


@checked
def assert_matches_truth(
    gradient: Any,
    on: Scenario | str | Iterable[Scenario] | None = None,
    *,
    problem: Annotated[Problem | None, as_is] = None,
    theta: Any = None,
    accuracy: NonNegative = ACCURACY,
) -> None:
    """Assert that a gradient is the stored hypergradient.

    Parameters
    ----------
    gradient
        An array (N,) or {part: (N,)} (needs exactly one scenario), or a function (problem, theta) → either; anything
        that converts to NumPy will do.
    on
        A scenario, its name, or several; default: all scenarios.
    problem, theta
        Instead: your own problem of any kind, at θ.
    accuracy
        Error relative to the largest part that is allowed beside rounding; float32 code may ask for 1e-4.

    Raises
    ------
    CheckFailedError
        Naming scenario, parameter, part and likely cause.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> truth = scenario("toll").truth
    >>> assert_matches_truth(truth.value, "toll")
    >>> try:
    ...     assert_matches_truth(truth.value - truth.parts["response"], "toll")
    ... except CheckFailedError as failed:
    ...     print(failed)
    gradient: wrong on 1 of 1 scenarios
      toll: off by ...
      the cause... the response part is missing ...
    """
    at = _listed(on, default=scenarios, problem=problem, theta=theta)
    if callable(gradient):
        function, name = gradient, estimator_name(gradient)
    else:
        if len(at) != 1:
            raise InvalidInputError(
                refusal("on", [entry.name for entry in at], "one scenario for an array", "pass a function (problem, θ)")
            )
        function, name = _constant(gradient), "gradient"
    results = check_gradient(function, at, accuracy=accuracy)
    note(gradient, name, _said(results))
    _raise_if_failed(name, "wrong", results, at)
    _warn_if_untested(name, [result.truth for result in results])


@checked
def assert_unbiased(
    estimator: Estimator | EstimatorFunction | FloatArray,
    on: Scenario | str | Iterable[Scenario] | None = None,
    *,
    problem: Annotated[Problem | None, as_is] = None,
    theta: Any = None,
    horizon: Horizon = None,
    claim: Claim | None = None,
    expected_failures: Mapping[str, str] | None = None,
    accuracy: NonNegative = 0.0,
    error_rate: TestRate = ERROR_RATE,
) -> None:
    """Assert that an estimator's expectation is what it claims: exactly by enumeration, or from draws.

    Parameters
    ----------
    estimator
        A function (trajectories, context) → rows (M, N) or {part: rows}, or an `Estimator`; or draws (R, N), which
        need exactly one scenario and are judged statistically against its infinite-horizon truth.
    on
        A scenario, its name, or several; default: all scenarios whose paths end.
    problem, theta, horizon
        Instead: your own problem of any kind, at θ, and steps of a stream; as in `verify`.
    claim
        What a plain function claims; default: unbiased.
    expected_failures
        {scenario name: reason} where a failure is known; one that does not fail any more is reported.
    accuracy
        Error relative to the largest part of the truth that is allowed beside rounding, that of the rows' dtype.
    error_rate
        Of the statistical check.

    Raises
    ------
    CheckFailedError
        Naming scenario, part, parameter and likely cause; or, for draws, that there is no power.

    Examples
    --------
    >>> from bilevelrl.estimators import BCHG, NaivePGD
    >>> assert_unbiased(BCHG())
    >>> try:
    ...     assert_unbiased(NaivePGD(), "layered", claim=Claim.UNBIASED)
    ... except CheckFailedError as failed:
    ...     print(failed)
    Naive-PGD: biased on 1 of 1 scenarios
      layered: off by ...
      layered, in the response part: off by ...
      the cause: the response part is missing ...
    """
    at = _listed(on, default=default_scenarios, problem=problem, theta=theta, horizon=horizon)
    if not callable(estimator):
        judged = judge_draws(_draws(estimator, _only(at)), at[0], error_rate=error_rate)
        note(estimator, "draws", [("draws", at[0].name, judged.verdict)])
        if not judged.passed:
            raise CheckFailedError(str(judged), explanation=judged.explanation)
        _warn_if_untested("draws", [at[0].truth])
        return
    excused = dict(expected_failures or {})
    unknown = set(excused) - {entry.name for entry in at}
    if unknown:
        raise InvalidInputError(
            refusal("expected_failures", sorted(unknown), "names of scenarios that are checked", "remove them")
        )
    results = check_estimator(estimator, at, claim=claim, accuracy=accuracy)
    note(estimator, estimator_name(estimator), _said(results), excused=excused)
    failing = {result.scenario for result in results if result.failed}
    surprises = [name for name in excused if name not in failing]
    if surprises:
        raise CheckFailedError(
            f"{estimator_name(estimator)}: expected to fail on {', '.join(surprises)}, but does not any more; "
            "remove the entry from expected_failures",
            results=results,
        )
    _require_judged(estimator_name(estimator), results)
    kept = [result for result in results if result.scenario not in excused]
    _raise_if_failed(estimator_name(estimator), "biased", kept, [e for e in at if e.name not in excused])
    _warn_if_untested(estimator_name(estimator), [result.truth for result in results])


@checked
def assert_variance_below(
    estimator: Estimator | EstimatorFunction | FloatArray,
    bound: float | FloatArray,
    on: Scenario | str | None = None,
    *,
    problem: Annotated[Problem | None, as_is] = None,
    theta: Any = None,
    horizon: Horizon = None,
    error_rate: TestRate = ERROR_RATE,
) -> None:
    """Assert that the variance of one draw is below a bound: exactly by enumeration, or from draws.

    Parameters
    ----------
    estimator
        As in `assert_unbiased`.
    bound
        A number: of the trace of the covariance; (N,): of each coordinate's variance.
    on
        The scenario, or its name.
    problem, theta, horizon
        Instead: your own problem, as in `assert_unbiased`.
    error_rate
        Of the statistical check.

    Raises
    ------
    CheckFailedError
        Naming the parameter; for draws also where the interval contains the bound.

    Examples
    --------
    >>> from bilevelrl.estimators import BCHG
    >>> assert_variance_below(BCHG(), 50.0, "layered")
    >>> try:
    ...     assert_variance_below(BCHG(), 1.0, "layered")
    ... except CheckFailedError as failed:
    ...     print(failed)
    BC-HG on layered: total variance 11.1273 is not below 1
    """
    at = _only(_listed(on, default=tuple, problem=problem, theta=theta, horizon=horizon))
    limit = np.asarray(bound, dtype=np.float64)
    if limit.shape not in ((), (at.theta.size,)) or not bool((limit >= 0.0).all()):
        raise InvalidInputError(
            refusal("bound", bound, f"a number >= 0, or ({at.theta.size},) of them", "bound the trace or each variance")
        )
    if callable(estimator):
        name = estimator_name(estimator)
        variances = np.diag(enumerate_scenario(estimator, at).covariance)
        found = variances.sum(keepdims=True) if limit.ndim == 0 else variances
        half_width = np.zeros_like(found)
    else:
        name = "draws"
        rows = _draws(estimator, at)
        # The trace is the mean of the sum of squared paired differences: one comparison.
        test = mean_test(paired_squares(rows), np.zeros(rows.shape[1]), error_rate=error_rate)
        found, half_width = test.bias, test.half_width
        if limit.ndim == 0:
            found, half_width = found.sum(keepdims=True), half_width.sum(keepdims=True)
    wrong = found + half_width > np.atleast_1d(limit)
    seen = unjudged(Outcome.PASSED, "below the bound")
    if wrong.any():
        seen = unjudged(Outcome.FAILED, "not below the bound, or not known to be")
    note(estimator, name, [("variance", at.name, seen)])
    if not wrong.any():
        return
    i = int(np.argmax(np.where(wrong, found - np.atleast_1d(limit), -np.inf)))
    what = "total variance" if limit.ndim == 0 else f"variance at parameter {i}"
    value = f"{found[i]:.6g}" + (f" ± {half_width[i]:.2g}" if half_width[i] > 0.0 else "")
    sure = found[i] - half_width[i] > np.atleast_1d(limit)[i] or half_width[i] == 0.0
    said = "is not below" if sure else "cannot be told from"
    raise CheckFailedError(f"{name} on {at.name}: {what} {value} {said} {np.atleast_1d(limit)[i]:g}")


def _said(results: Iterable[CheckResult]) -> list[tuple[str, str, Verdict]]:
    """Results as `note` takes them."""
    return [(check_kind(result.check), result.scenario, result.verdict) for result in results]


def _raise_if_failed(
    name: str,
    what: str,
    results: Sequence[CheckResult],
    at: Sequence[Scenario],
) -> None:
    failed = [result for result in results if result.failed]
    if not failed:
        return
    places = list(dict.fromkeys(result.scenario for result in failed))
    broken = [result for result in failed if result.check == "contract"]
    if broken:
        raise CheckFailedError(f"{broken[0].verdict.reason} (on {broken[0].scenario})", results=results)
    lines = [f"{name}: {what} on {len(places)} of {len(at)} scenarios"]
    shown = places[:5]
    by_name = {entry.name: entry for entry in at}
    for result in failed:
        if result.scenario in shown:
            lines.append(_line(result, by_name[result.scenario]))
    if len(places) > len(shown):
        lines.append(f"  ... and on {', '.join(places[len(shown) :])}")
    explanation = explain_results(results, at)
    if explanation is not None:
        lines.append(f"  {explanation}")
    raise CheckFailedError("\n".join(lines), results=results, explanation=explanation)


def _warn_if_untested(name: str, truths: Iterable[Truth | None]) -> None:
    seen = [shown(truth, truth.error_bound) for truth in truths if truth is not None]
    if seen and not any(tested.get("response") for tested in seen):
        warnings.warn(
            f"{name}: the follower's response is 0 wherever this was checked, so that nothing tells whether it is left "
            "out; check on a problem where the follower has a choice and θ changes it",
            UntestedWarning,
            stacklevel=4,
        )


def _line(result: CheckResult, on: Scenario) -> str:
    place = result.scenario
    if result.check in ("parts", "truth of parts") and result.difference is not None:
        # Differences of all parts one after the other, in the order of the truth's parts.
        rows = result.difference.reshape(-1, on.theta.size)
        names = list(on.truth.parts)
        worst = int(np.argmax(np.abs(rows).max(axis=1)))
        part = names[worst] if worst < len(names) else "undeclared"
        parameter = int(np.argmax(np.abs(rows[worst])))
        return f"  {place}, in the {part} part: off by {rows[worst, parameter]:+.3g} at parameter {parameter}"
    return f"  {place}: {result.verdict.reason}"


def _require_judged(name: str, results: Sequence[CheckResult]) -> None:
    settled = (Outcome.PASSED, Outcome.FAILED)
    judged = [r for r in results if r.verdict.outcome in settled and r.check != "contract"]
    if not judged and not any(result.failed for result in results):
        reasons = list(dict.fromkeys(result.verdict.reason for result in results))
        raise CheckFailedError(f"{name}: nothing could be judged: {'; '.join(reasons[:2])}", results=results)


def _constant(gradient: Any) -> Callable[[Any, FloatArray], Any]:
    def function(problem: Problem, theta: FloatArray) -> Any:
        return gradient

    return function


def _listed(on: Any, *, default: Callable[[], tuple[Scenario, ...]], **own: Any) -> list[Scenario]:
    asked = chosen_scenarios(on, **own)
    return list(default() if asked is None else asked)


def _draws(estimator: Any, at: Scenario) -> FloatArray:
    """Draws that came in the place of an estimator."""
    remedy = "pass draws (R, N), one independent estimate per row, or a function (trajectories, context)"
    check_shape("estimator", estimator, (None, at.theta.size), remedy)
    if len(estimator) < 4:
        raise ShapeError(refusal("estimator.shape", estimator.shape, "at least 4 draws", remedy))
    rows: FloatArray = estimator
    return rows


def _only(at: list[Scenario]) -> Scenario:
    if len(at) != 1:
        raise InvalidInputError(
            refusal("on", [entry.name for entry in at], "exactly one scenario", "name where draws are from")
        )
    return at[0]
