"""Critics of the gradient of the follower's values in configurable LQRs: exact, and by least squares.

With z = (x, a), `c` the part of the derivative that one step contributes at V_F held fixed, and the policy's averages,

    ∇Q_F(z) = c(z) + γ_F E[∇V_F(x')],                                                                                (1)
    c(z) = ∇r_F(z) + γ_F ∇E[V_F(x')] = -z'H z - γ_F tr(P ∇W),                                                        (2)
    H = diag(∇Q, ∇R) + γ_F ∇([A B]'P [A B]),                                                                         (3)

so both gradients are quadratic, with N matrices each: `∇V_F(x) = -x'Γ x - g`. Knowing ∇P and V_F is enough to evaluate
c; the expectation of what follows is then learnt from samples, all N outputs by one regression.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from bilevelrl.estimators.critics.least_squares import (
    QuadraticRegression,
    RegressionInputs,
    pack_quadratic,
    unpack_quadratic,
)
from bilevelrl.estimators.estimator import Context, FollowerGradientCritic
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.sums.single_transitions import single_derivatives
from bilevelrl.reference import ConfigurableLQR
from bilevelrl.reference.arrays import FloatArray, check_joined, check_vectors
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import UnsupportedError
from bilevelrl.reference.lqr import LQRFollower, discounted_lyapunov

__all__ = [
    "GradientRewards",
    "QuadraticGradientCritic",
    "QuadraticStateGradient",
    "StepGradient",
    "fit_lstd_gradient",
    "gradient_critic",
    "score_rewards",
]

GradientRewards: TypeAlias = Literal["expected", "score"]
"""What is summed: c(z), or the sample `∇r_F + γ_F V_F(x') ∇log P` with the same mean, as published."""


def _quadratic(z: FloatArray, matrices: FloatArray, offsets: FloatArray) -> FloatArray:
    k = z.shape[-1]
    products = (z[..., :, None] * z[..., None, :]).reshape(*z.shape[:-1], k * k)
    result: FloatArray = -products @ matrices.reshape(len(matrices), k * k).T - offsets
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class StepGradient:
    """c(z) = -z'H z - offset: what one step adds to the gradient of the follower's values.

    Attributes
    ----------
    matrices : (N, n + m, n + m)
    offsets : (N,)
    """

    matrices: FloatArray
    offsets: FloatArray

    @classmethod
    def of(cls, context: Context) -> StepGradient:
        """Evaluate it from V_F and the derivatives of the model's matrices."""
        m, jacobian = context.problem.matrices_at(context.theta), context.problem.jacobian(context.theta)
        p, discount, n = context.follower.cost_to_go, context.problem.discount_follower, m.states

        def moved(name: str) -> FloatArray:
            zero = np.zeros((*np.shape(getattr(m, name)), context.theta.size))
            return np.moveaxis(jacobian.get(name, zero), -1, 0)

        into = np.concatenate([m.dynamics_state, m.dynamics_action], axis=1)
        half = into.T @ p @ np.concatenate([moved("dynamics_state"), moved("dynamics_action")], axis=2)
        matrices = discount * (half + np.swapaxes(half, 1, 2))
        matrices[:, :n, :n] += moved("cost_state_follower")
        matrices[:, n:, n:] += moved("cost_action_follower")  # (3)
        return cls(matrices=matrices, offsets=discount * np.tensordot(moved("noise_covariance"), p))  # (2)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuadraticStateGradient:
    """∇V_F(x) = -x'Γ x - g.

    Attributes
    ----------
    matrices : (N, n, n)
        Γ.
    offsets : (N,)
        g.
    """

    matrices: FloatArray
    offsets: FloatArray

    def value(self, state: Any) -> FloatArray:
        """Return ∇V_F, (..., N)."""
        return _quadratic(np.asarray(state), self.matrices, self.offsets)


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class QuadraticGradientCritic:
    """∇Q_F(z) = -z'G z - offset, and its average ∇V_F over the follower's policy.

    Attributes
    ----------
    matrices : (N, n + m, n + m)
        G.
    offsets : (N,)
    follower : LQRFollower
        Whose policy averages.
    """

    matrices: FloatArray
    offsets: FloatArray
    follower: LQRFollower

    @classmethod
    @checked
    def solve(cls, context: Context) -> QuadraticGradientCritic:
        """Return the exact gradients, by one Lyapunov equation for all parameters.

        Raises
        ------
        IllPosedError
            If the gradient of the follower's values diverges.

        Examples
        --------
        >>> from bilevelrl.reference import solve_follower
        >>> from bilevelrl.tasks import random_lqr
        >>> problem, theta = random_lqr(seed=0), np.zeros(3)
        >>> context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
        >>> state, step = np.ones(problem.matrices_at(theta).states), np.array([1e-6, 0.0, 0.0])
        >>> ahead, behind = (solve_follower(problem, theta + sign * step).value_at(state) for sign in (1.0, -1.0))
        >>> exact = QuadraticGradientCritic.solve(context).value(state)[0]
        >>> bool(abs((ahead - behind) / 2e-6 - exact) < 1e-6 * abs(exact))
        True
        """
        m, follower = context.problem.matrices_at(context.theta), context.follower
        discount, step = context.problem.discount_follower, StepGradient.of(context)
        n = m.states
        into = np.concatenate([m.dynamics_state, m.dynamics_action], axis=1)
        play = np.concatenate([np.eye(n), -follower.gain])
        gamma = discounted_lyapunov(into @ play, play.T @ step.matrices @ play, discount)
        matrices = step.matrices + discount * into.T @ gamma @ into
        spread = np.tensordot(matrices[:, n:, n:], follower.covariance)
        arriving = step.offsets + discount * np.tensordot(gamma, m.noise_covariance)
        offsets = arriving + discount * (arriving + spread) / (1.0 - discount)
        return cls(matrices=matrices, offsets=offsets, follower=follower)

    @checked
    def action_value(self, state: Any, action: Any) -> FloatArray:
        """Return ∇Q_F, (..., N)."""
        return _quadratic(check_joined(state, action, self.follower.gain.shape), self.matrices, self.offsets)

    def over_policy(self) -> QuadraticStateGradient:
        """Return ∇V_F = E_π ∇Q_F."""
        n = self.follower.gain.shape[1]
        play = np.concatenate([np.eye(n), -self.follower.gain])
        spread = np.tensordot(self.matrices[:, n:, n:], self.follower.covariance)
        return QuadraticStateGradient(matrices=play.T @ self.matrices @ play, offsets=self.offsets + spread)

    @checked
    def value(self, state: Any) -> FloatArray:
        """Return ∇V_F, (..., N)."""
        return self.over_policy().value(check_vectors("state", state, self.follower.gain.shape[1]))


