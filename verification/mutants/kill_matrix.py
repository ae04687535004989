"""The kill matrix: every mutant against every check, computed; and the correct estimators, which must survive them all.

The checks are deterministic, so a mutant is killed or it is not: the power of a kill is 1, and its margin, the largest
|difference| over what rounding allows, says how far it is from being a matter of rounding. One samples, of what draws
numbers of its own, with a fixed seed: what it allows is five standard errors.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bilevelrl.estimators import ESTIMATORS, Objective, estimators_for
from bilevelrl.reference import HYPERGRADIENT_ROUTES, ConfigurableMDP, hypergradient
from bilevelrl.reference.doors import checked, checked_record
from bilevelrl.reference.errors import UnknownNameError
from bilevelrl.reference.storage import csv_text
from bilevelrl.tasks import Scenario
from bilevelrl.verification.checks.deterministic import check_estimator
from bilevelrl.verification.checks.gradients import check_gradient
from bilevelrl.verification.checks.independence import check_independence
from bilevelrl.verification.checks.order import check_orders
from bilevelrl.verification.checks.own_scenarios import default_scenarios
from bilevelrl.verification.checks.results import CheckResult, worst
from bilevelrl.verification.mutants.along import TraceFormula
from bilevelrl.verification.mutants.along_slips import KINDS
from bilevelrl.verification.mutants.catalogue import MUTANTS, Mutant
from bilevelrl.verification.mutants.composed import COMPOSED, ComposedFormula, MixedFormula, composed_scenarios
from bilevelrl.verification.mutants.exact import ExactFormula
from bilevelrl.verification.mutants.lambda_returns import LambdaFormula
from bilevelrl.verification.mutants.sample import SampleFormula

__all__ = [
    "ESTIMATOR_CHECKS",
    "GRADIENT_CHECKS",
    "KillMatrix",
    "KillRow",
    "correct_subjects",
    "kill_matrix",
    "kill_row",
]

ESTIMATOR_CHECKS = ("contract", "bias", "bias, truncated", "parts", "independence")
"""Checks of estimators, in the order of the table."""

GRADIENT_CHECKS = (
    "contract",
    "truth",
    "truth of parts",
    "Taylor order",
    "permutation",
    "reward shift",
    "shaping",
    "reparameterisation",
    "history",
)
"""Checks of gradient functions, in the order of the table."""

# Finite differences keep nine digits only where the objective does; ball arithmetic and tapes of sweeps take minutes.
_SLOW_ROUTES = ("finite_difference", "certified", "unrolled")


@dataclass(frozen=True, slots=True, kw_only=True)
class KillRow:
    """One subject against all checks.

    Attributes
    ----------
    name, kind : str
        Who, and "estimator" or "gradient".
    meant_for : str
        The check meant to kill it; empty for a correct subject.
    margins : {check: float}
        Largest margin over the scenarios; above 1 the check fails. Checks that do not apply are left out.
    where : {check: str}
        The scenario of that margin.
    """

    name: str
    kind: str
    meant_for: str
    margins: Mapping[str, float]
    where: Mapping[str, str]

    @property
    def killed_by(self) -> tuple[str, ...]:
        """Checks that fail it."""
        return tuple(check for check, margin in self.margins.items() if margin > 1.0)

    @property
    def as_it_should(self) -> bool:
        """A mutant is killed by the check meant for it; a correct subject by none."""
        return self.meant_for in self.killed_by if self.meant_for else not self.killed_by


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True)
class KillMatrix:
    """The table.

    Attributes
    ----------
    mutants, correct : tuple of KillRow
        Those that must die and those that must live.
    seconds : float
        What it cost.
    """

    mutants: tuple[KillRow, ...]
    correct: tuple[KillRow, ...]
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether every mutant is killed by the check meant for it and every correct subject survives."""
        return all(row.as_it_should for row in (*self.mutants, *self.correct))

    def to_csv(self) -> str:
        """Return one line per subject and check."""
        rows = [["subject", "kind", "meant_for", "check", "margin", "killed", "scenario"]]
        for row in (*self.mutants, *self.correct):
            for check, margin in row.margins.items():
                killed = "yes" if margin > 1.0 else "no"
                rows.append([row.name, row.kind, row.meant_for, check, f"{margin:.3g}", killed, row.where[check]])
        return csv_text(rows)

    def __str__(self) -> str:
        blocks = []
        for kind, checks in (("estimator", ESTIMATOR_CHECKS), ("gradient", GRADIENT_CHECKS)):
            rows = [row for row in (*self.mutants, *self.correct) if row.kind == kind]
            if rows:
                blocks.append(_block(kind, checks, rows))
        dead = sum(row.as_it_should for row in self.mutants)
        alive = sum(row.as_it_should for row in self.correct)
        blocks.append(
            f"{dead} of {len(self.mutants)} mutants killed by the check meant for them "
            "(power 1: none but independence is sampled); "
            f"{alive} of {len(self.correct)} correct subjects survive; {self.seconds:.0f} s"
        )
        return "\n\n".join(blocks)


def _block(kind: str, checks: Sequence[str], rows: Sequence[KillRow]) -> str:
    """Orders of magnitude of the margins: 10^k of what is allowed, a dot where a check is silent."""
    width = max(len(row.name) for row in rows)
    titles = [check.replace("truncated", "cut") for check in checks]
    lines = [f"{kind + 's':<{width}}  " + "  ".join(titles)]
    for row in rows:
        cells = []
        for check, title in zip(checks, titles, strict=True):
            mark = _mark(row.margins.get(check)) + ("*" if check == row.meant_for else "")
            cells.append(f"{mark:^{len(title)}}")
        flag = "" if row.as_it_should else "   <- not as it should be"
        lines.append((f"{row.name:<{width}}  " + "  ".join(cells)).rstrip() + flag)
    lines.append(
        "A number k: failed by 10^k times what rounding allows; X: failed outright; ·: passed; blank: does not "
        "apply; *: the check meant for it. A Taylor rate of 1 in place of 2 is twice what is allowed."
    )
    return "\n".join(lines)


