"""The guiding term of configurable LQRs as a covariance in closed form, at every visited state.

The policy is known and Gaussian, and critics of Q_L and ∇Q_F are quadratic in state and action, so that nothing of

    (1/β) Cov_{a ~ π(x)}[ Q_L(x, a), ∇Q_F(x, a) ]
        = (1/β) [ 4 x'(J_ax - J_aa K)' Σ (G_ax - G_aa K) x + 2 tr(J_aa Σ G_aa Σ) ]                                   (1)

has to be sampled: one covariance takes the place of the product of a benefit with a sum of scores, whose spread is
10^4 times its mean on the building. What is left of the variance are the visited states, and the critics.

It is biased by nothing but its critics: with the exact ones it is, given the visited states, exactly the sum of their
covariances. Least squares on quadratic features has no error of approximation, and its error falls as one over the root
of the number of samples; the critics and the visited states are of the same batch, a bias of second order in that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bilevelrl.estimators.critics.quadratic import QuadraticCritic
from bilevelrl.estimators.critics.quadratic_gradients import QuadraticGradientCritic, gradient_critic
from bilevelrl.estimators.estimator import Context, Contribution, EstimatorEntry
from bilevelrl.estimators.expectations.linear_quadratic import policy_covariance, quadratic_critic_expectation
from bilevelrl.estimators.methods.pathwise import PathwiseBCHG
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.terms.along_trajectories import exact_critic_kind
from bilevelrl.reference import ConfigurableLQR
from bilevelrl.reference.arrays import FloatArray, IntArray
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import EstimatorError, InvalidInputError, UnsupportedError
from bilevelrl.reference.problem import Part

__all__ = ["PolicyCovariance"]


@checked
@dataclass(frozen=True, kw_only=True)
class PolicyCovariance(PathwiseBCHG):
    """Theorem 1 (5) of arXiv:2603.14867 with the covariance over the follower's policy in closed form.

    Beside samples it needs the follower's policy and V_F, the derivatives of the dynamics (the paper's Assumption 1),
    and quadratic critics: `context.critic`, and `context.follower_gradient` or else the exact one.

    Parameters
    ----------
    target, critic, normalisation
        As in `BCHG`; the critic must be quadratic, and streams end where they end: no geometric stopping.

    Raises
    ------
    UnknownNameError, InvalidInputError
        As `BCHG`.

    Examples
    --------
    >>> from bilevelrl.reference import solve_follower
    >>> from bilevelrl.tasks import random_lqr
    >>> problem, theta = random_lqr(seed=0), np.zeros(3)
    >>> context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    >>> batch = PolicyCovariance().sample(
    ...     problem, theta, context.follower, streams=500, steps=40, rng=np.random.default_rng(0))
    >>> closed, sampled = (estimator.parts_per_draw(batch, context)["response"].std(axis=0) for estimator in (
    ...     PolicyCovariance(), PathwiseBCHG()))
    >>> bool((closed < 0.5 * sampled).all())
    True
    """

    name: str = field(default="policy covariance")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stopping is not None:
            raise InvalidInputError(f"stopping={self.stopping!r}: expected None; nothing is left that stopping mends")

    def _critics(self, context: Context) -> tuple[QuadraticCritic, QuadraticGradientCritic]:
        gradient, leader = gradient_critic(self.name, context), self.leader_critic(context)
        if not isinstance(leader, QuadraticCritic) or not isinstance(gradient, QuadraticGradientCritic):
            raise UnsupportedError(
                f"{self.name}: critics of types {type(leader).__name__} and {type(gradient).__name__}: expected a "
                "QuadraticCritic and a QuadraticGradientCritic; other critics have no covariance in closed form"
            )
        return leader, gradient

    @checked
    def contributions(self, trajectories: Trajectories, context: Context) -> Sequence[Contribution]:
        """Return the leader's terms of pathwise BC-HG, and the covariances."""
        leader, gradient = self._critics(context)
        items = self.partial_contributions(trajectories, context, leader)
        weight = self.scale(trajectories) * self.leader_weight(trajectories, context) / context.problem.temperature
        if len(leader.matrices) == 1:
            moments = np.matmul(np.swapaxes(trajectories.state_t * weight[..., None], 1, 2), trajectories.state_t)
            rows = policy_covariance(  # (1)
                context.follower, leader.matrices[-1], gradient.matrices, moments, weight.sum(axis=1)
            )
        else:
            rows = np.zeros((trajectories.streams, context.theta.size))
            to_go = self.steps_to_go(trajectories)
            for left in np.unique(to_go):
                at = to_go == left
                some = np.flatnonzero(at.any(axis=0))  # in single episodes one step
                now, state = np.where(at[:, some], weight[:, some], 0.0), trajectories.state_t[:, some]
                moments = np.matmul(np.swapaxes(state * now[..., None], 1, 2), state)
                rows += policy_covariance(  # (1)
                    context.follower, leader.matrices[leader.row(left)], gradient.matrices, moments, now.sum(axis=1)
                )
        return [*items, Contribution(part="response", batch=trajectories, weights={}, rows=rows)]

    @checked
    def steps_to_go(self, trajectories: Trajectories) -> IntArray:
        """Return (streams, steps): what the target's horizon leaves."""
        assert self.target.horizon is not None  # critics by steps to go come with a horizon
        left: IntArray = np.maximum(self.target.horizon - trajectories.time_in_episode, 0)
        return left

    @checked
    def conditional_moments(self, trajectories: Trajectories, context: Context) -> tuple[FloatArray, FloatArray]:
        """Refuse: nothing is random given the trajectories.

        Raises
        ------
        EstimatorError
            Always.
        """
        raise EstimatorError(f"{self.name}: nothing is random given the trajectories; expected a direct call")

    @checked
    def expectation(self, context: Context, *, horizon: int) -> Mapping[Part, FloatArray]:
        """Return the exact expectation for streams of `horizon` steps, given the critics.

        Raises
        ------
        EstimatorError
            For averages inside a batch.
        """
        leader, gradient = self._critics(context)
        return quadratic_critic_expectation(self, context, leader, gradient.matrices, horizon)


CONFIGURATIONS = (
    EstimatorEntry(
        kinds=(ConfigurableLQR,),
        name="policy_covariance",
        summary="BC-HG with the covariance over the follower's policy in closed form, from exact quadratic critics",
        level="formula",
        make=lambda target: PolicyCovariance(target=target, critic=exact_critic_kind(target)),
    ),
)
