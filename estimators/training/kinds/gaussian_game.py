"""Training of linear-quadratic game leaders: what a run needs besides the loop, and the published set-up as switches.

The published set-up of arXiv:2603.14867, Section 6 (LQR game), departs from its own description and from sound
estimation in several ways. Each is one field here, so that any can be changed alone; see `PUBLISHED` and `SOUND`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from bilevelrl.estimators.methods.score_game import ScoreForm
from bilevelrl.estimators.sampling.gaussian_game import check_linear_leader
from bilevelrl.estimators.training.methods import METHODS
from bilevelrl.estimators.training.optimisers import Adam, check_positive_or_infinite
from bilevelrl.estimators.training.runs import LeaderTraining, Run
from bilevelrl.reference import LQRGame
from bilevelrl.reference.arrays import FloatArray, check_positive, store_floats
from bilevelrl.reference.doors import check_count
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError, UnsupportedError, refusal

__all__ = ["PUBLISHED", "SOUND", "CriticOptions", "LQRGameTraining", "Setup", "changed", "lqr_game_training"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticOptions:
    """How the leader's action values are learnt.

    Parameters
    ----------
    kind
        "network", or "exact": the control that knows the answer.
    rate, steps, minibatch
        Adam's learning rate, and how many steps on how many transitions each outer iteration makes.
    modes
        Bootstrap at the modes of both policies instead of draws from them.
    target_share
        By which target network and target leader follow, once per outer iteration.
    data_deviation
        Standard deviation of the leader's actions in episodes of their own, as many as the others, from which the
        critic alone learns. None: it learns from the others.

    Raises
    ------
    UnknownNameError, InvalidInputError
        If an option is not known or out of range.
    """

    kind: Literal["network", "exact"] = "network"
    rate: float = 1e-3
    steps: int = 5
    minibatch: int = 64
    modes: bool = False
    target_share: float = 0.05
    data_deviation: float | None = None

    def __post_init__(self) -> None:
        store_floats(self)
        if self.kind not in ("network", "exact"):
            raise UnknownNameError("critic kind", self.kind, ("network", "exact"))
        check_positive("rate", self.rate, "1e-3 is usual for Adam")
        check_count("steps", self.steps)
        check_count("minibatch", self.minibatch)
        if not 0.0 < self.target_share <= 1.0:
            raise InvalidInputError(refusal("target_share", self.target_share, "a number in (0, 1]", "0.01 is usual"))
        if self.data_deviation is not None:
            check_positive("data_deviation", self.data_deviation, "0.1, or None for the policy's own actions")
            if self.kind == "exact":
                raise InvalidInputError(
                    refusal("data_deviation", self.data_deviation, "None", "the exact critic learns from no data")
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How a leader is trained, apart from its method and seed.

    Parameters
    ----------
    exploring_iterations
        First outer iterations in which leaders act at random, from N(0, I), while they learn already.
    form, critic
        Of score-function methods.
    minibatch
        Transitions of each ascent step, drawn with probability proportional to γ_L^t; None: all of the batch.
    ascent_steps
        On the data of each outer iteration.
    clipping
        "bc_hg": the published code shortens the gradients of BC-HG alone; "all".
    largest_norm
        To which they are shortened.
    learning_rate, schedule
        Of Adam.

    Raises
    ------
    UnknownNameError, InvalidInputError
        If an option is not known or out of range.

    Examples
    --------
    >>> PUBLISHED.ascent_steps, SOUND.ascent_steps
    (10, 1)
    """

    exploring_iterations: int = 0
    form: ScoreForm = field(default_factory=ScoreForm)
    critic: CriticOptions = field(default_factory=CriticOptions)
    minibatch: int | None = None
    ascent_steps: int = 1
    clipping: Literal["bc_hg", "all"] = "all"
    largest_norm: float = 1.0
    learning_rate: float = 0.1
    schedule: str = "cosine"

    def __post_init__(self) -> None:
        store_floats(self)
        if isinstance(self.exploring_iterations, bool) or not (
            isinstance(self.exploring_iterations, int) and self.exploring_iterations >= 0
        ):
            raise InvalidInputError(
                refusal("exploring_iterations", self.exploring_iterations, "an integer >= 0", "0: none")
            )
        if self.minibatch is not None:
            check_count("minibatch", self.minibatch)
        if self.clipping not in ("bc_hg", "all"):
            raise UnknownNameError("clipping", self.clipping, ("bc_hg", "all"))
        check_positive_or_infinite("largest_norm", self.largest_norm)

    def shortens(self, method: str) -> bool:
        """Return whether the directions of a method are clipped."""
        return self.clipping == "all" or not method.startswith("naive")


