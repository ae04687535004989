"""Gymnasium environments whose dynamics are a table, `P`: FrozenLake, CliffWalking, Taxi and others written like them.

`P[state][action]` lists `(probability, next state, reward, ends)`. An outcome that ends pays its reward and is left out
of the row, wherever its next state points: the row then sums to less than one. What is not in `P` cannot be imported,
and is looked for: wrappers that change rewards, actions or observations, and a `step` that leaves the table.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bilevelrl.reference.arrays import FloatArray, check_array, check_shape
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, StochasticityError, UnsupportedError, refusal
from bilevelrl.tasks.importing.imported import Absorbing, ImportedMDP, assemble

__all__ = ["from_gymnasium"]

HARMLESS = {"Autoreset", "OrderEnforcing", "PassiveEnvChecker", "RecordEpisodeStatistics", "RecordVideo", "TimeLimit"}
"""Wrappers that leave states, actions and rewards alone."""


@checked
def from_gymnasium(
    environment: Any, *, initial: object = None, absorbing: Absorbing | None = None, check_steps: bool = True
) -> ImportedMDP:
    """Return the world of an environment whose dynamics are a table `P`.

    Parameters
    ----------
    environment
        A `gymnasium.Env`, or any object with `P`; it is not changed.
    initial
        (S,), distribution of the first state; default: the environment's `initial_state_distrib`.
    absorbing
        Whether states that no action leaves end the episode ("end") or are lived in for ever ("keep"); needed only
        where the environment's own flags do not end the episode there.
    check_steps
        Whether a copy of the environment is stepped once from every state and action, if it has its state in `s`, and
        must do what the table says.

    Returns
    -------
    ImportedMDP
        `summary()` tells what the flags, wrappers and time limits were taken to mean.

    Raises
    ------
    UnsupportedError
        If there is no table, or the environment does something that is not in it.
    InvalidInputError
        If the table or the distribution of the first state is none, naming the state and the action.

    Examples
    --------
    >>> import gymnasium
    >>> from bilevelrl.tasks import from_gymnasium
    >>> world = from_gymnasium(gymnasium.make("FrozenLake-v1"))
    >>> print(world.summary())
    FrozenLake-v1: 16 states, 4 actions
    - outcomes that end the episode: 50, in 48 of 64 pairs; they pay and lead nowhere
    - the time limit of 100 steps is not in the tables: pass horizon=100 for what is paid until then
    - states that no episode visits, 5: they have no say
    """
    bare = getattr(environment, "unwrapped", environment)
    spec = getattr(environment, "spec", None)
    name = str(getattr(spec, "id", None) or type(bare).__name__)
    table = getattr(bare, "P", None)
    if table is None:
        raise UnsupportedError(
            refusal("environment", name, "one with a table P[state][action] of (probability, next state, reward, ends)",
                    "import arrays with from_arrays, or write the tables as a function: ConfigurableMDP, MarkovGame, "
                    "ConfigurableLQR and LQRGame are the kinds that there are")
        )  # fmt: skip
    _refuse_what_is_not_in_the_table(environment, bare, name)
    rows = _rows(table)
    states, actions = len(rows), 1 + max(max(row) for row in rows)
    outcomes: dict[tuple[int, int], dict[int, float]] = {}
    reward = np.zeros((states, actions))
    playable = np.zeros((states, actions), dtype=bool)
    ends, ending_pairs = 0, 0
    for state, choices in enumerate(rows):
        for action, listed in choices.items():
            playable[state, action] = True
            total = 0.0
            row: dict[int, float] = {}
            ended = 0
            for probability, state_tp1, paid, over in listed:
                total += probability
                reward[state, action] += probability * paid
                if over:
                    ended += probability > 0.0
                elif probability > 0.0:
                    row[state_tp1] = row.get(state_tp1, 0.0) + probability
            if not abs(total - 1.0) <= 1e-12:
                raise StochasticityError(
                    refusal(f"sum of P[{state}][{action}]", total, "1", "divide the row by its sum, in float64")
                )
            outcomes[state, action] = row
            ends, ending_pairs = ends + ended, ending_pairs + bool(ended)
    if check_steps:
        _check_steps(bare, rows, name)
    notes = [f"outcomes that end the episode: {ends}, in {ending_pairs} of {int(playable.sum())} pairs; they pay and "
             "lead nowhere" if ends else "no outcome ends the episode"]  # fmt: skip
    limit = getattr(spec, "max_episode_steps", None)
    if limit:
        notes.append(
            f"the time limit of {limit} steps is not in the tables: pass horizon={limit} for what is paid until then"
        )
    start = _initial(bare, initial, states)
    return assemble(outcomes, reward, start, absorbing=absorbing, playable=playable, name=name, notes=notes)


def _refuse_what_is_not_in_the_table(environment: Any, bare: Any, name: str) -> None:
    layer = environment
    while layer is not bare and hasattr(layer, "env"):
        wrapper = type(layer).__name__
        if wrapper not in HARMLESS:
            raise UnsupportedError(
                refusal("environment", f"{name} in {wrapper}", "wrappers that leave states, actions and rewards alone",
                        "pass environment.unwrapped if the wrapper is not meant")
            )  # fmt: skip
        layer = layer.env
    if getattr(bare, "fickle_passenger", False):
        raise UnsupportedError(
            refusal("environment", f"{name} with fickle_passenger=True", "dynamics that are all in P",
                    "make it with fickle_passenger=False: where the passenger changes its mind is drawn outside P")
        )  # fmt: skip


def _rows(table: Any) -> list[dict[int, list[tuple[float, int, float, bool]]]]:
    """The table as lists by state, checked for its form."""
    states = _numbered("P", table)
    rows = []
    for state, choices in enumerate(states):
        numbered = dict(_keys(f"P[{state}]", choices))
        if not numbered:
            raise InvalidInputError(refusal(f"P[{state}]", choices, "at least one action", "let it stay where it is"))
        own: dict[int, list[tuple[float, int, float, bool]]] = {}
        for action, listed in sorted(numbered.items()):
            own[action] = [_outcome(state, action, entry, len(states)) for entry in listed]
        rows.append(own)
    return rows


def _numbered(name: str, table: Any) -> list[Any]:
    found = dict(_keys(name, table))
    if sorted(found) != list(range(len(found))) or not found:
        raise InvalidInputError(
            refusal(name, sorted(found), f"states numbered 0 to {len(found) - 1}", "renumber the states without gaps")
        )
    return [found[state] for state in range(len(found))]


def _keys(name: str, table: Any) -> Iterator[tuple[int, Any]]:
    if isinstance(table, Mapping):
        pairs: list[tuple[Any, Any]] = list(table.items())
    elif isinstance(table, Sequence) and not isinstance(table, str):
        pairs = list(enumerate(table))
    else:
        raise InvalidInputError(refusal(name, type(table).__name__, "a dictionary or list", "see gymnasium's toy_text"))
    for key, value in pairs:
        if isinstance(key, bool) or not isinstance(key, (int, np.integer)) or key < 0:
            raise InvalidInputError(refusal(f"key of {name}", key, "an integer >= 0", "number states and actions"))
        yield int(key), value


def _outcome(state: int, action: int, entry: Any, states: int) -> tuple[float, int, float, bool]:
    where = f"P[{state}][{action}]"
    if not isinstance(entry, Sequence) or len(entry) != 4:
        raise InvalidInputError(refusal(where, entry, "(probability, next state, reward, ends)", "list four entries"))
    probability, paid = (float(check_array(where, entry[place])) for place in (0, 2))
    state_tp1 = entry[1]
    if not 0.0 <= probability <= 1.0 + 1e-12:
        raise StochasticityError(refusal(where, probability, "a probability in [0, 1]", "correct the table"))
    if isinstance(state_tp1, bool) or not isinstance(state_tp1, (int, np.integer)) or not 0 <= state_tp1 < states:
        raise InvalidInputError(refusal(where, state_tp1, f"a next state in [0, {states})", "renumber the states"))
    return probability, int(state_tp1), paid, bool(entry[3])


def _check_steps(bare: Any, rows: list[dict[int, list[tuple[float, int, float, bool]]]], name: str) -> None:
    """Step a copy once from every pair and hold what it does against the table."""
    if not hasattr(bare, "s") or getattr(bare, "render_mode", None) is not None:
        return
    tried = copy.deepcopy(bare)
    tried.reset(seed=0)
    for state, choices in enumerate(rows):
        for action, listed in choices.items():
            tried.s = state
            state_tp1, paid, over, *_ = tried.step(action)
            if not any(p > 0.0 and (t, r, e) == (state_tp1, paid, bool(over)) for p, t, r, e in listed):
                raise UnsupportedError(
                    refusal(f"{name}: step({action}) in state {state}", (state_tp1, paid, over), f"one of {listed}",
                            "what the environment does is not in its table; import what it does as arrays")
                )  # fmt: skip


def _initial(bare: Any, given: object, states: int) -> FloatArray:
    found = getattr(bare, "initial_state_distrib", None) if given is None else given
    if found is None:
        raise InvalidInputError(
            refusal("initial", None, "the distribution of the first state, (S,): none is stated here", "pass it")
        )
    initial: FloatArray = check_array("initial", found)
    check_shape("initial", initial, (states,), "one probability per state")
    return initial
