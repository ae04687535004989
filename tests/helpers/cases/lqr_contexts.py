"""Contexts of linear-quadratic problems."""

import numpy as np

from bilevelrl.estimators import Context
from bilevelrl.reference import solve_follower
from bilevelrl.tasks import random_lqr

THETA = np.array([0.3, -0.2, 0.1])


def context_of(problem, theta=THETA, **changes):
    return Context(problem=problem, theta=theta, follower=solve_follower(problem, theta), **changes)


def one_dimensional(seed=1, **changes):
    return random_lqr(states=1, actions=1, seed=seed, **changes)
