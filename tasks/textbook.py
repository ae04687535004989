"""Problems solvable by hand: each docstring derives the hypergradient that is stored, independently of all code.

Notation: σ(x) = 1/(1 + exp(-x)), σ' = σ (1 - σ); γ_L, γ_F discounts; β temperature; G_T(γ) = 1 + γ + … + γ^(T-1).
The truncated objective of T steps keeps the follower's infinite-horizon response.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import autograd.numpy as anp
import numpy as np

from bilevelrl.reference import ConfigurableMDP, Part, Tables
from bilevelrl.reference.autodiff import sigmoid, softmax
from bilevelrl.tasks.scenario import Provenance, Scenario, Truth

__all__ = ["TEXTBOOK"]

# Each closed form below takes less than this many roundings, none of them ill conditioned.
_ROUNDINGS = 64


def _logistic(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def _geometric_sum(discount: float, steps: int) -> float:
    """1 + γ + … + γ^(steps-1)."""
    return sum(discount**t for t in range(steps))


def _closed_form(objective: float, parts: Mapping[Part, Iterable[float]]) -> Truth:
    listed = {part: list(entries) for part, entries in parts.items()}
    size = max([abs(objective), *(abs(entry) for entries in listed.values() for entry in entries)])
    return Truth.of(objective=objective, parts=listed, error_bound=_ROUNDINGS * float(np.finfo(np.float64).eps) * size)


def _scenario(
    name: str,
    summary: str,
    problem: ConfigurableMDP,
    theta: Iterable[float],
    *,
    truth: Truth,
    truncated: Truth | None = None,
    tags: str,
    horizon: int,
) -> Scenario:
    ends = truncated is None
    return Scenario(
        name=name,
        summary=summary,
        problem=problem,
        theta=np.array(list(theta), dtype=np.float64),
        truth=truth,
        truncated=truth if truncated is None else truncated,
        provenance=Provenance(source="closed form"),
        tags=frozenset(["textbook", "ends" if ends else "goes_on", *tags.split()]),
        horizon=horizon,
    )


def _problem(tables: Any, name: str, parameters: int, leader: float, follower: float, beta: float) -> ConfigurableMDP:
    return ConfigurableMDP(
        tables=tables,
        discount_leader=leader,
        discount_follower=follower,
        temperature=beta,
        theta_shape=(parameters,),
        name=name,
    )


def bandit(name: str = "bandit", theta: float = 0.3, beta: float = 0.5, tag: str = "") -> Scenario:
    """One decision, then the end: r_F = (θ, 0), r_L = (1, 0).

    π(0) = σ(θ/β), so J = σ(θ/β) and ∇J = σ'(θ/β)/β, all of it response.
    """

    def tables(x: Any) -> Tables:
        return Tables(
            transition=np.zeros((1, 2, 1)),
            reward_follower=anp.reshape(anp.concatenate([x, 0.0 * x]), (1, 2)),
            reward_leader=np.array([[1.0, 0.0]]),
            initial=np.ones(1),
        )

    chosen = _logistic(theta / beta)
    truth = _closed_form(chosen, {"response": [chosen * (1.0 - chosen) / beta]})
    tags = f"response isolating one_state one_parameter {tag}"
    summary = f"one decision between two rewards at β = {beta:g}"
    return _scenario(
        name, summary, _problem(tables, name, 1, 0.5, 0.9, beta), [theta], truth=truth, tags=tags, horizon=1
    )


def toll() -> Scenario:
    """One decision: action 0 pays the leader a toll θ, r_F = (-θ, 0), r_L = (θ, 0).

    π(0) = p = σ(-θ/β), J = θ p. Holding π: direct p. Through π: response -θ p (1 - p)/β.
    """

    def tables(x: Any) -> Tables:
        paid = anp.reshape(anp.concatenate([x, 0.0 * x]), (1, 2))
        return Tables(transition=np.zeros((1, 2, 1)), reward_follower=-paid, reward_leader=paid, initial=np.ones(1))

    theta, beta = 0.8, 0.6
    p = _logistic(-theta / beta)
    truth = _closed_form(theta * p, {"direct": [p], "response": [-theta * p * (1.0 - p) / beta]})
    return _scenario(
        "toll",
        "what a toll brings, and whom it deters",
        _problem(tables, "toll", 1, 0.5, 0.9, beta),
        [theta],
        truth=truth,
        tags="direct response one_state one_parameter",
        horizon=1,
    )


def repeated_bandit() -> Scenario:
    """The same three-armed choice for ever: r_F = θ, r_L = (1, 0, -2), one state.

    The continuation is the same for all arms, so π = softmax(θ/β). With m = Σ π r_L, J = m/(1-γ_L) and
    ∂J/∂θ_i = π_i (r_L,i - m)/(β (1-γ_L)). Over T steps 1/(1-γ_L) becomes G_T(γ_L).
    """
    reward = [1.0, 0.0, -2.0]

    def tables(x: Any) -> Tables:
        return Tables(
            transition=np.ones((1, 3, 1)),
            reward_follower=anp.reshape(x, (1, 3)),
            reward_leader=np.array([reward]),
            initial=np.ones(1),
        )

    theta, beta, leader, horizon = [0.2, -0.1, 0.5], 0.7, 0.6, 4
    weights = [math.exp(entry / beta) for entry in theta]
    policy = [weight / sum(weights) for weight in weights]
    mean = sum(p * r for p, r in zip(policy, reward, strict=True))
    slope = [p * (r - mean) / beta for p, r in zip(policy, reward, strict=True)]

    def truth(steps: float) -> Truth:
        return _closed_form(steps * mean, {"response": [steps * entry for entry in slope]})

    return _scenario(
        "repeated bandit",
        "one state for ever, three arms, γ_L ≠ γ_F",
        _problem(tables, "repeated bandit", 3, leader, 0.9, beta),
        theta,
        truth=truth(1.0 / (1.0 - leader)),
        truncated=truth(_geometric_sum(leader, horizon)),
        tags="response isolating one_state unequal_discounts",
        horizon=horizon,
    )


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
    q = _logistic(theta)
    slope = q * (1.0 - q)
    left = 1.0 - discount * q
    truth = _closed_form(1.0 / left, {"transition": [discount * slope / left**2]})
    truncated = _closed_form(
        sum((discount * q) ** t for t in range(horizon)),
        {"transition": [sum(t * discount**t * q ** (t - 1) * slope for t in range(1, horizon))]},
    )
    return _scenario(
        "survival",
        "one state, one action, one parameter: the probability of going on",
        _problem(tables, "survival", 1, discount, 0.5, 1.0),
        [theta],
        truth=truth,
        truncated=truncated,
        tags="transition isolating one_state one_action one_parameter",
        horizon=horizon,
    )


def starting_place() -> Scenario:
    """Three places to start, each ends at once: μ = softmax(θ), r_L = (2, -1, 0.5), one action.

    J = Σ μ r_L and ∂J/∂θ_i = μ_i (r_L,i - J), all of it initial.
    """
    reward = [2.0, -1.0, 0.5]

    def tables(x: Any) -> Tables:
        return Tables(
            transition=np.zeros((3, 1, 3)),
            reward_follower=np.zeros((3, 1)),
            reward_leader=np.array(reward)[:, None],
            initial=softmax(x),
        )

    theta = [0.1, 0.4, -0.3]
    weights = [math.exp(entry) for entry in theta]
    law = [weight / sum(weights) for weight in weights]
    mean = sum(p * r for p, r in zip(law, reward, strict=True))
    truth = _closed_form(mean, {"initial": [p * (r - mean) for p, r in zip(law, reward, strict=True)]})
    return _scenario(
        "starting place",
        "θ enters the law of the first state only",
        _problem(tables, "starting place", 3, 0.9, 0.9, 1.0),
        theta,
        truth=truth,
        tags="initial isolating one_action equal_discounts",
        horizon=1,
    )


def price_of_change() -> Scenario:
    """A regulariser ρ(θ) = -|θ|²/2 and a constant reward of 1 in two decisions that do not matter.

    J = 1 - |θ|²/2 and ∇J = -θ, all of it regulariser.
    """

    def tables(x: Any) -> Tables:
        return Tables(
            transition=np.zeros((1, 2, 1)),
            reward_follower=np.array([[0.0, 1.0]]),
            reward_leader=np.ones((1, 2)),
            initial=np.ones(1),
            regulariser=-0.5 * anp.sum(x * x),
        )

    theta = [0.5, -1.5]
    truth = _closed_form(1.0 - 0.5 * sum(entry**2 for entry in theta), {"regulariser": [-entry for entry in theta]})
    return _scenario(
        "price of change",
        "θ enters the regulariser only",
        _problem(tables, "price of change", 2, 0.7, 0.9, 1.0),
        theta,
        truth=truth,
        tags="regulariser isolating one_state",
        horizon=1,
    )


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
    p = _logistic(ahead * (theta / beta + math.log(2.0)))
    truth = _closed_form(leader**2 * p, {"response": [leader**2 * p * (1.0 - p) * ahead / beta]})
    return _scenario(
        "delayed prize",
        "the decision comes first, the rewards that decide it later",
        _problem(tables, "delayed prize", 1, leader, follower, beta),
        [theta],
        truth=truth,
        tags="response isolating one_parameter unequal_discounts",
        horizon=3,
    )


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
    q = _logistic(theta)
    slope, worth = q * (1.0 - q), 2.0 + beta * math.log(2.0)
    p = _logistic(follower * q * worth / beta)
    truth = _closed_form(
        leader * p * q,
        {
            "transition": [leader * p * slope],
            "response": [leader * q * p * (1.0 - p) * follower * slope * worth / beta],
        },
    )
    return _scenario(
        "gamble",
        "θ moves the odds, and so whoever plays them",
        _problem(tables, "gamble", 1, leader, follower, beta),
        [theta],
        truth=truth,
        tags="transition response isolating one_parameter unequal_discounts",
        horizon=2,
    )


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
        return _closed_form(sum(n * r for n, r in zip(visits, theta, strict=True)), {"direct": visits})

    return _scenario(
        "pendulum",
        "period two: powers of the chain never settle",
        _problem(tables, "pendulum", 2, discount, 0.5, 1.0),
        theta,
        truth=truth([1.0 / (1.0 - discount**2), discount / (1.0 - discount**2)]),
        truncated=truth([1.0 + discount**2 + discount**4, discount + discount**3]),
        tags="direct isolating one_action periodic",
        horizon=5,
    )


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
    p = _logistic((follower * beta * math.log(2.0) / (1.0 - follower) - theta) / beta)
    truth = _closed_form(p, {"response": [-p * (1.0 - p) / beta]})
    return _scenario(
        "waiting room",
        "an absorbing state is not the end: it keeps its entropy bonus",
        _problem(tables, "waiting room", 1, 0.8, follower, beta),
        [theta],
        truth=truth,
        truncated=truth,
        tags="response isolating absorbing one_parameter",
        horizon=3,
    )


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
    q = _logistic(theta)
    slope, left = q * (1.0 - q), 1.0 - discount * (1.0 - q)
    one = discount * q / left
    truth = _closed_form(
        one**rooms, {"transition": [rooms * one ** (rooms - 1) * discount * (1.0 - discount) * slope / left**2]}
    )
    arrivals = {
        t: discount**t * math.comb(t - 1, rooms - 1) * q**rooms * (1.0 - q) ** (t - rooms)
        for t in range(rooms, horizon)
    }
    truncated = _closed_form(
        sum(arrivals.values()),
        {"transition": [sum(term * (rooms / q - (t - rooms) / (1.0 - q)) * slope for t, term in arrivals.items())]},
    )
    return _scenario(
        "corridor",
        "a slow chain: the prize is three waits away",
        _problem(tables, "corridor", 1, discount, 0.5, 1.0),
        [theta],
        truth=truth,
        truncated=truncated,
        tags="transition isolating one_action one_parameter slow",
        horizon=horizon,
    )


def envelope_bandit() -> Scenario:
    """Three arms for ever, equal discounts, and a leader who is paid r_L = θ - β log π_0, π_0 frozen at θ_0.

    At θ_0 every arm pays the leader θ_a - β log π_0(a) = β log Σ exp(θ/β) = m: B = 0 and the response vanishes. So
    J = m/(1-γ) and ∇J = π/(1-γ), all of it direct: the gradient of the follower's own value (the envelope theorem).
    Over T steps 1/(1-γ) becomes G_T(γ).
    """
    theta, beta, discount, horizon = [0.3, -0.2, 0.1], 0.4, 0.7, 4
    weights = [math.exp(entry / beta) for entry in theta]
    policy = [weight / sum(weights) for weight in weights]
    bonus = np.array([[-beta * math.log(p) for p in policy]])

    def tables(x: Any) -> Tables:
        reward = anp.reshape(x, (1, 3))
        return Tables(
            transition=np.ones((1, 3, 1)), reward_follower=reward, reward_leader=reward + bonus, initial=np.ones(1)
        )

    def truth(steps: float) -> Truth:
        return _closed_form(steps * beta * math.log(sum(weights)), {"direct": [steps * p for p in policy]})

    return _scenario(
        "envelope bandit",
        "B = 0 at θ: the response vanishes, with the entropy term only",
        _problem(tables, "envelope bandit", 3, discount, discount, beta),
        theta,
        truth=truth(1.0 / (1.0 - discount)),
        truncated=truth(_geometric_sum(discount, horizon)),
        tags="direct envelope equal_discounts one_state",
        horizon=horizon,
    )


def shared_purse() -> Scenario:
    """One decision, equal discounts, and both are paid the same, r_L = r_F = θ: not an envelope.

    π = softmax(θ/β), J = Σ π θ. Direct π, response π_i (θ_i - J)/β. The follower maximises J + β H(π), not J: its
    response to θ vanishes for the sum of both only, and leaving it out is wrong.
    """

    def tables(x: Any) -> Tables:
        reward = anp.reshape(x, (1, 3))
        return Tables(transition=np.zeros((1, 3, 1)), reward_follower=reward, reward_leader=reward, initial=np.ones(1))

    theta, beta = [0.5, -0.3, 0.2], 0.6
    weights = [math.exp(entry / beta) for entry in theta]
    policy = [weight / sum(weights) for weight in weights]
    mean = sum(p * r for p, r in zip(policy, theta, strict=True))
    truth = _closed_form(
        mean,
        {"direct": policy, "response": [p * (r - mean) / beta for p, r in zip(policy, theta, strict=True)]},
    )
    return _scenario(
        "shared purse",
        "both are paid the same; the entropy still makes the response matter",
        _problem(tables, "shared purse", 3, 0.8, 0.8, beta),
        theta,
        truth=truth,
        tags="direct response equal_discounts one_state",
        horizon=1,
    )


def cold_bandit() -> Scenario:
    """`bandit` at β = 1e-3 with θ = 2e-3: 1/β is a factor of a thousand."""
    return bandit("cold bandit", 2e-3, 1e-3, "cold")


def hot_bandit() -> Scenario:
    """`bandit` at β = 1e3: the response is nearly gone, and only relative errors see it."""
    return bandit("hot bandit", 1.5, 1e3, "hot")


TEXTBOOK = (
    bandit,
    cold_bandit,
    hot_bandit,
    toll,
    repeated_bandit,
    survival,
    starting_place,
    price_of_change,
    delayed_prize,
    gamble,
    pendulum,
    waiting_room,
    corridor,
    envelope_bandit,
    shared_purse,
)
"""Functions that make the scenarios with a closed form."""
