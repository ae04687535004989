"""The leader's training loop: prepare, estimate, clip, step; many runs at once, with numbers of each run alone.

What an outer iteration does to followers, samples and critics is the training's world; see `World`. Where an evaluation
is due it is of θ_k, before the ascent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from bilevelrl.estimators.optimisers import SCHEDULES, clip_to_norm
from bilevelrl.estimators.training.checkpoints import group, join_groups, load_checkpoint, save_checkpoint
from bilevelrl.estimators.training.runs import LeaderTraining
from bilevelrl.reference.arrays import FloatArray, IntArray
from bilevelrl.reference.doors import Count, checked
from bilevelrl.reference.errors import EstimatorError, InvalidInputError, refusal

__all__ = ["Callback", "Evaluation", "History", "train"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What is known of all runs at one outer iteration, before its ascent.

    Attributes
    ----------
    iteration : int
        k.
    thetas : (runs, N)
        θ_k.
    values : mapping of (runs,)
        By name: `objective`, J(θ_k) with the best response, exact; `gradient_norm`, of the direction before clipping;
        `cosine` and `relative_error` of the direction against the exact hypergradient; and what else the kind of
        problem has. On a configurable MDP: `played_objective`, the leader's return against what the followers play;
        `follower_error`, the largest |V_F - V_F*| over states of what is played, not of an estimate of it; and
        `hypergradient_error`, the norm of what that error does to Theorem 1's expression: a cause of bias that no
        estimator that watches this follower can avoid.
    """

    iteration: int
    thetas: FloatArray
    values: Mapping[str, FloatArray]

    @property
    def objective(self) -> FloatArray:
        """J(θ_k), (runs,)."""
        return self.values["objective"]


Callback: TypeAlias = Callable[[Evaluation], object]
"""Called after each evaluation; a return value of False ends the training there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What a training left.

    Attributes
    ----------
    training
        What was trained.
    iterations : (evaluations,)
        Outer iterations that were evaluated.
    values : mapping of (evaluations, runs)
        By name; see `Evaluation`.
    thetas : (runs, N)
        θ after the last step.
    seconds : float
        CPU time of this process spent on it, interrupted parts included.
    finished : bool
        False where a callback ended it.
    """

    training: LeaderTraining
    iterations: IntArray
    values: Mapping[str, FloatArray]
    thetas: FloatArray
    seconds: float
    finished: bool

    @property
    def objective(self) -> FloatArray:
        """J at the evaluated iterations, (evaluations, runs)."""
        return self.values["objective"]

    def final(self, share: float = 0.05, name: str = "objective") -> FloatArray:
        """Return each run's mean of a logged value over the last share of all outer iterations, (runs,).

        Parameters
        ----------
        share
            In (0, 1]; at least one evaluation counts.
        name
            Of the value.
        """
        if not 0.0 < share <= 1.0:
            raise InvalidInputError(refusal("share", share, "a number in (0, 1]", "0.05 is what figures report"))
        last = self.iterations >= (1.0 - share) * self.training.iterations
        last[-1] = True
        mean: FloatArray = self.values[name][last].mean(axis=0)
        return mean


