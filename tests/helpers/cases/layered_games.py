"""Games whose episodes end, and games that go on."""

import numpy as np
import pytest

from bilevelrl.estimators import (
    Context,
)
from bilevelrl.reference import solve_follower
from bilevelrl.tasks import random_markov_game
from bilevelrl.tasks.generators.random_games import layered_markov_game

SEES = pytest.mark.parametrize("sees", [True, False])


def layered(sees, seed=3):
    game = layered_markov_game(layers=3, width=2, seed=seed, follower_sees_leader_action=sees)
    theta = np.random.default_rng(seed).normal(size=game.theta_shape)
    return game, theta, Context(problem=game, theta=theta, follower=solve_follower(game, theta))


def going_on(sees, **options):
    game = random_markov_game(
        states=2, leader_actions=2, actions=2, seed=1, termination=0.3, follower_sees_leader_action=sees, **options
    )
    theta = np.array([0.4, -0.7])
    return game, theta, Context(problem=game, theta=theta, follower=solve_follower(game, theta))


def total(parts):
    return sum(parts.values())
