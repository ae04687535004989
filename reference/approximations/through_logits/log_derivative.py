"""Stackelberg PPO's log-derivative form of the mixed derivative: scores of θ times scores and advantages.

With the Fisher information for the Hessian, y = (β B)^{-1} p, its response is

    E Σ_t γ_F^t (∇log μ + Σ_{j<t} ∇log P_j) (y(s_t,a_t) - ȳ(s_t)) A(s_t,a_t),                                    (1)

the gradient of `E Σ γ_F^t g(s_t,a_t)` in the dynamics alone, g being what stands behind the scores: advantages are
data, and do not move with θ. But ∂²_φθF = ∂_θ(d π A) has two terms, and at the best response A = 0 it is the other one,
`d π ∂_θA`, that is all of it: (1) is zero there, and the form is the partial gradient, whatever the response is. It
sees how θ moves the states in which the follower learns, not how it moves what is best in them; both leave the best
response of a table alone only where the leader acts once, before the follower, and what it did is seen.
"""

from __future__ import annotations

import numpy as np

from bilevelrl.reference.approximations.adjoints import steps_of
from bilevelrl.reference.approximations.approximation import Approximation, register_approximation
from bilevelrl.reference.approximations.through_logits.follower import FollowerAt, follower_after, partial_at
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.nudged import kernel_layout
from bilevelrl.reference.problem import Objective
from bilevelrl.reference.tabular.model import TabularAt

__all__ = ["log_derivative", "weighed_advantages"]


def weighed_advantages(at: TabularAt, objective: Objective, follower: FollowerAt) -> FloatArray:
    """Return g (S, A) = (y - ȳ) A, what stands behind the scores of (1)."""
    _, pushed = partial_at(at, follower.policy, objective)
    met = follower.visits[:, None] * follower.policy
    solved = pushed / np.where(met > 0.0, at.problem.temperature * met, np.inf)
    result: FloatArray = (solved - np.vecdot(follower.policy, solved)[:, None]) * follower.advantage
    return result


def log_derivative(at: TabularAt, objective: Objective, knob: float) -> FloatArray:
    """Return the partial gradient and (1) at a follower that stops after k sweeps."""
    follower = follower_after(at, steps_of(knob))
    own, _ = partial_at(at, follower.policy, objective)
    met = follower.visits[:, None] * follower.policy
    weighed = weighed_advantages(at, objective, follower)
    ahead = follower.inverse @ np.vecdot(follower.policy, weighed)
    carried = at.problem.discount_follower * met[:, :, None] * ahead
    return own + at.pullback({"initial": ahead, "transition": kernel_layout(at, carried)})  # (1)


register_approximation(
    Approximation(
        name="log_derivative",
        summary="Stackelberg PPO's mixed derivative, scores times advantages, at a follower of k sweeps",
        knob="sweeps",
        knobs=(1, 2, 5, 10, 20, 50, 100),
        geometric=True,
        rate=None,
        source="Dai et al. (2026), arXiv:2603.15388, with the Fisher information as its release has it",
        function=log_derivative,
    )
)
