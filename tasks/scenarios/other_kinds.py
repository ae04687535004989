"""Where estimators are checked by default on Markov games, of both information structures, and on one-dimensional LQRs.

Truths are computed. Paths of games end, but for a probability below rounding, and come back to states and to pairs, or
pass more than ten steps; those of linear-quadratic problems never end, and what a few steps leave out is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import autograd.numpy as anp
import numpy as np

from bilevelrl.reference import ConfigurableLQR, LQRGame, LQRMatrices, MarkovGame, TabularSoftmaxPolicy, named_stream
from bilevelrl.reference.problem import INFINITE_HORIZON
from bilevelrl.reference.storage import remade
from bilevelrl.tasks.generators.random_games import layered_markov_game, random_markov_game
from bilevelrl.tasks.generators.random_lqr import random_lqr, random_lqr_game
from bilevelrl.tasks.scenarios.scenario import Scenario

__all__ = ["OTHER_KINDS"]


@remade
def _nearly_ending(*, going_on: float, **options: Any) -> MarkovGame:
    """A game in which nearly every step is the last: what is cut at the horizon weighs less than rounding."""
    game = random_markov_game(**options)
    return replace(game, transition=going_on * game.transition)


@remade
def _paying(*, pay: float, **options: Any) -> MarkovGame:
    """A layered game whose leader is paid so many times more, and that has a regulariser."""
    game = layered_markov_game(**options)
    return replace(
        game, reward_leader=pay * game.reward_leader, regulariser=lambda theta: -0.05 * anp.sum(theta * theta)
    )


_LONG = 13
_LEADER_CHOOSES, _FOLLOWER_CHOOSES = (0, 4, 8, 11), (0, 5, 10)


@remade
def _corridor(*, follower_sees_leader_action: bool = True) -> MarkovGame:
    """Two lanes of thirteen steps; the leader chooses at four of them, the follower at three, which also change lanes.

    Few choices, so that there are few paths for so many steps.
    """
    states = 2 * _LONG
    rng = named_stream(20260314, "corridor")
    layer, lane = np.divmod(np.arange(states), 2)
    transition = np.zeros((states, 2, 2, states))
    for state in range(states - 2):
        for leader_action, action in np.ndindex(2, 2):
            chosen = (leader_action + action) % 2 if layer[state] in _FOLLOWER_CHOOSES else lane[state]
            transition[state, leader_action, action, 2 * (layer[state] + 1) + chosen] = 1.0
    chooses = np.isin(layer, _LEADER_CHOOSES)[:, None]
    among = TabularSoftmaxPolicy(states=states, leader_actions=2)
    mask = np.ones((states, 2), dtype=np.bool_)
    mask[:, 1] = np.isin(layer, _FOLLOWER_CHOOSES)
    return MarkovGame(
        transition=transition,
        reward_follower=rng.uniform(-2.0, 2.0, (states, 2, 2)),
        reward_leader=rng.uniform(-10.0, 10.0, (states, 2, 2)),
        initial=np.eye(states)[0],
        policy=lambda theta: anp.where(chooses, among(theta), np.array([1.0, 0.0])),
        follower_sees_leader_action=follower_sees_leader_action,
        discount_leader=0.95,
        discount_follower=0.8,
        temperature=1.5,
        action_mask=mask,
        theta_shape=(among.parameters,),
        name="corridor",
    )


@remade
def _silent_lqr(*, seed: int, **options: Any) -> ConfigurableLQR:
    """A problem without disturbance and with one start, in which θ enters the costs alone: one normal per step."""
    drawn = random_lqr(states=1, actions=1, seed=seed, **options)
    first = drawn.matrices_at(np.zeros(3))

    def matrices(theta: Any) -> LQRMatrices:
        return replace(
            drawn.matrices(theta),
            dynamics_state=first.dynamics_state,
            dynamics_action=first.dynamics_action,
            noise_covariance=np.zeros((1, 1)),
            initial_mean=first.initial_mean,
            initial_covariance=np.zeros((1, 1)),
        )

    return replace(drawn, matrices=matrices, name="LQR without disturbance")


@remade
def _one_start(**options: Any) -> LQRGame:
    """A one-dimensional game with one start."""
    game = random_lqr_game(states=1, **options)
    return replace(game, initial_covariance=np.zeros((1, 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recipe:
    summary: str
    make: Callable[..., Any]
    options: Mapping[str, Any]
    tags: str
    horizon: int
    episodes: int = 1

    def built(self, name: str, **more: Any) -> Scenario:
        """The problem of a generator, at a θ at which nothing is special."""
        problem = self.make(**self.options, **more)
        theta = 0.5 * named_stream(20260314, name).standard_normal(problem.theta_shape)
        return Scenario(
            name=name,
            summary=self.summary,
            problem=problem,
            theta=theta,
            horizon=self.horizon,
            episodes=self.episodes,
            tags=frozenset(self.tags.split()),
            objective=INFINITE_HORIZON,
        )


def _recipe(
    summary: str, make: Callable[..., Any], tags: str, horizon: int, /, *, episodes: int = 1, **options: Any
) -> _Recipe:
    return _Recipe(summary=summary, make=make, tags=tags, horizon=horizon, episodes=episodes, options=options)


_PATIENT_LEADER: dict[str, Any] = {"temperature": 0.05, "discount_leader": 0.99, "discount_follower": 0.3}
_PATIENT_FOLLOWER: dict[str, Any] = {"temperature": 20.0, "discount_leader": 0.3, "discount_follower": 0.99}

_GAMES: Mapping[str, _Recipe] = {
    "game": _recipe("every path ends", layered_markov_game, "ends", 3, layers=3, width=2, seed=1),
    "game, revisits": _recipe(
        "one state, met up to six times", _nearly_ending, "ends revisits one_state", 6,
        states=1, actions=2, seed=13, going_on=2e-3,
    ),
    "game, revisits, two states": _recipe(
        "both met again", _nearly_ending, "ends revisits", 4, states=2, actions=2, seed=14, going_on=1e-4
    ),
    "game, long": _recipe("thirteen steps, rewards up to ten", _corridor, "ends long large_rewards", _LONG),
    "game, several episodes": _recipe(
        "three in a stream", layered_markov_game, "ends several_episodes", 2, episodes=3, layers=2, width=1, seed=4
    ),
    "game, cut": _recipe(
        "some streams end before", random_markov_game, "goes_on cut revisits", 3,
        states=2, actions=2, seed=5, termination=0.6, discount_leader=0.8,
    ),
    "game, cold": _recipe(
        "β = 0.05, γ_L = 0.99, γ_F = 0.3, rewards up to ten, a regulariser", _paying,
        "ends cold unequal_discounts large_rewards regulariser", 3,
        layers=3, width=2, seed=6, pay=10.0, **_PATIENT_LEADER,
    ),
    "game, hot": _recipe(
        "β = 20, γ_L = 0.3, γ_F = 0.99", layered_markov_game, "ends hot unequal_discounts", 3,
        layers=3, width=2, seed=7, **_PATIENT_FOLLOWER,
    ),
}  # fmt: skip

_ONE: dict[str, Any] = {"states": 1, "actions": 1}
_CUT = "goes_on integrable"
_LINEAR: Mapping[str, _Recipe] = {
    "LQR": _recipe("one dimension, two steps, by quadrature", random_lqr, _CUT, 2, seed=0, **_ONE),
    "LQR, patient leader": _recipe("one dimension, two steps, by quadrature", random_lqr, _CUT, 2, seed=5, **_ONE),
    "LQR, long": _recipe("five steps without disturbance", _silent_lqr, f"{_CUT} long", 5, seed=3),
    "LQR, several episodes": _recipe(
        "two in a stream, of one step each", random_lqr, f"{_CUT} several_episodes", 1, episodes=2, seed=2, **_ONE
    ),
    "LQR, cold": _recipe(
        "β = 0.05, γ_L = 0.99, γ_F = 0.3", random_lqr, f"{_CUT} cold unequal_discounts", 2,
        seed=4, **_PATIENT_LEADER, **_ONE,
    ),
    "LQR, hot": _recipe(
        "β = 20, γ_L = 0.3, γ_F = 0.99", random_lqr, f"{_CUT} hot unequal_discounts large_rewards", 2,
        seed=6, **_PATIENT_FOLLOWER, **_ONE,
    ),
    "LQR game": _recipe(
        "one dimension, two steps, by quadrature", random_lqr_game, _CUT, 2, states=1, seed=2, discount_follower=0.5
    ),
    "LQR game, several episodes": _recipe(
        "two in a stream, of one step each", _one_start, f"{_CUT} several_episodes", 1, episodes=2,
        seed=10, discount_leader=0.6, discount_follower=0.5,
    ),
    "LQR game, cold": _recipe(
        "β = 0.05, γ_L = 0.7, γ_F = 0.3", _one_start, f"{_CUT} cold unequal_discounts", 2,
        seed=4, temperature=0.05, discount_leader=0.7, discount_follower=0.3,
    ),
    "LQR game, hot": _recipe(
        "β = 5, γ_L = 0.3, γ_F = 0.9", _one_start, f"{_CUT} hot unequal_discounts", 2,
        seed=6, temperature=5.0, discount_leader=0.3, discount_follower=0.9,
    ),
}  # fmt: skip


def _makers() -> Iterator[tuple[str, Callable[[], Scenario]]]:
    for name, recipe in _GAMES.items():
        yield name, partial(recipe.built, name)
        blind = replace(recipe, summary=f"{recipe.summary}; the follower sees nothing")
        other = f"{name}, not seeing"
        yield other, partial(blind.built, other, follower_sees_leader_action=False)
    for name, recipe in _LINEAR.items():
        yield name, partial(recipe.built, name)


OTHER_KINDS: Mapping[str, Callable[[], Scenario]] = dict(_makers())
"""name: maker."""
