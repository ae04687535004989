"""The world of runs whose dynamics differ: θ in the kernel or the initial law, or a sparse kernel.

Every run is solved, sampled and estimated by itself, with what the rest of the package offers for one problem at one θ;
that is slower than the world of shared dynamics, and gives the same numbers where both apply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.critics.sarsa import sarsa_pass
from bilevelrl.estimators.critics.tables import ExactCritic, TableCritic
from bilevelrl.estimators.estimator import Context
from bilevelrl.estimators.methods.bchg import BCHG
from bilevelrl.estimators.training.followers.solving import Carried, ExactFollower, SharedDynamics
from bilevelrl.estimators.training.gradient_errors import GRADIENT_COLUMNS, gradient_errors
from bilevelrl.estimators.training.runs import Run
from bilevelrl.estimators.training.tabular.methods import get_method
from bilevelrl.estimators.training.tabular.training import Training
from bilevelrl.reference import TabularFollower, hypergradient, leader_objective, solve_follower
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.tabular.fixed_point import entropy
from bilevelrl.reference.tabular.leader import leader_action_values

__all__ = ["SeparateWorld"]


_COLUMNS = ("objective", "played_objective", "follower_error", "hypergradient_error", *GRADIENT_COLUMNS)


class SeparateWorld:
    """Runs that have nothing in common but their problem.

    Parameters
    ----------
    training
        What is trained.
    generators
        One for each run.
    """

    columns = _COLUMNS

    def __init__(self, training: Training, generators: Sequence[Generator]) -> None:
        pairs = zip(training.runs, training.start(), generators, strict=True)
        self._runs = [_OneRun(training, run, theta, rng) for run, theta, rng in pairs]

    def prepare(self, thetas: FloatArray, iteration: int) -> None:
        """Let the followers respond, every run sample, and SARSA critics learn."""
        for run, theta in zip(self._runs, thetas, strict=True):
            run.prepare(theta.reshape(run.training.theta_shape))

    def direction(self, thetas: FloatArray, step: int) -> FloatArray:
        """Return what each run's method estimates from its batch."""
        return np.stack([run.direction() for run in self._runs])

    def evaluate(self, thetas: FloatArray, direction: FloatArray) -> dict[str, FloatArray]:
        """Return objectives, what the followers' errors do, and how far the direction is from the truth."""
        rows = [run.evaluate(own) for run, own in zip(self._runs, direction, strict=True)]
        return {name: np.array([row[name] for row in rows]) for name in self.columns}

    def finish(self, thetas: FloatArray) -> None:
        """Nothing is left to do."""

    def arrays(self) -> dict[str, FloatArray]:
        """Return the critics and what followers carry on."""
        stored = {}
        for row, run in enumerate(self._runs):
            own = {"table": run.table, "value": run.value, **{f"follower.{k}": v for k, v in run.carried.items()}}
            stored.update({f"{row}.{name}": array for name, array in own.items()})
        return stored

    def restore(self, arrays: Mapping[str, FloatArray]) -> None:
        """Continue from what `arrays` returned."""
        for row, run in enumerate(self._runs):
            prefix = f"{row}."
            own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
            run.table, run.value = own.pop("table"), own.pop("value")
            run.carried = {name.removeprefix("follower."): array for name, array in own.items()}


class _OneRun:
    """One run: its follower, samples and critic."""

    def __init__(self, training: Training, run: Run, theta: FloatArray, rng: Generator) -> None:
        self.training, self.problem, self.run, self.rng = training, training.problem, run, rng
        self.method = get_method(run.method)
        tables = self.problem.tables_at(theta.reshape(training.theta_shape))
        shape = (tables.states, tables.actions)
        self.table = rng.standard_normal(shape) if self.method.critic == "sarsa" else np.zeros(shape)
        self.carried: Carried = {}
        self.value = np.zeros(shape[0])  # of the last best response, which the next one starts from

    def prepare(self, theta: FloatArray) -> None:
        training = self.training
        self.theta, self.best, self.trajectories = theta, self._best_response(theta), None
        self.played = self._response(theta)
        if self.method.estimator is None:
            return
        self.trajectories = training.simulator.sample(
            self.problem, theta, self.played.policy, streams=training.streams, steps=training.steps, rng=[self.rng]
        )
        if self.method.critic == "sarsa":
            self.table = sarsa_pass(
                self.table,
                self.trajectories,
                self.played.policy,
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
        if isinstance(rule, ExactFollower):
            return self.best
        dynamics = SharedDynamics(self.problem, theta, shared=False)
        found, self.carried = rule.respond(dynamics, dynamics.rewards(theta[None]), self.carried, [self.rng])
        return replace(self.best, value=found.value[0], action_value=found.action_value[0], policy=found.policy[0])

    def direction(self) -> FloatArray:
        if self.method.estimator is None:
            return np.ravel(self._truth())
        assert self.trajectories is not None
        context = replace(self._context(self.played), simulator=self.training.simulator)
        if self.method.critic == "sarsa":
            context = replace(context, critic=TableCritic(action_values=self.table, policy=self.played.policy))
        return np.ravel(self.method.estimator.estimate(self.trajectories, context).mean)

    def evaluate(self, direction: FloatArray) -> dict[str, float]:
        truth = np.ravel(self._truth())
        objective = leader_objective(self.problem, self.theta)
        found = {
            "objective": objective,
            "played_objective": objective,
            "follower_error": 0.0,
            "hypergradient_error": 0.0,
        }
        if self.played is not self.best:
            found["played_objective"] = self._played_objective()
            found["follower_error"] = float(np.abs(self._played_value() - self.best.value).max())
            found["hypergradient_error"] = float(
                np.linalg.norm(self._expected(self.played) - self._expected(self.best))
            )
        errors = gradient_errors(direction[None], truth[None])
        return {**found, **{name: float(each[0]) for name, each in errors.items()}}

    def _truth(self) -> FloatArray:
        return hypergradient(self.problem, self.theta, warm_start=self.best, bound=False).value

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
