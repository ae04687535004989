"""The total derivative from samples: an inverse Hessian through the follower's softmax logits.

As in the Stackelberg actor-critic and ST-MADDPG, the response is `-∂_φ J (∂²_φφ F)^{-1} ∂²_φθ F` with φ one logit per
decision point of the follower and action. All three factors are sums over visits of the follower's scores `e_a - g`,

    ∂_φ J ≈ Σ γ_L^t B (e_a - g),                                                                                     (1)
    ∂²_φφ F ≈ -β Σ γ_F^t (e_a - g)(e_a - g)ᵀ,                                                                        (2)
    ∂²_φθ F ≈ Σ γ_F^t (e_a - g) ∇Q_Fᵀ                                                                                (3)

with ∇Q_F from the rest of the trajectory, as in BC-HG. The Hessian is block diagonal and singular (a softmax does not
feel a constant); it is inverted by least squares, which also leaves out what the batch never visited.

Where a table serves as critic, `B = (e_a - g)·Q_L`, so that the inverse of the batch's Hessian meets itself: if every
decision point is visited at one time only, or γ_L = γ_F, what remains is BC-HG to the last digit. Otherwise a benefit
counts with its weights averaged over the times of its point's visits: a ratio, biased at every finite batch, and
consistent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from bilevelrl.estimators.estimator import Claim, Context, Contribution, Draw, EstimatorEntry
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.sums.traces import discount_powers, forward_trace
from bilevelrl.estimators.terms.along_trajectories import AlongTrajectories, exact_critic_kind
from bilevelrl.estimators.terms.answers import follower_terms
from bilevelrl.reference import MarkovGame
from bilevelrl.reference.arrays import FloatArray, IntArray
from bilevelrl.reference.doors import NonNegative, checked
from bilevelrl.reference.errors import InvalidInputError

__all__ = ["TotalDerivative"]


@checked
@dataclass(frozen=True, kw_only=True)
class TotalDerivative(AlongTrajectories):
    """Total derivative through the follower's logits, with the Hessian of the batch inverted by least squares.

    Parameters
    ----------
    target, critic, baseline, behaviour_theta
        As in `AlongTrajectories`; there is no geometric stopping.
    damping
        Added to minus the Hessian, relative to its largest entry; regularises the inverse, as in published methods.

    Raises
    ------
    UnknownNameError, InvalidInputError
        As `AlongTrajectories`, or if the damping is negative.

    Examples
    --------
    >>> from bilevelrl.estimators import sample_trajectories
    >>> from bilevelrl.reference import solve_follower
    >>> from bilevelrl.tasks.generators import layered_markov_game
    >>> game, theta = layered_markov_game(), np.zeros(4)
    >>> context = Context(problem=game, theta=theta, follower=solve_follower(game, theta))
    >>> batch = sample_trajectories(
    ...     game, theta, context.follower, streams=50, steps=2, rng=np.random.default_rng(0))
    >>> TotalDerivative().estimate(batch, context).mean.shape
    (4,)
    """

    damping: NonNegative = 0.0
    kinds: ClassVar[tuple[type, ...]] = (MarkovGame,)
    name: str = field(default="total derivative")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stopping is not None:
            raise InvalidInputError("stopping: expected None; ratios over a batch would bring a bias back")
        object.__setattr__(self, "draw", Draw.BATCH)
        object.__setattr__(self, "claim", Claim.MEASURED)

    @checked
    def contributions(self, trajectories: Trajectories, context: Context) -> Sequence[Contribution]:
        """Return the weights of the leader's own term and of the response through the inverse Hessian."""
        game, reading = context.problem, self.read(trajectories, context)
        benefit = reading.benefit_t
        state = np.where(trajectories.valid, trajectories.state_t, 0)
        point = (
            state * game.leader_actions + trajectories.leader_action_t if game.follower_sees_leader_action else state
        )
        follower_weight = discount_powers(trajectories, game.discount_follower)
        leader_weight = self.leader_weight(trajectories, context)
        visited = trajectories.valid
        response = context.follower.response.reshape(-1, game.actions)
        scores = np.eye(game.actions)[trajectories.action_t] - response[point]
        direction = self._solved(
            point[visited],
            scores[visited],
            follower_weight[visited],
            (leader_weight * benefit)[visited],
            response.shape,
        )
        # The response is Σ_visits (scores · y) times ∇Q_F: scalars again.
        impulses = follower_weight * (scores * direction[point]).sum(axis=2) / game.temperature  # (3)
        trace = forward_trace(trajectories, impulses, game.discount_follower)
        first, steps = follower_terms(context, trajectories)
        if first == 1:
            trace = np.where(visited, trace - impulses, 0.0)
        (own,) = self.partial_gradient(trajectories, context, reading)
        share = 1.0 / trajectories.streams
        return [
            Contribution(part="policy", batch=trajectories, weights={t: share * w for t, w in own.weights.items()}),
            Contribution(
                part="response", batch=trajectories, weights={t: share * trace * unit for t, unit in steps.items()}
            ),
        ]

    @checked
    def scale(self, trajectories: Trajectories) -> float:
        """Return 1: the average over streams comes last."""
        return 1.0

    def _solved(
        self,
        point: IntArray,
        scores: FloatArray,
        follower_weight: FloatArray,
        leader_weight: FloatArray,
        shape: tuple[int, ...],
    ) -> FloatArray:
        """Return minus β times the inverse Hessian applied to ∂_φ J, one row per decision point."""
        fisher = np.zeros((*shape, shape[1]))
        np.add.at(fisher, point, follower_weight[:, None, None] * scores[:, :, None] * scores[:, None, :])  # (2)
        gradient = np.zeros(shape)
        np.add.at(gradient, point, leader_weight[:, None] * scores)  # (1)
        fisher += self.damping * float(np.abs(fisher).max(initial=0.0)) * np.eye(shape[1])
        solved: FloatArray = np.matmul(np.linalg.pinv(fisher, rcond=1e-12, hermitian=True), gradient[:, :, None])[
            :, :, 0
        ]
        return solved


CONFIGURATIONS = (
    EstimatorEntry(
        kinds=(MarkovGame,),
        name="total_derivative",
        summary="inverse Hessian of the batch through the follower's logits",
        level="practical",
        make=lambda target: TotalDerivative(target=target, critic=exact_critic_kind(target)),
    ),
)
