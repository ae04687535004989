"""The scenarios of `bilevelrl verify`: small ones whose paths are listed, and the paper's tasks, which are sampled.

On layered problems every path ends by itself and nothing is truncated: what claims no bias must show none beyond
rounding. Elsewhere the trajectories stop at a horizon, and enumeration shows what that costs. Markov games have
estimators of their own, and problems of both information structures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import autograd.numpy as anp
import numpy as np

from bilevelrl.reference import ConfigurableMDP, Tables, named_stream
from bilevelrl.reference.storage import remade
from bilevelrl.tasks.generators.mdps import garnet, layered_mdp, random_mdp
from bilevelrl.tasks.generators.random_games import layered_markov_game, random_markov_game
from bilevelrl.tasks.paper.bilevel_lqr import lqr_game
from bilevelrl.tasks.paper.building import building_thermal_control
from bilevelrl.tasks.paper.four_rooms import four_rooms, initial_theta
from bilevelrl.tasks.paper.toy_game import toy_markov_game
from bilevelrl.tasks.scenarios.scenario import Scenario

__all__ = ["FOUR_ROOMS_TEMPERATURES", "layered_with_exits", "paper_scenarios", "small_scenarios"]

FOUR_ROOMS_TEMPERATURES = (0.001, 0.003, 0.005)


@remade
def layered_with_exits(*, parameters: int, seed: int, **options: Any) -> ConfigurableMDP:
    """Return a layered problem that may end at every step, with a probability that depends on θ.

    The derivative of ending is then weighed by the value of the end, zero: an estimator that reads another value there,
    the last state's for example, is biased here and nowhere else.
    """
    layered = layered_mdp(parameters=parameters, seed=seed, **options)
    first = layered.tables_at(np.zeros(parameters))
    slope = named_stream(seed, "exits").standard_normal((first.states, first.actions, parameters))

    def tables(theta: Any) -> Tables:
        stays = 1.0 / (1.0 + anp.exp(-1.0 - anp.dot(slope, theta)))
        inside = layered.tables(theta)
        return inside.replace({"transition": inside.transition * stays[:, :, None]})

    return replace(layered, tables=tables, tables_jacobian=None, tables_pullback=None, name="layered with exits")


def small_scenarios() -> tuple[Scenario, ...]:
    """Return scenarios whose trajectories can be listed, those of Markov games last.

    Examples
    --------
    >>> [entry.name for entry in small_scenarios()]
    ['layered', 'layered, with exits', 'layered, θ in rewards', 'going on', 'going on, θ in rewards', 'garnet',
     'two layers', 'two steps', 'game', 'game, not seeing', 'game that goes on', 'game that goes on, not seeing',
     'game of two layers']
    """
    layered: dict[str, Any] = {"layers": 3, "width": 2, "actions": 2, "parameters": 3, "seed": 1}
    two_layers = {**layered, "layers": 2}
    random: dict[str, Any] = {"states": 2, "actions": 2, "parameters": 3, "seed": 2}
    sparse: dict[str, Any] = {"states": 4, "actions": 2, "branching": 2, "parameters": 4, "seed": 3, "termination": 0.2}
    rewards: dict[str, Any] = {"theta_in": ("reward_follower", "reward_leader")}
    game: dict[str, Any] = {"layers": 3, "width": 2, "seed": 1}
    endless: dict[str, Any] = {"states": 2, "actions": 2, "seed": 2, "termination": 0.2}
    blind: dict[str, Any] = {"follower_sees_leader_action": False}
    return (
        _small("layered", layered_mdp, layered, 3, "ends"),
        _small("layered, with exits", layered_with_exits, layered, 3, "ends"),
        _small("layered, θ in rewards", layered_mdp, {**layered, **rewards}, 3, "ends"),
        _small("going on", random_mdp, random, 5, "goes_on"),
        _small("going on, θ in rewards", random_mdp, {**random, **rewards}, 5, "goes_on"),
        _small("garnet", garnet, sparse, 4, "goes_on"),
        _small("two layers", layered_mdp, {**two_layers, **rewards}, 2, "ends pairs"),
        _small("two steps", random_mdp, {**random, **rewards}, 2, "goes_on pairs"),
        _small("game", layered_markov_game, game, 3, "ends"),
        _small("game, not seeing", layered_markov_game, {**game, **blind}, 3, "ends"),
        _small("game that goes on", random_markov_game, endless, 4, "goes_on"),
        _small("game that goes on, not seeing", random_markov_game, {**endless, **blind}, 4, "goes_on"),
        _small("game of two layers", layered_markov_game, {**game, "layers": 2}, 2, "ends pairs"),
    )


def _small(name: str, make: Callable[..., Any], options: dict[str, Any], horizon: int, tags: str) -> Scenario:
    """The problem of a generator, at a θ at which nothing is special."""
    problem = make(**options)
    theta = 0.5 * named_stream(20260314, name).standard_normal(problem.theta_shape)
    return Scenario(name=name, problem=problem, theta=theta, horizon=horizon, tags=frozenset(tags.split()))


def paper_scenarios(
    temperatures: Sequence[float] = FOUR_ROOMS_TEMPERATURES, *, seed: int = 0, horizon: int = 100
) -> tuple[Scenario, ...]:
    """Return the paper's four tasks, Four-Rooms at each temperature and at a θ drawn as experiments draw it.

    The toy game at p = .3, where the follower's response is twenty times the leader's own term; the continuous tasks
    where their experiments start or pass.

    Examples
    --------
    >>> [entry.name for entry in paper_scenarios((0.003,))]
    ['four_rooms 0.003', 'toy_game', 'building', 'lqr_game']
    """
    start = initial_theta(named_stream(seed, "theta"))
    rooms = [(f"four_rooms {value}", "Four-Rooms", four_rooms(temperature=value), start) for value in temperatures]
    others = [
        ("toy_game", "toy game", toy_markov_game(), np.array([0.0, np.log(0.3 / 0.7), 0.0])),
        ("building", "building", building_thermal_control(), np.zeros(8)),
        ("lqr_game", "LQR game", lqr_game(), np.array([-7.0, 0.0])),
    ]
    return tuple(
        Scenario(
            name=name, title=title, problem=problem, theta=theta, horizon=horizon, tags=frozenset({"goes_on", "large"})
        )
        for name, title, problem, theta in (*rooms, *others)
    )
