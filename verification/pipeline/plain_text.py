"""A report as plain text: its summary, what failed, what was not judged and why, and its tables."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bilevelrl.verification.checks.verdicts import Outcome
from bilevelrl.verification.pipeline.rows import EstimatorRow, Findings, RouteRow

__all__ = ["TextTable", "failure_lines", "plain_report", "report_tables", "summary_line", "unjudged_lines"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTable:
    """A titled table of strings; the last column is a verdict, numbers are aligned right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int = 2

    def plain(self) -> str:
        """Return it as aligned text."""
        widths = [max(len(row[i]) for row in (self.columns, *self.rows)) for i in range(len(self.columns))]
        lines = [self.title]
        for row in (self.columns, tuple("─" * width for width in widths), *self.rows):
            cells = [
                cell.ljust(width) if i < self.text_columns or i == len(row) - 1 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)


def report_tables(report: Findings) -> list[TextTable]:
    """Return the tables of a report: routes, enumeration, sampling."""
    tables = []
    if report.routes:
        tables.append(
            TextTable(
                title="Exact routes, against `implicit`",
                columns=("problem", "β", "route", "‖∇J‖", "difference", "its bound", "seconds", "verdict"),
                rows=tuple(_route_cells(row) for row in report.routes),
                text_columns=3,
            )
        )
    enumerated = _shown(report, "enumeration")
    if enumerated:
        tables.append(
            TextTable(
                title="Exact moments over all trajectories (relative to ‖∇J‖)",
                columns=(
                    "problem",
                    "estimator",
                    "claims",
                    "draws",
                    "bias",
                    "off its claim",
                    "sd",
                    "could see",
                    "verdict",
                ),
                rows=tuple(_enumerated_cells(row) for row in enumerated),
                text_columns=3,
            )
        )
    sampled = _shown(report, "sampling")
    if sampled:
        tables.append(
            TextTable(
                title="Independent draws (relative to ‖∇J‖; 95 % intervals)",
                columns=(
                    "problem",
                    "β",
                    "estimator",
                    "claims",
                    "draws",
                    "bias",
                    "bias along ∇J",
                    "sd",
                    "cosine",
                    "steps/draw",
                    "could see",
                    "verdict",
                ),
                rows=tuple(_sampled_cells(row) for row in sampled),
                text_columns=4,
            )
        )
    return tables


def plain_report(report: Findings) -> str:
    """Return the summary, failures, remarks, what was not judged and why, and all tables, as plain text."""
    blocks = [summary_line(report)]
    listed = (failure_lines(report), report.remarks, unjudged_lines(report))
    blocks.extend("\n".join(lines) for lines in listed if lines)
    blocks.extend(table.plain() for table in report_tables(report))
    return "\n\n".join(blocks)


def failure_lines(report: Findings) -> list[str]:
    """Return one line per failed check, with its reason."""
    lines = []
    for row in report.failures:
        who = getattr(row, "estimator", None) or f"route {getattr(row, 'route', '')}"
        lines.append(f"FAILED  {who} on {row.problem} (β = {row.temperature:g}): {row.verdict.reason}")
    if report.explanation is not None:
        lines.append(str(report.explanation))
    return lines


def unjudged_lines(report: Findings) -> list[str]:
    """Return one line per reason why something was not judged, and per problem without power, with who and where."""
    groups: dict[str, list[EstimatorRow | RouteRow]] = {}
    for row in report.rows:
        if row.verdict.outcome is Outcome.NOT_APPLICABLE:
            groups.setdefault(row.verdict.reason, []).append(row)
    lines = []
    for reason, rows in groups.items():
        who = dict.fromkeys(getattr(row, "estimator", None) or f"route {getattr(row, 'route', '')}" for row in rows)
        where = dict.fromkeys(row.problem for row in rows)
        lines.append(f"not applicable {len(rows)}  {', '.join(who)} on {'; '.join(where)}: {reason}")
    blind = [row for row in report.rows if row.verdict.outcome is Outcome.NO_POWER]
    for place in dict.fromkeys((row.problem, row.temperature) for row in blind):
        there = [row for row in blind if (row.problem, row.temperature) == place]
        who = dict.fromkeys(getattr(row, "estimator", None) or f"route {getattr(row, 'route', '')}" for row in there)
        least = min(row.verdict.detectable for row in there)
        lines.append(
            f"no power {len(there)}  {', '.join(who)} on {place[0]} (β = {place[1]:g}): biases from {_relative(least)} "
            "of the truth on could be seen"
        )
    return lines


def summary_line(report: Findings) -> str:
    """Return the first line of a report."""
    return f"{report.headline}, {report.seconds:.1f} s"


def _shown(report: Findings, method: str) -> list[EstimatorRow]:
    """Rows of a method; what is not applicable is told by reason, not listed."""
    rows = [row for row in report.estimators if row.method == method]
    return [row for row in rows if row.verdict.outcome is not Outcome.NOT_APPLICABLE]


def _route_cells(row: RouteRow) -> tuple[str, ...]:
    return (
        row.problem,
        f"{row.temperature:g}",
        row.route,
        _number(row.norm, ".6g"),
        _number(row.difference, ".1e"),
        _number(row.error_bound, ".1e"),
        _number(row.seconds, ".2f"),
        row.verdict.outcome.value,
    )


def _enumerated_cells(row: EstimatorRow) -> tuple[str, ...]:
    return (
        row.problem,
        row.estimator,
        row.claim,
        f"{row.draws:,}" if row.draws else "",
        _relative(row.bias),
        _relative(row.deviation),
        _number(row.standard_deviation, ".3g"),
        _relative(row.verdict.detectable),
        row.verdict.outcome.value,
    )


def _sampled_cells(row: EstimatorRow) -> tuple[str, ...]:
    half = 0.5 * (row.bias_high - row.bias_low)
    cosine = 0.5 * (row.cosine_high - row.cosine_low)
    return (
        row.problem,
        f"{row.temperature:g}",
        row.estimator,
        row.claim,
        f"{row.draws:,}" if row.draws else "",
        _relative(row.bias) if row.bias > 0.0 or row.claim != "measured" else f"< {_relative(_noise(row))}",
        "" if math.isnan(half) else f"{row.bias_along:+.3f} ± {half:.3f}",
        _number(row.standard_deviation, ".3g"),
        "" if math.isnan(cosine) else f"{row.cosine:+.2f} ± {cosine:.2f}",
        _number(row.steps_per_draw, ",.0f"),
        _relative(row.verdict.detectable),
        row.verdict.outcome.value,
    )


def _noise(row: EstimatorRow) -> float:
    """Norm of the error that sampling leaves in the mean."""
    return row.standard_deviation / math.sqrt(max(row.draws, 1))


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else ""


def _relative(value: float) -> str:
    """A size relative to the truth: in percent where that reads well, in powers of ten below, as a multiple above."""
    if not math.isfinite(value):
        return ""
    if value >= 10.0:
        return f"{value:,.0f} ×"
    return f"{100 * value:.1f} %" if value >= 5e-4 else f"{value:.0e}"
