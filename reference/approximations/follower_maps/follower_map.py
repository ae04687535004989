"""Followers that learn, as maps of θ: what they play after k updates, and the derivative of J(θ, π_k(θ)).

A learner is one function that runs its updates and returns π_k with the pullback of its own steps: from ω, the
cotangent of log π_k, to those of r_F and P. With ω the leader's, `Σ_t γ_L^t Pr(s_t=s) π_k(a|s) B(s,a)`,

    ∇J(θ, π_k(θ)) = ∂J/∂θ at π_k + Σ ω ∇log π_k.                                                                (1)

Where a learner starts is no function of this θ. Each has a proven bound δ on |log π_k - log π*|, or K on
`KL(π*‖π_k)`, and with it on the total variation:

    max_s TV(π_k, π*) ≤ (exp(δ) - 1)/2,        max_s TV(π_k, π*) ≤ √(K/2).                                      (2)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from bilevelrl.reference.arrays import FloatArray, check_array, check_shape
from bilevelrl.reference.doors import Horizon, Share, Steps, checked
from bilevelrl.reference.errors import SupportError, UnknownNameError, UnsupportedError, refusal
from bilevelrl.reference.problem import Objective
from bilevelrl.reference.tabular.follower import TabularFollower
from bilevelrl.reference.tabular.leader import evaluate_leader, visited_next
from bilevelrl.reference.tabular.model import ConfigurableMDP, TabularAt
from bilevelrl.reference.tabular.transitions import check_rows

__all__ = [
    "FOLLOWER_MAPS",
    "FollowerMap",
    "Learning",
    "Learnt",
    "centred_reward",
    "cotangent_of_logits",
    "follower_policy",
    "hypergradient_through",
    "register_map",
    "soft_tables",
    "start_logits",
    "started_at",
    "variation_bound",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """How long a follower learns, and from where: `updates`, `step_size` and `start`, None where it knows nothing."""

    updates: int
    step_size: float
    start: object = None


Pullback: TypeAlias = Callable[[FloatArray], Mapping[str, FloatArray]]
"""Cotangent of log π (S, A), zero in sum over actions → those of `reward_follower` and `transition`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """What a follower plays, (S, A), and the pullback of how it came to."""

    policy: FloatArray
    pullback: Pullback


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowerMap:
    """A follower that learns without chance.

    Attributes
    ----------
    name, summary, source : str
        The name in `FOLLOWER_MAPS`, one line about it, where it is published.
    learn : function
        (problem at θ, learning) → `Learnt`.
    variation : function
        (problem at θ, learning) → the proven bound (2).
    """

    name: str
    summary: str
    source: str
    learn: Callable[[TabularAt, Learning], Learnt]
    variation: Callable[[TabularAt, Learning], float]


FOLLOWER_MAPS: dict[str, FollowerMap] = {}
"""Every learner by name."""


def register_map(entry: FollowerMap) -> FollowerMap:
    """Add a learner to `FOLLOWER_MAPS`."""
    FOLLOWER_MAPS[entry.name] = entry
    return entry


@checked
def follower_policy(
    problem: ConfigurableMDP,
    theta: object,
    learner: str,
    *,
    updates: Steps,
    step_size: Share = 0.5,
    start: TabularFollower | FloatArray | None = None,
) -> FloatArray:
    """Return what a follower plays after k updates, (S, A).

    Parameters
    ----------
    problem, theta
        The problem and the leader's parameter.
    learner
        A name in `FOLLOWER_MAPS`.
    updates, step_size
        k, and α or η in (0, 1].
    start
        Where it starts: a follower carried over from another θ, or numbers (S, A), a table of soft Q-learning, a policy
        of the others; None: zeros, or the uniform policy.

    Raises
    ------
    UnknownNameError
        If the learner does not exist.
    UnsupportedError
        If some action cannot be taken: these learners try every one.
    ShapeError, SupportError, StochasticityError
        If the start is none of this problem.

    Examples
    --------
    >>> from bilevelrl.reference import solve_follower
    >>> from bilevelrl.tasks import random_mdp
    >>> problem, theta = random_mdp(seed=0), np.zeros(3)
    >>> best = solve_follower(problem, theta).policy
    >>> for updates in (2, 5, 20):
    ...     learnt = follower_policy(problem, theta, "natural_policy_gradient", updates=updates)
    ...     print(f"{np.abs(learnt - best).max():.0e}")
    6e-02
    7e-03
    2e-07
    """
    return _learner(learner).learn(_at(problem, theta, learner), _learning(updates, step_size, start)).policy


