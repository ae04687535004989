"""Gradient functions `gradient(problem, theta)` held against stored truths; no sampling, no error rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np

from bilevelrl.reference import Problem
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import callable_error, checked
from bilevelrl.reference.errors import (
    BilevelRLError,
    EstimatorError,
)
from bilevelrl.reference.problem import INFINITE_HORIZON
from bilevelrl.tasks import Scenario, scenarios
from bilevelrl.verification.checks.results import CheckResult, contract_kept, failed_by, result_of
from bilevelrl.verification.enumeration.contract import estimator_name

__all__ = ["ACCURACY", "GradientFunction", "check_gradient", "evaluate_gradient"]

GradientFunction: TypeAlias = Callable[[Any, FloatArray], Any]
"""(problem, theta) → ∇J, anything that NumPy can read as (N,), or {part: (N,)} whose sum is ∇J."""

ACCURACY = 1e-9
"""Error, relative to the largest part, that a gradient function is allowed beside rounding and conditioning."""


@checked
def check_gradient(
    gradient: GradientFunction, on: Iterable[Scenario] | None = None, *, accuracy: float = ACCURACY
) -> list[CheckResult]:
    """Hold a gradient function against the stored truth of every scenario.

    Parameters
    ----------
    gradient
        (problem, theta) → (N,) or {part: (N,)}.
    on
        Default: all scenarios.
    accuracy
        Error relative to the largest part that the function may have beside rounding.

    Returns
    -------
    list of CheckResult
        "contract", "truth" and, where parts are told, "truth of parts".

    Examples
    --------
    >>> from bilevelrl.reference import hypergradient
    >>> results = check_gradient(lambda problem, theta: hypergradient(problem, theta).parts)
    >>> any(result.failed for result in results)
    False
    """
    results: list[CheckResult] = []
    for entry in scenarios() if on is None else on:
        try:
            value, parts = evaluate_gradient(gradient, entry.problem, entry.theta)
        except EstimatorError as broken:
            results.append(failed_by("contract", entry.name, str(broken)))
            continue
        results.append(contract_kept(entry, "one finite number per parameter"))
        size = max(float(np.abs(part).max()) for part in entry.truth.parts.values())
        allowed = entry.truth.error_bound + entry.solved(INFINITE_HORIZON).error_bound + accuracy * size
        results.append(result_of("truth", entry, value - entry.truth.value, allowed, truth=entry.truth))
        if parts:
            off = [
                parts.get(str(part), np.zeros_like(part_value)) - part_value
                for part, part_value in entry.truth.parts.items()
            ]
            results.append(result_of("truth of parts", entry, np.concatenate(off), allowed, truth=entry.truth))
    return results


def evaluate_gradient(
    gradient: GradientFunction, problem: Problem, theta: FloatArray
) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Call a gradient function on a copy of θ and check its answer; return the value and its parts.

    Raises
    ------
    EstimatorError
        If it raises, or returns a wrong shape or a number that is not finite.
    """
    name = estimator_name(gradient)
    try:
        answer = gradient(problem, theta.copy())
    except BilevelRLError:
        raise
    except Exception as error:
        raise callable_error(name, error, theta) from error
    parts = {}
    if isinstance(answer, Mapping):
        parts = {str(part): _checked(name, f"part {part!r}", value, theta.size) for part, value in answer.items()}
        return sum(parts.values(), np.zeros(theta.size)), parts
    return _checked(name, "returned", answer, theta.size), parts


def _checked(name: str, what: str, answer: Any, parameters: int) -> FloatArray:
    try:
        value = np.asarray(answer)
    except Exception as error:  # whatever an object's own conversion raises
        raise EstimatorError(f"{name}: {what} what is no array ({error}); expected ({parameters},) numbers") from error
    if value.size != parameters or value.dtype.kind not in "fiu":
        raise EstimatorError(
            f"{name}: {what} {value.dtype} of shape {value.shape}; expected ({parameters},) real numbers"
        )
    if not np.isfinite(value).all():
        raise EstimatorError(f"{name}: {what} a number that is not finite; check the solver at this θ")
    return value.astype(np.float64).ravel()
