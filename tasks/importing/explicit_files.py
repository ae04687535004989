"""Explicit files of probabilistic model checkers: transitions (.tra), labels (.lab) and rewards (.rew, .srew, .trew).

Two layouts are read, and told apart by their first lines:

- PRISM's: `.tra` begins with "states choices transitions" and lists "state choice next probability [action]"; `.lab`
  begins with `0="init" 1="goal"` and lists "state: number number"; rewards begin with their counts, "states entries" or
  "states choices entries", after comments that start with "#".
- Storm's: `.tra` begins with "mdp" and lists the same; `.lab` lists names between "#DECLARATION" and "#END", then
  "state name name"; rewards have no line of counts: "state reward" or "state choice next reward".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, StochasticityError, StorageError, refusal
from bilevelrl.tasks.importing.imported import Absorbing, ImportedMDP, assemble

__all__ = ["from_explicit_files"]


@checked
def from_explicit_files(
    transitions: str | Path,
    labels: str | Path | None = None,
    rewards: tuple[str | Path, ...] = (),
    *,
    initial: str = "init",
    end: tuple[str, ...] = (),
    absorbing: Absorbing | None = None,
) -> ImportedMDP:
    r"""Return the world of a model checker's explicit files.

    Parameters
    ----------
    transitions
        The .tra file of an MDP. States whose choices are fewer than others' get a mask.
    labels
        The .lab file, optional: without it the first state is 0.
    rewards
        Files of rewards of states and of transitions; they add.
    initial
        The label of first states: all are equally likely.
    end
        Labels of states in which the episode is over as soon as they are entered.
    absorbing
        Whether other states that no choice leaves end the episode ("end") or are lived in for ever ("keep").

    Raises
    ------
    StorageError
        If a file cannot be read.
    InvalidInputError
        If a line is malformed, with the file and the line; if a label is unknown.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from bilevelrl.tasks import from_explicit_files
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "coin.tra").write_text("2 3 4\n0 0 0 0.5\n0 0 1 0.5\n0 1 0 1\n1 0 1 1\n")
    >>> _ = (folder / "coin.lab").write_text('0="init" 1="done"\n0: 0\n1: 1\n')
    >>> world = from_explicit_files(folder / "coin.tra", folder / "coin.lab", end=("done",))
    >>> world.states, world.actions, world.action_mask.tolist()
    (2, 2, [[True, True], [True, False]])
    """
    listed, counted = _transitions(Path(transitions))
    states = 1 + max(max(line.state, line.following) for line in listed)
    actions = 1 + max(line.choice for line in listed)
    outcomes: dict[tuple[int, int], dict[int, float]] = {}
    for line in listed:
        row = outcomes.setdefault((line.state, line.choice), {})
        if line.following in row:
            raise _malformed(Path(transitions), line.number, "a transition that is not listed already")
        row[line.following] = line.value
    playable = np.zeros((states, actions), dtype=bool)
    for (state, choice), row in outcomes.items():
        playable[state, choice] = True
        if abs(sum(row.values()) - 1.0) > 1e-12:
            raise StochasticityError(
                refusal(f"sum of state {state}, choice {choice}", sum(row.values()), "1", f"correct {transitions}")
            )
    bare = np.flatnonzero(~playable.any(axis=1))
    if bare.size:
        raise InvalidInputError(
            refusal(f"state {int(bare[0])}", "no choice", "at least one", "let deadlocks get self-loops")
        )
    reward = np.zeros((states, actions))
    for path in rewards:
        _add_rewards(Path(path), reward, outcomes, counted=counted)
    named = {} if labels is None else _labels(Path(labels), states)
    start = np.zeros(states)
    if labels is None:
        start[0] = 1.0
    else:
        first = _labelled(named, "initial", initial)
        start[first] = 1.0 / len(first)
    over = {state for label in end for state in _labelled(named, "end", label)}
    if over & set(np.flatnonzero(start).tolist()):
        raise InvalidInputError(refusal("end", end, "labels of states in which no episode starts", "choose others"))
    left = {pair: {s: p for s, p in row.items() if s not in over} for pair, row in outcomes.items()}
    for state, choice in list(left):
        if state in over:
            left[state, choice] = {}
    notes = [f"states labelled {' or '.join(end)}, {len(over)}: the episode is over when one is entered"] if end else []
    return assemble(
        left, reward, start, absorbing=absorbing, playable=playable, name=Path(transitions).stem, notes=notes
    )


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    state: int
    choice: int
    following: int
    value: float


def _lines(argument: str, path: Path) -> list[tuple[int, str]]:
    """Numbered lines without comments and blanks."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(refusal(argument, str(path), "a text file that can be read", str(error))) from None
    numbered = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    return [(number, line) for number, line in numbered if line]


def _malformed(path: Path, number: int, expected: str) -> InvalidInputError:
    return InvalidInputError(refusal(f"{path.name}, line {number}", path.read_text().splitlines()[number - 1], expected,
                                     "export the file again"))  # fmt: skip


