"""Where estimators are checked by default on Markov games, of both information structures, and on one-dimensional LQRs.

Truths are computed. Paths of games end, but for a probability below rounding, and come back to states and to pairs;
those of linear-quadratic problems never end, and what two steps leave out is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from bilevelrl.reference import MarkovGame, named_stream
from bilevelrl.reference.problem import INFINITE_HORIZON
from bilevelrl.reference.storage import remade
from bilevelrl.tasks.generators.random_games import layered_markov_game, random_markov_game
from bilevelrl.tasks.generators.random_lqr import random_lqr, random_lqr_game
from bilevelrl.tasks.scenarios.scenario import Scenario

__all__ = ["OTHER_KINDS"]

_LAYERS: dict[str, Any] = {"layers": 3, "width": 2, "seed": 1}
_ONE: dict[str, Any] = {"states": 1, "actions": 2, "seed": 13, "going_on": 2e-3}
_TWO: dict[str, Any] = {"states": 2, "actions": 2, "seed": 14, "going_on": 1e-4}
_BLIND: dict[str, Any] = {"follower_sees_leader_action": False}


@remade
def _nearly_ending(*, going_on: float, **options: Any) -> MarkovGame:
    """A game in which nearly every step is the last: what is cut at the horizon weighs less than rounding."""
    game = random_markov_game(**options)
    return replace(game, transition=going_on * game.transition)


_Recipe: TypeAlias = tuple[str, Callable[..., Any], dict[str, Any], str, int]
"""Summary, maker, its arguments, tags and horizon."""

_SEEING: Mapping[str, _Recipe] = {
    "game": ("every path ends", layered_markov_game, _LAYERS, "ends", 3),
    "game, revisits": ("one state, met up to six times", _nearly_ending, _ONE, "ends revisits one_state", 6),
    "game, revisits, two states": ("both met again", _nearly_ending, _TWO, "ends revisits", 4),
}
_GAMES: Mapping[str, _Recipe] = {
    f"{name}{how}": (f"{summary}{seen}", make, {**options, **blind}, tags, horizon)
    for name, (summary, make, options, tags, horizon) in _SEEING.items()
    for how, seen, blind in (("", "", {}), (", not seeing", "; the follower sees nothing", _BLIND))
}


def _built(
    name: str, summary: str, make: Callable[..., Any], options: dict[str, Any], tags: str, steps: int
) -> Scenario:
    """The problem of a generator, at a θ at which nothing is special."""
    problem = make(**options)
    theta = 0.5 * named_stream(20260314, name).standard_normal(problem.theta_shape)
    return Scenario(
        name=name,
        summary=summary,
        problem=problem,
        theta=theta,
        horizon=steps,
        tags=frozenset(tags.split()),
        objective=INFINITE_HORIZON,
    )


def _lqr(name: str, make: Callable[..., Any], options: dict[str, Any]) -> Callable[[], Scenario]:
    tags = "goes_on integrable"
    return lambda: _built(name, "one dimension, two steps, by quadrature", make, options, tags, 2)


def _game(name: str) -> Callable[[], Scenario]:
    return lambda: _built(name, *_GAMES[name])


OTHER_KINDS: Mapping[str, Callable[[], Scenario]] = {
    **{name: _game(name) for name in _GAMES},
    "LQR": _lqr("LQR", random_lqr, {"states": 1, "actions": 1, "seed": 0}),
    "LQR, patient leader": _lqr("LQR, patient leader", random_lqr, {"states": 1, "actions": 1, "seed": 5}),
    "LQR game": _lqr("LQR game", random_lqr_game, {"states": 1, "seed": 2, "discount_follower": 0.5}),
}
"""name: maker."""
