"""`bilevelrl certify RESULTS.json`: numbers from any program, in any language, held against the certified ones.

A results file is one JSON object,

    {"format": "bilevelrl-results", "version": 1,
     "results": {"<problem>": {"objective": 1.25, "gradient": [...], "parts": {"response": [...]}}}}

with JSON numbers, or decimal strings where a program has more than double precision; every entry is optional, and so
is every problem. Nothing here needs python-flint: the certified numbers are stored as decimals. It is needed by
`--check-problem FILE`, which recomputes everything that a new problem for the data claims.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Any

from bilevelrl.reference.certified import Exact
from bilevelrl.reference.doors import checked, checked_record
from bilevelrl.reference.errors import InvalidInputError, ShapeError, UnknownNameError, refusal
from bilevelrl.tasks import reference_problem
from bilevelrl.tasks.generators import read_number
from bilevelrl.tasks.scenarios import ReferenceProblem, StoredNumber, agreeing_digits, check_header, reference_names
from bilevelrl.verification.checks.verdicts import Outcome
from bilevelrl.verification.commands.submission import check_problem
from bilevelrl.verification.pipeline.plain_text import TextTable
from bilevelrl.verification.processes.ending import CHECK_FAILED, HOLDS, UNANSWERED
from bilevelrl.verification.reading.draws import read_text

__all__ = ["RESULTS_FORMAT", "RESULTS_VERSION", "Agreement", "certify_results", "fill_certify", "hold"]

RESULTS_FORMAT = "bilevelrl-results"
RESULTS_VERSION = 1
USUAL_DIGITS = 6
"""Asked for where double precision can give them: a wrong formula seldom agrees to three."""
_ALLOWANCE = 4.0
_LEAST = 2.0


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How many digits of one problem's numbers agree.

    Attributes
    ----------
    problem, level : str
        Its name, and how hard it is.
    digits : {quantity: float}
        Of `objective`, `gradient` and each part that was given; inf: all that are stored.
    attainable : float
        Digits of the gradient that survive rounding the problem to doubles.
    required : float
        Digits asked for.
    outcome : Outcome
        Passed, failed, or no power where so few digits can be asked for that a wrong formula might have them.
    """

    problem: str
    level: str
    digits: Mapping[str, float]
    attainable: float
    required: float
    outcome: Outcome

    @property
    def worst(self) -> tuple[str, float]:
        """The quantity that agrees least, and its digits."""
        name = min(self.digits, key=lambda quantity: self.digits[quantity])
        return name, self.digits[name]


def hold(stored: ReferenceProblem, given: Mapping[str, Any], *, digits: float | None = None) -> Agreement:
    """Hold one problem's numbers against the certified ones.

    Parameters
    ----------
    stored
        The problem.
    given
        {"objective": number, "gradient": [...], "parts": {name: [...]}}, each optional, numbers or decimal strings.
    digits
        Digits asked for; by default six, or four less than double precision can give.

    Raises
    ------
    InvalidInputError, ShapeError, UnknownNameError
        If a key or a part is unknown, a length wrong, an entry no finite number, or nothing was given.

    Examples
    --------
    >>> from bilevelrl.tasks import reference_problem
    >>> stored = reference_problem("mdp_one_state")
    >>> hold(stored, {"objective": float(stored.objective)}).outcome.value
    'passed'
    >>> hold(stored, {"objective": 1.001 * float(stored.objective)}).outcome.value
    'failed'
    """
    if not isinstance(given, Mapping):
        raise InvalidInputError(refusal(stored.name, given, "an object with objective, gradient, parts", "see --help"))
    for key in given:
        if key not in ("objective", "gradient", "parts"):
            raise UnknownNameError(f"{stored.name}: key", key, ("objective", "gradient", "parts"))
    scale = max((abs(entry.value) for entry in stored.gradient), default=Fraction(0))
    found: dict[str, float] = {}
    if "objective" in given:
        number = read_number(given["objective"], f"{stored.name}: objective")
        found["objective"] = agreeing_digits([number], [stored.objective])
    if "gradient" in given:
        numbers = _numbers(given["gradient"], f"{stored.name}: gradient", stored.gradient)
        found["gradient"] = agreeing_digits(numbers, stored.gradient)
    parts = given.get("parts", {})
    if not isinstance(parts, Mapping):
        raise InvalidInputError(refusal(f"{stored.name}: parts", parts, "an object", "{name of the part: [...]}"))
    for part, entries in parts.items():
        if part not in stored.parts:
            raise UnknownNameError(f"{stored.name}: part", part, stored.parts)
        numbers = _numbers(entries, f"{stored.name}: {part}", stored.parts[part])
        found[part] = agreeing_digits(numbers, stored.parts[part], scale)
    if not found:
        raise InvalidInputError(f"{stored.name}: expected objective, gradient or parts; give at least one of them")
    required = float(digits) if digits is not None else min(USUAL_DIGITS, stored.digits_in_double - _ALLOWANCE)
    if any(reached < required for reached in found.values()) and required > 0:
        outcome = Outcome.FAILED
    else:
        outcome = Outcome.PASSED if required >= _LEAST else Outcome.NO_POWER
    return Agreement(
        problem=stored.name,
        level=stored.level,
        digits=found,
        attainable=stored.digits_in_double,
        required=max(0.0, required),
        outcome=outcome,
    )


