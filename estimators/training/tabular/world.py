"""The world of runs on a configurable MDP that share their dynamics, and the choice between it and separate runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.critics.sarsa import sarsa_pass
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.terms.batched import SeedBatch
from bilevelrl.estimators.training.followers.solving import (
    Carried,
    ExactFollower,
    Rewards,
    SharedDynamics,
)
from bilevelrl.estimators.training.gradient_errors import GRADIENT_COLUMNS, gradient_errors
from bilevelrl.estimators.training.runs import World, make_world
from bilevelrl.estimators.training.tabular.methods import batch_hypergradients, batch_truths, get_method
from bilevelrl.estimators.training.tabular.separate import SeparateWorld
from bilevelrl.estimators.training.tabular.training import Training
from bilevelrl.reference.arrays import FloatArray, IntArray
from bilevelrl.reference.tabular.fixed_point import entropy
from bilevelrl.reference.tabular.transitions import SparseTransition

__all__ = ["TabularWorld"]


class TabularWorld:
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


@make_world.register
def _(training: Training, generators: Sequence[Generator]) -> World:
    """Together where runs share dynamics, else one by one."""
    theta = training.start()[0].reshape(training.theta_shape)
    moved = training.problem.varying(theta) & {"transition", "initial"}
    if moved or isinstance(training.problem.tables_at(theta).transition, SparseTransition):
        return SeparateWorld(training, generators)
    return TabularWorld(training, generators)
