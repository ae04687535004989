"""The leader's return in a linear-quadratic game, in closed form, and its derivatives.

Under policies linear in the state and Gaussian the state is Gaussian, `x_t ~ N(m_t, Z_t)`. With `H = I - B G`,

    F = H (A + C K),   N = H C Ω C' H' + B Σ B',                                                                 (1)
    m_{t+1} = F m_t,   Z_{t+1} = F Z_t F' + N,                                                                   (2)
    E r_L(x_t) = |I + D^{-1} Z_t|^{-1/2} exp(-½ (m_t - x*)' (D + Z_t)^{-1} (m_t - x*)).                          (3)

The reward lies in (0, 1], so the infinite-horizon return exists whatever the closed loop does: its tail beyond T steps
is at most `γ_L^T / (1-γ_L)`. An unstable loop spreads the state in some directions and not in others, until `D + Z_t`
says nothing in double precision; from a condition number c on, rewards of at most about `c^{-1/2}` are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import Horizon, checked
from bilevelrl.reference.errors import ShapeError, refusal
from bilevelrl.reference.lqr.follower import LQRFollower
from bilevelrl.reference.lqr.solvers import symmetric
from bilevelrl.reference.lqr_game.model import LQRGame, LQRGameAt, solve_lqr_game
from bilevelrl.reference.problem import INFINITE_HORIZON, Objective, evaluate_objective

__all__ = [
    "SPREAD_LIMIT",
    "ClosedLoop",
    "GameEvaluation",
    "closed_loop",
    "evaluate_game_leader",
    "game_steps",
    "lqr_game_objective",
]

_TAIL = 1e-17  # of the largest possible return, beyond which an infinite horizon is cut
_ESCAPED = 1e100  # size of the state's law from which on the reward is zero in floating point
SPREAD_LIMIT = 1e13
"""Condition number of D + Z_t from which on rewards are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedLoop:
    """The Gaussian chain of states under both players' policies.

    Attributes
    ----------
    matrix, noise : (n, n)
        F and N.
    after_reaction : (n, n)
        H = I - B G.
    planned : (n, n)
        A + C K.
    """

    matrix: FloatArray
    noise: FloatArray
    after_reaction: FloatArray
    planned: FloatArray


def closed_loop(
    game: LQRGame, gain: FloatArray, leader_covariance: FloatArray, reaction: FloatArray, covariance: FloatArray
) -> ClosedLoop:
    """Return the chain under leader's K and Ω and follower's G and Σ."""
    b, c = game.dynamics_action, game.dynamics_leader
    after = np.eye(b.shape[0]) - b @ reaction
    planned = game.dynamics_state + c @ gain
    through = after @ c
    return ClosedLoop(
        matrix=after @ planned,  # (1)
        noise=symmetric(through @ leader_covariance @ through.T + b @ covariance @ b.T),
        after_reaction=after,
        planned=planned,
    )


def game_steps(discount: float, horizon: Horizon) -> int:
    """Return the number of steps that are summed: the horizon, or as many as leave a relative tail of 1e-17."""
    if horizon is not None:
        return horizon
    return 1 if discount == 0.0 else int(np.ceil(np.log(_TAIL) / np.log(discount))) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class GameEvaluation:
    """What the leader earns, and the cotangents of the chain.

    Attributes
    ----------
    objective : float
        J without the regulariser.
    reward : (T,)
        E r_L(x_t).
    mean, covariance : (T, n), (T, n, n)
        m_t and Z_t.
    matrix, noise : (n, n)
        Cotangents of F and N.
    """

    objective: float
    reward: FloatArray
    mean: FloatArray
    covariance: FloatArray
    matrix: FloatArray
    noise: FloatArray


def evaluate_game_leader(
    game: LQRGame,
    loop: ClosedLoop,
    *,
    objective: Objective = INFINITE_HORIZON,
    derivatives: bool = True,
) -> GameEvaluation:
    """Evaluate the leader's return along the Gaussian chain, and differentiate it backwards through time.

    Parameters
    ----------
    game, loop
        The game and its closed loop.
    objective
        Which return.
    derivatives
        False leaves the cotangents at zero.
    """
    discount = objective.discount(game.discount_leader)
    steps, n = game_steps(discount, objective.horizon), loop.matrix.shape[0]
    mean, covariance = np.zeros((steps, n)), np.zeros((steps, n, n))
    mean[0], covariance[0] = game.initial_mean, game.initial_covariance
    f, f_t, noise = loop.matrix, np.ascontiguousarray(loop.matrix.T), loop.noise
    stay, law = game.initial_mean, game.initial_covariance
    for t in range(1, steps):
        stay = f @ stay
        law = f @ law @ f_t + noise  # (2)
        if not max(law.max(), stay @ stay) < _ESCAPED:
            # An unstable loop has carried the state away for good: what follows earns less than any float.
            mean, covariance, steps = mean[:t], covariance[:t], t
            break
        mean[t], covariance[t] = stay, law
    eigenvalues = np.linalg.eigvalsh(game.width + covariance)
    lost = eigenvalues[:, -1] > SPREAD_LIMIT * eigenvalues[:, 0]
    if lost.any():
        steps = int(np.argmax(lost))
        mean, covariance = mean[:steps], covariance[:steps]
    wide = np.linalg.inv(game.width + covariance)
    off = mean - game.target
    pull = np.matmul(wide, off[:, :, None])[:, :, 0]
    _, log_wide = np.linalg.slogdet(wide)
    _, log_width = np.linalg.slogdet(game.width)
    reward = np.exp(0.5 * (log_wide + log_width - np.vecdot(off, pull)))  # (3)
    weighted = discount ** np.arange(steps) * reward
    by_matrix, by_noise = np.zeros((n, n)), np.zeros((n, n))
    if derivatives and steps > 1:
        by_mean = -weighted[:, None] * pull
        by_law = 0.5 * weighted[:, None, None] * (pull[:, :, None] * pull[:, None, :] - wide)
        mean_ahead, law_ahead = np.empty((steps - 1, n)), np.empty((steps - 1, n, n))
        adjoint, spread = by_mean[-1], by_law[-1]
        for t in range(steps - 2, -1, -1):
            mean_ahead[t], law_ahead[t] = adjoint, spread
            adjoint = by_mean[t] + f_t @ adjoint
            spread = by_law[t] + f_t @ spread @ f
        by_noise = law_ahead.sum(axis=0)
        by_matrix = mean_ahead.T @ mean[:-1] + 2.0 * np.matmul(law_ahead @ f, covariance[:-1]).sum(axis=0)
    return GameEvaluation(
        objective=float(weighted.sum()),
        reward=reward,
        mean=mean,
        covariance=covariance,
        matrix=by_matrix,
        noise=by_noise,
    )


@evaluate_objective.register(LQRGame)
@checked
def lqr_game_objective(
    at: LQRGameAt, *, objective: Objective = INFINITE_HORIZON, follower: LQRFollower | None = None
) -> float:
    """The leader's objective for a linear-quadratic game; see `leader_objective`."""
    problem, policy = at.problem, at.policy
    response = solve_lqr_game(at) if follower is None else follower
    reaction = response.riccati.reaction
    if reaction.shape != problem.dynamics_action.shape[::-1]:
        raise ShapeError(
            refusal(
                "follower reaction shape", reaction.shape, f"{problem.dynamics_action.shape[::-1]}", "solve it anew"
            )
        )
    loop = closed_loop(problem, policy.gain, policy.covariance, reaction, response.covariance)
    evaluation = evaluate_game_leader(problem, loop, objective=objective, derivatives=False)
    return evaluation.objective + float(policy.regulariser)
