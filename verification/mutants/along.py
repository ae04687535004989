"""One estimator for all four kinds of problem, with switches that plant one error each.

`TraceFormula(problem=kind)` is right: with w_t = γ_L^t and the benefit B_t, and

    E_k = Σ_{t ≤ k} γ_F^(k-t) w_t B_t     over the steps t of the same episode,                                     (1)

a stream's row is the mean over its episodes of

    Σ_t w_t x_t + (1/β) Σ_k E_k y_k,                                                                                (2)

x being the leader's own terms and y those of the follower's values: in configurable problems
`∇r_L + γ_L V_L(s') ∇log P`, with `V_L(s_0) ∇log μ` once, and `∇r_F + γ_F V_F(s') ∇log P`; in games `A ∇log f` and
`(V_F(s, l) - Σ_l f V_F) ∇log f`, t < k, where the follower sees the leader's action, else with Q_F. Nothing stands for
what comes after a cut. It shares no code with the package's estimators but the derivatives of the problem and the
critic that it is given. Every field is one place for a slip; its default is right.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from bilevelrl.estimators import Context, TableCritic, Trajectories
from bilevelrl.reference import ConfigurableMDP, LQRGame, MarkovGame, solve_follower
from bilevelrl.reference.arrays import BoolArray, FloatArray
from bilevelrl.reference.errors import UnsupportedError
from bilevelrl.reference.problem import Part, Term

__all__ = ["TraceFormula"]


@dataclass(frozen=True, kw_only=True)
class TraceFormula:
    """An estimator (trajectories, context) → {part: rows}, right unless a switch is set.

    Parameters
    ----------
    name
        In tables.
    problem
        Kind of problem; others are refused.
    clock
        What counts the steps: the "episode"; the "stream"; "capped": no further than ten.
    weight, weight_in
        What stands for γ_L^t, and in which sum of (2).
    trace
        What (1) decays by; "late": γ_F^(k-t+1).
    resets
        Whether (1) stays within an episode.
    window
        Steps after which (1) is cut; None: never.
    suffix
        "sum", or "mean" over the steps of a suffix.
    lag
        In games, added to the number of steps between an action and the first leader action that matters to it.
    steps
        Which t count: "all", "not the first", "not the last", or the first "three".
    starts
        Where the score of the start counts: where an "episode" begins, or the "stream".
    average
        Over "episodes" or "steps"; "but the last": the last of several episodes is left out of the sum.
    benefit
        What multiplies (1); "stale": less the mean under the policy of another θ; "mode": of the likeliest action.
    baseline
        In games, of the leader's own term: "state_value", "none" (right as well), or "action_dependent".
    follower_value
        V_F or Q_F of y; "no entropy": Σ π Q_F; "here": of the step's own state; "leader": V_L; "over β".
    ahead
        What multiplies the leader's ∇log P; "at the end": V_L of the state before, where the process ended.
    direct_at
        Of which step ∇r_L is taken.
    reward
        Whose reward's derivative the leader's is.
    temperature_power, response, own
        Power of β and factors in (2).
    regulariser
        "once", "never", or "every step".
    precision
        "double", or "single": rows rounded to float32.
    contract
        "kept"; "accumulates": a buffer that goes on between calls; "centres": benefits less their mean in the batch.

    Examples
    --------
    >>> from bilevelrl.tasks import scenarios
    >>> from bilevelrl.verification.checks.deterministic import check_estimator
    >>> games = scenarios(kind=MarkovGame, tags="several_episodes")
    >>> right, wrong = TraceFormula(problem=MarkovGame), TraceFormula(problem=MarkovGame, clock="stream")
    >>> [any(result.failed for result in check_estimator(formula, games)) for formula in (right, wrong)]
    [False, True]
    """

    name: str = "trace formula"
    problem: type = ConfigurableMDP
    clock: Literal["episode", "stream", "capped"] = "episode"
    weight: Literal["γ_L^t", "1", "γ_F^t", "γ_L^(t+1)", "over 1-γ_L", "sum to one"] = "γ_L^t"
    weight_in: Literal["both", "own", "response"] = "both"
    trace: Literal["γ_F", "γ_L", "1", "late"] = "γ_F"
    resets: bool = True
    window: int | None = None
    suffix: Literal["sum", "mean"] = "sum"
    lag: int = 0
    steps: Literal["all", "not the first", "not the last", "three"] = "all"
    starts: Literal["episode", "stream"] = "episode"
    average: Literal["episodes", "steps", "but the last"] = "episodes"
    benefit: Literal["advantage", "action value", "value", "clipped", "positive", "sign", "stale", "mode"] = "advantage"
    baseline: Literal["state_value", "none", "action_dependent"] = "state_value"
    follower_value: Literal["value", "no entropy", "here", "leader", "over β", "log-mean-exp"] = "value"
    ahead: Literal["γ_L V_L", "V_L", "γ_F V_L", "γ_L V_F", "at the end"] = "γ_L V_L"
    direct_at: Literal["step", "next"] = "step"
    reward: Literal["leader", "follower"] = "leader"
    temperature_power: int = -1
    response: float = 1.0
    own: float = 1.0
    regulariser: Literal["once", "never", "every step"] = "once"
    precision: Literal["double", "single"] = "double"
    contract: Literal["kept", "accumulates", "centres"] = "kept"
    _buffer: list[FloatArray] = field(default_factory=list, init=False, repr=False, compare=False)

    def __call__(self, trajectories: Trajectories, context: Context) -> dict[str, FloatArray]:
        """Return {part: rows (M, N)}."""
        problem: Any = context.problem
        theta = context.theta
        if not issubclass(type(problem), self.problem):
            raise UnsupportedError(f"{self.name}: expected a {self.problem.__name__}, got {type(problem).__name__}")
        begins = trajectories.episode_starts
        episode = begins.cumsum(axis=1) - 1
        time = trajectories.time_in_episode if self.clock == "episode" else np.arange(trajectories.steps)
        time = np.minimum(time, 10) if self.clock == "capped" else time
        counted = trajectories.valid & self._counted(trajectories, episode)
        own = self.own * self._weight("own", problem, time, counted)
        guided = self._weight("response", problem, time, counted) * self._benefit(trajectories, context)
        traced = np.einsum("mt,mtk->mk", guided, self._kernel(trajectories, context, episode))  # (1)
        traced = np.where(trajectories.valid, traced, 0.0) * problem.temperature**self.temperature_power
        if self.starts == "stream":
            begins = begins & (np.arange(trajectories.steps) == 0)
        begins = begins & counted if self.average == "but the last" else begins
        terms = self._terms(trajectories, context, own, self.response * traced, begins)
        episodes = trajectories.episode_starts.sum(axis=1, keepdims=True)
        divided = trajectories.valid.sum(axis=1, keepdims=True) if self.average == "steps" else episodes
        parts: dict[str, FloatArray] = {
            str(part): problem.pullback(theta, trajectories, weights, per_stream=True) / divided  # (2)
            for part, weights in terms.items()
        }
        times = {"once": 1.0, "never": 0.0, "every step": float(trajectories.steps)}[self.regulariser]
        slope = times * problem.regulariser_gradient(theta)
        parts["regulariser"] = np.broadcast_to(slope, (trajectories.streams, theta.size))
        if self.contract == "accumulates":
            self._buffer.append(parts["response"])
            kept = [rows for rows in self._buffer if rows.shape == parts["response"].shape]
            parts["response"] = np.sum(kept, axis=0)
        if self.precision == "single":
            parts = {part: rows.astype(np.float32).astype(np.float64) for part, rows in parts.items()}
        return parts

    def _counted(self, trajectories: Trajectories, episode: Any) -> BoolArray:
        """Steps t that the sums of (2) run over, (M, T)."""
        time = trajectories.time_in_episode
        if self.average == "but the last":
            last = np.where(trajectories.valid, episode, 0).max(axis=1, keepdims=True)
            return np.asarray((episode < last) | (last == 0))
        kept = {
            "all": np.ones(time.shape, dtype=np.bool_),
            "not the first": time > 0,
            "not the last": ~(trajectories.terminated | trajectories.truncated),
            "three": time < 3,
        }
        return np.asarray(kept[self.steps])

    def _weight(self, which: str, problem: Any, time: Any, counted: BoolArray) -> FloatArray:
        """What stands for w_t in one of the sums of (2), (M, T)."""
        leader, follower = problem.discount_leader, problem.discount_follower
        right = np.broadcast_to(leader**time, counted.shape) * counted
        if self.weight_in not in ("both", which):
            return right
        if self.weight == "sum to one":
            return np.asarray(right / np.maximum(right.sum(axis=1, keepdims=True), 1e-300))
        wrong: dict[str, Any] = {
            "γ_L^t": right,
            "1": 1.0,
            "γ_F^t": follower**time,
            "γ_L^(t+1)": leader * right,
            "over 1-γ_L": right / (1.0 - leader),
        }
        return np.asarray(wrong[self.weight] * counted, dtype=np.float64)

    def _kernel(self, trajectories: Trajectories, context: Context, episode: Any) -> FloatArray:
        """The powers of (1), (M, t, k)."""
        problem = context.problem
        decay = {"γ_L": problem.discount_leader, "1": 1.0}.get(self.trace, problem.discount_follower)
        apart = np.arange(trajectories.steps)[None, :] - np.arange(trajectories.steps)[:, None]
        nearest = self.lag + int(getattr(problem, "follower_sees_leader_action", False))
        seen = (apart >= max(0, nearest)) & (apart < (self.window or trajectories.steps))
        power = np.where(seen, decay ** np.maximum(apart + (self.trace == "late"), 0), 0.0)
        inside = (episode[:, :, None] == episode[:, None, :]) | (not self.resets)
        kernel = power * inside
        if self.suffix == "mean":
            summed = (inside & (apart >= 0) & trajectories.valid[:, None, :]).sum(axis=2, keepdims=True)
            kernel = kernel / np.maximum(summed, 1)
        return np.asarray(kernel)

    def _benefit(self, trajectories: Trajectories, context: Context) -> FloatArray:
        """What multiplies the trace, (M, T)."""
        critic: Any = context.critic
        if self.benefit == "stale":
            critic = _stale(context)
        elif self.benefit == "mode":
            trajectories = _likeliest(trajectories, context)
        state, action = trajectories.state_t, trajectories.action_t
        seen = {} if trajectories.leader_action_t is None else {"leader_action": trajectories.leader_action_t}
        if self.benefit == "value":
            return np.asarray(critic.value(state))
        if self.benefit == "action value":
            return np.asarray(critic.action_value(state, action, **seen))
        found: FloatArray
        found = critic.benefit_t(trajectories) if seen else critic.action_value(state, action) - critic.value(state)
        if self.contract == "centres":
            return np.asarray(found - found[trajectories.valid].mean())
        bent = {"clipped": np.clip(found, -3.0, 3.0), "positive": np.maximum(found, 0.0), "sign": np.sign(found)}
        return bent.get(self.benefit, found)

    def _terms(
        self, trajectories: Trajectories, context: Context, own: FloatArray, traced: FloatArray, begins: BoolArray
    ) -> dict[Part, dict[Term, FloatArray]]:
        """{part: {term: weights}} of both sums of (2)."""
        problem: Any = context.problem
        critic: Any = context.critic
        if isinstance(problem, (MarkovGame, LQRGame)):
            advantage = critic.advantage_t(trajectories, baseline=self.baseline)
            return {
                "policy": {"log_policy_leader": own * advantage},
                "response": {"log_policy_leader": traced * self._worth(trajectories, context)},
            }
        at, after, leader = trajectories.state_t, trajectories.state_tp1, problem.discount_leader
        value, of_follower = critic.value(after), self._follower_value(trajectories, context)
        if self.ahead == "at the end":
            value = np.where(trajectories.terminated, critic.value(at), value)
        ahead = {"V_L": value, "γ_F V_L": problem.discount_follower * value, "γ_L V_F": leader * of_follower}
        paid = own if self.direct_at == "step" else np.pad(own[:, :-1], ((0, 0), (1, 0))) * trajectories.valid
        whose: Term = "reward_leader" if self.reward == "leader" else "reward_follower"
        return {
            "initial": {"log_initial": begins * critic.value(at)},
            "direct": {whose: paid},
            "transition": {"log_transition": own * ahead.get(self.ahead, leader * value)},
            "response": {
                "reward_follower": traced,
                "log_transition": traced * problem.discount_follower * of_follower,
            },
        }

    def _follower_value(self, trajectories: Trajectories, context: Context) -> FloatArray:
        """What stands for V_F(s_t+1) in a configurable problem, (M, T)."""
        follower, after = context.follower, trajectories.state_tp1
        critic: Any = context.critic
        if self.follower_value == "leader":
            return np.asarray(critic.value(after))
        read = trajectories.state_t if self.follower_value == "here" else after
        scale = 1.0 / context.problem.temperature if self.follower_value == "over β" else 1.0
        if not isinstance(context.problem, ConfigurableMDP):
            return np.asarray(scale * follower.value_at(read))
        table = np.asarray(follower.value)
        if self.follower_value == "no entropy":
            table = (np.asarray(follower.policy) * np.asarray(follower.action_value)).sum(axis=1)
        elif self.follower_value == "log-mean-exp":
            table = table - context.problem.temperature * np.log(follower.policy.shape[1])
        return np.asarray(scale * np.append(table, 0.0)[read])

    def _worth(self, trajectories: Trajectories, context: Context) -> FloatArray:
        """What a leader action is worth to the follower in a game, less its mean, (M, T)."""
        problem, follower = context.problem, context.follower
        critic: Any = context.critic
        scale = 1.0 / problem.temperature if self.follower_value == "over β" else 1.0
        if self.follower_value == "leader":
            return np.asarray(critic.advantage_t(trajectories, baseline="state_value"))
        state, leader_action = trajectories.state_t, trajectories.leader_action_t
        if isinstance(problem, LQRGame):
            return np.asarray(scale * (follower.value_at(state, leader_action) - follower.value_at(state)))
        table, mean = np.asarray(follower.action_value), problem.policy_at(context.theta)
        if problem.follower_sees_leader_action:
            value = (follower.policy * table).sum(axis=2) if self.follower_value == "no entropy" else follower.value
            table = np.broadcast_to(np.asarray(value)[:, :, None], table.shape)
        table = table - np.einsum("sl,sla->sa", mean, table)[:, None]
        return np.asarray(scale * table[state, leader_action, trajectories.action_t])


_ELSEWHERE = 0.2
"""How far from θ a policy is that is stale."""


def _stale(context: Context) -> Any:
    """The critic's action values, averaged over the follower of an earlier θ."""
    before = solve_follower(context.problem, context.theta - _ELSEWHERE)
    critic: Any = context.critic
    if isinstance(context.problem, ConfigurableMDP):
        return TableCritic(action_values=critic.action_values[0], policy=before.policy)
    if isinstance(context.problem, MarkovGame):
        return replace(critic, response=before.policy)
    return replace(critic, follower=before)


def _likeliest(trajectories: Trajectories, context: Context) -> Trajectories:
    """The same visits with the follower's likeliest action in place of the one that was drawn."""
    policy, state = getattr(context.follower, "policy", None), trajectories.state_t
    if policy is None:
        return replace(trajectories, action_t=context.follower.mean(state, trajectories.leader_action_t))
    best = np.asarray(policy).argmax(axis=-1)
    return replace(trajectories, action_t=best[state] if best.ndim == 1 else best[state, trajectories.leader_action_t])
