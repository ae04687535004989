"""Exact hypergradients of Markov games: the toy game below a millisecond, 200 × 5 × 5 within seconds."""

from typing import Any

import numpy as np
import pytest

from bilevelrl.estimators import BCHG, Context, sample_trajectories
from bilevelrl.estimators.critics import GameCritic
from bilevelrl.reference import HYPERGRADIENT_ROUTES, MarkovGame, hypergradient, solve_follower
from bilevelrl.tasks import random_markov_game, toy_game_theta, toy_markov_game

ROUTES = [name for name, route in HYPERGRADIENT_ROUTES.items() if MarkovGame in route.kinds]
SMALL = random_markov_game(states=10, leader_actions=3, actions=3, seed=0)
LARGE = {
    (states, actions): random_markov_game(states=states, leader_actions=actions, actions=actions, branching=10, seed=0)
    for states, actions in ((50, 3), (200, 5))
}


@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize("bonus", [1.0, 2.0])
def test_toy_game(benchmark: Any, bonus: float, bound: bool) -> None:
    game, theta = toy_markov_game(bonus), toy_game_theta(0.3)
    found = benchmark(hypergradient, game, theta, bound=bound)
    benchmark.extra_info.update(**found.counters)


@pytest.mark.parametrize("route", ROUTES)
def test_route(benchmark: Any, route: str) -> None:
    theta = 0.5 * np.random.default_rng(0).standard_normal(20)
    options = {"route": route, "bound": False}
    found = benchmark.pedantic(hypergradient, (SMALL, theta), options, rounds=2, warmup_rounds=1)
    exact = hypergradient(SMALL, theta, bound=False).value
    benchmark.extra_info.update(distance_to_implicit=float(np.abs(found.value - exact).max()), **found.counters)


@pytest.mark.parametrize("route", ["implicit", "theorem2", "reduction"])
@pytest.mark.parametrize("sees", [True, False])
@pytest.mark.parametrize("size", LARGE)
def test_size(benchmark: Any, size: tuple[int, int], sees: bool, route: str) -> None:
    game = random_markov_game(
        states=size[0], leader_actions=size[1], actions=size[1], branching=10, follower_sees_leader_action=sees
    )
    theta = 0.5 * np.random.default_rng(0).standard_normal(game.theta_shape)
    options = {"route": route, "bound": False}
    benchmark.pedantic(hypergradient, (game, theta), options, rounds=2, warmup_rounds=0)


def test_bc_hg_of_a_batch(benchmark: Any) -> None:
    game, theta = toy_markov_game(), toy_game_theta(0.3)
    follower = solve_follower(game, theta)
    critic = GameCritic.solve(game, theta, follower)
    context = Context(problem=game, theta=theta, follower=follower, critic=critic)
    batch = sample_trajectories(game, theta, follower, streams=3, steps=150, rng=np.random.default_rng(0))
    benchmark(BCHG(critic="context").estimate, batch, context)
