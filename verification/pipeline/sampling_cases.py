"""Problems on which estimators are held against the truth by sampling, because nobody can enumerate their paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from bilevelrl.estimators import EstimatorEntry, ExactCritic, Objective, TabularSimulator, estimators_for
from bilevelrl.estimators.sampling import LQRSimulator
from bilevelrl.reference import ConfigurableLQR, ConfigurableMDP, LQRGame, MarkovGame, named_stream
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.tasks import initial_theta, make_task

__all__ = ["CONTINUOUS_CASES", "FOUR_ROOMS_TEMPERATURES", "GAME_CASES", "SamplingCase", "four_rooms_case"]

Kind: TypeAlias = Literal["mdp", "game", "lqr", "lqr_game"]
_KINDS = {"mdp": ConfigurableMDP, "game": MarkovGame, "lqr": ConfigurableLQR, "lqr_game": LQRGame}

FOUR_ROOMS_TEMPERATURES = (0.001, 0.003, 0.005)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingCase:
    """A problem, θ, and the estimators that are asked about it.

    Attributes
    ----------
    title : str
        In tables.
    kind : str
        Which estimators.
    task, options
        Makes the problem, see `make_task`.
    theta : tuple of float or None
        The leader's parameter; None: drawn as experiments draw it, from the plan's seed.
    key : tuple of str
        Names the random streams.
    share : float
        Of the plan's budget of steps.
    """

    title: str
    kind: Kind
    task: str
    key: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    theta: tuple[float, ...] | None = None
    share: float = 1.0

    def make_problem(self) -> Any:
        """Return the problem."""
        return make_task(self.task, **self.options)

    def make_theta(self, seed: int) -> FloatArray:
        """Return θ."""
        return initial_theta(named_stream(seed, "theta")) if self.theta is None else np.array(self.theta)

    def entries(self) -> Mapping[str, EstimatorEntry]:
        """Return the estimators that may say something here, by name; in games those of formula level."""
        listed = estimators_for(_KINDS[self.kind])
        if self.kind != "game":
            return listed
        return {name: entry for name, entry in listed.items() if entry.level == "formula"}

    def simulator(self, *, step_limit: int | None) -> Any:
        """Return where samples come from; with a limit, episodes of so many steps follow each other in a stream."""
        if self.kind in ("lqr", "lqr_game"):
            return LQRSimulator()
        if step_limit is None:
            return TabularSimulator()
        return TabularSimulator(step_limit=step_limit, single_episode=False)

    def critic(self, problem: Any, theta: FloatArray, follower: Any, target: Objective) -> ExactCritic | None:
        """Return the leader's exact values where estimators share them; None: each brings its own."""
        if self.kind != "mdp":
            return None
        horizon, discounted = target.horizon, target.discounted
        return ExactCritic.solve(problem, theta, follower.policy, horizon=horizon, discounted=discounted)


def four_rooms_case(temperature: float) -> SamplingCase:
    """Return Four-Rooms at a temperature.

    Examples
    --------
    >>> four_rooms_case(0.003).make_problem().temperature
    0.003
    """
    return SamplingCase(
        title="Four-Rooms",
        kind="mdp",
        task="four_rooms",
        options={"temperature": temperature},
        key=("four_rooms", str(temperature)),
    )


GAME_CASES = (
    SamplingCase(
        title="toy game",
        kind="game",
        task="toy_markov_game",
        key=("toy_game",),
        theta=(0.0, float(np.log(0.3 / 0.7)), 0.0),
        share=0.3,
    ),
)
"""The paper's game at p = .3, where the follower's response is twenty times the leader's own term."""

CONTINUOUS_CASES = (
    SamplingCase(
        title="building", kind="lqr", task="building_thermal_control", key=("building",), theta=(0.0,) * 8, share=0.3
    ),
    SamplingCase(title="LQR game", kind="lqr_game", task="lqr_game", key=("lqr_game",), theta=(-7.0, 0.0), share=0.3),
)
"""The paper's continuous tasks, where their experiments start or pass."""
