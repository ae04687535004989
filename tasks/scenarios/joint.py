"""Markov games at a parameter, with a certified truth: the counterparts of `scenarios` for games."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from bilevelrl.reference import MarkovGame
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import Horizon, checked_record
from bilevelrl.reference.problem import GAME_PARTS, Part
from bilevelrl.tasks.scenarios.reference_data import reference_names, reference_problem

__all__ = ["GameScenario", "game_scenarios"]


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True)
class GameScenario:
    """A game, the leader's parameter, and the certified truth there, rounded to doubles.

    Attributes
    ----------
    name, summary : str
        Unique name, and one line on what is special about it.
    problem : MarkovGame
        In double precision.
    theta : (N,)
        Where the truth is stored.
    horizon : int or None
        Of the objective; None: infinite.
    discounted : bool
        Whether the leader's return is.
    objective : float
        J(θ).
    parts : {part: (N,)}
        Of the hypergradient.
    digits_in_double : float
        Digits of the gradient that survive when the problem's own numbers are rounded to doubles.
    """

    name: str
    summary: str
    problem: MarkovGame
    theta: FloatArray
    horizon: Horizon
    discounted: bool
    objective: float
    parts: Mapping[Part, FloatArray]
    digits_in_double: float

    @property
    def value(self) -> FloatArray:
        """(N,): ∇J(θ), the sum of the parts."""
        return sum(self.parts.values(), np.zeros(self.theta.size))


@cache
def game_scenarios() -> tuple[GameScenario, ...]:
    """Return every reference problem that is a Markov game: both information structures, warm and cold followers.

    Examples
    --------
    >>> found = {entry.name: entry for entry in game_scenarios()}
    >>> round(found["toy_game_1_even"].objective, 4), sorted(found["toy_game_1_even"].parts)
    (0.617, ['policy', 'regulariser', 'response'])
    """
    found = []
    for name in reference_names():
        stored = reference_problem(name)
        problem = stored.problem()
        if not isinstance(problem, MarkovGame):
            continue
        parts: dict[Part, FloatArray] = {
            part: np.array([float(entry) for entry in stored.parts[part]]) for part in GAME_PARTS
        }
        found.append(
            GameScenario(
                name=name,
                summary=stored.summary,
                problem=problem,
                theta=stored.theta(),
                horizon=stored.closed_form.horizon,
                discounted=stored.closed_form.discounted,
                objective=float(stored.objective),
                parts=parts,
                digits_in_double=stored.digits_in_double,
            )
        )
    return tuple(found)
