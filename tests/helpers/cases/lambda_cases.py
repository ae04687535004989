"""Contexts and scenarios of λ-returns."""

from __future__ import annotations

from bilevelrl.estimators import (
    Context,
)
from bilevelrl.reference import solve_follower
from bilevelrl.tasks.scenarios.main_job import small_scenarios

DECAYS = (0.0, 0.5, 0.9, 1.0)

SMALL = {small.name: small for small in small_scenarios()}

TRAJECTORY = ("layered", "layered, with exits", "layered, θ in rewards", "going on", "garnet")


def context_of(problem, theta, **known):
    return Context(problem=problem, theta=theta, follower=solve_follower(problem, theta), **known)
