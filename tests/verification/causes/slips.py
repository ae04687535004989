"""Forty estimators as people write them, each with one slip; no list of known mistakes was asked.

A slip is a class with one method changed. `CONFIGURABLE` are of configurable MDPs, `GAMES` of Markov games, `QUADRATIC`
of linear-quadratic problems. They were written down before anything was built that names them.
"""

from __future__ import annotations

import numpy as np


class Plain:
    """BC-HG for configurable MDPs: weights on the derivatives of visited rewards and log-probabilities. Right."""

    def __call__(self, trajectories, context):
        self.problem, self.critic, self.context = context.problem, context.critic, context
        self.gamma_l, self.gamma_f = self.problem.discount_leader, self.problem.discount_follower
        self.beta = self.problem.temperature
        self.tables = self.problem.tables_at(context.theta)
        self.batch, self.valid = trajectories, trajectories.valid
        self.s, self.a, self.s1 = trajectories.state_t, trajectories.action_t, trajectories.state_tp1
        self.t, self.steps = trajectories.time_in_episode, trajectories.steps
        outer = self.guiding_weight() * self.benefit() * self.scale() * self.valid
        later = np.einsum("mt,tk->mk", outer, self.suffix()) * self.valid
        weights = {
            "log_initial": trajectories.episode_starts * self.initial(),
            "reward_leader": self.direct() * self.valid,
            "reward_follower": self.later_rewards(outer, later),
            "log_transition": self.transition() * self.valid + later * self.follower_ahead(),
        }
        rows = self.problem.pullback(context.theta, trajectories, weights, per_stream=True)
        return self.normalised(rows + self.regulariser())

    def apart(self):
        """(T, T): k - t, and whether k >= t."""
        apart = np.arange(self.steps)[None, :] - np.arange(self.steps)[:, None]
        return np.maximum(apart, 0), apart >= 0

    def leader_weight(self):
        return self.gamma_l**self.t

    def guiding_weight(self):
        return self.leader_weight()

    def benefit(self):
        return self.critic.action_value(self.s, self.a) - self.critic.value(self.s)

    def scale(self):
        return 1.0 / self.beta

    def suffix(self):
        apart, ahead = self.apart()
        return self.gamma_f**apart * ahead

    def later_rewards(self, outer, later):
        return later

    def follower_ahead(self):
        return self.gamma_f * self.follower_value(self.s1)

    def follower_value(self, state):
        return np.append(self.context.follower.value, 0.0)[state]

    def initial(self):
        return self.critic.value(self.s)

    def direct(self):
        return self.leader_weight()

    def transition(self):
        return self.leader_weight() * self.gamma_l * self.critic.value(self.s1)

    def regulariser(self):
        return self.problem.regulariser_gradient(self.context.theta)

    def normalised(self, rows):
        return rows


class HalfResponse(Plain):
    """The response is halved."""

    def scale(self):
        return 0.5 / self.beta


class AveragedSuffix(Plain):
    """The suffix is an average, (1 - γ_F) Σ γ_F^k, not a sum."""

    def suffix(self):
        return (1.0 - self.gamma_f) * super().suffix()


class SuffixStartsAtOne(Plain):
    """The suffix is discounted by γ_F^(k-t+1)."""

    def suffix(self):
        return self.gamma_f * super().suffix()


class GuidingOneLate(Plain):
    """The guiding term alone is discounted by γ_L^(t+1)."""

    def guiding_weight(self):
        return self.gamma_l ** (self.t + 1)


class WholeNormalisedByFollower(Plain):
    """Everything is multiplied by 1 - γ_F."""

    def normalised(self, rows):
        return (1.0 - self.gamma_f) * rows


class DirectAtFollower(Plain):
    """The direct term is discounted by γ_F^t."""

    def direct(self):
        return self.gamma_f**self.t


class TransitionAtFollower(Plain):
    """The transition term's outer weight is γ_F^t."""

    def transition(self):
        return self.gamma_f**self.t * self.gamma_l * self.critic.value(self.s1)


class GuidingAtFollower(Plain):
    """The guiding term's outer weight is γ_F^t."""

    def guiding_weight(self):
        return self.gamma_f**self.t


