"""The registry of scenarios: problems with stored truth, by name and tag.

Scenarios with a closed form are in `textbook.py`. The truth of the others is stored in `scenario_truths.json`: routes
of different families that agree, and to how many digits. A stored truth is data: it does not move when the code does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError, refusal
from bilevelrl.reference.problem import INFINITE_HORIZON, Objective
from bilevelrl.tasks.scenarios.other_kinds import OTHER_KINDS
from bilevelrl.tasks.scenarios.problems import EPISODES, STORED
from bilevelrl.tasks.scenarios.reference_data import reference_problems
from bilevelrl.tasks.scenarios.scenario import SCENARIO_TAGS, Provenance, Scenario, Truth
from bilevelrl.tasks.scenarios.textbook import TEXTBOOK

__all__ = ["COMMAND", "TRUTHS_FILE", "find_scenario", "scenario", "scenario_names", "scenarios"]

COMMAND = "python -m bilevelrl.tasks.scenarios.truths"
TRUTHS_FILE = "scenario_truths.json"


@checked
def scenario_names(kind: type = ConfigurableMDP) -> tuple[str, ...]:
    """Return the names of all scenarios of a kind of problem, a class: textbook cases first.

    Examples
    --------
    >>> scenario_names()[0], len(set(scenario_names())) == len(scenario_names())
    ('bandit', True)
    """
    own = (*_textbook(), *STORED) if issubclass(ConfigurableMDP, kind) else ()
    others = {} if issubclass(kind, ConfigurableMDP) else _of_other_kinds()
    return (*own, *(name for name, entry in others.items() if isinstance(entry.problem, kind)))


@checked
def scenario(name: str) -> Scenario:
    """Return a scenario by name; the same object each time.

    Raises
    ------
    UnknownNameError
        If there is none; close matches are listed.

    Examples
    --------
    >>> scenario("survival").truth.parts["transition"].shape
    (1,)
    """
    return find_scenario("name", name)


def find_scenario(argument: str, name: str) -> Scenario:
    """As `scenario`, for a function that takes the name, or the scenario itself, as an argument of its own."""
    if name in _textbook():
        return _textbook()[name]
    if name in STORED:
        return _stored_scenario(name)
    if name not in _of_other_kinds():
        raise UnknownNameError(argument, name, scenario_names(object))
    return _of_other_kinds()[name]


@checked
def scenarios(
    *, tags: str | Iterable[str] = (), without: str | Iterable[str] = (), kind: type = ConfigurableMDP
) -> tuple[Scenario, ...]:
    """Return the scenarios of a kind that have all of `tags` and none of `without`.

    Parameters
    ----------
    tags, without
        Of `SCENARIO_TAGS`; one string is one tag.
    kind
        Of problem, a class; object: all.

    Raises
    ------
    UnknownNameError
        If a tag does not exist.

    Examples
    --------
    >>> [found.name for found in scenarios(tags=["textbook", "envelope"])]
    ['envelope bandit']
    >>> from bilevelrl.reference import MarkovGame
    >>> game = scenarios(kind=MarkovGame)[0]
    >>> sorted(game.truth.parts)
    ['policy', 'regulariser', 'response']
    """
    wanted, unwanted = _tags("tags", tags), _tags("without", without)
    found = (scenario(name) for name in scenario_names(kind))
    return tuple(entry for entry in found if wanted <= entry.tags and not unwanted & entry.tags)


def _tags(argument: str, given: Iterable[str]) -> set[str]:
    listed = {given} if isinstance(given, str) else set(given)
    for tag in listed:
        if tag not in SCENARIO_TAGS:
            raise UnknownNameError(argument, tag, SCENARIO_TAGS)
    return listed


@cache
def _textbook() -> dict[str, Scenario]:
    return {entry.name: entry for entry in (make() for make in TEXTBOOK)}


@cache
def _of_other_kinds() -> dict[str, Scenario]:
    """Scenarios of the other kinds: those that are checked by default, then reference problems."""
    own = {name: make() for name, make in OTHER_KINDS.items()}
    return own | {
        stored.name: stored.scenario()
        for stored in reference_problems()
        if stored.closed_form.kind != "configurable_mdp"
    }


@cache
def _records() -> dict[str, Any]:
    text = (resources.files("bilevelrl.tasks") / TRUTHS_FILE).read_text(encoding="utf-8")
    records: dict[str, Any] = json.loads(text)["scenarios"]
    return records


@cache
def _stored_scenario(name: str) -> Scenario:
    summary, make, tags, horizon = STORED[name]
    problem, theta = make()
    if name not in _records():
        raise InvalidInputError(refusal("scenario", name, f"a truth in {TRUTHS_FILE}", f"run {COMMAND}"))
    record = _records()[name]
    # The truth is of one θ and one problem: a generator that has changed must not be judged by an old truth.
    if not np.allclose(record["theta"], theta, rtol=0.0, atol=1e-15):
        raise InvalidInputError(
            refusal(f"{name}: theta", theta, f"that of {TRUTHS_FILE}", f"run {COMMAND} and look why")
        )
    kept = {"truth": Objective(), "truncated": Objective(horizon)}
    return Scenario(
        name=name,
        summary=summary,
        problem=problem,
        theta=theta,
        truths={objective: Truth.of(**record[kind]) for kind, objective in kept.items() if kind in record},
        provenance=Provenance(source=COMMAND, routes=tuple(record["routes"]), digits=record["digits"]),
        tags=frozenset(["random", *tags.split()]),
        horizon=horizon,
        episodes=EPISODES.get(name, 1),
        objective=INFINITE_HORIZON if "cut" in tags.split() else None,
    )
