"""AMD: tables of derivatives that are swept alongside the values, and followed along a stream as far as it goes.

With Y_k, Q_k and Z_k the tables of ∇Q_F, Q_L and of the leader's derivative after k sweeps from zero
(`bilevelrl.reference.approximations.AlternatingRecursion`) and V_k = Σ_a π Q_k, a stream of n steps says

    V_k(s_0) ∇log μ + Σ_{t<n} γ_L^t [∇r_L + γ_L V_{k-1-t}(s_{t+1}) ∇log P + (Y - Σ_a π Y)(Q - V)/β] + γ_L^n Z̄(s_n),  (1)

with Y, Q, V of k-1-t sweeps and Z̄ = Σ_a π Z of k-n. Its mean is the recursion's own answer after k sweeps, however long
the streams are: longer ones read less of Z and vary more. The recursion itself needs the model, as published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np

from bilevelrl.estimators.estimator import Claim, Context, Contribution, Draw, Estimator, EstimatorEntry
from bilevelrl.estimators.rivals.own_law import own_law
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.approximations import AlternatingRecursion
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import Count, check_stream_steps, checked
from bilevelrl.reference.errors import UnsupportedError, refusal
from bilevelrl.reference.nudged import kernel_layout
from bilevelrl.reference.problem import Objective, Part

__all__ = ["AMD"]


class _Tables(NamedTuple):
    """What is read after 0 to k sweeps: V (k + 1, S), Z̄ (k + 1, S, N), the response (k + 1, S, A, N)."""

    value: FloatArray
    led: FloatArray
    response: FloatArray


@checked
@dataclass(frozen=True, kw_only=True)
class AMD(Estimator):
    """Alternating tables of Chen et al. (2022), read along streams: biased by the sweeps that are missing.

    Parameters
    ----------
    sweeps
        k ≥ 1, from tables of zeros. The bias falls as the larger discount to the power k.

    Examples
    --------
    >>> from bilevelrl.estimators import Context
    >>> from bilevelrl.reference import hypergradient, solve_follower
    >>> from bilevelrl.tasks import random_mdp
    >>> problem, theta = random_mdp(seed=0), np.zeros(3)
    >>> context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    >>> truth = hypergradient(problem, theta).value
    >>> few, many = (sum(AMD(sweeps=k).expectation(context, horizon=3).values()) for k in (5, 300))
    >>> bool(np.abs(few - truth).max() > 1e-2 > 1e-10 > np.abs(many - truth).max())
    True
    """

    kinds: ClassVar[tuple[type, ...]] = (ConfigurableMDP,)
    sweeps: Count = 100
    name: str = field(default="AMD")
    draw: Draw = field(init=False, default=Draw.TRAJECTORY)
    claim: Claim = field(init=False, default=Claim.DECLARED)
    target: Objective = field(init=False, default_factory=Objective)

    def _tables(self, context: Context) -> _Tables:
        problem, follower = context.problem, context.follower
        of = AlternatingRecursion(problem.at(context.theta), follower)
        led, heard, gained = of.none, of.none, np.zeros(of.policy.shape)
        found: list[tuple[FloatArray, ...]] = []
        for k in range(self.sweeps + 1):
            worth = of.mean(gained)
            scores = (gained - worth[:, None]) / problem.temperature
            found.append((worth, of.mean(led), scores[..., None] * (heard - of.mean(heard)[:, None])))
            if k < self.sweeps:
                led, heard, gained = of.sweep(led, heard, gained)
        return _Tables(*(np.array(each) for each in zip(*found, strict=True)))

    @checked
    def contributions(self, trajectories: Trajectories, context: Context) -> Sequence[Contribution]:
        """Return the weights and rows of (1).

        Raises
        ------
        UnsupportedError
            If a stream holds several episodes.
        """
        if (trajectories.episode_starts.sum(axis=1) > 1).any():
            found = "several episodes in one stream"
            raise UnsupportedError(
                refusal(f"{self.name}: trajectories", found, "one in each", "sample with single_episode=True")
            )
        self.check_problem(context)
        tables, leading, batch = self._tables(context), context.problem.discount_leader, trajectories
        time, counted = batch.time_in_episode, batch.valid & (batch.time_in_episode < self.sweeps)
        weight = np.where(counted, leading ** time.astype(np.float64), 0.0)
        state = np.where(batch.valid, batch.state_t, 0)
        starts = batch.episode_starts
        onward = np.append(tables.value, np.zeros((len(tables.value), 1)), axis=1)  # the end is worth nothing
        left = np.maximum(self.sweeps - 1 - time, 0)
        ahead = leading * weight * onward[left, np.where(batch.valid, batch.state_tp1, 0)]
        rows = np.einsum("mt,mtn->mn", weight, tables.response[left, state, batch.action_t])
        last = counted & ~np.append(counted[:, 1:], np.zeros((batch.streams, 1), dtype=np.bool_), axis=1)
        goes_on = np.append(tables.led, np.zeros((len(tables.led), 1, context.theta.size)), axis=1)
        rows = rows + np.einsum(
            "mt,mtn->mn", leading * weight * last, goes_on[left, np.where(batch.valid, batch.state_tp1, 0)]
        )
        first = np.where(starts, tables.value[self.sweeps, state], 0.0)
        return [
            Contribution(part="initial", batch=batch, weights={"log_initial": first}),
            Contribution(part="direct", batch=batch, weights={"reward_leader": weight}),
            Contribution(part="transition", batch=batch, weights={"log_transition": ahead}),
            Contribution(part="response", batch=batch, weights={}, rows=rows),
        ]

    @checked
    def expectation(self, context: Context, *, horizon: int) -> Mapping[Part, FloatArray]:
        """Return the exact expectation for streams of `horizon` steps, by the law of the state over time.

        Raises
        ------
        UnsupportedError
            If samples come from another law than the problem's.
        """
        self.check_problem(context)
        own_law(self.name, context)
        at, leading = context.problem.at(context.theta), context.problem.discount_leader
        tables, policy = self._tables(context), context.follower.policy
        law = np.asarray(at.tables.initial)
        direct, moving = np.zeros(policy.shape), np.zeros(at.kernel.shape)
        response = np.zeros(context.theta.size)
        steps = min(check_stream_steps("horizon", horizon), self.sweeps)
        for t in range(steps):
            visits, left = law[:, None] * policy, self.sweeps - 1 - t
            direct += visits
            moving += leading * visits[:, :, None] * tables.value[left]
            response += np.einsum("sa,san->n", visits, tables.response[left])
            law = leading * (visits.ravel() @ at.kernel.reshape(-1, len(law)))
        response += law @ tables.led[self.sweeps - steps]
        return {
            "initial": at.pullback({"initial": tables.value[self.sweeps]}),
            "direct": at.pullback({"reward_leader": direct}),
            "transition": at.pullback({"transition": kernel_layout(at, moving)}),
            "response": response,
            "regulariser": context.problem.regulariser_gradient(context.theta),
        }


CONFIGURATIONS = (
    EstimatorEntry(
        name="amd",
        summary="AMD's tables of derivatives after a hundred sweeps from zero, followed along streams",
        level="formula",
        make=lambda target: AMD(),
    ),
)
