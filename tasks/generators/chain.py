"""A corridor with near-deterministic moves, where information travels slowly and discounts are long."""

from __future__ import annotations

from typing import Any

import autograd.numpy as anp
import numpy as np

from bilevelrl.reference import ConfigurableMDP, Tables
from bilevelrl.reference.derivatives import sigmoid
from bilevelrl.reference.doors import Count, Probability, checked
from bilevelrl.reference.storage import remade
from bilevelrl.tasks.registry import register_task

__all__ = ["chain"]


@register_task("chain", "a long corridor with near-deterministic moves: information travels slowly")
@remade
@checked
def chain(
    *,
    states: Count = 20,
    slip: Probability = 0.02,
    toll: Probability = 0.5,
    temperature: float = 0.5,
    discount_leader: float = 0.97,
    discount_follower: float = 0.99,
) -> ConfigurableMDP:
    """Return a corridor: the follower walks to the prize at its right end, the leader takes tolls on the way.

    Two actions, left and right; a move slips to the other side with probability `slip` at θ = 0. The follower starts at
    the left end, pays `toll · sigmoid(θ_s)` in state s and earns 1 per step in the last state. The leader receives the
    toll and half a unit per step in the first state. The last entry of θ shifts the logit of slipping.

    Parameters
    ----------
    states
        Length of the corridor; θ has one entry more.
    slip
        In [0, 1]; at 0 and at 1 the moves are deterministic and do not depend on θ.
    toll
        Largest toll.
    temperature, discount_leader, discount_follower
        β, γ_L and γ_F.

    Raises
    ------
    InvalidInputError
        If a number is out of range.

    Examples
    --------
    >>> from bilevelrl.reference import solve_follower
    >>> solve_follower(chain(states=5), np.zeros(6)).policy.argmax(axis=1)
    array([1, 1, 1, 1, 1])
    """
    position = np.arange(states)
    moves = np.zeros((2, states, states))
    moves[0, position, np.maximum(position - 1, 0)] = 1.0
    moves[1, position, np.minimum(position + 1, states - 1)] = 1.0
    intended, slipped = moves.transpose(1, 0, 2), moves[::-1].transpose(1, 0, 2)
    first, last = (position == 0).astype(np.float64), (position == states - 1).astype(np.float64)
    any_action = np.ones((1, 2))
    fixed = slip == 0.0 or slip == 1.0
    constant = (1.0 - slip) * intended + slip * slipped
    constant.setflags(write=False)

    def tables(theta: Any) -> Tables:
        taken = toll * sigmoid(theta[:-1])
        kernel = constant
        if not fixed:
            slips = sigmoid(np.log(slip) - np.log1p(-slip) + theta[-1])
            kernel = intended + slips * (slipped - intended)
        return Tables(
            transition=kernel,
            reward_follower=anp.reshape(last - taken, (-1, 1)) * any_action,
            reward_leader=anp.reshape(0.5 * first + taken, (-1, 1)) * any_action,
            initial=first,
        )

    return ConfigurableMDP(
        tables=tables,
        discount_leader=discount_leader,
        discount_follower=discount_follower,
        temperature=temperature,
        theta_shape=(states + 1,),
        name=f"chain({states}, slip={slip:g})",
    )
