"""Closed-form problems as JSON, in a format that needs no Python to read.

A JSON number is the IEEE double next to its literal; a string "p/q" or a decimal string is that rational exactly. All
indices are flat, in C order, and count from zero. The format is documented in `docs/reference_data.md` and, for
machines, in `tasks/data/schema.json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from bilevelrl.reference.certified import ClosedForm, ClosedFormTable, Exact, FeatureBlock
from bilevelrl.reference.errors import InvalidInputError, ShapeError, UnknownNameError, refusal

__all__ = ["parse_json", "problem_from_json", "problem_to_json", "read_number"]

MOST_DIGITS = 4000
"""Of a decimal, and of the power of ten that it is multiplied by: beyond, exact arithmetic takes for ever."""
_DECIMAL = re.compile(r"\s*[+-]?(\d+(/\d+)?|(?=\.?\d)\d*\.?\d*([eE](?P<exponent>[+-]?\d+))?)\s*", re.ASCII)


_TABLE_KEYS = ("shape", "base", "slope", "quadratic", "link", "support", "scale")
_CONSTANTS = ("discount_leader", "discount_follower", "temperature")
_PROBLEM_KEYS = (
    *_CONSTANTS, "horizon", "discounted", "follower_sees_leader_action", "theta", "features", "tables",
)  # fmt: skip


def parse_json(text: str, where: str) -> Any:
    """Return what a JSON text says.

    Raises
    ------
    InvalidInputError
        If it is no JSON, names a key twice, is nested deeper or has integers longer than can be read.

    Examples
    --------
    >>> parse_json('{"a": 1, "a": 2}', "results")
    Traceback (most recent call last):
        ...
    bilevelrl.reference.errors.InvalidInputError: results: key 'a' is there twice; expected each once; leave one out
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise InvalidInputError(f"{where}: key {key!r} is there twice; expected each once; leave one out")
            found[key] = value
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)
    except InvalidInputError:
        raise
    except RecursionError:
        raise InvalidInputError(
            f"{where}: text is not JSON that can be read; expected a few levels, not hundreds"
        ) from None
    except ValueError as broken:
        raise InvalidInputError(
            f"{where}: text is not JSON ({broken}); expected one JSON object; see the format"
        ) from None


