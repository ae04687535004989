"""What is trained, declared: runs that differ in method, seed and hyper-parameters, and all that they share.

`LeaderTraining` is what every kind of problem shares; each kind adds its own fields and the world that its runs act in.
"""

from __future__ import annotations

import abc
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import singledispatch
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.optimisers import SCHEDULES, SGD, LargestNorm, Optimiser
from bilevelrl.estimators.training.methods import METHODS
from bilevelrl.reference import Problem, named_stream
from bilevelrl.reference.arrays import FloatArray, Traced
from bilevelrl.reference.doors import Count, NonNegative, Positive, Seed, Share, checked
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError, UnsupportedError

__all__ = ["LeaderTraining", "Run", "World", "make_world", "plain"]


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of the leader's training.

    Parameters
    ----------
    method
        A name that the training knows, see `LeaderTraining.methods`.
    seed
        Names the run's random numbers. Runs of one seed start at the same θ, and draw the same numbers where their
        methods are the same, whatever their hyper-parameters.
    learning_rate
        Of the ascent, > 0.
    critic_step_size
        α of the SARSA critic, where the method has one.

    Raises
    ------
    InvalidInputError
        If a number is out of range.

    Examples
    --------
    >>> Run(method="bc_hg", seed=0, learning_rate=0.1).critic_step_size
    0.5
    """

    method: str
    seed: Seed
    learning_rate: Positive
    critic_step_size: Share = 0.5


class World(abc.ABC):
    """What the runs of a training act in: it holds the followers, the samples and the critics of all runs.

    Rows are runs everywhere, and no row may depend on another one.
    """

    @property
    @abc.abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Names of what `evaluate` returns, "objective" among them."""

    @abc.abstractmethod
    def prepare(self, thetas: FloatArray, iteration: int) -> None:
        """Begin an outer iteration at θ (runs, N): followers respond, runs sample, critics learn."""

    @abc.abstractmethod
    def direction(self, thetas: FloatArray, step: int) -> FloatArray:
        """Return the estimate (runs, N) for the step-th ascent step on the data of this outer iteration."""

    @abc.abstractmethod
    def evaluate(self, thetas: FloatArray, direction: FloatArray) -> dict[str, FloatArray]:
        """Return what is known exactly at θ before the ascent, (runs,) each, given the first direction, unclipped."""

    def finish(self, thetas: FloatArray) -> None:
        """End an outer iteration at the new θ: nothing, unless something lags behind."""
        return

    @abc.abstractmethod
    def arrays(self) -> dict[str, FloatArray]:
        """Return all that the next outer iteration depends on, besides θ and the runs' generators."""

    @abc.abstractmethod
    def restore(self, arrays: Mapping[str, FloatArray]) -> None:
        """Continue from what `arrays` returned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderTraining(abc.ABC):
    """What trainings of every kind of problem share.

    Parameters
    ----------
    problem
        What is trained on.
    runs
        At least one, all different.
    iterations
        Outer iterations.
    optimiser
        How leaders step.
    schedule
        A name in `SCHEDULES`: how learning rates fall.
    largest_norm
        To which directions are shortened; infinity: not at all.
    clip_blocks
        Sizes of the blocks of θ that are shortened one by one; empty: θ as a whole.
    ascent_steps
        Steps on the data of each outer iteration.
    evaluate_every
        Outer iterations between two exact evaluations; the first and the last are always evaluated.
    entropy
        Root of all random streams.
    streams, steps
        Of the batch that every run draws in every outer iteration.
    start_scale
        θ_0 has independent entries N(0, start_scale²); 0: zeros.
    """

    kind: ClassVar[type]
    """Of problem, a key of `METHODS`."""
    published: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Fields as the paper's runs have them, where they differ from the defaults."""

    problem: Problem
    runs: Sequence[Run]
    iterations: Count
    optimiser: Optimiser = field(default_factory=SGD)
    schedule: str = "constant"
    largest_norm: LargestNorm = 1.0
    clip_blocks: tuple[Count, ...] = ()
    ascent_steps: Count = 1
    evaluate_every: Count = 10
    entropy: Seed = 0
    streams: Count = 1
    steps: Count = 100
    start_scale: NonNegative = 0.01

    def __post_init__(self) -> None:
        if not self.runs:
            raise InvalidInputError("runs=[]: expected at least one run; add Run(method=..., seed=..., ...)")
        object.__setattr__(self, "runs", tuple(self.runs))
        if len(set(self.runs)) < len(self.runs):
            twice = next(run for run in self.runs if list(self.runs).count(run) > 1)
            raise InvalidInputError(f"runs: {twice} is there twice; expected different runs, e.g. other seeds")
        known = tuple(self.methods())
        for run in self.runs:
            if run.method not in known:
                raise UnknownNameError("method", run.method, known)
        if self.schedule not in SCHEDULES:
            raise UnknownNameError("schedule", self.schedule, SCHEDULES)

    def methods(self) -> Iterable[str]:
        """Return the names of the methods that this kind of training knows."""
        return METHODS[self.kind]

    @property
    def theta_shape(self) -> tuple[int, ...]:
        """Shape of one run's θ.

        Raises
        ------
        InvalidInputError
            If the problem takes a θ of any shape, or one without entries.
        """
        if self.problem.theta_shape is None:
            raise InvalidInputError("problem.theta_shape=None: expected a fixed shape of θ; pass theta_shape=(N,)")
        if 0 in self.problem.theta_shape:
            raise InvalidInputError(
                f"problem.theta_shape={self.problem.theta_shape}: expected at least one parameter, or there is nothing "
                "to train; evaluate the objective instead"
            )
        return tuple(self.problem.theta_shape)

    def start(self) -> FloatArray:
        """Return the leaders' starting points (runs, N), the same for runs of the same seed."""
        size = int(np.prod(self.theta_shape))
        return self.starts(lambda rng: self.start_scale * rng.standard_normal(size))

    def world(self, generators: Sequence[Generator]) -> World:
        """Return what the runs act in; `generators` has one random stream for each run."""
        return make_world(self, generators)

    @abc.abstractmethod
    def problem_arrays(self) -> Iterable[FloatArray]:
        """Return numbers that tell this problem from others of the same description, e.g. its tables at θ_0."""

    def of_theta(self, entries: Callable[[FloatArray], Mapping[str, Traced]]) -> Iterator[FloatArray]:
        """Yield what θ enters, at the first starting point and beside it, where other slopes give other numbers."""
        start = self.start()[0].reshape(self.theta_shape)
        beside = start + 1e-3 * named_stream(0, "training", "beside").standard_normal(start.shape)
        for theta in (start, beside):
            try:
                found = entries(theta)
            except InvalidInputError:
                if theta is start:
                    raise
                continue  # beside a start at the edge of where the function is defined
            yield from (np.asarray(found[name], dtype=np.float64) for name in sorted(found))

    def generators(self) -> list[Generator]:
        """Return the random stream of each run."""
        return [named_stream(self.entropy, "training", run.method, int(run.seed)) for run in self.runs]

    def starts(self, draw: StartRule) -> FloatArray:
        """Return the starting points that a rule gives for each seed, (runs, N)."""
        found = {
            seed: draw(named_stream(self.entropy, "training", "start", seed))
            for seed in dict.fromkeys(int(run.seed) for run in self.runs)
        }
        return np.stack([found[int(run.seed)] for run in self.runs])

    def fingerprint(self) -> str:
        """Return a digest of everything that the results depend on."""
        digest = hashlib.sha256(json.dumps({"version": _VERSION, **self.describe()}, sort_keys=True).encode())
        for array in self.problem_arrays():
            digest.update(np.ascontiguousarray(array, dtype=np.float64).tobytes())
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return the configuration as plain values."""
        return {entry.name: plain(getattr(self, entry.name)) for entry in fields(self)}


class StartRule(Protocol):
    """Draws a starting point."""

    def __call__(self, rng: Generator, /) -> FloatArray:
        """Return θ_0, (N,)."""
        ...


_VERSION = 4  # raised where a configuration gives other numbers than before, or checkpoints hold other arrays

_CONSTANTS = ("name", "discount_leader", "discount_follower", "temperature")


def plain(value: Any) -> Any:
    """Turn problems, dataclasses, sequences and NumPy numbers into plain values with names."""
    if all(hasattr(value, name) for name in _CONSTANTS):
        return {name: getattr(value, name) for name in _CONSTANTS}
    if is_dataclass(value) and not isinstance(value, type):
        own = {entry.name: plain(getattr(value, entry.name)) for entry in fields(value) if entry.init}
        return {"kind": type(value).__name__, **own}
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value


@singledispatch
def make_world(training: LeaderTraining, generators: Sequence[Generator]) -> World:
    """Return what the runs of a training act in; each kind of problem registers its own."""
    raise UnsupportedError(f"training of type {type(training).__name__}: no world is registered for it")
