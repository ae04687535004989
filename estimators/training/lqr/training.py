"""Training of leaders of configurable LQRs, such as the building: what a run needs besides the loop, and its world."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.estimator import Context
from bilevelrl.estimators.sampling.linear_quadratic import LQRSimulator
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.training.gradient_errors import GRADIENT_COLUMNS, gradient_errors
from bilevelrl.estimators.training.lqr.critics import CriticRule, LearntCritics, LeastSquaresCritics
from bilevelrl.estimators.training.lqr.methods import LQR_METHODS
from bilevelrl.estimators.training.lqr.networks import Carried
from bilevelrl.estimators.training.runs import LeaderTraining, World, check_count
from bilevelrl.reference import ConfigurableLQR, hypergradient, named_stream, solve_follower
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.reference.lqr.leader import evaluate_lqr_leader

__all__ = ["LQRTraining", "LQRWorld"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LQRTraining(LeaderTraining):
    """All runs on one configurable LQR that are trained together.

    Parameters
    ----------
    problem
        With a fixed shape of θ.
    runs, iterations, optimiser, schedule, largest_norm, clip_blocks, ascent_steps, evaluate_every, entropy
        As in `LeaderTraining`; methods are those of `LQR_METHODS`.
    critics
        Where leader values and gradients of the follower's values come from.
    streams, steps
        Episodes of each batch, and their length.
    separate_critics
        Let critics learn from a batch of their own, as large: no sample is used twice.
    simulator
        How samples are made.
    start_scale
        θ_0 has independent entries N(0, start_scale²).

    Raises
    ------
    InvalidInputError, UnknownNameError
        As `LeaderTraining`, or if a number is out of range.

    Examples
    --------
    >>> from bilevelrl.estimators.training import Run, train
    >>> from bilevelrl.tasks import building_thermal_control
    >>> runs = [Run(method="exact", seed=0, learning_rate=0.1)]
    >>> training = LQRTraining(
    ...     problem=building_thermal_control(), runs=runs, iterations=100, clip_blocks=(4, 4), evaluate_every=99)
    >>> train(training).objective[:, 0].round(0).tolist()
    [-262.0, -164.0]
    """

    problem: ConfigurableLQR
    critics: CriticRule = field(default_factory=LeastSquaresCritics)
    streams: int = 100
    steps: int = 100
    separate_critics: bool = False
    simulator: LQRSimulator = field(default_factory=LQRSimulator)
    start_scale: float = 0.01

    def __post_init__(self) -> None:
        LeaderTraining.__post_init__(self)
        for name in ("streams", "steps"):
            check_count(name, getattr(self, name))
        if not (np.isfinite(self.start_scale) and self.start_scale >= 0.0):
            raise InvalidInputError(refusal("start_scale", self.start_scale, "a finite number >= 0", "0.01 is usual"))
        if self.problem.theta_shape is None:
            raise InvalidInputError("problem.theta_shape=None: expected a fixed shape of θ; pass theta_shape=(N,)")

    @property
    def parameters(self) -> int:
        """N."""
        assert self.problem.theta_shape is not None  # refused on construction
        return int(np.prod(self.problem.theta_shape))

    def methods(self) -> Iterable[str]:
        """Return the names in `LQR_METHODS`."""
        return LQR_METHODS

    def start(self) -> FloatArray:
        """Return the leaders' starting points (runs, N), the same for runs of the same seed."""
        return self.starts(lambda rng: self.start_scale * rng.standard_normal(self.parameters))

    def world(self, generators: Sequence[Generator]) -> World:
        """Return the world of all runs."""
        return LQRWorld(self, generators)

    def problem_arrays(self) -> Iterable[FloatArray]:
        """Return the matrices at the first starting point."""
        entries = self.problem.matrices_at(self.start()[0]).differentiable()
        return [np.asarray(entries[name]) for name in sorted(entries)]


