"""The world of leaders in a Markov game: followers, episodes, critics and directions of all runs.

Directions are those of the registered estimators on weighed steps, in the logits, times 1/(1 - γ_L) and then pulled
back to θ. All runs of a method are read as one game, see `union_of`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.critics.joint_networks import JointNetworks, JointTables, NextValue
from bilevelrl.estimators.critics.joint_tables import GameCritic
from bilevelrl.estimators.estimator import Context
from bilevelrl.estimators.followers.joint import GameResponses
from bilevelrl.estimators.methods.total_derivative import TotalDerivative
from bilevelrl.estimators.sampling.replay_memory import Draws, EpisodeMemory
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.training.checkpoints import group, join_groups
from bilevelrl.estimators.training.declarations.actors import logit_cotangents, softmax_rows
from bilevelrl.estimators.training.declarations.game import GameTraining
from bilevelrl.estimators.training.direction_errors import gradient_errors
from bilevelrl.estimators.training.methods import Method
from bilevelrl.estimators.training.runs import World, make_world
from bilevelrl.estimators.training.worlds.logits import (
    PlayedResponse,
    all_logits,
    episode_returns,
    free_logits,
    union_of,
)
from bilevelrl.estimators.training.worlds.samples import drawn_trajectories, frequencies, sample_codes, trajectories_of
from bilevelrl.estimators.training.worlds.shared import SharedWorld, partial_gradient
from bilevelrl.reference import MarkovGame, hypergradient, named_stream
from bilevelrl.reference.arrays import FloatArray, IntArray

__all__ = ["GameWorld"]

_MOST_ENTRIES = 2**22  # of a union's transitions


class GameWorld(SharedWorld):
    """Followers, episodes, critics and directions; see `World`."""

    facts = (
        "objective",
        "discounted_return",
        "undiscounted_return",
        "probability",
        "logit_direction",
        "logit_truth",
        "expected_logit_direction",
        "expected_cosine",
    )

    def __init__(self, training: GameTraining, generators: Sequence[Generator]) -> None:
        super().__init__(training, generators)
        self.training, self.options = training, training.options
        self.game, self.logit_game, self.actor = training.problem, training.logit_game, training.actor
        self.made = {name: method.make(self.options) for name, method in self.by_name.items() if method.make}
        runs = len(self.methods)
        sampled = np.array([method.make is not None for method in self.methods])
        replay = np.array([method.replay for method in self.methods])
        self.sampled = np.flatnonzero(sampled)
        self.stackelberg = np.array([method.critic == "stackelberg" for method in self.methods])
        self.follower_tables = np.zeros((runs, *self.game.reward_leader.shape))
        self.scale = 1.0 / (1.0 - self.game.discount_leader)
        # By whether methods draw from all past episodes: rows, episodes, and what was drawn for each ascent step.
        self.sources = {False: np.flatnonzero(sampled & ~replay), True: np.flatnonzero(sampled & replay)}
        self.memories = {False: EpisodeMemory(), True: EpisodeMemory(capacity=training.iterations * training.streams)}
        self.draws: dict[bool, list[Draws]] = {}
        self.unions: dict[int, MarkovGame] = {}
        self.episodes: dict[tuple[str, int], Trajectories] = {}  # of this outer iteration, by method and first row
        self._start_critics()

    def _start_critics(self) -> None:
        """Weights by seed, the same for all methods."""
        self.critic: JointNetworks | JointTables | None = None
        if self.options.critic == "exact" or not self.sampled.size:
            return
        rates = np.array([run.critic_step_size for run in self.training.runs])
        if self.options.critic == "tabular":
            weights = np.zeros((len(self.methods), self.game.reward_leader.size))
            self.critic = JointTables(self.game, weights, rates)
        else:
            network = JointNetworks.architecture(self.game)
            weights = np.stack(
                [
                    network.initialise(named_stream(self.training.entropy, "training", "critic", int(run.seed)))
                    for run in self.training.runs
                ]
            )
            self.critic = JointNetworks(self.game, weights, rates)
        self.lagged_leader = self.training.start()

    def arrays(self) -> dict[str, FloatArray]:
        """Return followers' tables, critics, lagged copies and the memory."""
        stored = {"follower_tables": self.follower_tables, **join_groups({"memory": self.memories[True].arrays()})}
        if self.critic is not None:
            stored.update(join_groups({"critic": self.critic.arrays()}))
            stored.update(lagged_leader=self.lagged_leader)
        return stored

    def restore(self, arrays: Mapping[str, FloatArray]) -> None:
        """Continue from what `arrays` returned."""
        self.follower_tables = arrays["follower_tables"]
        self.memories[True].restore(group(arrays, "memory"))
        if self.critic is not None:
            self.critic.restore(group(arrays, "critic"))
            self.lagged_leader = arrays["lagged_leader"]

    def prepare(self, thetas: FloatArray, iteration: int) -> None:
        """Let followers respond, runs sample, critics learn, and count what the minibatches hold."""
        game, options = self.game, self.options
        logits, _ = self.actor.logits(thetas)
        self.policies = softmax_rows(logits)
        self.solved = options.follower.respond(game, self.policies, self.follower_tables, self.generators)
        self.follower_tables = self.solved.table
        self.played, acting = self.solved, self.policies
        if iteration < options.exploring_iterations:
            # Nothing is valued yet; the soft value of a table of zeros would be β log A.
            nothing = np.zeros_like(self.follower_tables)
            playable = np.ones(game.reward_leader.shape) if game.action_mask is None else game.action_mask
            uniform = np.broadcast_to(playable / playable.sum(axis=2, keepdims=True), nothing.shape)
            self.played = GameResponses(table=nothing, value=nothing[..., 0], policy=uniform)
            acting = np.full_like(self.policies, 1.0 / game.leader_actions)
        self._truths: list[Any] | None = None
        if not self.sampled.size:
            return
        self._sample(acting)
        self._draw()
        self._learn(thetas)

    def _sample(self, acting: FloatArray) -> None:
        training, rows = self.training, self.sampled
        uniforms = np.stack([self.generators[int(row)].random((training.streams, training.steps + 1)) for row in rows])
        self.codes = np.zeros((len(self.methods), training.streams, training.steps), dtype=np.int64)
        self.codes[rows] = sample_codes(self.game, acting[rows], self.played.policy[rows], uniforms)
        kind = np.min_scalar_type(self.game.transition.size)
        for replay, own in self.sources.items():
            if own.size:
                self.memories[replay].add(codes=self.codes[own].astype(kind if replay else np.int64))

    def _draw(self) -> None:
        """Draw all minibatches of this outer iteration, of fresh episodes and of remembered ones."""
        self.episodes.clear()
        options, steps, size = self.options, self.training.steps, self.game.transition.size
        self.critic_counts = np.zeros((len(self.methods), options.critic_steps, size))
        for replay, rows in self.sources.items():
            if not rows.size:
                continue
            codes = self.memories[replay]["codes"]
            episodes, actors = codes.shape[1], self.training.ascent_steps
            discount = self.game.discount_leader
            if options.minibatch is None:
                seen = [Draws.every(1.0, rows.size, episodes, steps)] * options.critic_steps
                self.draws[replay] = [Draws.every(discount, rows.size, episodes, steps)] * actors
            else:
                rng = [self.generators[int(row)] for row in rows]
                shape = (options.critic_steps + actors, options.minibatch)
                uniforms = np.stack([stream.random(shape) for stream in rng])
                parts = (uniforms[:, : options.critic_steps], uniforms[:, options.critic_steps :])
                laws = (np.ones(steps), discount ** np.arange(steps))
                seen, self.draws[replay] = (
                    Draws.of(np.cumsum(law), episodes, part, once=rng if replay else None).minibatches()
                    for law, part in zip(laws, parts, strict=True)
                )
            for step, draws in enumerate(seen):
                self.critic_counts[rows, step] = frequencies(draws.taken(codes), draws.weight, size)

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
        value = ahead(self.critic.tables(lagged=True))
        shape, discount = game.transition.shape, game.discount_leader
        for step in range(options.critic_steps):
            counts = self.critic_counts[:, step].reshape(-1, *shape)
            seen = counts.sum(axis=4)
            self.critic.learn(
                seen, seen * game.reward_leader + discount * np.vecdot(counts, value[:, None, None, None])
            )
            if options.target_update == "critic_step":
                self.critic.follow(options.target_rate)
                value = ahead(self.critic.tables(lagged=True))
        self.tables = self.critic.tables()

    def direction(self, thetas: FloatArray, step: int) -> FloatArray:
        """Return what each run's method makes of its batch, (R, N)."""
        logits, tape = self.actor.logits(thetas)
        self._cotangents = self.by_method(logits, step)
        return self.actor.pull(tape, self._cotangents)

    def exact(self, method: Method, rows: IntArray, points: FloatArray, step: int) -> FloatArray:
        """Return exact gradients in the logits."""
        found = []
        for row, logits in zip(rows, points, strict=True):
            truth = self._truth(int(row), logits) if step == 0 else self._solve_truth(logits)
            found.append(all_logits(partial_gradient(truth, guiding=method.guiding), self.game.states))
        return np.stack(found)

    def estimates(self, method: Method, rows: IntArray, points: FloatArray, step: int) -> FloatArray:
        """Return what a method estimates from the drawn steps of its runs, in the logits."""
        if isinstance(self.made[method.name], TotalDerivative):
            pairs = zip(rows, points, strict=True)
            return np.stack([self._batch_cotangent(int(row), logits) for row, logits in pairs])
        policies, found = softmax_rows(points), []
        states, leader_actions, actions = self.game.reward_leader.shape
        together = max(1, int((_MOST_ENTRIES / (states * leader_actions * actions * states)) ** 0.5))
        for first in range(0, rows.size, together):
            chunk = slice(first, first + together)
            part, own = rows[chunk], policies[chunk]
            visits = self._visits(method, part, step)
            if method.greedy:
                found.append(self._imitation(part, visits, own))
                continue
            items = self.made[method.name].contributions(visits, self._context(part, own, points[chunk]))
            weights = np.asarray(sum(item.weights["log_policy_leader"] for item in items))
            pair = visits.state_t * leader_actions + visits.leader_action_t
            gathered: Any = np.bincount(pair.ravel(), weights=weights.ravel(), minlength=own.size)
            found.append(logit_cotangents(gathered.reshape(own.shape), own))
        return self.scale * np.concatenate(found)

    def _visits(self, method: Method, rows: IntArray, step: int) -> Trajectories:
        """What some runs of a method drew for an ascent step."""
        place = np.searchsorted(self.sources[method.replay], rows)
        codes = self.memories[method.replay]["codes"]
        draws = self.draws[method.replay][step].of_runs(place)
        if not method.guiding or self.options.influence_steps is not None:
            # A score with its advantage is one step; the guiding term reads what follows it.
            length = self.options.influence_steps if method.guiding else 1
            return drawn_trajectories(self.game, codes[place], draws, length=length)
        key = (method.name, int(rows[0]))
        if key not in self.episodes:  # the same for all ascent steps, but for their weights
            self.episodes[key] = drawn_trajectories(self.game, codes[place], draws)
        weight = draws.summed(draws.weight, *codes.shape[1:]).reshape(-1, codes.shape[2])
        return replace(self.episodes[key], weight_t=weight)

    def _imitation(self, rows: IntArray, visits: Trajectories, policies: FloatArray) -> FloatArray:
        """Towards the Boltzmann policy of the leader's own stage game, in the states that were drawn."""
        tables, shape = self.tables[rows], (rows.size, self.game.states, 1)
        likely = self.played.policy[rows].argmax(axis=3)[..., None]
        answered = np.take_along_axis(tables, likely, axis=3)[..., 0]
        assert visits.weight_t is not None  # drawn steps have weights
        state, weight = visits.state_t.ravel(), visits.weight_t.ravel()
        visited: Any = np.bincount(state, weights=weight, minlength=rows.size * self.game.states)
        imitated: FloatArray = visited.reshape(shape) * (softmax_rows(answered / self.game.temperature) - policies)
        return imitated

    def _context(self, rows: IntArray, policies: FloatArray, logits: FloatArray) -> Context:
        """What estimators are told of some runs at their logits: the followers they watch, the critics' tables."""
        if rows.size not in self.unions:
            self.unions[rows.size] = union_of(self.game, rows.size)
        shape = self.game.reward_leader.shape
        played = PlayedResponse(
            value=self.played.value[rows].reshape(-1, shape[1]), policy=self.played.policy[rows].reshape(-1, *shape[1:])
        )
        critic = GameCritic(
            action_values=self.tables[rows].reshape(1, -1, *shape[1:]),
            policy=policies.reshape(-1, shape[1]),
            response=played.policy,
            sees_leader_action=True,
        )
        theta = free_logits(logits.reshape(-1, shape[1]))
        return Context(problem=self.unions[rows.size], theta=theta, follower=played, critic=critic)

    def _one(self, row: int, logits: FloatArray) -> Context:
        return self._context(np.array([row]), softmax_rows(logits[None]), logits)

    def _expected_cotangent(self, row: int, logits: FloatArray) -> FloatArray:
        """What the direction would be on average over fresh data that never end, given the critic and the follower.

        Where a method has no such closed form, the direction itself.
        """
        method = self.methods[row]
        cut = method.guiding and self.options.influence_steps is not None
        made = self.made.get(method.name)
        if made is None or isinstance(made, TotalDerivative) or method.greedy or cut:
            own: FloatArray = self._cotangents[row]
            return own
        estimator = replace(made, stopping="sum")
        parts = estimator.expectation(self._one(row, logits), horizon=1)
        return all_logits(np.sum(list(parts.values()), axis=0), self.game.states)

    def _batch_cotangent(self, row: int, logits: FloatArray) -> FloatArray:
        """The estimate of the registered estimator on the run's whole batch, in the logits."""
        context = self._one(row, logits)
        batch = trajectories_of(self.game, self.codes[row], self.played.policy[row])
        estimate = self.made[self.methods[row].name].estimate(batch, context)
        # Sums over the steps that were seen; as for minibatches, the cut after `steps` is made up for.
        powers = self.game.discount_leader ** np.arange(self.training.steps)
        return all_logits(estimate.mean * self.scale / powers.sum(), self.game.states)

    def _truth(self, row: int, logits: FloatArray) -> Any:
        """The exact hypergradient in the logits at the outer iteration's θ, once."""
        if self._truths is None:
            self._truths = [None] * len(self.methods)
        if self._truths[row] is None:
            self._truths[row] = self._solve_truth(logits)
        return self._truths[row]

    def _solve_truth(self, logits: FloatArray) -> Any:
        return hypergradient(self.logit_game, free_logits(logits), bound=False)

    def known(self, thetas: FloatArray) -> tuple[Mapping[str, Any], FloatArray]:
        """Return exact returns at θ, and truths.

        `objective` is the infinite-horizon return under the best response; the other two returns are over `steps`
        steps, against the followers that the options ask for. What is "expected" averages over fresh on-policy data
        that never end, given critic and follower: what is left of its distance from the truth is their bias and the
        formula's. It is not what a memory of old data, or one batch, averages to.
        """
        logits, tape = self.actor.logits(thetas)
        truths = [self._truth(row, own) for row, own in enumerate(logits)]
        exact = np.stack([all_logits(truth.value, self.game.states) for truth in truths])
        expected = np.stack([self._expected_cotangent(row, own) for row, own in enumerate(logits)])
        truth_in_theta = self.actor.pull(tape, exact)
        state, leader_action = self.training.probe
        discounted, undiscounted = episode_returns(self.game, self.policies, self.solved.policy, self.training.steps)
        facts = {
            "objective": np.array([truth.objective for truth in truths]),
            "discounted_return": discounted,
            "undiscounted_return": undiscounted,
            "probability": self.policies[:, state, leader_action],
            "logit_direction": self._cotangents[:, state, leader_action],
            "logit_truth": exact[:, state, leader_action],
            "expected_logit_direction": expected[:, state, leader_action],
            "expected_cosine": gradient_errors(self.actor.pull(tape, expected), truth_in_theta)["cosine"],
        }
        return facts, truth_in_theta

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
            self.critic.follow(rate)


@make_world.register
def _(training: GameTraining, generators: Sequence[Generator]) -> World:
    return GameWorld(training, generators)
