"""Bellman penalties with a solved lower level, one- and two-sided.

The Bellman penalty of a policy is what it loses to the best response in one step at every state, and that is a
divergence from it: with weights ν(s) > 0,

    Σ_s ν(s) (V*(s) - Σ_a π Q* - β H(π_s)) = β Σ_s ν(s) KL(π_s | π*_s).                                          (1)

The best policy for `J(θ, π) - (β/w) Σ ν KL(π | π*)` answers its own values and visits, and at it θ moves the penalised
objective by

    π_w ∝ π* exp(w d(s) Q_L(s,a) / (β ν(s))),    d, Q_L those of π_w itself,                                     (2)
    ∂J(θ, π_w) + (1/w) Σ_s ν(s) Σ_a (π_w - π*) ∇Q*.                                                              (3)

To first order π_w - π* is `w d π* B / (β ν)`, and (3) is the hypergradient whatever ν is. Unlike the value penalty it
needs ∇Q*, the follower's adjoint system, and an inner problem without a Bellman equation; discounts may differ. Here ν
is the follower's share of states, `(1-γ_F) Σ γ_F^t Pr(s_t)` mixed half and half with the uniform law.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from bilevelrl.reference.approximations.adjoints import adjoint_gradient, exact_adjoint
from bilevelrl.reference.approximations.approximation import Approximation, register_approximation
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import InvalidInputError, NotConvergedError, UnsupportedError, refusal
from bilevelrl.reference.problem import Objective
from bilevelrl.reference.tabular.follower import solve_tabular
from bilevelrl.reference.tabular.leader import evaluate_leader
from bilevelrl.reference.tabular.model import TabularAt

__all__ = ["bellman_penalty", "penalised_policy"]

_ITERATIONS = 1000
_SETTLED = 1e-13


def _weights(at: TabularAt, policy: FloatArray) -> FloatArray:
    """Return ν (S,)."""
    chain = np.matmul(policy[:, None, :], at.kernel)[:, 0, :]
    discount, states = at.problem.discount_follower, len(chain)
    visits = np.linalg.solve((np.eye(states) - discount * chain).T, np.asarray(at.tables.initial))
    result: FloatArray = 0.5 * (1.0 - discount) * visits + 0.5 / states
    return result


def penalised_policy(at: TabularAt, best: FloatArray, weights: FloatArray, pay: float) -> FloatArray:
    """Return π_w of (2), (S, A), by iterating it from π*.

    Raises
    ------
    NotConvergedError
        If it does not settle: the pay is too large for its answer to its own visits.
    """
    leading = at.problem.discount_leader
    objective = Objective()
    policy = best
    log_best = np.log(np.maximum(best, 1e-300))
    for _ in range(_ITERATIONS):
        found = evaluate_leader(at.tables, policy, leading, objective=objective, centre=at.centres[1])
        ahead = (at.kernel.reshape(-1, len(best)) @ found.value).reshape(best.shape)
        action_value = np.asarray(at.tables.reward_leader) - at.centres[1] + leading * ahead
        gain = pay * (found.occupancy / weights)[:, None] * action_value / at.problem.temperature
        logits = log_best + gain - (best * gain).sum(axis=1, keepdims=True)
        logits -= logits.max(axis=1, keepdims=True)
        moved = np.where(best > 0.0, np.exp(logits), 0.0)
        if not (mass := moved.sum(axis=1, keepdims=True)).all():
            break  # an action of no probability that doubles can tell is wanted most
        moved /= mass
        if np.abs(moved - policy).max() <= _SETTLED:
            return np.asarray(moved)
        policy = moved
    raise NotConvergedError(
        f"pay={pay}: the penalised policy has not settled after {_ITERATIONS} iterations; expected a smaller pay"
    )


def bellman_penalty(at: TabularAt, objective: Objective, knob: float, *, sides: int) -> FloatArray:
    """Return (3) at a pay of `knob` times β, or its mean over both signs.

    Raises
    ------
    InvalidInputError
        If the pay is none, or so small that rounding rules.
    UnsupportedError
        For episodes of T steps: the policy would have to change in time.
    NotConvergedError
        If the penalised policy is not found.
    """
    if objective.horizon is not None:
        raise UnsupportedError(f"horizon={objective.horizon}: a penalised policy knows no time; expected None")
    if isinstance(knob, bool) or not np.isfinite(knob) or abs(knob) < 1e-10:
        remedy = "pay a hundredth of β"
        raise InvalidInputError(refusal("knob", knob, "at least 1e-10: rounding is 2e-16 of a policy", remedy))
    follower = solve_tabular(at)
    weights = _weights(at, follower.policy)
    pay = knob * at.problem.temperature
    total = np.zeros(at.theta.size)
    for side in (pay, -pay)[:sides]:
        policy = penalised_policy(at, follower.policy, weights, side)
        evaluation = evaluate_leader(
            at.tables, policy, at.problem.discount_leader, objective=objective, centre=at.centres[1]
        )
        cotangent = weights[:, None] * (policy - follower.policy) / side
        total += adjoint_gradient(at, follower, policy, evaluation, cotangent, exact_adjoint) / sides  # (3)
    return total


def _order(at: TabularAt, *, order: float) -> float:
    return order


for _sides, _name in ((1, "one"), (2, "two")):
    register_approximation(
        Approximation(
            name=f"bellman_penalty_{_name}_sided",
            summary=f"a penalty of weight 1/w on one step's loss against the best response, {_name}-sided",
            knob="w/β",
            knobs=(1.0, 0.1, 0.01, 0.001),
            geometric=False,
            rate=partial(_order, order=float(_sides)),
            source="Shen, Yang and Chen (2025), arXiv:2402.06886",
            function=partial(bellman_penalty, sides=_sides),
        )
    )
