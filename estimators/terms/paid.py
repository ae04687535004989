"""Paid followers of each kind of problem: how they are played, and what their streams say of θ.

What a follower is worth moves with θ along its own streams, V_{t+1} being what it is worth to it from the next step on:

    configurable MDP    γ_F^t (∇r_F + w_t ∇r_L + γ_F V_{t+1}(s_{t+1}) ∇log P)   and  V_0(s_0) ∇log μ,            (1)
    Markov game         γ_F^t ∇log f(l_t|s_t) U_t(s_t, l_t, a_t),                                                (2)

U what the leader's action is worth to it: V_t(s, l) if it sees it, Q_t(s, l, a) if not, less its mean over l. With one
discount over an infinite horizon all steps are alike; else there is a table for every step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bilevelrl.estimators.estimator import Context, Contribution
from bilevelrl.estimators.sampling.joint_actions import joint_mdp
from bilevelrl.estimators.sampling.tabular import TabularSimulator
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.reference import ConfigurableMDP, MarkovGame, solve_follower
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import IllPosedError, UnsupportedError
from bilevelrl.reference.game import reduce_game
from bilevelrl.reference.nudged import PaidFollower, check_pay, kernel_layout
from bilevelrl.reference.problem import Objective, Part, Term
from bilevelrl.reference.tabular import dense_jacobian

__all__ = ["PaidGame", "PaidPlay", "Population", "at_time", "in_joint_actions", "paid_play", "steps_played", "visited"]


class Population(NamedTuple):
    """Followers that are paid alike.

    Attributes
    ----------
    weight, share
        What their returns and the leader's count.
    worth : (K, S), in a game (K, S, L, A)
        V_t, or U_t; K = 1 where all steps are alike.
    policy : (K, S, A), in a game (K, S, L·A) of joint actions
        What they play.
    """

    weight: float
    share: float
    worth: FloatArray
    policy: FloatArray


def at_time(table: FloatArray, time: Any) -> FloatArray:
    """Return a table's rows at steps (any integers): its only one where all steps are alike."""
    rows: FloatArray = table[np.minimum(time, len(table) - 1)]
    return rows


def visited(
    kernel: FloatArray, policy: FloatArray, initial: FloatArray, discount: float, steps: int
) -> Iterator[tuple[int, FloatArray]]:
    """Yield (t, γ^t Pr(s_t = s, a_t = a)) for the steps of a stream, or (0, their sum) where all are alike."""
    law, total = initial, np.zeros(policy.shape[1:])
    for t in range(steps):
        here = law[:, None] * at_time(policy, t)
        if len(policy) > 1:
            yield t, here
        total += here
        law = discount * (here.ravel() @ kernel.reshape(-1, len(law)))
    if len(policy) == 1:
        yield 0, total


