"""The scenarios without a closed form: what is special about each, how it is made, what its tags are.

Their truth is in `scenario_truths.json`; see `scenario_truths.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import autograd.numpy as anp
import numpy as np

from bilevelrl.reference import ConfigurableMDP, Tables, named_stream, solve_follower
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.storage import remade
from bilevelrl.tasks.generators.chain import chain
from bilevelrl.tasks.generators.mdps import (
    absorbing_mdp,
    garnet,
    layered_mdp,
    periodic_mdp,
    random_mdp,
    unreachable_mdp,
)
from bilevelrl.tasks.generators.smooth_mdp import smooth_mdp

__all__ = ["EPISODES", "STORED"]

Make: TypeAlias = Callable[[], tuple[ConfigurableMDP, FloatArray]]


def _generated(make: Callable[..., ConfigurableMDP], *, scale: float = 0.5, **options: Any) -> Make:
    """The problem of a generator, at a θ at which nothing is special."""

    def build() -> tuple[ConfigurableMDP, FloatArray]:
        problem = make(**options)
        assert problem.theta_shape is not None
        return problem, scale * named_stream(20260314, problem.name).standard_normal(problem.theta_shape)

    return build


@remade
def _envelope() -> ConfigurableMDP:
    """r_L = r_F - β log π*_{θ0}, frozen at θ0, equal discounts: J and the follower's value agree to first order."""
    base = layered_mdp(seed=11, discount_leader=0.8, discount_follower=0.8)
    theta = 0.5 * named_stream(20260314, "envelope").standard_normal(3)
    bonus = -base.temperature * np.log(solve_follower(base, theta).policy)

    def tables(x: Any) -> Tables:
        plain = base.tables(x)
        return Tables(
            transition=plain.transition,
            reward_follower=plain.reward_follower,
            reward_leader=plain.reward_follower + bonus,
            initial=plain.initial,
        )

    return ConfigurableMDP(
        tables=tables,
        discount_leader=base.discount_leader,
        discount_follower=base.discount_follower,
        temperature=base.temperature,
        theta_shape=(3,),
        name="envelope",
    )


@remade
def _linear() -> ConfigurableMDP:
    """θ itself is added to both rewards: many parameters, one per state and action."""
    base = layered_mdp(seed=12, theta_in=())

    def tables(x: Any) -> Tables:
        plain = base.tables(np.zeros(3))
        added = anp.reshape(x, (6, 2))
        return Tables(
            transition=plain.transition,
            reward_follower=plain.reward_follower + added,
            reward_leader=plain.reward_leader - 0.5 * added,
            initial=plain.initial,
        )

    return ConfigurableMDP(
        tables=tables,
        discount_leader=0.7,
        discount_follower=0.9,
        temperature=0.4,
        theta_shape=(12,),
        name="a parameter per pair",
    )


_LONG = 12