class TransitionFactorOfFollower(Plain):
    """γ_F V_L(s') for γ_L V_L(s') in the transition term."""

    def transition(self):
        return self.leader_weight() * self.gamma_f * self.critic.value(self.s1)


class SuffixFactorOfLeader(Plain):
    """γ_L V_F(s') for γ_F V_F(s') in the suffix."""

    def follower_ahead(self):
        return self.gamma_l * self.follower_value(self.s1)


class LeaderValueInSuffix(Plain):
    """γ_F V_L(s') for γ_F V_F(s') in the suffix."""

    def follower_value(self, state):
        return self.critic.value(state)


class FollowerValueInTransition(Plain):
    """V_F(s') for V_L(s') in the transition term."""

    def transition(self):
        return self.leader_weight() * self.gamma_l * self.follower_value(self.s1)


class DirectMean(Plain):
    """The direct term is a mean over the steps of the array where it should be a sum."""

    def direct(self):
        return self.leader_weight() / self.steps


class InitialReward(Plain):
    """The first reward for V_L in the initial term."""

    def initial(self):
        return self.batch.reward_leader_t


class InitialOneLate(Plain):
    """γ_L V_L(s_0) for V_L(s_0) in the initial term."""

    def initial(self):
        return self.gamma_l * self.critic.value(self.s)


class TransitionReward(Plain):
    """The next reward for V_L(s') in the transition term."""

    def transition(self):
        ahead = np.zeros_like(self.batch.reward_leader_t)
        ahead[:, :-1] = (self.batch.reward_leader_t * self.valid)[:, 1:]
        return self.leader_weight() * self.gamma_l * ahead


class FollowerAdvantage(Plain):
    """The follower's advantage Q_F - V_F for the leader's."""

    def benefit(self):
        return self.context.follower.action_value[self.s, self.a] - self.context.follower.value[self.s]


class RewardAdvantage(Plain):
    """r_L - Σ π r_L for Q_L - V_L."""

    def benefit(self):
        reward = self.tables.reward_leader
        mean = (self.context.follower.policy * reward).sum(axis=1)
        return reward[self.s, self.a] - mean[self.s]


class PolicyTwice(Plain):
    """The benefit is weighed by π(a|s) once more, as in a sum over actions."""

    def benefit(self):
        return self.context.follower.policy[self.s, self.a] * super().benefit()


class SuffixFromTheStart(Plain):
    """γ_F^k counted from the start of the episode for γ_F^(k-t)."""

    def suffix(self):
        _, ahead = self.apart()
        return self.gamma_f ** np.arange(self.steps)[None, :] * ahead


class DirectDiscountedBackwards(Plain):
    """γ_L^(T-1-t) for γ_L^t in the direct term: the loop runs backwards, the power does not."""

    def direct(self):
        return self.gamma_l ** (self.steps - 1 - self.t)


class ValueTwoAhead(Plain):
    """V_L(s_t+2) for V_L(s_t+1) in the transition term: shifted once too often."""

    def transition(self):
        ahead = np.zeros(self.s.shape)
        ahead[:, :-1] = (self.critic.value(self.s1) * self.valid)[:, 1:]
        return self.leader_weight() * self.gamma_l * ahead


class DirectOneLate(Plain):
    """The direct term alone is discounted by γ_L^(t+1)."""

    def direct(self):
        return self.gamma_l ** (self.t + 1)


class DirectWithoutFirst(Plain):
    """range(1, T) for range(T) in the direct term."""

    def direct(self):
        return self.leader_weight() * (self.t > 0)


class HalfRegulariser(Plain):
    """Half the regulariser's gradient."""

    def regulariser(self):
        return 0.5 * super().regulariser()


class RegulariserForEver(Plain):
    """The regulariser is paid at every step for ever: ∇ρ/(1 - γ_L)."""

    def regulariser(self):
        return super().regulariser() / (1.0 - self.gamma_l)


class LogMeanExp(Plain):
    """V_F read as β log of the mean of exp(Q_F/β), for the sum."""

    def follower_value(self, state):
        shifted = self.context.follower.value - self.beta * np.log(self.tables.actions)
        return np.append(shifted, 0.0)[state]


