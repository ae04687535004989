"""Every Markov game is a configurable MDP: the leader's policy becomes part of the dynamics.

A follower that sees the leader's action lives in the states (s, l), with `P((s',l')|(s,l),a) = P(s'|s,l,a) f(l'|s')`
and initial law `μ(s) f(l|s)`. One that does not lives in the states s, with all tables averaged over f. In both, θ
enters the transition, and the `policy` part of the game is what moves the leader's evaluation directly: initial,
direct and transition part together. The game's laws are divided by their sums before they are multiplied, so that both
are one problem.
"""

from __future__ import annotations

import autograd.numpy as anp
import numpy as np

from bilevelrl.reference.arrays import Traced
from bilevelrl.reference.doors import checked
from bilevelrl.reference.game.model import MarkovGame
from bilevelrl.reference.tabular.model import ConfigurableMDP
from bilevelrl.reference.tabular.tables import Tables
from bilevelrl.reference.tabular.transitions import divided

__all__ = ["reduce_game"]


@checked
def reduce_game(game: MarkovGame) -> ConfigurableMDP:
    """Return the configurable MDP with the same follower, the same objective and the same θ.

    Parameters
    ----------
    game
        Any Markov game. States (s, l) of a seeing follower are numbered s · L + l.

    Examples
    --------
    >>> from bilevelrl.reference import leader_objective
    >>> from bilevelrl.tasks import toy_markov_game
    >>> game = toy_markov_game()
    >>> abs(leader_objective(reduce_game(game), np.zeros(3)) - leader_objective(game, np.zeros(3))) < 1e-12
    True
    """
    states, leader_actions, actions = game.reward_leader.shape
    pairs = states * leader_actions

    kernel, initial = divided(game.transition), divided(game.initial)

    def policy_at(theta: object) -> Traced:
        table = game.evaluate(theta)
        return table / anp.sum(table, axis=1, keepdims=True)

    def seeing(theta: object) -> Tables:
        policy = policy_at(theta)
        arrive = anp.reshape(policy, (1, 1, states, leader_actions))
        moved = np.reshape(kernel, (pairs, actions, states, 1)) * arrive
        return Tables(
            transition=anp.reshape(moved, (pairs, actions, pairs)),
            reward_follower=game.reward_follower.reshape(pairs, actions),
            reward_leader=game.reward_leader.reshape(pairs, actions),
            initial=anp.reshape(initial[:, None] * policy, (pairs,)),
            regulariser=game.regulariser_of(theta),
        )

    def not_seeing(theta: object) -> Tables:
        policy = policy_at(theta)
        return Tables(
            transition=anp.einsum("sl,slat->sat", policy, kernel),
            reward_follower=anp.einsum("sl,sla->sa", policy, game.reward_follower),
            reward_leader=anp.einsum("sl,sla->sa", policy, game.reward_leader),
            initial=initial,
            regulariser=game.regulariser_of(theta),
        )

    return ConfigurableMDP(
        tables=seeing if game.follower_sees_leader_action else not_seeing,
        discount_leader=game.discount_leader,
        discount_follower=game.discount_follower,
        temperature=game.temperature,
        theta_shape=game.theta_shape,
        verify_derivatives=game.verify_derivatives,
        name=f"{game.name}, as a configurable MDP",
    )
