"""Small random problems of every structure on which routes and estimators may differ.

All are smooth in θ with gradients of order one, have a support that does not change with θ, and can be traced by
autograd and evaluated at complex θ. The same seed gives the same problem.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from bilevelrl.reference import ConfigurableMDP, named_stream
from bilevelrl.reference.doors import Count, Probability, Seed, checked
from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.reference.tabular import TABLE_NAMES
from bilevelrl.tasks.generators.chain import chain
from bilevelrl.tasks.generators.smooth_mdp import smooth_mdp
from bilevelrl.tasks.registry import register_task

__all__ = [
    "absorbing_mdp",
    "garnet",
    "layered_mdp",
    "periodic_mdp",
    "random_mdp",
    "small_problems",
    "unreachable_mdp",
]


@register_task("random_mdp", "every transition possible, θ in every table")
@checked
def random_mdp(
    *,
    states: Count = 4,
    actions: Count = 2,
    parameters: Count = 3,
    seed: Seed = 0,
    theta_in: str | Iterable[str] = TABLE_NAMES,
    temperature: float = 0.5,
    discount_leader: float = 0.8,
    discount_follower: float = 0.9,
    termination: Probability = 0.0,
) -> ConfigurableMDP:
    """Return a dense random problem.

    Parameters
    ----------
    states, actions, parameters
        S, A and N; one state or one action are allowed.
    seed
        Root entropy of the tables.
    theta_in
        Names of the tables that depend on θ.
    temperature, discount_leader, discount_follower
        β, γ_L and γ_F.
    termination
        Probability at θ = 0 that a step is the last of its episode.

    Raises
    ------
    InvalidInputError
        If a size, a probability or a name is not valid.

    Examples
    --------
    >>> problem = random_mdp(states=3, actions=2, parameters=5, seed=1, theta_in=("reward_follower",))
    >>> sorted(problem.varying(np.zeros(5)))
    ['reward_follower']
    """
    return smooth_mdp(
        name=f"random_mdp({states}x{actions}, seed={seed})",
        seed=seed,
        support=np.ones((states, actions, states), dtype=np.bool_),
        initial_support=np.ones(states, dtype=np.bool_),
        parameters=parameters,
        theta_in=theta_in,
        temperature=temperature,
        discount_leader=discount_leader,
        discount_follower=discount_follower,
        termination=termination,
    )


@register_task("garnet", "few successors per state and action, drawn at random and the same at every θ")
@checked
def garnet(
    *,
    states: Count = 10,
    actions: Count = 3,
    branching: Count = 3,
    parameters: Count = 5,
    seed: Seed = 0,
    theta_in: str | Iterable[str] = TABLE_NAMES,
    temperature: float = 0.5,
    discount_leader: float = 0.8,
    discount_follower: float = 0.9,
    termination: Probability = 0.0,
) -> ConfigurableMDP:
    """Return a Garnet problem (Archibald, McKinnon and Thomas, 1995): `branching` successors per state and action.

    Parameters
    ----------
    branching
        Number of different successors, at most `states`.
    states, actions, parameters, seed, theta_in, temperature, discount_leader, discount_follower, termination
        As in `random_mdp`.

    Raises
    ------
    InvalidInputError
        As `random_mdp`, or if `branching` exceeds `states`.

    Examples
    --------
    >>> kernel = garnet(states=6, branching=2).tables(np.ones(5)).transition
    >>> np.unique((kernel > 0).sum(axis=2))
    array([2])
    """
    if branching > states:
        raise InvalidInputError(refusal("branching", branching, f"at most states={states}", "lower it"))
    name = f"garnet({states}x{actions}, branching={branching}, seed={seed})"
    order = named_stream(seed, name, "support").random((states, actions, states)).argsort(axis=2)
    return smooth_mdp(
        name=name,
        seed=seed,
        support=order < branching,
        initial_support=np.ones(states, dtype=np.bool_),
        parameters=parameters,
        theta_in=theta_in,
        temperature=temperature,
        discount_leader=discount_leader,
        discount_follower=discount_follower,
        termination=termination,
    )


@register_task("layered_mdp", "every path ends after exactly `layers` steps, so that nothing is ever truncated")
@checked
def layered_mdp(
    *,
    layers: Count = 3,
    width: Count = 2,
    actions: Count = 2,
    parameters: Count = 3,
    seed: Seed = 0,
    theta_in: str | Iterable[str] = TABLE_NAMES,
    temperature: float = 0.4,
    discount_leader: float = 0.7,
    discount_follower: float = 0.9,
) -> ConfigurableMDP:
    """Return a problem whose states come in layers: each step leads one layer on, the step in the last one is the last.

    State `layer · width + i`. There are `(width · actions)^layers` paths, so enumeration over all of them is exact.

    Parameters
    ----------
    layers, width
        Steps of an episode, and states per layer.
    actions, parameters, seed, theta_in, temperature, discount_leader, discount_follower
        As in `random_mdp`.

    Raises
    ------
    InvalidInputError
        As `random_mdp`.

    Examples
    --------
    >>> kernel = layered_mdp(layers=2, width=1).tables(np.zeros(3)).transition
    >>> kernel.sum(axis=2)
    array([[1., 1.],
           [0., 0.]])
    """
    layer = np.repeat(np.arange(layers), width)
    onward = layer[None, :] == layer[:, None] + 1
    return smooth_mdp(
        name=f"layered_mdp({layers}x{width}x{actions}, seed={seed})",
        seed=seed,
        support=np.repeat(onward[:, None, :], actions, axis=1),
        initial_support=layer == 0,
        parameters=parameters,
        theta_in=theta_in,
        temperature=temperature,
        discount_leader=discount_leader,
        discount_follower=discount_follower,
    )


@register_task("periodic_mdp", "classes of states visited in turn for ever: powers of the chain never settle")
@checked
def periodic_mdp(
    *,
    period: Count = 3,
    width: Count = 2,
    actions: Count = 2,
    parameters: Count = 3,
    seed: Seed = 0,
    temperature: float = 0.5,
    discount_leader: float = 0.8,
    discount_follower: float = 0.9,
) -> ConfigurableMDP:
    """Return a problem whose states fall into `period` classes that every path visits in turn.

    Raises
    ------
    InvalidInputError
        As `random_mdp`.

    Examples
    --------
    >>> kernel = periodic_mdp(period=2, width=1).tables(np.zeros(3)).transition
    >>> kernel[:, 0]
    array([[0., 1.],
           [1., 0.]])
    """
    phase = np.repeat(np.arange(period), width)
    onward = phase[None, :] == (phase[:, None] + 1) % period
    return smooth_mdp(
        name=f"periodic_mdp({period}x{width}x{actions}, seed={seed})",
        seed=seed,
        support=np.repeat(onward[:, None, :], actions, axis=1),
        initial_support=phase == 0,
        parameters=parameters,
        temperature=temperature,
        discount_leader=discount_leader,
        discount_follower=discount_follower,
    )


@register_task("absorbing_mdp", "a last state that is never left and pays nobody, but keeps its entropy bonus")
@checked
def absorbing_mdp(
    *,
    states: Count = 5,
    actions: Count = 2,
    parameters: Count = 3,
    seed: Seed = 0,
    temperature: float = 0.5,
    discount_leader: float = 0.8,
    discount_follower: float = 0.9,
) -> ConfigurableMDP:
    """Return a problem whose last state loops on itself with rewards of zero, the opposite of a termination.

    Raises
    ------
    InvalidInputError
        As `random_mdp`.

    Examples
    --------
    >>> absorbing_mdp(states=3).tables(np.zeros(3)).transition[2, 0]
    array([0., 0., 1.])
    """
    support = np.ones((states, actions, states), dtype=np.bool_)
    support[-1, :, :-1] = False
    initial = np.ones(states, dtype=np.bool_)
    initial[-1] = states == 1
    return smooth_mdp(
        name=f"absorbing_mdp({states}x{actions}, seed={seed})",
        seed=seed,
        support=support,
        initial_support=initial,
        rewarded=np.arange(states) < states - 1,
        parameters=parameters,
        temperature=temperature,
        discount_leader=discount_leader,
        discount_follower=discount_follower,
    )


@register_task("unreachable_mdp", "states that no path visits: their values exist, their visits do not")
@checked
def unreachable_mdp(
    *,
    states: Count = 5,
    unreachable: Count = 2,
    actions: Count = 2,
    parameters: Count = 3,
    seed: Seed = 0,
    temperature: float = 0.5,
    discount_leader: float = 0.8,
    discount_follower: float = 0.9,
) -> ConfigurableMDP:
    """Return a problem whose last `unreachable` states lead to the others but are never entered.

    Raises
    ------
    InvalidInputError
        As `random_mdp`, or if no state would be left to visit.

    Examples
    --------
    >>> bool((unreachable_mdp(states=3, unreachable=1).tables(np.ones(3)).transition[:, :, 2] == 0.0).all())
    True
    """
    if unreachable >= states:
        raise InvalidInputError(refusal("unreachable", unreachable, f"less than states={states}", "lower it"))
    entered = np.arange(states) < states - unreachable
    return smooth_mdp(
        name=f"unreachable_mdp({states}x{actions}, unreachable={unreachable}, seed={seed})",
        seed=seed,
        support=np.broadcast_to(entered, (states, actions, states)).copy(),
        initial_support=entered,
        parameters=parameters,
        temperature=temperature,
        discount_leader=discount_leader,
        discount_follower=discount_follower,
    )


@checked
def small_problems(seed: Seed = 0) -> dict[str, ConfigurableMDP]:
    """Return one small problem of every structure, by name: what routes and estimators should be tried on.

    Examples
    --------
    >>> sorted(small_problems())[:4]
    ['absorbing', 'chain', 'garnet', 'layered']
    """
    return {
        "random": random_mdp(seed=seed),
        "terminating": random_mdp(seed=seed, termination=0.2),
        "garnet": garnet(states=6, branching=2, parameters=4, seed=seed),
        "chain": chain(states=8),
        "layered": layered_mdp(seed=seed),
        "periodic": periodic_mdp(seed=seed),
        "absorbing": absorbing_mdp(seed=seed),
        "one state": random_mdp(states=1, actions=3, seed=seed),
        "one action": random_mdp(states=3, actions=1, seed=seed),
        "one state, one action": random_mdp(states=1, actions=1, seed=seed),
        "unreachable": unreachable_mdp(seed=seed),
    }
