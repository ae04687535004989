"""Deterministic checks of continuous problems: Gaussian quadrature in place of enumeration.

A trajectory of a linear-quadratic problem or game is a linear function of independent standard normals: the first
state, the players' deviations and the disturbances. Estimators with quadratic critics are polynomials of them, and
products of Gauss-Hermite rules with k nodes are exact up to degree 2k - 1 in each variable: the mean and covariance
carry no sampling error at all, as enumeration does for tables. In games the leader's reward is a Gaussian bump and not
a polynomial: there the error falls geometrically with the number of nodes. The number of paths is k to the number of
normals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bilevelrl.estimators import Context, Draw, Estimator, LeaderCritic, Trajectories
from bilevelrl.estimators.sampling import gaussian_root
from bilevelrl.reference import ConfigurableLQR, LQRGame, solve_follower
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import Count, check_count, checked
from bilevelrl.reference.errors import EstimatorError, TooLargeError, UnsupportedError
from bilevelrl.reference.lqr import LQRFollower
from bilevelrl.verification.enumeration.contract import (
    ContractedEstimator,
    EstimatorFunction,
    OwnRandomnessError,
    forbidden_generator,
    protect,
)
from bilevelrl.verification.enumeration.exact_sums import Moments
from bilevelrl.verification.enumeration.streams import following

__all__ = ["integrated_moments", "quadrature_moments", "quadrature_trajectories"]


def quadrature_trajectories(
    problem: ConfigurableLQR | LQRGame,
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
    check_count("horizon", horizon)
    check_count("nodes", nodes)
    theta = problem.check_theta(theta)
    walk = _Walk.of(problem, theta, follower)
    n, k, p = walk.start_root.shape[1], len(follower.covariance), walk.leader_root.shape[1]
    normals = walk.normals(horizon)
    if normals * math.log(nodes) > math.log(max_paths) + 1e-9:
        raise TooLargeError(
            f"horizon={horizon}, nodes={nodes}: {nodes}^{normals} paths, expected at most max_paths={max_paths}; "
            "shorten the horizon, use fewer nodes or a one-dimensional problem"
        )
    draws, weight = product_rule(normals, nodes)
    paths = len(weight)
    state = walk.start + draws[:, :n] @ walk.start_root.T
    steps = draws[:, n:].reshape(paths, horizon, -1)
    action_root = gaussian_root(follower.covariance)
    state_t, state_tp1 = (np.empty((paths, horizon, len(walk.start))) for _ in range(2))
    action_t, leader_t = np.empty((paths, horizon, k)), np.empty((paths, horizon, len(walk.leader_gain)))
    for t in range(horizon):
        state_t[:, t] = state
        seen = leader_t[:, t] = state @ walk.leader_gain.T + steps[:, t, :p] @ walk.leader_root.T
        action_t[:, t] = follower.mean(state, seen) + steps[:, t, p : p + k] @ action_root.T
        state = state @ walk.dynamics_state.T + action_t[:, t] @ walk.dynamics_action.T + seen @ walk.dynamics_leader.T
        state = state + steps[:, t, p + k :] @ walk.noise_root.T
        state_tp1[:, t] = state
    nowhere = np.zeros((paths, horizon), dtype=np.bool_)
    truncated = nowhere.copy()
    truncated[:, -1] = True
    batch = Trajectories(
        state_t=state_t,
        action_t=action_t,
        leader_action_t=leader_t if len(walk.leader_gain) else None,
        state_tp1=state_tp1,
        reward_leader_t=walk.reward(state_t, action_t),
        terminated=nowhere,
        truncated=truncated,
        time_in_episode=np.broadcast_to(np.arange(horizon), (paths, horizon)).copy(),
        valid=~nowhere,
        behaviour_log_prob=follower.log_prob(state_t, action_t, leader_t),
    )
    return batch, weight


def product_rule(normals: int, nodes: int) -> tuple[FloatArray, FloatArray]:
    """Points (paths, normals) and weights of the product of Gauss-Hermite rules."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    weights = weights / weights.sum()
    index = np.indices((nodes,) * normals).reshape(normals, -1)
    return points[index].T, weights[index].prod(axis=0)


def _root(covariance: FloatArray) -> FloatArray:
    """A root without the directions in which nothing is drawn."""
    root = gaussian_root(covariance)
    drawn: FloatArray = root[:, root.any(axis=0)]
    return drawn


@dataclass(frozen=True, slots=True)
class _Walk:
    """Both kinds of problem as linear functions of normals; a configurable LQR has a leader without actions."""

    start: FloatArray
    start_root: FloatArray
    dynamics_state: FloatArray
    dynamics_action: FloatArray
    dynamics_leader: FloatArray
    leader_gain: FloatArray
    leader_root: FloatArray
    noise_root: FloatArray
    reward: Any

    def normals(self, horizon: int) -> int:
        """How many independent normals a path of so many steps is made of."""
        return int(
            self.start_root.shape[1]
            + horizon * (self.leader_root.shape[1] + self.dynamics_action.shape[1] + self.noise_root.shape[1])
        )

    @classmethod
    def of(cls, problem: ConfigurableLQR | LQRGame, theta: FloatArray, follower: LQRFollower) -> _Walk:
        if isinstance(problem, LQRGame):
            policy = problem.policy_at(theta)
            return cls(
                problem.initial_mean,
                _root(problem.initial_covariance),
                problem.dynamics_state,
                problem.dynamics_action,
                problem.dynamics_leader,
                policy.gain,
                _root(policy.covariance),
                np.zeros((len(problem.initial_mean), 0)),
                lambda state, action: problem.reward_leader(state),
            )
        m = problem.matrices_at(theta)
        return cls(
            m.initial_mean,
            _root(m.initial_covariance),
            m.dynamics_state,
            m.dynamics_action,
            np.zeros((m.states, 0)),
            np.zeros((0, m.states)),
            np.zeros((0, 0)),
            _root(m.noise_covariance),
            m.reward_leader,
        )


