"""Slips written after the causes were built, to see what is said of what nobody had in mind; some are two at once."""

from __future__ import annotations

import numpy as np
from slips import GamePlain, Plain, QuadraticPlain


class FlooredTemperature(Plain):
    """1/max(β, 0.1) for 1/β."""

    def scale(self):
        return 1.0 / max(self.beta, 0.1)


class CappedDiscount(Plain):
    """min(γ_L, 0.75) for γ_L in the weights."""

    def leader_weight(self):
        return min(self.gamma_l, 0.75) ** self.t


class RewardOfNextState(Plain):
    """The direct term reads the leader's reward where the step ends: shifted by one."""

    def direct(self):
        later = np.zeros(self.s.shape)
        later[:, 1:] = self.leader_weight()[:, :-1]
        return later


class TemperatureAndWeight(Plain):
    """Two slips: 1/β missing, and the direct term discounted by γ_F^t."""

    def scale(self):
        return 1.0

    def direct(self):
        return self.gamma_f**self.t


class RegulariserAndResponse(Plain):
    """Two slips: the regulariser subtracted, the response halved."""

    def regulariser(self):
        return -super().regulariser()

    def scale(self):
        return 0.5 / self.beta


class ThreeFactors(Plain):
    """Three slips: direct × γ_F, transition × ½, response × β."""

    def direct(self):
        return self.gamma_f * super().direct()

    def transition(self):
        return 0.5 * super().transition()

    def scale(self):
        return 1.0


class SquaredBenefit(Plain):
    """B² for B."""

    def benefit(self):
        return super().benefit() ** 2


class GrowingSuffix(Plain):
    """(k-t+1) γ_F^(k-t): the derivative of a geometric sum."""

    def suffix(self):
        apart, _ = self.apart()
        return (apart + 1.0) * super().suffix()


class EverySecondStep(Plain):
    """Every second step is left out of the guiding term."""

    def guiding_weight(self):
        return self.leader_weight() * (self.t % 2 == 0)


class CriticAtFollower(Plain):
    """The leader's critic is solved with γ_F."""

    def __call__(self, trajectories, context):
        tables, policy = context.problem.tables_at(context.theta), context.follower.policy
        chain = np.einsum("sa,sap->sp", policy, tables.transition)
        mean = (policy * tables.reward_leader).sum(axis=1)
        value = np.linalg.solve(np.eye(len(mean)) - context.problem.discount_follower * chain, mean)
        self.own_value = np.append(value, 0.0)
        ahead = context.problem.discount_follower * tables.transition @ value
        self.own_action_value = tables.reward_leader + ahead
        return super().__call__(trajectories, context)

    def benefit(self):
        return self.own_action_value[self.s, self.a] - self.own_value[self.s]

    def initial(self):
        return self.own_value[self.s]

    def transition(self):
        return self.leader_weight() * self.gamma_l * self.own_value[self.s1]


class OddConstant(Plain):
    """0.37 times the response: somebody's step size."""

    def scale(self):
        return 0.37 / self.beta


class EntropyInStart(Plain):
    """The initial term is paid the follower's entropy."""

    def initial(self):
        policy = self.context.follower.policy
        return super().initial() - self.beta * (policy * np.log(policy)).sum(axis=1)[self.s]


class GameShiftedScore(GamePlain):
    """Q_L of the step before weighs the leader's own score."""

    def own_value(self):
        now = super().own_value()
        before = np.zeros_like(now)
        before[:, 1:] = now[:, :-1]
        return before


class GameOddConstant(GamePlain):
    """1.5 times the response."""

    def suffix(self, apart):
        return 1.5 * super().suffix(apart)


class GameTwo(GamePlain):
    """Two slips: γ_L for γ_F in the suffix, and r_L for Q_L in the own term."""

    def suffix(self, apart):
        return self.gamma_l**apart

    def own_value(self):
        return self.game.reward_leader[self.s, self.l, self.a]


class QuadraticTwo(QuadraticPlain):
    """Two slips: the first reward for V_L in the initial term, γ_L missing in the transition term."""

    def initial(self):
        return self.batch.reward_leader_t

    def transition(self):
        return self.gamma_l**self.t * self.critic.value(self.x1)


CONFIGURABLE = (
    FlooredTemperature, CappedDiscount, RewardOfNextState, TemperatureAndWeight, RegulariserAndResponse, ThreeFactors,
    SquaredBenefit, GrowingSuffix, EverySecondStep, CriticAtFollower, OddConstant, EntropyInStart,
)  # fmt: skip
GAMES = (GameShiftedScore, GameOddConstant, GameTwo)
QUADRATIC = (QuadraticTwo,)
