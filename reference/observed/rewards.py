"""Maximum-causal-entropy rewards: what makes a policy soft-optimal, and all that actions say of it.

A policy π with no zero is soft-optimal for exactly the rewards

    r(s,a) = β log π(a|s) + V(s) - γ_F Σ_s' P(s'|s,a) V(s'),      V any function of the state,                      (1)

and V is then the follower's value: its actions say nothing of V. Changing V by φ is shaping, `r + γ_F P φ - φ` with the
sign turned, which leaves π where it is. What a leader can know of ∇Q_F from actions follows:

- ∇r_F is the leader's own where it sets the rewards; then V is the policy's value under them and nothing is left open.
- The weight w of the response part, (2) of `reference.tabular.linearise`, needs π, P and the benefit alone: identified.
- The score term `γ_F Σ w V(s') ∇P` needs V: where θ moves the dynamics and r_F is known by actions alone, it moves
  with φ by `γ_F Σ w φ(s') ∇P`.
"""

from __future__ import annotations

import numpy as np

from bilevelrl.reference.arrays import FloatArray, check_array, check_shape
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import SupportError, refusal
from bilevelrl.reference.tabular import check_rows, expected_next
from bilevelrl.reference.tabular.model import ConfigurableMDP

__all__ = ["reward_of_policy"]


@checked
def reward_of_policy(problem: ConfigurableMDP, theta: object, policy: object, *, value: object = None) -> FloatArray:
    """Return the follower's rewards (S, A) under which a policy is soft-optimal with given values: (1).

    Parameters
    ----------
    problem, theta
        Whose transitions, discount and temperature the follower meets; its own rewards are not read.
    policy : (S, A)
        Observed, every action with a probability.
    value : (S,)
        What the follower's states are worth, which no action tells; None: zeros.

    Raises
    ------
    SupportError
        If an action has no probability: its reward is then only known to be low.
    ShapeError, StochasticityError
        If policy or values are none of this problem.

    Examples
    --------
    >>> from bilevelrl.reference import solve_follower
    >>> from bilevelrl.tasks import random_mdp
    >>> problem, theta = random_mdp(seed=0), np.zeros(3)
    >>> seen = solve_follower(problem, theta)
    >>> known = reward_of_policy(problem, theta, seen.policy, value=seen.value)
    >>> bool(np.allclose(known, problem.tables_at(theta).reward_follower, atol=1e-12))
    True
    """
    tables = problem.at(theta).tables
    played = np.asarray(check_array("policy", policy, dtype=np.float64, finite=True))
    check_shape("policy", played, (tables.states, tables.actions), "one probability for each state and action")
    check_rows("policy", played, "normalise its rows")
    worth = (
        np.zeros(tables.states)
        if value is None
        else np.asarray(check_array("value", value, dtype=np.float64, finite=True))
    )
    check_shape("value", worth, (tables.states,), "one for each state")
    if not played.all():
        index = [int(i) for i in np.argwhere(played == 0.0)[0]]
        remedy = "observe longer, or use policy_from_counts(..., prior=1.0)"
        raise SupportError(
            refusal(f"policy{index}", 0.0, "a probability above 0: no finite reward explains it", remedy)
        )
    ahead = problem.discount_follower * expected_next(tables.transition, worth)
    result: FloatArray = problem.temperature * np.log(played) + worth[:, None] - ahead  # (1)
    return result
