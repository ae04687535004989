"""The world of runs on a configurable MDP that share their dynamics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.critics.sarsa import sarsa_pass
from bilevelrl.estimators.followers.observed import WatchedFollower
from bilevelrl.estimators.followers.solving import Carried, ExactFollower, Rewards, SharedDynamics
from bilevelrl.estimators.followers.truths import batch_hypergradients, batch_truths
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.terms.batched import SeedBatch
from bilevelrl.estimators.training.checkpoints import group, join_groups
from bilevelrl.estimators.training.declarations.tabular import Training
from bilevelrl.estimators.training.methods import Method
from bilevelrl.estimators.training.worlds.shared import SharedWorld
from bilevelrl.reference.arrays import FloatArray, IntArray
from bilevelrl.reference.tabular import entropy

__all__ = ["FACTS", "TabularWorld"]

FACTS = ("objective", "played_objective", "follower_error", "hypergradient_error")
"""What is known exactly of each run, besides the errors of its direction."""


class TabularWorld(SharedWorld):
    """Followers, samples and critics of all runs."""

    facts = FACTS

    def __init__(self, training: Training, generators: Sequence[Generator]) -> None:
        super().__init__(training, generators)
        self.training = training
        runs, thetas = training.runs, training.start()
        self.dynamics = SharedDynamics(training.problem, thetas[0].reshape(training.theta_shape))
        self.estimators = {name: method.make(None) for name, method in self.by_name.items() if method.make is not None}
        self.sampling = np.flatnonzero([method.make is not None for method in self.methods])
        self.learning = np.flatnonzero([method.critic == "sarsa" for method in self.methods])
        self.step_sizes = np.array([run.critic_step_size for run in runs])
        shape = (len(runs), self.dynamics.states, self.dynamics.actions)
        self.tables = np.zeros(shape)
        for row in self.learning:
            self.tables[row] = generators[int(row)].standard_normal(shape[1:])
        self.carried: Carried = {}
        self.rewards: Rewards
        self.played: SeedBatch
        self.seen: SeedBatch  # what the leaders take the followers for
        self.trajectories: Trajectories | None = None

    def arrays(self) -> dict[str, FloatArray]:
        """Return the critics and what followers carry on."""
        return {**join_groups({"follower": self.carried}), "tables": self.tables}

    def restore(self, arrays: Mapping[str, FloatArray]) -> None:
        """Continue from what `arrays` returned."""
        self.tables, self.carried = arrays["tables"], group(arrays, "follower")

    def prepare(self, thetas: FloatArray, iteration: int) -> None:
        """Let the followers respond, every run sample, and SARSA critics learn."""
        training = self.training
        self.rewards = self.dynamics.rewards(thetas.reshape(-1, *training.theta_shape))
        self.played, self.carried = training.follower.respond(
            self.dynamics, self.rewards, self.carried, self.generators
        )
        rule, self.seen = training.follower, self.played
        if isinstance(rule, WatchedFollower):
            self.seen = rule.seen(self.dynamics, self.rewards, self.played, self.generators)
        self._best: SeedBatch | None = None
        self.trajectories = None
        if self.sampling.size:
            self.trajectories = self.played.select(self.sampling).sample(
                streams=training.streams,
                steps=training.steps,
                rng=[self.generators[int(row)] for row in self.sampling],
                simulator=training.simulator,
            )
        for name, method in self.by_name.items():
            if method.critic == "sarsa":
                self._learn(self.rows[name])

    def estimates(self, method: Method, rows: IntArray, points: FloatArray, step: int) -> FloatArray:
        """Return what each run's batch and critic make of the direction."""
        batch = self.seen.select(rows)
        critic = batch.exact_critic() if method.critic == "exact" else batch.table_critic(self.tables[rows])
        return batch.estimate(
            self.estimators[method.name],
            self._own(rows),
            critic,
            parts=False,
            simulator=self.training.simulator,
            rng=[self.generators[int(row)] for row in rows],
        ).mean

    def exact(self, method: Method, rows: IntArray, points: FloatArray, step: int) -> FloatArray:
        """Return exact hypergradients."""
        return batch_hypergradients(self.dynamics, self._best_response().select(rows))

    def known(self, thetas: FloatArray) -> tuple[Mapping[str, Any], FloatArray]:
        """Return objectives and what the followers' errors do."""
        best, played, runs = self._best_response(), self.played, thetas.shape[0]
        objective, truth = batch_truths(self.dynamics, best)
        played_objective, error, carried_over = objective, np.zeros(runs), np.zeros(runs)
        if self.seen is not best:
            of_seen = batch_truths(self.dynamics, self.seen)
            carried_over = np.linalg.norm(of_seen[1] - truth, axis=1)
            if played is not best:
                played_objective = of_seen[0]
                error = np.abs(self._played_value(played) - best.value).max(axis=1)
        return dict(zip(FACTS, (objective, played_objective, error, carried_over), strict=True)), truth

    def _best_response(self) -> SeedBatch:
        if self._best is None:
            self._best = self.played
            if not isinstance(self.training.follower, (ExactFollower, WatchedFollower)):
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
            self.seen.policy[rows],
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
