"""The follower's adjoint system solved in k steps: differentiated sweeps (a Neumann series), and conjugate gradients.

Implicit differentiation solves `(I - γ_F P_πᵀ) λ = b` with `b = γ_F Pᵀ q` and q the cotangent of Q_F. At a solved
follower, reverse mode through its last k sweeps alone is the series

    λ_k = Σ_{j<k-1} (γ_F P_πᵀ)^j b,                                                                             (1)

for k = 1 nothing at all, "one-step differentiation": ∇Q_F cut to its first step. It is the truncated Neumann series of
k - 1 terms and k-step truncated back-propagation, the same numbers. Its error is bounded by γ_F^(k-1) at worst.
What it is depends on the eigenvalues of γ_F P_π that q sees. E[B] = 0 in every state: a response that is common to all
actions moves nothing, and where every row is a law the eigenvalue γ_F, whose eigenvector is constant, is not among
them (`ruling_rate`).

Conjugate gradients on the normal equations reach after k steps the least residual in the Krylov space of k dimensions,
bounded by 2 ((κ-1)/(κ+1))^k with κ the condition number of I - γ_F P_π in the Euclidean norm.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from scipy.sparse.linalg import lsqr

from bilevelrl.reference.approximations.approximation import Approximation, register_approximation
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import check_stream_steps
from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.reference.problem import Objective
from bilevelrl.reference.tabular.follower import TabularFollower, solve_tabular
from bilevelrl.reference.tabular.leader import LeaderEvaluation, evaluate_leader, visited_next
from bilevelrl.reference.tabular.model import TabularAt

__all__ = [
    "adjoint_gradient",
    "adjoint_residual",
    "conjugate_gradients",
    "differentiated_sweeps",
    "exact_adjoint",
    "follower_chain",
    "ruling_rate",
    "steps_of",
]

Adjoint: TypeAlias = Callable[[FloatArray, FloatArray], FloatArray]
"""(γ_F P_π, b) → λ."""


def steps_of(knob: float) -> int:
    """Return a number of steps, or refuse it.

    Raises
    ------
    InvalidInputError
        If it is not an integer of at least one, or more than are gone through one by one.
    """
    if isinstance(knob, bool) or not float(knob).is_integer() or knob < 1:
        raise InvalidInputError(refusal("knob", knob, "an integer >= 1", "count the steps"))
    return int(check_stream_steps("knob", int(knob)))


def follower_chain(at: TabularAt) -> FloatArray:
    """Return γ_F P_π of the follower's best response, (S, S)."""
    policy = solve_tabular(at).policy
    result: FloatArray = at.problem.discount_follower * np.matmul(policy[:, None, :], at.kernel)[:, 0, :]
    return result


def ruling_rate(at: TabularAt) -> float:
    """Return the largest modulus of an eigenvalue of γ_F P_π with an eigenvector that is not constant."""
    chain = follower_chain(at)
    sizes = np.sort(np.abs(np.linalg.eigvals(chain)))[::-1]
    whole = np.abs(chain.sum(axis=1) - at.problem.discount_follower).max() <= 1e-9
    return float(sizes[1] if whole and len(sizes) > 1 else 0.0 if whole else sizes[0])


def _with_adjoint(at: TabularAt, objective: Objective, adjoint: Adjoint) -> FloatArray:
    """Return the gradient of implicit differentiation with its adjoint system solved by something else."""
    follower = solve_tabular(at)
    evaluation = evaluate_leader(
        at.tables, follower.policy, at.problem.discount_leader, objective=objective, centre=at.centres[1]
    )
    cotangent = evaluation.benefit_weight / at.problem.temperature
    return adjoint_gradient(at, follower, follower.policy, evaluation, cotangent, adjoint)