def steps_played(kernel: FloatArray, policy: FloatArray, initial: FloatArray, steps: int) -> float:
    """Return the expected number of steps that a stream has, of `steps` at most."""
    law, played, chain = initial, 0.0, np.empty(0)
    for t in range(steps):
        played += float(law.sum())
        if t < len(policy):
            chain = np.matmul(policy[t][:, None, :], kernel)[:, 0, :]
        law = law @ chain
    return played


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidPlay:
    """Both populations of a configurable MDP, or of many runs' problems together.

    Attributes
    ----------
    context
        Problem and θ.
    populations
        Two of them.
    unpaid : (S,), in a game (S, L, A)
        V, or U, of an unpaid follower.
    leading
        The leader's discount, 1 where it does not discount.
    horizon
        Steps that are paid; None: all.
    """

    context: Context
    populations: tuple[Population, Population]
    unpaid: FloatArray
    leading: float
    horizon: int | None

    @property
    def process(self) -> Any:
        """What the simulator moves."""
        return self.context.problem

    @property
    def gained(self) -> FloatArray:
        """(V_w - V_{-w}) / 2w at the start, (S,)."""
        return sum((each.weight * each.worth[0] for each in self.populations), np.zeros(self.unpaid.shape))

    def initial_slopes(self) -> FloatArray | None:
        """Return ∇μ, (S, N); None where it is zero."""
        slopes: FloatArray | None = self.context.problem.jacobian(self.context.theta).get("initial")
        return slopes

    def leader_powers(self, time: Any) -> FloatArray:
        """Return γ_L^t of steps that are paid, zero of others."""
        t = np.asarray(time)
        powers: FloatArray = self.leading ** t.astype(np.float64)
        return powers if self.horizon is None else np.where(t < self.horizon, powers, 0.0)

    def sample(self, simulator: TabularSimulator, population: Population, **how: Any) -> Trajectories:
        """Draw streams of a population."""
        in_time = len(population.policy) > 1
        policy = population.policy if in_time else population.policy[0]
        if in_time:  # samplers of many runs know of no other
            how["policy_by_time"] = True
        return simulator.sample(self.process, self.context.theta, policy, **how)

    def own_contributions(self, batch: Trajectories, *, unpaid: bool) -> list[Contribution]:
        """Return what first states say, and where the streams are unpaid what θ does to the leader's own rewards."""
        starts = batch.episode_starts
        first = np.where(starts, self.gained[np.where(starts, batch.state_t, 0)], 0.0)
        items = [Contribution(part="initial", batch=batch, weights={"log_initial": first})]
        if unpaid:
            weight = np.where(batch.valid, self.leader_powers(batch.time_in_episode), 0.0)
            items.append(Contribution(part="direct", batch=batch, weights={"reward_leader": weight}))
        return items

    def contributions(self, batch: Trajectories, population: Population) -> list[Contribution]:
        """Return (1): the response with unpaid values, the transition with what is added."""
        discount, time = self.context.problem.discount_follower, batch.time_in_episode
        weight = population.weight * np.where(batch.valid, discount ** time.astype(np.float64), 0.0)
        onward = discount * weight
        padded = (
            np.append(table, np.zeros((len(table), 1)), axis=1) for table in (self.unpaid[None], population.worth)
        )
        unpaid, paid = (table[np.minimum(time + 1, len(table) - 1), batch.state_tp1] for table in padded)
        response: dict[Term, FloatArray] = {"reward_follower": weight, "log_transition": onward * unpaid}
        items = [
            Contribution(part="response", batch=batch, weights=response),
            Contribution(part="transition", batch=batch, weights={"log_transition": onward * (paid - unpaid)}),
        ]
        if population.share:
            own = population.share * np.where(batch.valid, self.leader_powers(time), 0.0)
            items.append(Contribution(part="direct", batch=batch, weights={"reward_leader": own}))
        return items

    def expectation(
        self, kernel: FloatArray, initial: FloatArray, steps: int, *, unpaid: bool
    ) -> dict[Part, FloatArray]:
        """Return the mean of all contributions of streams of so many steps, by part."""
        discount, at = self.context.problem.discount_follower, self.context.problem.at(self.context.theta)
        shape = self.populations[0].policy.shape[1:]
        visits, played, gains = np.zeros(shape), np.zeros(shape), np.zeros(kernel.shape)
        for each in self.populations:
            for t, seen in visited(kernel, each.policy, initial, discount, steps):
                visits += each.weight * seen
                gains += discount * each.weight * seen[:, :, None] * (at_time(each.worth, t + 1) - self.unpaid)
            if each.share:
                played += each.share * self._led(kernel, each.policy, initial, steps)
        if unpaid:
            played = self._led(kernel, self.context.follower.policy[None], initial, steps)
        ahead = discount * visits[:, :, None] * self.unpaid
        return {
            "initial": at.pullback({"initial": self.gained}),
            "direct": at.pullback({"reward_leader": played}),
            "transition": at.pullback({"transition": kernel_layout(at, gains)}),
            "response": at.pullback({"reward_follower": visits, "transition": kernel_layout(at, ahead)}),
        }

    def _led(self, kernel: FloatArray, policy: FloatArray, initial: FloatArray, steps: int) -> FloatArray:
        """Return Σ γ_L^t Pr(s_t, a_t) over the steps that are paid."""
        paid = steps if self.horizon is None else min(steps, self.horizon)
        return sum(
            (seen for _, seen in visited(kernel, policy, initial, self.leading, paid)), np.zeros(policy.shape[1:])
        )

    def said(self, kernel: FloatArray, population: Population, time: int) -> FloatArray:
        """Return what a step says beside γ_F^t, (S + 1, A, S + 1, N); state S is the end."""
        problem, theta = self.context.problem, self.context.theta
        jacobian, discount = problem.jacobian(theta), problem.discount_follower
        slopes, count, states = jacobian.get("transition"), theta.size, len(kernel)
        dense = np.zeros((*kernel.shape, count))
        if slopes is not None:
            dense = dense_jacobian(problem.tables_at(theta), slopes)
        scores = np.divide(dense, kernel[..., None], out=np.zeros_like(dense), where=kernel[..., None] > 0.0)
        none = np.zeros((*kernel.shape[:2], count))
        follower, leader = (jacobian.get(f"reward_{who}", none) for who in ("follower", "leader"))
        paid = population.weight * follower
        if population.share:
            powers = float(self.leader_powers(time)) / (discount**time if time else 1.0)
            paid = paid + population.share * powers * leader
        value = at_time(population.worth, time + 1)
        own = np.zeros((states + 1, kernel.shape[1], states + 1, count))
        own[:states, :, :states] = paid[:, :, None] + population.weight * discount * value[None, None, :, None] * scores
        own[:states, :, states] = paid
        return own


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidGame(PaidPlay):
    """Both populations of a Markov game, where θ moves nothing but the leader's policy."""

    @property
    def process(self) -> Any:
        """The process of joint actions."""
        return joint_mdp(self.context.problem)

    def sample(self, simulator: TabularSimulator, population: Population, **how: Any) -> Trajectories:
        """Draw streams of a population, with both players' actions."""
        moved = in_joint_actions(simulator)
        batch = PaidPlay.sample(self, moved, population, **how)
        leader_action_t, action_t = np.divmod(np.asarray(batch.action_t), self.unpaid.shape[2])
        return replace(batch, leader_action_t=leader_action_t, action_t=action_t)

    def initial_slopes(self) -> FloatArray | None:
        """Return None: the leader has no say in the first state."""
        return None

    def own_contributions(self, batch: Trajectories, *, unpaid: bool) -> list[Contribution]:
        """Return nothing: neither the first state nor a reward depends on θ."""
        return []

    def contributions(self, batch: Trajectories, population: Population) -> list[Contribution]:
        """Return (2): the response with unpaid worth, the policy part with what is added."""
        time = np.where(batch.valid, batch.time_in_episode, 0)
        weight = population.weight * self.context.problem.discount_follower ** time.astype(np.float64)
        weight = np.where(batch.valid, weight, 0.0)
        place = np.where(batch.valid, batch.state_t, 0), batch.leader_action_t, batch.action_t
        unpaid = self.unpaid[place]
        paid = population.worth[(np.minimum(time, len(population.worth) - 1), *place)]
        parts: Mapping[Part, FloatArray] = {"response": unpaid, "policy": paid - unpaid}
        return [
            Contribution(part=part, batch=batch, weights={"log_policy_leader": weight * worth})
            for part, worth in parts.items()
        ]

    def expectation(
        self, kernel: FloatArray, initial: FloatArray, steps: int, *, unpaid: bool
    ) -> dict[Part, FloatArray]:
        """Return the mean of all contributions of streams of so many steps, by part."""
        problem, theta = self.context.problem, self.context.theta
        policy = problem.policy_at(theta)
        found: dict[Part, FloatArray] = {"policy": np.zeros(policy.size), "response": np.zeros(policy.size)}
        for each in self.populations:
            for t, seen in visited(kernel, each.policy, initial, problem.discount_follower, steps):
                pairs = each.weight * seen.reshape(self.unpaid.shape)  # with f in them, which scores divide by
                worth = at_time(each.worth, t)
                found["policy"] += (pairs * (worth - self.unpaid)).sum(axis=2).ravel()
                found["response"] += (pairs * self.unpaid).sum(axis=2).ravel()
        scores = self._scores().reshape(policy.size, -1)
        return {part: table @ scores for part, table in found.items()}

    def _scores(self) -> FloatArray:
        """Return ∇log f, (S, L, N)."""
        problem, theta = self.context.problem, self.context.theta
        slopes, policy = problem.policy_jacobian(theta), problem.policy_at(theta)[:, :, None]
        scores: FloatArray = np.divide(slopes, policy, out=np.zeros_like(slopes), where=policy > 0.0)
        return scores

    def said(self, kernel: FloatArray, population: Population, time: int) -> FloatArray:
        """Return what a step says beside γ_F^t, (S + 1, L·A, S + 1, N)."""
        worth = at_time(population.worth, time)
        each = population.weight * worth[..., None] * self._scores()[:, :, None]
        states, joint = kernel.shape[:2]
        own = np.zeros((states + 1, joint, states + 1, each.shape[-1]))
        own[:states] = each.reshape(states, joint, 1, -1)
        return own


