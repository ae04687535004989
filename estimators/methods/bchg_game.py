"""BC-HG in two-player Markov games: the Boltzmann covariance hypergradient from one action of each player per state.

The guiding term of Theorem 2 is `(1/β) E[B ∇Q_F]`, with ∇Q_F from the rest of the same trajectory. If the follower sees
the leader's action, only later leader actions can change what it does now, and each is worth V_F to it,

    (1/β) Σ_t γ_L^t B(s_t, l_t, a_t) Σ_{k>t} γ_F^{k-t} ∇log f(l_k|s_k) [V_F(s_k, l_k) - Σ_l f V_F(s_k, l)].

If it does not, it averages over the leader's present action too, and each is worth Q_F to it,

    (1/β) Σ_t γ_L^t B̄(s_t, a_t) Σ_{k≥t} γ_F^{k-t} ∇log f(l_k|s_k) [Q_F(s_k, l_k, a_k) - Σ_l f Q_F(s_k, l, a_k)].

Both brackets subtract a function that does not depend on l_k, which changes the variance and not the mean. As traces,
`e_k = γ_F e_{k-1} + γ_L^k B_k`, both are one pass of scalars and one vector-Jacobian product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from bilevelrl.estimators.critics.gaussian_game import lqr_follower_influence
from bilevelrl.estimators.estimator import Context, Contribution, EstimatorEntry
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.sums.traces import forward_trace, windowed_trace
from bilevelrl.estimators.terms.joint_leader import GameSide
from bilevelrl.reference import LQRGame, MarkovGame
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked
from bilevelrl.reference.problem import Part

__all__ = ["BCHGGame", "follower_influence"]


def follower_influence(context: Context, *, centred: bool = True) -> FloatArray:
    """Return what a leader action is worth to the follower, (S, L, A): V_F(s, l) if it sees it, else Q_F(s, l, a).

    Parameters
    ----------
    context
        Game, θ and follower.
    centred
        Subtract the mean over the leader's actions.
    """
    follower, policy = context.follower, context.problem.policy_at(context.theta)
    if context.problem.follower_sees_leader_action:
        worth = np.broadcast_to(follower.value[:, :, None], follower.policy.shape)
    else:
        worth = follower.action_value
    if not centred:
        return worth
    result: FloatArray = worth - np.einsum("sl,sla->sa", policy, worth)[:, None]
    return result


@checked
@dataclass(frozen=True, kw_only=True)
class BCHGGame(GameSide):
    """Boltzmann covariance hypergradient in a Markov game (arXiv:2603.14867, Theorem 2 (8)-(9)).

    With the exact critic it is unbiased for every stream that sees its episode end, or that stops at geometric times.

    Parameters
    ----------
    target, stopping, critic, baseline, behaviour_theta
        As in `GameSide`.
    influence_baseline
        Subtract the mean over the leader's actions from what each is worth to the follower.
    same_step
        Let the inner sum of a seeing follower start at k = t, as the published runs do: mean zero if the benefit has
        mean zero under the follower's policy, and more variance. A follower that does not see always starts there.

    Raises
    ------
    UnknownNameError, InvalidInputError
        As `GameSide`.

    Examples
    --------
    >>> from bilevelrl.estimators import Context
    >>> from bilevelrl.reference import hypergradient, solve_follower
    >>> from bilevelrl.tasks.generators.random_games import layered_markov_game
    >>> game, theta = layered_markov_game(), np.zeros(4)
    >>> context = Context(problem=game, theta=theta, follower=solve_follower(game, theta))
    >>> expected = sum(BCHGGame().expectation(context, horizon=2).values())
    >>> bool(np.allclose(expected, hypergradient(game, theta).value, rtol=1e-12))
    True
    """

    continuous: ClassVar[bool] = True
    influence_baseline: bool = True
    same_step: bool = False
    name: str = field(default="BC-HG (game)")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._claim(biased=False)

    @checked
    def contributions(self, trajectories: Trajectories, context: Context) -> Sequence[Contribution]:
        """Return the weights of the leader's own term and of the guiding term."""
        game = self.game(trajectories, context)
        trajectories = self.stopped(trajectories, context)
        critic = self.leader_critic(context)
        benefit = self.benefit_t(critic, trajectories)
        impulses = self.leader_weight(trajectories, context) * benefit / game.temperature
        if self.stopping is not None:
            assert trajectories.stopping is not None
            trace = windowed_trace(trajectories, impulses, trajectories.stopping[:, 1])
        else:
            trace = forward_trace(trajectories, impulses, game.discount_follower)
        if self._first(context) == 1:
            trace = np.where(trajectories.valid, trace - impulses, 0.0)
        if isinstance(game, LQRGame):
            worth = lqr_follower_influence(context, trajectories, centred=self.influence_baseline)
        else:
            influence = follower_influence(context, centred=self.influence_baseline)
            state = np.where(trajectories.valid, trajectories.state_t, 0)
            worth = influence[state, trajectories.leader_action_t, trajectories.action_t]
        guiding = Contribution(part="response", batch=trajectories, weights={"log_policy_leader": trace * worth})
        return [self.policy_term(trajectories, context, critic), guiding]

    @checked
    def expectation(self, context: Context, *, horizon: int) -> Mapping[Part, FloatArray]:
        """Return the exact expectation for streams of `horizon` steps; with stopping, whatever the horizon."""
        self.game(None, context)
        tabular = not isinstance(context.problem, LQRGame)
        influence = follower_influence(context, centred=self.influence_baseline) if tabular else None
        return self.expected(context, horizon=horizon, influence=influence, first=self._first(context))

    def _first(self, context: Context) -> int:
        return 0 if self.same_step or not context.problem.follower_sees_leader_action else 1


CONFIGURATIONS = (
    EstimatorEntry(
        kinds=(MarkovGame, LQRGame),
        name="bc_hg_game",
        summary="BC-HG with the exact critic and the rest of the same trajectory",
        level="formula",
        make=lambda target: BCHGGame(target=target),
    ),
    EstimatorEntry(
        kinds=(MarkovGame,),
        name="bc_hg_game_geometric",
        summary="BC-HG stopped at geometric times, all leader steps up to τ: unbiased over an infinite horizon",
        level="formula",
        make=lambda target: BCHGGame(stopping="sum"),
    ),
    EstimatorEntry(
        kinds=(MarkovGame,),
        name="bc_hg_game_published",
        summary="BC-HG with the published baselines: at the follower's own action, and an inner sum from the same step",
        level="formula",
        make=lambda target: BCHGGame(target=target, baseline="action_dependent", same_step=True),
    ),
)
