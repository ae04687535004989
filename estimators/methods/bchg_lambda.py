"""BC-HG with λ-returns of ∇Q_F and state baselines: a critic of ∇V_F in place of the end of the suffix.

    (1/β) Σ_t γ_L^t B(s_t, a_t) [ G^λ_t - b(s_t) ],                                                                  (1)
    G^λ_t = Σ_{k≥t} (γ_F λ)^{k-t} [ x_k + γ_F c_k ∇V̂_F(s_{k+1}) ],   x_k = ∇r_F + γ_F V_F(s_{k+1}) ∇log P,          (2)

c_k being 1 - λ, or 1 at the last observed step. λ = 1 is BC-HG's suffix, completed where it was cut. With the exact
∇V_F the mean of G^λ is ∇Q_F for every λ and however short the stream: nothing is truncated. With another table the
guiding term is off by what `expectation` computes. Baselines take away variance and no mean; see `state_baselines`.

In trace form `e_k = γ_F λ e_{k-1} + γ_L^k B_k / β`, so the estimate costs what BC-HG's does, and one product of
weights per state with the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from bilevelrl.estimators.critics.gradient_tables import GradientTable
from bilevelrl.estimators.critics.state_baselines import StateBaseline
from bilevelrl.estimators.estimator import Claim, Context, Contribution, EstimatorEntry
from bilevelrl.estimators.expectations.along_trajectories import expected_parts
from bilevelrl.estimators.expectations.tabular import Completion
from bilevelrl.estimators.methods.bchg import BCHG
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.sums.lambda_returns import bootstrap_shares, check_trace_decay
from bilevelrl.estimators.terms.along_trajectories import exact_critic_kind
from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import EstimatorError, InvalidInputError
from bilevelrl.reference.problem import Objective, Part

__all__ = ["LambdaBCHG", "LambdaBaseline"]

LambdaBaseline: TypeAlias = Literal["value", "step", "estimate", "context"]
"""A baseline that is solved for, or the one of the context."""


@checked
@dataclass(frozen=True, kw_only=True)
class LambdaBCHG(BCHG):
    """BC-HG with λ-returns of the follower's gradient, and a state baseline of them; for configurable MDPs.

    Parameters
    ----------
    target, critic, normalisation, leader_average, guiding_average, scores
        As in `BCHG`; neither geometric stopping nor returns of the same suffix are offered.
    trace_decay
        λ in [0, 1].
    gradient_critic
        "exact": ∇V_F under the follower's policy; "context": `context.follower_gradient`.
    state_baseline
        None; "value", "step", "estimate": solved for, see `StateBaseline`; "context": `context.baseline`.

    Raises
    ------
    UnknownNameError, InvalidInputError
        As `BCHG`, or if λ is out of range.

    Examples
    --------
    >>> from bilevelrl.estimators import sample_trajectories
    >>> from bilevelrl.reference import hypergradient, solve_follower
    >>> from bilevelrl.tasks import random_mdp
    >>> problem, theta = random_mdp(states=4, actions=2, parameters=3, seed=0), np.zeros(3)
    >>> context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    >>> target = Objective(horizon=5)
    >>> truth = hypergradient(problem, theta, horizon=5).value
    >>> def bias(estimator):
    ...     expected = sum(estimator.expectation(context, horizon=5).values())
    ...     return bool(np.abs(expected - truth).max() > 1e-12)
    >>> cut, completed = (kind(target=target, critic="exact_truncated") for kind in (BCHG, LambdaBCHG))
    >>> bias(cut), bias(completed)
    (True, False)
    """

    kinds: ClassVar[tuple[type, ...]] = (ConfigurableMDP,)
    trace_decay: float = 0.9
    gradient_critic: Literal["exact", "context"] = "exact"
    state_baseline: LambdaBaseline | None = None
    name: str = field(default="BC-HG(λ)")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_trace_decay(self.trace_decay)
        if self.stopping is not None:
            raise InvalidInputError(f"stopping={self.stopping!r}: expected None; λ-returns need no geometric times")
        if self.critic == "monte_carlo":
            raise InvalidInputError(
                "critic='monte_carlo': expected a critic of its own; it shares the λ-return's steps"
            )
        if self.claim is Claim.MEASURED:
            return
        known = self.critic in ("exact", "exact_truncated", "independent") and self.gradient_critic == "exact"
        known = (
            known
            and self.state_baseline != "context"
            and not (self.critic == "exact" and self.target.horizon is not None)
        )
        object.__setattr__(self, "claim", Claim.UNBIASED if known else Claim.DECLARED)

    @checked
    def trace_discount(self, context: Context) -> float:
        """Return γ_F λ."""
        return self.trace_decay * super().trace_discount(context)

    @checked
    def gradient_table(self, context: Context) -> GradientTable:
        """Return the critic of ∇V_F that completes the sums.

        Raises
        ------
        EstimatorError
            If the context has none where it should.
        """
        if self.gradient_critic == "exact":
            return GradientTable.solve(context)
        if not isinstance(context.follower_gradient, GradientTable):
            found = type(context.follower_gradient).__name__
            raise EstimatorError(f"{self.name}: context.follower_gradient: expected a GradientTable, got {found}")
        return context.follower_gradient

    @checked
    def baseline_table(self, context: Context, gradients: GradientTable) -> StateBaseline | None:
        """Return the baseline; None without one.

        Raises
        ------
        EstimatorError
            If the context has none where it should.
        """
        if self.state_baseline is None:
            return None
        if self.state_baseline == "context":
            if not isinstance(context.baseline, StateBaseline):
                found = type(context.baseline).__name__
                raise EstimatorError(f"{self.name}: context.baseline: expected a StateBaseline, got {found}")
            return context.baseline
        # The exact one by steps to go changes with time; a table of states reads the one of the infinite horizon.
        read = self.leader_critic(context) if self.critic == "context" else None
        return StateBaseline.solve(
            self.state_baseline, context, trace_decay=self.trace_decay, critic=read, gradient_critic=gradients
        )

    def _guiding_term(self, trajectories: Trajectories, context: Context, benefit_t: FloatArray) -> Contribution:
        item = super()._guiding_term(trajectories, context, benefit_t)
        gradients = self.gradient_table(context)
        share = context.problem.discount_follower * bootstrap_shares(trajectories, self.trace_decay)
        after = np.where(trajectories.valid, trajectories.state_tp1, 0)
        rows = _weighted(item.weights["reward_follower"] * share, after, gradients.gradients)  # (2)
        baseline = self.baseline_table(context, gradients)
        if baseline is not None:
            weight = self.scale(trajectories) * self.leader_weight(trajectories, context)
            taken = np.where(trajectories.valid, weight * benefit_t, 0.0) / context.problem.temperature
            rows = rows - _weighted(taken, trajectories.state_t, baseline.table)  # (1)
        return Contribution(part=item.part, batch=item.batch, weights=item.weights, rows=rows)

    @checked
    def expectation(self, context: Context, *, horizon: int) -> Mapping[Part, FloatArray]:
        """Return the exact expectation for streams of `horizon` steps.

        Raises
        ------
        EstimatorError
            For averages inside a batch: a ratio has no such formula.
        """
        self.check_problem(context)
        gradients = self.gradient_table(context)
        baseline = self.baseline_table(context, gradients)
        completion = Completion(
            trace_decay=self.trace_decay,
            gradients=gradients.gradients,
            baseline=None if baseline is None else baseline.table,
        )
        return expected_parts(self, context, horizon=horizon, guiding=True, completion=completion)


def _weighted(weights: FloatArray, state: Any, table: FloatArray) -> FloatArray:
    """Return Σ_t weights[m, t] table[state[m, t]], (streams, N); states from S on count nothing."""
    streams, states = weights.shape[0], table.shape[0]
    cell = np.arange(streams)[:, None] * (states + 1) + np.minimum(state, states)
    per_state = np.bincount(cell.ravel(), weights.ravel(), streams * (states + 1)).reshape(streams, states + 1)
    result: FloatArray = per_state[:, :states] @ table
    return result


def _completed(name: str, summary: str, trace_decay: float, baseline: LambdaBaseline | None = None) -> EstimatorEntry:
    def make(target: Objective) -> LambdaBCHG:
        critic = exact_critic_kind(target)
        return LambdaBCHG(target=target, critic=critic, trace_decay=trace_decay, state_baseline=baseline)

    return EstimatorEntry(name=name, summary=summary, level="formula", make=make)


CONFIGURATIONS = (
    _completed("bc_hg_completed", "BC-HG with ∇V_F at the end of a suffix that is cut (λ = 1)", 1.0),
    _completed("bc_hg_lambda", "BC-HG with λ-returns of ∇Q_F, λ = 0.9, completed by the exact ∇V_F", 0.9),
    _completed("bc_hg_one_step", "BC-HG with one step and the exact ∇V_F (λ = 0)", 0.0),
    _completed("bc_hg_value_baseline", "BC-HG completed, less ∇V_F at every state: doubly centred", 1.0, "value"),
    _completed("bc_hg_step_baseline", "BC-HG completed, less each step's own optimal state baseline", 1.0, "step"),
    _completed("bc_hg_optimal_baseline", "BC-HG completed, less the state baseline of least variance", 1.0, "estimate"),
    EstimatorEntry(
        name="bc_hg_lambda_practical",
        summary="BC-HG with λ-returns to the exact ∇V_F, the value baseline, a learnt benefit, averages as published",
        level="practical",
        make=lambda target: LambdaBCHG(
            target=target,
            critic="context",
            gradient_critic="exact",
            state_baseline="value",
            normalisation="episodes",
            leader_average="start_visits",
            guiding_average="pairs",
        ),
    ),
)