def _numbers(values: Any, where: str, stored: tuple[StoredNumber, ...]) -> list[Exact]:
    if not isinstance(values, (list, tuple)):
        raise InvalidInputError(refusal(where, values, "a list of numbers", "write it in brackets"))
    if len(values) != len(stored):
        raise ShapeError(refusal(f"{where}: length", len(values), f"{len(stored)}", "one entry per entry of θ"))
    return [read_number(value, f"{where}[{i}]") for i, value in enumerate(values)]


@checked
def certify_results(text: str, *, where: str = "results", digits: float | None = None) -> list[Agreement]:
    """Hold a results file against the certified numbers, problem by problem.

    Raises
    ------
    InvalidInputError, ShapeError, UnknownNameError
        If the file is malformed, of another format or a newer version, or names what does not exist.

    Examples
    --------
    >>> certify_results('{"format": "bilevelrl-results", "version": 2, "results": {}}')
    Traceback (most recent call last):
        ...
    bilevelrl.reference.errors.InvalidInputError: results: version=2: expected at most 1; upgrade bilevelrl ...
    """
    record = check_header(text, where, RESULTS_FORMAT, RESULTS_VERSION)
    results = record.get("results")
    if not isinstance(results, dict) or not results:
        raise InvalidInputError(
            refusal(f"{where}: results", results, "an object by problem", "give one problem or more")
        )
    known = reference_names()
    for name in results:
        if name not in known:
            raise UnknownNameError(f"{where}: problem", name, known)
    return [hold(reference_problem(name), given, digits=digits) for name, given in results.items()]


def agreement_table(agreements: Iterable[Agreement]) -> TextTable:
    """Return what the command prints."""
    rows = [
        (
            agreement.problem,
            agreement.level,
            *(_shown(agreement.digits.get(quantity)) for quantity in ("objective", "gradient")),
            f"{agreement.worst[0]} {_shown(agreement.worst[1])}",
            f"{agreement.attainable:.1f}",
            f"{agreement.required:.1f}",
            agreement.outcome.value,
        )
        for agreement in agreements
    ]
    return TextTable(
        title="Digits of agreement with the certified numbers",
        columns=("problem", "level", "objective", "gradient", "worst", "doubles can", "asked", "verdict"),
        rows=tuple(rows),
    )


def _shown(digits: float | None) -> str:
    return "-" if digits is None else "all" if math.isinf(digits) else f"{digits:.1f}"


def fill_certify(add: argparse.ArgumentParser) -> None:
    """Add the arguments of `certify`."""
    add.description, add.formatter_class = __doc__, argparse.RawDescriptionHelpFormatter
    add.add_argument("results", nargs="?", type=Path, metavar="RESULTS.json", help="your numbers")
    add.add_argument("--digits", type=float, help="ask for so many digits everywhere")
    add.add_argument("--json", action="store_true", help="print JSON")
    add.add_argument("--data", action="store_true", help="print the folder of the problems, and stop")
    add.add_argument("--check-problem", type=Path, metavar="FILE", help="check a new problem for the data, and stop")
    add.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    if parsed.data:
        print(resources.files("bilevelrl.tasks") / "data")
        return HOLDS
    if parsed.check_problem is not None:
        found = check_problem(read_text(parsed.check_problem), where=str(parsed.check_problem))
        print("\n".join(found) or "all holds: format, numbers in balls, digits, parts, difficulty")
        return CHECK_FAILED if found else HOLDS
    if parsed.results is None:
        raise InvalidInputError("RESULTS.json: expected a file of results; see `bilevelrl certify --help`")
    if parsed.digits is not None and not (math.isfinite(parsed.digits) and parsed.digits > 0):
        raise InvalidInputError(refusal("--digits", parsed.digits, "a finite number > 0", "ask for 6"))
    text = read_text(parsed.results)
    agreements = certify_results(text, where=str(parsed.results), digits=parsed.digits)
    counts = {outcome: sum(a.outcome is outcome for a in agreements) for outcome in Outcome}
    if parsed.json:
        print(json.dumps([_json(agreement) for agreement in agreements], indent=1))
    else:
        print(agreement_table(agreements).plain())
        missing = len(reference_names()) - len(agreements)
        print(
            f"{counts[Outcome.PASSED]} passed, {counts[Outcome.FAILED]} failed, {counts[Outcome.NO_POWER]} without "
            f"power, {missing} not given"
        )
    if counts[Outcome.FAILED]:
        return CHECK_FAILED
    return HOLDS if counts[Outcome.PASSED] else UNANSWERED


def _json(agreement: Agreement) -> dict[str, Any]:
    digits = {name: None if math.isinf(value) else round(value, 2) for name, value in agreement.digits.items()}
    return {
        "problem": agreement.problem,
        "level": agreement.level,
        "digits": digits,
        "attainable": agreement.attainable,
        "required": agreement.required,
        "verdict": agreement.outcome.value,
    }