@checked
def hypergradient_through(
    problem: ConfigurableMDP,
    theta: object,
    learner: str,
    *,
    updates: Steps,
    step_size: Share = 0.5,
    start: TabularFollower | FloatArray | None = None,
    horizon: Horizon = None,
    discounted: bool = True,
) -> FloatArray:
    """Return the exact ∇ of θ → J(θ, π_k(θ)), (N,), (1): a follower that learns is its own map of θ.

    Parameters
    ----------
    problem, theta, learner, updates, step_size, start
        See `follower_policy`, whose errors these are.
    horizon, discounted
        Which objective: see `leader_objective`.

    Examples
    --------
    >>> from bilevelrl.reference import hypergradient
    >>> from bilevelrl.tasks import random_mdp
    >>> problem, theta = random_mdp(seed=0), np.zeros(3)
    >>> truth = hypergradient(problem, theta).value
    >>> for updates in (1, 20):
    ...     own = hypergradient_through(problem, theta, "soft_q_learning", updates=updates)
    ...     print(f"{np.abs(own - truth).max():.0e}")
    7e-01
    2e-05
    """
    at = _at(problem, theta, learner)
    learnt = _learner(learner).learn(at, _learning(updates, step_size, start))
    policy, objective = learnt.policy, Objective(horizon, discounted)
    evaluation = evaluate_leader(at.tables, policy, problem.discount_leader, objective=objective, centre=at.centres[1])
    response = learnt.pullback(evaluation.benefit_weight)
    return at.pullback(
        {
            "initial": evaluation.value,
            "reward_leader": evaluation.occupancy[:, None] * policy,
            "transition": visited_next(at.tables, evaluation.state_factor, policy, evaluation.value_factor)
            + response["transition"],
            "reward_follower": response["reward_follower"],
            "regulariser": np.ones(()),
        }
    )  # (1)


@checked
def variation_bound(
    problem: ConfigurableMDP,
    theta: object,
    learner: str,
    *,
    updates: Steps,
    step_size: Share = 0.5,
    start: TabularFollower | FloatArray | None = None,
) -> float:
    """Return the proven bound (2) on the largest total variation from the best response; at most 1.

    Parameters
    ----------
    problem, theta, learner, updates, step_size, start
        See `follower_policy`, whose errors these are.

    Examples
    --------
    >>> from bilevelrl.tasks import random_mdp
    >>> bound = variation_bound(random_mdp(seed=0), np.zeros(3), "natural_policy_gradient", updates=500)
    >>> print(f"{bound:.0e}")
    2e-11
    """
    found = _learner(learner).variation(_at(problem, theta, learner), _learning(updates, step_size, start))
    return min(1.0, found)


def _learner(name: str) -> FollowerMap:
    if name not in FOLLOWER_MAPS:
        raise UnknownNameError("learner", name, FOLLOWER_MAPS)
    return FOLLOWER_MAPS[name]


def _learning(updates: int, step_size: float, start: object) -> Learning:
    return Learning(updates=updates, step_size=float(step_size), start=start)


def _at(problem: ConfigurableMDP, theta: object, learner: str) -> TabularAt:
    at = problem.at(theta)
    mask = at.tables.action_mask
    if mask is not None and not np.all(mask):
        raise UnsupportedError(
            f"{learner}: it tries every action, and {problem.name} has an action_mask; use hypergradient_through_sweeps"
        )
    _ = at.pullback  # first: its trace tells what varies
    return at


def centred_reward(at: TabularAt) -> FloatArray:
    """Return r_F (S, A) without its constant, which no policy here depends on."""
    found: FloatArray = np.asarray(at.tables.reward_follower) - at.centres[0]
    return found


def cotangent_of_logits(weight: FloatArray, policy: FloatArray) -> FloatArray:
    """Return the cotangent of z where log π = z - log Σ exp z and `weight` is that of log π."""
    found: FloatArray = weight - policy * weight.sum(axis=1, keepdims=True)
    return found


def start_logits(at: TabularAt, start: object) -> FloatArray:
    """Return the log of the policy (S, A) that a learner starts from.

    Raises
    ------
    SupportError
        If an action has no probability.
    """
    tables = at.tables
    if start is None:
        return np.full((tables.states, tables.actions), -np.log(tables.actions))
    policy = started_at(at, start, "policy")
    check_rows("start", policy, "normalise its rows")
    if not policy.all():
        index = [int(i) for i in np.argwhere(policy == 0.0)[0]]
        raise SupportError(refusal(f"start{index}", 0.0, "a probability above 0", "what is never tried is not learnt"))
    return np.log(policy)


def started_at(at: TabularAt, start: object, field: str) -> FloatArray:
    """Return the numbers (S, A) that a start is, or that a follower has under a name."""
    tables = at.tables
    found = np.asarray(check_array("start", getattr(start, field, start), dtype=np.float64, finite=True))
    check_shape("start", found, (tables.states, tables.actions), "one number for each state and action")
    return found


def soft_tables(tables: FloatArray, beta: float) -> tuple[FloatArray, FloatArray]:
    """Return V (..., S) and policies (..., S, A) of tables."""
    largest = tables.max(axis=-1, keepdims=True)
    weights = np.exp((tables - largest) / beta)
    total = weights.sum(axis=-1, keepdims=True)
    return (largest + beta * np.log(total))[..., 0], weights / total
