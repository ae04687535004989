"""Training on mixtures of configurable MDPs: one leader, whose followers differ from context to context.

As published (HPGD's contextual Four-Rooms), every run draws a context ξ ~ p in each outer iteration and keeps it for
the whole batch; or it samples in all contexts and adds their directions up:

    draw    g = ĝ_ξ,          E[g] = Σ p E[ĝ],      Var[g] = Σ p Var[ĝ] + Var_ξ(E[ĝ_ξ])
    sum     g = Σ p ĝ_ξ,      E[g] = Σ p E[ĝ],      Var[g] = Σ p² Var[ĝ]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bilevelrl.estimators.followers.solving import ExactFollower, FollowerRule
from bilevelrl.estimators.sampling.tabular import TabularSimulator
from bilevelrl.estimators.training.declarations.tabular import Training, published_simulator
from bilevelrl.estimators.training.methods import METHODS
from bilevelrl.estimators.training.runs import LeaderTraining, Run, plain
from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.contexts import Mixture
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, UnsupportedError, refusal

__all__ = ["MixtureTraining"]


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureTraining(LeaderTraining):
    """All runs on one mixture that are trained together; see `LeaderTraining` for what is not listed here.

    Parameters
    ----------
    problem
        A mixture of configurable MDPs.
    contexts
        "draw": each run draws one in each outer iteration, as published. "sum": all of them, weighted; batches of
        `streams` × `steps` are then drawn in each.
    follower
        How the followers of all contexts respond.
    simulators
        How samples are made, one per context; empty: as published, in the context's own kernel.

    Raises
    ------
    UnsupportedError
        If a context is no configurable MDP.
    InvalidInputError
        If simulators are not one per context; else as `Training`.

    Examples
    --------
    >>> from bilevelrl.estimators.training import Run, train
    >>> from bilevelrl.tasks import contextual_four_rooms
    >>> mixture = contextual_four_rooms(temperature=0.005)
    >>> runs = [Run(method="exact", seed=0, learning_rate=0.5)]
    >>> history = train(MixtureTraining(problem=mixture, runs=runs, iterations=2, contexts="sum", evaluate_every=1))
    >>> bool(history.objective[1, 0] > history.objective[0, 0]), sorted(history.values)[2:5]
    (True, ['objective', 'objective_0', 'objective_1'])
    """

    kind = Mixture

    problem: Mixture
    contexts: Literal["draw", "sum"] = "draw"
    follower: FollowerRule = field(default_factory=ExactFollower)
    simulators: tuple[TabularSimulator, ...] = ()

    def __post_init__(self) -> None:
        LeaderTraining.__post_init__(self)
        count = len(self.problem.contexts)
        for place, context in enumerate(self.problem.contexts):
            if not isinstance(context, ConfigurableMDP):
                found = type(context).__name__
                raise UnsupportedError(
                    refusal(f"problem.contexts[{place}]", found, "a ConfigurableMDP", "others are trained alone")
                )
        if len(self.simulators) not in (0, count):
            raise InvalidInputError(
                refusal("len(simulators)", len(self.simulators), f"0 or {count}, one per context", "list one for each")
            )
        self.members(self.runs[:1])  # refuses what none of them can do

    def methods(self) -> Iterable[str]:
        """Return the names of the methods on configurable MDPs."""
        return METHODS[ConfigurableMDP]

    def members(self, runs: Sequence[Run]) -> list[Training]:
        """Return the training of some runs in each context."""
        simulators = self.simulators or (published_simulator(),) * len(self.problem.contexts)
        return [
            Training(
                problem=context,
                runs=runs,
                iterations=self.iterations,
                ascent_steps=self.ascent_steps,
                entropy=self.entropy,
                streams=self.streams,
                steps=self.steps,
                start_scale=self.start_scale,
                follower=self.follower,
                simulator=simulator,
            )
            for context, simulator in zip(self.problem.contexts, simulators, strict=True)
            if isinstance(context, ConfigurableMDP)
        ]

    def problem_arrays(self) -> Iterable[FloatArray]:
        """Return the weights, and what tells each context."""
        yield self.problem.weights
        for member in self.members([Run(method="exact", seed=run.seed, learning_rate=1.0) for run in self.runs[:1]]):
            yield from member.problem_arrays()

    def describe(self) -> dict[str, Any]:
        """Return the configuration as plain values."""
        # In full: a slotted dataclass is another class than the one that super() would look in.
        own = LeaderTraining.describe(self)
        return {**own, "problem": [plain(context) for context in self.problem.contexts]}
