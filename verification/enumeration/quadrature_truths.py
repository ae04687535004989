"""Truths of linear-quadratic problems by quadrature alone: no Riccati equation is solved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bilevelrl.estimators import Context
from bilevelrl.estimators.critics import LQRGameCritic
from bilevelrl.estimators.sampling import gaussian_root
from bilevelrl.reference import ConfigurableLQR, LQRGame, solve_follower
from bilevelrl.reference.arrays import FloatArray, check_shape
from bilevelrl.reference.doors import Count, Steps, checked
from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.reference.lqr import LQRFollower
from bilevelrl.reference.lqr_game import closed_loop, evaluate_game_leader
from bilevelrl.reference.problem import Objective, Part, Term
from bilevelrl.verification.enumeration.quadrature import product_rule

__all__ = ["game_expected_parts", "soft_bellman_residual"]


@checked
def game_expected_parts(
    game: LQRGame, theta: Any, *, target: Objective, steps: Steps, nodes: Count = 12
) -> dict[Part, FloatArray]:
    """Return the expectation of BC-HG in a linear-quadratic game, streams of `steps` steps, exact critic.

    Instead of paths it integrates over one step at a time, (x_t, l_t, a_t), with the follower's gradient along the rest
    of the stream in closed form, `∇Q_F = -γ_F x_{t+1}' G^(h) x_{t+1}` plus a constant,

        G^(h) = 2 sym([0; ∇K]' J [I; K]) + γ_F F' G^(h-1) F,

    J being the matrix of V_F(x, l). So long streams cost no more than short ones, per step.

    Parameters
    ----------
    game, theta
        One dimension of everything, or the nodes are too many.
    target
        Whose return.
    steps
        Of a stream.
    nodes
        Per normal.

    Examples
    --------
    >>> from bilevelrl.reference import hypergradient
    >>> from bilevelrl.tasks import random_lqr_game
    >>> game, theta = random_lqr_game(states=1, seed=2, discount_follower=0.5), np.zeros(3)
    >>> parts = game_expected_parts(game, theta, target=Objective(horizon=3), steps=50, nodes=24)
    >>> truth = hypergradient(game, theta, horizon=3)
    >>> bool(np.allclose(parts["response"], truth.parts["response"], rtol=1e-5))
    True
    """
    theta = game.check_theta(theta)
    follower: LQRFollower = solve_follower(game, theta)
    assert follower.cost_to_go_seen is not None
    policy, jacobian = game.policy_at(theta), game.jacobian(theta)
    loop = closed_loop(game, policy.gain, policy.covariance, follower.riccati.reaction, follower.covariance)
    n, p = game.dynamics_leader.shape
    paid = steps if target.horizon is None else min(steps, target.horizon)
    law = evaluate_game_leader(game, loop, objective=Objective(paid), derivatives=False)
    moved = np.moveaxis(jacobian["gain"], -1, 0) if "gain" in jacobian else np.zeros((theta.size, p, n))
    half = moved.swapaxes(1, 2) @ follower.cost_to_go_seen[n:] @ np.concatenate([np.eye(n), policy.gain])
    once = half + half.swapaxes(1, 2)
    gradients = np.zeros((steps + 1, theta.size, n, n))
    for h in range(1, steps + 1):
        gradients[h] = once + game.discount_follower * loop.matrix.T @ gradients[h - 1] @ loop.matrix
    context = Context(problem=game, theta=theta, follower=follower)
    critic = LQRGameCritic.solve(context, target)
    normals, weight = product_rule(n + p + len(follower.covariance), nodes)
    discount = game.discount_leader if target.discounted else 1.0
    own, response = np.zeros(theta.size), np.zeros(theta.size)
    for t in range(paid):
        state = law.mean[t] + normals[:, :n] @ gaussian_root(law.covariance[t]).T
        seen = state @ policy.gain.T + normals[:, n : n + p] @ gaussian_root(policy.covariance).T
        action = follower.mean(state, seen) + normals[:, n + p :] @ gaussian_root(follower.covariance).T
        visits = _Visits(state[None], action[None], seen[None])
        to_go = None if target.horizon is None else np.array(target.horizon - t)
        advantage = critic.advantage_t(visits, to_go, baseline="state_value")
        scores: dict[Term, FloatArray] = {"log_policy_leader": discount**t * weight * advantage}
        own += game.pullback(theta, visits, scores)
        state_tp1 = state @ game.dynamics_state.T + action @ game.dynamics_action.T + seen @ game.dynamics_leader.T
        gradient = -game.discount_follower * np.einsum("ki,nij,kj->kn", state_tp1, gradients[steps - 1 - t], state_tp1)
        benefit = critic.benefit_t(visits, to_go)[0]
        response += discount**t / game.temperature * (weight * benefit) @ gradient
    return {"policy": own, "response": response, "regulariser": game.regulariser_gradient(theta)}


@dataclass(frozen=True, slots=True)
class _Visits:
    """Visited states and actions as a batch of one stream."""

    state_t: FloatArray
    action_t: FloatArray
    leader_action_t: FloatArray
    state_tp1: Any = None


@checked
def soft_bellman_residual(
    problem: ConfigurableLQR, theta: Any, follower: LQRFollower, states: FloatArray, *, nodes: Count = 200
) -> FloatArray:
    """Return `β log ∫ exp(Q_F(x, a)/β) da - V_F(x)` by Gauss-Legendre quadrature, (len(states),).

    It is zero for the best response and tests P and the log-normaliser together; one action dimension.

    Parameters
    ----------
    problem, theta, follower
        Whose value is tested.
    states
        (k, n).
    nodes
        Of the rule, over ±12 standard deviations of the best action.

    Raises
    ------
    InvalidInputError
        If the action has more than one dimension.

    Examples
    --------
    >>> from bilevelrl.tasks import random_lqr
    >>> problem, theta = random_lqr(states=2, actions=1, seed=0), np.zeros(3)
    >>> residual = soft_bellman_residual(problem, theta, solve_follower(problem, theta), np.eye(2))
    >>> bool(np.abs(residual).max() < 1e-11)
    True
    """
    m = problem.matrices_at(theta)
    check_shape("states", states, (None, m.states), "(k, n), one state per row")
    if m.actions != 1:
        raise InvalidInputError(refusal("actions", m.actions, "1", "the integral is over one action dimension"))
    discount, beta, p, b = problem.discount_follower, problem.temperature, follower.cost_to_go, m.dynamics_action
    points, weights = np.polynomial.legendre.leggauss(nodes)
    # The integrand's peak and width are found from Q itself, so that a wrong gain cannot move the window off it.
    curvature = float(m.cost_action_follower[0, 0] + discount * (b.T @ p @ b)[0, 0])
    half = 12.0 * np.sqrt(0.5 * beta / curvature)
    drift = states @ m.dynamics_state.T
    centre = -discount * (drift @ p @ b)[:, 0] / curvature
    action = centre[:, None] + half * points
    ahead = drift[:, None, :] + action[..., None] * b[:, 0]
    value_tp1 = follower.value_at(ahead) - float(np.vdot(p, m.noise_covariance))
    now = np.vecdot(states @ m.cost_state_follower, states)[:, None]
    action_value = -now - float(m.cost_action_follower[0, 0]) * action**2 + discount * value_tp1
    peak = action_value.max(axis=1, keepdims=True)
    backed_up = peak[:, 0] + beta * np.log(half * (np.exp((action_value - peak) / beta) @ weights))
    result: FloatArray = backed_up - follower.value_at(states)
    return result
