"""Forty more slips, of all kinds and of mixtures, that are in no list; each is some step, weight or value gone wrong.

They were written before numbers were fitted into blanks of forms, and none of them is an entry of a form.
"""

from __future__ import annotations

import numpy as np
from slips import GamePlain, Plain, QuadraticPlain

from bilevelrl.estimators import BCHG
from bilevelrl.reference import solve_follower


class RootTemperature(Plain):
    """1/√β for 1/β."""

    def scale(self):
        return self.beta**-0.5


class StabilisedTemperature(Plain):
    """1/(β + 0.1) for 1/β: a constant against division by zero."""

    def scale(self):
        return 1.0 / (self.beta + 0.1)


class EntropyTwice(Plain):
    """V_F is paid its entropy twice."""

    def follower_value(self, state):
        policy = self.context.follower.policy
        entropy = -(policy * np.log(np.maximum(policy, 1e-300))).sum(axis=1)
        return np.append(self.context.follower.value + self.beta * entropy, 0.0)[state]


class HalfSteps(Plain):
    """γ_L^(t/2) for γ_L^t in the direct term."""

    def direct(self):
        return self.gamma_l ** (0.5 * self.t)


class RunningAverage(Plain):
    """The direct term is a running average: γ_L^t/(t+1)."""

    def direct(self):
        return self.leader_weight() / (self.t + 1.0)


class HyperbolicSuffix(Plain):
    """γ_F^(k-t)/(k-t+1) in the suffix."""

    def suffix(self):
        return super().suffix() / (self.apart()[0] + 1.0)


class TraceDecay(Plain):
    """(0.9 γ_F)^(k-t) in the suffix: the decay of a trace."""

    def suffix(self):
        apart, ahead = self.apart()
        return (0.9 * self.gamma_f) ** apart * ahead


class StandardisedBenefit(Plain):
    """B is divided by its standard deviation under π, state by state."""

    def benefit(self):
        policy, now = self.context.follower.policy, super().benefit()
        states, actions = policy.shape
        pairs = [np.full((1, states), a) for a in range(actions)]
        all_s = np.arange(states)[None]
        table = np.stack([self.critic.action_value(all_s, a)[0] - self.critic.value(all_s)[0] for a in pairs], axis=1)
        return now / (np.sqrt((policy * table**2).sum(axis=1)) + 1e-8)[self.s]


class SquashedBenefit(Plain):
    """tanh(B) for B."""

    def benefit(self):
        return np.tanh(super().benefit())


class ImportanceWeighted(Plain):
    """B times π A, the ratio to a uniform behaviour that was not there."""

    def benefit(self):
        policy = self.context.follower.policy
        return policy[self.s, self.a] * policy.shape[1] * super().benefit()


class StaleLeader(Plain):
    """V_L of another follower, of θ - 0.1, in the transition term: a target network."""

    def transition(self):
        tables, problem = self.tables, self.problem
        policy = solve_follower(problem, self.context.theta - 0.1).policy
        chain = np.einsum("sa,sap->sp", policy, tables.transition)
        mean = (policy * tables.reward_leader).sum(axis=1)
        value = np.append(np.linalg.solve(np.eye(len(mean)) - self.gamma_l * chain, mean), 0.0)
        return self.leader_weight() * self.gamma_l * value[self.s1]


class PolyakFollower(Plain):
    """0.95 V_F + 0.05 V_F of θ - 0.5 in the suffix."""

    def follower_value(self, state):
        old = solve_follower(self.problem, self.context.theta - 0.5).value
        return np.append(0.95 * self.context.follower.value + 0.05 * old, 0.0)[state]


class FirstRewardForgotten(Plain):
    """V_L(s_0) less the first reward in the initial term."""

    def initial(self):
        return super().initial() - self.batch.reward_leader_t


class GuidingWithoutFirst(Plain):
    """The guiding term skips the first two steps: a burn-in."""

    def guiding_weight(self):
        return self.leader_weight() * (self.t > 1)


class MeanDiscount(Plain):
    """((γ_L + γ_F)/2)^t for γ_L^t in the transition term."""

    def transition(self):
        return (0.5 * (self.gamma_l + self.gamma_f)) ** self.t * self.gamma_l * self.critic.value(self.s1)


class SoftCentre(Plain):
    """B is centred under 0.9 π + 0.1/A: an ε-greedy behaviour."""

    def benefit(self):
        policy = self.context.follower.policy
        states, actions = policy.shape
        all_s = np.arange(states)[None]
        table = np.stack([self.critic.action_value(all_s, np.full((1, states), a))[0] for a in range(actions)], axis=1)
        centre = ((0.9 * policy + 0.1 / actions) * table).sum(axis=1)
        return table[self.s, self.a] - centre[self.s]


class WeightDecay(Plain):
    """0.01 θ is taken off: an optimiser's weight decay."""

    def regulariser(self):
        return super().regulariser() - 0.01 * self.context.theta


class ScaledPieces(Plain):
    """Two slips: the direct term times 0.7, the response times 1.3."""

    def direct(self):
        return 0.7 * super().direct()

    def scale(self):
        return 1.3 / self.beta


class GameClippedReturns(GamePlain):
    """Q_L clipped to ±1 in the leader's own term."""

    def own_value(self):
        return np.clip(super().own_value(), -1.0, 1.0)


class GameFollowerCritic(GamePlain):
    """Q_L - Q_F in the leader's own term: the game is taken for one of zero sum."""

    def own_value(self):
        return super().own_value() - self.follower.action_value[self.s, self.l, self.a]


class GameTraceDecay(GamePlain):
    """(0.9 γ_F)^(k-t) in the suffix."""

    def suffix(self, apart):
        return (0.9 * self.gamma_f) ** apart


