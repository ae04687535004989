"""The world of runs whose dynamics differ: θ in the kernel or the initial law, or a sparse kernel.

Every run is solved, sampled and estimated by itself, with what the rest of the package offers for one problem at one θ;
that is slower than the world of shared dynamics, and gives the same numbers where both apply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.critics.sarsa import sarsa_pass
from bilevelrl.estimators.critics.tables import ExactCritic, TableCritic
from bilevelrl.estimators.estimator import Context
from bilevelrl.estimators.followers.observed import WatchedFollower, counted
from bilevelrl.estimators.followers.solving import Carried, ExactFollower, SharedDynamics
from bilevelrl.estimators.methods.bchg import BCHG
from bilevelrl.estimators.training.checkpoints import group, join_groups
from bilevelrl.estimators.training.declarations.tabular import Training
from bilevelrl.estimators.training.methods import Method
from bilevelrl.estimators.training.runs import Run, World, make_world
from bilevelrl.estimators.training.worlds.shared import SharedWorld
from bilevelrl.estimators.training.worlds.tabular import FACTS, TabularWorld
from bilevelrl.reference import (
    SparseTransition,
    TabularFollower,
    hypergradient,
    leader_objective,
    solve_follower,
)
from bilevelrl.reference.arrays import FloatArray, IntArray
from bilevelrl.reference.tabular import entropy, leader_action_values

__all__ = ["SeparateWorld"]


class SeparateWorld(SharedWorld):
    """Runs that have nothing in common but their problem."""

    facts = FACTS

    def __init__(self, training: Training, generators: Sequence[Generator]) -> None:
        super().__init__(training, generators)
        each = zip(training.runs, self.methods, training.start(), generators, strict=True)
        self._runs = [_OneRun(training, run, method, theta, rng) for run, method, theta, rng in each]

    def prepare(self, thetas: FloatArray, iteration: int) -> None:
        """Let the followers respond, every run sample, and SARSA critics learn."""
        for run, theta in zip(self._runs, thetas, strict=True):
            run.prepare(theta.reshape(run.training.theta_shape))

    def estimates(self, method: Method, rows: IntArray, points: FloatArray, step: int) -> FloatArray:
        """Return what each run's batch and critic make of the direction."""
        return np.stack([self._runs[int(row)].estimate() for row in rows])

    def exact(self, method: Method, rows: IntArray, points: FloatArray, step: int) -> FloatArray:
        """Return exact hypergradients."""
        return np.stack([self._runs[int(row)].truth() for row in rows])

    def known(self, thetas: FloatArray) -> tuple[Mapping[str, Any], FloatArray]:
        """Return objectives and what the followers' errors do."""
        facts = np.array([run.known() for run in self._runs])
        return dict(zip(FACTS, facts.T, strict=True)), np.stack([run.truth() for run in self._runs])

    def arrays(self) -> dict[str, FloatArray]:
        """Return the critics and what followers carry on."""
        own = ({"table": run.table, "value": run.value, **join_groups({"follower": run.carried})} for run in self._runs)
        return join_groups({str(row): arrays for row, arrays in enumerate(own)})

    def restore(self, arrays: Mapping[str, FloatArray]) -> None:
        """Continue from what `arrays` returned."""
        for row, run in enumerate(self._runs):
            own = group(arrays, str(row))
            run.table, run.value, run.carried = own["table"], own["value"], group(own, "follower")


