"""The world of runs on a mixture: the worlds of its contexts, of which each outer iteration visits one, or all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.training.checkpoints import group, join_groups
from bilevelrl.estimators.training.declarations.contexts import MixtureTraining
from bilevelrl.estimators.training.direction_errors import GRADIENT_COLUMNS, gradient_errors
from bilevelrl.estimators.training.runs import World, make_world
from bilevelrl.reference import hypergradient
from bilevelrl.reference.arrays import FloatArray, IntArray
from bilevelrl.reference.contexts import weighted

__all__ = ["MixtureWorld"]


@dataclass(slots=True)
class _Together:
    """Runs that visit the same contexts."""

    rows: IntArray
    worlds: list[World]
    visited: Sequence[int]


class MixtureWorld(World):
    """The followers, samples and critics of all runs in all contexts; a run's random numbers are one stream."""

    def __init__(self, training: MixtureTraining, generators: Sequence[Generator]) -> None:
        self.training, self.generators = training, generators
        count = len(training.problem.contexts)
        everything = np.arange(len(training.runs))
        rows = [everything] if training.contexts == "sum" else list(everything[:, None])
        self._together = [
            _Together(
                own,
                [
                    make_world(member, [generators[row] for row in own.tolist()])
                    for member in training.members([training.runs[row] for row in own.tolist()])
                ],
                range(count),
            )
            for own in rows
        ]
        self._edges = np.cumsum(training.problem.weights)[:-1]

    @property
    def columns(self) -> tuple[str, ...]:
        """The objective, that of each context, and the errors of directions."""
        places = range(len(self.training.problem.contexts))
        return ("objective", *(f"objective_{place}" for place in places), *GRADIENT_COLUMNS)

    def prepare(self, thetas: FloatArray, iteration: int) -> None:
        """Draw a context for each run, or take all of them, and begin there."""
        for together in self._together:
            if self.training.contexts == "draw" and self._edges.size:
                together.visited = [self.drawn(self.generators[int(together.rows[0])])]
            for place in together.visited:
                together.worlds[place].prepare(thetas[together.rows], iteration)

    def drawn(self, rng: Generator) -> int:
        """Return the number of a context drawn by its weight."""
        return int(np.searchsorted(self._edges, rng.random(), side="right"))

    def direction(self, thetas: FloatArray, step: int) -> FloatArray:
        """Return the direction in the context drawn, or the weighted sum of all."""
        found = np.zeros_like(thetas)
        for together in self._together:
            own = thetas[together.rows]
            each = [together.worlds[place].direction(own, step) for place in together.visited]
            found[together.rows] = each[0] if len(each) == 1 else weighted(self.training.problem.weights, each)
        return found

    def evaluate(self, thetas: FloatArray, direction: FloatArray) -> dict[str, FloatArray]:
        """Return the mixture's exact objective, that of each context, and how far directions are from ∇J."""
        shape = self.training.theta_shape
        # From nothing: a follower that went on from an earlier one would depend on when one was asked for.
        exact = [hypergradient(self.training.problem, theta.reshape(shape), bound=False) for theta in thetas]
        values = {"objective": np.array([found.objective for found in exact])}
        for place in range(len(self.training.problem.contexts)):
            values[f"objective_{place}"] = np.array([found.contexts[place].objective for found in exact])
        return {**values, **gradient_errors(direction, np.stack([found.value for found in exact]))}

    def arrays(self) -> dict[str, FloatArray]:
        """Return what the contexts' worlds carry on."""
        return join_groups({name: world.arrays() for name, world in self._named().items()})

    def restore(self, arrays: Mapping[str, FloatArray]) -> None:
        """Continue from what `arrays` returned."""
        for name, world in self._named().items():
            world.restore(group(arrays, name))

    def _named(self) -> dict[str, World]:
        return {
            f"{first}-{place}": world
            for first, together in enumerate(self._together)
            for place, world in enumerate(together.worlds)
        }


@make_world.register
def _(training: MixtureTraining, generators: Sequence[Generator]) -> World:
    return MixtureWorld(training, generators)
