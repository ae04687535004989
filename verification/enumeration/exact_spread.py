"""Exact mean and variance of estimators along one trajectory, without listing trajectories.

The estimate is built up forwards in time from a trace e and a sum Y,

    e_t = ρ e_{t-1} + i_t(s_t, a_t),      Y_{t+1} = Y_t + e_t g_t(s_t, a_t, s_{t+1}) + u_t(s_t, a_t, s_{t+1}),

with i the impulse of the benefit, g the follower's derivative of one step with what completes it, and u the leader's
own terms less the baseline. What is still to come has a mean that is affine in the trace, a_t(s) + e_{t-1} b_t(s), with

    b_t(s) = E[ρ (g_t + b_{t+1}(s'))],      a_t(s) = E[i_t (g_t + b_{t+1}(s')) + u_t + a_{t+1}(s')],              (1)

so each step moves the conditional mean of the estimate by D_t = A_t + e_{t-1} B_t, where

    A_t = i_t (g_t + b_{t+1}(s')) + u_t + a_{t+1}(s') - a_t(s),      B_t = ρ (g_t + b_{t+1}(s')) - b_t(s).        (2)

The D_t are uncorrelated with each other and with the start: variances add up,

    Var Y_T = Var(Y_0 + a_0(s_0)) + Σ_t E[D_t²],                                                                 (3)

and E[1(s)], E[e 1(s)], E[e² 1(s)] are all that E[D_t²] asks for. Nothing large is subtracted from something large where
the estimate hardly varies. One pass over the kernel's outcomes per step and direction, for any number of trajectories
and however long. Enumeration says the same where it can list them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from bilevelrl.estimators import BCHG, Context, Draw, Estimator, LambdaBCHG, LeaderCritic
from bilevelrl.estimators.sampling import TransitionVisits
from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.arrays import FloatArray, IntArray
from bilevelrl.reference.doors import Steps, checked, checked_record
from bilevelrl.reference.errors import UnsupportedError
from bilevelrl.reference.tabular import ROW_SUM_TOLERANCE, to_dense

__all__ = ["ExactSpread", "exact_spread"]


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True)
class ExactSpread:
    """Moments of one trajectory's estimate.

    Attributes
    ----------
    mean, variance : (N,)
        Of each component.
    """

    mean: FloatArray
    variance: FloatArray

    @property
    def root_mean_square(self) -> float:
        """Root of the summed variances: the r.m.s. distance of an estimate from its mean."""
        return float(np.sqrt(self.variance.sum()))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcomes:
    """All outcomes of positive probability: where from, where to (S is the end), derivatives (M, N)."""

    state: IntArray
    action: IntArray
    after: IntArray
    probability: FloatArray  # of action and outcome, given the state
    reward_leader: FloatArray
    reward_follower: FloatArray
    score: FloatArray

    @classmethod
    def of(cls, context: Context) -> _Outcomes:
        problem, policy = context.problem, context.follower.policy
        kernel = np.asarray(to_dense(problem.tables_at(context.theta).transition))
        end = 1.0 - kernel.sum(axis=2, keepdims=True)
        kernel = np.concatenate([kernel, np.where(end > ROW_SUM_TOLERANCE, end, 0.0)], axis=2)
        kernel = kernel / kernel.sum(axis=2, keepdims=True)
        state, action, after = np.nonzero(kernel)
        visits = TransitionVisits(state_t=state[:, None], action_t=action[:, None], state_tp1=after[:, None])
        ones = np.ones((state.size, 1))

        def slope(term: str) -> FloatArray:
            rows = problem.pullback(context.theta, visits, {term: ones}, per_stream=True)
            return np.asarray(rows, dtype=np.float64)

        return cls(
            state=state,
            action=action,
            after=after,
            probability=policy[state, action] * kernel[state, action, after],
            reward_leader=slope("reward_leader"),
            reward_follower=slope("reward_follower"),
            score=slope("log_transition"),
        )


@checked
def exact_spread(estimator: Estimator, context: Context, *, horizon: Steps) -> ExactSpread:
    """Return mean and variance of one trajectory's estimate, for streams of `horizon` steps of one episode.

    Parameters
    ----------
    estimator
        `BCHG` or `LambdaBCHG` whose critic is a table, without stopping, averages inside a batch or shortened scores.
    context
        A configurable MDP, θ, follower and critics; samples come from the problem's own model.
    horizon
        Steps of a stream.

    Raises
    ------
    UnsupportedError
        If the estimator or the problem is of another kind.
    InvalidInputError
        If the horizon is not a positive integer.

    Examples
    --------
    >>> from bilevelrl.reference import solve_follower
    >>> from bilevelrl.tasks import layered_mdp
    >>> from bilevelrl.verification import enumerate_moments
    >>> problem, theta = layered_mdp(seed=0), np.zeros(3)
    >>> context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    >>> found = exact_spread(BCHG(), context, horizon=3)
    >>> listed = enumerate_moments(BCHG(), problem, theta, horizon=3)
    >>> bool(np.allclose(np.diag(listed.covariance), found.variance, rtol=1e-12))
    True
    """
    if not isinstance(context.problem, ConfigurableMDP) or context.simulator is not None:
        raise UnsupportedError("exact_spread: expected a ConfigurableMDP that makes its own samples; sample others")
    # What else is made of them has other terms.
    if not isinstance(estimator, BCHG) or type(estimator) not in (BCHG, LambdaBCHG):
        raise UnsupportedError(
            f"estimator of type {type(estimator).__name__}: expected BCHG or LambdaBCHG; sample others"
        )
    if (
        estimator.stopping is not None
        or estimator.draw is Draw.BATCH
        or estimator.critic in ("monte_carlo", "independent")
        or estimator.largest_score is not None
    ):
        raise UnsupportedError(
            f"{estimator.name}: expected a table as critic, no stopping, no averages, whole scores; sample it"
        )
    return _Pass.of(estimator, context, horizon).run()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pass:
    """What one step needs."""

    estimator: BCHG
    context: Context
    horizon: int
    outcomes: _Outcomes
    decay: float  # λ
    ahead: FloatArray | None  # γ_F ∇V̂_F at the state after each outcome, (M, N)
    baseline: FloatArray | None  # b at the state before, (M, N)
    follower: FloatArray  # x of each outcome, (M, N)
    gather: Any  # (S + 1, M), sparse: 1 where an outcome leads

    @classmethod
    def of(cls, estimator: BCHG, context: Context, horizon: int) -> _Pass:
        outcomes, problem = _Outcomes.of(context), context.problem
        ahead, baseline, decay = None, None, 1.0
        if isinstance(estimator, LambdaBCHG):
            gradients = estimator.gradient_table(context)
            found = estimator.baseline_table(context, gradients)
            ahead, decay = problem.discount_follower * gradients.value(outcomes.after), estimator.trace_decay
            baseline = None if found is None else found.value(outcomes.state)
        value = np.append(context.follower.value, 0.0)[outcomes.after]
        weight = problem.discount_follower * value
        if estimator.scores == "td_error":
            rest = context.follower.action_value - problem.tables_at(context.theta).reward_follower
            weight = weight - rest[outcomes.state, outcomes.action]
        count = outcomes.after.size
        places = (outcomes.after, np.arange(count))
        gather = csr_array((np.ones(count), places), shape=(context.follower.policy.shape[0] + 1, count))
        follower = outcomes.reward_follower + weight[:, None] * outcomes.score
        return cls(
            estimator=estimator,
            context=context,
            horizon=horizon,
            outcomes=outcomes,
            decay=decay,
            ahead=ahead,
            baseline=baseline,
            follower=follower,
            gather=gather,
        )

    def run(self) -> ExactSpread:
        """Move means to come backwards through time, and the trace's moments forwards."""
        problem, theta, target = self.context.problem, self.context.theta, self.estimator.target
        tables, critic = problem.tables_at(theta), self.estimator.leader_critic(self.context)
        out, states = self.outcomes, tables.states
        every = np.arange(states)
        discount = target.discount(problem.discount_leader)
        initial = np.asarray(tables.initial, dtype=np.float64)
        first = problem.pullback(
            theta,
            TransitionVisits(state_t=every[:, None], action_t=0 * every[:, None], state_tp1=every[:, None]),
            {"log_initial": np.where(initial > 0.0, critic.value(every, steps_to_go=target.horizon), 0.0)[:, None]},
            per_stream=True,
        )
        impulse_at = partial(self._impulse, discount=discount, critic=critic)  # again on the way back: tables are large
        to_come = self._to_come(impulse_at)
        start = np.asarray(first) + to_come[0][0][:-1]
        mean = initial @ start / initial.sum()
        variance = initial @ (start - mean) ** 2  # (3)
        law, trace, trace2 = np.append(initial, 0.0), np.zeros(states + 1), np.zeros(states + 1)
        rho = self.decay * problem.discount_follower
        p, s = out.probability, out.state
        for t in range(self.horizon):
            impulse, step = impulse_at(t)
            moved, slope = self._moved(t, impulse, step, to_come)
            here = p * law[s]
            variance += here @ moved**2 + 2.0 * (p * trace[s]) @ (moved * slope) + (p * trace2[s]) @ slope**2  # (3)
            e = p * rho * trace[s] + here * impulse
            e2 = p * (rho**2 * trace2[s] + 2.0 * rho * impulse * trace[s]) + here * impulse**2
            law, trace, trace2 = (self.gather @ moment for moment in (here, e, e2))
        return ExactSpread(mean=mean + problem.regulariser_gradient(theta), variance=np.maximum(variance, 0.0))

    def _to_come(
        self, impulse_at: Callable[[int], tuple[FloatArray, FloatArray]]
    ) -> list[tuple[FloatArray, FloatArray]]:
        """Return a_t and b_t (S + 1, N) for t = 0 .. T; zero where the episode or the stream is over."""
        out = self.outcomes
        nothing = np.zeros((self.gather.shape[0], self.follower.shape[1]))
        found = [(nothing, nothing)]
        leave = csr_array((out.probability, (out.state, np.arange(out.state.size))), shape=self.gather.shape)
        rho = self.decay * self.context.problem.discount_follower
        for t in reversed(range(self.horizon)):
            impulse, step = impulse_at(t)
            (rest, per_trace), gain = found[0], self._gain(t)
            gain = gain + per_trace[out.after]
            mean = np.asarray(leave @ (impulse[:, None] * gain + step + rest[out.after]))  # (1)
            found.insert(0, (mean, rho * np.asarray(leave @ gain)))  # (1)
        return found

    def _moved(
        self, t: int, impulse: FloatArray, step: FloatArray, to_come: list[tuple[FloatArray, FloatArray]]
    ) -> tuple[FloatArray, FloatArray]:
        """Return A_t and B_t (M, N)."""
        out = self.outcomes
        (rest, per_trace), (rest_after, per_trace_after) = to_come[t], to_come[t + 1]
        gain = self._gain(t) + per_trace_after[out.after]
        rho = self.decay * self.context.problem.discount_follower
        moved = impulse[:, None] * gain + step + (rest_after[out.after] - rest[out.state])  # (2)
        return moved, rho * gain - per_trace[out.state]  # (2)

    def _gain(self, t: int) -> FloatArray:
        """Return g_t (M, N), with what completes a trace that ends before the episode."""
        if self.ahead is None:
            return self.follower
        share = 1.0 if t + 1 == self.horizon else 1.0 - self.decay
        return self.follower + share * self.ahead

    def _impulse(self, t: int, discount: float, critic: LeaderCritic) -> tuple[FloatArray, FloatArray]:
        """Return i (M,) and u (M, N) of step t."""
        out, target, problem = self.outcomes, self.estimator.target, self.context.problem
        to_go = None if target.horizon is None else max(target.horizon - t, 0)
        after = None if to_go is None else max(to_go - 1, 0)
        pay = 0.0 if to_go == 0 else discount**t
        action_value = critic.action_value(out.state, out.action, steps_to_go=to_go)
        benefit = action_value - critic.value(out.state, steps_to_go=to_go)
        ahead = discount * critic.value(out.after, steps_to_go=after)
        if self.estimator.scores == "td_error":
            reward = problem.tables_at(self.context.theta).reward_leader[out.state, out.action]
            ahead = ahead - (action_value - reward)
        step = pay * (out.reward_leader + ahead[:, None] * out.score)
        impulse = pay * benefit / problem.temperature
        if self.baseline is not None:
            step = step - impulse[:, None] * self.baseline
        return impulse, step