@remade
def _corridor() -> ConfigurableMDP:
    """Two lanes of twelve steps; the follower changes lanes halfway. The leader is paid tenfold."""
    layer, lane = np.divmod(np.arange(2 * _LONG), 2)
    onward = layer[None, :] == layer[:, None] + 1
    same = np.repeat((onward & (lane[None, :] == lane[:, None]))[:, None], 2, axis=1)
    by_action = onward[:, None, :] & (lane[None, None, :] == np.arange(2)[None, :, None])
    support = np.where((layer == _LONG // 2)[:, None, None], by_action, same)
    drawn = smooth_mdp(
        name="corridor",
        seed=15,
        support=support,
        initial_support=np.arange(2 * _LONG) == 0,
        parameters=3,
        temperature=1.5,
        discount_leader=0.95,
        discount_follower=0.8,
    )

    def tables(x: Any) -> Tables:
        plain = drawn.tables(x)
        return plain.replace({"reward_leader": 10.0 * plain.reward_leader})

    return replace(drawn, tables=tables, tables_jacobian=None, tables_pullback=None)


_LAYERED: Mapping[str, Any] = {"layers": 3, "width": 2, "actions": 2, "parameters": 3, "seed": 1}
_ALL = "initial direct transition response regulariser"
_ONLY = {
    "initial": "initial",
    "reward_leader": "direct",
    "transition": "transition response",
    "reward_follower": "response",
    "regulariser": "regulariser",
}

STORED: Mapping[str, tuple[str, Make, str, int]] = {
    "layered": ("θ in every table, every path ends", _generated(layered_mdp, **_LAYERED), f"ends {_ALL}", 3),
    **{
        f"layered, θ in {table} only": (
            f"θ enters {table} alone",
            _generated(layered_mdp, **_LAYERED, theta_in=(table,)),
            f"ends isolating {tags}",
            3,
        )
        for table, tags in _ONLY.items()
    },
    "layered, θ in both rewards": (
        "what experiments with penalties look like",
        _generated(layered_mdp, **_LAYERED, theta_in=("reward_leader", "reward_follower")),
        "ends direct response",
        3,
    ),
    "layered, cold": (
        "the same at β = 0.05",
        _generated(layered_mdp, **_LAYERED, temperature=0.05),
        f"ends cold {_ALL}",
        3,
    ),
    "layered, hot": (
        "the same at β = 50",
        _generated(layered_mdp, **_LAYERED, temperature=50.0),
        f"ends hot {_ALL}",
        3,
    ),
    "layered, patient leader": (
        "γ_L = 0.99 and γ_F = 0.3",
        _generated(layered_mdp, **_LAYERED, discount_leader=0.99, discount_follower=0.3),
        f"ends unequal_discounts {_ALL}",
        3,
    ),
    "layered, patient follower": (
        "γ_L = 0.3 and γ_F = 0.99",
        _generated(layered_mdp, **_LAYERED, discount_leader=0.3, discount_follower=0.99),
        f"ends unequal_discounts {_ALL}",
        3,
    ),
    "layered, myopic leader": (
        "γ_L = 0",
        _generated(layered_mdp, **_LAYERED, discount_leader=0.0),
        f"ends unequal_discounts {_ALL}",
        3,
    ),
    "layered, myopic follower": (
        "γ_F = 0",
        _generated(layered_mdp, **_LAYERED, discount_follower=0.0),
        f"ends unequal_discounts {_ALL}",
        3,
    ),
    "layered, three actions": (
        "three actions over two layers",
        _generated(layered_mdp, layers=2, width=2, actions=3, parameters=4, seed=5),
        f"ends {_ALL}",
        2,
    ),
    "layered, one parameter": (
        "a single parameter in every table",
        _generated(layered_mdp, layers=3, width=2, actions=2, parameters=1, seed=6),
        f"ends one_parameter {_ALL}",
        3,
    ),
    "layered, one action": (
        "no choice, so no response",
        _generated(layered_mdp, layers=3, width=2, actions=1, parameters=3, seed=7),
        "ends one_action initial direct transition regulariser",
        3,
    ),
    "a parameter per pair": (
        "θ is added to both rewards of each pair",
        _generated(_linear, scale=0.3),
        "ends direct response",
        3,
    ),
    "envelope": (
        "B = 0 at θ: the response vanishes; θ in every table",
        _generated(_envelope),
        "ends envelope equal_discounts initial direct transition",
        3,
    ),
    # Nearly every step is the last: what is cut at the horizon weighs less than rounding.
    "revisits": (
        "one state, come back to up to ten times",
        _generated(random_mdp, states=1, actions=2, parameters=3, seed=13, termination=0.98),
        "ends revisits one_state direct transition response regulariser",
        10,
    ),
    "revisits, two states": (
        "two states and two actions, each met again",
        _generated(random_mdp, states=2, actions=2, parameters=3, seed=14, termination=0.9995),
        f"ends revisits {_ALL}",
        6,
    ),
    "long": (
        "twelve steps, rewards up to ten",
        _generated(_corridor),
        "ends long large_rewards direct response regulariser",
        _LONG,
    ),
    "several episodes": (
        "three in a stream",
        _generated(layered_mdp, layers=2, width=2, actions=2, parameters=3, seed=16),
        f"ends several_episodes {_ALL}",
        2,
    ),
    "cut": (
        "some streams end before",
        _generated(random_mdp, states=2, actions=2, parameters=3, seed=17, termination=0.4, discount_follower=0.6),
        f"goes_on cut revisits {_ALL}",
        4,
    ),
    "random": (
        "dense, θ in every table, goes on",
        _generated(random_mdp, states=2, actions=2, parameters=3, seed=2),
        f"goes_on {_ALL}",
        5,
    ),
    "random, terminating": (
        "each step may be the last",
        _generated(random_mdp, states=2, actions=2, parameters=3, seed=3, termination=0.3),
        f"goes_on {_ALL}",
        4,
    ),
    "random, one state": (
        "one state for ever",
        _generated(random_mdp, states=1, actions=3, parameters=2, seed=4),
        "goes_on one_state direct response regulariser",
        5,
    ),
    "random, one state and action": (
        "nothing to decide and nowhere to go",
        _generated(random_mdp, states=1, actions=1, parameters=1, seed=4, termination=0.2),
        "goes_on one_state one_action one_parameter direct transition regulariser",
        6,
    ),
    "garnet": (
        "two successors per pair, the same at every θ",
        _generated(garnet, states=4, actions=2, branching=2, parameters=4, seed=3, termination=0.2),
        f"goes_on sparse {_ALL}",
        3,
    ),
    "garnet, one successor": (
        "deterministic moves",
        _generated(garnet, states=5, actions=2, branching=1, parameters=3, seed=8),
        "goes_on sparse initial direct response regulariser",
        5,
    ),
    "periodic": (
        "three classes of states in turn",
        _generated(periodic_mdp, period=3, width=2, seed=9),
        f"goes_on periodic {_ALL}",
        4,
    ),
    "absorbing": (
        "a last state that pays its entropy bonus for ever",
        _generated(absorbing_mdp, states=3, seed=10),
        f"goes_on absorbing {_ALL}",
        4,
    ),
    "unreachable": (
        "states that no path visits",
        _generated(unreachable_mdp, states=4, unreachable=2, seed=10),
        f"goes_on unreachable {_ALL}",
        4,
    ),
    "slow chain": (
        "near-deterministic moves and long discounts",
        _generated(chain, states=6),
        "goes_on slow direct transition response",
        5,
    ),
}
"""name: (summary, maker of problem and θ, tags, horizon)."""

EPISODES: Mapping[str, int] = {"several episodes": 3}
"""name: how many follow each other in a stream, where more than one."""