def read_number(value: Any, where: str = "number") -> Exact:
    """Return the exact meaning of a JSON number or string.

    Raises
    ------
    InvalidInputError
        If it is neither a finite number nor a string of one, or has more digits than `MOST_DIGITS` or a larger power.

    Examples
    --------
    >>> read_number(0.5), read_number("1/3"), read_number("1.5e1"), read_number(2)
    (0.5, Fraction(1, 3), Fraction(15, 1), 2)
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf"):
        return value
    if isinstance(value, str) and (decimal := _DECIMAL.fullmatch(value)):
        exponent = decimal["exponent"] or "0"
        # The length first: an exponent may itself have more digits than are read.
        if len(value) > MOST_DIGITS or len(exponent) > 9 or abs(int(exponent)) > MOST_DIGITS:
            raise InvalidInputError(
                refusal(where, value, f"at most {MOST_DIGITS} digits, and powers of ten", "round it")
            )
        try:
            return Fraction(value)
        except ZeroDivisionError:
            pass
    raise InvalidInputError(
        refusal(where, value, "a finite number, or a string such as '1/3' or '2.5e-7'", "write it so")
    )


def _write_number(value: Exact) -> int | float | str:
    if isinstance(value, Fraction):
        return value.numerator if value.denominator == 1 else f"{value.numerator}/{value.denominator}"
    return int(value) if float(value).is_integer() and abs(value) < 2**53 else value


def _numbers(values: Any, where: str) -> tuple[Exact, ...]:
    return tuple(read_number(value, where) for value in _listed(values, where))


def _listed(values: Any, where: str) -> Sequence[Any]:
    if not isinstance(values, list):
        raise InvalidInputError(refusal(where, values, "a list", "write it in brackets"))
    return values


def _indices(values: Any, where: str) -> list[int]:
    for value in _listed(values, where):
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidInputError(refusal(where, value, "integers", "count from zero in C order"))
    return list(values)


def _entry(record: Any, key: str, where: str) -> Any:
    if not isinstance(record, dict):
        raise InvalidInputError(refusal(where, record, "an object", "write it in braces"))
    if key not in record:
        raise InvalidInputError(refusal(where, sorted(record), f"also the key {key!r}", "see the schema"))
    return record[key]


def _only(record: Any, known: Sequence[str], where: str) -> None:
    """Refuse keys that nobody reads: a misspelt `horizon` would be none."""
    for key in record if isinstance(record, dict) else ():
        if key not in known:
            raise UnknownNameError(f"{where}: key", key, known)


def _flag(record: Mapping[str, Any], key: str) -> bool:
    value = record.get(key, True)
    if not isinstance(value, bool):
        raise InvalidInputError(refusal(f"problem.{key}", value, "true or false", "write it without quotes"))
    return value


def _base(record: Any, where: str) -> dict[int, Exact]:
    rows = _columns(record, ("index",), where)
    found = dict(rows)
    if len(found) != len(rows):
        raise InvalidInputError(refusal(f"{where}.index", [i for i, _ in rows], "each index once", "add the numbers"))
    return found


def _columns(record: Mapping[str, Any], keys: Sequence[str], where: str) -> list[tuple[Any, ...]]:
    _only(record, (*keys, "value"), where)
    columns: list[Sequence[Any]] = [_indices(_entry(record, key, where), f"{where}.{key}") for key in keys]
    columns.append(_numbers(_entry(record, "value", where), f"{where}.value"))
    if len({len(column) for column in columns}) != 1:
        raise ShapeError(refusal(where, [len(c) for c in columns], "lists of one length", "one entry per position"))
    return list(zip(*columns, strict=True))


def _table(record: Any, where: str) -> ClosedFormTable:
    scale = record.get("scale", 1) if isinstance(record, dict) else 1
    _only(record, _TABLE_KEYS, where)
    shape = _indices(_entry(record, "shape", where), f"{where}.shape")
    return ClosedFormTable(
        shape=tuple(shape),
        base=_base(record["base"], f"{where}.base") if "base" in record else {},
        slope=tuple(_columns(record["slope"], ("index", "feature"), f"{where}.slope")) if "slope" in record else (),
        quadratic=(
            tuple(_columns(record["quadratic"], ("index", "first", "second"), f"{where}.quadratic"))
            if "quadratic" in record
            else ()
        ),
        link=record.get("link", "identity"),
        support=tuple(_indices(record["support"], f"{where}.support")) if "support" in record else None,
        scale=_numbers(scale, f"{where}.scale") if isinstance(scale, list) else read_number(scale, f"{where}.scale"),
    )


def problem_from_json(record: Any, *, name: str, kind: Any) -> ClosedForm:
    """Return the closed form that a JSON object describes.

    Raises
    ------
    InvalidInputError, ShapeError, UnknownNameError
        Naming the key that is missing or wrong.

    Examples
    --------
    >>> number = {"shape": [1], "base": {"index": [0], "value": [1]}}
    >>> pair = {"shape": [1, 1], "base": {"index": [0], "value": ["1/3"]}}
    >>> problem = problem_from_json(
    ...     {"discount_leader": 0.5, "discount_follower": "9/10", "temperature": 1, "theta": [],  "features": [],
    ...      "tables": {"transition": {"shape": [1, 1, 1], "base": {"index": [0], "value": [1]}}, "initial": number,
    ...                 "reward_follower": pair, "reward_leader": pair}}, name="one state", kind="configurable_mdp")
    >>> problem.discount_follower, problem.horizon
    (Fraction(9, 10), None)
    """
    tables = _entry(record, "tables", "problem")
    if not isinstance(tables, dict):
        raise InvalidInputError(refusal("problem.tables", tables, "an object", "one entry per table"))
    _only(record, _PROBLEM_KEYS, "problem")
    features = []
    for number, block in enumerate(_listed(_entry(record, "features", "problem"), "problem.features")):
        where = f"problem.features[{number}]"
        _only(block, ("link", "length", "offset"), where)
        features.append(
            FeatureBlock(
                link=_entry(block, "link", where),
                length=_indices([_entry(block, "length", where)], f"{where}.length")[0],
                offset=_numbers(block.get("offset", []), f"{where}.offset"),
            )
        )
    horizon = record.get("horizon")
    if horizon is not None and (isinstance(horizon, bool) or not isinstance(horizon, int) or horizon < 1):
        raise InvalidInputError(refusal("problem.horizon", horizon, "null or an integer >= 1", "count the steps"))
    constants = {key: read_number(_entry(record, key, "problem"), f"problem.{key}") for key in _CONSTANTS}
    return ClosedForm(
        kind=kind,
        name=name,
        tables={table: _table(entry, f"problem.tables.{table}") for table, entry in tables.items()},
        features=tuple(features),
        theta=_numbers(_entry(record, "theta", "problem"), "problem.theta"),
        discount_leader=constants["discount_leader"],
        discount_follower=constants["discount_follower"],
        temperature=constants["temperature"],
        horizon=horizon,
        discounted=_flag(record, "discounted"),
        follower_sees_leader_action=_flag(record, "follower_sees_leader_action"),
    )


def problem_to_json(problem: ClosedForm) -> dict[str, Any]:
    """Return the JSON object of a closed form; defaults are left out where a reader may assume them."""
    record: dict[str, Any] = {
        "discount_leader": _write_number(problem.discount_leader),
        "discount_follower": _write_number(problem.discount_follower),
        "temperature": _write_number(problem.temperature),
        "horizon": problem.horizon,
        "discounted": problem.discounted,
    }
    if problem.kind == "markov_game":
        record["follower_sees_leader_action"] = problem.follower_sees_leader_action
    record["theta"] = [_write_number(entry) for entry in problem.theta]
    record["features"] = [_feature_record(block) for block in problem.features]
    record["tables"] = {name: _table_record(table) for name, table in problem.tables.items()}
    return record


def _feature_record(block: FeatureBlock) -> dict[str, Any]:
    record: dict[str, Any] = {"link": block.link, "length": block.length}
    if any(entry != 0 for entry in block.offset):
        record["offset"] = [_write_number(entry) for entry in block.offset]
    return record


def _table_record(table: ClosedFormTable) -> dict[str, Any]:
    record: dict[str, Any] = {"shape": list(table.shape), "link": table.link}
    base = {place: number for place, number in sorted(table.base.items()) if number != 0}
    if base:
        record["base"] = {"index": list(base), "value": [_write_number(number) for number in base.values()]}
    if table.slope:
        record["slope"] = _column_record(table.slope, ("index", "feature", "value"))
    if table.quadratic:
        record["quadratic"] = _column_record(table.quadratic, ("index", "first", "second", "value"))
    if table.support is not None:
        record["support"] = list(table.support)
    if table.scale != 1:
        scale = table.scale
        record["scale"] = [_write_number(x) for x in scale] if isinstance(scale, tuple) else _write_number(scale)
    return record


def _column_record(rows: Sequence[tuple[Any, ...]], keys: Sequence[str]) -> dict[str, Any]:
    columns = list(zip(*rows, strict=True))
    record: dict[str, Any] = {key: list(column) for key, column in zip(keys, columns, strict=True)}
    record["value"] = [_write_number(number) for number in record["value"]]
    return record
