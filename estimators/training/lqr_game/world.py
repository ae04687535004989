"""What runs of linear-quadratic games act in: followers, samples, stored episodes and critics of all runs.

Score-function methods keep stored episodes and critics; pathwise ones only the batch; exact ones nothing at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.methods.pathwise_game import PathwiseGame
from bilevelrl.estimators.methods.score_game import score_directions
from bilevelrl.estimators.sampling.gaussian_game import LQRGameBatch, StackedFollowers, sample_games
from bilevelrl.estimators.sampling.memory import Draws, truncated_discount
from bilevelrl.estimators.training.gradient_errors import GRADIENT_COLUMNS, gradient_errors
from bilevelrl.estimators.training.lqr_game.critic import ExactGameCritics, NetworkCritics
from bilevelrl.estimators.training.lqr_game.methods import METHODS
from bilevelrl.estimators.training.lqr_game.training import LQRGameTraining
from bilevelrl.estimators.training.runs import World, make_world
from bilevelrl.reference import Hypergradient, hypergradient, leader_objective
from bilevelrl.reference.arrays import FloatArray, IntArray

__all__ = ["LQRGameWorld"]


class LQRGameWorld:
    """Followers, samples and critics of all runs."""

    def __init__(self, training: LQRGameTraining, generators: Sequence[Generator]) -> None:
        self.training = training
        names = [run.method for run in training.runs]
        self.rows = {name: np.flatnonzero([other == name for other in names]) for name in dict.fromkeys(names)}
        self.generators = {name: [generators[int(row)] for row in rows] for name, rows in self.rows.items()}
        thetas = training.start()
        gains = tuple(f"theta_{place}" for place in range(thetas.shape[1]))
        self.columns = ("objective", "objective_undiscounted", "dead_units", *gains, *GRADIENT_COLUMNS)
        self.learners = {
            name: _Learner(training, name, thetas[rows], self.generators[name])
            for name, rows in self.rows.items()
            if METHODS[name].kind == "score"
        }
        self.scale = np.ones(len(names))
        for name in self.learners:
            self.scale[self.rows[name]] = truncated_discount(training.problem.discount_leader, training.steps)
        self.followers: dict[str, StackedFollowers] = {}
        self.batches: dict[str, LQRGameBatch] = {}

    def prepare(self, thetas: FloatArray, iteration: int) -> None:
        """Let the followers respond, runs sample, and critics learn."""
        training = self.training
        for name, rows in self.rows.items():
            if METHODS[name].kind == "exact":
                continue
            self.followers[name] = StackedFollowers.solve(training.problem, thetas[rows])
            self.batches[name] = sample_games(
                training.problem,
                self.followers[name],
                streams=training.streams,
                steps=training.steps,
                rng=self.generators[name],
                exploring=iteration < training.setup.exploring_iterations,
            )
            if name in self.learners:
                self.learners[name].learn(thetas[rows], self.followers[name], self.batches[name])

    def direction(self, thetas: FloatArray, step: int) -> FloatArray:
        """Return each run's direction; score-function ones are of the mean over draws, see `score_directions`."""
        direction = np.empty_like(thetas)
        for name, rows in self.rows.items():
            method = METHODS[name]
            if method.kind == "score":
                direction[rows] = self.learners[name].direction(thetas[rows], self.followers[name])
            elif method.kind == "pathwise":
                response: Literal["lstd", "none"] = "lstd" if method.guiding else "none"
                estimator = PathwiseGame(average_reward=method.average_reward, response=response)
                parts = estimator.parts(self.training.problem, self.followers[name], self.batches[name])
                direction[rows] = parts["policy"] + parts["response"]
            else:
                for row in rows:
                    truth = self._truth(thetas[row])
                    direction[row] = truth.value if method.guiding else truth.value - truth.parts["response"]
        return direction

    def evaluate(self, thetas: FloatArray, direction: FloatArray) -> dict[str, FloatArray]:
        """Return exact objectives over the episode, the share of dead units, and how far the direction is off."""
        problem, steps = self.training.problem, self.training.steps
        truths = [self._truth(theta) for theta in thetas]
        undiscounted = [leader_objective(problem, theta, horizon=steps, discounted=False) for theta in thetas]
        dead = np.zeros(len(thetas))
        for name, learner in self.learners.items():
            dead[self.rows[name]] = learner.dead_share()
        return {
            "objective": np.array([truth.objective for truth in truths]),
            "objective_undiscounted": np.array(undiscounted),
            "dead_units": dead,
            **{f"theta_{place}": column for place, column in enumerate(thetas.T)},
            **gradient_errors(self.scale[:, None] * direction, np.stack([truth.value for truth in truths])),
        }

    def finish(self, thetas: FloatArray) -> None:
        """Let target networks follow."""
        for name, learner in self.learners.items():
            learner.finish(thetas[self.rows[name]])

    def arrays(self) -> dict[str, FloatArray]:
        """Return stored episodes and critics."""
        return {
            f"{name}.{key}": array for name, learner in self.learners.items() for key, array in learner.arrays().items()
        }

    def restore(self, arrays: Mapping[str, FloatArray]) -> None:
        """Continue from what `arrays` returned."""
        for name, learner in self.learners.items():
            prefix = f"{name}."
            learner.restore(
                {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
            )

    def _truth(self, theta: FloatArray) -> Hypergradient:
        return hypergradient(self.training.problem, theta, route="implicit", horizon=self.training.steps, bound=False)


class _Learner:
    """Stored episodes and critics of the runs of one score-function method."""

    def __init__(self, training: LQRGameTraining, name: str, thetas: FloatArray, rng: list[Generator]) -> None:
        self.training, self.method, self.rng = training, METHODS[name], rng
        options, game = training.setup.critic, training.problem
        self.networks: NetworkCritics | None = None
        if options.kind == "network":
            self.networks = NetworkCritics.start(
                game,
                self._gains(thetas),
                rate=options.rate,
                target_share=options.target_share,
                modes=options.modes,
                rng=rng,
            )
        self.exact: ExactGameCritics
        self.capacity = training.streams * (training.iterations if self.method.replay else 1)
        runs, (n, m), p = len(rng), game.dynamics_action.shape, game.dynamics_leader.shape[1]
        shape = (runs, self.capacity, training.steps)
        self.states = np.zeros((runs, self.capacity, training.steps + 1, n))
        self.leaders, self.actions = np.zeros((*shape, p)), np.zeros((*shape, m))
        self.stored = 0

    def learn(self, thetas: FloatArray, followers: StackedFollowers, batch: LQRGameBatch) -> None:
        """Store the batch and train the critics."""
        first = self.stored % self.capacity
        last = first + self.training.streams
        self.states[:, first:last], self.leaders[:, first:last] = batch.state_t, batch.leader_action_t
        self.actions[:, first:last] = batch.action_t
        self.stored = min(self.stored + self.training.streams, self.capacity) if self.method.replay else last
        options = self.training.setup.critic
        if self.networks is None:
            self.exact = ExactGameCritics.solve(self.training.problem, thetas, followers, steps=self.training.steps)
            return
        uniforms = np.stack([one.random((options.steps, options.minibatch, 2)) for one in self.rng])
        data = self._episodes if options.data_deviation is None else self._wider(followers, options.data_deviation)
        episode = self._floor(uniforms[..., 0], data.action_t.shape[1])
        time = self._floor(uniforms[..., 1], self.training.steps)
        for step in range(options.steps):
            self.networks.learn(followers, data, episode[:, step], time[:, step], self.rng)

    def _wider(self, followers: StackedFollowers, deviation: float) -> LQRGameBatch:
        """Draw episodes in which the leader's actions spread by `deviation`; what a step is worth does not change."""
        training = self.training
        game = replace(training.problem, leader_covariance=deviation**2 * np.eye(self.leaders.shape[-1]))
        return sample_games(game, followers, streams=training.streams, steps=training.steps, rng=self.rng)

    def direction(self, thetas: FloatArray, followers: StackedFollowers) -> FloatArray:
        """Estimate from stored episodes."""
        training = self.training
        discount, steps = training.problem.discount_leader, training.steps
        size = training.setup.minibatch
        if size is None:
            draws = Draws.every(discount, len(thetas), self.stored, steps)
        else:
            uniforms = np.stack([one.random((size, 2)) for one in self.rng])
            draws = Draws.discounted(discount, self.stored, steps, uniforms)
        return score_directions(
            training.problem,
            self._gains(thetas),
            followers,
            self._episodes,
            draws,
            self.exact if self.networks is None else self.networks,
            form=training.setup.form,
            guiding=self.method.guiding,
            rng=self.rng,
        )

    def finish(self, thetas: FloatArray) -> None:
        """Let targets follow; without replay the episodes are forgotten."""
        if self.networks is not None:
            self.networks.follow(self._gains(thetas))
        if not self.method.replay:
            self.stored = 0

    def dead_share(self) -> FloatArray:
        """Return the share of dead units of each run's network, 0 without one."""
        return np.zeros(len(self.rng)) if self.networks is None else self.networks.dead_share()

    def arrays(self) -> dict[str, FloatArray]:
        """Return what the next outer iteration depends on."""
        stored: dict[str, FloatArray] = {} if self.networks is None else dict(self.networks.arrays())
        if self.method.replay:
            stored.update(states=self.states, leaders=self.leaders, actions=self.actions)
            stored["stored"] = np.array(float(self.stored))
        return stored

    def restore(self, arrays: Mapping[str, FloatArray]) -> None:
        """Continue from what `arrays` returned."""
        if self.networks is not None:
            self.networks.restore(arrays)
        if self.method.replay:
            self.states, self.leaders, self.actions = arrays["states"], arrays["leaders"], arrays["actions"]
            self.stored = int(arrays["stored"])

    @property
    def _episodes(self) -> LQRGameBatch:
        kept = slice(0, self.stored)
        return LQRGameBatch(
            state_t=self.states[:, kept], leader_action_t=self.leaders[:, kept], action_t=self.actions[:, kept]
        )

    def _gains(self, thetas: FloatArray) -> FloatArray:
        return thetas.reshape(len(thetas), *self.training.problem.dynamics_leader.shape[::-1])

    @staticmethod
    def _floor(uniforms: FloatArray, count: int) -> IntArray:
        return np.minimum((uniforms * count).astype(np.int64), count - 1)


@make_world.register
def _(training: LQRGameTraining, generators: Sequence[Generator]) -> World:
    return LQRGameWorld(training, generators)
