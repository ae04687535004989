"""Whose card: a registered estimator, one that another package offers, or any function by its Python name.

Another package offers its estimators, by name, as entry points of the group `bilevelrl.cards` whose object is an
estimator or a function (trajectories, context) → rows:

    [project.entry-points."bilevelrl.cards"]
    my_estimator = "my_package.my_module:my_estimator"
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from bilevelrl.estimators import ESTIMATORS, Claim, Estimator
from bilevelrl.reference import ConfigurableLQR, ConfigurableMDP, LQRGame, MarkovGame
from bilevelrl.reference.errors import BilevelRLError, InvalidInputError, UnknownNameError, refusal
from bilevelrl.reference.problem import Objective
from bilevelrl.verification.enumeration.contract import estimator_name
from bilevelrl.verification.reading.named_objects import named_object
from bilevelrl.verification.testing.records import written_in

__all__ = ["CARD_GROUP", "KINDS", "Subject", "all_subjects", "find_subject"]

CARD_GROUP = "bilevelrl.cards"

KINDS = {"mdp": ConfigurableMDP, "game": MarkovGame, "lqr": ConfigurableLQR, "lqr_game": LQRGame}
"""Kinds of problem by the names that commands use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a card is made of.

    Attributes
    ----------
    name, source, summary, level : str
        As in `Card`.
    make : function
        Objective that a scenario's streams can tell → estimator; the same one where it is not made for an objective.
    kinds : tuple of classes
        Of problems.
    claim : Claim or None
        What a plain function claims.
    file, line
        Where it is written; empty and 0 where that is not known.
    """

    name: str
    source: str
    summary: str
    level: str
    make: Callable[[Objective], Any]
    kinds: tuple[type, ...]
    claim: Claim | None = None
    file: str = ""
    line: int = 0

    def claim_of(self, made: Any = None) -> Claim:
        """Return what it claims; `made`: the estimator, where it is at hand."""
        made = self.make(Objective()) if made is None else made
        stated: Claim = self.claim if self.claim is not None else getattr(made, "claim", Claim.UNBIASED)
        return stated

    def sources(self) -> dict[str, str]:
        """Return digests: of the file that the estimator is written in, and of this package."""
        try:
            own = {"estimator": _digest([Path(self.file)])} if self.file else {}
        except OSError:
            own = {}
        return {**own, "bilevelrl": package_digest()}


def find_subject(name: str, *, kinds: Iterable[str] = (), claim: Claim | None = None) -> Subject:
    """Return whose card a name asks for.

    Parameters
    ----------
    name
        Of a registered estimator, of an entry point of the group `bilevelrl.cards`, or as "package.module:function".
    kinds
        Of `KINDS`; empty: those that the estimator is listed for, or serves; of a plain function the first.
    claim
        What a plain function claims; None: unbiased.

    Raises
    ------
    UnknownNameError, InvalidInputError
        If there is no such estimator or kind, or an estimator is asked to claim something else than it does.

    Examples
    --------
    >>> subject = find_subject("bc_hg")
    >>> subject.level, [kind.__name__ for kind in subject.kinds]
    ('formula', ['ConfigurableMDP', 'ConfigurableLQR'])
    """
    for kind in kinds:
        if kind not in KINDS:
            raise UnknownNameError("kind", kind, KINDS)
    wanted = tuple(KINDS[kind] for kind in kinds)
    offered = {entry.name: entry for entry in metadata.entry_points(group=CARD_GROUP)}
    if name in ESTIMATORS:
        entry = ESTIMATORS[name]
        file, line = written_in(entry.make(Objective()))
        if claim is not None:
            raise InvalidInputError(refusal("claim", claim.name, "to be left out", f"{name} says what it claims"))
        return Subject(
            name=name,
            source=name,
            summary=entry.summary,
            level=entry.level,
            make=entry.make,
            kinds=wanted or entry.kinds,
            file=file,
            line=line,
        )
    if name in offered:
        try:
            found = offered[name].load()
        except Exception as broken:  # whatever another package's import raises
            raise InvalidInputError(
                refusal("estimator", name, f"that {offered[name].value} can be imported", str(broken))
            ) from broken
    elif ":" in name:
        found = named_object("estimator", name)
    else:
        raise UnknownNameError("estimator", name, [*ESTIMATORS, *offered, "package.module:function"])
    return _own(found, name, wanted, claim)


def _own(found: Any, source: str, wanted: tuple[type, ...], claim: Claim | None) -> Subject:
    try:
        made = found() if isinstance(found, type) else found
    except Exception as broken:
        raise InvalidInputError(
            refusal("estimator", source, "a class that is made without arguments", f"name an instance ({broken})")
        ) from broken
    if not callable(made):
        raise InvalidInputError(
            refusal("estimator", source, "a function (trajectories, context) → rows", "name the function itself")
        )
    if isinstance(made, Estimator):
        if claim is not None:
            raise InvalidInputError(refusal("claim", claim.name, "to be left out", f"{source} says what it claims"))
        served = tuple(kind for kind in KINDS.values() if issubclass(kind, made.kinds))
    else:
        served = (ConfigurableMDP,)
    file, line = written_in(made)
    said = inspect.getdoc(made) if not isinstance(made, Estimator) else inspect.getdoc(type(made))
    return Subject(
        name=estimator_name(made),
        source=source,
        summary=(said or "").partition("\n")[0],
        level="yours",
        make=lambda target: made,
        kinds=wanted or served,
        claim=claim,
        file=file,
        line=line,
    )


def all_subjects() -> list[Subject]:
    """Return every registered estimator, and those that other packages offer; broken ones are named and left out."""
    found = [find_subject(name) for name in ESTIMATORS]
    for entry in sorted(metadata.entry_points(group=CARD_GROUP), key=lambda entry: entry.name):
        try:
            found.append(find_subject(entry.name))
        except BilevelRLError as broken:
            print(f"bilevelrl: {broken}", file=sys.stderr)
    return found


@cache
def package_digest() -> str:
    """Return a digest of all that a verdict rests on: the sources of this package and its stored truths."""
    files: list[Path] = []
    for package in ("reference", "estimators", "tasks", "verification"):
        for folder in importlib.import_module(f"bilevelrl.{package}").__path__:
            files += [path for path in Path(folder).rglob("*") if path.suffix in (".py", ".json")]
    return _digest(sorted(files))


def _digest(files: Iterable[Path]) -> str:
    found = hashlib.sha256()
    for path in files:
        found.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()[:16]
