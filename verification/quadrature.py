"""Deterministic checks of continuous problems: Gaussian quadrature in place of enumeration.

A trajectory of a linear-quadratic problem is a linear function of independent standard normals: the first state, the
follower's deviations and the disturbances. Estimators with quadratic critics are polynomials of them, and products of
Gauss-Hermite rules with k nodes are exact up to degree 2k - 1 in each variable: the mean and covariance carry no
sampling error at all, as enumeration does for tables. The number of paths is k to the number of normals.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bilevelrl.estimators import Context, Draw, Estimator, LeaderCritic, Trajectories
from bilevelrl.estimators.sampling_lqr import gaussian_root
from bilevelrl.reference import ConfigurableLQR, LQRFollower, solve_follower
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import EstimatorError, InvalidInputError, TooLargeError, refusal
from bilevelrl.verification.enumeration import Moments

__all__ = ["quadrature_moments", "quadrature_trajectories", "soft_bellman_residual"]


def quadrature_trajectories(
    problem: ConfigurableLQR,
    theta: Any,
    follower: LQRFollower,
    *,
    horizon: int,
    nodes: int,
    max_paths: int = 500_000,
) -> tuple[Trajectories, FloatArray]:
    """Return one trajectory per quadrature node, and the weights (paths,) that sum to one.

    Raises
    ------
    TooLargeError
        If there are more paths than `max_paths`.
    InvalidInputError
        If the horizon or the number of nodes is not a positive integer.
    """
    for name, value in (("horizon", horizon), ("nodes", nodes)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise InvalidInputError(refusal(name, value, "an integer >= 1", "keep both small"))
    m = problem.matrices_at(theta)
    n, k = m.states, m.actions
    normals = n + horizon * (n + k)
    if float(nodes) ** normals > max_paths:
        raise TooLargeError(
            f"quadrature: {nodes}^{normals} paths, expected at most {max_paths}; shorten the horizon, use fewer nodes "
            "or a one-dimensional problem"
        )
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    weights = weights / weights.sum()
    index = np.indices((nodes,) * normals).reshape(normals, -1)
    draws, weight = points[index].T, weights[index].prod(axis=0)
    paths = len(weight)
    roots = gaussian_root(m.initial_covariance), gaussian_root(follower.covariance), gaussian_root(m.noise_covariance)
    state = m.initial_mean + draws[:, :n] @ roots[0].T
    steps = draws[:, n:].reshape(paths, horizon, n + k)
    state_t, state_tp1 = np.empty((paths, horizon, n)), np.empty((paths, horizon, n))
    action_t = np.empty((paths, horizon, k))
    for t in range(horizon):
        state_t[:, t] = state
        action_t[:, t] = follower.mean(state) + steps[:, t, :k] @ roots[1].T
        state = state @ m.dynamics_state.T + action_t[:, t] @ m.dynamics_action.T + steps[:, t, k:] @ roots[2].T
        state_tp1[:, t] = state
    nowhere = np.zeros((paths, horizon), dtype=np.bool_)
    truncated = nowhere.copy()
    truncated[:, -1] = True
    batch = Trajectories(
        state_t=state_t,
        action_t=action_t,
        state_tp1=state_tp1,
        reward_leader_t=m.reward_leader(state_t, action_t),
        terminated=nowhere,
        truncated=truncated,
        time_in_episode=np.broadcast_to(np.arange(horizon), (paths, horizon)).copy(),
        valid=~nowhere,
        behaviour_log_prob=follower.log_prob(state_t, action_t),
    )
    return batch, weight


def quadrature_moments(
    estimator: Estimator,
    problem: ConfigurableLQR,
    theta: Any,
    *,
    horizon: int,
    nodes: int = 5,
    follower: LQRFollower | None = None,
    critic: LeaderCritic | None = None,
    max_paths: int = 500_000,
) -> Moments:
    """Return mean and covariance of an estimator on a small linear-quadratic problem without sampling error.

    Parameters
    ----------
    estimator
        One row per trajectory.
    problem, theta
        One dimension of states and actions and a short horizon, or the paths are too many.
    horizon
        Steps of each trajectory.
    nodes
        Per normal. The mean of BC-HG needs 4 for exactness, its covariance 7.
    follower, critic
        As in `enumerate_moments`.
    max_paths
        Refuse to list more.

    Raises
    ------
    EstimatorError
        If the estimator's draw is a batch.
    TooLargeError, InvalidInputError
        As `quadrature_trajectories`.

    Examples
    --------
    >>> from bilevelrl.estimators import NaivePGD, Target
    >>> from bilevelrl.reference import hypergradient
    >>> from bilevelrl.tasks import random_lqr
    >>> problem, theta = random_lqr(states=1, actions=1, seed=0), np.zeros(3)
    >>> naive = NaivePGD(target=Target(horizon=2), critic="exact_truncated")
    >>> moments = quadrature_moments(naive, problem, theta, horizon=2)
    >>> truth = hypergradient(problem, theta, horizon=2)
    >>> bool(np.allclose(moments.mean, truth.value - truth.parts["response"], rtol=1e-10))
    True
    """
    if estimator.draw is not Draw.TRAJECTORY:
        raise EstimatorError(f"{estimator.name}: expected one row per trajectory; averages inside a batch have none")
    theta = problem.check_theta(theta)
    response: LQRFollower = solve_follower(problem, theta) if follower is None else follower
    batch, weight = quadrature_trajectories(problem, theta, response, horizon=horizon, nodes=nodes, max_paths=max_paths)
    context = Context(problem=problem, theta=theta, follower=response, critic=critic)
    by_part = estimator.parts_per_draw(batch, context)
    rows = sum(by_part.values(), np.zeros((len(weight), theta.size)))
    mean = weight @ rows
    magnitude = weight @ np.abs(rows)
    off = rows - mean
    return Moments(
        name=estimator.name,
        mean=mean,
        covariance=(off * weight[:, None]).T @ off,
        parts={part: weight @ value for part, value in by_part.items()},
        magnitude=magnitude,
        rounding=(horizon + np.log2(len(weight)) + 8.0) * float(np.finfo(np.float64).eps) * magnitude,
        probability=float(weight.sum()),
        paths=len(weight),
        draws=len(weight),
        draw=estimator.draw,
        batch=1,
        horizon=horizon,
    )


def soft_bellman_residual(
    problem: ConfigurableLQR, theta: Any, follower: LQRFollower, states: FloatArray, *, nodes: int = 200
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
    value_tp1 = follower.value(ahead) - float(np.vdot(p, m.noise_covariance))
    now = np.vecdot(states @ m.cost_state_follower, states)[:, None]
    action_value = -now - float(m.cost_action_follower[0, 0]) * action**2 + discount * value_tp1
    peak = action_value.max(axis=1, keepdims=True)
    backed_up = peak[:, 0] + beta * np.log(half * (np.exp((action_value - peak) / beta) @ weights))
    result: FloatArray = backed_up - follower.value(states)
    return result
