"""Diagrams of small deterministic Markov games: states, who moves where by which pair of actions, and what it pays.

matplotlib is imported when something is drawn; it comes with the extra `cli`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelrl.reference import MarkovGame
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, MissingExtraError, refusal
from bilevelrl.tasks.pictures.rendering import AxesOrNew

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["GameMove", "draw_game", "game_moves"]

_NODE = 0.17


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class GameMove:
    """Pairs of actions that lead from one state to another and pay the same.

    Attributes
    ----------
    state_t, state_tp1 : int
        From where to where.
    pairs : tuple of (leader action, follower action)
        By which pairs.
    reward_follower, reward_leader : float
        What each of them pays.
    """

    state_t: int
    state_tp1: int
    pairs: tuple[tuple[int, int], ...]
    reward_follower: float
    reward_leader: float


@checked
def game_moves(game: MarkovGame) -> list[GameMove]:
    """Return the moves of a deterministic game, sorted by states and rewards.

    Raises
    ------
    InvalidInputError
        If a transition is random, or ends the game.

    Examples
    --------
    >>> from bilevelrl.tasks import toy_markov_game
    >>> moves = game_moves(toy_markov_game())
    >>> len(moves), moves[1]
    (9, GameMove(state_t=0, state_tp1=1, pairs=((0, 1), (1, 1)), reward_follower=1.0, reward_leader=1.0))
    """
    transition = np.asarray(game.transition)
    if not ((transition == 0.0) | (transition == 1.0)).all() or not (transition.sum(axis=3) == 1.0).all():
        raise InvalidInputError(f"{game.name}: expected transitions of probability 0 or 1; diagrams show sure moves")
    found: dict[tuple[int, int, float, float], list[tuple[int, int]]] = {}
    states, leader_actions, actions, _ = transition.shape
    for s, leader, a in np.ndindex(states, leader_actions, actions):
        paid = float(game.reward_follower[s, leader, a]), float(game.reward_leader[s, leader, a])
        found.setdefault((s, int(transition[s, leader, a].argmax()), *paid), []).append((leader, a))
    return [
        GameMove(state_t=s, state_tp1=ahead, pairs=tuple(found[key]), reward_follower=key[2], reward_leader=key[3])
        for key in sorted(found)
        for s, ahead in [key[:2]]
    ]


@checked
def draw_game(
    game: MarkovGame,
    *,
    state_names: Sequence[str],
    action_names: Sequence[str],
    title: str | None = None,
    axes: AxesOrNew = None,
) -> Axes:
    """Draw states on a circle and an arrow for each kind of move.

    A label `l|a: r_F` names leader action, follower action and the follower's reward; `*` is any; a reward of the
    leader that is not zero follows in brackets.

    Parameters
    ----------
    game
        Deterministic.
    state_names, action_names
        Of the states and of the follower's actions.
    title
        Above the diagram.
    axes
        Where to draw; a new figure by default.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    InvalidInputError
        If a transition is random, or a name is missing.

    Examples
    --------
    >>> from bilevelrl.tasks import toy_markov_game
    >>> axes = draw_game(toy_markov_game(), state_names="SAB", action_names="sab", title="toy game")
    >>> axes.get_title(loc="left")
    'toy game'
    """
    try:
        import matplotlib.pyplot as plt
        from matplotlib.patches import Circle
    except ImportError as error:
        raise MissingExtraError("drawing", "matplotlib", "cli") from error
    states, leader_actions, actions = np.shape(game.reward_leader)
    for name, given, count in (("state_names", state_names, states), ("action_names", action_names, actions)):
        if len(given) != count:
            raise InvalidInputError(refusal(name, given, f"{count} names", "name each one"))
    if axes is None:
        _, axes = plt.subplots(figsize=(5.4, 4.6), layout="constrained")
    angles = np.pi / 2.0 + 2.0 * np.pi * np.arange(states) / states
    places = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    labels: dict[tuple[int, int], list[str]] = {}
    for move in game_moves(game):
        names = _pair_names(move, leader_actions, action_names)
        paid = f"{move.reward_follower:+g}" if move.reward_follower else "0"
        own = f" ({move.reward_leader:+g})" if move.reward_leader else ""
        labels.setdefault((move.state_t, move.state_tp1), []).append(f"{names}: {paid}{own}")
    for (s, ahead), texts in labels.items():
        _draw_arrow(axes, places[s], places[ahead], "\n".join(texts))
    for place, name in zip(places, state_names, strict=True):
        across, up = (float(each) for each in place)
        axes.add_patch(Circle((across, up), _NODE, facecolor="white", edgecolor="#343a46", linewidth=1.6, zorder=3))
        axes.text(across, up, name, ha="center", va="center", fontsize=13, zorder=4)
    axes.set(xlim=(-1.9, 1.9), ylim=(-1.45, 1.65), aspect="equal")
    axes.set_axis_off()
    if title is not None:
        axes.set_title(title, loc="left", fontsize=11)
    return axes


def _pair_names(move: GameMove, leader_actions: int, action_names: Sequence[str]) -> str:
    by_leader: dict[int, list[int]] = {}
    for leader, action in move.pairs:
        by_leader.setdefault(leader, []).append(action)
    everything = [tuple(found) for found in by_leader.values()]
    if len(by_leader) == leader_actions and len(set(everything)) == 1:
        return f"*|{_actions(everything[0], action_names)}"
    return ", ".join(f"{leader}|{_actions(tuple(found), action_names)}" for leader, found in by_leader.items())


def _actions(actions: tuple[int, ...], names: Sequence[str]) -> str:
    return "*" if len(actions) == len(names) > 1 else ",".join(names[a] for a in actions)


def _draw_arrow(axes: Any, start: Any, end: Any, text: str) -> None:
    style = {"arrowstyle": "-|>", "color": "#555555", "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
    if np.array_equal(start, end):
        outward = start / np.linalg.norm(start)
        across = np.array([-outward[1], outward[0]])
        first, last = start + _NODE * (0.8 * outward + 0.6 * across), start + _NODE * (0.8 * outward - 0.6 * across)
        style["connectionstyle"] = "arc3,rad=-2.2"
        axes.annotate("", xy=last, xytext=first, arrowprops=style)
        axes.text(*(start + 3.3 * _NODE * outward), text, ha="center", va="center", fontsize=8.5)
        return
    along = (end - start) / np.linalg.norm(end - start)
    aside = np.array([along[1], -along[0]])
    shift = 0.075 * aside  # the way back has a line of its own
    axes.annotate("", xy=end - _NODE * along + shift, xytext=start + _NODE * along + shift, arrowprops=style)
    inner = aside @ (start + end) < 0.0
    share = 0.5 if not inner else 0.64 if start[1] > end[1] else 0.36  # inner labels below, where there is room
    place = start + share * (end - start) + 0.16 * aside
    beside = abs(aside[0]) > 0.3
    horizontal = ("left" if aside[0] > 0 else "right") if beside else "center"
    vertical = "center" if beside else "bottom" if aside[1] > 0 else "top"
    axes.text(*place, text, ha=horizontal, va=vertical, fontsize=8.5)
