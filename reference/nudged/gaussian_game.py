"""The mixed derivative of the follower's own value in an LQR game, through a follower that is paid in quadratics.

The leader's reward is no quadratic, but the state is Gaussian, `x_t ~ N(m_t, Z_t)`, whatever linear policies are
played, and of a Gaussian's mean of r_L the derivatives are those of the quadratic (Bonnet, Price)

    r_t(x) = g_t'(x - m_t) + ½ (x - m_t)' H_t (x - m_t) + constant,    g_t = E ∇r_L(x_t),   H_t = E ∇²r_L(x_t).  (1)

So the hypergradient is that of a leader who is paid (1), frozen at this θ, and its follower can be paid `w_t r_t` and
stay linear. Seeing what comes, `-x'Gx - 2q'x` with `G = γ_F P + w γ_L M` and `q = w γ_L n`, once l is drawn and
`y = A x + C l` is known it plays

    S = R + B'G B,   a ~ N(-S^{-1} B'(G y + q), (β/2) S^{-1}),   Γ = G - G B S^{-1} B'G,   λ = q - G B S^{-1} B'q,  (2)

and is worth `-y'Γ y - 2 λ'y` and its own pay. With `F = A + C K`, in units of w_t,

    M_t = F'Γ'F - ½ H_t,    n_t = F'λ' - ½ (g_t - H_t m_t),                                                      (3)

dashes being derivatives in w, by complex step. At fixed w only the leader's policy moves the value, by

    ∂V* = -Σ_t γ_F^t E_w[2 (Γ_t F x + λ_t)' C ∂K x] - Σ_t γ_F^t tr(C'Γ_t C ∂Ω).                                  (4)

The derivative in w takes (Γ, λ) with the visits unpaid, the policy part, and the visits with (Γ, λ) unpaid, the
response part, which needs the second moments Y that the paid reaction sets off, going on at γ_F.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bilevelrl.reference.arrays import ComplexArray, FloatArray, Traced
from bilevelrl.reference.lqr.follower import LQRFollower
from bilevelrl.reference.lqr.solvers import discounted_lyapunov
from bilevelrl.reference.lqr_game.error_bounds import lqr_game_error_bounds
from bilevelrl.reference.lqr_game.leader import SPREAD_LIMIT, game_steps
from bilevelrl.reference.lqr_game.model import LQRGame, LQRGameAt, solve_lqr_game
from bilevelrl.reference.nudged.lqr import STEP
from bilevelrl.reference.problem import Linearisation, Objective, Part, nudged_slopes

__all__ = ["nudged_lqr_game"]

_ESCAPED = 1e100  # size of the state's law from which on nothing is paid in floating point


class _Reaction(NamedTuple):
    """What a follower does once it knows y, and what it is worth then, (2); complex."""

    after: ComplexArray
    offset: ComplexArray
    noise: ComplexArray
    quadratic: ComplexArray
    linear: ComplexArray


def _react(game: LQRGame, ahead: Traced, lean: Traced) -> _Reaction:
    b = game.dynamics_action
    solved: Traced = np.linalg.solve(
        game.cost_action + b.T @ ahead @ b, np.column_stack([b.T @ ahead, b.T @ lean, b.T])
    )
    n = len(b)
    reaction, pulled, inverse = solved[:, :n], solved[:, n], solved[:, n + 1 :]
    return _Reaction(
        after=np.eye(n, dtype=np.complex128) - b @ reaction,
        offset=-b @ pulled,
        noise=0.5 * game.temperature * b @ inverse,
        quadratic=ahead - ahead @ b @ reaction,
        linear=lean - ahead @ b @ pulled,
    )


class _Step(NamedTuple):
    """The state's law at one time and the slopes of (1) there."""

    mean: FloatArray
    moment: FloatArray
    reward: float
    pull: FloatArray
    bend: FloatArray


