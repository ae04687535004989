"""The command `bilevelrl card`: what an estimator claims, and all that enumeration says of it, on one page.

    bilevelrl card bc_hg                              a registered estimator, printed as Markdown
    bilevelrl card my_module:my_function --output DIR your own; DIR gets a page, Markdown and JSON
    bilevelrl card my_module:f --compare old.json     what changed; exit status 1 if a claim broke
    bilevelrl card --check cards/*.json               make cards again and hold their numbers against these
    bilevelrl card --all --output DIR                 every registered estimator, and the table of them

Exit status: 0 where every claim holds, 1 where one does not, 2 where too little could be judged.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from bilevelrl.estimators import Claim
from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.reference.storage import locked, writable_folder, write_atomically
from bilevelrl.tasks import Scenario
from bilevelrl.verification.cards.card import Card
from bilevelrl.verification.cards.collection import (
    collect,
    collection_csv,
    collection_markdown,
    collection_rows,
    write_card,
)
from bilevelrl.verification.cards.compare import compare_cards
from bilevelrl.verification.cards.content import card_markdown
from bilevelrl.verification.cards.measure import card_of
from bilevelrl.verification.cards.storage import card_json, read_card
from bilevelrl.verification.cards.subjects import KINDS, Subject, all_subjects, find_subject
from bilevelrl.verification.checks.verdicts import Outcome
from bilevelrl.verification.commands.arguments import add_files, count, refuse_unwritable, seed
from bilevelrl.verification.commands.places import add_place, read_place
from bilevelrl.verification.pipeline.scenario_rows import TIME_LIMIT
from bilevelrl.verification.processes.ending import CHECK_FAILED, HOLDS, UNANSWERED
from bilevelrl.verification.reports.terminal import progress_bar
from bilevelrl.verification.testing.records import Finding
from bilevelrl.verification.testing.sarif import write_findings

__all__ = ["fill_card"]


def fill_card(add: argparse.ArgumentParser) -> None:
    """Add the arguments of `card`."""
    add.description, add.formatter_class = __doc__, argparse.RawDescriptionHelpFormatter
    add.add_argument("estimators", nargs="*", metavar="ESTIMATOR", help="a registered name, or MODULE:NAME of your own")
    add.add_argument("--all", action="store_true", help="every registered estimator, and those of other packages")
    add.add_argument("--check", action="store_true", help="the words are card files: make them again and compare")
    add.add_argument("--compare", metavar="OLD.json", type=Path, help="say what changed since this card")
    add.add_argument("--output", metavar="DIR", type=Path, help="write .html, .md and .json there")
    add.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    add_files(add)
    add.add_argument("--kind", action="append", default=[], choices=tuple(KINDS), help="of problem (repeatable)")
    add.add_argument("--claim", choices=[claim.name.lower() for claim in Claim], help="of a plain function")
    add_place(add)
    add.add_argument("--horizon", type=count, help="steps of a stream on --task or --problem (default: computed)")
    add.add_argument("--seed", type=seed, default=0, help="of the draws that costs are read from (default 0)")
    add.add_argument("--time-limit", type=float, default=TIME_LIMIT, help="seconds on a scenario (default 60)")
    add.add_argument("--accuracy", type=float, default=0.0, metavar="A", help="relative error allowed beside rounding")
    add.add_argument("--quick", action="store_true", help="without the known mistakes")
    add.add_argument("--workers", type=count, default=1, help="processes of --all (default 1)")
    add.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    refuse_unwritable(parsed)
    if parsed.output is not None:
        writable_folder("--output", parsed.output)
    if not 0.0 < parsed.time_limit < 1e9:
        raise InvalidInputError(refusal("--time-limit", parsed.time_limit, "seconds > 0", "leave it out"))
    if not 0.0 <= parsed.accuracy < 1.0:
        raise InvalidInputError(refusal("--accuracy", parsed.accuracy, "a number in [0, 1)", "leave it out"))
    if parsed.all:
        return _all(parsed)
    if not parsed.estimators:
        raise InvalidInputError("ESTIMATOR: expected a name, or MODULE:NAME; see `bilevelrl card --help`")
    if parsed.check:
        if parsed.accuracy:
            raise InvalidInputError(refusal("--accuracy", parsed.accuracy, "to be left out", "a card has its own"))
        return _check(parsed)
    if parsed.compare is not None and len(parsed.estimators) != 1:
        raise InvalidInputError(refusal("--compare", parsed.estimators, "one estimator", "compare one card at a time"))
    old = None if parsed.compare is None else read_card(parsed.compare)
    claim = None if parsed.claim is None else Claim[parsed.claim.upper()]
    subjects = [find_subject(name, kinds=parsed.kind, claim=claim) for name in parsed.estimators]
    cards = []
    for card in _made(subjects, parsed):  # each is written before the next is begun
        cards.append(card)
        if parsed.output is not None:
            for path in write_card(card, parsed.output):
                print(f"wrote {path}", file=sys.stderr)
        if old is None:
            print(card_json(card) if parsed.json else card_markdown(card), end="")
    _write_findings(cards, subjects, parsed)
    if old is not None:
        return _compared(old, cards[0])
    return _status(cards)


def _made(subjects: Sequence[Subject], parsed: argparse.Namespace) -> Iterator[Card]:
    problem, theta = read_place(parsed)
    if problem is None and parsed.horizon is not None:
        raise InvalidInputError(refusal("--horizon", parsed.horizon, "a problem that it belongs to", "pass --task"))
    if problem is not None and parsed.kind:
        raise InvalidInputError(refusal("--kind", parsed.kind, "to be left out", "the problem is of one kind"))
    at = None if problem is None else [Scenario.of(problem, theta, horizon=parsed.horizon)]
    for subject in subjects:
        with progress_bar() as progress:
            card = card_of(
                subject,
                on=at,
                problem="" if problem is None else parsed.problem or f"task {parsed.task}",
                seed=parsed.seed,
                time_limit=parsed.time_limit,
                accuracy=parsed.accuracy,
                mistakes=not parsed.quick,
                progress=progress,
            )
        yield card


def _all(parsed: argparse.Namespace) -> int:
    given = {
        "ESTIMATOR": parsed.estimators, "--check": parsed.check, "--compare": parsed.compare, "--kind": parsed.kind,
        "--claim": parsed.claim, "--task": parsed.task, "--problem": parsed.problem, "--quick": parsed.quick,
        "--horizon": parsed.horizon, "--theta": parsed.theta, "--json": parsed.json,
        "--accuracy": parsed.accuracy,
    }  # fmt: skip
    for name, value in given.items():
        if value:
            raise InvalidInputError(refusal(name, value, "to be left out", "--all makes the card of every estimator"))
    if parsed.output is None:
        raise InvalidInputError("--output: expected a folder for the cards and their table; pass --output DIR")
    subjects = all_subjects()
    with locked(parsed.output), progress_bar() as progress:
        folder = parsed.output / "cards"
        cards = collect(subjects, folder, seed=parsed.seed, workers=parsed.workers, progress=progress)
        rows = collection_rows(cards)
        tables = {"cards.csv": collection_csv(rows), "cards.md": collection_markdown(rows)}
        for name, text in tables.items():
            print(f"wrote {write_atomically(parsed.output / name, text)}", file=sys.stderr)
    _write_findings(cards, subjects, parsed)
    for card in cards:
        print(f"{card.source}: {card.headline}")
    return CHECK_FAILED if any(card.failures for card in cards) else HOLDS


def _check(parsed: argparse.Namespace) -> int:
    held = []
    for name in parsed.estimators:
        old = read_card(name)
        subject = _again(old)
        theta = None if old.theta is None else np.array(old.theta)
        problem = None
        if old.problem:
            task = old.problem.removeprefix("task ") if old.problem.startswith("task ") else None
            place = argparse.Namespace(task=task, problem=None if task else old.problem, theta=None)
            problem = read_place(place)[0]
            theta = None if theta is None or problem.theta_shape is None else theta.reshape(problem.theta_shape)
        on = None if problem is None else [Scenario.of(problem, theta, horizon=old.horizon)]
        with progress_bar() as progress:
            card = card_of(
                subject, on=on, problem=old.problem, seed=old.seed, time_limit=parsed.time_limit,
                accuracy=old.accuracy, mistakes=bool(old.mistakes), progress=progress,
            )  # fmt: skip
        changes = compare_cards(old, card)
        other = [change for change in changes if change.number or change.broke]
        said = "says what is so" if not other else f"{len(other)} of its numbers are not so"
        print(f"{name}: {said}; {card.headline}")
        for change in changes:
            print(f"  {'✗' if change in other else '·'} {change.what}")
        held.append(not other)
    return HOLDS if all(held) else CHECK_FAILED


def _again(old: Card) -> Subject:
    """Whose card it is, asked for as it was."""
    names = {kind.__name__: name for name, kind in KINDS.items()}
    kinds = [] if old.problem else [names[kind] for kind in old.kinds if kind in names]
    subject = find_subject(old.source, kinds=kinds)
    if subject.level == "yours" and old.claim != subject.claim_of().name.lower():
        known = {claim.name.lower(): claim for claim in Claim}
        if old.claim not in known:
            raise InvalidInputError(refusal("claim", old.claim, f"one of {', '.join(known)}", "make the card again"))
        subject = find_subject(old.source, kinds=kinds, claim=known[old.claim])
    return subject


def _compared(old: Card, new: Card) -> int:
    changes = compare_cards(old, new)
    broke = [change for change in changes if change.broke]
    print(f"{new.estimator}: {len(changes)} changes, {len(broke)} broken claims; {new.headline}")
    for change in sorted(changes, key=lambda change: (not change.broke, not change.number)):
        print(f"  {'✗' if change.broke else '·'} {change.what}")
    return CHECK_FAILED if broke else HOLDS


def _write_findings(cards: Sequence[Card], subjects: Sequence[Subject], parsed: argparse.Namespace) -> None:
    findings = [one for card, whose in zip(cards, subjects, strict=True) for one in _findings(card, whose)]
    write_findings(findings, sarif=parsed.sarif, junit=parsed.junit)


def _status(cards: Sequence[Card]) -> int:
    if any(card.failures for card in cards):
        return CHECK_FAILED
    return HOLDS if all(card.passed or card.claim == "measured" for card in cards) else UNANSWERED


def _findings(card: Card, subject: Subject) -> list[Finding]:
    """Return what a card found as findings, one per scenario."""
    return [
        Finding(
            estimator=card.estimator,
            check=place.check,
            scenario=place.scenario,
            outcome=place.outcome,
            reason=place.reason,
            detectable=place.would_see,
            cause=card.cause if place.outcome == Outcome.FAILED.value else "",
            file=subject.file,
            line=subject.line,
        )
        for place in card.places
    ]
