"""The leader's critics in configurable LQRs: exact, by steps to go, and least squares on quadratic features.

Under a linear Gaussian policy the leader's values are quadratic,

    V^(h)(x) = -x'M^(h) x - c^(h),                                                                                   (1)
    Q^(h)(x, a) = r_L(x, a) - γ_L [ (A x + B a)' M^(h-1) (A x + B a) + tr(M^(h-1) W) + c^(h-1) ].                    (2)

So quadratic features contain the true critic, and least squares on them has no approximation error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bilevelrl.estimators.critics.least_squares import QuadraticRegression, unpack_quadratic
from bilevelrl.estimators.estimator import Context
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.reference import LQRMatrices
from bilevelrl.reference.arrays import FloatArray, check_joined, check_steps_to_go, check_vectors
from bilevelrl.reference.doors import Horizon, checked
from bilevelrl.reference.lqr import LQRFollower, evaluate_lqr_leader, leader_costs
from bilevelrl.reference.problem import Objective

__all__ = ["QuadraticCritic", "fit_lstd_critic"]


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class QuadraticCritic:
    """Quadratic values of state and action, and their averages over a linear Gaussian policy.

    Attributes
    ----------
    matrices : (H, n + m, n + m)
        Symmetric J^(h) of `Q^(h)(z) = -z'J^(h) z - offset^(h)`, z = (x, a); one row per steps to go, or a single one.
    offsets : (H,)
    follower : LQRFollower
        Whose policy averages Q to V.
    """

    matrices: FloatArray
    offsets: FloatArray
    follower: LQRFollower

    @classmethod
    @checked
    def solve(cls, context: Context, *, horizon: Horizon = None, discounted: bool = True) -> QuadraticCritic:
        """Return the exact critic of the context's follower, by steps to go where there is a horizon.

        Raises
        ------
        IllPosedError
            If the horizon is infinite and values diverge.

        Examples
        --------
        >>> from bilevelrl.reference import hypergradient, solve_follower
        >>> from bilevelrl.tasks import random_lqr
        >>> problem, theta = random_lqr(seed=0), np.zeros(3)
        >>> critic = QuadraticCritic.solve(
        ...     Context(problem=problem, theta=theta, follower=solve_follower(problem, theta)), horizon=4)
        >>> float(abs(critic.value(np.zeros(3), steps_to_go=0)))
        0.0
        """
        Objective(horizon, discounted)
        problem, follower = context.problem, context.follower
        m = problem.matrices_at(context.theta)
        gain, discount = follower.gain, problem.discount_leader if discounted else 1.0
        into = np.concatenate([m.dynamics_state, m.dynamics_action], axis=1)
        step = np.zeros((into.shape[1],) * 2)
        step[: m.states, : m.states], step[m.states :, m.states :] = m.cost_state_leader, m.cost_action_leader
        loop = m.dynamics_state - m.dynamics_action @ gain
        constant = float(m.cost_constant_leader)
        if horizon is None:
            costs = evaluate_lqr_leader(m, gain, follower.covariance, discount).cost_to_go[None]
            per_step = _value_offset(m, follower, costs[0], discount, 0.0)
            ahead = np.array([per_step / (1.0 - discount)])
            zero = []
        else:
            cost = m.cost_state_leader + gain.T @ m.cost_action_leader @ gain
            costs = leader_costs(loop, cost, discount, horizon)[:-1]
            ahead = np.zeros(horizon)
            for h in range(1, horizon):
                ahead[h] = _value_offset(m, follower, costs[h - 1], discount, ahead[h - 1])
            zero = [np.zeros_like(step)]
        joint = step + discount * into.T @ costs @ into
        noise = np.tensordot(costs, m.noise_covariance, axes=2)
        offsets = constant + discount * (noise + ahead)  # (2)
        return cls(
            matrices=np.concatenate([np.array(zero).reshape(-1, *step.shape), joint]),
            offsets=np.concatenate([np.zeros(len(zero)), offsets]),
            follower=follower,
        )

    @checked
    def action_value(self, state: Any, action: Any, *, steps_to_go: Any = None) -> FloatArray:
        """Return Q_L(x, a)."""
        z = check_joined(state, action, self.follower.gain.shape)
        row = check_steps_to_go(steps_to_go, len(self.matrices) - 1, z.shape[:-1])
        if len(self.matrices) == 1 or steps_to_go is None:
            quadratic: FloatArray = np.vecdot(z @ self.matrices[-1], z)
        else:
            quadratic = np.vecdot(np.matmul(z[..., None, :], self.matrices[row])[..., 0, :], z)
        result: FloatArray = -quadratic - self.offsets[row]
        return result

    @checked
    def value(self, state: Any, *, steps_to_go: Any = None) -> FloatArray:
        """Return V_L(x), the average of Q over the policy."""
        n = self.follower.gain.shape[1]
        state = check_vectors("state", state, n)
        row = check_steps_to_go(steps_to_go, len(self.matrices) - 1, state.shape[:-1])
        if len(self.matrices) == 1 or steps_to_go is None:
            x, constant = np.asarray(state), np.vdot(self.matrices[-1][n:, n:], self.follower.covariance)
            return np.asarray(-np.vecdot(x @ self.state_matrix(), x) - (self.offsets[row] + constant))
        spread = np.tensordot(self.matrices[:, n:, n:], self.follower.covariance, axes=2)
        at_mean = self.action_value(state, self.follower.mean(state), steps_to_go=steps_to_go)
        return np.asarray(at_mean - spread[row], dtype=np.float64)  # (1)

    @checked
    def state_matrix(self, steps_to_go: Any = None) -> FloatArray:
        """Return M of V_L(x) = -x'M x - c, (..., n, n)."""
        n, gain = self.follower.gain.shape[1], self.follower.gain
        into = np.concatenate([np.eye(n), -gain])
        result: FloatArray = into.T @ self.matrices[self.row(steps_to_go)] @ into
        return result

    @checked
    def row(self, steps_to_go: Any) -> Any:
        """Return which of the matrices serves so many steps to go."""
        return check_steps_to_go(steps_to_go, len(self.matrices) - 1)


