"""Exact moments of an estimator on a scenario beside what it claims, and the verdicts on them.

Every verdict carries its margin, the largest |difference| in units of what rounding and conditioning allow: above 1 the
check has failed, and how far above says how surely.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

from bilevelrl.estimators import Objective
from bilevelrl.reference import ConfigurableMDP, MarkovGame
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.problem import Part
from bilevelrl.tasks import Scenario
from bilevelrl.tasks.scenarios import Truth
from bilevelrl.verification.checks.once import exact_critic
from bilevelrl.verification.checks.results import CheckResult, contract_kept, not_judged, result_of, shown
from bilevelrl.verification.checks.score_rounding import mean_rounding, score_rounding
from bilevelrl.verification.checks.truncation import truncated_truths
from bilevelrl.verification.checks.verdicts import POWER_LIMIT, Outcome, Verdict, unjudged
from bilevelrl.verification.enumeration.exact_sums import Moments

__all__ = ["Enumerated", "judge_enumerated"]

_ROUNDING = 1e-11  # of what is averaged: a larger difference is none in doubles, and single precision leaves 1e-8


@dataclass(frozen=True, slots=True, kw_only=True)
class Enumerated:
    """Exact moments of an estimator on a scenario, beside the truth and what it claims.

    Attributes
    ----------
    scenario : Scenario
        Where.
    moments : Moments
        Mean, covariance and means of the parts of one draw, exactly.
    target : Objective
        What the estimator aims at.
    truth : Truth
        Of the target.
    expected : {part: (N,)} or None
        What the estimator claims its parts are; None: nothing is claimed.
    own_mean : {part: (N,)} or None
        The expectation that it computes itself, where its streams are cut; else None.
    follower_error : float
        Bound on what the follower's and the critic's rounding do to the mean.
    values_count : float
        How many times values enter what is multiplied with scores.
    accuracy : float
        Error relative to the largest part of the truth that is allowed beside rounding.
    score_error : (N,)
        Bound on what the rounding of scores does that large values are multiplied with, where that was asked for.
    means_beside
        share → (1 + parts, N), the mean and those of the parts, of the scenario `moved_by` it.

    Examples
    --------
    >>> from bilevelrl.estimators import NaivePGD
    >>> from bilevelrl.tasks import scenario
    >>> from bilevelrl.verification.checks.deterministic import enumerate_scenario
    >>> found = enumerate_scenario(NaivePGD(), scenario("toll"))
    >>> bool(np.allclose(found.bias, -found.truth.parts["response"])), found.covariance.shape
    (True, (1, 1))
    """

    scenario: Scenario
    moments: Moments
    target: Objective
    truth: Truth
    expected: Mapping[str, FloatArray] | None
    own_mean: Mapping[Part, FloatArray] | None = None
    follower_error: float
    values_count: float = 1.0
    accuracy: float = 0.0
    score_error: FloatArray = field(default_factory=lambda: np.zeros(1))
    means_beside: Callable[[float], FloatArray] = field(repr=False, compare=False)

    @property
    def bias(self) -> FloatArray:
        """(N,): mean minus truth."""
        result: FloatArray = self.moments.mean - self.truth.value
        return result

    @property
    def covariance(self) -> FloatArray:
        """(N, N), of one draw."""
        return self.moments.covariance

    @property
    def part_bias(self) -> dict[str, FloatArray]:
        """{part: (N,)}, for estimators that tell their parts."""
        truth: Mapping[str, FloatArray] = {str(part): value for part, value in self.truth.parts.items()}
        return {part: mean - truth.get(part, np.zeros_like(mean)) for part, mean in self.moments.parts.items()}

    @property
    def tolerance(self) -> FloatArray:
        """(N,): what rounding, conditioning and the truth's own error allow the mean."""
        size = max(float(np.abs(part).max()) for part in self.truth.parts.values())
        known_to = self.truth.error_bound + self.follower_error + self.accuracy * size
        return self.moments.allowed(known_to) + self.score_error


def judge_enumerated(found: Enumerated) -> list[CheckResult]:
    """Judge exact moments against what is claimed.

    Where streams are cut and the infinite horizon is claimed of them, truncation is told first and taken off: what is
    judged is the difference from the mean of a right estimate on such streams. A part of the truth that this mean has
    nothing of is not judged: there is no power. Where episodes follow each other in a stream, its row may be their
    mean, or their sum.
    """

    @cache
    def scattered() -> FloatArray:
        return mean_rounding(found.means_beside)

    def judged_of(one: Enumerated, held: Truth, said: str) -> list[CheckResult]:
        results = _judged(one, held, said)
        if any(result.failed for result in results) and _may_be_rounding(one):
            results = _judged(replace(one, score_error=one.score_error + scattered()), held, said)
        return results

    results = _judged(found, found.truth, "")
    if any(result.failed for result in results):
        found = replace(found, score_error=_score_error(found))
        results = judged_of(found, found.truth, "")
    claims_truth = found.expected is not None and found.expected.keys() == found.truth.parts.keys()
    if not claims_truth or not any(result.failed for result in results):
        return results
    tried = []
    for said, cut in _cut_truths(found):
        for how, held in ((said, cut), *_summed_over_episodes(found, said, cut)):
            other = replace(
                found,
                expected={str(part): value for part, value in held.parts.items()},
                follower_error=found.follower_error + held.error_bound,
            )
            judged = results if held is found.truth else judged_of(other, held, f"{how}beyond that ")
            if not any(result.failed for result in judged):
                return judged
            if how is said and cut is not found.truth:
                tried.append(judged)
    return (tried or [results])[0]


