"""What runs of linear-quadratic games act in: followers, samples, stored episodes and critics of all runs.

Score-function methods keep stored episodes and critics; pathwise ones only the batch; exact ones nothing at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.critics.gaussian_networks import ExactGameCritics, GameNetworks
from bilevelrl.estimators.methods.pathwise_game import PathwiseGame
from bilevelrl.estimators.methods.score_game import ScoreForm, score_directions
from bilevelrl.estimators.sampling.gaussian_game import LQRGameBatch, StackedFollowers, sample_games
from bilevelrl.estimators.sampling.replay_memory import Draws, EpisodeMemory, truncated_discount
from bilevelrl.estimators.training.checkpoints import group, join_groups
from bilevelrl.estimators.training.declarations.gaussian_game import LQRGameTraining
from bilevelrl.estimators.training.methods import Method
from bilevelrl.estimators.training.runs import World, make_world
from bilevelrl.estimators.training.worlds.shared import SharedWorld, partial_gradient
from bilevelrl.reference import Hypergradient, hypergradient, leader_objective
from bilevelrl.reference.arrays import FloatArray, IntArray

__all__ = ["LQRGameWorld"]


class LQRGameWorld(SharedWorld):
    """Followers, samples and critics of all runs."""

    def __init__(self, training: LQRGameTraining, generators: Sequence[Generator]) -> None:
        super().__init__(training, generators)
        self.training, thetas = training, training.start()
        gains = tuple(f"theta_{place}" for place in range(thetas.shape[1]))
        self.facts = ("objective", "objective_undiscounted", "dead_units", *gains)
        self.made = {name: method.make(training.options) for name, method in self.by_name.items() if method.make}
        self.random = {name: [generators[int(row)] for row in rows] for name, rows in self.rows.items()}
        self.learners = {
            name: _Learner(training, self.by_name[name], made, thetas[self.rows[name]], self.random[name])
            for name, made in self.made.items()
            if not isinstance(made, PathwiseGame)
        }
        self.scale = np.ones(len(training.runs))
        for name in self.learners:
            self.scale[self.rows[name]] = truncated_discount(training.problem.discount_leader, training.steps)
        self.followers: dict[str, StackedFollowers] = {}
        self.batches: dict[str, LQRGameBatch] = {}

    def prepare(self, thetas: FloatArray, iteration: int) -> None:
        """Let the followers respond, runs sample, and critics learn."""
        training = self.training
        for name in self.made:
            rows = self.rows[name]
            self.followers[name] = StackedFollowers.solve(training.problem, thetas[rows])
            self.batches[name] = sample_games(
                training.problem,
                self.followers[name],
                streams=training.streams,
                steps=training.steps,
                rng=self.random[name],
                exploring=iteration < training.options.exploring_iterations,
            )
            if name in self.learners:
                self.learners[name].learn(thetas[rows], self.followers[name], self.batches[name])

    def estimates(self, method: Method, rows: IntArray, points: FloatArray, step: int) -> FloatArray:
        """Return estimates; score-function ones are of the mean over draws, see `score_directions`."""
        followers, made = self.followers[method.name], self.made[method.name]
        if not isinstance(made, PathwiseGame):
            return self.learners[method.name].direction(points, followers)
        parts = made.parts(self.training.problem, followers, self.batches[method.name])
        return parts["policy"] + parts["response"]

    def exact(self, method: Method, rows: IntArray, points: FloatArray, step: int) -> FloatArray:
        """Return exact gradients over the episode."""
        return np.stack([partial_gradient(self._truth(theta), guiding=method.guiding) for theta in points])

    def known(self, thetas: FloatArray) -> tuple[Mapping[str, Any], FloatArray]:
        """Return exact objectives over the episode, the share of dead units, and θ; truths as methods scale them."""
        problem, steps = self.training.problem, self.training.steps
        truths = [self._truth(theta) for theta in thetas]
        undiscounted = [leader_objective(problem, theta, horizon=steps, discounted=False) for theta in thetas]
        dead = np.zeros(len(thetas))
        for name, learner in self.learners.items():
            dead[self.rows[name]] = learner.dead_share()
        facts = (np.array([truth.objective for truth in truths]), np.array(undiscounted), dead, *thetas.T)
        return dict(zip(self.facts, facts, strict=True)), np.stack([truth.value for truth in truths])

    def evaluate(self, thetas: FloatArray, direction: FloatArray) -> dict[str, FloatArray]:
        """Return what is known exactly, and how far the direction over the whole episode is from the truth."""
        return super().evaluate(thetas, self.scale[:, None] * direction)

    def finish(self, thetas: FloatArray) -> None:
        """Let target networks follow."""
        for name, learner in self.learners.items():
            learner.finish(thetas[self.rows[name]])

    def arrays(self) -> dict[str, FloatArray]:
        """Return stored episodes and critics."""
        return join_groups({name: learner.arrays() for name, learner in self.learners.items()})

    def restore(self, arrays: Mapping[str, FloatArray]) -> None:
        """Continue from what `arrays` returned."""
        for name, learner in self.learners.items():
            learner.restore(group(arrays, name))

    def _truth(self, theta: FloatArray) -> Hypergradient:
        return hypergradient(self.training.problem, theta, route="implicit", horizon=self.training.steps, bound=False)


class _Learner:
    """Stored episodes and critics of the runs of one score-function method."""

    def __init__(
        self, training: LQRGameTraining, method: Method, form: ScoreForm, thetas: FloatArray, rng: list[Generator]
    ) -> None:
        self.training, self.method, self.form, self.rng = training, method, form, rng
        options, runs = training.options, [run for run in training.runs if run.method == method.name]
        self.networks: GameNetworks | None = None
        if options.critic == "network":
            rates = np.array([options.critic_rate or run.critic_step_size for run in runs])
            self.networks = GameNetworks(
                training.problem, self._gains(thetas), rates, modes=options.targets == "modes", rng=rng
            )
        self.exact: ExactGameCritics
        self.memory = EpisodeMemory(capacity=training.streams * training.iterations if method.replay else None)

    def learn(self, thetas: FloatArray, followers: StackedFollowers, batch: LQRGameBatch) -> None:
        """Store the batch and train the critics."""
        self.memory.add(state_t=batch.state_t, leader_action_t=batch.leader_action_t, action_t=batch.action_t)
        options, steps = self.training.options, self.training.steps
        if self.networks is None:
            self.exact = ExactGameCritics.solve(self.training.problem, thetas, followers, steps=steps)
            return
        size = options.critic_minibatch or options.minibatch
        uniforms = np.stack([one.random((options.critic_steps, size or 0, 2)) for one in self.rng])
        data = self._episodes if options.data_deviation is None else self._wider(followers, options.data_deviation)
        episodes = data.action_t.shape[1]
        if size is None:
            drawn = [Draws.every(1.0, len(thetas), episodes, steps)] * options.critic_steps
        else:
            law = np.arange(1.0, steps + 1.0)
            drawn = Draws.of(law, episodes, uniforms[..., 0], times=uniforms[..., 1]).minibatches()
        for draws in drawn:
            self.networks.learn(followers, data, draws.episode, draws.time)

    def _wider(self, followers: StackedFollowers, deviation: float) -> LQRGameBatch:
        """Draw episodes in which the leader's actions spread by `deviation`; what a step is worth does not change."""
        training = self.training
        game = replace(
            training.problem, leader_covariance=deviation**2 * np.eye(training.problem.dynamics_leader.shape[1])
        )
        return sample_games(game, followers, streams=training.streams, steps=training.steps, rng=self.rng)

    def direction(self, thetas: FloatArray, followers: StackedFollowers) -> FloatArray:
        """Estimate from stored episodes."""
        training = self.training
        discount, size = training.problem.discount_leader, training.options.minibatch
        if size is None:
            draws = Draws.every(discount, len(thetas), self.memory.filled, training.steps)
        else:
            uniforms = np.stack([one.random((size, 2)) for one in self.rng])
            draws = Draws.discounted(discount, self.memory.filled, training.steps, uniforms)
        return score_directions(
            training.problem,
            self._gains(thetas),
            followers,
            self._episodes,
            draws,
            self.exact if self.networks is None else self.networks,
            form=self.form,
            guiding=self.method.guiding,
            rng=self.rng,
        )

    def finish(self, thetas: FloatArray) -> None:
        """Let targets follow."""
        if self.networks is not None:
            self.networks.follow_leader(self.training.options.target_rate, self._gains(thetas))

    def dead_share(self) -> FloatArray:
        """Return the share of dead units of each run's network, 0 without one."""
        return np.zeros(len(self.rng)) if self.networks is None else self.networks.dead_share()

    def arrays(self) -> dict[str, FloatArray]:
        """Return what the next outer iteration depends on."""
        networks = {} if self.networks is None else self.networks.arrays()
        return join_groups({"networks": networks, "memory": self.memory.arrays()})

    def restore(self, arrays: Mapping[str, FloatArray]) -> None:
        """Continue from what `arrays` returned."""
        if self.networks is not None:
            self.networks.restore(group(arrays, "networks"))
        self.memory.restore(group(arrays, "memory"))

    @property
    def _episodes(self) -> LQRGameBatch:
        return LQRGameBatch(**{name: self.memory[name] for name in ("state_t", "leader_action_t", "action_t")})

    def _gains(self, thetas: FloatArray) -> FloatArray:
        return thetas.reshape(len(thetas), *self.training.problem.dynamics_leader.shape[::-1])


@make_world.register
def _(training: LQRGameTraining, generators: Sequence[Generator]) -> World:
    return LQRGameWorld(training, generators)