class _Loop:
    """The state of all runs, and how it moves on."""

    def __init__(self, training: LeaderTraining) -> None:
        self.training = training
        self.thetas = training.start()
        self.generators = training.generators()
        self.world = training.world(self.generators)
        self.rates = np.array([run.learning_rate for run in training.runs])
        self.state = training.optimiser.start(self.thetas.shape)
        self.names = (*self.world.columns, "gradient_norm")
        self.log: list[tuple[int, list[FloatArray]]] = []
        self.iteration, self.seconds = 0, 0.0

    def arrays(self) -> dict[str, FloatArray]:
        """Return everything numerical for a checkpoint."""
        stored = join_groups({"optimiser": self.state, "world": self.world.arrays()})
        stored.update(thetas=self.thetas, seconds=np.array(self.seconds))
        stored["log.iterations"] = np.array([iteration for iteration, _ in self.log], dtype=np.int64)
        values = np.array([values for _, values in self.log])
        stored["log.values"] = values.reshape(len(self.log), len(self.names), len(self.thetas))
        return stored

    def restore(self, iteration: int, arrays: dict[str, FloatArray], generators: dict[str, Any]) -> None:
        """Continue where a checkpoint stopped."""
        self.iteration, self.seconds, self.thetas = iteration, float(arrays["seconds"]), arrays["thetas"]
        self.state = group(arrays, "optimiser")
        self.world.restore(group(arrays, "world"))
        pairs = zip(arrays["log.iterations"], arrays["log.values"], strict=True)
        self.log = [(int(iteration), list(values)) for iteration, values in pairs]
        for row, rng in enumerate(self.generators):
            rng.bit_generator.state = generators[str(row)]

    def advance(self) -> Evaluation | None:
        """Make one outer iteration; return its evaluation where one is due."""
        training, k = self.training, self.iteration
        factor = SCHEDULES[training.schedule](k / training.iterations)
        self.world.prepare(self.thetas, k)
        evaluation = None
        for step in range(training.ascent_steps):
            direction = self._direction(step)
            if step == 0 and (k % training.evaluate_every == 0 or k == training.iterations - 1):
                evaluation = self._evaluate(direction)
            clipped = clip_to_norm(direction, training.largest_norm, training.clip_blocks)
            move, self.state = training.optimiser.step(clipped, factor * self.rates, self.state)
            self.thetas = self.thetas + move
        self.world.finish(self.thetas)
        self.iteration = k + 1
        return evaluation

    def _direction(self, step: int) -> FloatArray:
        direction = self.world.direction(self.thetas, step)
        if not np.isfinite(direction).all():
            run = self.training.runs[int(np.argmin(np.isfinite(direction).all(axis=1)))]
            raise EstimatorError(f"{run}: the direction at iteration {self.iteration} is not finite")
        return direction

    def _evaluate(self, direction: FloatArray) -> Evaluation:
        values = self.world.evaluate(self.thetas, direction)
        values["gradient_norm"] = np.linalg.norm(direction, axis=1)
        self.log.append((self.iteration, [values[name] for name in self.names]))
        return Evaluation(iteration=self.iteration, thetas=self.thetas, values=values)

    def history(self, *, finished: bool) -> History:
        """Return what there is."""
        stored = self.arrays()
        return History(
            training=self.training,
            iterations=stored["log.iterations"].astype(np.int64),
            values={name: stored["log.values"][:, column] for column, name in enumerate(self.names)},
            thetas=self.thetas,
            seconds=self.seconds,
            finished=finished,
        )


@checked
def train(
    training: LeaderTraining,
    *,
    checkpoint: Path | str | None = None,
    checkpoint_every: Count = 500,
    callbacks: Sequence[Callback] = (),
) -> History:
    """Train all runs.

    Results depend on the training alone: a run gives the same numbers, bit for bit, whichever others are trained beside
    it, and whether or not it was interrupted and continued from a checkpoint.

    Parameters
    ----------
    training
        What to train.
    checkpoint
        A file `.npz` that is continued from where it exists, and written every `checkpoint_every` outer iterations and
        at the end.
    callbacks
        Called with each `Evaluation`; one that returns False ends the training.

    Raises
    ------
    InvalidInputError
        If the checkpoint belongs to another training.
    StorageError
        If it cannot be read or written.
    NotConvergedError, EstimatorError
        If a follower does not converge, a direction is not finite, or a callback or a method raises.

    Examples
    --------
    >>> from bilevelrl.estimators.training import Run, Training
    >>> from bilevelrl.tasks import four_rooms
    >>> runs = [Run(method="exact", seed=0, learning_rate=0.5)]
    >>> history = train(Training(problem=four_rooms(temperature=0.005), runs=runs, iterations=3, evaluate_every=1))
    >>> bool((np.diff(history.objective[:, 0]) > 0.0).all())
    True
    """
    path = None if checkpoint is None else Path(checkpoint)
    loop, fingerprint = _Loop(training), ""
    if path is not None:
        fingerprint = training.fingerprint()
        if path.exists():
            loop.restore(*load_checkpoint(path, fingerprint=fingerprint))
    finished, saved = True, loop.iteration
    while loop.iteration < training.iterations:
        began = time.process_time()
        evaluation = loop.advance()
        loop.seconds += time.process_time() - began
        if evaluation is not None and not _goes_on(callbacks, evaluation):
            finished = loop.iteration == training.iterations
            break
        if path is not None and loop.iteration - saved >= checkpoint_every:
            _save(path, fingerprint, loop)
            saved = loop.iteration
    if path is not None and loop.iteration > saved:
        _save(path, fingerprint, loop)
    return loop.history(finished=finished)


def _goes_on(callbacks: Sequence[Callback], evaluation: Evaluation) -> bool:
    answers = [callback(evaluation) for callback in callbacks]  # all are told, whatever the first one says
    return all(answer is not False for answer in answers)


def _save(path: Path, fingerprint: str, loop: _Loop) -> None:
    generators = {str(row): rng for row, rng in enumerate(loop.generators)}
    save_checkpoint(
        path, fingerprint=fingerprint, iteration=loop.iteration, arrays=loop.arrays(), generators=generators
    )