def _cut_truths(found: Enumerated) -> Iterator[tuple[str, Truth]]:
    """The truth, and what cut streams leave of it."""
    yield "", found.truth
    size = float(np.linalg.norm(found.truth.value)) or 1.0
    cuts = dict(truncated_truths(found.scenario, found.target))
    if found.own_mean is not None:
        known_to = found.truth.error_bound + found.follower_error
        cuts["by its own expectation"] = Truth(objective=np.nan, parts=found.own_mean, error_bound=known_to)
    for how, cut in cuts.items():
        taken = float(np.linalg.norm(cut.value - found.truth.value)) / size
        yield f"truncation at {found.scenario.horizon} steps takes {taken:.2g} of the truth away ({how}); ", cut


def _summed_over_episodes(found: Enumerated, said: str, truth: Truth) -> Iterator[tuple[str, Truth]]:
    """Truths of rows that add up the episodes of a stream, the regulariser once or with each."""
    episodes = found.scenario.episodes
    for once in (1, episodes) if episodes > 1 else ():
        parts = {part: (once if part == "regulariser" else episodes) * value for part, value in truth.parts.items()}
        how = f"{said}rows are sums over the {episodes} episodes of a stream; "
        yield how, Truth(objective=truth.objective, parts=parts, error_bound=episodes * truth.error_bound)


def _may_be_rounding(found: Enumerated) -> bool:
    """Whether a difference is so small beside what is averaged that it is worth asking for the mean beside θ."""
    expected = sum((found.expected or {}).values(), np.zeros(found.scenario.theta.size))
    off = np.abs(found.moments.mean - expected).max(initial=0.0)
    return bool(off <= _ROUNDING * max(found.moments.magnitude.max(initial=0.0), np.abs(expected).max(initial=0.0)))


def _score_error(found: Enumerated) -> FloatArray:
    on, critic = found.scenario, exact_critic(found.scenario, found.target)
    if not isinstance(on.problem, (ConfigurableMDP, MarkovGame)) or critic is None:
        return np.zeros(on.theta.size)
    leader = critic.value(np.arange(on.problem.states_at(on.theta)))
    follower = np.asarray(getattr(on.solved(found.target).follower, "value", 0.0))
    values = max(float(np.abs(leader).max()), float(np.abs(follower).max()))
    return score_rounding(on, found.target, found.values_count * values)


def _judged(found: Enumerated, held: Truth, said: str) -> list[CheckResult]:
    """The checks of exact moments, with the truth that differences are from and words before the reasons."""
    entry, moments = found.scenario, found.moments
    results = [contract_kept(entry, "rows per draw, finite, repeatable, inputs unchanged")]
    if found.expected is None:
        return [*results, not_judged("bias", entry, Outcome.MEASURED, "no expectation is claimed")]
    expected = sum(found.expected.values(), np.zeros(entry.theta.size))
    bias = "bias" if entry.ends else "bias, truncated"
    size = float(np.linalg.norm(found.truth.value))
    results.append(result_of(bias, entry, moments.mean - expected, found.tolerance, size=size, truth=held))
    if moments.parts:
        # A part that is not told is claimed to be absent; a part under another name is judged against zero.
        names = list(dict.fromkeys([*found.truth.parts, *found.expected, *moments.parts]))
        zero = np.zeros(entry.theta.size)
        off = [moments.parts.get(part, zero) - found.expected.get(part, zero) for part in names]
        # The sum's magnitude does not bound the parts', which may cancel: count each part's own size as well.
        largest = np.max([np.abs(value) for value in moments.parts.values()], axis=0)
        allowed = np.tile(found.tolerance + 32 * moments.horizon * moments.epsilon * largest, len(names))
        results.append(result_of("parts", entry, np.concatenate(off), allowed, size=size, truth=held))
    return [replace(one, verdict=_as_seen(found, held, said, one.verdict)) for one in results]


def _as_seen(found: Enumerated, held: Truth, said: str, verdict: Verdict) -> Verdict:
    """A verdict with words before its reason; no power where too little of the truth is left on cut streams."""
    whole, left = (float(np.linalg.norm(truth.value)) for truth in (found.truth, held))
    seen = shown(held, found.tolerance)
    lost = [
        str(part)
        for part, value in found.truth.parts.items()
        if np.linalg.norm(value) > POWER_LIMIT * whole and not seen.get(part)
    ]
    if verdict.outcome is Outcome.PASSED and lost:
        parts = " and ".join(lost)
        return unjudged(Outcome.NO_POWER, f"{said}nothing shows the {parts} part: without it all agrees as well")
    if verdict.outcome is Outcome.PASSED and verdict.detectable * whole > POWER_LIMIT * left:
        only = (
            f"{said}agrees, as zeros would: {verdict.detectable:.1g} of the truth is seen, and {left / whole:.1g} left"
        )
        return replace(verdict, outcome=Outcome.NO_POWER, reason=only)
    return replace(verdict, reason=said + verdict.reason)