class _OneRun:
    """One run: its follower, samples and critic."""

    def __init__(self, training: Training, run: Run, method: Method, theta: FloatArray, rng: Generator) -> None:
        self.training, self.problem, self.run, self.rng = training, training.problem, run, rng
        self.method, self.estimator = method, None if method.make is None else method.make(None)
        tables = self.problem.tables_at(theta.reshape(training.theta_shape))
        shape = (tables.states, tables.actions)
        self.table = rng.standard_normal(shape) if self.method.critic == "sarsa" else np.zeros(shape)
        self.carried: Carried = {}
        self.value = np.zeros(shape[0])  # of the last best response, which the next one starts from

    def prepare(self, theta: FloatArray) -> None:
        training = self.training
        self.theta, self.best, self.trajectories = theta, self._best_response(theta), None
        self.played = self._response(theta)
        self.seen = self._seen(theta)  # what the leader takes the follower for
        if self.estimator is None:
            return
        self.trajectories = training.simulator.sample(
            self.problem, theta, self.played.policy, streams=training.streams, steps=training.steps, rng=[self.rng]
        )
        if self.method.critic == "sarsa":
            self.table = sarsa_pass(
                self.table,
                self.trajectories,
                self.seen.policy,
                discount_leader=self.problem.discount_leader,
                step_size=self.run.critic_step_size,
                truncation="cut",
                order=self.rng.permutation(training.streams * training.steps),
            )

    def _best_response(self, theta: FloatArray) -> TabularFollower:
        best = solve_follower(self.problem, theta, warm_start=self.value)
        self.value = best.value
        return best

    def _response(self, theta: FloatArray) -> TabularFollower:
        rule = self.training.follower
        if isinstance(rule, (ExactFollower, WatchedFollower)):
            return self.best
        dynamics = SharedDynamics(self.problem, theta, shared=False)
        found, self.carried = rule.respond(dynamics, dynamics.rewards(theta[None]), self.carried, [self.rng])
        return replace(self.best, value=found.value[0], action_value=found.action_value[0], policy=found.policy[0])

    def _seen(self, theta: FloatArray) -> TabularFollower:
        rule = self.training.follower
        if not isinstance(rule, WatchedFollower):
            return self.played
        policy = counted(self.played.policy[None], rule.observed, rule.prior, [self.rng])[0]
        return TabularFollower.from_policy(self.problem, theta, policy)

    def estimate(self) -> FloatArray:
        assert self.trajectories is not None
        assert self.estimator is not None
        context = replace(self._context(self.seen), simulator=self.training.simulator)
        if self.method.critic == "sarsa":
            context = replace(context, critic=TableCritic(action_values=self.table, policy=self.seen.policy))
        return np.ravel(self.estimator.estimate(self.trajectories, context).mean)

    def known(self) -> tuple[float, ...]:
        objective = leader_objective(self.problem, self.theta)
        if self.seen is self.best:
            return objective, objective, 0.0, 0.0
        carried_over = float(np.linalg.norm(self._expected(self.seen) - self._expected(self.best)))
        if self.played is self.best:
            return objective, objective, 0.0, carried_over
        error = float(np.abs(self._played_value() - self.best.value).max())
        return objective, self._played_objective(), error, carried_over

    def truth(self) -> FloatArray:
        return np.ravel(hypergradient(self.problem, self.theta, warm_start=self.best, bound=False).value)

    def _context(self, follower: TabularFollower) -> Context:
        critic = ExactCritic.solve(self.problem, self.theta, follower.policy)
        return Context(problem=self.problem, theta=self.theta, follower=follower, critic=critic, rng=self.rng)

    def _expected(self, follower: TabularFollower) -> FloatArray:
        """Return Theorem 1's expression, over an infinite horizon, with a follower's values and policy."""
        # Geometric stopping makes it the expectation of an estimator, whatever the horizon says.
        parts = BCHG(critic="context", stopping="single").expectation(self._context(follower), horizon=1)
        total: FloatArray = np.sum([np.ravel(part) for part in parts.values()], axis=0)
        return total

    def _played_objective(self) -> float:
        tables = self.problem.tables_at(self.theta)
        values = ExactCritic.solve(self.problem, self.theta, self.played.policy).values[0, :-1]
        return float(np.asarray(tables.initial) @ values + np.asarray(tables.regulariser))

    def _played_value(self) -> FloatArray:
        """Return the soft value of the policy that is played, (S,)."""
        tables, policy, problem = self.problem.tables_at(self.theta), self.played.policy, self.problem
        soft = np.asarray(tables.reward_follower) + problem.temperature * entropy(policy)[:, None]
        earned = replace(tables, reward_leader=soft)
        value, _, _ = leader_action_values(earned, policy, problem.discount_follower)
        return value


@make_world.register
def _(training: Training, generators: Sequence[Generator]) -> World:
    """Together where runs share dynamics, else one by one."""
    theta = training.start()[0].reshape(training.theta_shape)
    moved = training.problem.varying(theta) & {"transition", "initial"}
    if moved or isinstance(training.problem.tables_at(theta).transition, SparseTransition):
        return SeparateWorld(training, generators)
    return TabularWorld(training, generators)
