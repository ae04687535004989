"""The mixed derivative of the follower's own value in a configurable LQR, through the follower that is paid.

Paid w of the leader's quadratic reward the follower has the costs Q + w C and R + w D, and pays w k besides. What it is
worth stays quadratic, `V(x) = -x'P_w x - v_w`, with `P_w = P + w u` one step of the Riccati equation at what it sees
ahead, `G = γ_F P + w γ_L u`:

    S = R + w D + B'G B,   K = S^{-1} B'G A,   Σ = (β/2) S^{-1},   P_w = Q + w C + A'G (A - B K),                (1)
    v_w = w k + tr(G W) + (β/2) log det S + what is ahead.                                                      (2)

At w = ih this is affine in u with the loop A_c = A - B K, discounted at γ_L: one Lyapunov equation. At fixed w the
matrices move the value as they move the costs along the way, which needs second moments of (x, a) only,

    ∂V* = -Σ_t γ_F^t E_w[x'∂Q x + a'∂R a + 2 y'G_t (∂A x + ∂B a) + tr(G_t ∂W) + w_t (x'∂C x + a'∂D a + ∂k)],    (3)

with `y = A x + B a`. Its derivative in w takes the values G with the moments unpaid (`transition`), the moments with
the values unpaid (`response`) and w itself (`direct`). Moments that carry the pay are `X = Σ_t γ_L^t E[x_t x_t']`, and
what the paid K and Σ set off goes on at γ_F:

    Y = γ_F (A_c Y A_c' + Im[(A - B K) X (A - B K)' + Σ_t γ_L^t B Σ B']/h).                                      (4)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bilevelrl.reference.arrays import ComplexArray, FloatArray
from bilevelrl.reference.lqr.error_bounds import lqr_error_bounds
from bilevelrl.reference.lqr.follower import LQRFollower, solve_lqr
from bilevelrl.reference.lqr.matrices import LQRMatrices
from bilevelrl.reference.lqr.model import ConfigurableLQR, LQRAt
from bilevelrl.reference.lqr.solvers import discounted_lyapunov
from bilevelrl.reference.problem import PARTS, Linearisation, Objective, Part, nudged_slopes

__all__ = ["nudged_lqr"]

STEP = 1e-60
"""h: its square is below rounding in any units."""


class _Backup(NamedTuple):
    slope: FloatArray
    offset: float
    gain: ComplexArray
    covariance: ComplexArray


@dataclass(frozen=True, slots=True, kw_only=True)
class _Paid:
    """A follower that is paid w = ih, to first order in h."""

    matrices: LQRMatrices
    unpaid: FloatArray
    discount: float
    temperature: float

    def backup(self, slope: FloatArray) -> _Backup:
        """Return what one step makes of u, what it adds to the slope of v, and the policy."""
        m = self.matrices
        a, b = m.dynamics_state, m.dynamics_action
        ahead = self.unpaid + 1j * STEP * self.discount * slope
        curvature = m.cost_action_follower + 1j * STEP * m.cost_action_leader + b.T @ ahead @ b
        gain = np.asarray(np.linalg.solve(curvature, b.T @ ahead @ a), dtype=np.complex128)
        cost = m.cost_state_follower + 1j * STEP * m.cost_state_leader + a.T @ ahead @ (a - b @ gain)  # (1)
        turned = float(np.angle(np.linalg.slogdet(curvature)[0])) / STEP
        noise = self.discount * float(np.vdot(slope, m.noise_covariance))
        found = cost.imag / STEP
        return _Backup(
            slope=0.5 * (found + found.T),
            offset=float(m.cost_constant_leader) + noise + 0.5 * self.temperature * turned,  # (2)
            gain=gain,
            covariance=np.asarray(0.5 * self.temperature * np.linalg.inv(curvature), dtype=np.complex128),
        )


@nudged_slopes.register(ConfigurableLQR)
def nudged_lqr(at: LQRAt, objective: Objective, *, warm_start: LQRFollower | None = None) -> Linearisation:
    """Return the slopes in the matrices; see the module's formulas.

    Raises
    ------
    IllPosedError
        If the horizon is infinite and √γ_L A_c is not stable.
    """
    problem, m = at.problem, at.matrices
    a, b = m.dynamics_state, m.dynamics_action
    discount = objective.discount(problem.discount_leader)
    follower = solve_lqr(at, warm_start=warm_start)
    unpaid = problem.discount_follower * follower.cost_to_go
    paid = _Paid(matrices=m, unpaid=unpaid, discount=discount, temperature=problem.temperature)
    at_once = paid.backup(np.zeros_like(unpaid))
    gain = at_once.gain.real
    loop = a - b @ gain
    first = m.initial_mean[:, None] * m.initial_mean + m.initial_covariance
    noise = m.noise_covariance + b @ at_once.covariance.real @ b.T
    if objective.horizon is None:
        weights = np.array([1.0 / (1.0 - discount)])
        slope = discounted_lyapunov(loop, at_once.slope, discount, method="scipy")
        entering = first + discount * weights[0] * noise
        moments = discounted_lyapunov(loop.T, entering, discount, method="scipy")[None]
    else:
        weights = discount ** np.arange(objective.horizon)
        slope = np.zeros_like(unpaid)
        moments = np.empty((objective.horizon, *unpaid.shape))
        moments[0] = first
        for t in range(1, objective.horizon):
            moments[t] = loop @ moments[t - 1] @ loop.T + noise
        moments *= weights[:, None, None]
    ahead, crossed = np.zeros_like(unpaid), np.zeros(gain.shape, dtype=np.complex128)  # Σ γ_L u, Σ K X
    flow, by_action = np.zeros_like(unpaid), np.zeros(b.shape)
    acting, pushed = (np.zeros((k, k), dtype=np.complex128) for k in (len(gain), len(loop)))  # Σ E[aa'], Σ E[yy']
    offset = 0.0
    for weight, moment in zip(weights[::-1], moments[::-1], strict=True):
        seen = discount * slope
        ahead += weight * seen
        flow += seen @ loop @ moment
        by_action += seen @ (loop @ moment @ gain.T - weight * b @ at_once.covariance.real)
        slope, step_offset, paid_gain, covariance = paid.backup(slope)
        offset += weight * step_offset
        crossed += paid_gain @ moment
        acting += paid_gain @ moment @ paid_gain.T + weight * covariance
        moved = a - b @ paid_gain
        pushed += moved @ moment @ moved.T + weight * b @ covariance @ b.T
    entered = problem.discount_follower * pushed.imag / STEP
    state = discounted_lyapunov(loop.T, entered, problem.discount_follower, method="scipy")  # (4)
    cross = crossed.imag / STEP + gain @ state
    action = acting.imag / STEP + gain @ state @ gain.T
    cotangents: dict[Part, dict[str, FloatArray]] = {
        "initial": {"initial_mean": -2.0 * slope @ m.initial_mean, "initial_covariance": -slope},
        "direct": {
            "cost_state_leader": -moments.sum(axis=0),
            "cost_action_leader": -acting.real,
            "cost_constant_leader": np.array(-weights.sum()),
        },
        "transition": {
            "dynamics_state": -2.0 * flow,
            "dynamics_action": 2.0 * by_action,
            "noise_covariance": -ahead,
        },
        "response": {  # (3) with E[a x'] moved by -cross
            "dynamics_state": -2.0 * unpaid @ (a @ state - b @ cross),
            "dynamics_action": 2.0 * unpaid @ (a @ cross.T - b @ action),
            "cost_state_follower": -state,
            "cost_action_follower": -action,
        },
        "regulariser": {"regulariser": np.ones(())},
    }
    cost_to_go = follower.cost_to_go
    return Linearisation(
        objective=float(m.regulariser) - float(np.vdot(slope, first)) - offset,
        cotangents={part: cotangents[part] for part in PARTS},
        follower=follower,
        condition=follower.riccati.amplification,
        error_bound=lambda at: lqr_error_bounds(at, cost_to_go, objective=objective, method="scipy"),
        counters={"doublings": follower.iterations, "lyapunov_solves": 3 if objective.horizon is None else 1},
    )
