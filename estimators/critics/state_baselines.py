"""State-dependent baselines of the gradient that multiplies the leader's benefit, and the ones of least variance.

The guiding term `(1/β) Σ_t w_t B(s_t, a_t) G_t`, with w_t = γ_L^t and G_t any suffix or λ-return of ∇Q_F, keeps its
mean when G_t becomes G_t - b(s_t). Proof: given s_t and all before it, b(s_t) is a constant and a_t ~ π(.|s_t), so

    E[ w_t B(s_t, a_t) b(s_t) | s_0, a_0, ..., s_t ] = w_t b(s_t) Σ_a π(a|s_t) B(s_t, a) = 0,

because B = Q_L - V_L with V_L = Σ_a π Q_L, whatever table Q_L is, as long as it was not learnt from the same samples.
A baseline that depends on the action does not come out of the sum over a, and moves the mean.

What is taken away is `Σ_s b(s) Z_s` with `Z_s = (1/β) Σ_t w_t B_t 1(s_t = s)`. The same argument, given the later of
two steps, shows E[Z_s] = 0 and E[Z_s Z_s'] = 0 for s ≠ s', with no products of different times in E[Z_s²]. So the
variance of each component of an estimate X - Σ_s b(s) Z_s is a sum of parabolas, one per state, least at

    "estimate":   b(s) = E[X Z_s] / E[Z_s²],                                                                         (1)

where X is the whole estimate, its other parts included. A parabola that looks at each step of the guiding term alone,
and at nothing that the step shares with others, is least at

    "step":       b(s) = Σ_a π B² ∇Q_F / Σ_a π B²,                                                                   (2)

and "value" is b = ∇V_F, the doubly centred form. Each component of θ has its own minimum: b(s) is a vector.

For "estimate", steps before t are known at t and contribute nothing; the trace e_{t-1} that comes in multiplies ρ G_t,
ρ = γ_F λ; and what starts at t is worth h(s, a), the derivative of the leader's value at (s, a):

    E[X Z_s] = (1/β) Σ_a π B [ ρ M(s) q(s,a) + D(s) h(s,a) ],      E[Z_s²] = (1/β²) D(s) Σ_a π B²,                   (3)
    D = Σ_t w_t² Pr(s_t = .),      M = Σ_t w_t E[e_{t-1} 1(s_t = .)],     q = E[G | s, a],                           (4)
    h = ∇r_L + γ_L Σ ∇P V_L + (1/β) B q + γ_L P (π h),                                                               (5)

three linear systems, for trajectories that are not cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from bilevelrl.estimators.critics.gradient_tables import (
    GradientTable,
    check_rows_of_states,
    expected_ahead,
    expected_follower_steps,
    follower_steps,
    kernel_slope,
    reward_slope,
    rows_at,
    solved_once,
)
from bilevelrl.estimators.critics.tables import ExactCritic, read_critic
from bilevelrl.estimators.estimator import Context, LeaderCritic
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.sums.lambda_returns import lambda_returns
from bilevelrl.estimators.sums.traces import discount_powers
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked
from bilevelrl.reference.tabular import DiscountedSystem, policy_transition

__all__ = ["BaselineKind", "StateBaseline"]

BaselineKind: TypeAlias = Literal["value", "step", "estimate"]
"""Which baseline; see the module."""


# Where the benefit's standard deviation is below this part of the largest |Q_L|, ratios of its moments are rounding.
_SMALLEST = 1e-4


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class StateBaseline:
    """A baseline as a table, for `Context.baseline`.

    Parameters
    ----------
    table : (S, N)
        b(s); a terminal state has 0.

    Raises
    ------
    ShapeError, InvalidInputError
        If it is not a matrix of finite numbers.

    Examples
    --------
    >>> from bilevelrl.reference import solve_follower
    >>> from bilevelrl.tasks import random_mdp
    >>> problem, theta = random_mdp(states=4, actions=2, parameters=3, seed=0), np.zeros(3)
    >>> context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    >>> StateBaseline.solve("estimate", context, trace_decay=0.9).table.shape
    (4, 3)
    """

    table: FloatArray

    def __post_init__(self) -> None:
        check_rows_of_states("table", self.table)

    @checked
    def value(self, state: Any) -> FloatArray:
        """Return b at states of any shape, (..., N); 0 at a terminal state (s = S)."""
        return rows_at(self.table, state)

    @classmethod
    @checked
    def solve(
        cls,
        kind: BaselineKind,
        context: Context,
        *,
        trace_decay: float = 1.0,
        critic: LeaderCritic | None = None,
        gradient_critic: GradientTable | None = None,
    ) -> StateBaseline:
        """Return a baseline exactly, from the problem's tables.

        Parameters
        ----------
        kind
            "value", "step" or "estimate"; the last is of least variance for trajectories that are not cut.
        context
            Problem, θ and follower.
        trace_decay
            λ of the estimate's λ-returns.
        critic
            The leader's critic that the estimate reads; None: the exact one.
        gradient_critic
            The critic of ∇V_F that it reads; None: the exact one.

        Raises
        ------
        UnknownNameError
            If the kind is not known.
        """
        gradients = GradientTable.solve(context) if gradient_critic is None else gradient_critic
        if kind == "value":
            return cls(table=gradients.gradients)
        if critic is not None:
            return cls._of(kind, context, trace_decay, critic, gradients)
        exact = ExactCritic.solve(context.problem, context.theta, context.follower.policy)
        return solved_once(
            context,
            (kind, trace_decay, gradients.gradients.tobytes()),
            lambda: cls._of(kind, context, trace_decay, exact, gradients),
        )

    @classmethod
    def _of(
        cls,
        kind: BaselineKind,
        context: Context,
        trace_decay: float,
        critic: LeaderCritic,
        gradients: GradientTable,
    ) -> StateBaseline:
        policy, problem = context.follower.policy, context.problem
        pairs = np.indices(policy.shape)
        action_value = np.asarray(critic.action_value(*pairs))
        benefit = action_value - np.asarray(critic.value(pairs[0]))
        returns = expected_lambda_returns(context, gradients, trace_decay)
        squared = (policy * benefit**2).sum(axis=1)
        if kind == "step":
            numerator, denominator = np.einsum("sa,san->sn", policy * benefit**2, returns), squared  # (2)
        else:
            moments = _WholeEstimate.of(context, critic, benefit, returns, problem.discount_follower * trace_decay)
            numerator, denominator = moments.numerator, moments.visits * squared / problem.temperature**2  # (1)
            squared = np.where(moments.visits > 0.0, squared, 0.0)
        known = squared > (_SMALLEST * float(np.abs(action_value).max(initial=0.0))) ** 2
        ratio = numerator / np.where(known, denominator, 1.0)[:, None]
        return cls(table=np.where(known[:, None], ratio, gradients.gradients))

    @classmethod
    @checked
    def learn(
        cls,
        trajectories: Trajectories,
        context: Context,
        *,
        critic: LeaderCritic,
        gradient_critic: GradientTable,
        trace_decay: float = 1.0,
    ) -> StateBaseline:
        """Estimate the "step" baseline from a batch: averages of λ-returns over visits, weighted by (w_t B_t)².

        States without a visit, or without a benefit, keep the critic's ∇V_F. Use it on another batch: on its own it
        depends on the actions that it is to be independent of.

        Parameters
        ----------
        trajectories
            The batch.
        context
            Problem, θ and follower.
        critic, gradient_critic, trace_decay
            As in `solve`.
        """
        reading = read_critic(critic, trajectories)
        weight = discount_powers(trajectories, context.problem.discount_leader) * reading.benefit_t
        weight = np.where(trajectories.valid, weight, 0.0) ** 2
        returns = lambda_returns(
            trajectories,
            follower_steps(context, trajectories),
            gradient_critic.value(trajectories.state_tp1),
            discount=context.problem.discount_follower,
            trace_decay=trace_decay,
        )
        states, parameters = gradient_critic.gradients.shape
        total, count = np.zeros((states, parameters)), np.zeros(states)
        at = np.where(trajectories.valid, trajectories.state_t, 0)
        np.add.at(total, at, weight[..., None] * returns)
        np.add.at(count, at, weight)
        seen = count > np.finfo(np.float64).tiny / np.finfo(np.float64).eps
        learnt = total / np.where(seen, count, 1.0)[:, None]
        return cls(table=np.where(seen[:, None], learnt, gradient_critic.gradients))


def expected_lambda_returns(context: Context, gradients: GradientTable, trace_decay: float) -> FloatArray:
    """Return q(s, a) = E[G^λ | s, a] for trajectories that are not cut, (S, A, N)."""
    policy, discount = context.follower.policy, context.problem.discount_follower
    first = expected_follower_steps(context)
    first = first + (1.0 - trace_decay) * discount * expected_ahead(context, gradients.gradients)
    kernel = context.problem.tables_at(context.theta).transition
    system = DiscountedSystem.factorise(policy_transition(kernel, policy), trace_decay * discount)
    average = np.asarray(system.solve(np.einsum("sa,san->sn", policy, first)))
    result: FloatArray = first + trace_decay * discount * expected_ahead(context, average)
    return result


@dataclass(frozen=True, slots=True)
class _WholeEstimate:
    """E[X Z_s] (S, N), and D (S,): see the module."""

    numerator: FloatArray
    visits: FloatArray

    @classmethod
    def of(
        cls, context: Context, critic: LeaderCritic, benefit: FloatArray, returns: FloatArray, decay: float
    ) -> _WholeEstimate:
        problem, policy, discount = context.problem, context.follower.policy, context.problem.discount_leader
        tables = problem.tables_at(context.theta)
        chain = policy_transition(tables.transition, policy)
        value = np.asarray(critic.value(np.arange(tables.states)))
        impulse = reward_slope(context, "reward_leader") + kernel_slope(context, discount * value)
        impulse = impulse + benefit[..., None] * returns / problem.temperature
        leader = DiscountedSystem.factorise(chain, discount)
        average = np.asarray(leader.solve(np.einsum("sa,san->sn", policy, impulse)))
        worth = impulse + discount * expected_ahead(context, average)  # (5)
        squared = DiscountedSystem.factorise(chain, discount**2)
        visits = squared.solve_transposed(np.asarray(tables.initial, dtype=np.float64))  # (4)
        started = visits[:, None] * policy * benefit / problem.temperature
        carried = DiscountedSystem.factorise(chain, discount * decay)
        incoming = discount * carried.solve_transposed(_arrivals(context, started))
        centred = policy * benefit / problem.temperature
        numerator = decay * incoming[:, None] * np.einsum("sa,san->sn", centred, returns)
        numerator = numerator + visits[:, None] * np.einsum("sa,san->sn", centred, worth)  # (3)
        return cls(numerator, visits)


def _arrivals(context: Context, visits: FloatArray) -> FloatArray:
    """Return Σ_{s,a} visits(s, a) P(s'|s, a), (S,)."""
    kernel = context.problem.tables_at(context.theta).transition
    states = visits.shape[0]
    result = np.zeros(states)
    for a in range(visits.shape[1]):
        one = np.zeros_like(visits)
        one[:, a] = 1.0
        result += np.asarray(policy_transition(kernel, one).T @ visits[:, a])
    return result
