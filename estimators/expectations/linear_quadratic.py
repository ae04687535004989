"""Exact expectations of estimators along trajectories of configurable LQRs, by moments of the state.

With z = (x, a), critic `Q_L = -z'J z`, follower's gradient along a suffix of h steps `∇Q_F = -z'G^(h) z` (constants
have mean zero against the benefit) and the policy `a = -K x + ε`, `ε ~ N(0, Σ)`,

    E_π[B ∇Q_F] = 4 x'(J_ax - J_aa K)' Σ (G_ax - G_aa K) x + 2 tr(J_aa Σ G_aa Σ),                                    (1)

    G^(h) = H + γ_F [A B]' ([I; -K]' G^(h-1) [I; -K]) [A B],     G^(0) = 0,     H as in `StepGradient`.              (2)

P, K and Σ are those of the follower that is used, best or not; J is the critic that is used, right or wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bilevelrl.estimators.critics.quadratic import QuadraticCritic
from bilevelrl.estimators.critics.quadratic_gradients import StepGradient
from bilevelrl.estimators.estimator import Context, Draw
from bilevelrl.estimators.sampling.linear_quadratic import LQRSimulator
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import EstimatorError, InvalidInputError, UnsupportedError, refusal
from bilevelrl.reference.problem import Part

__all__ = ["linear_quadratic_expected_parts", "policy_covariance", "quadratic_critic_expectation", "uncentred_bias"]

_TAIL = 1e-18


def linear_quadratic_expected_parts(
    estimator: Any, context: Context, *, horizon: int, guiding: bool
) -> Mapping[Part, FloatArray]:
    """Answer `expected_parts` for configurable LQRs."""
    horizon = _checked_horizon(estimator, context, horizon)
    if estimator.critic not in ("exact", "exact_truncated", "context"):
        raise UnsupportedError(f"critic={estimator.critic!r}: expected 'exact', 'exact_truncated' or 'context'")
    critic = estimator.leader_critic(context)
    if not isinstance(critic, QuadraticCritic):
        raise UnsupportedError(f"critic of type {type(critic).__name__}: expected a QuadraticCritic")
    expectation = _Expectation.of(context)
    suffixes = expectation.suffixes(horizon)[0] if guiding else None
    return expectation.parts(estimator, critic, horizon, suffixes)


def quadratic_critic_expectation(
    estimator: Any, context: Context, critic: QuadraticCritic, gradient: FloatArray, horizon: int
) -> Mapping[Part, FloatArray]:
    """Return {part: (N,)} where a critic -z'G z of ∇Q_F stands for the suffixes; arguments as `expected_parts`.

    Parameters
    ----------
    critic
        Of the leader's values.
    gradient : (N, n + m, n + m)
        G.
    """
    horizon = _checked_horizon(estimator, context, horizon)
    repeated = np.broadcast_to(gradient, (horizon + 1, *gradient.shape))
    return _Expectation.of(context).parts(estimator, critic, horizon, repeated)


def uncentred_bias(estimator: Any, context: Context, gradient: Any, horizon: int) -> FloatArray:
    """Return `E Σ γ_L^t V_L(x_t) (∇V_F - b)(x_t) / β`, (N,), with what a stream observes of ∇V_F from t on.

    It is what a raw Q_L in place of the benefit adds to the guiding term.

    Parameters
    ----------
    estimator, context, horizon
        As in `expected_parts`.
    gradient
        b, a quadratic critic of ∇V_F.

    Raises
    ------
    UnsupportedError
        If it is not quadratic.
    """
    horizon = _checked_horizon(estimator, context, horizon)
    baseline = gradient.over_policy() if hasattr(gradient, "over_policy") else gradient
    critic = estimator.leader_critic(context)
    if not (hasattr(baseline, "matrices") and hasattr(baseline, "offsets") and isinstance(critic, QuadraticCritic)):
        raise UnsupportedError(f"critic of type {type(gradient).__name__}: expected a quadratic one of each kind")
    return _Expectation.of(context).uncentred(estimator, critic, baseline.matrices, baseline.offsets, horizon)


def policy_covariance(
    follower: Any, leader: FloatArray, gradient: FloatArray, moments: FloatArray, weights: FloatArray
) -> FloatArray:
    """Return `Σ w Cov_π[-z'J z, -z'G z]` over visited states, (M, N).

    Parameters
    ----------
    follower
        K and Σ of the policy.
    leader : (n + m, n + m)
        J.
    gradient : (N, n + m, n + m)
        G.
    moments : (M, n, n)
        Σ w x x'.
    weights : (M,)
        Σ w.

    Examples
    --------
    >>> from bilevelrl.reference import solve_follower
    >>> from bilevelrl.tasks import random_lqr
    >>> follower = solve_follower(random_lqr(states=1, actions=1, seed=0), np.zeros(3))
    >>> only_action = np.diag([0.0, 1.0])  # Var(a²) = 2 Σ² + 4 Σ (K x)²
    >>> found = policy_covariance(follower, only_action, only_action[None], np.zeros((1, 1, 1)), np.ones(1))
    >>> bool(np.allclose(found, 2.0 * follower.covariance**2))
    True
    """
    n, sigma = follower.gain.shape[1], follower.covariance
    play = np.concatenate([np.eye(n), -follower.gain])
    of_leader = sigma @ leader[n:] @ play
    of_follower = gradient[:, n:] @ play
    linear = 4.0 * np.swapaxes(of_follower, 1, 2) @ of_leader  # (1)
    constant = 2.0 * np.tensordot(gradient[:, n:, n:], sigma @ leader[n:, n:] @ sigma)
    size = n * n
    result: FloatArray = moments.reshape(-1, size) @ linear.reshape(-1, size).T + weights[:, None] * constant
    return result


def _checked_horizon(estimator: Any, context: Context, horizon: int) -> int:
    """Return the steps that count, or refuse what has no such expectation."""
    if estimator.draw is Draw.BATCH:
        raise EstimatorError(f"{estimator.name}: averages inside a batch are ratios; their bias can only be measured")
    if isinstance(horizon, bool) or not isinstance(horizon, (int, np.integer)) or horizon < 1:
        raise InvalidInputError(refusal("horizon", horizon, "an integer >= 1", "count the steps of a stream"))
    simulator = context.simulator if context.simulator is not None else LQRSimulator()
    if not isinstance(simulator, LQRSimulator) or simulator.state_limit is not None or not simulator.single_episode:
        raise EstimatorError(f"{estimator.name}: expected unclipped samples, one episode per stream")
    if estimator.stopping is not None:  # the expectation over the times is the infinite sum
        slowest = max(context.problem.discount_leader, context.problem.discount_follower, 1e-6)
        return int(np.ceil(np.log(_TAIL) / np.log(slowest)))
    return int(horizon if simulator.step_limit is None else min(horizon, simulator.step_limit))


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

    def parts(
        self, estimator: Any, critic: QuadraticCritic, steps: int, suffixes: FloatArray | None
    ) -> dict[Part, FloatArray]:
        """Sum over the steps of a stream; `suffixes` is G by length of the suffix, None without a guiding term."""
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
                size = np.ones(1) * weight / problem.temperature
                gradient = suffixes[steps - t]
                response += policy_covariance(self.context.follower, benefit, gradient, size * moment[None], size)[0]
            moment = self.into @ both @ self.into.T + m.noise_covariance
        parts: dict[Part, FloatArray] = {
            "initial": -np.tensordot(first, critic.state_matrix(to_go(0))),
            "direct": direct,
            "transition": transition,
            "regulariser": moved["regulariser"],
        }
        if suffixes is not None:
            parts["response"] = response
        return parts

    def suffixes(self, steps: int) -> tuple[FloatArray, FloatArray]:
        """∇Q_F = -z'G z - g by length of the suffix: G (steps + 1, N, n + m, n + m) and g (steps + 1, N)."""
        discount, noise, n = (
            self.context.problem.discount_follower,
            self.matrices.noise_covariance,
            self.matrices.states,
        )
        step = StepGradient.of(self.context)
        carry = self.play @ self.into
        matrices = np.zeros((steps + 1, *step.matrices.shape))
        offsets = np.zeros((steps + 1, len(step.offsets)))
        for h in range(1, steps + 1):
            ahead = matrices[h - 1]
            matrices[h] = step.matrices + discount * carry.T @ ahead @ carry  # (2)
            arriving = np.tensordot(self.play.T @ ahead @ self.play, noise)
            played = np.tensordot(ahead[:, n:, n:], self.covariance)
            offsets[h] = step.offsets + discount * (arriving + played + offsets[h - 1])
        return matrices, offsets

    def uncentred(
        self, estimator: Any, critic: QuadraticCritic, matrices: FloatArray, offsets: FloatArray, steps: int
    ) -> FloatArray:
        """See `uncentred_bias`; a baseline -x'Γ x - g."""
        target, m, n = estimator.target, self.matrices, self.matrices.states
        discount = self.context.problem.discount_leader if target.discounted else 1.0
        paid = steps if target.horizon is None else min(steps, target.horizon)
        observed, constants = self.suffixes(steps)
        mean, spread = m.initial_mean, m.initial_covariance
        loop = self.into @ self.play
        noise = m.dynamics_action @ self.covariance @ m.dynamics_action.T + m.noise_covariance
        total = np.zeros(self.context.theta.size)
        for t in range(paid):
            to_go = None if target.horizon is None else target.horizon - t
            row = critic.row(to_go)
            value = critic.state_matrix(to_go)
            value_offset = critic.offsets[row] + np.vdot(critic.matrices[row][n:, n:], self.covariance)
            left = observed[steps - t]
            apart = self.play.T @ left @ self.play - matrices
            apart_offset = constants[steps - t] + np.tensordot(left[:, n:, n:], self.covariance) - offsets
            moment = spread + mean[:, None] * mean
            level = np.vdot(value, moment) + value_offset
            # E[(x'M x + c)(x'D x + d)] for Gaussian x, by Isserlis.
            crossed = 2.0 * spread @ value @ spread + 4.0 * spread @ value @ (mean[:, None] * mean)
            total += discount**t * (level * (np.tensordot(apart, moment) + apart_offset) + np.tensordot(apart, crossed))
            mean, spread = loop @ mean, loop @ spread @ loop.T + noise
        bias: FloatArray = total / self.context.problem.temperature
        return bias
