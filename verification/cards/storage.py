"""Cards as JSON with a version, written whole and read back to the same card."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from bilevelrl.estimators import Claim
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.reference.storage import write_atomically
from bilevelrl.verification.cards.card import Card, Mistake, Place
from bilevelrl.verification.checks.verdicts import Outcome
from bilevelrl.verification.reading.draws import read_text

__all__ = ["CARD_FORMAT", "CARD_VERSION", "card_json", "parse_card", "read_card", "save_card"]

CARD_FORMAT = "bilevelrl-card"
CARD_VERSION = 1


def card_json(card: Card) -> str:
    """Return a card as JSON, with what it says of itself (headline, power) for readers in other languages."""
    record = {
        "format": CARD_FORMAT,
        "version": CARD_VERSION,
        "headline": card.headline,
        "power": card.power,
        "passed": card.passed,
        **asdict(card),
    }
    return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def parse_card(text: str, where: str = "card") -> Card:
    """Return the card of a JSON text.

    Raises
    ------
    InvalidInputError
        If it is no card, of a newer version, or says of itself what its rows do not.
    """
    try:
        record = json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError) as broken:
        raise InvalidInputError(f"{where}: is no JSON ({broken}); expected a card of `bilevelrl card`") from None
    if not isinstance(record, dict) or record.get("format") != CARD_FORMAT:
        raise InvalidInputError(
            f"{where}: expected an object with format {CARD_FORMAT!r}; make one by `bilevelrl card`"
        )
    version = record.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= CARD_VERSION:
        raise InvalidInputError(refusal(f"{where}: version", version, f"at most {CARD_VERSION}", "upgrade bilevelrl"))
    places = tuple(_record(Place, entry, f"{where}: places[{i}]") for i, entry in _listed(record, "places", where))
    mistakes = tuple(
        _record(Mistake, entry, f"{where}: mistakes[{i}]") for i, entry in _listed(record, "mistakes", where)
    )
    said = {"format", "version", "headline", "power", "passed"}
    rest = {key: value for key, value in record.items() if key not in said}
    kinds = tuple(entry for _, entry in _listed(record, "kinds", where))
    if not all(isinstance(kind, str) for kind in kinds):
        raise InvalidInputError(refusal(f"{where}: kinds", kinds, "names", "make the card again"))
    theta = record.get("theta")
    if theta is not None:
        theta = tuple(_number(entry, f"{where}: theta[{i}]") for i, entry in _listed(record, "theta", where))
    card: Card = _record(Card, {**rest, "kinds": [], "places": [], "mistakes": [], "theta": []}, where)
    card = replace(card, kinds=kinds, places=places, mistakes=mistakes, theta=theta)
    known = {outcome.value for outcome in Outcome}
    claims = [claim.name.lower() for claim in Claim]
    for place in places:
        if place.claim not in claims:
            remedy = "make the card again"
            raise InvalidInputError(refusal(f"{where}: {place.scenario}", place.claim, f"one of {claims}", remedy))
        if place.outcome not in known:
            raise InvalidInputError(
                refusal(f"{where}: {place.scenario}: outcome", place.outcome, f"one of {sorted(known)}", "mend it")
            )
    for name, found in (("headline", card.headline), ("power", card.power), ("passed", card.passed)):
        if record.get(name) != found:
            raise InvalidInputError(
                refusal(
                    f"{where}: {name}", record.get(name), f"{found!r}, which its rows come to", "make the card again"
                )
            )
    return card


@checked
def read_card(path: str | Path) -> Card:
    """Read a card.

    Raises
    ------
    InvalidInputError
        If the file cannot be read, or as `parse_card`.
    """
    return parse_card(read_text(path), str(path))


@checked
def save_card(card: Card, path: str | Path) -> Path:
    """Write a card as JSON, whole or not at all, and return the path.

    Examples
    --------
    >>> import tempfile
    >>> from bilevelrl.tasks import scenario
    >>> from bilevelrl.verification.cards import make_card
    >>> card = make_card("bc_hg", on=[scenario("toll")], mistakes=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     read_card(save_card(card, Path(folder) / "bc_hg.json")) == card
    True
    """
    return write_atomically(path, card_json(card))


def _listed(record: Mapping[str, Any], key: str, where: str) -> list[tuple[int, Any]]:
    found = record.get(key)
    if not isinstance(found, list):
        raise InvalidInputError(refusal(f"{where}: {key}", found, "a list", "make the card again"))
    return list(enumerate(found))


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InvalidInputError(refusal(where, value, "a finite number", "make the card again"))
    return float(value)


_TEXT, _NUMBER = (str,), (float, int)
_TYPES: dict[str, tuple[type, ...]] = {
    "str": _TEXT,
    "float": _NUMBER,
    "int": (int,),
    "float | None": (*_NUMBER, type(None)),
    "int | None": (int, type(None)),
    "Mapping[str, float]": _NUMBER,
    "Mapping[str, str]": _TEXT,
}
"""Of an entry, or of the values of a mapping; all else is a list."""


def _record(made: Any, entry: Any, where: str) -> Any:
    """A dataclass of this package from an object, its entries held against their types."""
    expected = {field.name: str(field.type) for field in fields(made)}
    if not isinstance(entry, dict) or set(entry) != set(expected):
        found = sorted(set(entry) ^ set(expected)) if isinstance(entry, dict) else type(entry).__name__
        raise InvalidInputError(refusal(where, found, f"an object with {', '.join(expected)}", "make the card again"))
    for name, kind in expected.items():
        value = entry[name]
        mapping = kind.startswith("Mapping")
        if mapping is not isinstance(value, dict) or not all(
            isinstance(one, _TYPES.get(kind, (list,)))
            and not isinstance(one, bool)
            and not (isinstance(one, float) and not math.isfinite(one))
            for one in (value.values() if mapping else [value])
        ):
            raise InvalidInputError(refusal(f"{where}: {name}", value, kind, "make the card again"))
    return made(**entry)


def _refused(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