def _numbers(path: Path, number: int, line: str, integers: int, floats: int, expected: str) -> list[float]:
    words = line.split()
    try:
        if len(words) < integers + floats:
            raise ValueError
        found = [float(int(word)) for word in words[:integers]]
        found += [float(word) for word in words[integers : integers + floats]]
    except ValueError:
        raise _malformed(path, number, expected) from None
    if min(found[:integers], default=0.0) < 0.0 or not np.isfinite(found).all():
        raise _malformed(path, number, expected)
    return found


def _transitions(path: Path) -> tuple[list[_Line], bool]:
    """The transitions, and whether the file begins with counts."""
    lines = _lines("transitions", path)
    if not lines:
        raise InvalidInputError(refusal("transitions", str(path), "a file with transitions", "export it again"))
    number, head = lines[0]
    counts: list[float] | None = None
    if head.lower() != "mdp":
        expected = "'mdp', or the counts of states, choices and transitions of an MDP"
        if len(head.split()) != 3:
            raise _malformed(path, number, expected)
        counts = _numbers(path, number, head, 3, 0, expected)
    listed = []
    for number, line in lines[1:]:
        expected = "state, choice, next state, probability in (0, 1]"
        state, choice, following, value = _numbers(path, number, line, 3, 1, expected)
        if not 0.0 < value <= 1.0:
            raise _malformed(path, number, expected)
        listed.append(_Line(number, int(state), int(choice), int(following), value))
    if not listed or (counts is not None and len(listed) != counts[2]):
        expected = str(int(counts[2])) if counts else "some"
        raise InvalidInputError(refusal("transitions", f"{len(listed)} in {path.name}", expected, "export it again"))
    if counts is not None and max(max(line.state, line.following) for line in listed) >= counts[0]:
        raise InvalidInputError(refusal("states", str(path.name), f"numbers below {int(counts[0])}", "export it again"))
    return listed, counts is not None


def _add_rewards(
    path: Path, reward: FloatArray, outcomes: dict[tuple[int, int], dict[int, float]], *, counted: bool
) -> None:
    """Add a file of rewards of states ("state reward") or of transitions ("state choice next reward").

    PRISM's begin with a line of counts and Storm's do not: which it is, the file of transitions says.
    """
    lines = [(number, line) for number, line in _lines("rewards", path) if not line.startswith("#")]
    if counted:
        expected = "the counts of states (and choices) and of the entries that follow"
        if not lines:
            raise InvalidInputError(refusal("rewards", str(path), expected, "export the file again"))
        number, head = lines.pop(0)
        if _numbers(path, number, head, len(head.split()), 0, expected)[-1] != len(lines):
            raise _malformed(path, number, expected)
    widths = {len(line.split()) for _, line in lines}
    if widths - {2, 4, 5} or len(widths) > 1:
        raise InvalidInputError(
            refusal("rewards", str(path), "lines 'state reward' or 'state choice next reward'", "export the file again")
        )
    for number, line in lines:
        if widths == {2}:
            state, paid = _numbers(path, number, line, 1, 1, "state, reward")
            if state >= len(reward):
                raise _malformed(path, number, f"a state below {len(reward)}")
            reward[int(state)] += paid
            continue
        state, choice, following, paid = _numbers(path, number, line, 3, 1, "state, choice, next state, reward")
        row = outcomes.get((int(state), int(choice)), {})
        if int(following) not in row:
            raise _malformed(path, number, "a transition that the .tra file lists")
        reward[int(state), int(choice)] += row[int(following)] * paid


def _labels(path: Path, states: int) -> dict[str, list[int]]:
    """{label: states}, by either layout."""
    lines = _lines("labels", path)
    named: dict[str, list[int]] = {}
    if lines and lines[0][1].upper() == "#DECLARATION":
        body = iter(lines[1:])
        for _, line in body:
            if line.upper() == "#END":
                break
            named.update({label: [] for label in line.split()})
        entries: Iterator[tuple[int, str, list[str]]] = (
            (number, line.split()[0], line.split()[1:]) for number, line in body
        )
        names = {label: label for label in named}
    else:
        head = lines[0][1] if lines else ""
        names = dict(re.findall(r'(\d+)="([^"]*)"', head))
        named = {label: [] for label in names.values()}
        if not names:
            raise InvalidInputError(
                refusal("labels", str(path), "a first line like 0=\"init\", or '#DECLARATION'", "export it again")
            )
        entries = ((number, *_split(line)) for number, line in lines[1:])
    for number, state, found in entries:
        if not state.isdigit() or int(state) >= states or not all(word in names for word in found):
            raise _malformed(path, number, "a state and labels that are declared")
        for word in found:
            named[names[word]].append(int(state))
    return named


def _split(line: str) -> tuple[str, list[str]]:
    state, _, words = line.partition(":")
    return state.strip(), words.split()


def _labelled(named: dict[str, list[int]], argument: str, label: str) -> list[int]:
    if not named.get(label):
        raise InvalidInputError(
            refusal(argument, label, f"a label of some state: one of {sorted(name for name in named if named[name])}",
                    "pass the file of labels and a label that it gives")
        )  # fmt: skip
    return named[label]
