"""A Markov game seen from outside: one process whose action is the pair of both players' actions.

With joint actions numbered `leader_action · A + action` and played with `f_θ(l|s) g(a|s,l)`, a game is an ordinary
tabular process. So the sampler and the enumeration of trajectories need to know nothing else about games; what they
record is split into the two actions afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.reference import ConfigurableMDP, MarkovGame, Tables
from bilevelrl.reference.arrays import FloatArray, check_array, check_shape

__all__ = ["JointProcess", "joint_mdp"]


def joint_mdp(game: MarkovGame) -> ConfigurableMDP:
    """Return the process of joint actions, (S, L·A), whose tables do not depend on θ.

    Examples
    --------
    >>> from bilevelrl.tasks import toy_markov_game
    >>> joint_mdp(toy_markov_game()).tables_at(np.zeros(3)).actions
    6
    """
    states, leader_actions, actions = game.reward_leader.shape
    pairs = (states, leader_actions * actions)
    tables = Tables(
        transition=game.transition.reshape(*pairs, states),
        reward_follower=game.reward_follower.reshape(pairs),
        reward_leader=game.reward_leader.reshape(pairs),
        initial=game.initial,
    )
    return ConfigurableMDP(
        tables=lambda theta: tables,
        discount_leader=game.discount_leader,
        discount_follower=game.discount_follower,
        temperature=game.temperature,
        theta_shape=game.theta_shape,
        name=f"{game.name}, joint actions",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class JointProcess:
    """A game's process of joint actions under both players' policies.

    Attributes
    ----------
    process : ConfigurableMDP
        Its tables.
    policy : (S, L·A)
        f g.
    response : (S, L, A)
        g.
    """

    process: ConfigurableMDP
    policy: FloatArray
    response: FloatArray

    @classmethod
    def of(cls, game: MarkovGame, theta: Any, follower: Any) -> JointProcess:
        """Build it from a follower's solution, or a response (S, L, A), and the leader's policy at θ.

        Raises
        ------
        ShapeError
            If the response does not fit the game.
        """
        response = check_array("follower", getattr(follower, "policy", follower))
        check_shape("follower", response, game.reward_leader.shape, "pass a response (S, L, A), or solve it anew")
        joint = game.policy_at(theta)[:, :, None] * response
        return cls(process=joint_mdp(game), policy=joint.reshape(game.states, -1), response=response)

    def split(self, batch: Trajectories) -> Trajectories:
        """Return trajectories of joint actions with the two players' actions apart."""
        actions = self.response.shape[2]
        leader_action_t, action_t = np.divmod(np.asarray(batch.action_t), actions)
        with np.errstate(divide="ignore"):
            chosen = np.log(self.response)[np.where(batch.valid, batch.state_t, 0), leader_action_t, action_t]
        # A first action that was given had log-probability zero, and keeps it.
        drawn = batch.valid & (batch.behaviour_log_prob != 0.0)
        return replace(
            batch,
            leader_action_t=leader_action_t,
            action_t=action_t,
            behaviour_log_prob=np.where(drawn, chosen, 0.0),
        )