class LQRWorld:
    """Followers, samples and critics of all runs, one run after the other; see `World`."""

    def __init__(self, training: LQRTraining, generators: Sequence[Generator]) -> None:
        self.training, self.generators = training, generators
        self.methods = [LQR_METHODS[run.method] for run in training.runs]
        self.estimators = [
            None if method.make is None else method.make(training.clip_blocks) for method in self.methods
        ]
        self.carried: list[Carried] = []
        matrices = training.problem.matrices_at(training.start()[0])
        for run, method in zip(training.runs, self.methods, strict=True):
            rng = named_stream(training.entropy, "training", "critics", run.method, int(run.seed))
            self.carried.append(
                training.critics.start(method.wanted, matrices.states, matrices.actions, training.parameters, rng)
            )
        self.samples: list[tuple[Trajectories, Context] | None] = [None] * len(training.runs)

    @property
    def columns(self) -> tuple[str, ...]:
        """The objective, its parts as discounted sums, θ, and the errors of the direction."""
        thetas = tuple(f"theta_{i}" for i in range(self.training.parameters))
        return ("objective", "state_cost", "action_cost", "constant_cost", *thetas, *GRADIENT_COLUMNS)

    def prepare(self, thetas: FloatArray, iteration: int) -> None:
        """Solve the followers, sample, learn critics."""
        self.samples = [self._prepared(row, theta) for row, theta in enumerate(thetas)]

    def _prepared(self, row: int, theta: FloatArray) -> tuple[Trajectories, Context] | None:
        if self.estimators[row] is None:
            return None
        training, rng = self.training, self.generators[row]
        follower = solve_follower(training.problem, theta)
        context = Context(problem=training.problem, theta=theta, follower=follower, rng=rng)
        batch = self._batch(theta, follower, rng)
        seen = self._batch(theta, follower, rng) if training.separate_critics else batch
        learnt: LearntCritics = training.critics.learn(self.methods[row].wanted, seen, context, self.carried[row], rng)
        self.carried[row] = learnt.carried
        return batch, replace(context, critic=learnt.leader, follower_gradient=learnt.gradient)

    def _batch(self, theta: FloatArray, follower: Any, rng: Generator) -> Trajectories:
        training = self.training
        return training.simulator.sample(
            training.problem, theta, follower, streams=training.streams, steps=training.steps, rng=rng
        )

    def direction(self, thetas: FloatArray, step: int) -> FloatArray:
        """Return each run's estimate; later steps on the same data read what was learnt at the first θ."""
        rows = np.empty_like(thetas)
        for row, theta in enumerate(thetas):
            estimator, sample = self.estimators[row], self.samples[row]
            if estimator is None or sample is None:
                truth = hypergradient(self.training.problem, theta, bound=False)
                kept = truth.value
                if self.methods[row].exact == "partial":
                    kept = kept - truth.parts["response"]
                rows[row] = kept
            else:
                batch, context = sample
                rows[row] = estimator.estimate(batch, context).mean
        return rows

    def evaluate(self, thetas: FloatArray, direction: FloatArray) -> dict[str, FloatArray]:
        """Return `columns`; costs are discounted sums over an infinite horizon."""
        problem, truth, found = self.training.problem, np.empty_like(thetas), []
        for row, theta in enumerate(thetas):
            truth[row] = hypergradient(problem, theta, bound=False).value
            m, follower = problem.matrices_at(theta), solve_follower(problem, theta)
            leader = evaluate_lqr_leader(m, follower.gain, follower.covariance, problem.discount_leader)
            played = follower.gain @ leader.visits @ follower.gain.T + leader.length * follower.covariance
            found.append(
                (
                    leader.objective,
                    float(np.vdot(m.cost_state_leader, leader.visits)),
                    float(np.vdot(m.cost_action_leader, played)),
                    leader.length * float(m.cost_constant_leader),
                )
            )
        values = dict(zip(self.columns, np.array(found).T, strict=False))
        values.update({f"theta_{i}": thetas[:, i].copy() for i in range(thetas.shape[1])})
        values.update(gradient_errors(direction, truth))
        return values

    def finish(self, thetas: FloatArray) -> None:
        """Forget the samples."""
        self.samples = [None] * len(self.samples)

    def arrays(self) -> dict[str, FloatArray]:
        """Return the weights of networks, by row and name."""
        return {f"{row}.{name}": array for row, own in enumerate(self.carried) for name, array in own.items()}

    def restore(self, arrays: Mapping[str, FloatArray]) -> None:
        """Continue from what `arrays` returned."""
        for key, array in arrays.items():
            row, _, name = key.partition(".")
            self.carried[int(row)] = {**self.carried[int(row)], name: array}
