"""Training leaders of a linear-quadratic game: what is declared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from bilevelrl.estimators.optimisers import Adam, Optimiser
from bilevelrl.estimators.sampling.gaussian_game import check_linear_leader
from bilevelrl.estimators.training.declarations.options import PUBLISHED, SOUND, GameOptions
from bilevelrl.estimators.training.methods import METHODS
from bilevelrl.estimators.training.runs import LeaderTraining, Run
from bilevelrl.reference import LQRGame
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import Count, NonNegative, checked
from bilevelrl.reference.errors import UnsupportedError

__all__ = ["LQRGameTraining", "lqr_game_training"]


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class LQRGameTraining(LeaderTraining):
    """All runs of leaders in one linear-quadratic game; see `LeaderTraining` for what is not listed here.

    Parameters
    ----------
    problem
        θ must be the leader's gain.
    streams, steps
        Episodes of so many steps, drawn by every run in every outer iteration.
    options
        How leaders learn: those of `PUBLISHED`, of `SOUND`, or any mixture.

    Raises
    ------
    InvalidInputError, UnknownNameError, UnsupportedError
        If a number is out of range, a name not known, or θ something else.

    Examples
    --------
    >>> from bilevelrl.tasks import lqr_game
    >>> training = lqr_game_training(lqr_game(), "pathwise", seeds=range(3), iterations=10)
    >>> training.start().shape
    (3, 2)
    """

    kind = LQRGame
    published: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"options": PUBLISHED[LQRGame], "schedule": "constant", "ascent_steps": 10}
    )

    problem: LQRGame
    streams: Count = 4
    options: GameOptions = SOUND[LQRGame]
    optimiser: Optimiser = field(default_factory=Adam)
    schedule: str = "cosine"
    start_scale: NonNegative = 1.0

    def __post_init__(self) -> None:
        LeaderTraining.__post_init__(self)  # slots make a new class, which super() without arguments does not find
        check_linear_leader(self.problem)
        self.options.check_kind(LQRGame)
        replaying = [run.method for run in self.runs if METHODS[LQRGame][run.method].replay]
        if replaying and self.options.data_deviation is not None:
            raise UnsupportedError(f"data_deviation: expected None for {replaying[0]}, whose episodes are all kept")

    def problem_arrays(self) -> Iterable[FloatArray]:
        """Return the game's matrices."""
        game = self.problem
        yield from (game.dynamics_state, game.dynamics_action, game.dynamics_leader, game.cost_state, game.cost_action)
        yield from (game.target, game.width, game.initial_mean, game.initial_covariance)
        yield check_linear_leader(game)


def lqr_game_training(
    problem: LQRGame,
    method: str,
    *,
    seeds: Iterable[int],
    iterations: int = 500,
    learning_rate: float = 0.1,
    published: bool = False,
    **changes: Any,
) -> LQRGameTraining:
    """Return the training of one method, as the paper's runs or without their departures.

    Parameters
    ----------
    problem
        The game.
    method
        A name in `METHODS`.
    seeds, iterations, learning_rate
        Runs; outer iterations and step size of each.
    published
        As the published code runs it, where naive methods alone are not shortened.
    changes
        Fields of `LQRGameTraining` and of `GameOptions`.

    Examples
    --------
    >>> from bilevelrl.tasks import lqr_game
    >>> lqr_game_training(lqr_game(), "naive_pgd_on", seeds=[0], published=True, ascent_steps=2).largest_norm
    inf
    """
    settings: dict[str, Any] = {"options": SOUND[LQRGame]}
    if published:
        unlimited = {"largest_norm": np.inf} if method.startswith("naive") else {}
        settings = {**LQRGameTraining.published, **unlimited}
    own = {entry.name for entry in fields(GameOptions)} & set(changes)
    options = replace(settings["options"], **{name: changes.pop(name) for name in own})
    runs = [Run(method=method, seed=seed, learning_rate=learning_rate) for seed in seeds]
    return LQRGameTraining(
        problem=problem, runs=runs, iterations=iterations, **{**settings, "options": options, **changes}
    )