def _mark(margin: float | None) -> str:
    if margin is None:
        return ""
    if not margin > 1.0:
        return "·"
    return "X" if math.isinf(margin) else f"{math.log10(margin):.0f}"


def kill_row(mutant: Mutant, *, on: Sequence[Scenario] | None = None) -> KillRow:
    """Run all checks on one mutant.

    Examples
    --------
    >>> from bilevelrl.tasks import scenarios
    >>> row = kill_row(MUTANTS["V for Q"], on=scenarios(tags="one_state"))
    >>> row.as_it_should, "bias" in row.killed_by
    (True, True)
    """
    return _row(mutant.name, mutant.kind, mutant.meant_for, mutant.make(), on, mutant.problem)


def correct_subjects() -> dict[str, tuple[str, Callable[[], Any]]]:
    """Return {name: (kind, maker)} of everything that is right: the plain formulas, all routes, all estimators."""
    formulas: dict[str, tuple[str, Callable[[], Any]]] = {
        "sample formula": ("estimator", SampleFormula),
        "sample formula, whole path": ("estimator", lambda: SampleFormula(suffix="whole")),
        "sample formula, Q(∇Q-∇V)": ("estimator", lambda: SampleFormula(guiding="Q(∇Q-∇V)")),
        "sample formula, B(∇Q-∇V)": ("estimator", lambda: SampleFormula(guiding="B(∇Q-∇V)")),
        "sample formula, λ-returns": ("estimator", LambdaFormula),
        "exact formula": ("gradient", ExactFormula),
        **{f"trace formula, {kind}": ("estimator", _trace(kind)) for kind in KINDS},
        **{f"composed formula, {kind}": ("gradient", _composed(kind)) for kind in COMPOSED},
        "sample formula, mixture": ("estimator", MixedFormula),
        "trace formula, game, no baseline": ("estimator", _trace("game", baseline="none")),
        "trace formula, MDP, over episodes": ("estimator", _trace("MDP", resets=False)),
    }
    estimators = {name: ("registered", _maker(name)) for name in estimators_for(ConfigurableMDP)}
    routes = {
        f"route {name}": ("gradient", _route(name))
        for name, route in HYPERGRADIENT_ROUTES.items()
        if ConfigurableMDP in route.kinds and name not in _SLOW_ROUTES
    }
    return {**formulas, **estimators, **routes}


def _trace(kind: str, **right: Any) -> Callable[[], Any]:
    return lambda: TraceFormula(problem=KINDS[kind], **right)


def _composed(kind: str) -> Callable[[], Any]:
    return lambda: ComposedFormula(problem=COMPOSED[kind])


def _maker(name: str) -> Callable[[], Any]:
    return lambda: ESTIMATORS[name].make


def _route(name: str) -> Callable[[], Any]:
    return lambda: lambda problem, theta: hypergradient(problem, theta, route=name, bound=False).parts


@checked
def kill_matrix(
    *,
    mutants: Iterable[str] | None = None,
    correct: Iterable[str] | None = None,
    on: Sequence[Scenario] | None = None,
) -> KillMatrix:
    """Run every check on every mutant and on every correct subject.

    Parameters
    ----------
    mutants, correct
        Names; default: all.
    on
        Scenarios of the estimator and truth checks; default: all. Order checks have scenarios of their own.

    Raises
    ------
    UnknownNameError
        If a name is not known.

    Examples
    --------
    >>> matrix = kill_matrix(mutants=["response dropped"], correct=["sample formula"])
    >>> matrix.complete
    True
    """
    started = time.perf_counter()
    subjects = correct_subjects()
    wanted = list(MUTANTS if mutants is None else mutants)
    kept = list(subjects if correct is None else correct)
    for argument, names, known in (("mutants", wanted, MUTANTS), ("correct", kept, subjects)):
        for name in names:
            if name not in known:
                raise UnknownNameError(argument, name, known)
    dead = tuple(kill_row(MUTANTS[name], on=on) for name in wanted)
    alive = tuple(_alive(name, *subjects[name], on) for name in kept)
    return KillMatrix(mutants=dead, correct=alive, seconds=time.perf_counter() - started)


def _alive(name: str, kind: str, make: Callable[[], Any], on: Sequence[Scenario] | None) -> KillRow:
    subject = make()
    return _row(name, kind, "", subject, on, getattr(subject, "problem", None))


def _row(
    name: str, kind: str, meant_for: str, subject: Any, on: Sequence[Scenario] | None, problem: type | None = None
) -> KillRow:
    found: list[CheckResult]
    composed = problem in COMPOSED.values()
    if problem is not None and composed:
        on = composed_scenarios(problem, sampled=kind != "gradient")
    elif on is None and problem is not None:
        on = default_scenarios(problem)
    if kind == "gradient":
        found = check_gradient(subject, on) + ([] if composed else check_orders(subject))
    else:
        found = check_estimator(subject, on, made_for=kind == "registered")
        found += check_independence(subject(Objective()) if kind == "registered" else subject)
    judged = worst(found)
    return KillRow(
        name=name,
        kind="gradient" if kind == "gradient" else "estimator",
        meant_for=meant_for,
        margins={check: result.margin for check, result in judged.items()},
        where={check: result.scenario for check, result in judged.items()},
    )
