"""Followers that learn: soft Q-learning from samples and in expectation, natural policy gradient with learnt values.

Runs do not mix: each samples from its own generator, and its numbers do not depend on the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.followers.solving import Carried, Rewards, SharedDynamics, soft_maximum
from bilevelrl.estimators.sampling.compiled import compiled, policy_values_loop
from bilevelrl.estimators.sampling.draws import Draws, kernel_draws
from bilevelrl.estimators.terms.batched import SeedBatch
from bilevelrl.reference.arrays import FloatArray, IntArray
from bilevelrl.reference.doors import Count, Share, checked

__all__ = ["ExpectedSoftQLearning", "NaturalPolicyGradient", "SoftQLearning", "exact_values"]


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class SoftQLearning:
    """A follower that learns from its own samples, `Q(s,a) ← Q(s,a) + α [r_F + γ_F β log Σ_b exp(Q(s',b)/β) - Q(s,a)]`.

    Pairs are visited uniformly at random, which needs no exploration; the moves are sampled.

    Parameters
    ----------
    steps
        Samples per outer iteration.
    step_size
        α in (0, 1].
    carry
        True: continue from the previous outer iteration's table. False: from zeros each time.

    Raises
    ------
    InvalidInputError
        If one is out of range.

    References
    ----------
    Haarnoja et al. (2017), arXiv:1702.08165, tabular.
    """

    steps: Count = 10_000
    step_size: Share = 0.1
    carry: bool = True

    def respond(
        self, dynamics: SharedDynamics, rewards: Rewards, carried: Carried, generators: Sequence[Generator]
    ) -> tuple[SeedBatch, Carried]:
        """Return what the followers play after learning."""
        dynamics.refuse_mask("SoftQLearning")
        beta, discount = dynamics.problem.temperature, dynamics.problem.discount_follower
        runs, states, actions = rewards.follower.shape
        pairs = states * actions
        table = carried["table"].copy() if self.carry and carried else np.zeros((runs, states, actions))
        # The state after the end, worth nothing.
        value = np.concatenate([soft_maximum(table, beta)[0], np.zeros((runs, 1))], axis=1)
        moves = kernel_draws(dynamics.kernel)
        flat, reward, run = table.reshape(runs, pairs), rewards.follower.reshape(runs, pairs), np.arange(runs)
        uniform = np.stack([rng.random((2, self.steps)) for rng in generators])
        visited = (uniform[:, 0] * pairs).astype(np.int64)
        for k in range(self.steps):
            pair = visited[:, k]
            target = reward[run, pair] + discount * value[run, moves.draw(pair, uniform[:, 1, k])]
            flat[run, pair] += self.step_size * (target - flat[run, pair])
            state = pair // actions
            value[run, state] = soft_maximum(table[run, state], beta)[0]
        learnt, policy = soft_maximum(table, beta)
        return dynamics.followers(rewards, learnt, table, policy), ({"table": table} if self.carry else {})


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedSoftQLearning:
    """Soft Q-learning without chance, `Q ← Q + α [r_F + γ_F P β log Σ_b exp(Q/β) - Q]` for all pairs at once.

    Parameters
    ----------
    updates
        Per outer iteration.
    step_size
        α in (0, 1]; 1: sweeps.
    carry
        True: continue from the previous outer iteration's table. False: from zeros each time.

    Raises
    ------
    InvalidInputError
        If one is out of range.

    Examples
    --------
    >>> from bilevelrl.tasks import four_rooms
    >>> dynamics = SharedDynamics(four_rooms(), np.zeros(105))
    >>> rule = ExpectedSoftQLearning(updates=1000)
    >>> played, _ = rule.respond(dynamics, dynamics.rewards(np.zeros((1, 105))), {}, [])
    >>> played.policy[0, 0].round(2)
    array([0.  , 0.97, 0.03, 0.  ])
    """

    updates: Count = 100
    step_size: Share = 0.1
    carry: bool = True

    def respond(
        self, dynamics: SharedDynamics, rewards: Rewards, carried: Carried, generators: Sequence[Generator]
    ) -> tuple[SeedBatch, Carried]:
        """Return what the followers play after the updates."""
        dynamics.refuse_mask("ExpectedSoftQLearning")
        table = carried["table"] if self.carry and carried else np.zeros(rewards.follower.shape)
        value, policy = soft_maximum(table, dynamics.problem.temperature)
        for _ in range(self.updates):
            _, backed_up, _ = dynamics.soft_backup(rewards.follower, value)
            table = (1.0 - self.step_size) * table + self.step_size * backed_up
            value, policy = soft_maximum(table, dynamics.problem.temperature)
        return dynamics.followers(rewards, value, table, policy), ({"table": table} if self.carry else {})


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class NaturalPolicyGradient:
    """Natural policy gradient with entropy, `π ← π^(1-η) exp(η Q^π/β)` up to normalisation, with Q^π from samples.

    Q^π is the soft value of the current policy, learnt by expected temporal differences from pairs that are visited
    uniformly at random and moves that are sampled. η = 1 is soft policy iteration. With exact values the error of
    log π falls at least as fast as a constant times (1 - η (1 - γ_F))^updates, often much faster.

    Parameters
    ----------
    updates
        Of the policy, per outer iteration.
    step_size
        η in (0, 1].
    samples
        Per update; None: exact values, as a follower with a model has them.
    critic_step_size
        Of the temporal differences, in (0, 1]; None: 1/(1 + (1 - γ_F) n) at the visit after the n-th of a pair in this
        outer iteration.
    carry
        True: continue from the previous outer iteration's policy and table. False: uniform and zeros each time.

    Raises
    ------
    InvalidInputError
        If one is out of range.

    References
    ----------
    Cen et al. (2022), arXiv:2007.06558, Algorithm 1 and Theorem 1, with η as their η τ/(1 - γ).

    Examples
    --------
    >>> from bilevelrl.tasks import random_mdp
    >>> from bilevelrl.estimators.followers import ExactFollower, SharedDynamics
    >>> problem = random_mdp(states=4, actions=2, parameters=3, seed=0)
    >>> dynamics = SharedDynamics(problem, np.zeros(3), shared=False)
    >>> rewards = dynamics.rewards(np.zeros((1, 3)))
    >>> rule = NaturalPolicyGradient(updates=30, step_size=1.0, samples=None)
    >>> played, _ = rule.respond(dynamics, rewards, {}, [np.random.default_rng(0)])
    >>> best, _ = ExactFollower().respond(dynamics, rewards, {})
    >>> bool(np.allclose(played.policy, best.policy))
    True
    """

    updates: Count = 20
    step_size: Share = 0.5
    samples: Count | None = 2000
    critic_step_size: Share | None = None
    carry: bool = True

    def respond(
        self, dynamics: SharedDynamics, rewards: Rewards, carried: Carried, generators: Sequence[Generator]
    ) -> tuple[SeedBatch, Carried]:
        """Return what the followers play after the updates."""
        dynamics.refuse_mask("NaturalPolicyGradient")
        beta, shape = dynamics.problem.temperature, rewards.follower.shape
        logits, table = np.zeros(shape), np.zeros(shape)
        if self.carry and carried:
            logits, table = carried["logits"], carried["table"]
        moves = kernel_draws(dynamics.kernel)
        visits = np.zeros((shape[0], shape[1] * shape[2]))
        for _ in range(self.updates):
            log_policy, policy = _log_softmax(logits)
            if self.samples is None:
                table = exact_values(dynamics, rewards, policy, log_policy)
            else:
                sampled = _sampled_transitions(moves, generators, shape[1] * shape[2], self.samples)
                table = self._learnt(dynamics, rewards, policy, log_policy, table, visits, sampled)
            logits = (1.0 - self.step_size) * log_policy + self.step_size / beta * table
        log_policy, played = _log_softmax(logits)
        value = (played * (table - beta * log_policy)).sum(axis=2)
        kept = {"logits": log_policy, "table": table} if self.carry else {}
        return dynamics.followers(rewards, value, table, played), kept

    def _learnt(
        self,
        dynamics: SharedDynamics,
        rewards: Rewards,
        policy: FloatArray,
        log_policy: FloatArray,
        table: FloatArray,
        visits: FloatArray,
        sampled: tuple[IntArray, IntArray],
    ) -> FloatArray:
        """Return the table after one pass over the samples; `visits` counts on."""
        problem, (runs, states, actions) = dynamics.problem, table.shape
        end = np.zeros((runs, 1, actions))  # what comes after the end is worth nothing
        padded = np.concatenate([table, end], axis=1)
        bonus = np.append(-problem.temperature * (policy * log_policy).sum(axis=2), end[:, :, 0], axis=1)
        learn = compiled(policy_values_loop) or _learn_together
        learn(
            padded,
            np.concatenate([policy, end], axis=1),
            bonus,
            rewards.follower.reshape(runs, -1),
            *sampled,
            visits,
            0.0 if self.critic_step_size is None else float(self.critic_step_size),
            float(problem.discount_follower),
        )
        return padded[:, :states]


def _log_softmax(logits: FloatArray) -> tuple[FloatArray, FloatArray]:
    normaliser, policy = soft_maximum(logits, 1.0)
    return logits - normaliser[..., None], policy


def exact_values(dynamics: SharedDynamics, rewards: Rewards, policy: FloatArray, log_policy: FloatArray) -> FloatArray:
    """Return the soft action values of policies, (runs, S, A)."""
    problem = dynamics.problem
    earned = (policy * (rewards.follower - problem.temperature * log_policy)).sum(axis=2)
    system = dynamics.systems(policy, problem.discount_follower)
    value = np.linalg.solve(system, earned[:, :, None])[:, :, 0]
    return rewards.follower + problem.discount_follower * dynamics.expected(value)


def _sampled_transitions(
    moves: Draws, generators: Sequence[Generator], pairs: int, samples: int
) -> tuple[IntArray, IntArray]:
    """Return pairs, visited uniformly at random, and the states after them, (runs, samples) each."""
    uniform = np.stack([rng.random((2, samples)) for rng in generators])
    pair = (uniform[:, 0] * pairs).astype(np.int64)
    return pair, moves.draw(pair, uniform[:, 1])


def _learn_together(
    table: FloatArray,
    policy: FloatArray,
    bonus: FloatArray,
    reward: FloatArray,
    pair: IntArray,
    after: IntArray,
    visits: FloatArray,
    step_size: float,
    discount: float,
) -> None:
    """`policy_values_loop` with one sample of each run at a time."""
    runs, _, actions = table.shape
    run = np.arange(runs)
    for here, then in zip(pair.T, after.T, strict=True):
        cell = run, here // actions, here % actions
        # A running sum adds in order, whatever the number of actions.
        ahead = bonus[run, then] + np.cumsum(policy[run, then] * table[run, then], axis=1)[:, -1]
        rate = step_size if step_size > 0.0 else 1.0 / (1.0 + (1.0 - discount) * visits[run, here])
        visits[run, here] += 1.0
        table[cell] += rate * (reward[run, here] + discount * ahead - table[cell])
