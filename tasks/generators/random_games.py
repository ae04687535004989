"""Generators of Markov games: random, layered, and ones that are hard for a particular piece of code."""

from __future__ import annotations

from typing import Literal, TypeAlias

import autograd.numpy as anp
import numpy as np

from bilevelrl.reference import MarkovGame, TabularSoftmaxPolicy, named_stream
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import Count, Probability, Seed, checked
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError, refusal
from bilevelrl.reference.storage import remade
from bilevelrl.tasks.registry import register_task

__all__ = ["GAME_CASES", "GameCase", "hard_markov_game", "layered_markov_game", "random_markov_game"]

GameCase: TypeAlias = Literal[
    "leader ignored", "follower ignored", "opposed", "aligned", "deterministic", "absorbing", "constant reward", "cold"
]
GAME_CASES: tuple[GameCase, ...] = (
    "leader ignored",
    "follower ignored",
    "opposed",
    "aligned",
    "deterministic",
    "absorbing",
    "constant reward",
    "cold",
)


@register_task("random_markov_game", "a two-player game with drawn tables and a tabular softmax leader")
@remade
@checked
def random_markov_game(
    *,
    states: Count = 5,
    leader_actions: Count = 2,
    actions: Count = 3,
    branching: Count | None = None,
    seed: Seed = 0,
    follower_sees_leader_action: bool = True,
    temperature: float = 0.5,
    discount_leader: float = 0.9,
    discount_follower: float = 0.9,
    termination: Probability = 0.0,
    regularised: bool = False,
) -> MarkovGame:
    """Return a game with Dirichlet transitions on random supports and rewards in (-1, 1); θ is a tabular softmax.

    Parameters
    ----------
    states, leader_actions, actions
        S, L and A.
    branching
        Successors per (s, l, a); None: all states.
    seed
        Root entropy of the tables.
    follower_sees_leader_action, temperature, discount_leader, discount_follower
        As in `MarkovGame`.
    termination
        Largest probability that a step is the last; each (s, l, a) draws its own up to that.
    regularised
        Subtract |θ|²/20 from the leader's objective.

    Raises
    ------
    InvalidInputError
        If a size is below one or a probability outside [0, 1].

    Examples
    --------
    >>> game = random_markov_game(states=4, leader_actions=3, actions=2, branching=2)
    >>> game.transition.shape, int((game.transition > 0).sum(axis=3).max()), game.theta_shape
    ((4, 3, 2, 4), 2, (8,))
    """
    width = states if branching is None else branching
    if width > states:
        raise InvalidInputError(refusal("branching", branching, f"at most {states} states", "take fewer successors"))
    shape = (states, leader_actions, actions)
    rng = named_stream(seed, "random_markov_game", *shape)
    weights = rng.standard_exponential((*shape, states))
    order = rng.random((*shape, states)).argsort(axis=3)
    weights *= order < width
    transition = weights / weights.sum(axis=3, keepdims=True)
    transition *= 1.0 - termination * rng.random((*shape, 1))
    start = rng.standard_exponential(states)
    policy = TabularSoftmaxPolicy(states=states, leader_actions=leader_actions)
    return MarkovGame(
        transition=transition,
        reward_follower=rng.uniform(-1.0, 1.0, shape),
        reward_leader=rng.uniform(-1.0, 1.0, shape),
        initial=start / start.sum(),
        policy=policy,
        follower_sees_leader_action=follower_sees_leader_action,
        discount_leader=discount_leader,
        discount_follower=discount_follower,
        temperature=temperature,
        regulariser=(lambda theta: -0.05 * anp.sum(theta * theta)) if regularised else None,
        theta_shape=(policy.parameters,),
        name="random game",
    )


