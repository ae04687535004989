"""Training on configurable MDPs: the declared training, and the world of runs that share their dynamics.

Outer iteration k: the followers respond to θ_k; every run draws its batch from its own random stream; SARSA critics
learn from it; estimators give a direction. Exact hypergradient ascent is one of the methods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.critics.sarsa import sarsa_pass
from bilevelrl.estimators.sampling.tabular import TabularSimulator
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.terms.batched import SeedBatch
from bilevelrl.estimators.training.followers.solving import (
    Carried,
    ExactFollower,
    FollowerRule,
    Rewards,
    SharedDynamics,
)
from bilevelrl.estimators.training.gradient_errors import GRADIENT_COLUMNS, gradient_errors
from bilevelrl.estimators.training.runs import LeaderTraining, World, check_count
from bilevelrl.estimators.training.tabular.methods import METHODS, batch_hypergradients, batch_truths, get_method
from bilevelrl.estimators.training.tabular.separate import SeparateWorld
from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.arrays import FloatArray, IntArray
from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.reference.tabular.fixed_point import entropy
from bilevelrl.reference.tabular.transitions import SparseTransition, to_dense

__all__ = ["Training", "published_simulator"]


def published_simulator(dynamics: ConfigurableMDP | None = None) -> TabularSimulator:
    """Return the way the paper's experiments sample: episodes follow each other and are cut after 200 steps.

    Parameters
    ----------
    dynamics
        Whose kernel moves the samples; None: the problem's own.
    """
    return TabularSimulator(dynamics=dynamics, step_limit=200, single_episode=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training(LeaderTraining):
    """All runs of one configurable MDP that are trained together; see `LeaderTraining` for what is not listed here.

    Parameters
    ----------
    problem
        Runs are trained together, which is faster, where θ does not enter its dynamics.
    streams, steps
        Of the batch that every run draws in every outer iteration.
    follower, simulator
        How followers respond, how samples are made.
    start_scale
        θ_0 has independent entries N(0, start_scale²); 0: zeros.

    Raises
    ------
    InvalidInputError
        If there is no run, one is there twice, or a number is out of range.
    UnknownNameError
        If a method or a schedule is not known.

    Examples
    --------
    >>> from bilevelrl.estimators.training import Run
    >>> from bilevelrl.tasks import four_rooms
    >>> runs = [Run(method="exact", seed=seed, learning_rate=0.5) for seed in range(3)]
    >>> Training(problem=four_rooms(), runs=runs, iterations=10).start().shape
    (3, 105)
    """

    problem: ConfigurableMDP
    streams: int = 1
    steps: int = 100
    follower: FollowerRule = field(default_factory=ExactFollower)
    simulator: TabularSimulator = field(default_factory=published_simulator)
    start_scale: float = 0.01

    def __post_init__(self) -> None:
        LeaderTraining.__post_init__(self)  # slots make a new class, which super() without arguments does not find
        for name in ("streams", "steps"):
            check_count(name, getattr(self, name))
        if self.ascent_steps != 1:
            raise InvalidInputError(
                refusal("ascent_steps", self.ascent_steps, "1 on a configurable MDP", "raise iterations instead")
            )
        if not (np.isfinite(self.start_scale) and self.start_scale >= 0.0):
            raise InvalidInputError(refusal("start_scale", self.start_scale, "a finite number >= 0", "0.01 is usual"))
        if self.problem.theta_shape is None:
            raise InvalidInputError("problem.theta_shape=None: expected a fixed shape of θ; pass theta_shape=(N,)")

    @property
    def theta_shape(self) -> tuple[int, ...]:
        """Shape of one run's θ."""
        assert self.problem.theta_shape is not None  # refused in the constructor
        return tuple(self.problem.theta_shape)

    def methods(self) -> Iterable[str]:
        """Return the names in `METHODS`."""
        return METHODS

    def start(self) -> FloatArray:
        """Return the leaders' starting points (runs, N), the same for runs of the same seed."""
        size = int(np.prod(self.theta_shape))
        return self.starts(lambda rng: self.start_scale * rng.standard_normal(size))

    def world(self, generators: Sequence[Generator]) -> World:
        """Return what the runs act in: together where they share dynamics, else one by one."""
        theta = self.start()[0].reshape(self.theta_shape)
        moved = self.problem.varying(theta) & {"transition", "initial"}
        if moved or isinstance(self.problem.tables_at(theta).transition, SparseTransition):
            return SeparateWorld(self, generators)
        return _TabularWorld(self, generators)

    def problem_arrays(self) -> Iterable[FloatArray]:
        """Return the tables at θ_0, and the kernel that moves the samples."""
        theta = self.start()[0].reshape(self.theta_shape)
        tables = self.problem.tables_at(theta).differentiable()
        yield from (np.asarray(tables[name], dtype=np.float64) for name in sorted(tables))
        if isinstance(self.simulator.dynamics, ConfigurableMDP):
            yield to_dense(self.simulator.dynamics.tables_at(theta).transition)