def _steps(game: LQRGame, loop: FloatArray, noise: FloatArray, steps: int) -> list[_Step]:
    """Return the steps in which anything is paid that doubles can tell."""
    mean, covariance = np.asarray(game.initial_mean), np.asarray(game.initial_covariance)
    found: list[_Step] = []
    for _ in range(steps):
        spread = game.width + covariance
        sizes = np.linalg.eigvalsh(spread)
        if not max(covariance.max(), mean @ mean) < _ESCAPED or sizes[-1] > SPREAD_LIMIT * sizes[0]:
            break
        wide = np.linalg.inv(spread)
        away = wide @ (mean - game.target)
        scale = np.linalg.slogdet(wide)[1] + np.linalg.slogdet(game.width)[1]
        reward = float(np.exp(0.5 * (scale - (mean - game.target) @ away)))
        moment = covariance + np.outer(mean, mean)
        found.append(_Step(mean, moment, reward, -reward * away, reward * (np.outer(away, away) - wide)))
        mean, covariance = loop @ mean, loop @ covariance @ loop.T + noise
    return found


@nudged_slopes.register(LQRGame)
def nudged_lqr_game(at: LQRGameAt, objective: Objective, *, warm_start: LQRFollower | None = None) -> Linearisation:
    """Return the slopes in the leader's policy; see the module's formulas."""
    game, policy = at.problem, at.policy
    discount, c = objective.discount(game.discount_leader), game.dynamics_leader
    follower = solve_lqr_game(at, warm_start=warm_start)
    n = len(follower.cost_to_go)
    unpaid = game.discount_follower * follower.cost_to_go
    planned = game.dynamics_state + c @ policy.gain
    disturbed = c @ policy.covariance @ c.T
    plain = _react(game, unpaid + 0j, np.zeros(n, dtype=np.complex128))
    after = plain.after.real
    loop = after @ planned
    noise = after @ disturbed @ after.T + plain.noise.real
    steps = _steps(game, loop, noise, game_steps(discount, objective.horizon))
    bent, leant = np.zeros((n, n)), np.zeros(n)
    by_gain, by_covariance = np.zeros((n, n)), np.zeros((n, n))
    entered = np.zeros((n, n))
    earned = 0.0
    for t in reversed(range(len(steps))):
        step, weight = steps[t], discount**t
        found = _react(game, unpaid + 1j * STEP * discount * bent, 1j * STEP * discount * leant)
        quadratic, linear = found.quadratic.imag / STEP, found.linear.imag / STEP
        by_gain += weight * (quadratic @ planned @ step.moment + np.outer(linear, step.mean))  # (4)
        by_covariance += weight * quadratic
        known = planned @ step.moment @ planned.T + disturbed
        moved = np.outer(found.after @ planned @ step.mean, found.offset)
        set_off = found.after @ known @ found.after.T + moved + moved.T + found.noise
        entered += weight * set_off.imag / STEP
        bent = planned.T @ quadratic @ planned - 0.5 * step.bend  # (3)
        bent = 0.5 * (bent + bent.T)
        leant = planned.T @ linear - 0.5 * (step.pull - step.bend @ step.mean)
        earned += weight * step.reward
    state = discounted_lyapunov(loop.T, game.discount_follower * entered, game.discount_follower, method="scipy")
    cotangents: dict[Part, dict[str, FloatArray]] = {
        "policy": {"gain": -2.0 * c.T @ by_gain, "covariance": -c.T @ by_covariance @ c},
        "response": {"gain": -2.0 * c.T @ plain.quadratic.real @ planned @ state},
        "regulariser": {"regulariser": np.ones(())},
    }
    cost_to_go = follower.cost_to_go
    return Linearisation(
        objective=earned + float(policy.regulariser),
        cotangents=cotangents,
        follower=follower,
        condition=follower.riccati.amplification,
        error_bound=lambda at: lqr_game_error_bounds(at, cost_to_go, objective=objective),
        counters={"doublings": follower.iterations, "steps": len(steps)},
    )
