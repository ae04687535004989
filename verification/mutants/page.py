"""The kill matrix as a page: every planted error, what kills it and by how much, and what is right and lives."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from bilevelrl.verification.mutants.along_slips import KINDS
from bilevelrl.verification.mutants.catalogue import MUTANTS
from bilevelrl.verification.mutants.composed import COMPOSED
from bilevelrl.verification.mutants.kill_matrix import KillMatrix, KillRow

__all__ = ["kill_page"]

_HEAD = """# Planted errors

A check that has never failed anything is not known to check. Each row is a wrong estimator or a wrong gradient, from
published code or from what people usually write, with the check that is meant for it. No check here samples but that of
independence, which holds 20,000 draws with a fixed seed against a declared covariance, so an error is killed or it is
not. The margin is the largest difference in units of what rounding allows, there five standard errors: above 1 is
dead, and *outright* is a broken contract. The last columns are where it shows most, and what else kills it.
Estimators for all kinds of problem run on the scenarios of `verify`, and what is made of other problems on two of each;
`bilevelrl mutants --list` says where each error comes from. Made by `bilevelrl mutants --page docs/planted_errors.md`.
"""


def kill_page(matrix: KillMatrix) -> str:
    """Return a matrix as Markdown.

    Examples
    --------
    >>> from bilevelrl.verification.mutants.kill_matrix import kill_matrix
    >>> page = kill_page(kill_matrix(mutants=["V for Q"], correct=["exact formula"]))
    >>> "| V for Q | V_L for B | bias |" in page, "1 of 1 mutants" in page
    (True, True)
    """
    kinds = {kind: f"One formula for all kinds: {name}" for name, kind in KINDS.items()}
    kinds |= {kind: f"Problems made of others: {name}" for name, kind in COMPOSED.items()}
    groups: dict[str, list[KillRow]] = {}
    for row in matrix.mutants:
        kind = MUTANTS[row.name].problem
        title = "Gradients of configurable MDPs" if row.kind == "gradient" else "Estimators of configurable MDPs"
        groups.setdefault(title if kind is None else kinds[kind], []).append(row)
    blocks = [_HEAD, str(matrix).rpartition("\n\n")[2].rpartition(";")[0] + "."]
    for title, rows in groups.items():
        blocks.append(f"## {title}\n\n{_dead(rows)}")
    if matrix.correct:
        blocks.append(f"## What is right\n\n{_alive(matrix.correct)}")
    return "\n\n".join(block.rstrip("\n") for block in blocks) + "\n"


def _dead(rows: Sequence[KillRow]) -> str:
    lines = []
    for row in rows:
        margin, also = row.margins.get(row.meant_for), [check for check in row.killed_by if check != row.meant_for]
        where, said = row.where.get(row.meant_for, ""), "**alive**" if not row.as_it_should else _margin(margin)
        name = row.name.rpartition(", ")[0] if MUTANTS[row.name].problem is not None else row.name
        lines.append((name, MUTANTS[row.name].changes, row.meant_for, said, where, ", ".join(also)))
    return _table(("error", "what is wrong", "killed by", "margin", "most on", "also by"), lines)


def _alive(rows: Sequence[KillRow]) -> str:
    lines = []
    for row in rows:
        check = max(row.margins, key=lambda name: row.margins[name], default="")
        said = _margin(row.margins.get(check)) if row.as_it_should else "**refused**"
        lines.append((row.name, row.kind, f"{len(row.margins)}", said, check, row.where.get(check, "")))
    head = ("subject", "kind", "checks", "largest margin", "of check", "on")
    return f"Nothing is refused where the largest margin is at most 1.\n\n{_table(head, lines)}"


def _margin(value: float | None) -> str:
    if value is None or math.isinf(value):
        return "outright"
    return f"10^{math.log10(value):.0f}" if value > 100.0 else f"{value:.2g}"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
