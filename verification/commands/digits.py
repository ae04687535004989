"""`bilevelrl digits`: how many digits each floating-point route has on every reference problem.

The measure is the log relative error of the gradient, `-log10(max |given - truth| / max |truth|)`, with conditioning
beside it: the condition number of the follower's linear system, and the digits that survive rounding the problem itself
to doubles, which no double-precision code exceeds but by luck.

The row of `certified` is that route on the tables rounded to doubles: its enclosure is of those, so what it lacks is
what rounding the tables costs, and no fault of its bound. Routes that sweep are left out where they would need more
sweeps than `PATIENCE`, unless asked for.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bilevelrl.reference import HYPERGRADIENT_ROUTES, hypergradient
from bilevelrl.reference.errors import BilevelRLError, UnsupportedError
from bilevelrl.reference.storage import csv_text, writable_file, write_atomically
from bilevelrl.tasks.scenarios import ReferenceProblem, agreeing_digits, reference_problems
from bilevelrl.verification.pipeline.plain_text import TextTable

__all__ = ["DigitsRow", "digits_csv", "digits_summary", "digits_table", "fill_digits", "measure_digits"]

PATIENCE = 6000
"""Sweeps of the follower's Bellman map, about 37 / (1 - γ_F), after which a sweeping route is left out."""

MOST = 16.0
"""What a double can show: agreement beyond is cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DigitsRow:
    """One route on one problem.

    Attributes
    ----------
    problem, kind, level, route : str
        What was measured.
    condition, attainable : float
        Condition number of the follower's system; digits that survive rounding the problem to doubles.
    objective, gradient : float
        Correct digits; nan where the route gave none.
    error, error_bound : float
        Largest error over the gradient's entries, and the route's own bound on it.
    note : str
        Why there is no number.
    """

    problem: str
    kind: str
    level: str
    route: str
    condition: float
    attainable: float
    objective: float
    gradient: float
    error: float
    error_bound: float
    note: str = ""

    @property
    def honest(self) -> bool:
        """Whether the error is within the route's own bound; `certified` bounds another problem, the rounded one."""
        return self.route == "certified" or math.isnan(self.error) or self.error <= self.error_bound


def measure_digits(
    stored: ReferenceProblem, route: str, *, bound: bool = True, patience: float = PATIENCE
) -> DigitsRow:
    """Run one route on one reference problem.

    Parameters
    ----------
    stored, route
        What to measure.
    bound
        Ask the route for its own error bound.
    patience
        Leave out routes that need more sweeps.

    Examples
    --------
    >>> from bilevelrl.tasks import reference_problem
    >>> row = measure_digits(reference_problem("mdp_one_state"), "implicit")
    >>> row.gradient > 12, row.honest
    (True, True)
    """
    form = stored.closed_form
    sweeps = 37.0 / (1.0 - float(form.discount_follower))
    if sweeps > patience and "sweeps" in HYPERGRADIENT_ROUTES[route].family:
        return _unmeasured(stored, route, f"left out: about {sweeps:.0f} sweeps")
    try:
        found = hypergradient(
            stored.problem(), stored.theta(), route=route, horizon=form.horizon, discounted=form.discounted, bound=bound
        )
        error_bound = found.error_bound
    except BilevelRLError as refused:
        return _unmeasured(stored, route, f"{type(refused).__name__}: {refused}")
    gradient = found.value.tolist()
    distances = (truth.distance(number) for number, truth in zip(gradient, stored.gradient, strict=True))
    return replace(
        _unmeasured(stored, route, ""),
        objective=min(MOST, agreeing_digits([found.objective], [stored.objective])),
        gradient=min(MOST, agreeing_digits(gradient, stored.gradient)),
        error=max(map(float, distances), default=0.0),
        error_bound=error_bound,
    )


def _unmeasured(stored: ReferenceProblem, route: str, note: str) -> DigitsRow:
    return DigitsRow(
        problem=stored.name,
        kind=stored.closed_form.kind,
        level=stored.level,
        route=route,
        condition=stored.condition,
        attainable=stored.digits_in_double,
        objective=math.nan,
        gradient=math.nan,
        error=math.nan,
        error_bound=math.inf,
        note=note,
    )


