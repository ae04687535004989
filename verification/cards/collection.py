"""Cards of all estimators: one folder, continued where it was interrupted, and one table of them."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from bilevelrl.reference.errors import InvalidInputError
from bilevelrl.reference.storage import csv_text, software_versions, write_atomically
from bilevelrl.verification.cards.card import RIGHT, Card
from bilevelrl.verification.cards.content import Table, card_markdown, count_text, markdown_table, size
from bilevelrl.verification.cards.measure import card_of
from bilevelrl.verification.cards.mistakes import SAME, TOLD_APART
from bilevelrl.verification.cards.page import card_page
from bilevelrl.verification.cards.storage import card_json, read_card
from bilevelrl.verification.cards.subjects import Subject
from bilevelrl.verification.processes.jobs import Job, Progress, run_jobs

__all__ = ["collect", "collection_csv", "collection_markdown", "collection_rows", "write_card"]


_PATIENCE = 900.0
"""Seconds on a scenario: a busy machine must not make a registered estimator break its contract."""


def collect(
    subjects: Sequence[Subject], folder: Path, *, seed: int = 0, workers: int = 1, progress: Progress | None = None
) -> list[Card]:
    """Make the card of each, write it into the folder, and return all; a card that still holds is not made again.

    Parameters
    ----------
    subjects
        What `find_subject` found, each to be found again by its source.
    folder
        Of the cards; each is written whole as soon as it is made.
    seed, workers, progress
        As elsewhere.
    """
    kept = {subject.source: _kept(subject, folder, seed) for subject in subjects}
    jobs = [
        Job(function=_make, arguments=(subject.source, str(folder), seed), label=subject.name)
        for subject in subjects
        if kept[subject.source] is None
    ]
    made = iter(run_jobs(jobs, workers=workers, progress=progress))
    return [known if (known := kept[subject.source]) is not None else next(made) for subject in subjects]


def write_card(card: Card, folder: Path) -> tuple[Path, ...]:
    """Write a card's three writings into a folder, the JSON last, and return their paths."""
    stem = file_stem(card.source)
    writings = {"html": card_page(card), "md": card_markdown(card), "json": card_json(card)}
    return tuple(write_atomically(folder / f"{stem}.{suffix}", text) for suffix, text in writings.items())


def file_stem(source: str) -> str:
    """Return the name of a card's files.

    Examples
    --------
    >>> file_stem("bc_hg"), file_stem("my_package.module:function")
    ('bc_hg', 'my_package.module.function')
    """
    return "".join(letter if letter.isalnum() or letter in "._-" else "." for letter in source)


def _make(source: str, folder: str, seed: int) -> Card:
    from bilevelrl.verification.cards.subjects import find_subject

    card = card_of(find_subject(source), seed=seed, time_limit=_PATIENCE)
    write_card(card, Path(folder))
    return card


def _kept(subject: Subject, folder: Path, seed: int) -> Card | None:
    """The card that lies there, if nothing that it rests on has changed."""
    path = folder / f"{file_stem(subject.source)}.json"
    if not path.is_file():
        return None
    try:
        card = read_card(path)
    except InvalidInputError:  # of another version, or broken: made again
        return None
    made = (card.source, card.seed, dict(card.versions), dict(card.sources))
    return card if made == (subject.source, seed, software_versions(), subject.sources()) else None


def collection_rows(cards: Sequence[Card]) -> list[dict[str, Any]]:
    """Return one row per estimator and kind of problem.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> from bilevelrl.verification.cards import make_card
    >>> row = collection_rows([make_card("naive_pgd", on=[scenario("toll")], mistakes=False)])[0]
    >>> row["right"], row["scenarios"], row["largest_bias_part"]
    (1, 1, 'response')
    """
    rows = []
    for card in cards:
        for kind in card.kinds:
            places = [place for place in card.places if place.kind == kind]
            if not places:
                continue
            known = [place for place in places if place.computed]
            claims = {place.claim for place in places}
            biased = [place for place in known if place.biased]
            worst = max(biased, key=lambda place: place.bias or 0.0, default=None)
            part = "" if worst is None else max(worst.parts, key=lambda name: worst.parts[name], default="")
            timed = [place for place in known if place.truth_norm]
            rows.append(
                {
                    "estimator": card.source,
                    "kind": kind,
                    "level": card.level,
                    "claim": " or ".join(name for name in card.claim.split(" or ") if name in claims),
                    "draw": card.draw,
                    "scenarios": len(places),
                    "computed": len(known),
                    "right": sum(place.outcome in RIGHT for place in places),
                    "failed": sum(place.outcome == "failed" for place in places),
                    "no_power": sum(place.outcome == "no power" for place in places),
                    "biased": len(biased),
                    "largest_bias": "" if worst is None else f"{worst.bias:.6g}",
                    "largest_bias_on": "" if worst is None else worst.scenario,
                    "largest_bias_part": part,
                    "median_sd": _median([place.standard_deviation for place in timed]),
                    "median_draws_for_tenth": _median([place.draws_for_tenth or math.inf for place in timed]),
                    "median_steps_per_draw": _median([sum(place.steps.values()) for place in known]),
                    "mistakes": len(card.mistakes),
                    "told_apart": len(card.mistaken(TOLD_APART)),
                    "same": len(card.mistaken(SAME)),
                    "same_as": "; ".join(mistake.name for mistake in card.mistaken(SAME)),
                }
            )
    return rows


def collection_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a table with commas."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return csv_text([columns, *([row.get(name, "") for name in columns] for row in rows)])


def read_collection(text: str) -> list[dict[str, str]]:
    """Return the rows of `collection_csv` as texts."""
    return list(csv.DictReader(StringIO(text)))


def collection_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows, made or read back, as one Markdown table per kind of problem."""
    head = (
        "estimator", "claims", "right on", "mean known on", "largest bias", "mostly in", "sd of a draw",
        "draws for 10 %", "steps per draw", "told apart from", "same as",
    )  # fmt: skip
    lines: list[str] = []
    for kind in dict.fromkeys(str(row["kind"]) for row in rows):
        cells = [_cells(row) for row in rows if row["kind"] == kind]
        table = Table(head=head, rows=tuple(cells), numbers=frozenset({6, 7, 8, 10}))
        lines += [f"### {kind}", "", *markdown_table(table), ""]
    return "\n".join(lines)


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    claims = row["claim"] != "measured"
    bias = f"{size(float(row['largest_bias']))} ({row['largest_bias_on']})" if row["largest_bias"] else "none"
    draws = str(row["median_draws_for_tenth"])
    return (
        str(row["estimator"]),
        str(row["claim"]),
        f"{row['right']} of {row['scenarios']}" if claims else "–",
        f"{row['computed']} of {row['scenarios']}",
        bias,
        str(row["largest_bias_part"]),
        size(float(row["median_sd"])) if row["median_sd"] else "",
        "" if not draws else "never" if draws == "inf" else count_text(float(draws)),
        f"{float(row['median_steps_per_draw']):.3g}" if row["median_steps_per_draw"] else "",
        f"{row['told_apart']} of {row['mistakes']}",
        str(row["same"]),
    )


def _median(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.median(known):.6g}" if known else ""
