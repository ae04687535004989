"""Exact mean and variance of estimators along one trajectory, without listing trajectories.

The estimate is built up forwards in time from a trace e and a sum Y,

    e_t = ρ e_{t-1} + i_t(s_t, a_t),      Y_{t+1} = Y_t + e_t g_t(s_t, a_t, s_{t+1}) + u_t(s_t, a_t, s_{t+1}),

with i the impulse of the benefit, g the follower's derivative of one step with what completes it, and u the leader's
own terms less the baseline. Products of two of (e, Y) turn into products of two of them, so the moments

    E[1(s)], E[e 1(s)], E[e² 1(s)], E[Y 1(s)], E[Y e 1(s)], E[Y² 1(s)]

close, component by component: one pass over the kernel's outcomes per step, for any number of trajectories and however
long. Enumeration says the same where it can list them.
"""

from __future__ import annotations

from dataclasses import dataclass
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
        `BCHG` or `LambdaBCHG` whose critic is a table, without stopping or averages inside a batch.
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
    if not isinstance(estimator, BCHG):
        raise UnsupportedError(
            f"estimator of type {type(estimator).__name__}: expected BCHG or LambdaBCHG; sample others"
        )
    if (
        estimator.stopping is not None
        or estimator.draw is Draw.BATCH
        or estimator.critic in ("monte_carlo", "independent")
    ):
        raise UnsupportedError(f"{estimator.name}: expected a table as critic, no stopping, no averages; sample it")
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
        """Move all moments through time."""
        problem, theta, target = self.context.problem, self.context.theta, self.estimator.target
        tables, critic = problem.tables_at(theta), self.estimator.leader_critic(self.context)
        out, states, size = self.outcomes, tables.states, theta.size
        every = np.arange(states)
        discount = target.discount(problem.discount_leader)
        law = np.append(np.asarray(tables.initial, dtype=np.float64), 0.0)
        first = problem.pullback(
            theta,
            TransitionVisits(state_t=every[:, None], action_t=0 * every[:, None], state_tp1=every[:, None]),
            {"log_initial": np.where(law[:-1] > 0.0, critic.value(every, steps_to_go=target.horizon), 0.0)[:, None]},
            per_stream=True,
        )
        start = np.concatenate([np.asarray(first), np.zeros((1, size))]) + problem.regulariser_gradient(theta)
        trace, trace2 = np.zeros(states + 1), np.zeros(states + 1)
        total = law[:, None] * start
        total_trace, total2 = np.zeros((states + 1, size)), total * start
        rho = self.decay * problem.discount_follower
        for t in range(self.horizon):
            impulse, step = self._impulse(t, discount, critic)
            share = 1.0 if t + 1 == self.horizon else 1.0 - self.decay
            gain = self.follower if self.ahead is None else self.follower + share * self.ahead
            p, s = out.probability, out.state
            # Moments at the state before, carried to the outcome, with e_t in place of e_{t-1}.
            here = p * law[s]
            e = p * rho * trace[s] + here * impulse
            e2 = p * (rho**2 * trace2[s] + 2.0 * rho * impulse * trace[s]) + here * impulse**2
            y = p[:, None] * total[s]
            ye = rho * p[:, None] * total_trace[s] + impulse[:, None] * y
            moved_y = y + e[:, None] * gain + here[:, None] * step
            moved_ye = ye + e2[:, None] * gain + e[:, None] * step
            moved_y2 = p[:, None] * total2[s] + 2.0 * ye * gain + 2.0 * y * step
            moved_y2 += e2[:, None] * gain**2 + 2.0 * e[:, None] * gain * step + here[:, None] * step**2
            done = (law[-1], total[-1].copy(), total2[-1].copy())
            law, trace, trace2 = (self._gathered(moment) for moment in (here, e, e2))
            total, total_trace, total2 = (self._gathered(moment) for moment in (moved_y, moved_ye, moved_y2))
            law[-1] += done[0]
            total[-1] += done[1]
            total2[-1] += done[2]
        mean = total.sum(axis=0)
        return ExactSpread(mean=mean, variance=np.maximum(total2.sum(axis=0) - mean**2, 0.0))

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

    def _gathered(self, moment: FloatArray) -> FloatArray:
        """Sum over outcomes by the state after them, S being the end."""
        result: FloatArray = self.gather @ moment
        return result
