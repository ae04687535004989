"""A kind of problem in one file: a bandit whose follower draws one real action, with Gaussian responses.

The follower is paid `-k (a - c)²/2` and β times its entropy, the leader `-(a - t)²/2` and ρ, once:

    a ~ N(c, β/k),      V_F = (β/2) log(2πβ/k),                                                                  (1)
    J = -((c - t)² + β/k)/2 + ρ,                                                                                 (2)
    ∂J/∂t = c - t,   ∂J/∂c = t - c,   ∂J/∂k = β/(2k²),   ∂J/∂ρ = 1.                                              (3)

θ may enter c, k, t and ρ. All that this kind answers is registered below; nothing else knows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.random import Generator

from bilevelrl.reference.arrays import FloatArray, check_theta
from bilevelrl.reference.derivatives.cache import Cache
from bilevelrl.reference.derivatives.entries import Derivatives
from bilevelrl.reference.errors import UnsupportedError
from bilevelrl.reference.problem import (
    AnswerBounds,
    At,
    Linearisation,
    Objective,
    Part,
    Status,
    evaluate_objective,
    linearise,
    solve,
    split_objective,
)

PARTS: tuple[Part, ...] = ("direct", "response", "regulariser")
ROUNDING = 32.0 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True, kw_only=True)
class Bandit:
    """θ → {"centre": c, "precision": k, "target": t, "regulariser": ρ}, traceable."""

    entries: Callable[[Any], Mapping[str, Any]]
    temperature: float
    theta_shape: tuple[int, ...] | None = None
    discount_leader: float = 0.0
    discount_follower: float = 0.0
    cache: Cache = field(default_factory=Cache, init=False, repr=False, compare=False)

    @property
    def derivatives(self) -> Derivatives:
        return Derivatives(entries=lambda theta: dict(self.entries(theta)), label="entries", cache=self.cache)

    def check_theta(self, theta: object) -> FloatArray:
        return check_theta(theta, self.theta_shape)

    def at(self, theta: object) -> BanditAt:
        theta = np.array(self.check_theta(theta))
        found = {name: np.asarray(value, dtype=np.float64) for name, value in self.entries(theta).items()}
        self.derivatives.refresh(theta, found)
        return BanditAt(problem=self, theta=theta, found=found)

    def pullback_at(self, theta: FloatArray) -> Callable[[Mapping[str, Any]], FloatArray]:
        return self.derivatives.pullback_at(theta)

    def pullback(self, *arguments: object, **options: object) -> FloatArray:
        raise UnsupportedError("bandits have no trajectories; use hypergradient")

    def regulariser_gradient(self, theta: FloatArray) -> FloatArray:
        return self.pullback_at(theta)({"regulariser": np.ones(())})


@dataclass(frozen=True, eq=False, kw_only=True)
class BanditAt(At[Bandit]):
    """A bandit evaluated at θ."""

    found: Mapping[str, FloatArray]

    @property
    def values(self) -> FloatArray:
        return np.array(list(self.found.values()))


@dataclass(frozen=True, kw_only=True)
class GaussianResponse:
    """The follower's response; a bandit has one state, whatever its number."""

    mean: float
    variance: float
    temperature: float
    residual: float = 0.0
    error_bound: float = ROUNDING
    status: Status = Status.CONVERGED

    def value_at(self, state: Any, leader_action: Any = None) -> FloatArray:
        value = 0.5 * self.temperature * np.log(2.0 * np.pi * self.variance)  # (1)
        return np.full(np.shape(state), value)

    def action_value_at(self, state: Any, action: Any, leader_action: Any = None) -> FloatArray:
        return self.value_at(state) + self.temperature * self.log_prob(state, action)

    def sample(self, state: Any, rng: Generator, leader_action: Any = None) -> FloatArray:
        return rng.normal(self.mean, np.sqrt(self.variance), np.shape(state))

    def log_prob(self, state: Any, action: Any, leader_action: Any = None) -> FloatArray:
        off = np.asarray(action) - self.mean
        result: FloatArray = -0.5 * (off * off / self.variance + np.log(2.0 * np.pi * self.variance))
        return result


@solve.register(Bandit)
def solve_bandit(at: BanditAt, **options: object) -> GaussianResponse:
    beta = at.problem.temperature
    return GaussianResponse(
        mean=float(at.found["centre"]), variance=beta / float(at.found["precision"]), temperature=beta
    )


def earned(at: BanditAt, follower: GaussianResponse) -> float:
    off = follower.mean - float(at.found["target"])
    return -0.5 * (off * off + follower.variance) + float(at.found["regulariser"])  # (2)


@evaluate_objective.register(Bandit)
def bandit_objective(at: BanditAt, *, objective: Objective, follower: GaussianResponse | None = None) -> float:
    return earned(at, solve_bandit(at) if follower is None else follower)


@linearise.register(Bandit)
def linearise_bandit(at: BanditAt, objective: Objective, *, warm_start: object = None) -> Linearisation:
    follower = solve_bandit(at)
    off = follower.mean - at.found["target"]
    size = 1.0 + float(off * off) + follower.variance
    steep = sum(float(np.abs(slope).max()) for slope in at.problem.derivatives.jacobian(at.theta).values())
    return Linearisation(
        objective=earned(at, follower),
        cotangents={  # (3)
            "direct": {"target": off},
            "response": {"centre": -off, "precision": 0.5 * at.problem.temperature / at.found["precision"] ** 2},
            "regulariser": {"regulariser": np.ones(())},
        },
        follower=follower,
        condition=1.0,
        error_bound=lambda at: AnswerBounds(ROUNDING * size * steep, ROUNDING * size),
        counters={},
    )


class SplitBandit:
    """(2) with one of its three θ moved."""

    parts = PARTS
    condition = 1.0

    def __init__(self, at: BanditAt) -> None:
        self.at, self.follower = at, solve_bandit(at)
        self.base = earned(at, self.follower)

    def depends(self, part: Part) -> bool:
        return True

    def noise(self, part: Part) -> float:
        return ROUNDING * (1.0 + abs(self.base))

    def values(self, part: Part, moved: Sequence[BanditAt]) -> FloatArray:
        own = {"direct": ("target",), "regulariser": ("regulariser",), "response": ()}[part]
        mixed = [{**self.at.found, **{name: at.found[name] for name in own}} for at in moved]
        played = [solve_bandit(at) if part == "response" else self.follower for at in moved]
        return np.array(
            [
                earned(BanditAt(problem=self.at.problem, theta=self.at.theta, found=found), follower)
                for found, follower in zip(mixed, played, strict=True)
            ]
        )

    def error_bound(self, at: BanditAt) -> AnswerBounds:
        return linearise_bandit(at, Objective()).error_bound(at)


@split_objective.register(Bandit)
def split_bandit(at: BanditAt, objective: Objective, *, warm_start: object = None) -> SplitBandit:
    at.problem.derivatives.refuse_noise(at.theta)
    return SplitBandit(at)
