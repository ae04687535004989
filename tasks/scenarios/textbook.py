"""Problems of one state solvable by hand: each docstring derives the hypergradient that is stored.

Notation: σ(x) = 1/(1 + exp(-x)), σ' = σ (1 - σ); γ_L, γ_F discounts; β temperature; G_T(γ) = 1 + γ + … + γ^(T-1).
The truncated objective of T steps keeps the follower's infinite-horizon response.
"""

from __future__ import annotations

import math
from typing import Any

import autograd.numpy as anp
import numpy as np

from bilevelrl.reference import Tables
from bilevelrl.reference.derivatives import softmax
from bilevelrl.reference.storage import remade
from bilevelrl.tasks.scenarios.closed_forms import (
    closed_form,
    closed_form_scenario,
    geometric_sum,
    logistic,
    small_problem,
)
from bilevelrl.tasks.scenarios.scenario import Scenario, Truth
from bilevelrl.tasks.scenarios.textbook_chains import CHAINS

__all__ = ["TEXTBOOK"]


@remade
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

    chosen = logistic(theta / beta)
    truth = closed_form(chosen, {"response": [chosen * (1.0 - chosen) / beta]})
    tags = f"response isolating one_state one_parameter {tag}"
    summary = f"one decision between two rewards at β = {beta:g}"
    return closed_form_scenario(
        name, summary, small_problem(tables, name, 1, 0.5, 0.9, beta), [theta], truth=truth, tags=tags, horizon=1
    )


@remade
def toll() -> Scenario:
    """One decision: action 0 pays the leader a toll θ, r_F = (-θ, 0), r_L = (θ, 0).

    π(0) = p = σ(-θ/β), J = θ p. Holding π: direct p. Through π: response -θ p (1 - p)/β.
    """

    def tables(x: Any) -> Tables:
        paid = anp.reshape(anp.concatenate([x, 0.0 * x]), (1, 2))
        return Tables(transition=np.zeros((1, 2, 1)), reward_follower=-paid, reward_leader=paid, initial=np.ones(1))

    theta, beta = 0.8, 0.6
    p = logistic(-theta / beta)
    truth = closed_form(theta * p, {"direct": [p], "response": [-theta * p * (1.0 - p) / beta]})
    return closed_form_scenario(
        "toll",
        "what a toll brings, and whom it deters",
        small_problem(tables, "toll", 1, 0.5, 0.9, beta),
        [theta],
        truth=truth,
        tags="direct response one_state one_parameter",
        horizon=1,
    )


@remade
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
        return closed_form(steps * mean, {"response": [steps * entry for entry in slope]})

    return closed_form_scenario(
        "repeated bandit",
        "one state for ever, three arms, γ_L ≠ γ_F",
        small_problem(tables, "repeated bandit", 3, leader, 0.9, beta),
        theta,
        truth=truth(1.0 / (1.0 - leader)),
        truncated=truth(geometric_sum(leader, horizon)),
        tags="response isolating one_state unequal_discounts",
        horizon=horizon,
    )


@remade
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
    truth = closed_form(mean, {"initial": [p * (r - mean) for p, r in zip(law, reward, strict=True)]})
    return closed_form_scenario(
        "starting place",
        "θ enters the law of the first state only",
        small_problem(tables, "starting place", 3, 0.9, 0.9, 1.0),
        theta,
        truth=truth,
        tags="initial isolating one_action equal_discounts",
        horizon=1,
    )


@remade
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
    truth = closed_form(1.0 - 0.5 * sum(entry**2 for entry in theta), {"regulariser": [-entry for entry in theta]})
    return closed_form_scenario(
        "price of change",
        "θ enters the regulariser only",
        small_problem(tables, "price of change", 2, 0.7, 0.9, 1.0),
        theta,
        truth=truth,
        tags="regulariser isolating one_state",
        horizon=1,
    )


@remade
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
        return closed_form(steps * beta * math.log(sum(weights)), {"direct": [steps * p for p in policy]})

    return closed_form_scenario(
        "envelope bandit",
        "B = 0 at θ: the response vanishes, with the entropy term only",
        small_problem(tables, "envelope bandit", 3, discount, discount, beta),
        theta,
        truth=truth(1.0 / (1.0 - discount)),
        truncated=truth(geometric_sum(discount, horizon)),
        tags="direct envelope equal_discounts one_state",
        horizon=horizon,
    )


@remade
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
    truth = closed_form(
        mean,
        {"direct": policy, "response": [p * (r - mean) / beta for p, r in zip(policy, theta, strict=True)]},
    )
    return closed_form_scenario(
        "shared purse",
        "both are paid the same; the entropy still makes the response matter",
        small_problem(tables, "shared purse", 3, 0.8, 0.8, beta),
        theta,
        truth=truth,
        tags="direct response equal_discounts one_state",
        horizon=1,
    )


@remade
def cold_bandit() -> Scenario:
    """`bandit` at β = 1e-3 with θ = 2e-3: 1/β is a factor of a thousand."""
    return bandit("cold bandit", 2e-3, 1e-3, "cold")


@remade
def hot_bandit() -> Scenario:
    """`bandit` at β = 1e3: the response is nearly gone, and only relative errors see it."""
    return bandit("hot bandit", 1.5, 1e3, "hot")


TEXTBOOK = (
    bandit,
    cold_bandit,
    hot_bandit,
    toll,
    repeated_bandit,
    starting_place,
    price_of_change,
    envelope_bandit,
    shared_purse,
    *CHAINS,
)
"""Functions that make the scenarios with a closed form."""