PUBLISHED = Setup(
    exploring_iterations=11,
    form=ScoreForm(influence="value", same_step=True, baseline="action_dependent", averages="sampled"),
    critic=CriticOptions(rate=0.1, modes=True, target_share=0.01),
    minibatch=64,
    ascent_steps=10,
    clipping="bc_hg",
    schedule="constant",
)
"""As the published experiments run; the off-policy naive gradient takes 2 ascent steps there."""

SOUND = Setup()
"""Every departure removed; the number of environment and critic steps is the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LQRGameTraining(LeaderTraining):
    """All runs of one linear-quadratic game that are trained together.

    Parameters
    ----------
    runs, iterations, optimiser, schedule, largest_norm, clip_blocks, ascent_steps, evaluate_every, entropy
        As in `LeaderTraining`.
    problem
        θ must be the leader's gain.
    streams, steps
        Episodes of so many steps, drawn by every run in every outer iteration.
    setup
        What samples, critics and score-function methods do; `lqr_game_training` fills the rest from it.

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

    problem: LQRGame
    streams: int = 4
    setup: Setup = SOUND
    start_scale: float = 1.0

    def __post_init__(self) -> None:
        LeaderTraining.__post_init__(self)  # slots make a new class, which super() without arguments does not find
        check_linear_leader(self.problem)
        replaying = [run.method for run in self.runs if METHODS[LQRGame][run.method].replay]
        if replaying and self.setup.critic.data_deviation is not None:
            raise UnsupportedError(f"data_deviation: expected None for {replaying[0]}, whose episodes are all kept")

    def methods(self) -> Iterable[str]:
        """Return the names in `METHODS`."""
        return METHODS[LQRGame]

    def problem_arrays(self) -> Iterable[FloatArray]:
        """Return the game's matrices."""
        game = self.problem
        yield from (game.dynamics_state, game.dynamics_action, game.dynamics_leader, game.cost_state, game.cost_action)
        yield from (game.target, game.width, game.initial_mean, game.initial_covariance)
        yield check_linear_leader(game)


def lqr_game_training(
    problem: LQRGame, method: str, *, seeds: Iterable[int], iterations: int = 500, setup: Setup = SOUND, **others: Any
) -> LQRGameTraining:
    """Return the training of one method from a set-up.

    Parameters
    ----------
    problem
        The game.
    method
        A name in `METHODS`.
    seeds, iterations
        Runs, and outer iterations of each.
    setup
        Its ascent steps, clipping, learning rate and schedule become the training's.
    others
        Further fields of `LQRGameTraining`.

    Examples
    --------
    >>> from bilevelrl.tasks import lqr_game
    >>> lqr_game_training(lqr_game(), "naive_pgd_on", seeds=[0], setup=PUBLISHED).largest_norm
    inf
    """
    runs = [Run(method=method, seed=seed, learning_rate=setup.learning_rate) for seed in seeds]
    return LQRGameTraining(
        problem=problem,
        runs=runs,
        iterations=iterations,
        setup=setup,
        optimiser=Adam(),
        schedule=setup.schedule,
        largest_norm=setup.largest_norm if setup.shortens(method) else np.inf,
        ascent_steps=setup.ascent_steps,
        **others,
    )


def changed(setup: Setup, changes: Mapping[str, Any]) -> Setup:
    """Return a set-up with fields changed: those of its form by the name `form.field`, of its critic `critic.field`.

    Examples
    --------
    >>> changed(SOUND, {"ascent_steps": 10, "critic.rate": 0.1}).critic.rate
    0.1
    """
    own = {name: value for name, value in changes.items() if "." not in name}
    for group in ("form", "critic"):
        inner = {name.split(".")[1]: value for name, value in changes.items() if name.startswith(f"{group}.")}
        if inner:
            own[group] = replace(getattr(setup, group), **inner)
    return replace(setup, **own)
