"""Likely causes of an error: which known mistake would have produced exactly this difference?

Every known mistake has a computable effect on every scenario: a missing part is off by minus that part, a missing 1/β
by (β - 1) times the response; the effect of every planted mistake of `MUTANTS` is computed by running it. An observed
difference is compared with all of them, the plain ones first. One scenario seldom tells two causes apart, several do: a
cause must explain what is seen where something is off, and must have no effect where nothing is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from bilevelrl.estimators import Claim
from bilevelrl.reference import PARTS
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked, checked_record
from bilevelrl.reference.errors import BilevelRLError, InvalidInputError
from bilevelrl.reference.problem import Part
from bilevelrl.tasks import Scenario
from bilevelrl.tasks.scenarios import Truth

__all__ = ["Cause", "Evidence", "Explanation", "explain", "part_causes", "planted_causes"]

_SHARE_OVER = 12
EXPLAINS = 0.9
"""A cause that explains less than this share of the squared difference is not named as likely."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A known mistake.

    Attributes
    ----------
    name : str
        In the words of a message: "the response part is missing".
    effect : function
        (scenario, truth) → (N,), what the mistake adds to the right answer; None where it cannot be computed.
    """

    name: str
    effect: Callable[[Scenario, Truth], FloatArray | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A difference seen on a scenario.

    Attributes
    ----------
    scenario : Scenario
        Where.
    truth : Truth
        What was compared with.
    difference : (N,)
        Found minus truth.
    uncertainty : (N,)
        Half-width of what the difference is known to: rounding, or a confidence interval.
    """

    scenario: Scenario
    truth: Truth
    difference: FloatArray
    uncertainty: FloatArray


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What a comparison with all known mistakes came to.

    Attributes
    ----------
    cause : str or None
        The nearest known mistake; None where nothing known comes near.
    share : float
        Share of the squared differences that it explains; 1: all.
    exact : bool
        Whether it agrees with every difference to within its uncertainty.
    alternatives : tuple of str
        Other mistakes that agree as well; the scenarios at hand do not tell them apart.

    Examples
    --------
    >>> print(Explanation(cause="the response part is missing", share=1.0, exact=True, alternatives=()))
    likely cause: the response part is missing (agrees with every difference)
    """

    cause: str | None
    share: float
    exact: bool
    alternatives: tuple[str, ...]

    def __str__(self) -> str:
        """One line."""
        if self.cause is None:
            return "likely cause: none of the known mistakes comes near; perhaps several at once"
        how = "agrees with every difference" if self.exact else f"explains {100 * self.share:.0f} % of the difference"
        others = f"; as would: {'; '.join(self.alternatives[:3])}" if self.alternatives else ""
        return f"likely cause: {self.cause} ({how}{others})"


def part_causes() -> tuple[Cause, ...]:
    """Return the mistakes whose effect follows from the parts of the truth alone.

    Examples
    --------
    >>> [cause.name for cause in part_causes()][:2]
    ['the initial part is missing', 'the direct part is missing']
    """
    parts: tuple[Part, ...] = (*PARTS, "policy")
    found = [_part_cause(f"the {part} part is missing", part, -1.0) for part in parts]
    found += [_part_cause(f"the {part} part has the wrong sign", part, -2.0) for part in parts]
    found += [_part_cause(f"the {part} part is counted twice", part, 1.0) for part in parts]
    found += [
        Cause(name=name, effect=_response_times(power))
        for name, power in (
            ("the factor 1/β of the response is missing", 1),
            ("the response is multiplied by β instead of divided by it", 2),
            ("the response is divided by β twice", -1),
        )
    ]
    found.append(Cause(name="the whole gradient has the wrong sign", effect=lambda _, truth: -2.0 * truth.value))
    found.append(Cause(name="the whole gradient is counted twice", effect=lambda _, truth: truth.value))
    return tuple(found)


@checked
def explain(evidence: Iterable[Evidence], causes: Iterable[Cause] | None = None) -> Explanation:
    """Return the known mistake that comes nearest to all differences together.

    Parameters
    ----------
    evidence
        Differences on one or more scenarios, also on those where nothing is off.
    causes
        Mistakes to compare with; default: everything known.

    Raises
    ------
    InvalidInputError
        If there is no evidence.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> layered = scenario("layered")
    >>> seen = Evidence(scenario=layered, truth=layered.truth, difference=-layered.truth.parts["response"],
    ...                 uncertainty=np.full(3, 1e-12))
    >>> explain([seen]).cause
    'the response part is missing'
    """
    seen = list(evidence)
    if not seen:
        raise InvalidInputError("evidence: expected at least one difference; check the estimator on a scenario first")
    # Where the difference is largest a wrong explanation fails first.
    seen.sort(key=_relative_size, reverse=True)
    scored: list[tuple[bool, float, str]] = []
    for listed in (part_causes(), planted_causes()) if causes is None else (tuple(causes),):
        found = (_score(cause, seen) for cause in listed)
        scored.extend(score for score in found if score is not None)
        if any(agrees for agrees, _, _ in scored):
            break
    # Sorting is stable: among equals the plainest cause, listed first, is named.
    scored.sort(key=lambda entry: (not entry[0], -round(entry[1], 9)))
    if not scored or not (scored[0][0] or scored[0][1] >= EXPLAINS):
        return Explanation(cause=None, share=scored[0][1] if scored else 0.0, exact=False, alternatives=())
    exact, share, name = scored[0]
    others = tuple(other for agrees, _, other in scored[1:] if exact and agrees)
    return Explanation(cause=name, share=share, exact=exact, alternatives=others)


@lru_cache(maxsize=1)
def planted_causes() -> tuple[Cause, ...]:
    """Return the mistakes of `MUTANTS`, in the words that say what each changes.

    Examples
    --------
    >>> len(planted_causes()) >= 40
    True
    """
    from bilevelrl.verification.mutants.catalogue import MUTANTS

    return tuple(
        Cause(name=f"{mutant.changes} (as mutant {mutant.name!r})", effect=_planted_effect(mutant.kind, mutant.make()))
        for mutant in MUTANTS.values()
    )


def _planted_effect(kind: str, wrong: Any) -> Callable[[Scenario, Truth], FloatArray | None]:
    difference = lru_cache(maxsize=128)(partial(_difference, kind, wrong))

    def effect(on: Scenario, truth: Truth) -> FloatArray | None:
        stored = on.truth if kind == "gradient" else on.target_truth
        return difference(on) if truth is stored else None

    return effect


def _difference(kind: str, wrong: Any, on: Scenario) -> FloatArray | None:
    """What a planted mistake adds; None where it breaks the contract or does not apply."""
    from bilevelrl.verification.checks.deterministic import enumerate_scenario, evaluate_gradient

    try:
        if kind == "gradient":
            return evaluate_gradient(wrong, on.problem, on.theta)[0] - on.truth.value
        return enumerate_scenario(wrong, on, claim=Claim.UNBIASED).bias
    except (BilevelRLError, np.linalg.LinAlgError):
        return None


def _relative_size(entry: Evidence) -> float:
    size = max(float(np.linalg.norm(entry.truth.value)), np.finfo(np.float64).tiny)
    return float(np.linalg.norm(entry.difference)) / size


def _score(cause: Cause, seen: list[Evidence]) -> tuple[bool, float, str] | None:
    """Whether a cause agrees everywhere, and the share of the squared difference that it explains, scenario by
    scenario.

    None where it has no effect at all. Once it has disagreed, the share is taken over the largest differences only.
    """
    agrees, anywhere = True, False
    shares: list[float] = []
    for place, entry in enumerate(seen):
        if not agrees and place >= _SHARE_OVER:
            break
        effect = cause.effect(entry.scenario, entry.truth)
        if effect is None:
            agrees = False  # nothing is known of it here, so it cannot be said to agree
            continue
        anywhere |= bool(effect.any())
        off = entry.difference - effect
        # Effects are themselves known to rounding only.
        slack = entry.uncertainty + 1e-9 * np.abs(effect)
        fits = bool((np.abs(off) <= slack).all())
        agrees &= fits
        size = float(np.sum(entry.difference**2))
        # A scenario where nothing is off counts only against a cause: it explains no difference there.
        if bool((np.abs(entry.difference) > entry.uncertainty).any()) or not fits:
            shares.append(max(0.0, 1.0 - float(np.sum(off**2)) / size) if size > 0.0 else 0.0)
    if not anywhere:
        return None
    return agrees, float(np.mean(shares)) if shares else float(agrees), cause.name


def _part_cause(name: str, part: Part, factor: float) -> Cause:
    return Cause(name=name, effect=lambda _, truth: factor * truth.parts[part] if part in truth.parts else None)


def _response_times(power: int) -> Callable[[Scenario, Truth], FloatArray]:
    def effect(on: Scenario, truth: Truth) -> FloatArray:
        result: FloatArray = (on.problem.temperature**power - 1.0) * truth.parts["response"]
        return result

    return effect
