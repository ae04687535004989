"""Problems of several steps solvable by hand: each docstring derives the hypergradient that is stored.

Notation: σ(x) = 1/(1 + exp(-x)), σ' = σ (1 - σ); γ_L, γ_F discounts; β temperature; G_T(γ) = 1 + γ + … + γ^(T-1).
The truncated objective of T steps keeps the follower's infinite-horizon response.
"""

from __future__ import annotations

import math
from typing import Any

import autograd.numpy as anp
import numpy as np

from bilevelrl.reference import Tables
from bilevelrl.reference.derivatives import sigmoid
from bilevelrl.reference.storage import remade
from bilevelrl.tasks.scenarios.closed_forms import closed_form, closed_form_scenario, logistic, small_problem
from bilevelrl.tasks.scenarios.scenario import Scenario, Truth

__all__ = ["CHAINS"]


@remade
def survival() -> Scenario:
    """One state, one action, one parameter: each step the process goes on with probability q = σ(θ), r_L = 1.

    J = 1/(1 - γ_L q), and with q' = q (1 - q), ∇J = γ_L q'/(1 - γ_L q)², all of it transition.
    Over T steps J = Σ_{t<T} (γ_L q)^t and ∇J = Σ_{t<T} t γ_L^t q^(t-1) q'.
    """

    def tables(x: Any) -> Tables:
        return Tables(
            transition=anp.reshape(sigmoid(x), (1, 1, 1)),
            reward_follower=np.zeros((1, 1)),
            reward_leader=np.ones((1, 1)),
            initial=np.ones(1),
        )

    theta, discount, horizon = 0.4, 0.8, 5
    q = logistic(theta)
    slope = q * (1.0 - q)
    left = 1.0 - discount * q
    truth = closed_form(1.0 / left, {"transition": [discount * slope / left**2]})
    truncated = closed_form(
        sum((discount * q) ** t for t in range(horizon)),
        {"transition": [sum(t * discount**t * q ** (t - 1) * slope for t in range(1, horizon))]},
    )
    return closed_form_scenario(
        "survival",
        "one state, one action, one parameter: the probability of going on",
        small_problem(tables, "survival", 1, discount, 0.5, 1.0),
        [theta],
        truth=truth,
        truncated=truncated,
        tags="transition isolating one_state one_action one_parameter",
        horizon=horizon,
    )


@remade
def delayed_prize() -> Scenario:
    """Go or stay; who goes passes two rooms that pay the follower θ each, the second pays the leader 1.

    In a room both actions are alike, so a visit is worth θ + β log 2 to the follower. Going is worth
    Q = γ_F (1 + γ_F) (θ + β log 2), staying 0; p = σ(Q/β). J = γ_L² p, and ∇J = γ_L² p (1 - p) γ_F (1 + γ_F)/β:
    all of it response, from rewards one and two steps after the decision.
    """
    kernel = np.zeros((3, 2, 3))
    kernel[0, 0, 1] = 1.0
    kernel[1, :, 2] = 1.0
    rooms = np.array([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    paid = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]])

    def tables(x: Any) -> Tables:
        return Tables(
            transition=kernel, reward_follower=rooms * x[0], reward_leader=paid, initial=np.array([1.0, 0.0, 0.0])
        )

    theta, beta, leader, follower = -0.2, 0.5, 0.9, 0.6
    ahead = follower * (1.0 + follower)
    p = logistic(ahead * (theta / beta + math.log(2.0)))
    truth = closed_form(leader**2 * p, {"response": [leader**2 * p * (1.0 - p) * ahead / beta]})
    return closed_form_scenario(
        "delayed prize",
        "the decision comes first, the rewards that decide it later",
        small_problem(tables, "delayed prize", 1, leader, follower, beta),
        [theta],
        truth=truth,
        tags="response isolating one_parameter unequal_discounts",
        horizon=3,
    )


@remade
def gamble() -> Scenario:
    """Gamble or stop; a gamble leads with probability q = σ(θ) to a room that pays both, else it ends.

    The room is worth v = 2 + β log 2 to the follower (two actions alike) and 1 to the leader. Gambling is worth
    Q = γ_F q v, stopping 0; p = σ(Q/β). J = γ_L p q. With q' = q (1 - q): transition γ_L p q',
    response γ_L q p (1 - p) γ_F q' v/β.
    """
    onward = np.zeros((2, 2, 2))
    onward[0, 0, 1] = 1.0

    def tables(x: Any) -> Tables:
        return Tables(
            transition=onward * sigmoid(x[0]),
            reward_follower=np.array([[0.0, 0.0], [2.0, 2.0]]),
            reward_leader=np.array([[0.0, 0.0], [1.0, 1.0]]),
            initial=np.array([1.0, 0.0]),
        )

    theta, beta, leader, follower = -0.4, 0.8, 0.5, 0.95
    q = logistic(theta)
    slope, worth = q * (1.0 - q), 2.0 + beta * math.log(2.0)
    p = logistic(follower * q * worth / beta)
    truth = closed_form(
        leader * p * q,
        {
            "transition": [leader * p * slope],
            "response": [leader * q * p * (1.0 - p) * follower * slope * worth / beta],
        },
    )
    return closed_form_scenario(
        "gamble",
        "θ moves the odds, and so whoever plays them",
        small_problem(tables, "gamble", 1, leader, follower, beta),
        [theta],
        truth=truth,
        tags="transition response isolating one_parameter unequal_discounts",
        horizon=2,
    )