class _TabularWorld:
    """Followers, samples and critics of all runs."""

    columns = ("objective", "played_objective", "follower_error", "hypergradient_error", *GRADIENT_COLUMNS)

    def __init__(self, training: Training, generators: Sequence[Generator]) -> None:
        self.training, self.generators = training, generators
        runs, thetas = training.runs, training.start()
        self.dynamics = SharedDynamics(training.problem, thetas[0].reshape(training.theta_shape))
        self.methods = {name: get_method(name) for name in dict.fromkeys(run.method for run in runs)}
        self.rows = {
            name: np.array([row for row, run in enumerate(runs) if run.method == name]) for name in self.methods
        }
        self.sampling = np.flatnonzero([self.methods[run.method].estimator is not None for run in runs])
        self.learning = np.flatnonzero([self.methods[run.method].critic == "sarsa" for run in runs])
        self.step_sizes = np.array([run.critic_step_size for run in runs])
        shape = (len(runs), self.dynamics.states, self.dynamics.actions)
        self.tables = np.zeros(shape)
        for row in self.learning:
            self.tables[row] = generators[int(row)].standard_normal(shape[1:])
        self.carried: Carried = {}
        self.rewards: Rewards
        self.played: SeedBatch
        self.trajectories: Trajectories | None = None

    def arrays(self) -> dict[str, FloatArray]:
        """Return the critics and what followers carry on."""
        return {**{f"follower.{name}": array for name, array in self.carried.items()}, "tables": self.tables}

    def restore(self, arrays: Mapping[str, FloatArray]) -> None:
        """Continue from what `arrays` returned."""
        self.tables = arrays["tables"]
        prefix = "follower."
        self.carried = {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}

    def prepare(self, thetas: FloatArray, iteration: int) -> None:
        """Let the followers respond, every run sample, and SARSA critics learn."""
        training = self.training
        self.rewards = self.dynamics.rewards(thetas.reshape(-1, *training.theta_shape))
        self.played, self.carried = training.follower.respond(
            self.dynamics, self.rewards, self.carried, self.generators
        )
        self._best: SeedBatch | None = None
        self.trajectories = None
        if self.sampling.size:
            self.trajectories = self.played.select(self.sampling).sample(
                streams=training.streams,
                steps=training.steps,
                rng=[self.generators[int(row)] for row in self.sampling],
                simulator=training.simulator,
            )
        for name, method in self.methods.items():
            if method.critic == "sarsa":
                self._learn(self.rows[name])

    def direction(self, thetas: FloatArray, step: int) -> FloatArray:
        """Return what each run's method estimates from its batch."""
        direction = np.zeros_like(thetas)
        for name, method in self.methods.items():
            rows = self.rows[name]
            if method.estimator is None:
                direction[rows] = batch_hypergradients(self.dynamics, self._best_response().select(rows))
                continue
            batch = self.played.select(rows)
            critic = batch.exact_critic() if method.critic == "exact" else batch.table_critic(self.tables[rows])
            direction[rows] = batch.estimate(
                method.estimator,
                self._own(rows),
                critic,
                parts=False,
                simulator=self.training.simulator,
                rng=[self.generators[int(row)] for row in rows],
            ).mean
        return direction

    def evaluate(self, thetas: FloatArray, direction: FloatArray) -> dict[str, FloatArray]:
        """Return objectives, what the followers' errors do, and how far the direction is from the truth."""
        best, played, runs = self._best_response(), self.played, thetas.shape[0]
        objective, truth = batch_truths(self.dynamics, best)
        played_objective, error, carried_over = objective, np.zeros(runs), np.zeros(runs)
        if played is not best:
            played_objective, of_played = batch_truths(self.dynamics, played)
            error = np.abs(self._played_value(played) - best.value).max(axis=1)
            carried_over = np.linalg.norm(of_played - truth, axis=1)
        return {
            "objective": objective,
            "played_objective": played_objective,
            "follower_error": error,
            "hypergradient_error": carried_over,
            **gradient_errors(direction, truth),
        }

    def finish(self, thetas: FloatArray) -> None:
        """Nothing is left to do."""

    def _best_response(self) -> SeedBatch:
        if self._best is None:
            self._best = self.played
            if not isinstance(self.training.follower, ExactFollower):
                # From nothing: a response that went on from an earlier one would depend on when one was asked for.
                self._best, _ = ExactFollower().respond(self.dynamics, self.rewards, {})
        return self._best

    def _own(self, rows: IntArray) -> Trajectories:
        assert self.trajectories is not None
        first = np.searchsorted(self.sampling, rows) * self.training.streams
        return self.trajectories.select((first[:, None] + np.arange(self.training.streams)).ravel())

    def _learn(self, rows: IntArray) -> None:
        length = self.training.streams * self.training.steps
        self.tables[rows] = sarsa_pass(
            self.tables[rows],
            self._own(rows),
            self.played.policy[rows],
            discount_leader=self.training.problem.discount_leader,
            step_size=self.step_sizes[rows],
            truncation="cut",
            order=np.stack([self.generators[int(row)].permutation(length) for row in rows]),
        )

    def _played_value(self, played: SeedBatch) -> FloatArray:
        """Return the soft value of the policies that are played, (runs, S)."""
        problem, policy = self.dynamics.problem, played.policy
        reward = self.dynamics.rewards(played.thetas).follower
        earned = (policy * reward).sum(axis=2) + problem.temperature * entropy(policy)
        system = self.dynamics.systems(policy, problem.discount_follower)
        return np.linalg.solve(system, earned[:, :, None])[:, :, 0]
