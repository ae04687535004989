"""Which known mistakes an estimator was told apart from, by its expectation on the scenarios at hand.

A mistake has a computable effect on the mean of a right estimator. An estimator is told apart from it where

    max_i |E f − truth − effect|_i / (what rounding allows)_i  >  1.                                                 (1)

Where streams are cut that the infinite horizon is asked of, the mean of a right estimate on such streams stands for the
truth, each in turn, and the nearest counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.tasks import Scenario
from bilevelrl.tasks.scenarios import Truth
from bilevelrl.verification.cards.card import Mistake
from bilevelrl.verification.causes.explain import part_causes, planted_causes
from bilevelrl.verification.causes.explanation import Cause
from bilevelrl.verification.checks.enumerated import Enumerated
from bilevelrl.verification.checks.identity import Identity
from bilevelrl.verification.checks.truncation import truncated_truths

__all__ = ["FAR", "MOST_PATHS", "NOT_COMPUTED", "NO_EFFECT", "SAME", "TOLD_APART", "told_apart"]

Effect: TypeAlias = Callable[[Scenario, Truth], FloatArray | None]

TOLD_APART, SAME, NO_EFFECT, NOT_COMPUTED = "told apart", "same", "no effect", "not computed"

FAR = 1e3
"""Tolerances at which a mistake is told apart beyond doubt: no further scenario is asked."""

MOST_PATHS = 20_000
"""Scenarios with more paths are not asked: a hundred mistakes would be enumerated there."""

_EFFECT_KNOWN_TO = 1e-9  # effects are themselves differences of two means


def told_apart(seen: Iterable[Enumerated], causes: Iterable[Cause] | None = None) -> tuple[Mistake, ...]:
    """Hold an estimator's exact means against those of every known mistake.

    Parameters
    ----------
    seen
        Exact moments of the estimator on scenarios; those with more than `MOST_PATHS` paths are left out.
    causes
        Mistakes; default: everything known of each kind of problem.

    Examples
    --------
    >>> from bilevelrl.estimators import NaivePGD
    >>> from bilevelrl.tasks import scenario
    >>> from bilevelrl.verification.checks.deterministic import enumerate_scenario
    >>> from bilevelrl.verification.causes.explain import part_causes
    >>> found = told_apart([enumerate_scenario(NaivePGD(), scenario("toll"))], part_causes())
    >>> [mistake.name for mistake in found if mistake.outcome == "same"]
    ['the response part is missing']
    """
    # The cheapest first: most mistakes show on the smallest problems.
    order = sorted((f for f in seen if f.moments.paths <= MOST_PATHS), key=lambda found: found.moments.paths)
    given = None if causes is None else tuple(causes)
    found: dict[str, Mistake] = {}
    kinds: list[type] = [type(entry.scenario.problem) for entry in order]
    for kind in dict.fromkeys(kinds):
        own = [entry for entry in order if type(entry.scenario.problem) is kind]
        for cause in _known_of(kind) if given is None else given:
            held = _held(cause, own)
            found[cause.name] = min(found.get(cause.name, held), held, key=_order)  # where it is told best
    return tuple(found.values())


def _order(mistake: Mistake) -> tuple[int, float]:
    return (TOLD_APART, SAME, NO_EFFECT, NOT_COMPUTED).index(mistake.outcome), -(mistake.distance or 0.0)


@lru_cache(maxsize=8)
def _known_of(kind: type) -> tuple[Cause, ...]:
    """The known mistakes of a kind of problem; the cards of all estimators ask for the same effects."""
    listed = (*part_causes(), *planted_causes(kind))
    return tuple(Cause(name=cause.name, effect=_remembered(cause.effect)) for cause in listed)


def _remembered(effect: Effect) -> Effect:
    kept = lru_cache(maxsize=1024)(lambda on, truth: effect(on, truth.objects[0]))
    return lambda on, truth: kept(on, Identity(truth))


def _held(cause: Cause, seen: list[Enumerated]) -> Mistake:
    largest, where, known, matters = -1.0, "", False, False
    for found in seen:
        cuts = truncated_truths(found.scenario, found.target).values()
        nearest = np.inf
        for truth in cuts or (found.truth,):
            effect = cause.effect(found.scenario, truth)
            if effect is None:
                continue
            known = True
            allowed = found.tolerance + truth.error_bound + _EFFECT_KNOWN_TO * np.abs(effect)
            slack = np.maximum(allowed, np.finfo(np.float64).tiny)
            matters |= bool((np.abs(effect) > slack).any())
            with np.errstate(over="ignore"):
                off = np.abs(found.moments.mean - truth.value - effect)
                nearest = min(nearest, float((off / slack).max(initial=0.0)))  # (1)
        distance = min(nearest, float(np.finfo(np.float64).max)) if np.isfinite(nearest) else -1.0
        if distance > largest:
            largest, where = distance, found.scenario.name
        if distance > FAR:
            break
    if not known:
        return Mistake(name=cause.name, outcome=NOT_COMPUTED)
    outcome = TOLD_APART if largest > 1.0 else SAME if matters else NO_EFFECT
    return Mistake(name=cause.name, outcome=outcome, scenario=where, distance=largest)
