"""One matrix of θ written in the ways that people write it, the problems made of it, and their right answers.

    M(θ) = [[.5 + .2 a, .5 exp(-b)], [.2 + .3 max(a, 0), .4 + .3 a b]],  θ = (a, b),  in (0, 1) wherever it is asked

is a reward, the chance of going to state 0, the dynamics of a regulator, or, averaged over its columns, a leader's
policy. Right answers come from dense formulas in NumPy by the complex step; nothing of the package computes them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bilevelrl.reference import ConfigurableLQR, ConfigurableMDP, LQRMatrices, MarkovGame, SparseTransition, Tables

POINTS = (np.array([-1.0, 0.4]), np.array([1.0, 0.7]))
"""Either side of the kink."""


# --- what is right -------------------------------------------------------------------------------------------------


def right_part(x):
    """max(x, 0) for complex steps."""
    return x if np.real(x) > 0.0 else 0.0 * x


FORMULAS: dict[str, Callable[[Any], Any]] = {
    "full": lambda t: np.array(
        [[0.5 + 0.2 * t[0], 0.5 * np.exp(-t[1])], [0.2 + 0.3 * right_part(t[0]), 0.4 + 0.3 * t[0] * t[1]]]
    ),
    "toll": lambda t: np.array([[0.6 - 0.3 * right_part(t[0]), 0.3], [0.4, 0.2 + 0.0 * t[0]]]),
    "steps": lambda t: np.floor(7.3 * np.real(FORMULAS["full"](t))) + 0.0 * t[0],
}
"""What each way computes: `full` as above, `toll` stands still on one side, `steps` stands still everywhere."""

REWARD = np.array([[0.3, -0.4], [0.9, 0.1]])
EARNED = np.array([[1.0, 0.0], [-0.5, 2.0]])
KERNEL = np.stack([np.array([[0.8, 0.3], [0.45, 0.15]]), 1.0 - np.array([[0.8, 0.3], [0.45, 0.15]])], axis=-1)
START = np.array([0.7, 0.3])
LEADER, FOLLOWER, BETA = 0.7, 0.6, 0.4
GAME_REWARD = np.array([[[0.2, -0.6], [1.1, 0.3]], [[-0.4, 0.5], [0.0, 0.8]]])
GAME_EARNED = np.array([[[1.0, -0.3], [0.2, 0.4]], [[0.6, 0.1], [-1.0, 1.5]]])
GAME_KERNEL = np.stack([np.stack([0.9 * KERNEL[..., 0], 0.2 + 0.5 * KERNEL[..., 0]], axis=1)] * 2, axis=-1)
GAME_KERNEL[..., 1] = 1.0 - GAME_KERNEL[..., 0]
ACTION = np.array([[1.0], [0.5]])
FIXED = {
    "dynamics_action": ACTION, "noise_covariance": np.array([[0.2, 0.05], [0.05, 0.1]]),
    "cost_action_follower": np.array([[0.8]]), "cost_state_leader": np.array([[1.0, 0.2], [0.2, -0.3]]),
    "cost_action_leader": np.array([[0.4]]), "initial_mean": np.array([1.0, -2.0]),
    "initial_covariance": np.array([[0.5, 0.0], [0.0, 0.2]]),
}  # fmt: skip


def soft(values):
    """β log Σ exp(values/β) over the last axis and the softmax, for complex numbers."""
    top = values.real.max(axis=-1, keepdims=True)
    weights = np.exp((values - top) / BETA)
    total = weights.sum(axis=-1, keepdims=True)
    return (top + BETA * np.log(total))[..., 0], weights / total


def mdp_return(reward, kernel):
    value = np.zeros(2, dtype=complex)
    for _ in range(90):  # .6^90 < 1e-19
        value, policy = soft(reward + FOLLOWER * kernel @ value)
    chain = np.einsum("sa,sat->st", policy, kernel)
    return START @ np.linalg.solve(np.eye(2) - LEADER * chain, (policy * EARNED).sum(axis=1))


def game_return(table):
    value = np.zeros((2, 2), dtype=complex)
    for _ in range(90):
        value, policy = soft(GAME_REWARD + FOLLOWER * GAME_KERNEL @ (table * value).sum(axis=1))
    joint = table[:, :, None] * policy
    chain = np.einsum("sla,slat->st", joint, GAME_KERNEL)
    return START @ np.linalg.solve(np.eye(2) - LEADER * chain, (joint * GAME_EARNED).sum(axis=(1, 2)))


def lqr_return(a, q):
    b, r, gain = ACTION, FIXED["cost_action_follower"], None
    cost = np.zeros((2, 2), dtype=complex)
    for _ in range(200):
        curvature = r + FOLLOWER * b.T @ cost @ b
        gain = np.linalg.solve(curvature, FOLLOWER * b.T @ cost @ a)
        cost = q + FOLLOWER * a.T @ cost @ (a - b @ gain)
    law = 0.5 * BETA * np.linalg.inv(curvature)
    loop, effort = a - b @ gain, FIXED["cost_action_leader"]
    step = FIXED["cost_state_leader"] + gain.T @ effort @ gain
    to_go = np.zeros((2, 2), dtype=complex)
    for _ in range(200):
        to_go = step + LEADER * loop.T @ to_go @ loop
    mean = FIXED["initial_mean"]
    noise = FIXED["noise_covariance"] + b @ law @ b.T
    later = (LEADER * np.trace(to_go @ noise) + np.trace(effort @ law)) / (1.0 - LEADER)
    return -(mean @ to_go @ mean + np.trace(to_go @ FIXED["initial_covariance"]) + later)


RETURNS: dict[str, Callable[[Any], Any]] = {
    "reward": lambda m: mdp_return(m, KERNEL),
    "kernel": lambda m: mdp_return(REWARD, np.stack([m, 1.0 - m], axis=-1)),
    "lqr": lambda m: lqr_return(m, 0.5 * np.eye(2) + m @ m.T),
    "policy": lambda m: game_return(np.stack([m.mean(axis=1), 1.0 - m.mean(axis=1)], axis=1)),
}
KINDS = tuple(RETURNS)


@functools.cache
def truth(kind: str, formula: str, point: int) -> tuple[float, tuple[float, ...]]:
    """J and its gradient."""
    theta, compute = POINTS[point], RETURNS[kind]
    slopes = [compute(FORMULAS[formula](theta + 1e-30j * unit)).imag / 1e-30 for unit in np.eye(2)]
    return float(compute(FORMULAS[formula](theta + 0j)).real), tuple(slopes)


# --- the ways ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """How somebody writes M: `fresh()` makes the function anew, with its own memory."""

    name: str
    fresh: Callable[[], Callable[[Any], Any]]
    library: Any = np
    formula: str = "full"
    slope: Callable[[], Callable[[Any], Any]] | None = None  # the derivative somebody gives along with it
    as_pullback: bool = False
    kinds: tuple[str, ...] = KINDS
    relative: float = 1e-8  # finite differences promise 1e-9

    def derivative(self):
        return None if self.slope is None else self.slope()


def problem_of(kind: str, way: Way):
    """The problem of a kind, its one dependence on θ written in this way."""
    matrix, xp, slope = way.fresh(), way.library, way.derivative()
    discounts: dict[str, Any] = {"discount_leader": LEADER, "discount_follower": FOLLOWER, "temperature": BETA}

    def both(m, axis):
        """Probabilities m and 1 - m side by side, in the way's own style."""
        if isinstance(m, list):
            return xp.array([[[p, 1.0 - p] for p in row] for row in m] if axis == 2 else [[p, 1.0 - p] for p in m])
        return xp.stack([m, 1.0 - m], axis=axis)

    if kind == "policy":

        def policy(theta):
            m = matrix(theta)
            if isinstance(m, list):
                return both([sum(row) / len(row) for row in m], 1)
            return both(0.5 * (m[:, 0] + m[:, 1]), 1)

        return MarkovGame(
            transition=GAME_KERNEL, reward_follower=GAME_REWARD, reward_leader=GAME_EARNED, initial=START,
            policy=policy, follower_sees_leader_action=True, **discounts)  # fmt: skip
    if kind == "lqr":

        def matrices(theta):
            m = matrix(theta)
            return LQRMatrices(
                dynamics_state=m, cost_state_follower=0.5 * np.eye(2) + xp.matmul(m, xp.transpose(m)), **FIXED
            )

        def matrices_jacobian(theta):
            m, moved = np.asarray(FORMULAS[way.formula](theta)), np.asarray(slope(theta))
            once = np.einsum("ikj,lk->ilj", moved, m)
            return {"dynamics_state": moved, "cost_state_follower": once + once.transpose(1, 0, 2)}

        return ConfigurableLQR(matrices=matrices, matrices_jacobian=matrices_jacobian if slope else None, **discounts)

    def tables(theta):
        m = matrix(theta)
        kernel = KERNEL if kind == "reward" else both(m, 2)
        if way.name.endswith("sparse"):
            kernel = SparseTransition(successor=np.array([[[0, 1]] * 2] * 2), probability=kernel)
        return Tables(
            transition=kernel, reward_follower=m if kind == "reward" else REWARD, reward_leader=EARNED, initial=START
        )

    given: dict[str, Any] = {}
    if slope is not None:

        def tables_jacobian(theta):
            moved = np.asarray(slope(theta), dtype=np.float64)
            return {"reward_follower": moved} if kind == "reward" else {"transition": np.stack([moved, -moved], axis=2)}

        def tables_pullback(theta, cotangents):
            slopes = tables_jacobian(theta)
            return sum((np.tensordot(w, slopes[k], w.ndim) for k, w in cotangents.items() if k in slopes), np.zeros(2))

        given = {"tables_pullback": tables_pullback} if way.as_pullback else {"tables_jacobian": tables_jacobian}
    return ConfigurableMDP(tables=tables, **given, **discounts)


def by_hand(t):
    """∂M/∂θ, (2, 2, 2)."""
    slope = np.zeros((2, 2, 2))
    slope[0, 0, 0], slope[0, 1, 1] = 0.2, -0.5 * np.exp(-t[1])
    slope[1, 0, 0], slope[1, 1] = 0.3 * (t[0] > 0.0), (0.3 * t[1], 0.3 * t[0])
    return slope


def features(xp, t):
    """(1, a, exp -b, max(a, 0), a b), stacked by a library."""
    return xp.stack([1.0 + 0.0 * t[0], t[0], xp.exp(-t[1]), xp.maximum(t[0], 0.0), t[0] * t[1]])


WEIGHTS = np.zeros((2, 2, 5))
WEIGHTS[..., 0] = [[0.5, 0.0], [0.2, 0.4]]
WEIGHTS[0, 0, 1], WEIGHTS[0, 1, 2], WEIGHTS[1, 0, 3], WEIGHTS[1, 1, 4] = 0.2, 0.5, 0.3, 0.3
STIFF = np.array([[3.0, 1.0], [1.0, 2.0]])
