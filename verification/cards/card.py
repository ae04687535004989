"""An estimator card as data: one row per scenario, one per known mistake, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bilevelrl.verification.checks.verdicts import Outcome

__all__ = ["RIGHT", "Card", "Mistake", "Place", "headline_of", "power_of"]

RIGHT = (Outcome.PASSED.value, Outcome.EXPECTED.value)
"""Verdicts that say that the estimator is what it claims to be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An estimator on one scenario. Sizes are relative to the norm of the truth; None: there is no such number.

    Attributes
    ----------
    scenario, kind, target, claim : str
        Where, the class of the problem, the truth that the estimator is held against there, and what it claims there.
    temperature : float
        β.
    outcome, reason : str
        The verdict and one sentence on it.
    check : str
        Which check it is of: "bias", or the one that failed.
    method : str
        "enumeration", "quadrature", or empty where nothing could be computed.
    draws : int
        Paths, nodes or batches that were listed.
    truth_norm, bias, off_claim, would_see : float or None
        Norm of the truth; size of the bias; of the difference from what is claimed; smallest bias that would be seen.
    cut : float or None
        How much of the truth a right estimate lacks, for its streams are cut and its target is not; biases are from the
        mean of such an estimate. None: nothing is cut.
    tested : {part: float}
        Norm of each part of the truth; 0: an estimator without it is not told from one with it.
    parts : {part: float}
        Size of the bias of each part, where parts are told.
    standard_deviation : float or None
        Root of the trace of one draw's covariance.
    draws_for_tenth : float or None
        Independent draws whose mean has a root mean square error of a tenth of the truth; None: no number of draws.
    steps : {name: float}
        Steps that one draw costs, as the estimator declares them, over sampled draws.
    cpu : float or None
        Seconds of processor time of one call.

    Examples
    --------
    >>> Place(scenario="toll", kind="ConfigurableMDP", target="infinite horizon", claim="unbiased", temperature=1.0,
    ...       outcome="passed", reason="agrees").judged
    True
    """

    scenario: str
    kind: str
    target: str
    claim: str
    temperature: float
    outcome: str
    reason: str
    check: str = "bias"
    method: str = ""
    draws: int = 0
    truth_norm: float | None = None
    bias: float | None = None
    off_claim: float | None = None
    would_see: float | None = None
    cut: float | None = None
    tested: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, float] = field(default_factory=dict)
    standard_deviation: float | None = None
    draws_for_tenth: float | None = None
    steps: Mapping[str, float] = field(default_factory=dict)
    cpu: float | None = None

    @property
    def judged(self) -> bool:
        """Whether the estimator was found right or wrong here."""
        return self.outcome in (*RIGHT, Outcome.FAILED.value)

    @property
    def computed(self) -> bool:
        """Whether its mean is known here."""
        return self.bias is not None

    @property
    def biased(self) -> bool:
        """Whether its mean is known not to be the truth."""
        return self.bias is not None and self.would_see is not None and self.bias > self.would_see


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """A known mistake beside an estimator's expectation.

    Attributes
    ----------
    name : str
        What is wrong.
    outcome : str
        "told apart"; "same": it has this effect wherever it has one; "no effect": on none of the scenarios;
        "not computed".
    scenario : str
        Where its expectation is farthest from the estimator's.
    distance : float or None
        How far, in units of what rounding allows; the search ends at a scenario that tells it by far.
    """

    name: str
    outcome: str
    scenario: str = ""
    distance: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """Everything that a card says; its writings are made from this alone.

    Attributes
    ----------
    estimator, source, summary, level : str
        Its name in tables, what to give to `bilevelrl card` to make the card again, what it is.
    claim, claim_said, draw : str
        What it promises of its expectation, in words ("unbiased or declared" where that depends on the target) and in
        sentences; what one draw is.
    problem : str
        The problem of one's own that it was made on, by its name; empty: the package's scenarios.
    theta, horizon
        The leader's parameter and the steps of a stream on that problem; else None.
    accuracy : float
        Error relative to the largest part of the truth that was allowed beside rounding.
    kinds : tuple of str
        Kinds of problem whose scenarios were asked.
    places : tuple of Place
        One per scenario.
    mistakes : tuple of Mistake
        One per known mistake.
    cause : str
        The likely cause of what failed.
    seed : int
        Root of the draws that costs are read from.
    versions, sources : mapping
        Software, and digests of the sources: of the estimator's file, and of this package.
    seconds : float
        Processor time that the card took.
    """

    estimator: str
    source: str
    summary: str
    level: str
    claim: str
    claim_said: str
    draw: str
    problem: str = ""
    theta: tuple[float, ...] | None = None
    horizon: int | None = None
    accuracy: float = 0.0
    kinds: tuple[str, ...]
    places: tuple[Place, ...]
    mistakes: tuple[Mistake, ...]
    cause: str
    seed: int
    versions: Mapping[str, str]
    sources: Mapping[str, str]
    seconds: float

    @property
    def failures(self) -> tuple[Place, ...]:
        """Where it is not what it claims to be."""
        return tuple(place for place in self.places if place.outcome == Outcome.FAILED.value)

    @property
    def passed(self) -> bool:
        """Whether it was found to be what it claims on more than half of what is claimed, and wrong nowhere."""
        claimed = [place for place in self.places if place.outcome != Outcome.MEASURED.value]
        return 2 * sum(place.judged for place in claimed) > len(claimed) and not self.failures

    @property
    def headline(self) -> str:
        """What it comes to, with the denominator."""
        return headline_of(self.places)

    @property
    def power(self) -> str:
        """The smallest bias that would have been seen everywhere, and where least can be seen."""
        return power_of(self.places)

    def mistaken(self, outcome: str) -> tuple[Mistake, ...]:
        """Return the known mistakes with an outcome.

        Parameters
        ----------
        outcome
            As in `Mistake`.
        """
        return tuple(mistake for mistake in self.mistakes if mistake.outcome == outcome)


def counted(places: Sequence[Place]) -> dict[str, int]:
    """Return {outcome: how many places}, in the order of outcomes, without zeros."""
    counts = {outcome.value: sum(place.outcome == outcome.value for place in places) for outcome in Outcome}
    return {outcome: count for outcome, count in counts.items() if count}


def headline_of(places: Sequence[Place]) -> str:
    """Return on how many of how many scenarios an estimator is what it claims to be, and what became of the others."""
    counts = ", ".join(f"{count} {outcome}" for outcome, count in counted(places).items())
    if all(place.claim == "measured" for place in places):
        known = [place for place in places if place.computed]
        return f"claims nothing: measured on {len(known)} of {len(places)} scenarios ({counts})"
    right = sum(place.outcome in RIGHT for place in places)
    if any(place.outcome == Outcome.FAILED.value for place in places):
        word = "BREAKS its claim, and keeps it"
    else:
        word = "keeps its claim" if right else "could not be judged: keeps its claim"
    judged = [place.tested for place in places if place.judged and place.tested]
    parts = dict.fromkeys(part for tested in judged for part in tested)
    missing = [part for part in parts if not any(tested.get(part, 0.0) > 0.0 for tested in judged)]
    absent = f", but for parts that are 0 there: {', '.join(missing)}" if missing else ""
    return f"{word} on {right} of {len(places)} scenarios ({counts}){absent}"


def power_of(places: Sequence[Place]) -> str:
    """Return the smallest bias that would have been seen on every scenario that was judged."""
    seen = [(place.would_see, place.scenario) for place in places if place.judged and place.would_see is not None]
    if not seen:
        return "no bias, however large, would have been seen"
    least, where = max(seen)
    return f"a bias of {least:.1g} of the truth would have been seen wherever it was judged (least is seen on {where})"
