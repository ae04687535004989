"""BC-HG: the Boltzmann covariance hypergradient from the leader's benefit and the rest of the same trajectory.

The guiding term of Theorems 1 and 2 is `(1/β) Cov_π[Q_L, ∇Q_F] = (1/β) E[B ∇Q_F]`, and ∇Q_F(s_t, a_t) is estimated by
what follows on the same trajectory,

    (1/β) Σ_t γ_L^t B(s_t, a_t) Σ_{k≥t} γ_F^{k-t} y_k,                                                              (1)

so one action of each player per state is enough and nobody has to reset anything. What a step y_k consists of, and
whether the inner sum starts at k = t or one step later, the kind of problem answers: in configurable problems it is
`∇r_F + γ_F V_F(s_{k+1}) ∇log P`, in games the score of the leader's action times what it is worth to the follower, from
the next step on where the follower sees it. The double sum is evaluated in trace form,

    Σ_k e_k y_k,      e_k = γ_F e_{k-1} + γ_L^k B_k / β:                                                             (2)

one pass of scalars, and one vector-Jacobian product for the mean, whatever the number of parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from bilevelrl.estimators.estimator import Context, Contribution, Draw, EstimatorEntry
from bilevelrl.estimators.expectations.along_trajectories import ExpectedAlongTrajectories
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.sums.traces import average_over_visits, forward_trace, windowed_trace
from bilevelrl.estimators.terms.along_trajectories import exact_critic_kind
from bilevelrl.estimators.terms.answers import Reading, follower_terms
from bilevelrl.reference import ConfigurableLQR, ConfigurableMDP, LQRGame, MarkovGame
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import EstimatorError, InvalidInputError

__all__ = ["BCHG"]


@checked
@dataclass(frozen=True, kw_only=True)
class BCHG(ExpectedAlongTrajectories):
    """Boltzmann covariance hypergradient (arXiv:2603.14867, Theorems 1 (5)-(6) and 2 (8)-(9)), of all kinds of problem.

    With exact or independent critics it is unbiased for every stream that sees its episode end, or that stops at
    geometric times. A stream cut at a horizon loses the part of ∇Q_F beyond the cut; `expectation` knows how much.

    Parameters
    ----------
    target, critic, stopping, normalisation, leader_average, scores, baseline, behaviour_theta
        As in `AlongTrajectories`.
    guiding_average
        "trajectory": ∇Q_F from the rest of the trajectory at each step. "pairs": from the average of that over all
        visits of the same state and action in the batch, as the published experiments do (a ratio). In configurable
        MDPs.
    influence_baseline
        In games: subtract the mean over the leader's actions from what each is worth to the follower. None: yes.
    same_step
        In games: let the inner sum of a seeing follower start at k = t, as the published runs do: mean zero if the
        benefit has mean zero under the follower's policy, and more variance.

    Raises
    ------
    UnknownNameError, InvalidInputError
        As `AlongTrajectories`.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevelrl.estimators import BCHG, Context, sample_trajectories
    >>> from bilevelrl.reference import hypergradient, solve_follower
    >>> from bilevelrl.tasks import layered_mdp
    >>> problem, theta = layered_mdp(seed=0), np.zeros(3)
    >>> context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    >>> batch = sample_trajectories(
    ...     problem, theta, context.follower, streams=100, steps=3, rng=np.random.default_rng(0))
    >>> BCHG().estimate(batch, context).mean.shape
    (3,)
    >>> expected = sum(BCHG().expectation(context, horizon=3).values())
    >>> bool(np.allclose(expected, hypergradient(problem, theta).value, rtol=1e-12))
    True
    """

    guiding: ClassVar[bool] = True
    guiding_average: Literal["trajectory", "pairs"] = "trajectory"
    influence_baseline: bool | None = None
    same_step: bool = False
    name: str = field(default="BC-HG")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.guiding_average == "pairs" and self.stopping is not None:
            raise InvalidInputError("guiding_average='pairs': expected stopping=None; averages in a batch are ratios")
        self._declare(biased=False, in_batch=self.guiding_average == "pairs")

    def _added_terms(self, trajectories: Trajectories, context: Context, reading: Reading) -> Sequence[Contribution]:
        return [self._guiding_term(trajectories, context, reading.benefit_t)]

    def _guiding_term(self, trajectories: Trajectories, context: Context, benefit_t: FloatArray) -> Contribution:
        weight = self.scale(trajectories) * self.leader_weight(trajectories, context)
        impulses = weight * benefit_t / context.problem.temperature
        trace = self._trace(trajectories, context, impulses)  # (2)
        centred = True if self.scores == "td_error" else self.influence_baseline
        first, steps = follower_terms(context, trajectories, centred=centred)
        if first == 1 and not self.same_step:
            trace = np.where(trajectories.valid, trace - impulses, 0.0)
        weights = {term: trace * unit for term, unit in steps.items()}
        return Contribution(part="response", batch=trajectories, weights=weights)

    @checked
    def conditional_moments(self, trajectories: Trajectories, context: Context) -> tuple[FloatArray, FloatArray]:
        """Return mean (M, N) and covariance (M, N, N) of each row given the trajectories.

        Fresh suffixes are drawn anew for every visited pair, so their variances add:
        `Σ_t Var(B̂_t) D_t D_tᵀ` with D_t what one unit of benefit at step t contributes.

        Raises
        ------
        EstimatorError
            For averages inside a batch, and where stopping times are still to be drawn.
        """
        if self.draw is Draw.BATCH or (self.stopping is not None and trajectories.stopping is None):
            raise EstimatorError(
                f"{self.name}: conditional moments need one row per trajectory, with its stopping times; "
                "draw trajectories by `sample`, and average streams, not visits"
            )
        trajectories = self.stopped(trajectories, context)
        reading, benefit, variance = self.benefit_moments(trajectories, context)
        problem, theta = context.problem, context.theta
        mean = np.repeat(problem.regulariser_gradient(theta)[None], trajectories.streams, axis=0)
        for item in [
            *self.partial_gradient(trajectories, context, reading),
            self._guiding_term(trajectories, context, benefit),
        ]:
            mean = mean + item.per_stream(context)
        covariance = np.zeros((*mean.shape, theta.size))
        for t in range(trajectories.steps if self.critic == "independent" else 0):
            unit = np.zeros(benefit.shape)
            unit[:, t] = 1.0
            item = self._guiding_term(trajectories, context, unit)
            rows = item.per_stream(context)
            covariance += variance[:, t, None, None] * rows[:, :, None] * rows[:, None, :]
        return mean, covariance

    def _trace(self, trajectories: Trajectories, context: Context, impulses: FloatArray) -> FloatArray:
        if self.stopping is not None:
            assert trajectories.stopping is not None
            return windowed_trace(trajectories, impulses, trajectories.stopping[:, 1])
        if self.guiding_average == "pairs":
            actions = context.follower.policy.shape[-1]
            pair = trajectories.state_t * actions + trajectories.action_t
            impulses = average_over_visits(impulses, pair, trajectories.valid)
        return forward_trace(trajectories, impulses, self.trace_discount(context))

    @checked
    def trace_discount(self, context: Context) -> float:
        """Return the discount of the trace: that of the sum over the suffix."""
        return float(context.problem.discount_follower)


CONFIGURATIONS = (
    EstimatorEntry(
        kinds=(ConfigurableMDP, ConfigurableLQR),
        name="bc_hg",
        summary="BC-HG with the exact critic and the rest of the same trajectory",
        level="formula",
        make=lambda target: BCHG(target=target, critic=exact_critic_kind(target)),
    ),
    EstimatorEntry(
        name="bc_hg_td",
        summary="BC-HG with scores weighted by temporal-difference errors: the same mean, another variance",
        level="formula",
        make=lambda target: BCHG(target=target, critic=exact_critic_kind(target), scores="td_error"),
    ),
    EstimatorEntry(
        name="bc_hg_monte_carlo",
        summary="BC-HG with the leader's return of the same suffix: samples used twice",
        level="formula",
        make=lambda target: BCHG(target=target, critic="monte_carlo"),
    ),
    EstimatorEntry(
        name="bc_hg_independent",
        summary="BC-HG with the leader's return of a fresh suffix from each visited pair",
        level="formula",
        make=lambda target: BCHG(target=target, critic="independent"),
    ),
    EstimatorEntry(
        kinds=(ConfigurableMDP, ConfigurableLQR),
        name="bc_hg_geometric",
        summary="BC-HG stopped at geometric times, all leader steps up to τ: unbiased over an infinite horizon",
        level="formula",
        make=lambda target: BCHG(stopping="sum"),
    ),
    EstimatorEntry(
        kinds=(ConfigurableMDP, ConfigurableLQR),
        name="bc_hg_geometric_single",
        summary="BC-HG stopped at geometric times, the leader step at τ alone: unbiased over an infinite horizon",
        level="formula",
        make=lambda target: BCHG(stopping="single"),
    ),
    EstimatorEntry(
        name="bc_hg_practical",
        summary="BC-HG as published experiments run it: a learned critic, averages over visits, finished episodes",
        level="practical",
        make=lambda target: BCHG(
            target=target,
            critic="context",
            normalisation="episodes",
            leader_average="start_visits",
            guiding_average="pairs",
        ),
    ),
    EstimatorEntry(
        name="bc_hg_game",
        summary="BC-HG with the exact critic and the rest of the same trajectory, in games",
        level="formula",
        kinds=(MarkovGame, LQRGame),
        make=lambda target: BCHG(target=target, critic=exact_critic_kind(target)),
    ),
    EstimatorEntry(
        name="bc_hg_game_geometric",
        summary="BC-HG stopped at geometric times, all leader steps up to τ: unbiased without a horizon, in games",
        level="formula",
        kinds=(MarkovGame,),
        make=lambda target: BCHG(stopping="sum"),
    ),
    EstimatorEntry(
        name="bc_hg_game_published",
        summary="BC-HG in games with the published baselines: at the follower's own action, and from the same step on",
        level="formula",
        kinds=(MarkovGame,),
        make=lambda target: BCHG(
            target=target, critic=exact_critic_kind(target), baseline="action_dependent", same_step=True
        ),
    ),
)