def digits_csv(rows: Iterable[DigitsRow]) -> str:
    """Return the rows as CSV, one per problem and route."""
    names = list(DigitsRow.__dataclass_fields__)
    values = ([getattr(row, name) for name in names] for row in rows)
    return csv_text([names, *([f"{v:.4g}" if isinstance(v, float) else v for v in row] for row in values)])


def digits_table(rows: Sequence[DigitsRow]) -> TextTable:
    """Return the gradient's digits, problems down and routes across, hardest problems last."""
    routes = sorted({row.route for row in rows}, key=list(HYPERGRADIENT_ROUTES).index)
    problems: dict[str, dict[str, DigitsRow]] = {}
    for row in sorted(rows, key=lambda row: -row.attainable):
        problems.setdefault(row.problem, {})[row.route] = row
    cells = []
    for name, entries in problems.items():
        first = next(iter(entries.values()))
        described = (name, first.level, f"{first.condition:.1e}", f"{first.attainable:.1f}")
        cells.append((*described, *(_cell(entries.get(route)) for route in routes)))
    return TextTable(
        title="Correct digits of the hypergradient (-: refuses, or left out as slow; !: outside its own bound)",
        columns=("problem", "level", "condition", "doubles can", *routes),
        rows=tuple(cells),
    )


def digits_summary(rows: Sequence[DigitsRow]) -> TextTable:
    """Return median and smallest number of correct digits by route and level, and how many problems each served."""
    routes = sorted({row.route for row in rows}, key=list(HYPERGRADIENT_ROUTES).index)
    levels = [level for level in ("easy", "moderate", "hard", "cruel") if any(row.level == level for row in rows)]
    cells = []
    for route in routes:
        served = [row for row in rows if row.route == route and not math.isnan(row.gradient)]
        by_level = []
        for level in levels:
            digits = [row.gradient for row in served if row.level == level]
            by_level.append(f"{np.median(digits):.1f} ({min(digits):.1f})" if digits else "-")
        outside = sum(not row.honest for row in served)
        bounded = sum(math.isfinite(row.error_bound) for row in served)
        cells.append((route, *by_level, f"{len(served)}", f"{bounded}", f"{outside}"))
    return TextTable(
        title="Correct digits of the hypergradient, median (smallest), over the problems that the route served",
        columns=("route", *levels, "problems", "with bound", "outside it"),
        rows=tuple(cells),
        text_columns=1,
    )


def _cell(row: DigitsRow | None) -> str:
    if row is None or math.isnan(row.gradient):
        return "-"
    return f"{row.gradient:.1f}" + ("" if row.honest else "!")


def fill_digits(add: argparse.ArgumentParser) -> None:
    """Add the arguments of `digits`."""
    add.add_argument("--only", default="", help="only problems whose name contains this")
    add.add_argument("--route", action="append", help="only this route (may be repeated)")
    add.add_argument("--csv", type=Path, metavar="FILE", help="also write one row per problem and route")
    add.add_argument("--slow", action="store_true", help="also run routes that need tens of thousands of sweeps")
    add.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    if parsed.csv is not None:
        writable_file("--csv", parsed.csv)
    chosen = [stored for stored in reference_problems() if parsed.only in stored.name]
    rows = []
    for stored in chosen:
        problem = stored.problem()
        for route, entry in HYPERGRADIENT_ROUTES.items():
            if type(problem) in entry.kinds and (not parsed.route or route in parsed.route):
                with np.errstate(all="ignore"):
                    rows.append(measure_digits(stored, route, patience=math.inf if parsed.slow else PATIENCE))
    if not rows:
        raise UnsupportedError(
            f"--only {parsed.only!r}, --route {parsed.route}: no problem and route fit; see `routes`"
        )
    print(digits_table(rows).plain())
    print()
    print(digits_summary(rows).plain())
    if parsed.csv is not None:
        write_atomically(parsed.csv, digits_csv(rows))
        print(f"wrote {parsed.csv}")
    return 0 if all(row.honest for row in rows) else 1
