"""Exact expectations of estimators along trajectories of configurable LQRs, by moments of the state.

With z = (x, a), critic `Q_L = -z'J z`, follower's gradient along a suffix of h steps `∇Q_F = -z'G^(h) z` (constants
have mean zero against the benefit) and the policy `a = -K x + ε`, `ε ~ N(0, Σ)`,

    E_π[B ∇Q_F] = 4 x'(J_ax - J_aa K)' Σ (G_ax - G_aa K) x + 2 tr(J_aa Σ G_aa Σ),

    G^(h) = diag(∇Q, ∇R) + γ_F ∇([A B]' P [A B]) + γ_F [A B]' ([I; -K]' G^(h-1) [I; -K]) [A B],     G^(0) = 0.

P, K and Σ are those of the follower that is used, best or not; J is the critic that is used, right or wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bilevelrl.estimators.estimator import Context, Draw
from bilevelrl.estimators.lqr_critics import QuadraticCritic
from bilevelrl.estimators.sampling_lqr import LQRSimulator
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import EstimatorError, InvalidInputError, UnsupportedError, refusal
from bilevelrl.reference.problem import Part

__all__ = ["lqr_expected_parts"]

_TAIL = 1e-18


def lqr_expected_parts(estimator: Any, context: Context, *, horizon: int, guiding: bool) -> Mapping[Part, FloatArray]:
    """Return {part: (N,)}, the exact expectation of an estimate, given the follower and the critic.

    Parameters
    ----------
    estimator
        Whose target, critic and stopping.
    context
        Problem, θ, follower, and the critic where the estimator reads it.
    horizon
        Steps of every stream; geometric times stand for an infinite one.
    guiding
        Whether the guiding term is part of the estimate.

    Raises
    ------
    EstimatorError
        For averages inside a batch, and samples that are clipped.
    UnsupportedError
        For critics that are not quadratic.
    """
    if estimator.draw is Draw.BATCH:
        raise EstimatorError(f"{estimator.name}: averages inside a batch are ratios; their bias can only be measured")
    if isinstance(horizon, bool) or not isinstance(horizon, (int, np.integer)) or horizon < 1:
        raise InvalidInputError(refusal("horizon", horizon, "an integer >= 1", "count the steps of a stream"))
    simulator = context.simulator if context.simulator is not None else LQRSimulator()
    if not isinstance(simulator, LQRSimulator) or simulator.state_limit is not None or not simulator.single_episode:
        raise EstimatorError(f"{estimator.name}: expected unclipped samples, one episode per stream")
    if estimator.stopping is not None:  # the expectation over the times is the infinite sum
        slowest = max(context.problem.discount_leader, context.problem.discount_follower, 1e-6)
        horizon = int(np.ceil(np.log(_TAIL) / np.log(slowest)))
    elif simulator.step_limit is not None:
        horizon = min(horizon, simulator.step_limit)
    if estimator.critic not in ("exact", "exact_truncated", "context"):
        raise UnsupportedError(f"critic={estimator.critic!r}: expected 'exact', 'exact_truncated' or 'context'")
    critic = estimator.leader_critic(context)
    if not isinstance(critic, QuadraticCritic):
        raise UnsupportedError(f"critic of type {type(critic).__name__}: expected a QuadraticCritic")
    return _Expectation.of(context).parts(estimator, critic, horizon, guiding)


@dataclass(frozen=True, slots=True)
class _Expectation:
    """The closed loop, and the Jacobians of the matrices with θ in front."""

    context: Context
    matrices: Any
    moved: dict[str, FloatArray]
    into: FloatArray  # [A B]
    play: FloatArray  # [I; -K]
    covariance: FloatArray

    @classmethod
    def of(cls, context: Context) -> _Expectation:
        problem, theta, follower = context.problem, context.theta, context.follower
        matrices, jacobian = problem.matrices_at(theta), problem.jacobian(theta)
        moved = {}
        for name, value in matrices.differentiable().items():
            zero = np.zeros((*np.shape(value), theta.size))
            moved[name] = np.moveaxis(jacobian.get(name, zero), -1, 0)
        return cls(
            context,
            matrices,
            moved,
            np.concatenate([matrices.dynamics_state, matrices.dynamics_action], axis=1),
            np.concatenate([np.eye(matrices.states), -follower.gain]),
            follower.covariance,
        )

    @property
    def moved_into(self) -> FloatArray:
        """∇[A B], (N, n, n + m)."""
        return np.concatenate([self.moved["dynamics_state"], self.moved["dynamics_action"]], axis=2)

    def parts(self, estimator: Any, critic: QuadraticCritic, steps: int, guiding: bool) -> dict[Part, FloatArray]:
        """Sum over the steps of a stream."""
        problem, m, moved = self.context.problem, self.matrices, self.moved
        target = estimator.target
        discount = problem.discount_leader if target.discounted else 1.0
        paid = steps if target.horizon is None else min(steps, target.horizon)

        def to_go(t: int) -> int | None:
            return None if target.horizon is None else target.horizon - t

        mean = m.initial_mean
        moment = mean[:, None] * mean + m.initial_covariance
        moved_mean = moved["initial_mean"][:, :, None] * mean
        first = moved_mean + np.swapaxes(moved_mean, 1, 2) + moved["initial_covariance"]
        n = m.states
        direct, transition, response = (np.zeros(self.context.theta.size) for _ in range(3))
        suffixes = self._suffixes(steps) if guiding else None
        for t in range(paid):
            weight = discount**t
            both = self.play @ moment @ self.play.T
            both[n:, n:] += self.covariance
            costs = np.tensordot(moved["cost_state_leader"], both[:n, :n])
            costs = costs + np.tensordot(moved["cost_action_leader"], both[n:, n:]) + moved["cost_constant_leader"]
            direct -= weight * costs
            ahead = critic.state_matrix(to_go(t + 1))
            flow = 2.0 * np.tensordot(self.moved_into, ahead @ self.into @ both)
            transition -= weight * discount * (flow + np.tensordot(moved["noise_covariance"], ahead))
            if suffixes is not None:
                benefit = critic.matrices[critic.row(to_go(t))]
                response += weight * self._covariance(benefit, suffixes[steps - t], moment) / problem.temperature
            moment = self.into @ both @ self.into.T + m.noise_covariance
        parts: dict[Part, FloatArray] = {
            "initial": -np.tensordot(first, critic.state_matrix(to_go(0))),
            "direct": direct,
            "transition": transition,
            "regulariser": moved["regulariser"],
        }
        if guiding:
            parts["response"] = response
        return parts

    def _suffixes(self, steps: int) -> FloatArray:
        """G by length of the suffix, (steps + 1, N, n + m, n + m)."""
        discount, p = self.context.problem.discount_follower, self.context.follower.cost_to_go
        half = self.into.T @ p @ self.moved_into
        base = discount * (half + np.swapaxes(half, 1, 2))
        n = self.matrices.states
        base[:, :n, :n] += self.moved["cost_state_follower"]
        base[:, n:, n:] += self.moved["cost_action_follower"]
        carry = self.play @ self.into
        suffixes = np.zeros((steps + 1, *base.shape))
        for h in range(1, steps + 1):
            suffixes[h] = base + discount * carry.T @ suffixes[h - 1] @ carry
        return suffixes

    def _covariance(self, benefit: FloatArray, gradient: FloatArray, moment: FloatArray) -> FloatArray:
        """E[B ∇Q_F] over the policy and a second moment of the state, (N,)."""
        n, sigma = self.matrices.states, self.covariance
        leader = benefit[n:] @ self.play
        follower = gradient[:, n:] @ self.play
        linear = 4.0 * np.tensordot(follower, sigma @ leader @ moment)
        quadratic = 2.0 * np.tensordot(gradient[:, n:, n:], sigma @ benefit[n:, n:] @ sigma)
        result: FloatArray = linear + quadratic
        return result
