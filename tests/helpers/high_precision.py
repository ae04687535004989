"""The truth in 120 digits: objective and hypergradient of a tabular problem or a Markov game in mpmath, by differences.

Nothing but the definitions: the soft Bellman equation is solved by Newton's method until 110 digits stand still, the
leader is evaluated by a linear solve or by backward recursion, and each part is a central difference of step 1e-40
along the tables' own Jacobian. What is exact here is the hypergradient of what the tables' doubles mean: rows that sum
to one within rounding are divided by their exact sums (`meant`), everything else is the floating-point number it is.
"""

from __future__ import annotations

import mpmath
import numpy as np

from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.problem import PARTS
from bilevelrl.reference.tabular.error_bounds import dense_jacobian
from bilevelrl.reference.tabular.transitions import to_dense

DIGITS = 120
STEP = mpmath.mpf(10) ** -40

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


def meant(rows, slopes=None, *, may_end):
    """Rows within 1e-12 of one divided by their sums, and slopes of the quotient where the sums stand still.

    A row that may end keeps its own slopes where its sum moves; sums of laws that may not end never move.
    """
    total = rows.sum(axis=-1, keepdims=True)
    whole = np.array(abs(total - 1) <= mpmath.mpf("1e-12"), dtype=bool)
    divisor = np.where(whole, total, mpmath.mpf(1))
    if slopes is None:
        return rows / divisor, None
    drift = slopes.sum(axis=-2, keepdims=True)
    still = np.array(abs(drift).max(axis=-1) <= mpmath.mpf("1e-12") * np.max(abs(slopes)), dtype=bool)
    drift = np.where((whole & (still | (not may_end)))[..., None], drift, mpmath.mpf(0))
    laws = rows / divisor
    return laws, (slopes - laws[..., None] * drift) / divisor[..., None]


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
            self._kernel, transition = meant(self._kernel, self._slopes.get("transition"), may_end=True)
            self._initial, initial = meant(self._initial, self._slopes.get("initial"), may_end=False)
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


class HighPrecisionGame:
    """Objective and hypergradient of one Markov game at one θ, from the game's own equations."""

    def __init__(self, game, theta, *, horizon=None, discounted=True):
        with mpmath.workdps(DIGITS):
            self._game, self._horizon = game, horizon
            self._discount_follower = mpmath.mpf(game.discount_follower)
            self._discount_leader = mpmath.mpf(game.discount_leader if discounted else 1.0)
            self._temperature = mpmath.mpf(game.temperature)
            self._kernel, _ = meant(exact(game.transition), may_end=True)
            self._rewards = exact(game.reward_follower), exact(game.reward_leader)
            self._initial, _ = meant(exact(game.initial), may_end=False)
            policy, slopes = exact(game.policy_at(theta)), exact(game.policy_jacobian(theta))
            self._policy, self._slopes = meant(policy, slopes, may_end=False)
            self._regulariser = game.regulariser_at(theta), game.regulariser_gradient(theta)
            self._parameters = theta.size
            self._value, self.response = self._answer(self._policy)
            self.objective = self._regulariser[0] + self._return(self._policy, self.response)

    def _chain(self, policy, response):
        return ((policy[:, :, None] * response)[..., None] * self._kernel).sum(axis=(1, 2))

    def _answer(self, policy, value=None):
        """(W, g at the decision points): W(s) = Σ_l f β log Σ_a exp(Q/β), or without the sum over l for Σ_l f Q."""
        states = len(policy)
        value = exact(np.zeros(states)) if value is None else value
        while True:
            action_value = self._rewards[0] + self._discount_follower * np.dot(self._kernel, value)
            reach = policy
            if not self._game.follower_sees_leader_action:
                action_value = (policy[:, :, None] * action_value).sum(axis=1, keepdims=True)
                reach = exact(np.ones((states, 1)))
            peak = action_value.max(axis=2, keepdims=True)
            weights = exponential((action_value - peak) / self._temperature)
            mass = weights.sum(axis=2, keepdims=True)
            soft = (peak + self._temperature * logarithm(mass))[:, :, 0]
            response, change = weights / mass, (reach * soft).sum(axis=1) - value
            if max(abs(change)) <= mpmath.mpf(10) ** (10 - DIGITS) * max(1, *abs(value)):
                return value, response
            system = exact(np.eye(states)) - self._discount_follower * self._chain(policy, response)
            value = value + solve(system, change)

    def _return(self, policy, response):
        chain = self._chain(policy, response)
        earned = (policy[:, :, None] * response * self._rewards[1]).sum(axis=(1, 2))
        value = exact(np.zeros(len(earned)))
        if self._horizon is None:
            value = solve(exact(np.eye(len(earned))) - self._discount_leader * chain, earned)
        for _ in range(self._horizon or 0):
            value = earned + self._discount_leader * np.dot(chain, value)
        return (self._initial * value).sum()

    def parts(self):
        """{part: (N,) floats, correctly rounded}."""
        with mpmath.workdps(DIGITS):
            policy, response = np.zeros(self._parameters), np.zeros(self._parameters)
            for j in range(self._parameters):
                ends = [self._policy + step * self._slopes[..., j] for step in (STEP, -STEP)]
                played = [self._return(end, self.response) for end in ends]
                answered = [self._return(self._policy, self._answer(end, self._value)[1]) for end in ends]
                policy[j] = float((played[0] - played[1]) / (2 * STEP))
                response[j] = float((answered[0] - answered[1]) / (2 * STEP))
            return {"policy": policy, "response": response, "regulariser": self._regulariser[1]}