@register_task("layered_markov_game", "a two-player game whose every path ends, so that nothing is ever truncated")
@remade
@checked
def layered_markov_game(
    *,
    layers: Count = 2,
    width: Count = 2,
    leader_actions: Count = 2,
    actions: Count = 2,
    seed: Seed = 0,
    follower_sees_leader_action: bool = True,
    temperature: float = 0.4,
    discount_leader: float = 0.7,
    discount_follower: float = 0.9,
) -> MarkovGame:
    """Return a game whose every path passes `layers` layers of `width` states and ends: nothing is ever truncated.

    Parameters
    ----------
    layers, width
        Steps of every path, and states per layer.
    leader_actions, actions, seed, follower_sees_leader_action, temperature, discount_leader, discount_follower
        As in `random_markov_game`.

    Examples
    --------
    >>> game = layered_markov_game(layers=3, width=2)
    >>> game.states, game.transition.sum(axis=3)[:, 0, 0].round(12).tolist()
    (6, [1.0, 1.0, 1.0, 1.0, 0.0, 0.0])
    """
    states = layers * width
    base = random_markov_game(
        states=states,
        leader_actions=leader_actions,
        actions=actions,
        seed=seed,
        follower_sees_leader_action=follower_sees_leader_action,
        temperature=temperature,
        discount_leader=discount_leader,
        discount_follower=discount_follower,
    )
    layer = np.arange(states) // width
    weights = base.transition * (layer[:, None, None, None] + 1 == layer)
    total = weights.sum(axis=3, keepdims=True)
    start = base.initial * (layer == 0)
    return _rebuilt(
        base,
        name="layered game",
        transition=np.divide(weights, total, out=np.zeros_like(weights), where=total > 0.0),
        initial=start / start.sum(),
    )


@checked
def hard_markov_game(case: GameCase, *, seed: Seed = 0, follower_sees_leader_action: bool = True) -> MarkovGame:
    """Return a game with a structure that a wrong piece of code is likely to stumble over.

    Parameters
    ----------
    case
        "leader ignored": nothing depends on the leader's action, so the gradient is zero. "follower ignored": nothing
        depends on the follower's, so the response is zero. "opposed", "aligned": r_L = ∓r_F. "deterministic": every
        row has one successor. "absorbing": a state that is never left. "constant reward": both rewards shifted by 1e5,
        which moves no gradient. "cold": temperature 1e-4.
    seed, follower_sees_leader_action
        As in `random_markov_game`.

    Raises
    ------
    UnknownNameError
        If the case does not exist.

    Examples
    --------
    >>> from bilevelrl.reference import hypergradient
    >>> game = hard_markov_game("leader ignored")
    >>> float(abs(hypergradient(game, np.zeros(5)).value).max()) < 1e-12
    True
    """
    if case not in GAME_CASES:
        raise UnknownNameError("case", case, GAME_CASES)
    base = random_markov_game(
        seed=seed,
        follower_sees_leader_action=follower_sees_leader_action,
        temperature=1e-4 if case == "cold" else 0.5,
    )
    changes: dict[str, FloatArray] = {}
    tables = ("transition", "reward_follower", "reward_leader")
    if case == "leader ignored":
        changes = {name: np.repeat(getattr(base, name)[:, :1], base.leader_actions, axis=1) for name in tables}
    elif case == "follower ignored":
        changes = {name: np.repeat(getattr(base, name)[:, :, :1], base.actions, axis=2) for name in tables}
    elif case in ("opposed", "aligned"):
        changes = {"reward_leader": base.reward_follower * (1.0 if case == "aligned" else -1.0)}
    elif case == "deterministic":
        changes = {"transition": np.eye(base.states)[base.transition.argmax(axis=3)]}
    elif case == "absorbing":
        transition = base.transition.copy()
        transition[-1] = np.eye(base.states)[-1]
        changes = {"transition": transition}
    elif case == "constant reward":
        changes = {name: getattr(base, name) + 1e5 for name in tables[1:]}
    return _rebuilt(base, name=f"hard game: {case}", **changes)


def _rebuilt(game: MarkovGame, *, name: str, **changes: FloatArray) -> MarkovGame:
    entries = {
        table: changes.get(table, getattr(game, table))
        for table in ("transition", "reward_follower", "reward_leader", "initial")
    }
    return MarkovGame(
        **entries,
        policy=game.policy,
        follower_sees_leader_action=game.follower_sees_leader_action,
        discount_leader=game.discount_leader,
        discount_follower=game.discount_follower,
        temperature=game.temperature,
        regulariser=game.regulariser,
        theta_shape=game.theta_shape,
        name=name,
    )
