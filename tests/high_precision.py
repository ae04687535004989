"""The truth in 80 digits: objective and hypergradient of a tabular problem in mpmath, by differences of the objective.

Nothing but the definitions: the soft Bellman equation is solved by Newton's method until 70 digits stand still, the
leader is evaluated by a linear solve or by backward recursion, and each part is a central difference of step 1e-30
along the tables' own Jacobian. What is exact here is the hypergradient of the tables as the floating-point numbers
they are.
"""

from __future__ import annotations

import mpmath
import numpy as np

from bilevelrl.reference import PARTS, ConfigurableMDP
from bilevelrl.reference.error_bounds import dense_jacobian
from bilevelrl.reference.transitions import to_dense

DIGITS = 80
STEP = mpmath.mpf(10) ** -30

exact = np.vectorize(mpmath.mpf, otypes=[object])
exponential = np.vectorize(mpmath.exp, otypes=[object])
logarithm = np.vectorize(mpmath.log, otypes=[object])


def solve(matrix, right_hand_side):
    """Gaussian elimination with pivoting in high precision; arrays of mpf."""
    matrix, solution = matrix.copy(), right_hand_side.copy()
    size = len(solution)
    for i in range(size):
        pivot = max(range(i, size), key=lambda k: abs(matrix[k, i]))
        matrix[[i, pivot]], solution[[i, pivot]] = matrix[[pivot, i]], solution[[pivot, i]]
        for k in range(i + 1, size):
            factor = matrix[k, i] / matrix[i, i]
            matrix[k, i:] = matrix[k, i:] - factor * matrix[i, i:]
            solution[k] = solution[k] - factor * solution[i]
    for i in range(size - 1, -1, -1):
        solution[i] = (solution[i] - (matrix[i, i + 1 :] * solution[i + 1 :]).sum()) / matrix[i, i]
    return solution


def conserved(rows, slopes=None):
    """Rows that sum to one up to rounding, made to sum to one; the same for their derivatives' sums to zero.

    A constant reward of a million would see the difference, and what is meant is the probability law.
    """
    total = rows.sum(axis=-1, keepdims=True)
    if np.max(abs(total - 1)) > 1e-13:
        return rows, slopes
    if slopes is not None:
        drift = slopes.sum(axis=-2, keepdims=True)
        if np.max(abs(drift)) <= 1e-12 * np.max(abs(slopes)):
            slopes = slopes - drift * rows[..., None]
    return rows / total, slopes


def follower(kernel, reward, discount, temperature, value=None):
    """Return (V_F, Q_F, π) at the soft optimum."""
    states = len(reward)
    identity = exact(np.eye(states))
    value = exact(np.zeros(states)) if value is None else value
    while True:
        action_value = reward + discount * np.dot(kernel, value)
        peak = action_value.max(axis=1)
        weights = exponential((action_value - peak[:, None]) / temperature)
        mass = weights.sum(axis=1)
        policy = weights / mass[:, None]
        change = peak + temperature * logarithm(mass) - value
        if max(abs(change)) <= mpmath.mpf(10) ** (10 - DIGITS) * max(1, *abs(value)):
            return value, action_value, policy
        chain = (policy[:, :, None] * kernel).sum(axis=1)
        value = value + solve(identity - discount * chain, change)


def leader(initial, reward, kernel, policy, regulariser, discount, horizon):
    """Return J."""
    chain = (policy[:, :, None] * kernel).sum(axis=1)
    earned = (policy * reward).sum(axis=1)
    if horizon is None:
        value = solve(exact(np.eye(len(earned))) - discount * chain, earned)
    else:
        value = exact(np.zeros(len(earned)))
        for _ in range(horizon):
            value = earned + discount * np.dot(chain, value)
    return (initial * value).sum() + regulariser


class HighPrecision:
    """Objective, follower and hypergradient of one problem at one θ."""

    def __init__(self, problem: ConfigurableMDP, theta, *, horizon=None, discounted=True):
        with mpmath.workdps(DIGITS):
            tables = problem.tables_at(theta)
            self._horizon = horizon
            self._discount_follower = mpmath.mpf(problem.discount_follower)
            self._discount_leader = mpmath.mpf(problem.discount_leader if discounted else 1.0)
            self._temperature = mpmath.mpf(problem.temperature)
            self._kernel = exact(to_dense(tables.transition))
            self._reward_follower = exact(tables.reward_follower)
            self._reward_leader = exact(tables.reward_leader)
            self._initial = exact(tables.initial)
            self._regulariser = mpmath.mpf(float(tables.regulariser))
            jacobian = problem.jacobian(theta)
            if "transition" in jacobian:
                jacobian["transition"] = dense_jacobian(tables, jacobian["transition"])
            self._slopes = {name: exact(entries) for name, entries in jacobian.items()}
            self._kernel, transition = conserved(self._kernel, self._slopes.get("transition"))
            self._initial, initial = conserved(self._initial, self._slopes.get("initial"))
            for name, slopes in (("transition", transition), ("initial", initial)):
                if slopes is not None:
                    self._slopes[name] = slopes
            self._parameters = theta.size
            self.value, self.action_value, self.policy = follower(
                self._kernel, self._reward_follower, self._discount_follower, self._temperature
            )
            self.objective = self._objective()

    def _objective(self, moved=None, j=None, step=0):
        def table(base, name, *parts):
            return base + step * self._slopes[name][..., j] if moved in parts and name in self._slopes else base

        policy = self.policy
        if moved == "response":
            kernel = table(self._kernel, "transition", "response")
            reward = table(self._reward_follower, "reward_follower", "response")
            _, _, policy = follower(kernel, reward, self._discount_follower, self._temperature, self.value)
        return leader(
            table(self._initial, "initial", "initial"),
            table(self._reward_leader, "reward_leader", "direct"),
            table(self._kernel, "transition", "transition"),
            policy,
            table(self._regulariser, "regulariser", "regulariser"),
            self._discount_leader,
            self._horizon,
        )

    def parts(self):
        """{part: (N,) floats, correctly rounded}."""
        with mpmath.workdps(DIGITS):
            return {
                part: np.array(
                    [
                        float((self._objective(part, j, STEP) - self._objective(part, j, -STEP)) / (2 * STEP))
                        for j in range(self._parameters)
                    ]
                )
                for part in PARTS
            }
