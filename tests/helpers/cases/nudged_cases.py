"""Problems of every kind for the mixed derivative."""

from dataclasses import replace

import numpy as np
import pytest

from bilevelrl.reference import (
    hypergradient,
)
from bilevelrl.tasks import (
    random_lqr,
    random_lqr_game,
    random_markov_game,
    random_mdp,
)

THETA = np.array([0.3, -0.5, 0.2])


def mdp(leader=0.9, follower=0.9, **options):
    return random_mdp(
        states=4, actions=2, parameters=3, seed=0, discount_leader=leader, discount_follower=follower, **options
    )


def game(leader=0.9, follower=0.9, sees=True):
    drawn = random_markov_game(
        states=3, leader_actions=2, actions=2, seed=0, discount_leader=leader, discount_follower=follower
    )
    return replace(drawn, follower_sees_leader_action=sees)


def lqr(leader=0.9, follower=0.9, seed=0):
    return random_lqr(states=3, actions=2, seed=seed, discount_leader=leader, discount_follower=follower)


def gaussian_game(leader=0.9, follower=0.9, seed=2):
    return random_lqr_game(states=2, seed=seed, radius=0.5, discount_leader=leader, discount_follower=follower)


PROBLEMS = {
    "mdp": mdp,
    "seeing": game,
    "blind": lambda *discounts: game(*discounts, sees=False),
    "lqr": lqr,
    "lqr game": gaussian_game,
}


def disagreements(problem, theta, other, **objective):
    """The parts that differ from another route's by more than both bounds."""
    found, truth = (hypergradient(problem, theta, route=route, **objective) for route in ("mixed_derivative", other))
    assert found.objective == pytest.approx(truth.objective, rel=1e-9, abs=1e-9)
    allowed = found.error_bound + truth.error_bound
    return {part for part, value in truth.parts.items() if not np.abs(found.parts[part] - value).max() <= allowed}
