"""SARSA(λ) and expected SARSA(λ) for the leader's action values, beside the one-step `SarsaCritic`.

One pass visits each stream backwards in time and moves every visited entry towards its λ-return,

    Q(s_t, a_t) ← Q(s_t, a_t) + α [ G^λ_t - Q(s_t, a_t) ],                                                           (1)
    G^λ_t = r_L + γ_L [ (1-λ) Q̄_{t+1} + λ G^λ_{t+1} ],                                                              (2)

with Q̄_{t+1} = Q(s_{t+1}, a_{t+1}), or Σ_a π(a|s_{t+1}) Q(s_{t+1}, a) for expected SARSA. λ = 0 is `sarsa_pass` in the
reversed order of time; λ = 1 regresses on the observed returns. Reference: Rummery & Niranjan (1994); van Seijen et al.
(2009).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.critics.sarsa import SarsaCritic
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.sums.lambda_returns import check_trace_decay, followed, lambda_pass
from bilevelrl.reference.arrays import IntArray
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError

__all__ = ["SarsaLambdaCritic"]


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class SarsaLambdaCritic(SarsaCritic):
    """Leader's values as a table learnt by SARSA(λ); see `SarsaCritic` for what is not listed here.

    Parameters
    ----------
    trace_decay : float
        λ in [0, 1].
    expected : bool
        Bootstrap from the policy's average in place of the action that was taken.

    Raises
    ------
    InvalidInputError, ShapeError
        As `SarsaCritic`, or if λ is out of range.

    Examples
    --------
    >>> critic = SarsaLambdaCritic(
    ...     table=np.zeros((2, 1)), policy=np.ones((2, 1)), discount_leader=0.5, step_size=1.0, trace_decay=1.0)
    >>> path = Trajectories(
    ...     state_t=np.array([[0, 1]]), action_t=np.array([[0, 0]]), state_tp1=np.array([[1, 2]]),
    ...     reward_leader_t=np.array([[1.0, 4.0]]), terminated=np.array([[False, True]]),
    ...     truncated=np.array([[False, False]]), time_in_episode=np.array([[0, 1]]),
    ...     valid=np.array([[True, True]]), behaviour_log_prob=np.zeros((1, 2)))
    >>> critic.updated(path).table.ravel()
    array([3., 4.])
    """

    trace_decay: float = 0.9
    expected: bool = False

    def __post_init__(self) -> None:
        SarsaCritic.__post_init__(self)  # a slotted class is made anew, and `super()` would look for the old one
        check_trace_decay(self.trace_decay)

    @checked
    def updated(
        self, trajectories: Trajectories, *, rng: Generator | None = None, order: IntArray | None = None
    ) -> SarsaLambdaCritic:
        """Return the critic after one pass over a batch, each stream backwards in time.

        Parameters
        ----------
        trajectories
            The batch; padding is skipped.
        rng
            Not used; for one way to call all critics.
        order
            Refused: returns of several steps have an order of their own.

        Raises
        ------
        InvalidInputError
            If an order is given.
        """
        if order is not None:
            raise InvalidInputError("order: expected None; λ-returns are passed backwards in time")
        states, actions = self.table.shape
        trajectories.check_states(states, actions)
        goes_on = followed(trajectories)
        after = np.where(trajectories.valid & ~trajectories.terminated, trajectories.state_tp1, states)
        if self.truncation == "cut":
            after = np.where(goes_on, after, states)
        alive, inside = after < states, np.where(after < states, after, 0)
        weight = np.where(alive[..., None], self.policy[inside], 0.0)
        if not self.expected:
            then = np.roll(trajectories.action_t, -1, axis=1)
            weight = np.where((goes_on & alive)[..., None], np.eye(actions)[then], weight)
        learnt = lambda_pass(  # (1), (2)
            self.table.reshape(-1, 1),
            trajectories,
            place=trajectories.state_t * actions + trajectories.action_t,
            increments=np.asarray(trajectories.reward_leader_t, dtype=np.float64)[..., None],
            ahead_place=inside[..., None] * actions + np.arange(actions),
            ahead_weight=weight,
            discount=self.discount_leader,
            trace_decay=self.trace_decay,
            step_size=self.step_size,
        )
        return replace(self, table=learnt.reshape(states, actions))
