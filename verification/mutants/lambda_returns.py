"""Wrong λ-returns and wrong baselines: the plain formula with a critic of ∇V_F, and switches that plant one error each.

`LambdaFormula()` is right: n-step sums completed by the exact ∇V_F, written out as a mixture, less a baseline that
depends on the state alone. It shares no code with the package's λ-returns, which are traces.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bilevelrl.estimators import Context, Trajectories
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import UnsupportedError
from bilevelrl.verification.mutants.sample import SampleFormula

__all__ = ["LAMBDA_SLIPS", "LambdaFormula"]


@dataclass(frozen=True, kw_only=True)
class LambdaFormula(SampleFormula):
    """An estimator (trajectories, context) → {part: rows}, right unless a switch is set.

    Parameters
    ----------
    trace_decay
        λ.
    mixture
        Weights of the n-step sums: "λ": (1-λ) λ^(n-1), and the rest on the last; "no rest": without the rest on the
        last; "not normalised": λ^(n-1); "late": (1-λ) λ^n.
    bootstrap_discount
        Of the critic at the end of an n-step sum: "follower", "leader", or "none".
    bootstrap_at
        Where it is read: at the state reached, or "here": at the step's own state.
    after_end
        What a termination is worth: "zero", or "last": the last state's value.
    baseline
        "state": twice ∇V_F(s), a multiple that nothing asks for; "action": ∇V_F(s) times the probability of the action
        that was taken; "none".

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> from bilevelrl.verification.checks.deterministic import check_estimator
    >>> [result.failed for result in check_estimator(LambdaFormula(), [scenario("gamble")])]
    [False, False, False]
    >>> [result.failed for result in check_estimator(LambdaFormula(baseline="action"), [scenario("gamble")])]
    [False, True, True]
    """

    name: str = "sample formula, λ-returns"
    trace_decay: float = 0.6
    mixture: Literal["λ", "no rest", "not normalised", "late"] = "λ"
    bootstrap_discount: Literal["follower", "leader", "none"] = "follower"
    bootstrap_at: Literal["next", "here"] = "next"
    after_end: Literal["zero", "last"] = "zero"
    baseline: Literal["state", "action", "none"] = "state"

    def _action_gradient(
        self,
        trajectories: Trajectories,
        context: Context,
        model: Any,
        score: FloatArray,
        valid: FloatArray,
        ahead_index: Any,
    ) -> FloatArray:
        if int(trajectories.episode_starts.sum(axis=1).max()) > 1:
            raise UnsupportedError(f"{self.name}: expected one episode per stream")
        problem = context.problem
        own = problem.discount_follower
        front = {"follower": own, "leader": problem.discount_leader, "none": 1.0}[self.bootstrap_discount]
        s, a, s1 = trajectories.state_t, trajectories.action_t, trajectories.state_tp1
        value = np.append(np.asarray(context.follower.value), 0.0)
        x = model.tables.d_reward_follower[s, a] + own * value[s1][..., None] * score
        x = x * valid[..., None]
        ends = model.d_value[-1:] if self.after_end == "last" else np.zeros((1, context.theta.size))
        critic = np.concatenate([model.d_value, ends])[s if self.bootstrap_at == "here" else s1] * valid[..., None]
        steps = trajectories.steps
        last = np.where(valid > 0.0, np.arange(steps), -1).max(axis=1)  # of each stream's only episode
        result: FloatArray = np.zeros_like(x)
        for t in range(steps):
            sums = np.zeros_like(x[:, 0])
            for n in range(1, steps - t + 1):
                k = t + n - 1
                sums = sums + own ** (n - 1) * x[:, k]
                completed = sums + front * own ** (n - 1) * critic[:, k]
                result[:, t] += self._share(n, k - last)[:, None] * completed
        if self.baseline == "state":
            result = result - 2.0 * model.d_value[s]
        elif self.baseline == "action":
            result = result - np.asarray(context.follower.policy)[s, a][..., None] * model.d_value[s]
        return result

    def _share(self, n: int, past_last: Any) -> FloatArray:
        """Weight of the n-step sum of each stream: all that is left at its last step, nothing beyond."""
        decay = self.trace_decay
        inner = {"not normalised": decay ** (n - 1), "late": (1.0 - decay) * decay**n}
        inside = inner.get(self.mixture, (1.0 - decay) * decay ** (n - 1))
        rest = inside if self.mixture == "no rest" else decay ** (n - 1)
        return np.where(past_last < 0, inside, np.where(past_last == 0, rest, 0.0))


LAMBDA_SLIPS: tuple[tuple[str, str, Callable[[], LambdaFormula]], ...] = (
    (
        "λ-return completed at γ_L",
        "γ_L^n for γ_F^n before ∇V_F",
        lambda: LambdaFormula(bootstrap_discount="leader"),
    ),
    ("λ-return completed undiscounted", "∇V_F for γ_F ∇V_F", lambda: LambdaFormula(bootstrap_discount="none")),
    ("λ-weights not normalised", "λ^(n-1) for (1-λ) λ^(n-1)", lambda: LambdaFormula(mixture="not normalised")),
    ("λ-weights one step late", "(1-λ) λ^n for (1-λ) λ^(n-1)", lambda: LambdaFormula(mixture="late")),
    ("λ-weights without the rest", "the last sum lacks the weight left", lambda: LambdaFormula(mixture="no rest")),
    ("∇V_F(s_t) for ∇V_F(s_t+1)", "critic here for critic ahead", lambda: LambdaFormula(bootstrap_at="here")),
    ("λ-return completed after the end", "the end has a gradient", lambda: LambdaFormula(after_end="last")),
    ("baseline of the action", "b(s, a) for b(s)", lambda: LambdaFormula(baseline="action")),
    ("whole suffix for λ = 0.6", "λ = 1 with the shares of 0.6: weights sum to more than one", lambda: _Undecayed()),
)
"""(name, what is wrong, maker) of each planted error."""


@dataclass(frozen=True, kw_only=True)
class _Undecayed(LambdaFormula):
    """Suffixes that do not decay, with the critic still mixed in at every step."""

    def _share(self, n: int, past_last: Any) -> FloatArray:
        rest = np.where(past_last == 0, 1.0, 0.0)
        return np.where(past_last < 0, 1.0 - self.trace_decay, rest)
