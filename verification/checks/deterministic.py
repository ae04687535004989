"""Deterministic checks: estimators by enumeration, gradient functions by stored truths. No sampling, no error rate.

An estimator's mean over all trajectories of a scenario is compared with what it claims, coordinate by coordinate and
part by part; a difference beyond what rounding and conditioning allow is a bias. A gradient function
`gradient(problem, theta)` is compared with the stored truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from bilevelrl.estimators import Claim, Context, Draw, Estimator, Objective
from bilevelrl.reference import ConfigurableLQR, LQRGame
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import NonNegative, checked
from bilevelrl.reference.errors import (
    BilevelRLError,
    EstimatorError,
    InvalidInputError,
    SupportError,
    TooLargeError,
    UnsupportedError,
    refusal,
)
from bilevelrl.reference.problem import Part
from bilevelrl.tasks import Scenario, scenarios
from bilevelrl.verification.checks.enumerated import Enumerated, judge_enumerated
from bilevelrl.verification.checks.once import evaluated_once, exact_critic
from bilevelrl.verification.checks.results import CheckResult, failed_by, not_judged
from bilevelrl.verification.checks.score_rounding import moved_by
from bilevelrl.verification.checks.verdicts import Outcome
from bilevelrl.verification.enumeration.contract import EstimatorFunction, estimator_name
from bilevelrl.verification.enumeration.exact_sums import Moments
from bilevelrl.verification.enumeration.moments import enumerate_moments
from bilevelrl.verification.enumeration.quadrature import integrated_moments

__all__ = ["MAX_MULTISETS", "check_estimator", "enumerate_scenario"]


MAX_MULTISETS = 200


@checked
def enumerate_scenario(
    estimator: Estimator | EstimatorFunction,
    on: Scenario,
    *,
    claim: Claim | None = None,
    batch: int | None = None,
    max_multisets: int = MAX_MULTISETS,
    accuracy: NonNegative = 0.0,
    **changes: Any,
) -> Enumerated:
    """Return the exact moments of an estimator on a scenario.

    Parameters
    ----------
    estimator
        An `Estimator`, or a function (trajectories, context) → rows (M, N) or {part: rows}.
    on
        The scenario.
    claim
        What a plain function claims; default: unbiased for the scenario's target.
    batch
        Trajectories per draw, for estimators whose draw is a batch; default 2.
    max_multisets
        Refuse to enumerate more batches.
    accuracy
        Error relative to the largest part of the truth that is allowed beside rounding, that of the rows' dtype.
    changes
        `follower`, `critic` or `simulator` to use instead of the exact ones.

    Raises
    ------
    TooLargeError
        If there are too many paths or multisets.
    EstimatorError, UnsupportedError, SupportError
        As `enumerate_moments`.
    """
    with evaluated_once(on):
        found = _enumerate(estimator, on, claim, batch, max_multisets, changes)
    return replace(found, accuracy=accuracy) if accuracy else found


def _enumerate(
    estimator: Estimator | EstimatorFunction,
    on: Scenario,
    claim: Claim | None,
    batch: int | None,
    max_multisets: int,
    changes: Mapping[str, Any],
) -> Enumerated:
    problem, theta = on.problem, on.theta
    stated = claim if claim is not None else getattr(estimator, "claim", Claim.UNBIASED)
    target = getattr(estimator, "target", on.target)
    batched = getattr(estimator, "draw", Draw.TRAJECTORY) is Draw.BATCH
    size = (batch or 2) if batched else None
    if on.truth_of_problem is not None and stated is Claim.UNBIASED and target.horizon is None and not on.ends:
        raise UnsupportedError(
            f"{on.name}: streams are cut after {on.horizon} steps, and what a right estimate leaves out there is not "
            "known where samples come from another problem than the truth; expected paths that end, or an estimator "
            f"made for the objective of {on.horizon} steps"
        )
    solved, truth = on.solved(target), on.truth_of(target)
    given = {"follower": solved.follower, "critic": exact_critic(on, target), **changes}

    def means_beside(share: float) -> FloatArray:
        beside = moved_by(on, share)
        known = {"follower": beside.solved(target).follower, "critic": exact_critic(beside, target), **changes}
        found = _moments(estimator, beside, known, size, max_multisets)
        return np.array([found.mean, *found.parts.values()])

    expected: Mapping[str, FloatArray] | None = None
    if stated is Claim.UNBIASED:
        expected = {str(part): value for part, value in truth.parts.items()}
    elif stated is Claim.DECLARED:
        declared = getattr(estimator, "expectation", None)
        if declared is None:
            raise EstimatorError(f"{estimator_name(estimator)}: claims an expectation but has no `expectation` method")
        context = Context(problem=problem, theta=theta, **given)
        try:
            told = declared(context, horizon=on.horizon)
        except EstimatorError:
            _moments(estimator, on, given, size, max_multisets)  # what else it breaks says why
            raise
        expected = {str(part): value for part, value in told.items()}
    moments = _moments(estimator, on, given, size, max_multisets)  # last: what is not supported costs nothing
    # A computed truth's bound holds for its own error and for that of the follower and critic, a stored one's does not.
    stored = any(truth is kept for kept in on.truths.values())
    return Enumerated(
        scenario=on,
        moments=moments,
        target=target,
        truth=truth,
        expected=expected,
        own_mean=_own_mean(estimator, on, target, given) if stated is Claim.UNBIASED else None,
        follower_error=(2.0 if stored else 1.0) * solved.error_bound,
        values_count=estimator.values_count(Context(problem=problem, theta=theta, **given))
        if isinstance(estimator, Estimator)
        else 1.0,
        means_beside=means_beside,
    )


def _moments(
    estimator: Estimator | EstimatorFunction,
    on: Scenario,
    given: Mapping[str, Any],
    size: int | None,
    max_multisets: int,
) -> Moments:
    told: dict[str, Any] = {"horizon": on.horizon, "episodes": on.episodes, **given}
    if isinstance(on.problem, (ConfigurableLQR, LQRGame)):
        return integrated_moments(estimator, on.problem, on.theta, **told)
    return enumerate_moments(estimator, on.problem, on.theta, batch=size, max_multisets=max_multisets, **told)


def _own_mean(
    estimator: Any, on: Scenario, target: Objective, given: Mapping[str, Any]
) -> Mapping[Part, FloatArray] | None:
    """What an estimator that knows its expectation says that cut streams leave of it."""
    if on.ends or target.horizon is not None or not isinstance(estimator, Estimator):
        return None
    try:
        return estimator.expectation(Context(problem=on.problem, theta=on.theta, **given), horizon=on.horizon)
    except BilevelRLError:
        return None


@checked
def check_estimator(
    estimator: Estimator | EstimatorFunction | Callable[[Objective], Estimator],
    on: Iterable[Scenario] | None = None,
    *,
    claim: Claim | None = None,
    made_for: bool = False,
    accuracy: NonNegative = 0.0,
) -> list[CheckResult]:
    """Hold an estimator against what it claims, on every scenario: its contract, its mean, the mean of each part.

    Parameters
    ----------
    estimator
        An `Estimator`, or a function (trajectories, context) → rows; with `made_for`, a function target → estimator.
    on
        Default: all scenarios.
    claim
        What a plain function claims; default: unbiased.
    made_for
        Make the estimator anew for the target that each scenario's trajectories can tell.
    accuracy
        Error relative to the largest part of the truth that is allowed beside rounding, that of the rows' dtype.

    Returns
    -------
    list of CheckResult
        "contract", "bias" ("bias, truncated" where trajectories are cut) and, where parts are told, "parts"; not judged
        where the estimator does not apply.

    Examples
    --------
    >>> from bilevelrl.estimators import BCHG
    >>> from bilevelrl.tasks import scenario
    >>> results = check_estimator(BCHG(), [scenario("toll")])
    >>> [(result.check, result.verdict.outcome.value) for result in results]
    [('contract', 'passed'), ('bias', 'passed'), ('parts', 'passed')]
    """
    results: list[CheckResult] = []
    if made_for and isinstance(estimator, Estimator):
        remedy = "wrap it in a lambda, or leave out made_for"
        raise InvalidInputError(
            refusal("estimator", estimator_name(estimator), "a function target → estimator", remedy)
        )
    for entry in scenarios() if on is None else on:
        made: Any = estimator(entry.target) if made_for else estimator  # type: ignore[call-arg,arg-type]
        try:
            found = enumerate_scenario(made, entry, claim=claim, accuracy=accuracy)
        except (UnsupportedError, SupportError, TooLargeError) as refused:
            results.append(not_judged("bias", entry, Outcome.NOT_APPLICABLE, str(refused)))
        except EstimatorError as broken:
            results.append(failed_by("contract", entry.name, str(broken)))
        else:
            results.extend(judge_enumerated(found))
    return results
