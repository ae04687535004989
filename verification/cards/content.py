"""What a card says, once: sections of sentences and tables, from which the page and the Markdown are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bilevelrl.verification.cards.card import Card, Place, headline_of, power_of
from bilevelrl.verification.cards.mistakes import FAR, NO_EFFECT, NOT_COMPUTED, SAME, TOLD_APART
from bilevelrl.verification.reports.html import size_text

__all__ = ["Section", "Table", "card_markdown", "card_sections", "count_text", "size"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of texts; `numbers` are the columns that are aligned right."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading, sentences, perhaps a table; `folded`: shown on demand; `kind`: of problem, if it is of one."""

    title: str
    lines: tuple[str, ...] = ()
    table: Table | None = None
    folded: bool = False
    kind: str = ""


def card_sections(card: Card) -> list[Section]:
    """Return everything that a card says, the summary first.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> from bilevelrl.verification.cards import make_card
    >>> card = make_card("bc_hg", on=[scenario("toll")], mistakes=False)
    >>> [section.title for section in card_sections(card)]
    ['bc_hg', 'Claim', 'Configurable MDPs', 'Versions, seed, sources']
    """
    found = [_summary(card), _claim(card)]
    for kind in card.kinds:
        own = [place for place in card.places if place.kind == kind]
        found.extend(_kind(kind, own) if own else [])
    found.extend(_mistakes(card))
    unjudged = [place for place in card.places if not place.computed and not place.judged]
    if unjudged:
        reasons = dict.fromkeys(place.reason for place in unjudged)
        rows = [(_named([p.scenario for p in unjudged if p.reason == reason]), reason) for reason in reasons]
        table = Table(head=("scenarios", "why"), rows=tuple(rows))
        said = f"{len(unjudged)} of {len(card.places)} scenarios."
        found.append(Section(title="Not judged, and why", lines=(said,), table=table))
    found.append(_provenance(card))
    return found


def _summary(card: Card) -> Section:
    lines = [f"{card.headline}; {card.power}."]
    if card.cause:
        lines.append(card.cause)
    lines += [f"✗ {place.scenario}: {place.reason}" for place in card.failures[:6]]
    if len(card.failures) > 6:
        lines.append(f"… and {len(card.failures) - 6} more, below")
    return Section(title=card.estimator, lines=tuple(lines))


def _claim(card: Card) -> Section:
    worst = max((place for place in card.places if place.biased), key=lambda place: place.bias or 0.0, default=None)
    biased = sum(place.biased for place in card.places)
    computed = sum(place.computed for place in card.places)
    said = (
        f"on {biased} of {computed}, at most {size(worst.bias)} of the truth, on {worst.scenario}" if worst else "none"
    )
    targets = sorted({place.target for place in card.places}, key=lambda said: (len(said), said))
    rows = [
        ("what it is", card.summary or "not said"),
        ("it claims", f"{card.claim}: {card.claim_said}"),
        ("one draw", card.draw),
        ("it aims at", _named(targets)),
        ("kinds of problem", ", ".join(card.kinds)),
        ("bias, where a mean is known", said),
    ]
    return Section(title="Claim", table=Table(head=("what", ""), rows=tuple(rows)))


_KIND_TITLES = {
    "ConfigurableMDP": "Configurable MDPs",
    "MarkovGame": "Markov games",
    "ConfigurableLQR": "Configurable LQRs",
    "LQRGame": "LQR games",
}


def _kind(kind: str, places: Sequence[Place]) -> list[Section]:
    title = _KIND_TITLES.get(kind, kind)
    rows = tuple(_cells(place) for place in places if place.computed or place.judged)
    head = (
        "scenario", "claims", "verdict", "bias", "bias by part", "off its claim", "would see", "sd of a draw",
        "draws for 10 %", "steps per draw", "CPU of a call",
    )  # fmt: skip
    said = f"{headline_of(places)}; {power_of(places)}."
    cut = [place.cut for place in places if place.cut]
    lines = [said]
    if cut:
        lines.append(
            f"On {len(cut)} of them streams are cut and the truth is not. What the cut takes away from any right "
            f"estimate, up to {size(max(cut))} of the truth, is no bias: there it is from the mean of a right estimate."
        )
    if not rows:
        return [Section(title=title, lines=tuple(lines))]
    table = Table(head=head, rows=rows, numbers=frozenset({3, 5, 6, 7, 8, 9, 10}))
    return [Section(title=title, lines=tuple(lines), table=table, kind=kind)]


_STEPS = {"environment_steps": "", "oracle_steps": " oracle"}