@checked
def quadrature_moments(
    estimator: Estimator | EstimatorFunction,
    problem: ConfigurableLQR | LQRGame,
    theta: Any,
    *,
    horizon: Count,
    nodes: Count = 5,
    episodes: Count = 1,
    follower: LQRFollower | None = None,
    critic: LeaderCritic | None = None,
    follower_gradient: Any = None,
    max_paths: Count = 500_000,
) -> Moments:
    """Return mean and covariance of an estimator on a small linear-quadratic problem without sampling error.

    Parameters
    ----------
    estimator
        One row per trajectory: an `Estimator`, or a function (trajectories, context) → rows (M, N) or {part: rows}.
    problem, theta
        One dimension of states and actions and a short horizon, or the paths are too many.
    horizon
        Steps of each trajectory.
    nodes
        Per normal. The mean of BC-HG needs 4 for exactness, its covariance 7.
    episodes, follower, critic
        As in `enumerate_moments`.
    follower_gradient
        Critic of the gradient of the follower's values, where the estimator reads one.
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
    >>> from bilevelrl.estimators import NaivePGD, Objective
    >>> from bilevelrl.reference import hypergradient
    >>> from bilevelrl.tasks import random_lqr
    >>> problem, theta = random_lqr(states=1, actions=1, seed=0), np.zeros(3)
    >>> naive = NaivePGD(target=Objective(horizon=2), critic="exact_truncated")
    >>> moments = quadrature_moments(naive, problem, theta, horizon=2)
    >>> truth = hypergradient(problem, theta, horizon=2)
    >>> bool(np.allclose(moments.mean, truth.value - truth.parts["response"], rtol=1e-10))
    True
    """
    theta = problem.check_theta(theta)
    held = ContractedEstimator(call=estimator, parameters=theta.size)
    if held.draw is not Draw.TRAJECTORY:
        raise EstimatorError(f"{held.name}: expected one row per trajectory; averages inside a batch have none")
    response: LQRFollower = solve_follower(problem, theta) if follower is None else follower
    batch, weight = quadrature_trajectories(problem, theta, response, horizon=horizon, nodes=nodes, max_paths=max_paths)
    if episodes > 1:
        if episodes * math.log(len(weight)) > math.log(max_paths) + 1e-9:  # the power itself may have no end
            raise TooLargeError(
                f"episodes={episodes}: {len(weight)}^{episodes} streams, expected at most max_paths={max_paths}; "
                "use fewer nodes"
            )
        batch, weight = following([(batch, weight)], episodes)
        horizon *= episodes
    context = Context(
        problem=problem,
        theta=theta,
        follower=response,
        critic=critic,
        follower_gradient=follower_gradient,
        rng=forbidden_generator(),
    )
    try:
        rows, by_part = held.check_repeatable(*protect(batch, context))
    except OwnRandomnessError as error:
        raise UnsupportedError(f"{error}: expected rows that the path determines; measure it by draws") from None
    mean = weight @ rows
    magnitude = weight @ np.abs(rows)
    off = rows - mean
    return Moments(
        name=held.name,
        mean=mean,
        covariance=(off * weight[:, None]).T @ off,
        parts={part: weight @ value for part, value in by_part.items()},
        magnitude=magnitude,
        rounding=(horizon + np.log2(len(weight)) + 8.0) * float(np.finfo(np.float64).eps) * magnitude,
        probability=float(weight.sum()),
        paths=len(weight),
        draws=len(weight),
        draw=held.draw,
        batch=1,
        horizon=horizon,
        epsilon=held.epsilon,
    )


def integrated_moments(
    estimator: Estimator | EstimatorFunction,
    problem: ConfigurableLQR | LQRGame,
    theta: FloatArray,
    *,
    horizon: int,
    follower: Any,
    critic: LeaderCritic | None,
    episodes: int = 1,
    max_paths: int = 500_000,
) -> Moments:
    """Return `quadrature_moments` of an estimator or a plain function by the largest rule that there is room for.

    What a rule with two nodes less says otherwise is counted as rounding, four times: it is nothing for polynomials,
    and for other rows an estimate, as errors fall geometrically with the number of nodes.

    Raises
    ------
    TooLargeError, EstimatorError
        As `quadrature_moments`.
    """
    nodes = largest_rule(problem, theta, follower, horizon=horizon, episodes=episodes, max_paths=max_paths)
    given: dict[str, Any] = {"horizon": horizon, "episodes": episodes, "max_paths": max_paths}
    given |= {"follower": follower, "critic": critic}
    found, smaller = (quadrature_moments(estimator, problem, theta, nodes=k, **given) for k in (nodes, nodes - 2))
    return replace(found, rounding=found.rounding + 4.0 * np.abs(found.mean - smaller.mean))


def largest_rule(
    problem: ConfigurableLQR | LQRGame,
    theta: FloatArray,
    follower: Any,
    *,
    horizon: int,
    episodes: int = 1,
    max_paths: int = 500_000,
) -> int:
    """Return the nodes per normal of `integrated_moments`: as many as there is room for, but no more than help."""
    normals = episodes * _Walk.of(problem, theta, follower).normals(horizon)
    # Polynomials need no more than seven; bumps are the better for more, while paths are few.
    most = 7 if isinstance(problem, ConfigurableLQR) else max(8, int(10_000 ** (1.0 / normals) + 1e-9))
    return max(4, min(most, int(math.exp(math.log(max_paths) / normals) + 1e-9)))