class TemperatureOne(Plain):
    """V_F read as log Σ exp Q_F: the temperature is taken for 1."""

    def follower_value(self, state):
        return np.append(np.log(np.exp(self.context.follower.action_value).sum(axis=1)), 0.0)[state]


class OwnRewardOnly(Plain):
    """Of the follower's later rewards only the step's own is differentiated; the transitions are all there."""

    def later_rewards(self, outer, later):
        return outer


class PositiveBenefits(Plain):
    """Negative benefits are dropped."""

    def benefit(self):
        return np.maximum(super().benefit(), 0.0)


class GamePlain:
    """BC-HG for Markov games: own score times Q_L, and B times the scores of later leader actions. Right."""

    def __call__(self, trajectories, context):
        game, follower, self.context = context.problem, context.follower, context
        self.game, self.follower, self.batch = game, follower, trajectories
        self.gamma_l, self.gamma_f, self.beta = game.discount_leader, game.discount_follower, game.temperature
        self.s, self.l, self.a = trajectories.state_t, trajectories.leader_action_t, trajectories.action_t
        self.s1, self.t, self.valid = trajectories.state_tp1, trajectories.time_in_episode, trajectories.valid
        self.policy = game.policy_at(context.theta)
        self.action_value = self.leader_values()
        apart = np.arange(trajectories.steps)[None, :] - np.arange(trajectories.steps)[:, None]
        first = 1 if game.follower_sees_leader_action else 0
        outer = self.gamma_l**self.t * self.benefit() / self.beta * self.valid
        later = np.einsum("mt,tk->mk", outer, np.where(apart >= first, self.suffix(np.maximum(apart, 0)), 0.0))
        weights = self.own_weight() * self.own_value() + later * self.influence()
        rows = game.pullback(context.theta, trajectories, {"log_policy_leader": weights * self.valid}, per_stream=True)
        return rows + game.regulariser_gradient(context.theta)

    def leader_values(self):
        """Q_L(s, l, a), by iteration."""
        game = self.game
        response = self.follower.policy if self.follower.policy.ndim == 3 else self.follower.policy[:, None, :]
        value = np.zeros(len(game.initial))
        for _ in range(5000):
            table = game.reward_leader + self.gamma_l * np.einsum("slap,p->sla", game.transition, value)
            moved = np.einsum("sl,sla->s", self.policy, response * table)
            value, change = moved, np.abs(moved - value).max()
            if change < 1e-15:
                break
        self.response = np.broadcast_to(response, table.shape)
        return table

    def own_weight(self):
        return self.gamma_l**self.t

    def own_value(self):
        return self.action_value[self.s, self.l, self.a]

    def benefit(self):
        if self.game.follower_sees_leader_action:
            centre = (self.response * self.action_value).sum(axis=2)[self.s, self.l]
            return self.action_value[self.s, self.l, self.a] - centre
        mean = np.einsum("sl,sla->sa", self.policy, self.action_value)
        return mean[self.s, self.a] - np.einsum("sl,sla->s", self.policy, self.response * self.action_value)[self.s]

    def suffix(self, apart):
        return self.gamma_f**apart

    def influence(self):
        if self.game.follower_sees_leader_action:
            return self.follower.value[self.s, self.l]
        return self.follower.action_value[self.s, self.l, self.a]


class GameSuffixOneEarly(GamePlain):
    """γ_F^(k-1) for γ_F^k in the suffix."""

    def suffix(self, apart):
        return self.gamma_f ** (apart - 1.0)


class GameRewardForReturn(GamePlain):
    """r_L for Q_L in the leader's own term."""

    def own_value(self):
        return self.game.reward_leader[self.s, self.l, self.a]


class GameOwnUndiscounted(GamePlain):
    """No γ_L^t in the leader's own term."""

    def own_weight(self):
        return np.ones(self.s.shape)


class GameSuffixAtLeader(GamePlain):
    """γ_L for γ_F in the suffix."""

    def suffix(self, apart):
        return self.gamma_l**apart


