"""One estimator in plain array code, with switches that plant one error each.

`SampleFormula()` is right: the sample form of Theorem 1 (arXiv:2603.14867) as a double sum over steps and suffixes,
with the critic and the follower that it is given. Where a trajectory is truncated the suffix ends in ∇V_F of the last
state, so that it is unbiased for the objective of as many steps too. It shares no code with the package's estimators.
Every field is one place where published code or a usual slip went wrong; its default is right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bilevelrl.estimators import Context, Draw, ExactCritic, Trajectories
from bilevelrl.reference import solve_follower
from bilevelrl.reference.arrays import FloatArray, IntArray
from bilevelrl.verification.checks.identity import Identity
from bilevelrl.verification.mutants.sample_model import SampleModel, sample_model

__all__ = ["SampleFormula"]


@dataclass(frozen=True, kw_only=True)
class SampleFormula:
    """An estimator (trajectories, context) → {part: rows}, right unless a switch is set.

    Parameters
    ----------
    name
        In tables.
    leader_weight
        "γ_L^t", or what stands in its place: "1", "γ_F^t", "γ_L^(t+1)", "normalised": (1 - γ_L) γ_L^t.
    suffix_discount
        Discount between the steps of the suffix.
    suffix
        Which steps stand for ∇Q_F: "rest" of the trajectory; "late": from the next step on; "whole": earlier ones too
        (right as well); "no last": without the last one; "one step": the first only, centred over actions; "three
        steps": no further.
    visits
        Which visits count: "all"; "last of a pair": rewards added in place, `table[row, s, a] += w`, keep the last one
        only; "first of a state"; "last of a state": a dictionary keyed by states.
    follower_value
        V_F at the next state; "here": at this state; "maximum": of Q_F; "no entropy": Σ π Q_F; "stale": of another θ;
        "no discount": without γ_F in front.
    follower_score, leader_score
        Factors of ∇log P in the suffix and in the leader's term.
    leader_value
        V_L at the next state; "here"; "no discount": without γ_L; "mode": under the greedy policy.
    benefit
        What multiplies the suffix.
    guiding
        "B∇Q"; "Q(∇Q-∇V)" and "B(∇Q-∇V)": right as well, with exact ∇V_F.
    temperature_power
        -1: 1/β, 0: left out, 1: β.
    response, initial, direct
        Factors of these parts.
    regulariser
        "once", "never", or "every step".
    initial_every_step
        Weighs the score of the first state at every visit.
    leader_reward
        Whose reward is differentiated in the direct part.
    padding
        Counts the steps after the end.
    end
        "zero": nothing is earned after the end; "wraps": V of the end is read at index -1, the last state.
    truncation
        "bootstrap": the suffix ends in ∇V_F, for the objective of T steps; "tail": and the leader's terms in
        γ_L^T ∇V_L, for the infinite one (right as well, with its critic); "termination": a cut is treated as an end;
        "infinite": the critic is of the infinite horizon.
    scores_of
        Share of the action average that is mixed into the kernel whose scores are used.
    precision
        In which sums are accumulated.
    clip
        Rescales each score to norm 1 where it is larger.
    batch
        "none"; "same batch": the critic's table is the mean return of each visited pair of the same batch, 0 where none
        was seen; "finished": the sum is divided by the number of episodes that ended; "pairs": ∇Q_F is the average over
        all visits of the same state and action in the batch.
    contract
        "kept"; "mean": every row is the batch's mean; "random": adds numbers from a generator of its own; "writes":
        changes its input; "nan"; "normalises": divides benefits by their standard deviation over the batch.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> from bilevelrl.verification.checks.deterministic import check_estimator
    >>> [result.failed for result in check_estimator(SampleFormula(), [scenario("gamble")])]
    [False, False, False]
    >>> [result.failed for result in check_estimator(SampleFormula(follower_score=0.0), [scenario("gamble")])]
    [False, True, True]
    """

    name: str = "sample formula"
    leader_weight: Literal["γ_L^t", "1", "γ_F^t", "γ_L^(t+1)", "normalised"] = "γ_L^t"
    suffix_discount: Literal["follower", "leader", "none"] = "follower"
    suffix: Literal["rest", "late", "whole", "no last", "one step", "three steps"] = "rest"
    visits: Literal["all", "last of a pair", "first of a state", "last of a state"] = "all"
    follower_value: Literal["next", "here", "maximum", "no entropy", "stale", "no discount"] = "next"
    follower_score: float = 1.0
    leader_score: float = 1.0
    leader_value: Literal["next", "here", "no discount", "mode"] = "next"
    benefit: Literal["advantage", "action value", "value", "same path", "td error", "maximum", "uniform"] = "advantage"
    guiding: Literal["B∇Q", "Q(∇Q-∇V)", "B(∇Q-∇V)"] = "B∇Q"
    temperature_power: int = -1
    response: float = 1.0
    initial: float = 1.0
    direct: float = 1.0
    regulariser: Literal["once", "never", "every step"] = "once"
    initial_every_step: bool = False
    leader_reward: Literal["leader", "follower"] = "leader"
    padding: bool = False
    end: Literal["zero", "wraps"] = "zero"
    truncation: Literal["bootstrap", "tail", "termination", "infinite"] = "bootstrap"
    scores_of: float = 0.0
    precision: Literal["double", "single"] = "double"
    clip: bool = False
    batch: Literal["none", "same batch", "finished", "pairs"] = "none"
    contract: Literal["kept", "mean", "random", "writes", "nan", "normalises"] = "kept"

    @property
    def draw(self) -> Draw:
        """One row per trajectory, or per batch where the batch is averaged."""
        return Draw.TRAJECTORY if self.batch == "none" else Draw.BATCH

    def __call__(self, trajectories: Trajectories, context: Context) -> Any:
        """Return {part: rows (M, N)}, or (1, N) for a batch."""
        if self.contract == "writes":
            trajectories.reward_leader_t[...] = 0.0
        parts = self._parts(trajectories, context)
        if self.precision == "single":
            parts = {part: rows.astype(np.float32).astype(np.float64) for part, rows in parts.items()}
        if self.batch != "none":
            ended = int((trajectories.terminated & trajectories.valid).sum())
            draws = max(1, ended) if self.batch == "finished" else trajectories.streams
            parts = {part: rows.sum(axis=0, keepdims=True) / draws for part, rows in parts.items()}
        if self.contract == "mean":
            parts = {part: np.broadcast_to(rows.mean(axis=0), rows.shape) for part, rows in parts.items()}
        if self.contract == "random":
            noise = np.random.default_rng()
            parts = {part: rows + 1e-3 * noise.standard_normal(rows.shape) for part, rows in parts.items()}
        if self.contract == "nan":
            parts = {part: rows / np.where(trajectories.terminated.any(), 0.0, 1.0) for part, rows in parts.items()}
        return parts

    def _parts(self, trajectories: Trajectories, context: Context) -> dict[str, FloatArray]:
        problem, theta = context.problem, context.theta
        model = sample_model(Identity(problem), theta.tobytes(), self.scores_of)
        tables = model.tables
        s, a, s1 = trajectories.state_t, trajectories.action_t, trajectories.state_tp1
        valid = np.ones(s.shape) if self.padding else trajectories.valid.astype(np.float64)
        weight = self._weight(problem, trajectories.time_in_episode) * valid
        in_place = weight
        if self.visits == "last of a pair":
            in_place = weight * _counted(s * tables.d_reward_leader.shape[1] + a, valid, last=True)
        elif self.visits != "all":
            weight = in_place = weight * _counted(s, valid, last=self.visits == "last of a state")
        critic, steps_to_go = self._critic(context, trajectories)
        ahead_index = s1
        if self.end == "wraps":
            ahead_index = np.where(s1 == tables.initial.size, tables.initial.size - 1, s1)
        score = model.score[s, a, s1]
        if self.clip:
            score = score / np.maximum(1.0, np.linalg.norm(score, axis=-1, keepdims=True))

        value_1 = critic.value(ahead_index, steps_to_go=steps_to_go - 1)
        if self.leader_value == "here":
            value_1 = critic.value(s, steps_to_go=steps_to_go)
        elif self.leader_value == "mode":
            modes = np.append(np.argmax(np.asarray(context.follower.policy), axis=1), 0)
            best = critic.action_value(np.minimum(s1, tables.initial.size - 1), modes[s1], steps_to_go=steps_to_go - 1)
            value_1 = np.where(s1 == tables.initial.size, 0.0, best)
        discount = 1.0 if self.leader_value == "no discount" else problem.discount_leader
        d_reward = tables.d_reward_leader if self.leader_reward == "leader" else tables.d_reward_follower
        benefit = self._benefit(trajectories, context, critic, steps_to_go, valid)
        scale = self.response * problem.temperature**self.temperature_power
        first = valid if self.initial_every_step else trajectories.episode_starts.astype(np.float64)
        start = self.initial * first * critic.value(s, steps_to_go=steps_to_go)
        gradient = self._action_gradient(trajectories, context, model, score, valid, ahead_index)
        tail = dict.fromkeys(("direct", "transition", "response"), np.zeros(theta.size))
        if self.truncation == "tail":
            # Where a trajectory was cut the rest is γ_L^T ∇V_L of its last state; elsewhere that state is the end.
            late = problem.discount_leader**trajectories.steps * trajectories.truncated[:, -1:]
            tail = {part: late * rest[s1[:, -1]] for part, rest in model.d_leader_value.items()}
        episodes = trajectories.episode_starts.sum(axis=1, keepdims=True)  # of each stream: its row is their mean
        repeats = {"once": 1.0, "never": 0.0, "every step": float(trajectories.steps)}[self.regulariser]
        return {
            "initial": np.einsum("mt,mtn->mn", start, model.score_initial[s]) / episodes,
            "direct": self.direct * np.einsum("mt,mtn->mn", in_place, d_reward[s, a]) / episodes + tail["direct"],
            "transition": self.leader_score * np.einsum("mt,mtn->mn", weight * discount * value_1, score) / episodes
            + tail["transition"],
            "response": scale * np.einsum("mt,mtn->mn", weight * benefit, gradient) / episodes + tail["response"],
            "regulariser": repeats * np.broadcast_to(tables.d_regulariser, (trajectories.streams, theta.size)),
        }

    def _weight(self, problem: Any, time: IntArray) -> FloatArray:
        own, other = problem.discount_leader, problem.discount_follower
        weights: dict[str, FloatArray] = {
            "γ_L^t": own**time,
            "1": np.ones(time.shape),
            "γ_F^t": other**time,
            "γ_L^(t+1)": own ** (time + 1),
            "normalised": (1.0 - own) * own**time,
        }
        return weights[self.leader_weight]

    def _critic(self, context: Context, trajectories: Trajectories) -> tuple[Any, IntArray]:
        """The critic, and the steps to go; over an infinite horizon the latter are not read."""
        to_go = trajectories.steps - trajectories.time_in_episode
        critic: Any = context.critic
        if self.truncation == "infinite":
            critic = ExactCritic.solve(context.problem, context.theta, np.asarray(context.follower.policy))
        return critic, to_go

    def _benefit(
        self, trajectories: Trajectories, context: Context, critic: Any, to_go: IntArray, valid: FloatArray
    ) -> FloatArray:
        s, a, s1 = trajectories.state_t, trajectories.action_t, trajectories.state_tp1
        policy = np.asarray(context.follower.policy)
        action_value = critic.action_value(s, a, steps_to_go=to_go)
        value = critic.value(s, steps_to_go=to_go)
        every = np.stack(
            [critic.action_value(s, np.full_like(s, b), steps_to_go=to_go) for b in range(policy.shape[1])], axis=-1
        )
        ahead = context.problem.discount_leader * critic.value(s1, steps_to_go=to_go - 1)
        if self.batch == "same batch":
            return self._batch_benefit(trajectories, context)
        raw = self.benefit == "action value" or self.guiding == "Q(∇Q-∇V)"
        kinds: dict[str, FloatArray] = {
            "advantage": action_value - value,
            "value": value,
            "same path": self._path_returns(trajectories, context, critic) - value,
            "td error": trajectories.reward_leader_t + ahead - value,
            "maximum": action_value - every.max(axis=-1),
            "uniform": action_value - every.mean(axis=-1),
        }
        benefit = action_value if raw else kinds[self.benefit]
        if self.contract == "normalises":
            spread = float(np.std(benefit[valid > 0.0]))
            benefit = benefit / (spread if spread > 0.0 else 1.0)
        return benefit

    def _path_returns(self, trajectories: Trajectories, context: Context, critic: Any) -> FloatArray:
        discount = context.problem.discount_leader
        returns = _returns(trajectories, discount)
        if self.truncation == "tail":
            left = trajectories.steps - np.arange(trajectories.steps)
            last = trajectories.truncated[:, -1] * critic.value(trajectories.state_tp1[:, -1])
            returns = returns + discount**left * last[:, None]
        return returns

    def _batch_benefit(self, trajectories: Trajectories, context: Context) -> FloatArray:
        policy = np.asarray(context.follower.policy)
        returns = _returns(trajectories, context.problem.discount_leader)
        total, visits = np.zeros(policy.shape), np.zeros(policy.shape)
        seen = trajectories.valid
        pairs = (trajectories.state_t[seen], trajectories.action_t[seen])
        np.add.at(total, pairs, returns[seen])
        np.add.at(visits, pairs, 1.0)
        table = total / np.maximum(visits, 1.0)
        value = (policy * table).sum(axis=1)
        result: FloatArray = (table - value[:, None])[trajectories.state_t, trajectories.action_t]
        return result

    def _action_gradient(
        self,
        trajectories: Trajectories,
        context: Context,
        model: SampleModel,
        score: FloatArray,
        valid: FloatArray,
        ahead_index: Any,
    ) -> FloatArray:
        """What stands for ∇Q_F(s_t, a_t), (M, T, N)."""
        problem = context.problem
        s, a = trajectories.state_t, trajectories.action_t
        value = np.append(self._value(context, model), 0.0)
        read = value[s] if self.follower_value == "here" else value[ahead_index]
        front = 1.0 if self.follower_value == "no discount" else problem.discount_follower
        step = model.tables.d_reward_follower[s, a] + self.follower_score * front * read[..., None] * score
        step = step * valid[..., None]
        if self.suffix == "one step":
            policy = np.asarray(context.follower.policy)
            mean = np.einsum("sa,san->sn", policy, model.tables.d_reward_follower)
            return np.asarray(model.tables.d_reward_follower[s, a] - mean[s])
        if self.truncation != "termination":
            tail = np.concatenate([model.d_value, np.zeros((1, context.theta.size))])[trajectories.state_tp1]
            step = step + problem.discount_follower * trajectories.truncated[..., None] * tail
        between = {"follower": problem.discount_follower, "leader": problem.discount_leader, "none": 1.0}
        apart = np.arange(trajectories.steps)[None, :] - np.arange(trajectories.steps)[:, None]
        weights = np.where(apart >= 0, between[self.suffix_discount] ** np.maximum(apart, 0), 0.0)
        if self.suffix == "late":
            weights = np.where(apart >= 1, weights, 0.0)
        elif self.suffix == "three steps":
            weights = np.where(apart < 3, weights, 0.0)
        elif self.suffix == "whole":
            weights = np.where(apart < 0, 1.0, weights)
        elif self.suffix == "no last":
            last = trajectories.terminated | trajectories.truncated
            step = np.where(last[..., None], 0.0, step)
        gradient: FloatArray = np.einsum("tk,mkn->mtn", weights, step)
        if int(trajectories.episode_starts.sum(axis=1).max()) > 1:
            episode = trajectories.episode_starts.cumsum(axis=1)
            inside = weights * (episode[:, :, None] == episode[:, None, :])
            gradient = np.einsum("mtk,mkn->mtn", inside, step)
        if self.batch == "pairs":
            gradient = _over_visits(gradient, s * context.follower.policy.shape[1] + a, valid)
        if self.guiding != "B∇Q":
            gradient = gradient - model.d_value[s]
        return gradient

    def _value(self, context: Context, model: SampleModel) -> FloatArray:
        action_value, policy = np.asarray(context.follower.action_value), np.asarray(context.follower.policy)
        if self.follower_value == "maximum":
            result: FloatArray = action_value.max(axis=1)
            return result
        if self.follower_value == "no entropy":
            return np.asarray((policy * action_value).sum(axis=1))
        if self.follower_value == "stale":
            return np.asarray(solve_follower(context.problem, context.theta - 0.2).value)
        return np.asarray(context.follower.value)


def _returns(trajectories: Trajectories, discount: float) -> FloatArray:
    """Discounted rewards from each step to the end of the trajectory."""
    apart = np.arange(trajectories.steps)[None, :] - np.arange(trajectories.steps)[:, None]
    weights = np.where(apart >= 0, discount ** np.maximum(apart, 0), 0.0)
    result: FloatArray = (trajectories.reward_leader_t * trajectories.valid) @ weights.T
    return result


def _counted(visited: IntArray, valid: FloatArray, *, last: bool) -> FloatArray:
    """One at the first or the last valid visit of each place in a row (M, T), zero at the others."""
    same = (visited[:, :, None] == visited[:, None, :]) & (valid[:, None, :] > 0.0)
    other = np.triu(same, 1) if last else np.tril(same, -1)
    result: FloatArray = np.where(other.any(axis=2), 0.0, 1.0)
    return result


def _over_visits(values: FloatArray, pair: IntArray, valid: FloatArray) -> FloatArray:
    """Replace values (M, T, N) by their average over all valid steps of the same pair."""
    result = values.copy()
    for which in np.unique(pair[valid > 0.0]):
        here = (pair == which) & (valid > 0.0)
        result[here] = values[here].mean(axis=0)
    return result