def adjoint_gradient(
    at: TabularAt,
    follower: TabularFollower,
    played: FloatArray,
    evaluation: LeaderEvaluation,
    cotangent: FloatArray,
    adjoint: Adjoint,
) -> FloatArray:
    """Return ∂J under a policy and Σ cotangent ∇Q_F of the best response, whose adjoint system is solved as is said."""
    tables, discount, policy = at.tables, at.problem.discount_follower, follower.policy
    chain = discount * np.matmul(policy[:, None, :], at.kernel)[:, 0, :]
    pushed = discount * (cotangent.ravel() @ at.kernel.reshape(-1, tables.states))
    weight = cotangent + adjoint(chain, pushed)[:, None] * policy
    ones, values = np.full((1, tables.states), discount), follower.value_without(at.constant)[None]
    kernel = visited_next(tables, evaluation.state_factor, played, evaluation.value_factor)
    return at.pullback(
        {
            "initial": evaluation.value,
            "reward_leader": evaluation.occupancy[:, None] * played,
            "transition": kernel + visited_next(tables, ones, weight, values),
            "reward_follower": weight,
            "regulariser": np.ones(()),
        }
    )


def exact_adjoint(chain: FloatArray, pushed: FloatArray) -> FloatArray:
    """Return λ."""
    return np.asarray(np.linalg.solve(np.eye(len(pushed)) - chain.T, pushed), dtype=np.float64)


def _series(knob: float) -> Adjoint:
    """Return (1)."""
    steps = steps_of(knob)

    def series(chain: FloatArray, pushed: FloatArray) -> FloatArray:
        total, term = np.zeros_like(pushed), pushed
        for _ in range(steps - 1):
            total, term = total + term, term @ chain
        return total

    return series


def _least_squares(knob: float) -> Adjoint:
    """Return k steps of conjugate gradients on the normal equations."""
    steps = steps_of(knob)

    def least_squares(chain: FloatArray, pushed: FloatArray) -> FloatArray:
        matrix: Any = np.eye(len(pushed)) - chain.T
        found: FloatArray = lsqr(matrix, pushed, atol=0.0, btol=0.0, conlim=0.0, iter_lim=steps)[0]
        return found

    return least_squares


def differentiated_sweeps(at: TabularAt, objective: Objective, knob: float) -> FloatArray:
    """Return the gradient with the last k sweeps of a solved follower differentiated, (1)."""
    return _with_adjoint(at, objective, _series(knob))


def conjugate_gradients(at: TabularAt, objective: Objective, knob: float) -> FloatArray:
    """Return the gradient with k steps of conjugate gradients on the normal equations of the adjoint system."""
    return _with_adjoint(at, objective, _least_squares(knob))


def adjoint_residual(at: TabularAt, objective: Objective, knob: float, *, method: Callable[[float], Adjoint]) -> float:
    """Return |b - (I - γ_F P_πᵀ) λ_k| / |b|, zero where b is."""
    left = 0.0

    def measured(chain: FloatArray, pushed: FloatArray) -> FloatArray:
        nonlocal left
        found = method(knob)(chain, pushed)
        size = float(np.linalg.norm(pushed))
        left = float(np.linalg.norm(pushed - found + found @ chain)) / size if size else 0.0
        return found

    _with_adjoint(at, objective, measured)
    return left


def _conditioned(at: TabularAt) -> float:
    chain = follower_chain(at)
    condition = float(np.linalg.cond(np.eye(len(chain)) - chain))
    return (condition - 1.0) / (condition + 1.0)


register_approximation(
    Approximation(
        name="differentiated_sweeps",
        summary="reverse mode through the last k sweeps of a solved follower; the Neumann series of k - 1 terms",
        knob="sweeps",
        knobs=(1, 2, 5, 10, 20, 50, 100),
        geometric=True,
        rate=lambda at: at.problem.discount_follower,
        source="truncated back-propagation: Shaban et al. (2019), arXiv:1810.10667; one step: arXiv:2305.13768",
        function=differentiated_sweeps,
        residual=partial(adjoint_residual, method=_series),
        rules=ruling_rate,
    )
)
register_approximation(
    Approximation(
        name="conjugate_gradients",
        summary="k steps of conjugate gradients on the normal equations of the follower's adjoint system",
        knob="steps",
        knobs=(1, 2, 5, 10, 20, 50, 100),
        geometric=True,
        rate=_conditioned,
        source="Pedregosa (2016), arXiv:1602.02355",
        function=conjugate_gradients,
        residual=partial(adjoint_residual, method=_least_squares),
    )
)