class GameCentredByLeader(GamePlain):
    """The benefit is centred over the leader's actions: Q_L - Σ_l f Q_L."""

    def benefit(self):
        mean = np.einsum("sl,sla->sa", self.policy, self.action_value)
        return self.action_value[self.s, self.l, self.a] - mean[self.s, self.a]


class GameFollowerRewards(GamePlain):
    """The follower's reward r_F for its value in the suffix."""

    def influence(self):
        return self.game.reward_follower[self.s, self.l, self.a]


class QuadraticPlain:
    """BC-HG for configurable LQRs, by the same weights as for tables. Right but for what is cut."""

    def __call__(self, trajectories, context):
        self.problem, self.critic, self.follower = context.problem, context.critic, context.follower
        self.context, self.batch, self.steps = context, trajectories, trajectories.steps
        self.gamma_l, self.gamma_f = self.problem.discount_leader, self.problem.discount_follower
        self.beta, self.t = self.problem.temperature, trajectories.time_in_episode
        x, a, x1 = trajectories.state_t, trajectories.action_t, trajectories.state_tp1
        self.x, self.a, self.x1 = x, a, x1
        apart = np.arange(self.steps)[None, :] - np.arange(self.steps)[:, None]
        outer = self.gamma_l**self.t * (self.critic.action_value(x, a) - self.critic.value(x)) * self.scale()
        later = np.einsum("mt,tk->mk", outer, np.where(apart >= 0, self.suffix(np.maximum(apart, 0)), 0.0))
        weights = {
            "log_initial": trajectories.episode_starts * self.initial(),
            "reward_leader": self.direct(),
            "reward_follower": later,
            "log_transition": self.transition() + later * self.gamma_f * self.follower.value_at(x1),
        }
        rows = self.problem.pullback(context.theta, trajectories, weights, per_stream=True)
        return rows + self.problem.regulariser_gradient(context.theta)

    def scale(self):
        return 1.0 / self.beta

    def suffix(self, apart):
        return self.gamma_f**apart

    def initial(self):
        return self.critic.value(self.x)

    def direct(self):
        return self.gamma_l**self.t

    def transition(self):
        return self.gamma_l**self.t * self.gamma_l * self.critic.value(self.x1)


class QuadraticHalfTemperature(QuadraticPlain):
    """1/(2β) for 1/β: the temperature is read off the covariance β/2 S^-1 wrongly."""

    def scale(self):
        return 0.5 / self.beta


class QuadraticNoDiscountAhead(QuadraticPlain):
    """V_L(x') for γ_L V_L(x') in the transition term."""

    def transition(self):
        return self.gamma_l**self.t * self.critic.value(self.x1)


class QuadraticShortSuffix(QuadraticPlain):
    """The suffix is the step's own term alone."""

    def suffix(self, apart):
        return np.where(apart == 0, 1.0, 0.0)


class QuadraticDirectMean(QuadraticPlain):
    """The direct term is a mean over the steps where it should be a sum."""

    def direct(self):
        return self.gamma_l**self.t / self.steps


CONFIGURABLE = (
    HalfResponse, AveragedSuffix, SuffixStartsAtOne, GuidingOneLate, WholeNormalisedByFollower, DirectAtFollower,
    TransitionAtFollower, GuidingAtFollower, TransitionFactorOfFollower, SuffixFactorOfLeader, LeaderValueInSuffix,
    FollowerValueInTransition, DirectMean, InitialReward, InitialOneLate, TransitionReward, FollowerAdvantage,
    RewardAdvantage, PolicyTwice, SuffixFromTheStart, DirectDiscountedBackwards, ValueTwoAhead, DirectOneLate,
    DirectWithoutFirst, HalfRegulariser, RegulariserForEver, LogMeanExp, TemperatureOne, OwnRewardOnly,
    PositiveBenefits,
)  # fmt: skip
GAMES = (
    GameSuffixOneEarly, GameRewardForReturn, GameOwnUndiscounted, GameSuffixAtLeader, GameCentredByLeader,
    GameFollowerRewards,
)  # fmt: skip
QUADRATIC = (QuadraticHalfTemperature, QuadraticNoDiscountAhead, QuadraticShortSuffix, QuadraticDirectMean)
