"""The world of leaders in a Markov game: followers, episodes, critics and directions of all runs.

Scores are weighed per state and leader action: whatever a minibatch says about the leader is a table w(s,l), and the
direction is `Σ w ∇log f / (1 - γ_L)`. With n(s,l,a) the minibatch's frequencies and C_i(s,l) the discounted visits from
its i-th transition to the end of the episode,

    w(s,l) = Σ_a n (Q_L - b) + (1/β) mean_i[B_i C_i(s,l)] (V_F(s,l) - Σ_l f V_F).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.critics.joint_tables import GameCritic
from bilevelrl.estimators.estimator import Context
from bilevelrl.estimators.methods.bchg_game import BCHGGame
from bilevelrl.estimators.methods.policy_gradient import PolicyGradient
from bilevelrl.estimators.methods.total_derivative import TotalDerivative
from bilevelrl.estimators.training.followers.joint import GameResponses
from bilevelrl.estimators.training.game.actors import logit_cotangents, softmax_rows
from bilevelrl.estimators.training.game.critics import NetworkCritic, NextValue, TableCritics, advantages
from bilevelrl.estimators.training.game.methods import GAME_METHODS
from bilevelrl.estimators.training.game.minibatches import (
    Minibatches,
    draw_minibatches,
    guided_visits,
    whole_batch,
)
from bilevelrl.estimators.training.game.samples import EpisodeMemory, sample_codes, trajectories_of
from bilevelrl.estimators.training.game.training import GameTraining
from bilevelrl.estimators.training.game.truth import PlayedResponse, all_logits, episode_returns, free_logits
from bilevelrl.estimators.training.gradient_errors import GRADIENT_COLUMNS, gradient_errors
from bilevelrl.estimators.training.runs import World, make_world
from bilevelrl.reference import hypergradient, named_stream
from bilevelrl.reference.arrays import FloatArray

__all__ = ["GameWorld"]


class GameWorld:
    """Followers, episodes, critics and directions; see `World`."""

    columns = (
        "objective",
        "discounted_return",
        "undiscounted_return",
        "probability",
        "logit_direction",
        "logit_truth",
        "expected_logit_direction",
        "expected_cosine",
        *GRADIENT_COLUMNS,
    )

    def __init__(self, training: GameTraining, generators: Sequence[Generator]) -> None:
        self.training, self.options, self.generators = training, training.options, generators
        self.game, self.logit_game, self.actor = training.problem, training.logit_game, training.actor
        methods = [GAME_METHODS[run.method] for run in training.runs]
        self.methods = methods
        runs = len(methods)
        sampled = np.array([method.source in ("samples", "batch") for method in methods])
        replay = np.array([method.replay for method in methods])
        self.fresh_rows = np.flatnonzero(sampled & ~replay)
        self.replay_rows = np.flatnonzero(sampled & replay)
        self.batch_rows = np.flatnonzero([method.source == "batch" for method in methods])
        self.exact_rows = np.flatnonzero(~sampled)
        self.sampled = np.flatnonzero(sampled)
        self.guiding = np.array([method.guiding for method in methods])
        self.greedy = np.array([method.greedy for method in methods])
        self.stackelberg = np.array([method.stackelberg for method in methods])
        self.follower_tables = np.zeros((runs, *self.game.reward_leader.shape))
        powers = self.game.discount_leader ** np.arange(training.steps)
        self.time_weights = powers / powers.sum()
        self.scale = 1.0 / (1.0 - self.game.discount_leader)
        episodes = training.iterations * training.streams if self.replay_rows.size else 0
        kind = np.min_scalar_type(self.game.transition.size)
        self.memory = EpisodeMemory(codes=np.zeros((self.replay_rows.size, episodes, training.steps), dtype=kind))
        self.drawn: dict[bool, Minibatches] = {}  # by whether of fresh episodes
        self._start_critics()

    def _start_critics(self) -> None:
        """Weights by seed, the same for all methods."""
        self.critic: NetworkCritic | TableCritics | None = None
        if self.options.critic == "exact" or not self.sampled.size:
            return
        rates = np.array([run.critic_step_size for run in self.training.runs])
        if self.options.critic == "tabular":
            weights = np.zeros((len(self.methods), self.game.reward_leader.size))
            self.critic = TableCritics(self.game, weights, rates)
        else:
            network = NetworkCritic.architecture(self.game)
            weights = np.stack(
                [
                    network.initialise(named_stream(self.training.entropy, "training", "critic", int(run.seed)))
                    for run in self.training.runs
                ]
            )
            self.critic = NetworkCritic(self.game, weights, rates)
        self.lagged_critic = self.critic.weights
        self.lagged_leader = self.training.start()

    def arrays(self) -> dict[str, FloatArray]:
        """Return followers' tables, critics, lagged copies and the memory."""
        stored = {"follower_tables": self.follower_tables, "memory": self.memory.codes[:, : self.memory.filled]}
        if self.critic is not None:
            stored.update({f"critic.{name}": array for name, array in self.critic.arrays().items()})
            stored.update(lagged_critic=self.lagged_critic, lagged_leader=self.lagged_leader)
        return stored

    def restore(self, arrays: Mapping[str, FloatArray]) -> None:
        """Continue from what `arrays` returned."""
        self.follower_tables = arrays["follower_tables"]
        self.memory.filled = 0
        self.memory.add(arrays["memory"].astype(self.memory.codes.dtype))
        if self.critic is not None:
            prefix = "critic."
            self.critic.restore(
                {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
            )
            self.lagged_critic, self.lagged_leader = arrays["lagged_critic"], arrays["lagged_leader"]

    def prepare(self, thetas: FloatArray, iteration: int) -> None:
        """Let followers respond, runs sample, critics learn, and count what the minibatches hold."""
        game, options = self.game, self.options
        logits, _ = self.actor.logits(thetas)
        self.policies = softmax_rows(logits)
        self.solved = options.follower.respond(game, self.policies, self.follower_tables, self.generators)
        self.follower_tables = self.solved.table
        self.played, acting = self.solved, self.policies
        if options.unprepared_start and iteration == 0:
            # Nothing is valued yet; the soft value of a table of zeros would be β log A.
            nothing = np.zeros_like(self.follower_tables)
            uniform = np.full_like(nothing, 1.0 / game.actions)
            self.played = GameResponses(table=nothing, value=nothing[..., 0], policy=uniform)
            acting = np.full_like(self.policies, 1.0 / game.leader_actions)
        self._truths: list[Any] | None = None
        if not self.sampled.size:
            return
        self._sample(acting)
        self._draw()
        self._learn(thetas)
        self._weigh()

    def _sample(self, acting: FloatArray) -> None:
        training, rows = self.training, self.sampled
        uniforms = np.stack([self.generators[int(row)].random((training.streams, training.steps + 1)) for row in rows])
        self.codes = np.zeros((len(self.methods), training.streams, training.steps), dtype=np.int64)
        self.codes[rows] = sample_codes(self.game, acting[rows], self.played.policy[rows], uniforms)
        if self.replay_rows.size:
            self.memory.add(self.codes[self.replay_rows])

    def _draw(self) -> None:
        """Draw all minibatches of this outer iteration, of fresh episodes and of remembered ones."""
        options, training = self.options, self.training
        runs, size = len(self.methods), self.game.transition.size
        self.critic_counts = np.zeros((runs, options.critic_steps, size))
        self.actor_counts = np.zeros((runs, training.ascent_steps, size))
        kept = (self.codes[self.fresh_rows], self.memory.codes[:, : self.memory.filled])
        for rows, codes, fresh in zip((self.fresh_rows, self.replay_rows), kept, (True, False), strict=True):
            if not rows.size:
                continue
            if options.minibatch is None:
                drawn = whole_batch(codes, self.time_weights, size)
            else:
                drawn = draw_minibatches(
                    codes,
                    self.time_weights,
                    size,
                    critics=options.critic_steps,
                    actors=training.ascent_steps,
                    size=options.minibatch,
                    replace=fresh,
                    rng=[self.generators[int(row)] for row in rows],
                )
            self.critic_counts[rows], self.actor_counts[rows] = drawn.critic, drawn.actor
            self.drawn[fresh] = drawn

    def _learn(self, thetas: FloatArray) -> None:
        """Let critics learn, and read their tables Q_L."""
        options, game, rows = self.options, self.game, self.sampled
        if self.critic is None:
            self.tables = np.zeros_like(self.follower_tables)
            for row in rows:
                self.tables[row] = self._exact_critic(int(row), thetas).action_values[0]
            return
        policies = self.policies
        if options.target_leader == "lagged":
            policies = softmax_rows(self.actor.logits(self.lagged_leader)[0])
        ahead = NextValue(
            policies=policies, responses=self.played.policy, stackelberg=self.stackelberg, targets=options.targets
        )
        value = ahead(self.critic.tables(self.lagged_critic))
        shape, discount = game.transition.shape, game.discount_leader
        for step in range(options.critic_steps):
            counts = self.critic_counts[:, step].reshape(-1, *shape)
            seen = counts.sum(axis=4)
            self.critic.learn(
                seen, seen * game.reward_leader + discount * np.vecdot(counts, value[:, None, None, None])
            )
            if options.target_update == "critic_step":
                self.lagged_critic = self.lagged_critic + options.target_rate * (
                    self.critic.weights - self.lagged_critic
                )
                value = ahead(self.critic.tables(self.lagged_critic))
        self.tables = self.critic.tables(self.critic.weights)

    def _weigh(self) -> None:
        """Weigh each minibatch's visits to (s,l): visits n(s,l,a), and what the guiding term multiplies with V_F."""
        shape, runs = self.game.reward_leader.shape, len(self.methods)
        actors = self.training.ascent_steps
        self.visits = self.actor_counts.reshape(runs, actors, *shape, self.game.states).sum(axis=5)
        self.guided = np.zeros((runs, actors, *shape[:2]))
        if not self.guiding.any():
            return
        rows = self.fresh_rows
        benefits = self.tables[rows] - np.vecdot(self.played.policy[rows], self.tables[rows])[..., None]
        benefits[~self.guiding[rows]] = 0.0
        self.guided[rows] = guided_visits(
            self.game,
            self.codes[rows],
            benefits,
            self.drawn[True],
            same_step=self.options.same_step,
            longest=self.options.influence_steps,
        )

    def direction(self, thetas: FloatArray, step: int) -> FloatArray:
        """Return what each run's method estimates, (R, N)."""
        logits, self._tape = self.actor.logits(thetas)
        policies = softmax_rows(logits)
        cotangents = np.zeros_like(policies)
        if self.sampled.size:
            cotangents = self._sampled_cotangents(policies, step)
        for row in self.batch_rows:
            cotangents[row] = self._batch_cotangent(int(row), logits)
        for row in self.exact_rows:
            cotangents[row] = self._exact_cotangent(int(row), logits, step)
        self._cotangents = cotangents
        return self.actor.pull(self._tape, cotangents)

    def _sampled_cotangents(self, policies: FloatArray, step: int) -> FloatArray:
        options, response = self.options, self.played.policy
        ahead = advantages(self.tables, policies, response, options.baseline)
        weights = np.vecdot(self.visits[:, step], ahead)
        worth = self.played.value
        if options.influence_baseline:
            worth = worth - np.vecdot(policies, worth)[..., None]
        weights += self.guided[:, step] * worth / self.game.temperature
        cotangents = logit_cotangents(weights, policies)
        if self.greedy.any():
            likely = response.argmax(axis=3)[..., None]
            answered = np.take_along_axis(self.tables, likely, axis=3)[..., 0]
            visited = self.visits[:, step].sum(axis=(2, 3))[..., None]
            imitated = visited * (softmax_rows(answered / self.game.temperature) - policies)
            cotangents = np.where(self.greedy[:, None, None], imitated, cotangents)
        return self.scale * cotangents

    def _context(self, row: int, logits: FloatArray) -> Context:
        """What estimators are told about one run: θ in the logits, the follower that is watched, the critic's table."""
        theta = free_logits(logits[row])
        played = PlayedResponse(value=self.played.value[row], policy=self.played.policy[row])
        critic = GameCritic(
            action_values=self.tables[row][None],
            policy=self.logit_game.policy_at(theta),
            response=played.policy,
            sees_leader_action=True,
        )
        return Context(problem=self.logit_game, theta=theta, follower=played, critic=critic)

    def _expected_cotangent(self, row: int, logits: FloatArray) -> FloatArray:
        """What the direction would be on average over fresh data that never end, given the critic and the follower.

        Where a method has no such closed form, the direction itself.
        """
        method, options = self.methods[row], self.options
        cut = method.guiding and options.influence_steps is not None
        if method.source != "samples" or method.greedy or cut:
            own: FloatArray = self._cotangents[row]
            return own
        estimator: BCHGGame | PolicyGradient = PolicyGradient(
            critic="context", baseline=options.baseline, stopping="sum"
        )
        if method.guiding:
            estimator = BCHGGame(
                critic="context",
                baseline=options.baseline,
                stopping="sum",
                influence_baseline=options.influence_baseline,
                same_step=options.same_step,
            )
        parts = estimator.expectation(self._context(row, logits), horizon=1)
        return all_logits(np.sum(list(parts.values()), axis=0), self.game.states)

    def _batch_cotangent(self, row: int, logits: FloatArray) -> FloatArray:
        """The estimate of the registered estimator on the run's whole batch, in the logits."""
        context = self._context(row, logits)
        batch = trajectories_of(self.game, self.codes[row], self.played.policy[row])
        estimate = TotalDerivative(critic="context", baseline=self.options.baseline).estimate(batch, context)
        # Sums over the steps that were seen; as for minibatches, the cut after `steps` is made up for.
        powers = self.game.discount_leader ** np.arange(self.training.steps)
        return all_logits(estimate.mean * self.scale / powers.sum(), self.game.states)

    def _exact_cotangent(self, row: int, logits: FloatArray, step: int) -> FloatArray:
        truth = self._truth(row, logits) if step == 0 else self._solve_truth(row, logits)
        parts = truth.parts
        wanted = parts["policy"] if self.methods[row].source == "partial" else truth.value
        return all_logits(wanted, self.game.states)

    def _truth(self, row: int, logits: FloatArray) -> Any:
        """The exact hypergradient in the logits at the outer iteration's θ, once."""
        if self._truths is None:
            self._truths = [None] * len(self.methods)
        if self._truths[row] is None:
            self._truths[row] = self._solve_truth(row, logits)
        return self._truths[row]

    def _solve_truth(self, row: int, logits: FloatArray) -> Any:
        theta = free_logits(logits[row])
        return hypergradient(self.logit_game, theta, bound=False)

    def evaluate(self, thetas: FloatArray, direction: FloatArray) -> dict[str, FloatArray]:
        """Return exact returns at θ, and how far the direction is from the truth.

        `objective` is the infinite-horizon return under the best response; the other two returns are over `steps`
        steps, against the followers that the options ask for. What is "expected" averages over fresh on-policy data
        that never end, given critic and follower: what is left of its distance from the truth is their bias and the
        formula's. It is not what a memory of old data, or one batch, averages to.
        """
        logits, tape = self.actor.logits(thetas)
        truths = [self._truth(row, logits) for row in range(len(self.methods))]
        exact = np.stack([all_logits(truth.value, self.game.states) for truth in truths])
        expected = np.stack([self._expected_cotangent(row, logits) for row in range(len(self.methods))])
        truth_in_theta = self.actor.pull(tape, exact)
        state, leader_action = self.training.probe
        discounted, undiscounted = episode_returns(self.game, self.policies, self.solved.policy, self.training.steps)
        return {
            "objective": np.array([truth.objective for truth in truths]),
            "discounted_return": discounted,
            "undiscounted_return": undiscounted,
            "probability": self.policies[:, state, leader_action],
            "logit_direction": self._cotangents[:, state, leader_action],
            "logit_truth": exact[:, state, leader_action],
            "expected_logit_direction": expected[:, state, leader_action],
            "expected_cosine": gradient_errors(self.actor.pull(tape, expected), truth_in_theta)["cosine"],
            **gradient_errors(direction, truth_in_theta),
        }

    def _exact_critic(self, row: int, thetas: FloatArray) -> GameCritic:
        logits, _ = self.actor.logits(thetas[row : row + 1])
        played = PlayedResponse(value=self.played.value[row], policy=self.played.policy[row])
        return GameCritic.solve(
            self.logit_game,
            free_logits(logits[0]),
            played,
            operator="stackelberg" if self.stackelberg[row] else "expected",
        )

    def finish(self, thetas: FloatArray) -> None:
        """Move the lagged copies."""
        if self.critic is None:
            return
        rate = self.options.target_rate
        self.lagged_leader = self.lagged_leader + rate * (thetas - self.lagged_leader)
        if self.options.target_update == "iteration":
            self.lagged_critic = self.lagged_critic + rate * (self.critic.weights - self.lagged_critic)


@make_world.register
def _(training: GameTraining, generators: Sequence[Generator]) -> World:
    return GameWorld(training, generators)
