"""Rows of a verification, one per estimator or route and problem, and what they come to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bilevelrl.estimators import Claim, Draw
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked, checked_record
from bilevelrl.reference.problem import INFINITE_HORIZON
from bilevelrl.tasks import Scenario
from bilevelrl.verification.causes.explanation import Explanation
from bilevelrl.verification.checks.verdicts import Outcome, Verdict, unjudged
from bilevelrl.verification.enumeration.contract import estimator_name
from bilevelrl.verification.enumeration.exact_sums import Moments

__all__ = ["EstimatorRow", "Findings", "RouteRow", "described", "exact_measures"]

_JUDGED = (Outcome.PASSED, Outcome.EXPECTED, Outcome.FAILED)

STILL = 1e-12
"""Standard deviation of a draw, relative to the truth, that is rounding alone."""


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True)
class EstimatorRow:
    """One estimator on one problem, held against its truth and against what it claims.

    Attributes
    ----------
    problem, estimator, level, claim, draw, target : str
        What was checked; `draw` is what one draw is, `target` the truth it is held against.
    temperature : float
        β.
    method : str
        "enumeration" (exact) or "sampling".
    draws : int
        Paths or multisets enumerated, or independent draws.
    truth_norm : float
        Norm of the exact hypergradient; every relative number refers to it.
    bias : float
        ‖E estimate − truth‖ / ‖truth‖: exact where enumerated or declared, else a point estimate.
    bias_along, bias_low, bias_high : float
        ⟨E estimate − truth, truth⟩ / ‖truth‖² with its simultaneous confidence interval (one point where exact).
    deviation : float
        ‖found mean − claimed expectation‖ / ‖truth‖; nan where nothing is claimed.
    standard_deviation : float
        √(trace of one draw's covariance) / ‖truth‖.
    cosine, cosine_low, cosine_high : float
        Mean cosine of one draw with the truth and its interval; nan where enumerated.
    steps_per_draw : float
        Environment and oracle steps that one draw costs.
    seconds : float
        Of the whole check.
    parts : {part: float}
        ‖bias of the part‖ / ‖truth‖, where the estimator tells its parts.
    tested : {part: float}
        Norm of each part of the truth that was compared with; 0: an estimator without it is not told from one with it.
    check : str
        Which check the verdict is of: "bias", or the one that failed.
    verdict : Verdict
        Against what the estimator claims.
    """

    problem: str
    temperature: float
    estimator: str
    level: str
    claim: str
    draw: str
    target: str
    method: str
    draws: int = 0
    truth_norm: float = math.nan
    bias: float = math.nan
    bias_along: float = math.nan
    bias_low: float = math.nan
    bias_high: float = math.nan
    deviation: float = math.nan
    standard_deviation: float = math.nan
    cosine: float = math.nan
    cosine_low: float = math.nan
    cosine_high: float = math.nan
    steps_per_draw: float = math.nan
    seconds: float = math.nan
    parts: Mapping[str, float] = field(default_factory=dict)
    tested: Mapping[str, float] = field(default_factory=dict)
    check: str = "bias"
    verdict: Verdict


def described(
    estimator: Any,
    on: Scenario | None,
    *,
    claim: Claim | None = None,
    level: str = "yours",
    method: str = "enumeration",
    batch: str = "2 trajectories",
) -> EstimatorRow:
    """Return a row that says what is to be checked, not judged yet."""
    stated = claim if claim is not None else getattr(estimator, "claim", Claim.UNBIASED)
    target = getattr(estimator, "target", INFINITE_HORIZON if on is None else on.target)
    length = "infinite horizon" if target.horizon is None else f"{target.horizon} steps"
    return EstimatorRow(
        problem="" if on is None else on.title,
        temperature=math.nan if on is None else on.problem.temperature,
        estimator=estimator_name(estimator),
        level=level,
        claim=stated.name.lower(),
        draw=batch if getattr(estimator, "draw", Draw.TRAJECTORY) is Draw.BATCH else "trajectory",
        target=length if target.discounted else f"{length}, undiscounted",
        method=method,
        verdict=unjudged(Outcome.MEASURED, "not judged yet"),
    )


def exact_measures(
    moments: Moments, value: FloatArray, parts: Mapping[Any, FloatArray], expected: FloatArray | None
) -> dict[str, Any]:
    """Return the numbers of an enumerated row: exact moments beside the truth (N,), its parts, and what is claimed."""
    norm = float(np.linalg.norm(value))
    scale = norm if norm > 0.0 else 1.0
    bias = moments.mean - value
    along = float(bias @ value) / scale**2
    return {
        "draws": moments.draws,
        "truth_norm": norm,
        "bias": float(np.linalg.norm(bias)) / scale,
        "bias_along": along,
        "bias_low": along,
        "bias_high": along,
        "deviation": math.nan if expected is None else float(np.linalg.norm(moments.mean - expected)) / scale,
        "standard_deviation": math.sqrt(max(0.0, float(np.trace(moments.covariance)))) / scale,  # rounding below zero
        "parts": {
            part: float(np.linalg.norm(mean - parts.get(part, np.zeros_like(mean)))) / scale
            for part, mean in moments.parts.items()
        },
    }


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRow:
    """One exact route on one problem, held against `implicit`.

    Attributes
    ----------
    problem, route, family : str
        What was checked; routes of different families share no Bellman code.
    temperature : float
        β.
    norm : float
        ‖∇J‖.
    difference : float
        max |value − implicit's|.
    error_bound : float
        The route's own bound on max |value − truth|.
    seconds : float
        Cost of one call from a cold start.
    verdict : Verdict
        Whether the difference is within both bounds.
    """

    problem: str
    temperature: float
    route: str
    family: str
    norm: float
    difference: float
    error_bound: float
    seconds: float
    verdict: Verdict


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Rows of one verification and what they come to.

    Attributes
    ----------
    estimators, routes : tuple of rows
        What was checked.
    configuration : mapping
        Arguments, seed and versions: enough to run it again.
    seconds : float
        Wall time.
    explanation : Explanation or None
        The known mistake that comes nearest to the failures of a user's estimator.
    """

    estimators: tuple[EstimatorRow, ...]
    routes: tuple[RouteRow, ...] = ()
    configuration: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = math.nan
    explanation: Explanation | None = None

    @property
    def rows(self) -> tuple[EstimatorRow | RouteRow, ...]:
        """All rows, routes first."""
        rows: list[EstimatorRow | RouteRow] = [*self.routes, *self.estimators]
        return tuple(rows)

    @property
    def failures(self) -> tuple[EstimatorRow | RouteRow, ...]:
        """Rows whose check failed."""
        return tuple(row for row in self.rows if row.verdict.failed)

    @property
    def claimed(self) -> int:
        """Number of rows that claim something: all but those that are only measured."""
        return len(self.rows) - self.count(Outcome.MEASURED)

    @property
    def judged(self) -> int:
        """Number of rows that were found right or wrong, rather than without power or not applicable."""
        return sum(self.count(outcome) for outcome in _JUDGED)

    @property
    def passed(self) -> bool:
        """Whether more than half of what is claimed was judged, and nothing failed."""
        return 2 * self.judged > self.claimed and not self.failures

    @property
    def untested(self) -> tuple[str, ...]:
        """Parts that are 0 in every truth that something was judged by: nothing tells estimators without them."""
        judged = [row.tested for row in self.estimators if row.verdict.outcome in _JUDGED]
        parts = dict.fromkeys(part for tested in judged for part in tested)
        return tuple(part for part in parts if not any(tested.get(part, 0.0) > 0.0 for tested in judged))

    @property
    def headline(self) -> str:
        """VERIFIED or NOT VERIFIED, on how many rows, what became of the others, and which parts were not tested."""
        good = self.count(Outcome.PASSED) + self.count(Outcome.EXPECTED)
        counts = [f"{self.count(outcome)} {outcome.value}" for outcome in Outcome if self.count(outcome) > 0]
        few = "" if self.failures or self.passed else f"; only {self.judged} could be judged"
        word = "VERIFIED" if self.passed else "NOT VERIFIED: right"
        missing = ", ".join(self.untested) if self.passed else ""
        absent = f", but for parts that are 0 there: {missing}" if missing else ""
        return f"{word} on {good} of {self.claimed}{few} ({', '.join(counts) or 'nothing was checked'}){absent}"

    @property
    def remarks(self) -> tuple[str, ...]:
        """What stands out beside the verdicts: estimators whose rows are the same whatever the trajectories."""
        said = []
        for name in dict.fromkeys(row.estimator for row in self.estimators):
            spread = [row.standard_deviation for row in self.estimators if row.estimator == name and row.draws > 1]
            if spread and max(spread) <= STILL:
                where = f"on {len(spread)} of {len(spread)} problems" if len(spread) > 1 else "here"
                said.append(
                    f"{name}: its rows do not depend on the trajectories {where}; it is no estimate from samples, and "
                    "a gradient is held against the truth by `check_gradient`, at other θ too"
                )
        return tuple(said)

    @checked
    def count(self, outcome: Outcome) -> int:
        """Return how many checks ended so."""
        return sum(row.verdict.outcome is outcome for row in self.rows)
