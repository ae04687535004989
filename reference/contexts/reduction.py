"""A mixture of tabular problems as one configurable MDP whose states are (context, state).

The first state tells the context and nothing leads from one to another:

    μ(ξ, s) = p(ξ) μ_ξ(s),      P((ξ, s') | (ξ, s), a) = P_ξ(s'|s, a),      ρ = Σ p ρ_ξ                             (1)

Discounts and the temperature must be the same in all contexts. Where the mixture's own routes add up what each context
is worth, this one evaluates a single problem; its samples draw a context anew in every episode and know the
regularisers of all, and a law of the context that depends on θ is written as its initial law.
"""

from __future__ import annotations

from typing import Any

import autograd.numpy as anp
import numpy as np

from bilevelrl.reference.arrays import BoolArray, Traced
from bilevelrl.reference.contexts.model import Mixture
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import UnsupportedError, refusal
from bilevelrl.reference.game.model import MarkovGame
from bilevelrl.reference.game.reduction import reduce_game
from bilevelrl.reference.problem import Problem
from bilevelrl.reference.tabular.model import ConfigurableMDP
from bilevelrl.reference.tabular.tables import Tables
from bilevelrl.reference.tabular.transitions import SparseTransition, Transition

__all__ = ["reduce_contexts"]


@checked
def reduce_contexts(mixture: Mixture) -> ConfigurableMDP:
    """Return the configurable MDP with the same followers, the same objective and the same θ.

    Parameters
    ----------
    mixture
        Of configurable MDPs, Markov games and mixtures of them, with the same discounts and temperature. States of
        context ξ are numbered after those of all contexts before it; where a context has fewer actions than another,
        the others cannot be taken.

    Raises
    ------
    UnsupportedError
        If a context has no tables, or discounts or temperatures differ.

    Examples
    --------
    >>> from bilevelrl.reference import leader_objective
    >>> from bilevelrl.tasks import random_mdp
    >>> one, other = (random_mdp(states=4, actions=2, parameters=3, seed=seed) for seed in (0, 1))
    >>> both = Mixture(contexts=[one, other], weights=[0.25, 0.75])
    >>> one_mdp = reduce_contexts(both)
    >>> one_mdp.states_at(np.zeros(3)), round(leader_objective(one_mdp, np.zeros(3)), 12) == round(
    ...     leader_objective(both, np.zeros(3)), 12)
    (8, True)
    """
    contexts = [_tabular(place, context) for place, context in enumerate(mixture.contexts)]
    weights = mixture.weights

    def tables(theta: Traced) -> Tables:
        each = [context.evaluate(theta) for context in contexts]
        actions = max(own.actions for own in each)
        mask = None
        if any(own.action_mask is not None or own.actions < actions for own in each):
            mask = np.concatenate([_playable(own, actions) for own in each])
        return Tables(
            transition=_side_by_side([own.transition for own in each], actions),  # (1)
            reward_follower=anp.concatenate([_filled(own.reward_follower, actions) for own in each]),
            reward_leader=anp.concatenate([_filled(own.reward_leader, actions) for own in each]),
            initial=anp.concatenate([p * _law(own.initial) for p, own in zip(weights, each, strict=True)]),  # (1)
            regulariser=sum(p * own.regulariser for p, own in zip(weights, each, strict=True)),  # (1)
            action_mask=mask,
        )

    return ConfigurableMDP(
        tables=tables,
        discount_leader=mixture.discount_leader,
        discount_follower=mixture.discount_follower,
        temperature=mixture.temperature,
        theta_shape=mixture.theta_shape,
        verify_derivatives=all(context.verify_derivatives for context in contexts),
        name=f"{mixture.name}, as one MDP",
    )


def _tabular(place: int, context: Problem) -> ConfigurableMDP:
    if isinstance(context, Mixture):
        return reduce_contexts(context)
    if isinstance(context, MarkovGame):
        return reduce_game(context)
    if not isinstance(context, ConfigurableMDP):
        found = type(context).__name__
        raise UnsupportedError(
            refusal(f"contexts[{place}]", found, "a ConfigurableMDP or a MarkovGame", "others have no tables")
        )
    return context


def _playable(tables: Tables, actions: int) -> BoolArray:
    own = np.ones((tables.states, tables.actions), dtype=np.bool_)
    own = own if tables.action_mask is None else np.asarray(tables.action_mask)
    return np.pad(own, ((0, 0), (0, actions - tables.actions)))


def _law(initial: Traced) -> Traced:
    """Return the law that is meant: divided by its sum."""
    return initial / anp.sum(initial)


def _filled(table: Traced, actions: int) -> Traced:
    """Return a table (S, A, ...) with zeros for actions that the context does not have."""
    shape = np.shape(table)
    if shape[1] == actions:
        return table
    return anp.concatenate([table, np.zeros((shape[0], actions - shape[1], *shape[2:]))], axis=1)


def _side_by_side(kernels: list[Transition], actions: int) -> Transition:
    """Return the kernel of all contexts: blocks of a dense one, or a list of successors where one of them is a list."""
    if not any(isinstance(kernel, SparseTransition) for kernel in kernels):
        return _blocks(kernels, actions)
    lists = [_listed(kernel) for kernel in kernels]
    longest = max(successor.shape[2] for successor, _ in lists)
    first, successors, probabilities = 0, [], []
    for successor, probability in lists:
        states, own, count = successor.shape
        wide = ((0, 0), (0, actions - own), (0, longest - count))
        successors.append(first + np.pad(successor, wide))
        if count < longest:
            probability = anp.concatenate([probability, np.zeros((states, own, longest - count))], axis=2)
        probabilities.append(_filled(probability, actions))
        first += states
    return SparseTransition(successor=np.concatenate(successors), probability=anp.concatenate(probabilities))


def _blocks(kernels: list[Transition], actions: int) -> Traced:
    sizes = [np.shape(kernel)[0] for kernel in kernels]
    first, rows = 0, []
    for size, kernel in zip(sizes, kernels, strict=True):
        before, after = np.zeros((size, actions, first)), np.zeros((size, actions, sum(sizes) - first - size))
        rows.append(anp.concatenate([before, _filled(kernel, actions), after], axis=2))
        first += size
    return anp.concatenate(rows)


def _listed(kernel: Transition) -> tuple[Any, Traced]:
    if isinstance(kernel, SparseTransition):
        return kernel.successor, kernel.probability
    states, actions, _ = np.shape(kernel)
    return np.broadcast_to(np.arange(states), (states, actions, states)), kernel
