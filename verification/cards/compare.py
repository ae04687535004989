"""Two cards of one estimator: what changed, and whether a claim broke."""

from __future__ import annotations

from dataclasses import dataclass

from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.verification.cards.card import RIGHT, Card, Place
from bilevelrl.verification.checks.verdicts import Outcome

__all__ = ["Change", "compare_cards"]

SAME_TO = 1e-6
"""Relative difference of numbers that another machine's rounding explains, beside what a verdict would have seen."""

_STRENGTH = ("measured", "declared", "unbiased")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something that is not as it was.

    Attributes
    ----------
    what : str
        One line.
    broke : bool
        Whether a claim that held does not any more.
    number : bool
        Whether an exact number, a verdict or a claim is another, and not only software, cost or what is asked.
    """

    what: str
    broke: bool = False
    number: bool = False


@checked
def compare_cards(old: Card, new: Card) -> list[Change]:
    """Return what changed from one card of an estimator to another; processor times are not compared.

    A claim broke where a scenario that passed fails, or is not judged any more, or less is claimed than was.

    Raises
    ------
    InvalidInputError
        If the cards are of different estimators.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from bilevelrl.tasks import scenario
    >>> from bilevelrl.verification.cards import make_card
    >>> new = make_card("bc_hg", on=[scenario("toll")], mistakes=False)
    >>> compare_cards(new, new)
    []
    >>> old = replace(new, versions={**new.versions, "numpy": "2.0.0"})
    >>> [change.what.partition(" → ")[0] for change in compare_cards(old, new)]
    ['numpy: 2.0.0']
    """
    if old.source != new.source:
        raise InvalidInputError(refusal("old", old.source, f"a card of {new.source}", "compare cards of one estimator"))
    changes: list[Change] = []
    before = {(place.kind, place.scenario): place for place in old.places}
    after = {(place.kind, place.scenario): place for place in new.places}
    for key, place in before.items():
        if key in after:
            changes.extend(_changed(place, after[key]))
        else:
            lost = place.outcome in RIGHT
            changes.append(Change(what=f"{place.scenario}: {place.outcome} → not asked", broke=lost, number=lost))
    for key, place in after.items():
        if key not in before:
            broke = place.outcome == Outcome.FAILED.value
            changes.append(Change(what=f"{place.scenario}: new, {place.outcome}", broke=broke, number=broke))
    changes.extend(_mistakes(old, new))
    for name in sorted({*old.versions, *new.versions}):
        one, other = old.versions.get(name, "none"), new.versions.get(name, "none")
        if one != other:
            changes.append(Change(what=f"{name}: {one} → {other}"))
    for name in sorted({*old.sources, *new.sources}):
        if old.sources.get(name) != new.sources.get(name):
            changes.append(Change(what=f"sources of {name}: changed"))
    return changes


def _changed(old: Place, new: Place) -> list[Change]:
    changes = []
    if old.claim != new.claim:
        weaker = new.claim not in _STRENGTH[_STRENGTH.index(old.claim) :]
        changes.append(Change(what=f"{new.scenario}: claims {old.claim} → {new.claim}", broke=weaker, number=True))
    if old.outcome != new.outcome:
        broke = (old.outcome in RIGHT and new.outcome not in RIGHT) or new.outcome == Outcome.FAILED.value
        what = f"{new.scenario}: {old.outcome} → {new.outcome}: {new.reason}"
        changes.append(Change(what=what, broke=broke, number=True))
    slack = max(old.would_see or 0.0, new.would_see or 0.0)
    pairs = {
        "bias": (old.bias, new.bias),
        **{
            f"bias of the {part} part": (old.parts.get(part), new.parts.get(part))
            for part in {**old.parts, **new.parts}
        },
        "standard deviation": (old.standard_deviation, new.standard_deviation),
    }
    for name, (one, other) in pairs.items():
        if not _same(one, other, slack):
            changes.append(Change(what=f"{new.scenario}: {name}: {_shown(one)} → {_shown(other)}", number=True))
    if old.target != new.target:
        changes.append(Change(what=f"{new.scenario}: target: {old.target} → {new.target}", number=True))
    for name in {**old.steps, **new.steps}:
        one, other = old.steps.get(name), new.steps.get(name)
        if not _same(one, other, 0.0):
            changes.append(Change(what=f"{new.scenario}: {name}: {_shown(one)} → {_shown(other)}"))
    return changes


def _mistakes(old: Card, new: Card) -> list[Change]:
    before = {mistake.name: mistake.outcome for mistake in old.mistakes}
    changes = []
    for mistake in new.mistakes:
        was = before.get(mistake.name)
        if was is not None and was != mistake.outcome:
            same = mistake.outcome == "same"
            changes.append(Change(what=f"mistake “{mistake.name}”: {was} → {mistake.outcome}", number=same))
    added = [mistake for mistake in new.mistakes if mistake.name not in before]
    gone = set(before) - {mistake.name for mistake in new.mistakes}
    if added and before:
        changes.append(Change(what=f"known mistakes: {len(added)} more"))
    if gone and new.mistakes:
        changes.append(Change(what=f"known mistakes: {len(gone)} fewer"))
    return changes


def _same(one: float | None, other: float | None, slack: float) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= max(slack, SAME_TO * max(abs(one), abs(other)))


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"