@remade
def pendulum() -> Scenario:
    """Two states visited in turn for ever, one action, r_L = θ, started in the first.

    J = (θ_0 + γ_L θ_1)/(1 - γ_L²) and ∇J = (1, γ_L)/(1 - γ_L²), all of it direct. Over T = 5 steps the first state is
    visited at 0, 2, 4 and the second at 1, 3: ∇J = (1 + γ_L² + γ_L⁴, γ_L + γ_L³).
    """

    def tables(x: Any) -> Tables:
        return Tables(
            transition=np.array([[[0.0, 1.0]], [[1.0, 0.0]]]),
            reward_follower=np.zeros((2, 1)),
            reward_leader=anp.reshape(x, (2, 1)),
            initial=np.array([1.0, 0.0]),
        )

    theta, discount = [0.7, -0.4], 0.9

    def truth(visits: list[float]) -> Truth:
        return closed_form(sum(n * r for n, r in zip(visits, theta, strict=True)), {"direct": visits})

    return closed_form_scenario(
        "pendulum",
        "period two: powers of the chain never settle",
        small_problem(tables, "pendulum", 2, discount, 0.5, 1.0),
        theta,
        truth=truth([1.0 / (1.0 - discount**2), discount / (1.0 - discount**2)]),
        truncated=truth([1.0 + discount**2 + discount**4, discount + discount**3]),
        tags="direct isolating one_action periodic",
        horizon=5,
    )


@remade
def waiting_room() -> Scenario:
    """Wait for ever or leave for θ: the room pays nothing, but its two actions pay an entropy bonus for ever.

    The room is worth v = β log 2/(1 - γ_F). p = π(wait) = σ((γ_F v - θ)/β). The leader earns 1 from whoever waits:
    J = p and ∇J = -p (1 - p)/β, all of it response, over any number of steps.
    """
    kernel = np.zeros((2, 2, 2))
    kernel[0, 0, 1] = 1.0
    kernel[1, :, 1] = 1.0
    leaving = np.array([[0.0, 1.0], [0.0, 0.0]])

    def tables(x: Any) -> Tables:
        return Tables(
            transition=kernel,
            reward_follower=leaving * x[0],
            reward_leader=np.array([[1.0, 0.0], [0.0, 0.0]]),
            initial=np.array([1.0, 0.0]),
        )

    theta, beta, follower = 1.2, 0.5, 0.7
    p = logistic((follower * beta * math.log(2.0) / (1.0 - follower) - theta) / beta)
    truth = closed_form(p, {"response": [-p * (1.0 - p) / beta]})
    return closed_form_scenario(
        "waiting room",
        "an absorbing state is not the end: it keeps its entropy bonus",
        small_problem(tables, "waiting room", 1, 0.8, follower, beta),
        [theta],
        truth=truth,
        truncated=truth,
        tags="response isolating absorbing one_parameter",
        horizon=3,
    )


@remade
def corridor() -> Scenario:
    """Three rooms in a row, each left onwards with probability q = σ(θ) per step; a fourth pays 1 and ends.

    The time to the prize is a sum of n = 3 geometric times. With g = γ_L q/(1 - γ_L (1 - q)) for one room,
    J = g³ and ∇J = 3 g² g' with g' = γ_L (1 - γ_L) q'/(1 - γ_L (1 - q))², all of it transition.
    Over T steps J = Σ_{t<T} γ_L^t C(t-1, n-1) q^n (1-q)^(t-n), each term with logarithmic slope n/q - (t-n)/(1-q).
    """
    rooms = 3
    stay, onward = np.zeros((4, 1, 4)), np.zeros((4, 1, 4))
    for room in range(rooms):
        stay[room, 0, room] = 1.0
        onward[room, 0, room + 1] = 1.0

    def tables(x: Any) -> Tables:
        q = sigmoid(x[0])
        return Tables(
            transition=stay + q * (onward - stay),
            reward_follower=np.zeros((4, 1)),
            reward_leader=np.array([[0.0], [0.0], [0.0], [1.0]]),
            initial=np.array([1.0, 0.0, 0.0, 0.0]),
        )

    theta, discount, horizon = -1.5, 0.9, 7
    q = logistic(theta)
    slope, left = q * (1.0 - q), 1.0 - discount * (1.0 - q)
    one = discount * q / left
    truth = closed_form(
        one**rooms, {"transition": [rooms * one ** (rooms - 1) * discount * (1.0 - discount) * slope / left**2]}
    )
    arrivals = {
        t: discount**t * math.comb(t - 1, rooms - 1) * q**rooms * (1.0 - q) ** (t - rooms)
        for t in range(rooms, horizon)
    }
    truncated = closed_form(
        sum(arrivals.values()),
        {"transition": [sum(term * (rooms / q - (t - rooms) / (1.0 - q)) * slope for t, term in arrivals.items())]},
    )
    return closed_form_scenario(
        "corridor",
        "a slow chain: the prize is three waits away",
        small_problem(tables, "corridor", 1, discount, 0.5, 1.0),
        [theta],
        truth=truth,
        truncated=truncated,
        tags="transition isolating one_action one_parameter slow",
        horizon=horizon,
    )


CHAINS = (survival, delayed_prize, gamble, pendulum, waiting_room, corridor)
"""Functions that make these scenarios."""
