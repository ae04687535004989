"""What is trained, declared: runs that differ in method, seed and hyper-parameters, and all that they share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np

from bilevelrl.estimators.sampling import TabularSimulator
from bilevelrl.estimators.training.followers import ExactFollower, FollowerRule
from bilevelrl.estimators.training.methods import get_method
from bilevelrl.estimators.training.optimisers import SCHEDULES, SGD, Optimiser, check_positive_or_infinite
from bilevelrl.reference import ConfigurableMDP, named_stream
from bilevelrl.reference.arrays import FloatArray, check_positive
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError, refusal
from bilevelrl.reference.transitions import to_dense

__all__ = ["Run", "Training", "published_simulator"]


def published_simulator(dynamics: ConfigurableMDP | None = None) -> TabularSimulator:
    """Return the way the paper's experiments sample: episodes follow each other and are cut after 200 steps.

    Parameters
    ----------
    dynamics
        Whose kernel moves the samples; None: the problem's own.
    """
    return TabularSimulator(dynamics=dynamics, step_limit=200, single_episode=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of the leader's training.

    Parameters
    ----------
    method
        A name in `METHODS`.
    seed
        Names the run's random numbers. Runs of one seed start at the same θ, and draw the same numbers where their
        methods are the same, whatever their hyper-parameters.
    learning_rate
        Of the ascent, > 0.
    critic_step_size
        α of the SARSA critic, where the method has one.

    Raises
    ------
    UnknownNameError, InvalidInputError
        If the method is not known, or a number out of range.

    Examples
    --------
    >>> Run(method="bc_hg", seed=0, learning_rate=0.1).critic_step_size
    0.5
    """

    method: str
    seed: int
    learning_rate: float
    critic_step_size: float = 0.5

    def __post_init__(self) -> None:
        get_method(self.method)
        if isinstance(self.seed, bool) or not isinstance(self.seed, (int, np.integer)) or self.seed < 0:
            raise InvalidInputError(refusal("seed", self.seed, "an integer >= 0", "count the seeds from 0"))
        check_positive("learning_rate", self.learning_rate, "0.1 is usual after clipping to norm 1")
        if not (np.isfinite(self.critic_step_size) and 0.0 < self.critic_step_size <= 1.0):
            raise InvalidInputError(
                refusal("critic_step_size", self.critic_step_size, "a number in (0, 1]", "0.5 is usual")
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """All runs of one problem that are trained together.

    Parameters
    ----------
    problem
        Its dynamics must not depend on θ.
    runs
        At least one.
    iterations
        Outer iterations.
    streams, steps
        Of the batch that every run draws in every outer iteration.
    follower, optimiser, simulator
        How followers respond, how leaders step, how samples are made.
    schedule
        A name in `SCHEDULES`: how learning rates fall.
    largest_norm
        To which gradients are shortened; infinity: not at all.
    evaluate_every
        Outer iterations between two exact evaluations; the first is always evaluated.
    start_scale
        θ_0 has independent entries N(0, start_scale²); 0: zeros.
    entropy
        Root of all random streams.

    Raises
    ------
    InvalidInputError
        If there is no run, one is there twice, or a number is out of range.

    Examples
    --------
    >>> from bilevelrl.tasks import four_rooms
    >>> runs = [Run(method="exact", seed=seed, learning_rate=0.5) for seed in range(3)]
    >>> Training(problem=four_rooms(), runs=runs, iterations=10).start().shape
    (3, 105)
    """

    problem: ConfigurableMDP
    runs: Sequence[Run]
    iterations: int
    streams: int = 1
    steps: int = 100
    follower: FollowerRule = field(default_factory=ExactFollower)
    optimiser: Optimiser = field(default_factory=SGD)
    simulator: TabularSimulator = field(default_factory=published_simulator)
    schedule: str = "constant"
    largest_norm: float = 1.0
    evaluate_every: int = 10
    start_scale: float = 0.01
    entropy: int = 0

    def __post_init__(self) -> None:
        if not self.runs:
            raise InvalidInputError("runs=[]: expected at least one run; add Run(method=..., seed=..., ...)")
        object.__setattr__(self, "runs", tuple(self.runs))
        if len(set(self.runs)) < len(self.runs):
            twice = next(run for run in self.runs if list(self.runs).count(run) > 1)
            raise InvalidInputError(f"runs: {twice} is there twice; expected different runs, e.g. other seeds")
        for name in ("iterations", "streams", "steps", "evaluate_every"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidInputError(refusal(name, value, "an integer >= 1", "count them"))
        if self.schedule not in SCHEDULES:
            raise UnknownNameError("schedule", self.schedule, SCHEDULES)
        check_positive_or_infinite("largest_norm", self.largest_norm)
        if not (np.isfinite(self.start_scale) and self.start_scale >= 0.0):
            raise InvalidInputError(refusal("start_scale", self.start_scale, "a finite number >= 0", "0.01 is usual"))
        if self.problem.theta_shape is None:
            raise InvalidInputError("problem.theta_shape=None: expected a fixed shape of θ; pass theta_shape=(N,)")

    def start(self) -> FloatArray:
        """Return the leaders' starting points (runs, N), the same for runs of the same seed."""
        assert self.problem.theta_shape is not None
        size = int(np.prod(self.problem.theta_shape))
        starts = {
            seed: self.start_scale * named_stream(self.entropy, "training", "start", int(seed)).standard_normal(size)
            for seed in {run.seed for run in self.runs}
        }
        return np.stack([starts[run.seed] for run in self.runs])

    def fingerprint(self) -> str:
        """Return a digest of everything that the results depend on, the problem's tables at θ_0 included."""
        tables = self.problem.tables_at(np.reshape(self.start()[0], self.problem.theta_shape)).differentiable()
        digest = hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode())
        for name in sorted(tables):
            digest.update(np.ascontiguousarray(np.asarray(tables[name], dtype=np.float64)).tobytes())
        if isinstance(self.simulator.dynamics, ConfigurableMDP):
            other = self.simulator.dynamics.tables_at(np.reshape(self.start()[0], self.problem.theta_shape)).transition
            digest.update(np.ascontiguousarray(to_dense(other), dtype=np.float64).tobytes())
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return the configuration as plain values."""
        record = {entry.name: _plain(getattr(self, entry.name)) for entry in fields(self) if entry.name != "problem"}
        constants = ("name", "discount_leader", "discount_follower", "temperature")
        return {"problem": {name: getattr(self.problem, name) for name in constants}, **record}


def _plain(value: Any) -> Any:
    """Turn dataclasses, sequences and NumPy numbers into plain values with names."""
    if isinstance(value, ConfigurableMDP):
        return value.name
    if is_dataclass(value) and not isinstance(value, type):
        own = {entry.name: _plain(getattr(value, entry.name)) for entry in fields(value) if entry.init}
        return {"kind": type(value).__name__, **own}
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value
