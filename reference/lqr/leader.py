"""The leader's return in a configurable LQR under a linear Gaussian policy, and its derivatives in closed form.

With `A_c = A - B K`, the step cost `C̃ = C + K'D K` and the noise `N = W + B Σ B'`, the costs with h steps to go are

    M^(h) = C̃ + γ_L A_c' M^(h-1) A_c,    c^(h) = tr(D Σ) + k + γ_L (tr(M^(h-1) N) + c^(h-1)),                    (1)
    J = ρ - E[x_0' M x_0] - c,                                                                                   (2)

from `M^(0) = 0, c^(0) = 0`; the infinite horizon is the fixed point. Second moments run forwards, and four discounted
sums of them hold every derivative:

    X_0 = m_0 m_0' + Z_0,   X_{t+1} = A_c X_t A_c' + N,                                                          (3)
    X̄ = Σ γ^t X_t,   Ȳ = Σ γ^{t+1} M^(T-t-1) A_c X_t,   M̄ = Σ γ^{t+1} M^(T-t-1),   L = Σ γ^t.                    (4)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import ShapeError, refusal
from bilevelrl.reference.lqr.follower import LQRFollower, solve_lqr
from bilevelrl.reference.lqr.matrices import LQRMatrices
from bilevelrl.reference.lqr.model import ConfigurableLQR, LQRAt
from bilevelrl.reference.lqr.solvers import discounted_lyapunov
from bilevelrl.reference.problem import INFINITE_HORIZON, Objective, Part, evaluate_objective

__all__ = ["LQRLeaderEvaluation", "evaluate_lqr_leader", "leader_costs", "lqr_leader_objective"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LQRLeaderEvaluation:
    """What the leader earns, and the sums that its derivatives are made of.

    Attributes
    ----------
    objective : float
        J, the regulariser included.
    cost_to_go : (n, n)
        M with the whole horizon to go.
    visits : (n, n)
        X̄.
    flow : (n, n)
        Ȳ.
    future : (n, n)
        M̄.
    length : float
        L.
    """

    objective: float
    cost_to_go: FloatArray
    visits: FloatArray
    flow: FloatArray
    future: FloatArray
    length: float

    def policy_cotangents(self, matrices: LQRMatrices, gain: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the cotangents of J with respect to K (m, n) and Σ (m, m)."""
        b, d = matrices.dynamics_action, matrices.cost_action_leader
        by_gain = 2.0 * (b.T @ self.flow - d @ gain @ self.visits)
        return by_gain, -self.length * d - b.T @ self.future @ b

    def matrix_cotangents(
        self, matrices: LQRMatrices, gain: FloatArray, covariance: FloatArray
    ) -> dict[Part, dict[str, FloatArray]]:
        """Return the cotangents of J by part, K and Σ held fixed."""
        return {
            "initial": {
                "initial_mean": -2.0 * self.cost_to_go @ matrices.initial_mean,
                "initial_covariance": -self.cost_to_go,
            },
            "direct": {
                "cost_state_leader": -self.visits,
                "cost_action_leader": -gain @ self.visits @ gain.T - self.length * covariance,
                "cost_constant_leader": np.array(-self.length),
            },
            "transition": {
                "dynamics_state": -2.0 * self.flow,
                "dynamics_action": 2.0 * (self.flow @ gain.T - self.future @ matrices.dynamics_action @ covariance),
                "noise_covariance": -self.future,
            },
            "regulariser": {"regulariser": np.ones(())},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _System:
    """The closed loop as the leader sees it."""

    closed_loop: FloatArray
    cost: FloatArray
    noise: FloatArray
    step_cost: float
    second_moment: FloatArray

    @classmethod
    def of(cls, matrices: LQRMatrices, gain: FloatArray, covariance: FloatArray) -> _System:
        a, b, d = matrices.dynamics_state, matrices.dynamics_action, matrices.cost_action_leader
        mean = matrices.initial_mean
        return cls(
            closed_loop=a - b @ gain,
            cost=matrices.cost_state_leader + gain.T @ d @ gain,
            noise=matrices.noise_covariance + b @ covariance @ b.T,
            step_cost=float(np.vdot(d, covariance)) + float(matrices.cost_constant_leader),
            second_moment=mean[:, None] * mean + matrices.initial_covariance,
        )


def evaluate_lqr_leader(
    matrices: LQRMatrices,
    gain: FloatArray,
    covariance: FloatArray,
    discount_leader: float,
    *,
    objective: Objective = INFINITE_HORIZON,
) -> LQRLeaderEvaluation:
    """Evaluate the leader's return under `a ~ N(-gain x, covariance)`.

    Raises
    ------
    IllPosedError
        If the horizon is infinite and √γ_L A_c is not stable.
    """
    system = _System.of(matrices, gain, covariance)
    discount = objective.discount(discount_leader)
    if objective.horizon is None:
        return _infinite(matrices, system, discount)
    return _truncated(matrices, system, discount, objective.horizon)


def _infinite(matrices: LQRMatrices, system: _System, discount: float) -> LQRLeaderEvaluation:
    length = 1.0 / (1.0 - discount)
    cost = discounted_lyapunov(system.closed_loop, system.cost, discount)
    entering = system.second_moment + discount * length * system.noise
    visits = discounted_lyapunov(system.closed_loop.T, entering, discount)
    return LQRLeaderEvaluation(
        objective=float(matrices.regulariser) - float(np.vdot(cost, entering)) - length * system.step_cost,
        cost_to_go=cost,
        visits=visits,
        flow=discount * cost @ system.closed_loop @ visits,  # (4)
        future=discount * length * cost,
        length=length,
    )


def _truncated(matrices: LQRMatrices, system: _System, discount: float, horizon: int) -> LQRLeaderEvaluation:
    costs = leader_costs(system.closed_loop, system.cost, discount, horizon)
    powers = discount ** np.arange(horizon)
    moments = np.empty((horizon, *system.cost.shape))
    moments[0] = system.second_moment
    for t in range(1, horizon):
        moments[t] = system.closed_loop @ moments[t - 1] @ system.closed_loop.T + system.noise  # (3)
    ahead = costs[horizon - 1 :: -1]  # M^(T-t-1), t = 0 .. T-1
    weighted = discount * powers[:, None, None] * ahead
    future = weighted.sum(axis=0)
    length = float(powers.sum())
    return LQRLeaderEvaluation(
        objective=(  # (2)
            float(matrices.regulariser)
            - float(np.vdot(costs[horizon], system.second_moment))
            - float(np.vdot(future, system.noise))
            - length * system.step_cost
        ),
        cost_to_go=costs[horizon],
        visits=np.tensordot(powers, moments, axes=1),  # (4)
        flow=np.matmul(weighted @ system.closed_loop, moments).sum(axis=0),
        future=future,
        length=length,
    )


def leader_costs(closed_loop: FloatArray, cost: FloatArray, discount: float, horizon: int) -> FloatArray:
    """Return M by steps to go, (horizon + 1, n, n); the first is zero.

    Examples
    --------
    >>> leader_costs(np.array([[0.5]]), np.array([[1.0]]), 1.0, 2).ravel()
    array([0.  , 1.  , 1.25])
    """
    costs = np.zeros((horizon + 1, *cost.shape))
    for h in range(1, horizon + 1):
        costs[h] = cost + discount * closed_loop.T @ costs[h - 1] @ closed_loop  # (1)
    return costs


@evaluate_objective.register(ConfigurableLQR)
@checked
def lqr_leader_objective(
    at: LQRAt, *, objective: Objective = INFINITE_HORIZON, follower: LQRFollower | None = None
) -> float:
    """The leader's objective for a configurable LQR; see `leader_objective`."""
    matrices = at.matrices
    response = solve_lqr(at) if follower is None else follower
    if response.gain.shape != (matrices.actions, matrices.states):
        raise ShapeError(
            refusal(
                "follower.gain.shape", response.gain.shape, f"{(matrices.actions, matrices.states)}", "solve it anew"
            )
        )
    return evaluate_lqr_leader(
        matrices,
        response.gain,
        response.covariance,
        at.problem.discount_leader,
        objective=objective,
    ).objective
