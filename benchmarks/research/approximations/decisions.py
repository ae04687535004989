"""Which estimator when: the page whose numbers are rows of the study of costs, and the rows themselves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bilevelrl.benchmarks.sweeping.figures import Row

__all__ = ["RARE", "TEMPLATE", "Costs", "decisions"]

RARE = "nudged_common"
"""Followers that meet the same numbers seldom part: a sample in which none does looks certain."""

TEMPLATE = Path(__file__).with_name("which_estimator.md")
"""The page, with `{{what|method|knob}}` where numbers go."""


class Costs:
    """Rows by task, method and knob.

    Parameters
    ----------
    rows
        Of the study, as it makes them or as they are kept.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.tasks = list(dict.fromkeys(row["task"] for row in rows))

    def of(self, task: str, method: str, knob: str = "") -> Row | None:
        """Return a row, or None."""
        for row in self.rows:
            same = row["task"] == task and row["method"] == method
            if same and (not knob or float(row["knob"]) == float(knob)):
                return row
        return None

    def across(self, method: str, knob: str = "", column: str = "error") -> str:
        """Return a number on each task, in order; a dash where there is none; once where all are the same."""
        found = []
        for task in self.tasks:
            row = self.of(task, method, knob)
            number = None if row is None else _number(row[column])
            found.append("–" if number is None else f"{number:.2g}")
        return found[0] if len(set(found)) == 1 else " / ".join(found)

    def steps(self, method: str) -> str:
        """Return on each task the environment steps until the root mean square error is |∇J|."""
        found = []
        for task in self.tasks:
            row = self.of(task, method)
            deviation = None if row is None else _number(row["deviation"])
            if row is None or deviation is None:
                found.append("–")
            elif (bias := float(row["error"])) < 1.0:
                draws = max(deviation**2 / (1.0 - bias**2), 1.0)
                found.append(f"{draws * float(row['steps']):.1e}")
            else:
                found.append("never")
        return " / ".join(found)


def _number(value: object) -> float | None:
    return None if value is None or value == "" else float(str(value))


def decisions(rows: Sequence[Row], lengths: Sequence[int] = ()) -> str:
    """Return the page: the template with its numbers, and the tables."""
    costs = Costs(rows)

    def filled(match: re.Match[str]) -> str:
        what, *rest = match.group(1).split("|")
        if what == "tasks":
            return ", ".join(f"`{task}`" for task in costs.tasks)
        if what == "lengths":
            return ", ".join(str(length) for length in lengths)
        if what == "steps":
            return costs.steps(*rest)
        method, knob = rest[0], rest[1] if len(rest) > 1 else ""
        return costs.across(method, knob, what)

    page = re.sub(r"\{\{([^}]*)\}\}", filled, TEMPLATE.read_text(encoding="utf-8"))
    tables = [line for task in costs.tasks for line in _tables(costs, task)]
    return "\n".join([page, "## The rows", "", *tables]).rstrip()


def _tables(costs: Costs, task: str) -> list[str]:
    own = [row for row in costs.rows if row["task"] == task]
    lines = [
        f"**{task}**, with a model",
        "",
        "| method | knob: error | exact solutions | passes over the model | order of derivatives | CPU ms |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for method in dict.fromkeys(row["method"] for row in own if row["family"] == "model"):
        found = [row for row in own if row["method"] == method]
        cells = [", ".join(_point(row) for row in found), _range(found, "solves"), _range(found, "passes")]
        lines.append(f"| {method} | {' | '.join(cells)} | {found[0]['order']} | {_range(found, 'milliseconds')} |")
    lines += [
        "",
        f"**{task}**, from samples",
        "",
        "| method | bias | spread of one draw | steps of one draw | error after 1e4, 1e6, 1e8 steps |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in own:
        if row["family"] != "sampled":
            continue
        deviation = _number(row["deviation"])
        if deviation is None:
            lines.append(f"| {row['method']} | refused: {row['refused']} | | | |")
            continue
        bias, steps = float(row["error"]), float(row["steps"])
        after = ", ".join(f"{np.hypot(bias, deviation * np.sqrt(steps / all_of)):.2g}" for all_of in (1e4, 1e6, 1e8))
        said = " (rare draws)" if row["method"].startswith(RARE) else ""
        lines.append(f"| {row['method']} | {bias:.2g} | {deviation:.3g}{said} | {steps:.3g} | {after} |")
    return [*lines, ""]


def _range(rows: Sequence[Row], column: str) -> str:
    found = [float(row[column]) for row in rows]
    least, most = f"{min(found):.5g}", f"{max(found):.5g}"
    return least if least == most else f"{least}–{most}"


def _point(row: Row) -> str:
    knob, error = float(row["knob"]), _number(row["error"])
    return f"{knob:g}: refused" if error is None else f"{knob:g}: {error:.1e}"
