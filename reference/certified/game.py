"""Markov games in balls: reduced to a configurable MDP, whose weights are then led back to the leader's policy.

A follower that sees the leader's action lives in states (s, l), with

    P((s',l')|(s,l),a) = P(s'|s,l,a) f(l'|s'),      μ(s,l) = μ(s) f(l|s);                                          (1)

one that does not lives in s, with every table averaged over f,

    P(s'|s,a) = Σ_l f(l|s) P(s'|s,l,a),      r(s,a) = Σ_l f(l|s) r(s,l,a).                                         (2)

In both cases the leader's own terms, initial law, rewards and transitions alike, are the part `policy`, and what the
follower reads is `response`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Protocol, TypeVar

from flint import arb, arb_series

from bilevelrl.reference.certified.balls import upper
from bilevelrl.reference.certified.hypergradient import Evaluation
from bilevelrl.reference.certified.tabular.fixed_point import BallFollower, enclose_follower
from bilevelrl.reference.certified.tabular.leader import Cotangents, Flow, cotangents
from bilevelrl.reference.certified.tabular.tables import BallTables, Row

__all__ = ["BallGame", "GameSource", "game_evaluation", "policy_weights", "reduced"]

Number = TypeVar("Number", arb, arb_series)


@dataclass(frozen=True, slots=True, kw_only=True)
class BallGame:
    """A Markov game in balls.

    Attributes
    ----------
    kernel : [s][l][a] -> successors with probabilities
    reward_follower, reward_leader : [s][l][a]
    initial : [s]
    policy : [s][l]
        f_θ(l|s).
    regulariser, discount_leader, discount_follower, temperature : arb
        As in `BallTables`.
    follower_sees_leader_action : bool
        The information structure.
    """

    kernel: Sequence[Sequence[Sequence[Row]]]
    reward_follower: Sequence[Sequence[Sequence[arb]]]
    reward_leader: Sequence[Sequence[Sequence[arb]]]
    initial: Sequence[arb]
    policy: Sequence[Sequence[arb]]
    regulariser: arb
    discount_leader: arb
    discount_follower: arb
    temperature: arb
    follower_sees_leader_action: bool

    @property
    def sizes(self) -> tuple[range, range, range]:
        """Ranges over states, leader actions and follower actions."""
        return range(len(self.kernel)), range(len(self.kernel[0])), range(len(self.kernel[0][0]))


def reduce_tables(
    kernel: Sequence[Sequence[Sequence[Sequence[tuple[int, Number]]]]],
    rewards: Sequence[Sequence[Sequence[Sequence[Number]]]],
    initial: Sequence[Number],
    policy: Sequence[Sequence[Number]],
    *,
    sees: bool,
) -> tuple[list[list[tuple[tuple[int, Number], ...]]], list[list[list[Number]]], list[Number]]:
    """Return (kernel, rewards, initial law) of the configurable MDP that the follower faces, in any kind of number.

    The state is s·L + l where the follower sees the leader's action. Kernels list successors with probabilities.
    """
    states, leads, actions = range(len(kernel)), range(len(kernel[0])), range(len(kernel[0][0]))
    if sees:  # (1)
        count = len(leads)
        onward = [
            [tuple((t * count + m, p * policy[t][m]) for t, p in kernel[s][i][a] for m in leads) for a in actions]
            for s in states
            for i in leads
        ]
        paid = [[list(reward[s][i]) for s in states for i in leads] for reward in rewards]
        return onward, paid, [initial[s] * policy[s][i] for s in states for i in leads]
    onward = [  # (2)
        [tuple((t, policy[s][i] * p) for i in leads for t, p in kernel[s][i][a]) for a in actions] for s in states
    ]
    paid = [
        [[reduce(add, (policy[s][i] * reward[s][i][a] for i in leads)) for a in actions] for s in states]
        for reward in rewards
    ]
    return onward, paid, list(initial)


def reduced(game: BallGame) -> BallTables:
    """Return the configurable MDP that the follower faces."""
    kernel, (follower, leader), initial = reduce_tables(
        game.kernel,
        (game.reward_follower, game.reward_leader),
        game.initial,
        game.policy,
        sees=game.follower_sees_leader_action,
    )
    return BallTables(
        kernel=kernel,
        reward_follower=follower,
        reward_leader=leader,
        initial=initial,
        regulariser=game.regulariser,
        discount_leader=game.discount_leader,
        discount_follower=game.discount_follower,
        temperature=game.temperature,
    )


def policy_weights(game: BallGame, weights: Cotangents) -> tuple[list[list[arb]], list[list[arb]]]:
    """Return the weights of f(l|s) in the leader's evaluation and in what the follower reads, [s][l] each."""
    states, leads, actions = game.sizes

    def read(flow: Flow, reward: Sequence[Sequence[arb]], table: Sequence[Sequence[Sequence[arb]]]) -> list[list[arb]]:
        total = [[arb(0) for _ in leads] for _ in states]
        count = len(leads)
        for s in states:
            for i in leads:
                for a in actions:
                    if game.follower_sees_leader_action:
                        for t, p in game.kernel[s][i][a]:
                            for m in leads:
                                total[t][m] += flow(s * count + i, a, t * count + m) * p
                    else:
                        total[s][i] += reward[s][a] * table[s][i][a]
                        for t, p in game.kernel[s][i][a]:
                            total[s][i] += flow(s, a, t) * p
        return total

    evaluation = read(weights.transition, weights.direct, game.reward_leader)
    if game.follower_sees_leader_action:
        count = len(leads)
        evaluation = [
            [evaluation[s][i] + weights.initial[s * count + i] * game.initial[s] for i in leads] for s in states
        ]
    return evaluation, read(weights.response_transition, weights.response_reward, game.reward_follower)


class GameSource(Protocol):
    """A Markov game at one θ, to any precision."""

    def game(self, *, discounted: bool) -> BallGame:
        """Return the game at the working precision."""
        ...

    def pull_policy(self, weight: Sequence[Sequence[arb]]) -> list[arb]:
        """Return Σ weight ∂f/∂θ, N balls."""
        ...

    def pull_regulariser(self) -> list[arb]:
        """Return ∇ρ, N balls."""
        ...


def game_evaluation(source: GameSource, *, horizon: int | None, discounted: bool) -> Callable[[], Evaluation]:
    """Return a pass over a game; each call starts Newton's method where the previous one ended."""
    previous: list[BallFollower] = []

    def evaluate() -> Evaluation:
        game = source.game(discounted=discounted)
        tables = reduced(game)
        follower = enclose_follower(tables, previous[-1].value if previous else None)
        previous[:] = [follower]
        weights = cotangents(tables, follower, horizon=horizon)
        evaluation, response = policy_weights(game, weights)
        return Evaluation(
            objective=weights.objective,
            parts={
                "policy": source.pull_policy(evaluation),
                "response": source.pull_policy(response),
                "regulariser": source.pull_regulariser(),
            },
            residual=upper(follower.residual),
            condition=weights.condition,
            steps=follower.steps,
        )

    return evaluate
