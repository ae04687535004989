"""Reference data: problems with certified objectives and hypergradients, one JSON file each in `tasks/data/`.

Every stored number is a decimal midpoint and a radius; the truth lies within. They are read with the standard library
alone: comparing with them needs no ball arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from importlib import resources
from typing import Any

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.certified import ClosedForm, Exact
from bilevelrl.reference.doors import checked, checked_record
from bilevelrl.reference.errors import InvalidInputError, ShapeError, UnknownNameError, refusal
from bilevelrl.reference.problem import GAME_PARTS, PARTS, Objective
from bilevelrl.tasks.generators.closed_form_json import parse_json, problem_from_json, read_number
from bilevelrl.tasks.generators.closed_form_problems import build_problem, theta_of
from bilevelrl.tasks.scenarios.scenario import Provenance, Scenario, Truth

__all__ = [
    "DATA_DIGITS",
    "DATA_FORMAT",
    "DATA_VERSION",
    "ReferenceProblem",
    "StoredNumber",
    "agreeing_digits",
    "check_header",
    "parse_reference_problem",
    "reference_names",
    "reference_problem",
    "reference_problems",
]

DATA_FORMAT = "bilevelrl-reference-data"
DATA_VERSION = 1
DATA_DIGITS = 30
"""Digits that every stored number has."""
_NOT_PROBLEMS = ("schema.json",)


@dataclass(frozen=True, slots=True)
class StoredNumber:
    """A number known to lie within `radius` of `value`.

    Examples
    --------
    >>> third = StoredNumber(Fraction("0.3333"), Fraction("0.0001"))
    >>> third.distance(0.5) > Fraction(1, 6), float(third)
    (True, 0.3333)
    """

    value: Fraction
    radius: Fraction

    def __float__(self) -> float:
        return float(self.value)

    def distance(self, number: Exact) -> Fraction:
        """Return the largest possible |number - truth|."""
        return abs(Fraction(number) - self.value) + self.radius


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceProblem:
    """A problem with its certified answer.

    Attributes
    ----------
    name, summary : str
        What it is.
    level : str
        easy, moderate, hard or cruel: how many of sixteen digits survive, see `digits_in_double`.
    closed_form : ClosedForm
        The problem as data, with θ and the objective that is asked for.
    objective : StoredNumber
        J(θ).
    gradient : (N,) of StoredNumber
        ∇J(θ).
    parts : {name: (N,) of StoredNumber}
        Its parts.
    condition : float
        Condition number of the follower's linear system.
    digits_in_double : float
        Digits of the gradient that survive when every number of the problem is rounded to double precision.
    provenance : {key: value}
        How it was made.
    """

    name: str
    summary: str
    level: str
    closed_form: ClosedForm
    objective: StoredNumber
    gradient: tuple[StoredNumber, ...]
    parts: Mapping[str, tuple[StoredNumber, ...]]
    condition: float
    digits_in_double: float
    provenance: Mapping[str, Any]

    def problem(self) -> Any:
        """Return the problem in double precision, as routes and estimators take it."""
        return build_problem(self.closed_form)

    def theta(self) -> FloatArray:
        """Return θ as doubles, (N,)."""
        return theta_of(self.closed_form)

    @checked
    def scenario(self, *, horizon: int = 4) -> Scenario:
        """Return it as a scenario of `bilevelrl.tasks`, its certified truth rounded to doubles.

        Parameters
        ----------
        horizon
            Steps after which trajectories are cut.

        Examples
        --------
        >>> reference_problem("mdp_one_state").scenario().provenance.digits
        16.0
        """
        rounding = max(float(entry.distance(float(entry))) for column in self.parts.values() for entry in column)
        truth = Truth.of(
            objective=float(self.objective),
            parts={
                part: [float(entry) for entry in self.parts[part]]
                for part in (*PARTS, *GAME_PARTS)
                if part in self.parts
            },
            error_bound=rounding,
        )
        asked = Objective(self.closed_form.horizon, self.closed_form.discounted)
        return Scenario(
            name=self.name,
            summary=self.summary,
            problem=self.problem(),
            theta=self.theta(),
            objective=None if asked == Objective() else asked,
            truths={asked: truth},
            provenance=Provenance(source=str(self.provenance["command"]), routes=("certified",), digits=16.0),
            tags=frozenset({"random", "goes_on"}),
            horizon=horizon,
        )

    def gradient_doubles(self) -> FloatArray:
        """Return ∇J rounded to doubles, (N,)."""
        return np.array([float(entry) for entry in self.gradient])


def agreeing_digits(given: Sequence[Exact], stored: Sequence[StoredNumber], scale: Fraction = Fraction(0)) -> float:
    """Return the log relative error `-log10(max |given - truth| / max |truth|)`, at least 0.

    The truth is taken where it agrees least within its radius, so that no more digits are found than are stored. A
    `scale` larger than max |truth| takes its place: parts are held against the size of the whole gradient. Where both
    are zero, agreement is inf for zeros and 0 otherwise.

    Examples
    --------
    >>> third = StoredNumber(Fraction(1, 3), Fraction(1, 10**32))
    >>> round(agreeing_digits([0.333], [third]), 3), round(agreeing_digits([Fraction(1, 3)], [third]), 1)
    (3.0, 31.5)
    """
    if len(given) != len(stored):
        raise ShapeError(refusal("given", len(given), f"{len(stored)} numbers", "one per stored number"))
    off = max((truth.distance(number) for number, truth in zip(given, stored, strict=True)), default=Fraction(0))
    size = max((abs(truth.value) for truth in stored), default=Fraction(0))
    size = max(size, scale)
    if off == 0:
        return math.inf
    if size == 0:
        return math.inf if all(number == 0 for number in given) else 0.0
    return max(0.0, _log10(size) - _log10(off))


def _log10(number: Fraction) -> float:
    """log10 of a positive rational of any size."""
    return float((Decimal(number.numerator) / Decimal(number.denominator)).log10())


def _stored(record: Any, where: str, length: int | None = None) -> tuple[StoredNumber, ...]:
    if not isinstance(record, dict) or set(record) != {"value", "radius"}:
        raise InvalidInputError(refusal(where, record, "an object with value and radius", "see the schema"))
    values, radii = record["value"], record["radius"]
    if length is None:
        values, radii = [values], [radii]
    elif not (isinstance(values, list) and isinstance(radii, list) and len(values) == len(radii) == length):
        raise ShapeError(refusal(where, "lists of other lengths", f"{length} values and radii", "one per entry of θ"))
    exact = [[Fraction(read_number(number, where)) for number in numbers] for numbers in (values, radii)]
    return tuple(StoredNumber(value, abs(radius)) for value, radius in zip(*exact, strict=True))


def parse_reference_problem(text: str, where: str = "reference data") -> ReferenceProblem:
    """Read one file's text.

    Raises
    ------
    InvalidInputError, ShapeError, UnknownNameError
        If it is no JSON, of another format or a newer version, or a key is missing or wrong.
    """
    record = check_header(text, where, DATA_FORMAT, DATA_VERSION)
    try:
        problem = problem_from_json(record["problem"], name=record["name"], kind=record["kind"])
        answer, difficulty = record["answer"], record["difficulty"]
        return ReferenceProblem(
            name=record["name"],
            summary=record["summary"],
            level=difficulty["level"],
            closed_form=problem,
            objective=_stored(answer["objective"], f"{where}: objective")[0],
            gradient=_stored(answer["gradient"], f"{where}: gradient", problem.parameters),
            parts={
                part: _stored(entries, f"{where}: {part}", problem.parameters)
                for part, entries in answer["parts"].items()
            },
            condition=float(read_number(difficulty["condition"], f"{where}: condition")),
            digits_in_double=float(read_number(difficulty["digits_in_double"], f"{where}: digits_in_double")),
            provenance=record["provenance"],
        )
    except KeyError as missing:
        if isinstance(missing, UnknownNameError):
            raise
        raise InvalidInputError(f"{where}: key {missing} is missing; see tasks/data/schema.json") from None


def check_header(text: str, where: str, wanted: str, newest: int) -> dict[str, Any]:
    """Return a JSON object of the right format, at a version that is understood.

    Raises
    ------
    InvalidInputError
        If it is no JSON object, of another format, or newer.
    """
    record = parse_json(text, where)
    if not isinstance(record, dict) or record.get("format") != wanted:
        found = record.get("format") if isinstance(record, dict) else type(record).__name__
        raise InvalidInputError(refusal(f"{where}: format", found, repr(wanted), "name the format in the file"))
    version = record.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise InvalidInputError(refusal(f"{where}: version", version, "an integer >= 1", f"write {newest}"))
    if version > newest:
        raise InvalidInputError(
            refusal(f"{where}: version", version, f"at most {newest}", "upgrade bilevelrl to read newer files")
        )
    return record


def reference_names() -> tuple[str, ...]:
    """Return the names of all stored problems, sorted.

    Examples
    --------
    >>> "four_rooms_0.001" in reference_names()
    True
    """
    folder = resources.files("bilevelrl.tasks") / "data"
    found = (entry.name for entry in folder.iterdir() if entry.name.endswith(".json"))
    return tuple(sorted(name.removesuffix(".json") for name in found if name not in _NOT_PROBLEMS))


@checked
def reference_problem(name: str) -> ReferenceProblem:
    """Return a stored problem by name.

    Raises
    ------
    UnknownNameError
        If there is none; close matches are listed.

    Examples
    --------
    >>> reference_problem("four_rooms_0.001").closed_form.parameters
    105
    """
    if name not in reference_names():
        raise UnknownNameError("reference problem name", name, reference_names())
    text = (resources.files("bilevelrl.tasks") / "data" / f"{name}.json").read_text(encoding="utf-8")
    return parse_reference_problem(text, f"{name}.json")


@checked
def reference_problems(*, kind: str | None = None, level: str | None = None) -> tuple[ReferenceProblem, ...]:
    """Return the stored problems, of one kind or level if asked."""
    found = (reference_problem(name) for name in reference_names())
    return tuple(
        problem
        for problem in found
        if (kind is None or problem.closed_form.kind == kind) and (level is None or problem.level == level)
    )
