"""A report as one HTML page that can be sent to a colleague: verdicts first, then figures, tables, versions and seeds.

The page is self-contained: styles and figures are inside, nothing is fetched.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from bilevelrl.reference.storage import software_versions
from bilevelrl.verification.checks.verdicts import Outcome
from bilevelrl.verification.pipeline.plain_text import unjudged_lines
from bilevelrl.verification.pipeline.results import EstimatorRow, Report, RouteRow
from bilevelrl.verification.pipeline.study_tables import Study
from bilevelrl.verification.reports.html_tags import Html, tag

__all__ = ["CHIPS", "STYLE", "html_report", "html_table", "size_text"]

CHIPS = {
    Outcome.PASSED: ("passed", "✓"),
    Outcome.FAILED: ("failed", "✗"),
    Outcome.NO_POWER: ("nopower", "?"),
    Outcome.EXPECTED: ("expected", "✓"),
    Outcome.MEASURED: ("measured", "·"),
    Outcome.NOT_APPLICABLE: ("inapplicable", "–"),
}

STYLE = """
:root { --ink:#1d2327; --soft:#5b6670; --line:#e3e6e8; --paper:#ffffff; --wash:#f6f7f8; }
* { box-sizing:border-box; }
body { margin:0; background:var(--paper); color:var(--ink); line-height:1.5;
  font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif; }
main { max-width:1120px; margin:0 auto; padding:32px 28px 64px; }
h1 { font-size:26px; margin:0 0 4px; } h2 { font-size:19px; margin:40px 0 10px; }
p { max-width:78ch; } .soft { color:var(--soft); } code { font-size:13px; background:var(--wash); padding:1px 4px; }
.banner { border-left:6px solid; padding:12px 18px; margin:20px 0; background:var(--wash); border-radius:0 6px 6px 0; }
.banner b { font-size:18px; } .banner.good { border-color:#2e7d5b; } .banner.bad { border-color:#b3261e; }
table { border-collapse:collapse; margin:14px 0; font-size:13px; font-variant-numeric:tabular-nums; }
th { text-align:left; font-weight:600; color:var(--soft); border-bottom:1.5px solid #b9c0c5; padding:5px 10px 5px 0;
  vertical-align:bottom; } td { border-bottom:1px solid var(--line); padding:4px 10px 4px 0; vertical-align:top; }
td.n, th.n { text-align:right; } td.n { white-space:nowrap; } .wide { overflow-x:auto; }
.chip { display:inline-block; min-width:74px; text-align:center; border-radius:9px; padding:0 8px; font-size:12px;
  font-weight:600; white-space:nowrap; }
.passed { background:#d9efe3; color:#1c5e41; } .failed { background:#f9d9d6; color:#8c1d18; }
.nopower { background:#fdeec7; color:#755200; } .expected { background:#e4efe9; color:#41705a; }
.measured { background:#e8eaf6; color:#3f4a86; } .inapplicable { background:#eceeef; color:#6a747c; }
table.map td { width:17px; height:17px; padding:0; text-align:center; border:1.5px solid #fff; font-size:11px; }
table.map td.name, table.map th.name { width:auto; text-align:left; padding:0 10px 0 0; font-size:12.5px; }
table.map th.place { height:200px; padding:0; border:0; position:relative; width:17px; min-width:19px; }
table.map th.place span { position:absolute; bottom:4px; left:11px; transform-origin:0 100%; white-space:nowrap;
  transform:rotate(-60deg); font-weight:400; font-size:11px; color:var(--ink); }
figure { margin:18px 0 26px; } figure svg { max-width:100%; height:auto; }
figcaption { color:var(--soft); font-size:13px; }
details { margin:8px 0; } summary { cursor:pointer; font-weight:600; padding:4px 0; }
@media print { main { max-width:none; padding:0; } details { break-inside:avoid; } }
"""


def html_report(
    report: Report,
    *,
    study: Study | None = None,
    figures: Iterable[tuple[str, str]] = (),
    title: str = "Hypergradient estimators against exact truth",
) -> str:
    """Return the page.

    Parameters
    ----------
    report
        Verdicts: what `verify` returns.
    study
        What `run_study` returned, for the table at the largest number of samples.
    figures
        (SVG, caption) pairs.
    title
        Of the page.

    Examples
    --------
    >>> from bilevelrl.estimators import BCHG
    >>> from bilevelrl.tasks import scenario
    >>> from bilevelrl.verification import verify
    >>> page = html_report(verify(BCHG(), scenarios=[scenario("toll")]))
    >>> "<title>" in page, "http" in page.split("</style>")[1]
    (True, False)
    """
    pictures = [tag("figure", Html(svg), tag("figcaption", said)) for svg, said in figures]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Html(STYLE)),
    )
    sizes = "All sizes are relative to the norm of the exact hypergradient ∇J of each scenario."
    main = tag(
        "main",
        tag("h1", title),
        tag("p", f"bilevelrl {software_versions()['bilevelrl']}. {sizes}", class_="soft"),
        _banner(report),
        _map(report.estimators),
        _summary(report.estimators),
        _routes(report.routes),
        [tag("h2", "Error and accuracy against samples"), pictures] if pictures else None,
        _study_table(study),
        _details(report.estimators),
        _provenance(report, study),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, tag('body', main), lang='en')}\n"


def _banner(report: Report) -> Html:
    lines: list[Any] = [tag("b", report.headline)]
    if report.explanation is not None:
        lines.append(tag("b", str(report.explanation).capitalize()))
    for row in report.failures[:8]:
        who = row.estimator if isinstance(row, EstimatorRow) else f"route {row.route}"
        lines.append(f"✗ {who} on {row.problem}: {row.verdict.reason}")
    if len(report.failures) > 8:
        lines.append(f"… and {len(report.failures) - 8} more, below")
    lines.extend((*report.remarks, *unjudged_lines(report)))
    broken = [piece for line in lines for piece in (tag("br"), line)][1:]
    return tag("div", broken, class_=f"banner {'good' if report.passed else 'bad'}")


def _map(rows: Sequence[EstimatorRow]) -> list[Html] | None:
    places = list(dict.fromkeys(row.problem for row in rows))
    names = list(dict.fromkeys(row.estimator for row in rows))
    if len(places) < 2 or not names:
        return None
    cells = {(row.estimator, row.problem): row for row in rows}

    def cell(name: str, place: str) -> Html:
        row = cells.get((name, place))
        if row is None:
            return tag("td")
        style, mark = CHIPS[row.verdict.outcome]
        hint = f"{name} on {place}: {row.verdict.outcome.value}. {row.verdict.reason}"
        return tag("td", mark, class_=style, title=hint)

    head = [tag("th", tag("span", place), class_="place") for place in places]
    lines = [tag("tr", tag("td", name, class_="name"), [cell(name, place) for place in places]) for name in names]
    chips = [
        [tag("span", f"{mark} {outcome.value}", class_=f"chip {style}"), " "]
        for outcome, (style, mark) in CHIPS.items()
    ]
    return [
        tag("h2", "Verdicts"),
        tag(
            "p",
            "Each estimator is held against what it claims: an unbiased one against the truth, one that is biased by "
            "design against the expectation it declares. Where every trajectory is enumerated there is no sampling "
            "error. “Measured”: nothing is claimed. “Not applicable”: the estimator says so, or its "
            "batches are too many to enumerate. Hover over a cell for its reason.",
        ),
        tag("p", chips),
        tag("div", tag("table", tag("tr", tag("th", class_="name"), head), lines, class_="map"), class_="wide"),
    ]


def _summary(rows: Sequence[EstimatorRow]) -> Html | None:
    if not rows:
        return None
    lines: list[list[Any]] = []
    for name in dict.fromkeys(row.estimator for row in rows):
        own = [row for row in rows if row.estimator == name]
        judged = [row for row in own if row.verdict.outcome not in (Outcome.NOT_APPLICABLE, Outcome.MEASURED)]
        biased = [row for row in own if math.isfinite(row.bias)]
        worst = max(biased, key=lambda row: row.bias, default=None)
        seen = max((row.verdict.detectable for row in judged), default=math.nan)
        off = max((row.deviation for row in judged if math.isfinite(row.deviation)), default=math.nan)
        lines.append(
            [
                _chip(_overall(own)),
                tag("code", name),
                " or ".join(dict.fromkeys(row.claim for row in own)),
                f"{sum(row.verdict.outcome is Outcome.PASSED for row in own)} / {len(own)}",
                size_text(off),
                size_text(seen),
                None
                if worst is None
                else [size_text(worst.bias), " ", tag("span", f"({worst.problem})", class_="soft")],
            ]
        )
    head = [
        "verdict",
        "estimator",
        "claims",
        "passed",
        "largest deviation from claim",
        "would have seen",
        "largest bias",
    ]
    return html_table(head, lines, numbers={3, 4, 5})


def _overall(rows: Sequence[EstimatorRow]) -> Outcome:
    found = {row.verdict.outcome for row in rows}
    order = (
        Outcome.FAILED,
        Outcome.NO_POWER,
        Outcome.EXPECTED,
        Outcome.PASSED,
        Outcome.MEASURED,
        Outcome.NOT_APPLICABLE,
    )
    return next(outcome for outcome in order if outcome in found)


def _routes(rows: Sequence[RouteRow]) -> list[Html] | None:
    if not rows:
        return None
    lines = [
        [
            _chip(row.verdict.outcome),
            row.problem,
            tag("code", row.route),
            row.family,
            f"{row.temperature:g}",
            size_text(row.difference),
            size_text(row.error_bound),
            f"{row.seconds:.2f}",
        ]
        for row in rows
    ]
    head = ["verdict", "problem", "route", "family", "β", "difference", "its bound", "seconds"]
    return [tag("h2", "Exact routes"), html_table(head, lines, numbers={4, 5, 6, 7})]


def _study_table(study: Study | None) -> list[Html] | None:
    if study is None or not study.rows:
        return None
    largest = max(row.samples for row in study.rows)
    said = "Bias and standard deviation are exact where the law of a draw could be enumerated, else from replicates."
    blocks = [tag("h2", f"Estimates of {largest} trajectories"), tag("p", said)]
    for place in dict.fromkeys(row.scenario for row in study.rows):
        lines = [
            [
                tag("code", row.estimator),
                row.moments,
                size_text(row.bias),
                size_text(row.standard_deviation),
                size_text(row.root_mean_square),
                f"{row.cosine:+.3f}",
                f"{row.cosine_low:+.2f} … {row.cosine_high:+.2f}",
                f"{row.steps:,.0f}",
            ]
            for row in study.rows
            if row.scenario == place and row.samples == largest
        ]
        head = ["estimator", "moments", "bias", "sd", "RMS error", "cosine", "5 … 95 %", "steps"]
        blocks.append(tag("details", tag("summary", place), html_table(head, lines, numbers={2, 3, 4, 5, 6, 7})))
    return blocks


def _details(rows: Sequence[EstimatorRow]) -> list[Html] | None:
    if not rows:
        return None
    blocks = [tag("h2", "Every check")]
    for place in dict.fromkeys(row.problem for row in rows):
        own = [row for row in rows if row.problem == place]
        lines = [
            [
                _chip(row.verdict.outcome),
                tag("code", row.estimator),
                row.claim,
                row.target,
                f"{row.draws:,}" if row.draws else "",
                size_text(row.bias),
                size_text(row.standard_deviation),
                "; ".join(f"{part} {size_text(value)}" for part, value in row.parts.items() if value > 1e-9),
                row.verdict.reason,
            ]
            for row in own
        ]
        head = ["verdict", "estimator", "claims", "target", "draws", "bias", "sd of a draw", "bias by part", "why"]
        failed = sum(row.verdict.failed for row in own)
        mark = [" ", tag("span", f"{failed} failed", class_="chip failed")] if failed else None
        summary = tag("summary", f"{place} ", tag("span", f"β = {own[0].temperature:g}", class_="soft"), mark)
        table = html_table(head, lines, numbers={4, 5, 6})
        blocks.append(tag("details", summary, table, open="open" if failed else None))
    return blocks


def _provenance(report: Report, study: Study | None) -> list[Html]:
    entries: dict[str, Any] = {f"{name} version": version for name, version in software_versions().items()}
    entries |= {str(key): value for key, value in report.configuration.items()}
    if study is not None:
        entries["seed of the study"] = study.seed
        entries["replicates of the study"] = study.replicates
        entries["scenarios of the study"] = study.scenarios
        entries["versions of the study"] = [f"{name} {version}" for name, version in study.versions.items()]
    entries["seconds"] = f"{report.seconds:.1f}"
    lines = [[key, _listed(value)] for key, value in entries.items()]
    return [tag("h2", "Versions, seeds, settings"), html_table(["what", "value"], lines, numbers=set())]


def html_table(head: Sequence[str], lines: Sequence[Sequence[Any]], *, numbers: set[int]) -> Html:
    """Return a table of contents; `numbers` are the columns that are aligned right."""

    def row(kind: str, cells: Sequence[Any]) -> Html:
        return tag("tr", [tag(kind, cell, class_="n" if i in numbers else None) for i, cell in enumerate(cells)])

    return tag("div", tag("table", row("th", head), [row("td", line) for line in lines]), class_="wide")


def _chip(outcome: Outcome) -> Html:
    return tag("span", outcome.value, class_=f"chip {CHIPS[outcome][0]}")


def size_text(value: float) -> str:
    """A fraction of the truth: percent where that reads well, else in powers of ten."""
    if not math.isfinite(value):
        return ""
    if value >= 2.0:
        return f"{value:.3g} ×"
    return f"{100 * value:.1f} %" if value >= 5e-4 else f"{value:.0e}"


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
