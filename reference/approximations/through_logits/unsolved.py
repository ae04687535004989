"""The total derivative at a follower that has not arrived: with its own Hessian, and with the Fisher information.

The follower stops after k sweeps from zero and plays π_k, whose advantages A do not vanish. The formula does not know:

    ∇J ≈ ∂_θJ(π_k) + pᵀ (-H)^{-1} ∂²_φθF,    H = ∂²F/∂φ² at π_k,    or  β B in place of -H.                        (1)

Both are exact at the best response, where -H = β B; before, B is positive semidefinite and H need not be negative.
Implicit differentiation at an unsolved lower level is off by what the follower is off, to first order: γ_F^k.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from bilevelrl.reference.approximations.adjoints import ruling_rate, steps_of
from bilevelrl.reference.approximations.approximation import Approximation, register_approximation
from bilevelrl.reference.approximations.through_logits.follower import (
    FollowerAt,
    follower_after,
    mixed_slope,
    partial_at,
)
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import IllPosedError, TooLargeError
from bilevelrl.reference.problem import Objective
from bilevelrl.reference.tabular.model import TabularAt

__all__ = ["LOGIT_LIMIT", "own_hessian", "unsolved"]

LOGIT_LIMIT = 600
"""Logits beyond which the Hessian is not made: a dense matrix."""

_VISITED = 1e-200


def own_hessian(at: TabularAt, follower: FollowerAt) -> FloatArray:
    """Return ∂²F/∂φ², (S, A, S, A), by (2) and (3) of `follower`."""
    discount, beta = at.problem.discount_follower, at.problem.temperature
    policy, visits, _, advantage, inverse = follower
    states, actions = policy.shape
    differences = at.kernel - np.matmul(policy[:, None, :], at.kernel)
    reached = discount * (visits[:, None] * policy)[:, :, None] * (differences @ inverse)  # ∂d(s) by (t, b)
    earned = inverse[:, :, None] * (policy * advantage)  # ∂V(s) by (t, b)
    slope = discount * np.tensordot(at.kernel, earned, axes=1) - earned[:, None]
    score = np.eye(actions) - policy[:, None, :]  # [a=b] - π(b|s)
    rows = np.arange(states)
    slope[rows, :, rows] -= beta * score
    hessian = visits[:, None, None, None] * policy[:, :, None, None] * slope
    hessian += np.moveaxis(reached, 2, 0)[:, None] * (policy * advantage)[:, :, None, None]
    hessian[rows, :, rows] += (visits[:, None] * policy * advantage)[:, :, None] * score
    result: FloatArray = hessian
    return result


def unsolved(at: TabularAt, objective: Objective, knob: float, *, fisher: bool) -> FloatArray:
    """Return (1) after k sweeps.

    Raises
    ------
    TooLargeError
        If the Hessian is asked for and has more than `LOGIT_LIMIT` rows.
    IllPosedError
        If it is singular, as it may be away from the best response.
    """
    follower = follower_after(at, steps_of(knob))
    own, pushed = partial_at(at, follower.policy, objective)
    met = follower.visits[:, None] * follower.policy
    free = met > _VISITED
    if fisher:
        # (β B)^{-1} p up to a constant per state, which no policy feels.
        solved = pushed / np.where(free, at.problem.temperature * met, np.inf)
        return own + mixed_slope(at, follower.policy, solved)
    if met.size > LOGIT_LIMIT:
        raise TooLargeError(
            f"implicit_unsolved: {met.size} logits, expected at most {LOGIT_LIMIT}; use fisher_unsolved"
        )
    np.put_along_axis(free, follower.policy.argmax(axis=1, keepdims=True), False, axis=1)  # the gauge
    scale = np.sqrt(met[free])
    hessian = own_hessian(at, follower)[free][:, free] / (scale[:, None] * scale)
    solved = np.zeros(met.shape)
    try:
        solved[free] = -np.linalg.solve(hessian, pushed[free] / scale) / scale
    except np.linalg.LinAlgError:
        raise IllPosedError(
            f"implicit_unsolved: knob={knob}: the Hessian is singular where the follower stands; expected more sweeps"
        ) from None
    return own + mixed_slope(at, follower.policy, solved)


for _fisher, _name, _what in ((False, "implicit", "its own Hessian"), (True, "fisher", "the Fisher information")):
    register_approximation(
        Approximation(
            name=f"{_name}_unsolved",
            summary=f"total derivative with {_what} at a follower that stops after k sweeps from zero",
            knob="sweeps",
            knobs=(1, 2, 5, 10, 20, 50, 100),
            geometric=True,
            rate=lambda at: at.problem.discount_follower,
            rules=ruling_rate,
            source="arXiv:1602.02355; Fisher: Stackelberg PPO, arXiv:2603.15388",
            function=partial(unsolved, fisher=_fisher),
        )
    )