def score_rewards(trajectories: Trajectories, context: Context) -> FloatArray:
    """Return `∇r_F + γ_F V_F(x') ∇log P` of every transition, (streams, steps, N)."""
    ahead = context.problem.discount_follower * context.follower.value_at(trajectories.state_tp1)
    scores = single_derivatives(context, trajectories, "log_transition")
    rewards: FloatArray = ahead[..., None] * scores
    if context.problem.varying(context.theta).isdisjoint(("cost_state_follower", "cost_action_follower")):
        return rewards
    return rewards + single_derivatives(context, trajectories, "reward_follower")


def gradient_critic(name: str, context: Context) -> FollowerGradientCritic:
    """Return the context's critic of ∇V_F, or the exact one.

    Raises
    ------
    UnsupportedError
        If the problem is not a configurable LQR.
    """
    if not isinstance(context.problem, ConfigurableLQR):
        raise UnsupportedError(f"{name}: expected a ConfigurableLQR; for tables use another variant of HPGD")
    if context.follower_gradient is None:
        return QuadraticGradientCritic.solve(context)
    critic: FollowerGradientCritic = context.follower_gradient
    return critic


@checked
def fit_lstd_gradient(
    trajectories: Trajectories,
    context: Context,
    *,
    rewards: GradientRewards = "expected",
    inputs: RegressionInputs = "state_action",
    ridge: float = 0.0,
    regression: QuadraticRegression | None = None,
) -> QuadraticGradientCritic | QuadraticStateGradient:
    """Fit ∇Q_F or ∇V_F by least-squares temporal differences, one output for each parameter.

    Parameters
    ----------
    trajectories
        Visited transitions of a configurable LQR.
    context
        Supplies V_F, the policy and the derivatives.
    rewards
        "expected" (little noise), or "score" (the noise of a score at every step).
    inputs
        "state_action": ∇Q_F; "state": ∇V_F.
    ridge, regression
        As in `fit_lstd_critic`; the regression must have the same inputs.

    Raises
    ------
    UnknownNameError, InvalidInputError
        If an option is not known, or the ridge negative.
    EstimatorError
        If the batch does not determine the critic.

    Examples
    --------
    >>> from bilevelrl.estimators.sampling.linear_quadratic import LQRSimulator
    >>> from bilevelrl.reference import solve_follower
    >>> from bilevelrl.tasks import random_lqr
    >>> problem, theta = random_lqr(states=2, actions=1, seed=0), np.zeros(3)
    >>> context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    >>> batch = LQRSimulator().sample(
    ...     problem, theta, context.follower, streams=2000, steps=10, rng=np.random.default_rng(0))
    >>> fitted, exact = fit_lstd_gradient(batch, context), QuadraticGradientCritic.solve(context)
    >>> bool(np.abs(fitted.matrices - exact.matrices).max() < 0.05 * np.abs(exact.matrices).max())
    True
    """
    sums = QuadraticRegression.of(trajectories, context, inputs=inputs) if regression is None else regression
    if rewards == "score":
        moments = sums.instruments @ score_rewards(trajectories, context)[sums.used]
    else:
        step = StepGradient.of(context)
        if inputs == "state_action":  # the rewards are combinations of the features
            moments = sums.products @ pack_quadratic(step.matrices, step.offsets)
        else:
            z = np.concatenate([trajectories.state_t, trajectories.action_t], axis=-1)[sums.used]
            moments = sums.instruments @ _quadratic(z, step.matrices, step.offsets)
    weights = sums.solve(moments, context.problem.discount_follower, ridge=ridge)  # (1)
    matrices, offsets = unpack_quadratic(weights, sums.dimension)
    if inputs == "state":
        return QuadraticStateGradient(matrices=matrices, offsets=offsets)
    return QuadraticGradientCritic(matrices=matrices, offsets=offsets, follower=context.follower)