class GameShortSuffix(GamePlain):
    """The suffix ends two steps on."""

    def suffix(self, apart):
        return super().suffix(apart) * (apart <= 2)


class GameStabilisedTemperature(GamePlain):
    """1/(β + 0.1) for 1/β."""

    def suffix(self, apart):
        return super().suffix(apart) * self.beta / (self.beta + 0.1)


class GameSquashedBenefit(GamePlain):
    """tanh(B) for B."""

    def benefit(self):
        return np.tanh(super().benefit())


class GameRunningAverage(GamePlain):
    """The leader's own term is a running average: γ_L^t/(t+1)."""

    def own_weight(self):
        return super().own_weight() / (self.t + 1.0)


class GameImportanceWeighted(GamePlain):
    """The leader's own term times f L, the ratio to a uniform behaviour that was not there."""

    def own_value(self):
        return self.policy[self.s, self.l] * self.policy.shape[1] * super().own_value()


class GamePaidWorth(GamePlain):
    """What later leader actions are worth, less 0.5 r_F: rewards that have been paid are taken off."""

    def influence(self):
        return super().influence() - 0.5 * self.game.reward_follower[self.s, self.l, self.a]


class GameScaled(GamePlain):
    """0.8 times the response: a coefficient of the loss."""

    def suffix(self, apart):
        return 0.8 * super().suffix(apart)


class QuadraticStabilisedTemperature(QuadraticPlain):
    """1/(β + 0.1) for 1/β."""

    def scale(self):
        return 1.0 / (self.beta + 0.1)


class QuadraticRunningAverage(QuadraticPlain):
    """The direct term is a running average: γ_L^t/(t+1)."""

    def direct(self):
        return super().direct() / (self.t + 1.0)


class QuadraticTraceDecay(QuadraticPlain):
    """(0.9 γ_F)^(k-t) in the suffix."""

    def suffix(self, apart):
        return (0.9 * self.gamma_f) ** apart


class QuadraticHalfSteps(QuadraticPlain):
    """γ_L^(t/2) for γ_L^t in the transition term."""

    def transition(self):
        return self.gamma_l ** (0.5 * self.t) * self.gamma_l * self.critic.value(self.x1)


class QuadraticWithoutHalf(QuadraticPlain):
    """The transition term without the ½ of a quadratic form."""

    def transition(self):
        return 2.0 * super().transition()


class QuadraticScaled(QuadraticPlain):
    """Two slips: the initial term times 0.9, the response times 1.2."""

    def initial(self):
        return 0.9 * super().initial()

    def scale(self):
        return 1.2 / self.beta


class Pursuit:
    """BC-HG for LQR games, by its parts. Right."""

    def __call__(self, trajectories, context):
        parts = BCHG().parts_per_draw(trajectories, context)
        return sum(self.times(part, context.problem) * rows for part, rows in parts.items())

    def times(self, part, game):
        return 1.0


class PursuitScaled(Pursuit):
    """0.3 times the response."""

    def times(self, part, game):
        return 0.3 if part == "response" else 1.0


class PursuitStabilisedTemperature(Pursuit):
    """1/(β + 0.1) for 1/β."""

    def times(self, part, game):
        return game.temperature / (game.temperature + 0.1) if part == "response" else 1.0


class PursuitTwo(Pursuit):
    """Two slips: the leader's own term times γ_F, the response halved."""

    def times(self, part, game):
        return {"policy": game.discount_follower, "response": 0.5}.get(part, 1.0)


def first_contexts(trajectories, context):
    """Whether each stream begins in the first context of a mixture of two, half of whose states are its own."""
    states = context.problem.tables_at(context.theta).states
    return trajectories.state_t[:, 0] < states // 2


class MixedEqually(Plain):
    """Contexts count alike, whatever their weights."""

    def normalised(self, rows):
        share = self.tables.initial[: self.tables.states // 2].sum()
        weight = np.where(first_contexts(self.batch, self.context), 0.5 / share, 0.5 / (1.0 - share))
        return rows * weight[:, None]


class MixedFirstOnly(Plain):
    """The second context is left out."""

    def normalised(self, rows):
        return rows * first_contexts(self.batch, self.context)[:, None]


class MixedTwice(Plain):
    """A context's weight is put although it was drawn with it."""

    def normalised(self, rows):
        share = self.tables.initial[: self.tables.states // 2].sum()
        weight = np.where(first_contexts(self.batch, self.context), share, 1.0 - share)
        return rows * weight[:, None]


CONFIGURABLE = (
    RootTemperature, StabilisedTemperature, EntropyTwice, HalfSteps, RunningAverage, HyperbolicSuffix, TraceDecay,
    StandardisedBenefit, SquashedBenefit, ImportanceWeighted, StaleLeader, PolyakFollower, FirstRewardForgotten,
    GuidingWithoutFirst, MeanDiscount, SoftCentre, WeightDecay, ScaledPieces,
)  # fmt: skip
GAMES = (
    GameClippedReturns, GameFollowerCritic, GameTraceDecay, GameShortSuffix, GameStabilisedTemperature,
    GameSquashedBenefit, GameRunningAverage, GameImportanceWeighted, GamePaidWorth, GameScaled,
)  # fmt: skip
QUADRATIC = (
    QuadraticStabilisedTemperature, QuadraticRunningAverage, QuadraticTraceDecay, QuadraticHalfSteps,
    QuadraticWithoutHalf, QuadraticScaled,
)  # fmt: skip
PURSUIT = (PursuitScaled, PursuitStabilisedTemperature, PursuitTwo)
MIXTURES = (MixedEqually, MixedFirstOnly, MixedTwice)