def _cells(place: Place) -> tuple[str, ...]:
    seen = place.would_see or 0.0
    parts = "; ".join(f"{part} {size(found)}" for part, found in place.parts.items() if found > seen)
    return (
        place.scenario,
        place.claim,
        place.outcome,
        ("none" if not place.biased else size(place.bias)) if place.computed else "",
        parts,
        "none" if (place.off_claim or 0.0) <= seen and place.off_claim is not None else size(place.off_claim),
        size(place.would_see),
        size(place.standard_deviation),
        count_text(place.draws_for_tenth) if place.computed else "",
        " + ".join(f"{count:.3g}{_STEPS.get(name, f' {name}')}" for name, count in place.steps.items() if count),
        "" if place.cpu is None else f"{1e3 * place.cpu:.1f} ms",
    )


def _mistakes(card: Card) -> list[Section]:
    if not card.mistakes:
        return []
    told, same = card.mistaken(TOLD_APART), card.mistaken(SAME)
    lines = [
        f"Told apart from {len(told)} of {len(card.mistakes)} known mistakes by its expectation alone. A mistake is "
        f"looked for on one scenario after the other, the smallest first, until it is {FAR:,.0f} tolerances away."
    ]
    if same:
        lines.append(f"Not told apart, for its expectation is that of: {'; '.join(m.name for m in same)}.")
    near = [mistake for mistake in told if (mistake.distance or 0.0) <= FAR]
    if near:
        named = [f"{mistake.name} ({mistake.distance:.2g} tolerances on {mistake.scenario})" for mistake in near]
        lines.append(f"Told apart, but not by far: {'; '.join(named)}.")
    for outcome, words in (
        (NO_EFFECT, "Without effect on the mean on these scenarios, so that nothing is said of them"),
        (NOT_COMPUTED, "Without an expectation on these scenarios (they break the contract, or are of another kind)"),
    ):
        found = card.mistaken(outcome)
        if found:
            lines.append(f"{words}: {len(found)}.")
    rows = tuple(
        (m.name, m.outcome, m.scenario, "" if m.distance is None else f"{m.distance:.1e}")
        for m in sorted(card.mistakes, key=lambda m: (m.outcome == TOLD_APART, m.distance or 0.0))
    )
    head = ("mistake", "outcome", "told best on", "distance in tolerances")
    return [
        Section(title="Known mistakes", lines=tuple(lines)),
        Section(title="Every known mistake", table=Table(head=head, rows=rows, numbers=frozenset({3})), folded=True),
    ]


def _provenance(card: Card) -> Section:
    rows = [("made by", f"bilevelrl card {card.source}" + (f" --problem {card.problem}" if card.problem else ""))]
    if card.accuracy:
        rows.append(("error allowed, relative to the largest part of the truth", f"{card.accuracy:g}"))
    rows += [(name, version) for name, version in card.versions.items()]
    rows += [(f"sources of {name} (SHA-256)", digest) for name, digest in card.sources.items()]
    rows += [("seed of the draws that costs are read from", str(card.seed)), ("seconds of CPU", f"{card.seconds:.1f}")]
    said = (
        "Means, spreads and biases are exact sums over all trajectories, or quadratures, up to rounding; sizes are "
        "relative to the norm of the truth. Only costs are read from draws; a call is on 64 trajectories, or on one "
        "batch. A draw's standard deviation is the root of the trace of its covariance; draws for 10 % is how many "
        "draws have a mean whose root mean square error is a tenth of the truth, “never” where the bias alone is more."
    )
    table = Table(head=("what", ""), rows=tuple(rows))
    return Section(title="Versions, seed, sources", lines=(said,), table=table)


def card_markdown(card: Card) -> str:
    """Return a card as Markdown, tables and all."""
    lines: list[str] = []
    for i, section in enumerate(card_sections(card)):
        lines += [f"{'#' if i == 0 else '##'} {_escaped(section.title)}", ""]
        for line in section.lines:
            lines += [f"**{_escaped(line)}**" if i == 0 else _escaped(line), ""]
        if section.table is not None:
            lines += [*markdown_table(section.table), ""]
    return "\n".join(lines).rstrip() + "\n"


def markdown_table(table: Table) -> list[str]:
    """Return the lines of a table."""
    marks = ["---:" if i in table.numbers else "---" for i in range(len(table.head))]
    rows = [table.head, marks, *table.rows]
    return [f"| {' | '.join(cell if row is marks else _escaped(cell) for cell in row)} |" for row in rows]


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is; line breaks and bars would end a cell."""
    for mark in "\\`*_<>|[]":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())


def size(value: float | None) -> str:
    """A size relative to the truth; empty where there is none."""
    return "" if value is None else "0" if value == 0.0 else size_text(value)


def count_text(value: float | None) -> str:
    """A number of draws; None: never."""
    return "never" if value is None else f"{math.ceil(value):,}"


def _named(names: Sequence[str]) -> str:
    return "; ".join(names)