def _value_offset(m: LQRMatrices, follower: LQRFollower, cost: FloatArray, discount: float, ahead: float) -> float:
    """c^(h) from M^(h-1) and c^(h-1)."""
    b, sigma = m.dynamics_action, follower.covariance
    noise = float(np.vdot(cost, m.noise_covariance + b @ sigma @ b.T))
    return float(np.vdot(m.cost_action_leader, sigma)) + float(m.cost_constant_leader) + discount * (noise + ahead)


@checked
def fit_lstd_critic(
    trajectories: Trajectories,
    context: Context,
    *,
    ridge: float = 0.0,
    regression: QuadraticRegression | None = None,
) -> QuadraticCritic:
    """Fit Q_L of an infinite horizon by least-squares temporal differences on quadratic features of (x, a).

    Solves `Σ φ (φ - γ_L E_π φ')' w = Σ φ r_L`; the average over the next action is exact, and φ contains the true
    critic, so the only errors are those of sampling.

    Parameters
    ----------
    trajectories
        Visited transitions of a configurable LQR; the observed next state of a truncated step counts.
    context
        Supplies γ_L and the follower's policy.
    ridge
        Multiple of the identity added to the normal matrix, relative to its mean diagonal.
    regression
        The sums of this batch over states and actions, where they are known already.

    Raises
    ------
    InvalidInputError
        If the ridge is negative.
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
    >>> fitted, exact = fit_lstd_critic(batch, context), QuadraticCritic.solve(context)
    >>> bool(np.abs(fitted.matrices - exact.matrices).max() < 0.05 * np.abs(exact.matrices).max())
    True
    """
    sums = QuadraticRegression.of(trajectories, context) if regression is None else regression
    moments = sums.instruments @ trajectories.reward_leader_t[sums.used]
    weights = sums.solve(moments[:, None], context.problem.discount_leader, ridge=ridge)
    matrices, offsets = unpack_quadratic(weights, sums.dimension)
    return QuadraticCritic(matrices=matrices, offsets=offsets, follower=context.follower)
