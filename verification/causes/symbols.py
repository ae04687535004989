"""Factors that people forget or put twice, with their value on a scenario.

One slip multiplies by 0.9 here and by 0.5 there, because γ_L is 0.9 here and 0.5 there: a factor is one symbol that has
the right value everywhere, or one number that is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np

from bilevelrl.tasks import Scenario

__all__ = ["PLAIN", "SYMBOLS", "missing_from", "named_factor"]


@dataclass(frozen=True, slots=True)
class _Sizes:
    """What symbols are made of."""

    own: float
    other: float
    temperature: float
    steps: int
    episodes: int
    parameters: int
    states: float
    actions: float
    leader_actions: float


@lru_cache(maxsize=512)
def _sizes(on: Scenario) -> _Sizes:
    problem: Any = on.problem
    shape: tuple[int, ...] = ()
    if hasattr(problem, "tables_at"):
        tables = problem.tables_at(on.theta)
        shape = (tables.states, tables.actions)
    elif hasattr(problem, "leader_actions"):
        shape = np.shape(problem.reward_leader)
        shape = (shape[0], shape[2], shape[1])
    states, actions, leader = (*(float(n) for n in shape), *(np.nan,) * 3)[:3]
    return _Sizes(
        float(problem.discount_leader),
        float(problem.discount_follower),
        float(problem.temperature),
        on.horizon,
        on.episodes,
        on.theta.size,
        states,
        actions,
        leader,
    )


def _inverse(value: float) -> float:
    return 1.0 / value if value != 0.0 else np.nan


PLAIN: Mapping[str, float] = MappingProxyType(
    {"0": 0.0, "-1": -1.0, "2": 2.0, "½": 0.5, "3": 3.0, "⅓": 1.0 / 3.0, "4": 4.0, "¼": 0.25, "10": 10.0, "0.1": 0.1,
     "π": np.pi, "-½": -0.5, "-2": -2.0}
)  # fmt: skip
"""Factors that are the same everywhere."""

_OF_SIZES: Mapping[str, Callable[[_Sizes], float]] = {
    "β": lambda s: s.temperature,
    "1/β": lambda s: _inverse(s.temperature),
    "β²": lambda s: s.temperature**2,
    "1/β²": lambda s: _inverse(s.temperature**2),
    "√β": lambda s: s.temperature**0.5,
    "2β": lambda s: 2.0 * s.temperature,
    "β/2": lambda s: 0.5 * s.temperature,
    "γ_L": lambda s: s.own,
    "1/γ_L": lambda s: _inverse(s.own),
    "γ_F": lambda s: s.other,
    "1/γ_F": lambda s: _inverse(s.other),
    "γ_L²": lambda s: s.own**2,
    "γ_F²": lambda s: s.other**2,
    "γ_F/γ_L": lambda s: s.other * _inverse(s.own),
    "γ_L/γ_F": lambda s: s.own * _inverse(s.other),
    "γ_L γ_F": lambda s: s.own * s.other,
    "1-γ_L": lambda s: 1.0 - s.own,
    "1-γ_F": lambda s: 1.0 - s.other,
    "1/(1-γ_L)": lambda s: _inverse(1.0 - s.own),
    "1/(1-γ_F)": lambda s: _inverse(1.0 - s.other),
    "(1-γ_L)/(1-γ_F)": lambda s: (1.0 - s.own) * _inverse(1.0 - s.other),
    "(1-γ_F)/(1-γ_L)": lambda s: (1.0 - s.other) * _inverse(1.0 - s.own),
    "T": lambda s: float(s.steps),
    "1/T": lambda s: _inverse(float(s.steps)),
    "1-γ_L^T": lambda s: 1.0 - s.own**s.steps,
    "γ_L^T": lambda s: s.own**s.steps,
    "the number of episodes": lambda s: float(s.episodes),
    "1 over the number of episodes": lambda s: _inverse(float(s.episodes)),
    "the number of parameters": lambda s: float(s.parameters),
    "1 over the number of parameters": lambda s: _inverse(float(s.parameters)),
    "the number of states": lambda s: s.states,
    "1 over the number of states": lambda s: _inverse(s.states),
    "the number of actions": lambda s: s.actions,
    "1 over the number of actions": lambda s: _inverse(s.actions),
    "the number of the leader's actions": lambda s: s.leader_actions,
    "1 over the number of the leader's actions": lambda s: _inverse(s.leader_actions),
    "log of the number of actions": lambda s: float(np.log(s.actions)),
    "-β": lambda s: -s.temperature,
    "-1/β": lambda s: -_inverse(s.temperature),
}


def _constant(value: float) -> Callable[[Scenario], float]:
    return lambda on: value


def _at(of: Callable[[_Sizes], float]) -> Callable[[Scenario], float]:
    return lambda on: of(_sizes(on))


SYMBOLS: Mapping[str, Callable[[Scenario], float]] = MappingProxyType(
    {name: _constant(value) for name, value in PLAIN.items()} | {name: _at(of) for name, of in _OF_SIZES.items()}
)
"""{symbol: (scenario) → its value}, nan where it has none; the plainest first."""

_MISSING = {
    "0": "{part} is missing",
    "-1": "{part} has the wrong sign",
    "2": "{part} is counted twice",
    "½": "{part} is halved",
}
_OF_RESPONSE = {
    "β": "the factor 1/β of the response is missing",
    "β²": "the response is multiplied by β instead of divided by it",
    "1/β": "the response is divided by β twice",
}


def missing_from(part: str, symbol: str) -> str:
    """Return the words for a factor of a part.

    Examples
    --------
    >>> missing_from("the direct part", "0"), missing_from("the response part", "γ_F")
    ('the direct part is missing', 'the response part is multiplied by γ_F')
    """
    if part == "the response part" and symbol in _OF_RESPONSE:
        return _OF_RESPONSE[symbol]
    return _MISSING.get(symbol, "{part} is multiplied by " + symbol).format(part=part)


def named_factor(found: Mapping[Scenario, float], accuracy: float) -> str | None:
    """Return the symbol that has all these values, or None.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> bandit, gamble = scenario("bandit"), scenario("gamble")
    >>> named_factor({bandit: 0.9, gamble: 0.95}, 1e-9), named_factor({bandit: 0.37, gamble: 0.37}, 1e-9)
    ('γ_F', None)
    """
    for name, of in SYMBOLS.items():
        if all(abs(of(on) - value) <= accuracy * max(1.0, abs(value)) for on, value in found.items()):
            return name
    return None
