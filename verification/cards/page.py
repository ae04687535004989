"""A card as one HTML page that needs nothing else: styles and picture are inside."""

from __future__ import annotations

from bilevelrl.verification.cards.card import Card
from bilevelrl.verification.cards.content import Section, card_sections
from bilevelrl.verification.cards.picture import card_picture
from bilevelrl.verification.checks.verdicts import Outcome
from bilevelrl.verification.reports.html import CHIPS, STYLE, html_table
from bilevelrl.verification.reports.html_tags import Html, tag

__all__ = ["card_page"]

_CHIPS = {outcome.value: style for outcome, (style, _) in CHIPS.items()}


def card_page(card: Card) -> str:
    """Return the page.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> from bilevelrl.verification.cards import make_card
    >>> page = card_page(make_card("bc_hg", on=[scenario("toll")], mistakes=False))
    >>> "<svg" in page, "src=" in page, "href=" in page
    (True, False, False)
    """
    title = f"Estimator card: {card.estimator}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Html(STYLE)),
    )
    sections = [_section(card, section, first=i == 0) for i, section in enumerate(card_sections(card))]
    body = tag("body", tag("main", sections))
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _section(card: Card, section: Section, *, first: bool) -> list[Html | None]:
    table = None
    if section.table is not None:
        rows = [[_cell(cell) for cell in row] for row in section.table.rows]
        table = html_table(section.table.head, rows, numbers=set(section.table.numbers))
    if first:
        good = "bad" if card.failures else "good"
        lines = [piece for line in section.lines for piece in (tag("br"), line)][1:]
        banner = tag("div", tag("b", lines[0]), lines[1:], class_=f"banner {good}")
        return [tag("h1", f"Estimator card: {section.title}"), tag("p", card.summary, class_="soft"), banner]
    if section.folded:
        return [tag("details", tag("summary", section.title), [tag("p", line) for line in section.lines], table)]
    picture = None
    if section.kind:
        picture = tag("figure", Html(card_picture([place for place in card.places if place.kind == section.kind])))
    return [tag("h2", section.title), *(tag("p", line) for line in section.lines), picture, table]


def _cell(cell: str) -> Html | str:
    if cell in {outcome.value for outcome in Outcome}:
        return tag("span", cell, class_=f"chip {_CHIPS[cell]}")
    return cell
