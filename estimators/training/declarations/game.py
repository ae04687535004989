"""Training leaders of a Markov game: what is declared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from bilevelrl.estimators.optimisers import Adam, LargestNorm, Optimiser
from bilevelrl.estimators.training.declarations.actors import Actor, NetworkActor, TabularActor
from bilevelrl.estimators.training.declarations.options import PUBLISHED, SOUND, GameOptions
from bilevelrl.estimators.training.methods import METHODS
from bilevelrl.estimators.training.runs import LeaderTraining
from bilevelrl.reference import MarkovGame, TabularSoftmaxPolicy
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import Count, NonNegative, checked
from bilevelrl.reference.errors import InvalidInputError, UnsupportedError, refusal

__all__ = ["GameTraining"]


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class GameTraining(LeaderTraining):
    """All runs of leaders in one Markov game; see `LeaderTraining` for what is not listed here.

    Directions estimate the hypergradient over an infinite horizon: means over draws ∝ γ_L^t times 1/(1 - γ_L).

    Parameters
    ----------
    problem
        Its follower sees the leader's action, no transition ends an episode, and it has no regulariser. Its own leader
        policy is not used.
    streams, steps
        Episodes that every run samples in every outer iteration, and their length.
    options
        How leaders learn: those of `PUBLISHED`, of `SOUND`, or any mixture.
    start_scale
        Of a tabular actor: logits start as N(0, start_scale²).
    probe
        (state, leader action) whose probability is written down with the derivative in its logit.

    Raises
    ------
    InvalidInputError, UnknownNameError
        If a number is out of range, or a name not known.
    UnsupportedError
        If the follower does not see the leader's action, episodes end, or the game has a regulariser.

    Examples
    --------
    >>> from bilevelrl.estimators.training import Run, train
    >>> from bilevelrl.tasks import toy_markov_game
    >>> runs = [Run(method="bc_hg", seed=0, learning_rate=1e-4, critic_step_size=1e-3)]
    >>> history = train(GameTraining(problem=toy_markov_game(), runs=runs, iterations=2, probe=(1, 1)))
    >>> history.values["probability"].shape
    (2, 1)
    """

    kind = MarkovGame
    published: ClassVar[Mapping[str, Any]] = MappingProxyType({"options": PUBLISHED[MarkovGame]})

    problem: MarkovGame
    streams: Count = 3
    steps: Count = 150
    options: GameOptions = SOUND[MarkovGame]
    optimiser: Optimiser = field(default_factory=Adam)
    largest_norm: LargestNorm = np.inf
    start_scale: NonNegative = 0.16
    probe: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        LeaderTraining.__post_init__(self)
        self.options.check_kind(MarkovGame)
        if not self.problem.follower_sees_leader_action:
            raise UnsupportedError("GameTraining: expected a game whose follower sees the leader's action")
        if self.problem.regulariser is not None:
            raise UnsupportedError(
                "GameTraining: expected a game without a regulariser, which is a function of the θ of its own policy, "
                "not of what `options.actor` learns; add what it costs to reward_leader"
            )
        if np.abs(self.problem.transition.sum(axis=3) - 1.0).max() > 1e-12:
            raise UnsupportedError("GameTraining: expected transitions that sum to one; episodes are cut by `steps`")
        shape = (self.problem.states, self.problem.leader_actions)
        if len(self.probe) != 2 or not all(0 <= at < size for at, size in zip(self.probe, shape, strict=True)):
            raise InvalidInputError(
                refusal("probe", self.probe, f"(state, leader action) below {shape}", "count from 0")
            )
        ahead = self.options.influence_steps
        if ahead is not None and ahead >= self.steps:
            raise InvalidInputError(
                refusal("influence_steps", ahead, f"less than steps={self.steps}", "pass None for all")
            )
        for run in self.runs:
            if self.options.minibatch is None and METHODS[MarkovGame][run.method].replay:
                raise InvalidInputError(
                    f"method={run.method!r}: expected a minibatch size; it draws from all past data"
                )

    @property
    def actor(self) -> Actor:
        """The leader's policy as a function of θ."""
        shape = (self.problem.states, self.problem.leader_actions)
        return NetworkActor(*shape) if self.options.actor == "network" else TabularActor(*shape, self.start_scale)

    @property
    def logit_game(self) -> MarkovGame:
        """The game with one logit per state and leader action but the first as θ, in which truths are computed."""
        policy = TabularSoftmaxPolicy(states=self.problem.states, leader_actions=self.problem.leader_actions)
        return replace(self.problem, policy=policy, theta_shape=(policy.parameters,))

    def start(self) -> FloatArray:
        """Return the leaders' starting points (runs, N), the same for runs of the same seed."""
        return self.starts(self.actor.start)

    def problem_arrays(self) -> Iterable[FloatArray]:
        """Return the game's tables."""
        game = self.problem
        yield from (game.transition, game.reward_follower, game.reward_leader, game.initial)
        if game.action_mask is not None:
            yield np.asarray(game.action_mask, dtype=np.float64)
