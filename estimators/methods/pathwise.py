"""BC-HG with pathwise derivatives of the dynamics in place of scores.

For Gaussian transitions `x' = μ + W^{1/2} ε` and a smooth value V,

    E[ V(x') ∇log P(x'|x, a) ]  =  E[ ∇V(x')' (∇μ + ½ ∇W W^{-1} (x' - μ)) ],                                         (1)

the same mean from a gradient of V instead of its level. Scores grow as the noise shrinks, gradients do not; but the
dynamics and the gradient of the values must be known, not only samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from bilevelrl.estimators.critics.quadratic import QuadraticCritic
from bilevelrl.estimators.estimator import Context, Contribution, EstimatorEntry
from bilevelrl.estimators.methods.bchg import BCHG
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.terms.along_trajectories import exact_critic_kind
from bilevelrl.reference import ConfigurableLQR
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, UnsupportedError

__all__ = ["PathwiseBCHG"]


@checked
@dataclass(frozen=True, kw_only=True)
class PathwiseBCHG(BCHG):
    """BC-HG on configurable LQRs with pathwise transition derivatives, of the leader's and the follower's values.

    Parameters
    ----------
    target, critic, stopping, normalisation
        As in `BCHG`; the critic must be quadratic. `scores` does not matter.

    Raises
    ------
    UnknownNameError, InvalidInputError
        As `BCHG`.

    Examples
    --------
    >>> from bilevelrl.estimators import Objective
    >>> from bilevelrl.reference import solve_follower
    >>> from bilevelrl.tasks import random_lqr
    >>> problem, theta = random_lqr(seed=0), np.zeros(3)
    >>> context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    >>> rng = np.random.default_rng(0)
    >>> batch = PathwiseBCHG().sample(problem, theta, context.follower, streams=500, steps=40, rng=rng)
    >>> smooth, scored = (estimator(batch, context).std(axis=0) for estimator in (PathwiseBCHG(), BCHG()))
    >>> bool((smooth < 0.5 * scored).all())
    True
    """

    kinds: ClassVar[tuple[type, ...]] = (ConfigurableLQR,)
    name: str = field(default="BC-HG (pathwise)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.largest_score is not None:
            raise InvalidInputError(f"largest_score={self.largest_score!r}: expected None; there are no scores here")

    @checked
    def contributions(self, trajectories: Trajectories, context: Context) -> Sequence[Contribution]:
        """Return the weights of BC-HG with every score of a transition replaced.

        Raises
        ------
        UnsupportedError
            If the problem is not a configurable LQR, or the critic not quadratic.
        """
        critic = self._quadratic_critic(context)
        trajectories = self.stopped(trajectories, context)
        items = self.partial_contributions(trajectories, context, critic)
        guiding = self._guiding_term(trajectories, context, self.read(trajectories, context).benefit_t)
        trace = guiding.weights["reward_follower"]
        gradient = -2.0 * context.problem.discount_follower * trajectories.state_tp1 @ context.follower.cost_to_go
        return [
            *items,
            Contribution(
                part="response",
                batch=trajectories,
                weights={"reward_follower": trace, "path_transition": trace[..., None] * gradient},  # (1)
            ),
        ]

    @checked
    def partial_contributions(
        self, trajectories: Trajectories, context: Context, critic: QuadraticCritic
    ) -> list[Contribution]:
        """Return the leader's own terms, its values ahead differentiated along the path."""
        horizon, time = self.target.horizon, trajectories.time_in_episode
        weight = self.scale(trajectories) * self.leader_weight(trajectories, context)
        to_go = None if horizon is None else np.maximum(horizon - time, 0)
        after = None if to_go is None else np.maximum(to_go - 1, 0)
        leader_matrix = critic.state_matrix(after)
        gradient = -2.0 * np.matmul(leader_matrix, trajectories.state_tp1[..., None])[..., 0]
        moved = (weight * self.target.discount(context.problem.discount_leader))[..., None] * gradient
        starts = trajectories.episode_starts
        value = critic.value(trajectories.state_t, steps_to_go=to_go)
        first = np.where(starts, self.scale(trajectories) * value, 0.0)
        return [
            Contribution(part="initial", batch=trajectories, weights={"log_initial": first}),
            Contribution(part="direct", batch=trajectories, weights={"reward_leader": weight}),
            Contribution(part="transition", batch=trajectories, weights={"path_transition": moved}),
        ]

    def _quadratic_critic(self, context: Context) -> QuadraticCritic:
        if not isinstance(context.problem, ConfigurableLQR):
            raise UnsupportedError(f"{self.name}: expected a ConfigurableLQR; tables have no pathwise derivatives")
        critic = self.leader_critic(context)
        if not isinstance(critic, QuadraticCritic):
            raise UnsupportedError(f"{self.name}: critic of type {type(critic).__name__}: expected a QuadraticCritic")
        return critic


CONFIGURATIONS = (
    EstimatorEntry(
        kinds=(ConfigurableLQR,),
        name="pathwise_bc_hg",
        summary="BC-HG with the dynamics' derivatives along the path in place of scores, with the exact critic",
        level="formula",
        make=lambda target: PathwiseBCHG(target=target, critic=exact_critic_kind(target)),
    ),
)