def in_joint_actions(simulator: TabularSimulator) -> TabularSimulator:
    """Return a simulator of games as one of processes of joint actions."""
    dynamics = simulator.dynamics
    return replace(simulator, dynamics=joint_mdp(dynamics)) if isinstance(dynamics, MarkovGame) else simulator


def paid_play(
    context: Context, target: Objective, pays: Sequence[float], weights: Sequence[float], shares: Sequence[float],
    *, steps: int,
) -> PaidPlay:  # fmt: skip
    """Return two populations that are paid w = `pays`, solved for streams of so many steps.

    Raises
    ------
    UnsupportedError
        If the pay explodes, or many runs are asked for together and it would have to change in time.
    InvalidInputError
        If rounding rules the pay.
    """
    problem = context.problem
    leading = target.discount(problem.discount_leader)
    if isinstance(problem, MarkovGame):
        return _paid_game(context, target, pays, weights, shares, steps=steps)
    if isinstance(problem, ConfigurableMDP):
        at = problem.at(context.theta)
        check_pay(at, context.follower, pays[0])
        paid = PaidFollower(at, target, context.follower)
        unpaid, known = paid.unpaid, problem.derivatives.cache
        plans = [
            known.once(
                ("paid", target, pay, steps, unpaid.tobytes()),
                context.theta,
                partial(_planned, paid, pay, steps),
            )
            for pay in pays
        ]
    else:  # of many runs
        if leading != problem.discount_follower or target.horizon is not None:
            raise UnsupportedError(
                f"nudged followers of many runs together: discount_leader={leading}, discount_follower="
                f"{problem.discount_follower}, horizon={target.horizon}: expected one discount and no horizon, so that "
                "the pay stays the same in time; estimate run after run"
            )
        unpaid = context.follower.value
        responses = problem.paid_responses(context.theta, context.follower, pays)
        plans = [(value[None], policy[None]) for value, policy in responses]
    one, other = (Population(*each) for each in zip(weights, shares, *zip(*plans, strict=True), strict=True))
    return PaidPlay(
        context=context, populations=(one, other), unpaid=unpaid, leading=leading, horizon=target.horizon
    )  # fmt: skip


