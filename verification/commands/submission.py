"""`bilevelrl certify --check-problem FILE`: a new problem for the certified data, checked by anyone who has it.

Everything that the file claims is recomputed from its exact numbers, in balls, to half as many digits again: what is
stored has to meet that, to be as tight as the format promises, and to sum up; difficulty and name have to fit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from importlib import resources
from typing import TYPE_CHECKING, Any

from bilevelrl.reference import certified_hypergradient
from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.tasks import reference_problem
from bilevelrl.tasks.generators import digits_surviving_rounding, level_of, parse_json, problem_to_json
from bilevelrl.tasks.scenarios import DATA_DIGITS, StoredNumber, parse_reference_problem, reference_names

if TYPE_CHECKING:
    from bilevelrl.reference.certified import Enclosure

__all__ = ["check_problem"]

_SPARE = 15
_DRAWS_DIFFER = 1.0
"""Digits by which three draws of last bits may differ from three others: a factor of ten in the worst of them."""


def check_problem(text: str, *, where: str = "problem") -> list[str]:
    """Return what does not hold of a problem file for the certified data, one line each; none if all holds.

    Raises
    ------
    InvalidInputError, ShapeError, UnknownNameError
        If the file is malformed, so that there is no problem to check.
    MissingExtraError
        If python-flint is not installed.

    Examples
    --------
    >>> from importlib import resources
    >>> text = (resources.files("bilevelrl.tasks") / "data" / "mdp_one_state.json").read_text("utf-8")
    >>> check_problem(text)
    []
    >>> check_problem(text.replace('"level": "easy"', '"level": "cruel"'))
    ["difficulty: level 'cruel'; 15.2 digits in double are 'easy'"]
    """
    stored = parse_reference_problem(text, where)
    record = parse_json(text, where)
    found = list(_unknown_keys(record, _schema(), "file"))
    form = stored.closed_form
    if problem_to_json(form) != record["problem"]:
        found.append("problem: not in its shortest form (zeros, order, or numbers written otherwise)")
    if (
        stored.name in reference_names()
        and problem_to_json(reference_problem(stored.name).closed_form) != record["problem"]
    ):
        found.append(f"name: {stored.name!r} is another problem of the data; choose a new one")
    fresh = certified_hypergradient(form, digits=DATA_DIGITS + _SPARE)
    if set(stored.parts) != set(fresh.parts):
        found.append(f"answer: parts {sorted(stored.parts)}; a {form.kind} has {sorted(fresh.parts)}")
    proven: dict[str, Sequence[Enclosure]] = dict(fresh.parts.items())
    columns: dict[str, tuple[Sequence[StoredNumber], Sequence[Enclosure]]] = {
        "objective": ([stored.objective], [fresh.objective]),
        "gradient": (stored.gradient, fresh.value),
        **{name: (stored.parts[name], proven[name]) for name in stored.parts if name in proven},
    }
    for name, (ours, theirs) in columns.items():
        found += [
            f"{name}[{i}]: stored {float(entry):.17g}; in balls {float(truth):.17g}, and the two do not meet"
            for i, (entry, truth) in enumerate(zip(ours, theirs, strict=True))
            if not _meet(entry, truth)
        ]
    found += _loose({name: ours for name, (ours, _) in columns.items()})
    for j, total in enumerate(stored.gradient):
        parts = [column[j] for column in stored.parts.values()]
        if abs(sum(part.value for part in parts) - total.value) > total.radius + sum(part.radius for part in parts):
            found.append(f"gradient[{j}]: the parts do not sum to it")
    survive = digits_surviving_rounding(form, fresh, entropy=_entropy(record))
    if abs(survive - stored.digits_in_double) > _DRAWS_DIFFER:
        found.append(f"difficulty: digits_in_double {stored.digits_in_double}; measured {survive}")
    if stored.level != level_of(stored.digits_in_double):
        right = level_of(stored.digits_in_double)
        found.append(f"difficulty: level {stored.level!r}; {stored.digits_in_double} digits in double are {right!r}")
    if not abs(stored.condition - fresh.condition) <= 1e-3 * fresh.condition:
        found.append(f"difficulty: condition {stored.condition:g}; found {fresh.condition:.4g}")
    return found


def _schema() -> dict[str, Any]:
    text = (resources.files("bilevelrl.tasks") / "data" / "schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def _unknown_keys(
    value: Any, schema: Mapping[str, Any], where: str, top: Mapping[str, Any] | None = None
) -> Iterator[str]:
    """Keys that the schema does not have, or wants; types and values are the parser's business."""
    top = top or schema
    if "$ref" in schema:
        schema = top["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        for i, entry in enumerate(value):
            yield from _unknown_keys(entry, schema["items"], f"{where}[{i}]", top)
    if not isinstance(value, dict):
        return
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for key in schema.get("required", ()):
        if key not in value:
            yield f"{where}: key {key!r} is missing"
    for key, entry in value.items():
        if key in known:
            yield from _unknown_keys(entry, known[key], f"{where}.{key}", top)
        elif others is False:
            yield f"{where}: key {key!r} is unknown to the schema"
        elif isinstance(others, dict):
            yield from _unknown_keys(entry, others, f"{where}.{key}", top)


def _meet(stored: StoredNumber, fresh: Enclosure) -> bool:
    """Whether two proofs can both be right."""
    value, radius = (Fraction(text) for text in fresh.decimal(2 * DATA_DIGITS))
    return abs(stored.value - value) <= stored.radius + radius


def _loose(columns: Mapping[str, Sequence[StoredNumber]]) -> Iterator[str]:
    """Numbers with fewer digits than promised: of their own size, or where they vanish beside the largest, of that."""
    unit = Fraction(1, 10**DATA_DIGITS)
    largest = max(abs(entry.value) for column in columns.values() for entry in column)
    for name, column in columns.items():
        for i, entry in enumerate(column):
            if entry.radius > unit * max(abs(entry.value), unit * largest):
                size = f"radius {float(entry.radius):.2g} of {float(entry):.2g}"
                yield f"{name}[{i}]: {size}: fewer than {DATA_DIGITS} digits"


def _entropy(record: Mapping[str, Any]) -> int:
    entropy = record["provenance"].get("entropy", 0) if isinstance(record["provenance"], dict) else None
    if isinstance(entropy, bool) or not isinstance(entropy, int) or entropy < 0:
        raise InvalidInputError(refusal("provenance.entropy", entropy, "an integer >= 0", "leave it out, or write 0"))
    return entropy