def _planned(paid: PaidFollower, pay: float, steps: int) -> tuple[FloatArray, FloatArray]:
    """Return values and policies by steps; what the reference finds ill-posed nobody can play."""
    try:
        return paid.plan(pay, steps)
    except IllPosedError as reason:
        raise UnsupportedError(f"nudged followers: {reason}") from reason


def _paid_game(
    context: Context, target: Objective, pays: Sequence[float], weights: Sequence[float], shares: Sequence[float],
    *, steps: int,
) -> PaidGame:  # fmt: skip
    """Return the same for a game, solved as the configurable MDP that it reduces to."""
    game, policy = context.problem, context.problem.policy_at(context.theta)
    reduced = reduce_game(game)
    at, follower = reduced.at(context.theta), solve_follower(reduced, context.theta)
    check_pay(at, follower, pays[0])
    paid, shape = PaidFollower(at, target, follower), game.reward_leader.shape
    sees = game.follower_sees_leader_action

    def worth(value: FloatArray, pay: float) -> FloatArray:
        """U of values (K, S·L) or (K, S) at the steps that they are read at."""
        if sees:
            table = np.broadcast_to(value.reshape(-1, *shape[:2], 1), (len(value), *shape))
        else:
            steps_read = max(len(value) - 1, 1)
            pays_now = [pay * paid.growth**t if paid.pays_at(t) else 0.0 for t in range(steps_read)]
            bonus = np.array(pays_now)[:, None, None, None] * game.reward_leader
            ahead = value[1:] if len(value) > 1 else value
            table = game.reward_follower + bonus + paid.discount * np.einsum("slaz,kz->ksla", game.transition, ahead)
        return np.asarray(table - np.einsum("sl,ksla->ksa", policy, table)[:, :, None])

    populations = []
    for pay, weight, share in zip(pays, weights, shares, strict=True):
        value, response = _planned(paid, pay, steps)
        points = response.reshape(len(response), shape[0], -1, shape[2])
        played = policy[:, :, None] * points
        populations.append(Population(weight, share, worth(value, pay), played.reshape(len(played), shape[0], -1)))
    return PaidGame(
        context=context,
        populations=(populations[0], populations[1]),
        unpaid=worth(paid.unpaid[None], 0.0)[0],
        leading=target.discount(game.discount_leader),
        horizon=target.horizon,
    )
