"""SoBiRL: the response of the follower's policy through the immediate reward alone.

The guiding term (44)-(45) of arXiv:2603.14867 reads, with g(s,a) = ∇r_F(s,a),

    (1/β) Σ_t w_t [ g(s_t,a_t) - Σ_a π(a|s_t) g(s_t,a) ],                                                            (1)

so ∇Q_F is replaced by its first summand: the future is dropped, and where ∇r_F does not depend on the action nothing is
left. The weights differ between the paper's form, the released code and the original method:

- "benefit": w_t = γ_L^t B(s_t,a_t), at each step;
- "q_each_step": w_t = γ_L^t Q_L(s_t,a_t), the released "modified" form;
- "q": w_t = Q_L(s_0,a_0), the value at the first step for all brackets of the episode, undiscounted: released code;
- "return": w_t = Σ_k γ_L^k r_L, the return of the whole episode: the original method (Yang et al. 2025).

The bracket has mean zero given the past. So with "return" the past rewards drop out and γ_L^t Q_L(s_t,a_t) is left, the
same expectation as with "benefit"; and with "q" and a critic that knows only the first step every bracket but the first
drops out. With the exact ∇Q_F - ∇V_F in the bracket, "return" is the score function estimator, since ∇log π is that
bracket over β: it has no bias for episodes of any length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, TypeAlias

import autograd
import numpy as np

from bilevelrl.estimators.critics.tables import CriticReading
from bilevelrl.estimators.estimator import Claim, Context, Contribution, Draw, EstimatorEntry
from bilevelrl.estimators.expectations.along_trajectories import ExpectedAlongTrajectories
from bilevelrl.estimators.expectations.impulses import expected_impulses, reaches_target
from bilevelrl.estimators.sampling.trajectories import Trajectories, TransitionVisits
from bilevelrl.estimators.sums.traces import average_over_visits, backward_sum
from bilevelrl.estimators.terms.along_trajectories import exact_critic_kind
from bilevelrl.estimators.terms.batch_tables import visit_indices
from bilevelrl.estimators.terms.suffix_moments import gradient_sum_means
from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.arrays import BoolArray, FloatArray
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, UnsupportedError
from bilevelrl.reference.problem import Objective, Part
from bilevelrl.reference.tabular import DiscountedSystem, policy_transition, to_dense

__all__ = ["SoBiRL", "SoBiRLWeight"]

SoBiRLWeight: TypeAlias = Literal["benefit", "q_each_step", "q", "return"]
"""What multiplies the brackets; see the module."""


@checked
@dataclass(frozen=True, kw_only=True)
class SoBiRL(ExpectedAlongTrajectories):
    """SoBiRL's one-step estimator (paper, (44)-(45)), its published weights, and its exact-gradient form.

    The method assumes that θ enters rewards only. Elsewhere the leader's own terms keep their initial and transition
    parts, and the follower's response to the dynamics is dropped like the rest of the future: one bias, which
    `expectation` computes.

    Parameters
    ----------
    target, critic, stopping, normalisation, leader_average, scores
        As in `AlongTrajectories`. Averages in a batch are over the episodes that began, or over those that finished
        where normalisation="episodes".
    weight
        "benefit", "q_each_step", "q" or "return": see the module. "return" reads no critic for the guiding term.
    steps
        "all": brackets at all steps. "one": at each episode's first step only.
    gradient
        "one_step": g = ∇r_F. "exact": the bracket is ∇Q_F - ∇V_F, from the model.
    value_average
        "trajectory": Q_L as the critic reads it. "pairs": replaced by its average over all visits of the pair in the
        batch, as the released code does with returns (a ratio).
    theta_in_dynamics
        "partial": as above. "refuse": raise where θ enters the transitions or the initial law.

    Raises
    ------
    UnknownNameError, InvalidInputError
        If options are unknown or contradict each other.

    Examples
    --------
    >>> from bilevelrl.estimators import Context, SoBiRL
    >>> from bilevelrl.reference import hypergradient, solve_follower
    >>> from bilevelrl.tasks import layered_mdp
    >>> problem, theta = layered_mdp(seed=0), np.zeros(3)
    >>> context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    >>> truth = hypergradient(problem, theta).parts["response"]
    >>> one_step = SoBiRL().expectation(context, horizon=3)["response"]
    >>> exact = SoBiRL(gradient="exact", weight="return").expectation(context, horizon=3)["response"]
    >>> bool(np.allclose(one_step, truth)), bool(np.allclose(exact, truth, rtol=1e-12))
    (False, True)
    """

    kinds: ClassVar[tuple[type, ...]] = (ConfigurableMDP,)
    weight: SoBiRLWeight = "benefit"
    steps: Literal["all", "one"] = "all"
    gradient: Literal["one_step", "exact"] = "one_step"
    value_average: Literal["trajectory", "pairs"] = "trajectory"
    theta_in_dynamics: Literal["partial", "refuse"] = "partial"
    name: str = field(default="SoBiRL")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stopping is not None and self.weight in ("q", "return"):
            raise InvalidInputError(
                f"weight={self.weight!r} with stopping={self.stopping!r}: expected stopping=None; "
                "a single weight for all brackets has no geometric form"
            )
        if self.value_average == "pairs" and (self.stopping is not None or self.weight in ("benefit", "return")):
            raise InvalidInputError(
                "value_average='pairs': expected weight='q' or 'q_each_step' and stopping=None; "
                "only values of pairs are averaged"
            )
        self._declare(biased=True, in_batch=self.value_average == "pairs")
        if self.claim is not Claim.MEASURED and self._is_unbiased():
            object.__setattr__(self, "claim", Claim.UNBIASED)

    def _is_unbiased(self) -> bool:
        first_only = self.steps == "one" or (self.weight == "q" and self.critic != "monte_carlo")
        return self.gradient == "exact" and not first_only and reaches_target(self)

    @checked
    def contributions(self, trajectories: Trajectories, context: Context) -> Sequence[Contribution]:
        """Return the weights of the leader's terms and of the guiding term."""
        self._check_dynamics(context)
        trajectories = self.stopped(trajectories, context)
        reading = self.read(trajectories, context)
        assert isinstance(reading, CriticReading)  # games are not served
        factors = self.scale(trajectories) * self._factors(trajectories, context, reading)
        factors = factors / context.problem.temperature
        expand = _one_step_brackets if self.gradient == "one_step" else _exact_brackets
        return [*self.partial_gradient(trajectories, context, reading), *expand(trajectories, factors, context)]

    @checked
    def scale(self, trajectories: Trajectories) -> float | FloatArray:
        """Return the factor of sums over streams: one over the episodes that began, or that finished."""
        if self.normalisation == "streams" and self.draw is Draw.BATCH:
            return 1.0 / trajectories.count_in_batch(trajectories.episode_starts)
        return super().scale(trajectories)

    def _factors(self, trajectories: Trajectories, context: Context, reading: CriticReading) -> FloatArray:
        """Return w_t, (streams, steps)."""
        paid = trajectories.valid
        if self.target.horizon is not None:
            paid = paid & (trajectories.time_in_episode < self.target.horizon)
        counted = trajectories.episode_starts if self.steps == "one" else paid
        if self.weight == "return":
            rewards = np.where(paid, trajectories.reward_leader_t, 0.0)
            returns = backward_sum(trajectories, rewards, self.target.discount(context.problem.discount_leader))
            return np.where(counted, _at_episode_start(trajectories, returns), 0.0)
        if self.weight == "benefit":
            return np.where(counted, self.leader_weight(trajectories, context) * reading.benefit_t, 0.0)
        values = self._action_values(trajectories, context, reading)
        if self.weight == "q":
            return np.where(counted, _at_episode_start(trajectories, values), 0.0)
        return np.where(counted, self.leader_weight(trajectories, context) * values, 0.0)

    def _action_values(self, trajectories: Trajectories, context: Context, reading: CriticReading) -> FloatArray:
        # A reading of returns has the return itself as its value; the others have Q_L = B + V_L.
        values = reading.value_t if self.critic == "monte_carlo" else reading.benefit_t + reading.value_t
        if self.value_average == "pairs":
            pair = visit_indices(trajectories, context.follower.policy.shape[1])["pair"]
            values = average_over_visits(values, pair, trajectories.valid)
        return values

    def _check_dynamics(self, context: Context) -> None:
        inside = {"transition", "initial"} & set(context.problem.varying(context.theta))
        if self.theta_in_dynamics == "refuse" and inside:
            raise UnsupportedError(
                f"{self.name}: θ enters {sorted(inside)}; expected θ in the rewards only; "
                "use theta_in_dynamics='partial' to accept the bias"
            )

    @checked
    def expectation(self, context: Context, *, horizon: int) -> Mapping[Part, FloatArray]:
        """Return the exact expectation for streams of `horizon` steps; with stopping, whatever the horizon.

        Raises
        ------
        EstimatorError
            For averages inside a batch: a ratio has no such formula.
        """
        self.check_problem(context)
        self._check_dynamics(context)
        parts = dict(super().expectation(context, horizon=horizon))
        weighted, first_only = self, self.steps == "one"
        if self.weight == "return":
            weighted = replace(self, weight="benefit", critic="monte_carlo")
        elif self.weight == "q" and self.critic != "monte_carlo":
            first_only = True  # the weight knows nothing of later steps, whose brackets have mean zero
        impulses = expected_impulses(weighted, context, horizon=horizon, first_step_only=first_only)
        parts["response"] = np.einsum("sa,san->n", impulses, self._mean_bracket(context)) / context.problem.temperature
        return parts

    def _mean_bracket(self, context: Context) -> FloatArray:
        """Return g - E_π g, or ∇Q_F - ∇V_F, shape (S, A, N)."""
        if self.gradient == "exact":
            pair, state = gradient_sum_means(replace(context, simulator=None), steps=None, scores="value")
        else:
            shape = (*context.follower.policy.shape, context.theta.size)
            pair = context.problem.jacobian(context.theta).get("reward_follower", np.zeros(shape))
            state = np.einsum("sa,san->sn", context.follower.policy, pair)
            pair = np.where(_action_matters(context)[:, None, None], pair, state[:, None])
        return pair - state[:, None]


def _at_episode_start(trajectories: Trajectories, values: FloatArray) -> FloatArray:
    """Return (streams, steps): at each step, the value at the first step of its episode."""
    steps = np.arange(trajectories.steps)[None, :]
    first = np.maximum.accumulate(np.where(trajectories.episode_starts, steps, 0), axis=1)
    return np.take_along_axis(values, first, axis=1)


def _one_step_brackets(trajectories: Trajectories, factors: FloatArray, context: Context) -> list[Contribution]:
    """Return Σ_t factor [g(s_t,a_t) - Σ_a π(a|s_t) g(s_t,a)] as weights on all actions of the visited states."""
    policy = context.follower.policy
    actions = policy.shape[1]
    state = np.where(trajectories.valid, trajectories.state_t, 0)
    action = np.where(trajectories.valid, trajectories.action_t, 0)
    factors = np.where(_action_matters(context)[state], factors, 0.0)
    weights = factors[..., None] * (np.eye(actions)[action] - policy[state])  # (1)
    shape = (trajectories.streams, trajectories.steps * actions)
    every_action = TransitionVisits(
        state_t=np.repeat(state, actions, axis=1),
        action_t=np.tile(np.arange(actions), (trajectories.streams, trajectories.steps)),
        state_tp1=np.zeros(shape, dtype=np.int64),
    )
    return [Contribution(part="response", batch=every_action, weights={"reward_follower": weights.reshape(shape)})]


_STEP = 2.0**-10  # of the direction, for tables without a trace


def _action_matters(context: Context) -> BoolArray:
    """Return (S,): whether ∇r_F differs between actions there, seen by its slope along one random direction.

    Where it does not the bracket is zero, and is left out: rounding would leave a rest of it.
    """
    problem, theta = context.problem, context.theta
    states = context.follower.policy.shape[0]
    if "reward_follower" not in problem.varying(theta):
        return np.zeros(states, dtype=np.bool_)
    direction = np.random.default_rng(20260314).standard_normal(theta.shape)
    if problem.tables_jacobian is not None or problem.tables_pullback is not None:  # the tables need not be traceable
        ahead, behind = (problem.evaluate(theta + h * direction).reward_follower for h in (_STEP, -_STEP))
        moved = np.asarray(ahead) - np.asarray(behind)
        return np.asarray((moved != moved[:, :1]).any(axis=1))
    try:
        slope = np.asarray(autograd.make_jvp(lambda x: problem.tables(x).reward_follower)(theta)(direction)[1])
    except NotImplementedError:  # a primitive without a forward rule: leave nothing out
        return np.ones(states, dtype=np.bool_)
    differs: BoolArray = (slope != slope[:, :1]).any(axis=1)
    return differs


def _exact_brackets(trajectories: Trajectories, factors: FloatArray, context: Context) -> list[Contribution]:
    """Return Σ_t factor [∇Q_F - ∇V_F](s_t,a_t) by one adjoint solve per stream; memory grows with streams x S² A.

    With ω(s,a) the sum of the factors of a pair, centred over the policy, the weight of c(s,a) is ω + λ π with
    `(I - γ_F P_πᵀ) λ = γ_F Pᵀ ω`.
    """
    problem, theta, follower = context.problem, context.theta, context.follower
    tables, policy = problem.tables_at(theta), follower.policy
    kernel, (states, actions) = np.asarray(to_dense(tables.transition)), policy.shape
    pair = visit_indices(trajectories, actions)["pair"]
    stream, step = np.nonzero(np.where(trajectories.valid, factors, 0.0))
    size = states * actions
    flat = np.bincount(stream * size + pair[stream, step], factors[stream, step], minlength=trajectories.streams * size)
    visited = flat.reshape(trajectories.streams, states, actions)
    centred = visited - visited.sum(axis=2, keepdims=True) * policy
    pushed = centred.reshape(-1, size) @ kernel.reshape(size, states)
    system = DiscountedSystem.factorise(policy_transition(kernel, policy), problem.discount_follower)
    adjoint = system.solve_transposed(problem.discount_follower * pushed.T).T
    weights = centred + adjoint[:, :, None] * policy

    def everywhere(part_weights: FloatArray, term: Literal["reward_follower", "log_transition"]) -> Contribution:
        table = part_weights.shape[1:]
        indices = [np.broadcast_to(index.ravel(), (trajectories.streams, index.size)) for index in np.indices(table)]
        batch = TransitionVisits(state_t=indices[0], action_t=indices[1], state_tp1=indices[-1])
        laid_out = part_weights.reshape(trajectories.streams, -1)
        return Contribution(part="response", batch=batch, weights={term: laid_out})

    items = [everywhere(weights, "reward_follower")]
    if "transition" in problem.varying(theta):
        ahead = problem.discount_follower * kernel * follower.value
        items.append(everywhere(weights[..., None] * ahead, "log_transition"))
    return items


def _configuration(target: Objective, **options: Any) -> SoBiRL:
    return SoBiRL(target=target, **{"critic": exact_critic_kind(target), **options})


CONFIGURATIONS = (
    EstimatorEntry(
        name="sobirl",
        summary="SoBiRL, one-step gradient of the follower's reward weighed by the exact benefit at each step",
        level="formula",
        make=lambda target: _configuration(target),
    ),
    EstimatorEntry(
        name="sobirl_q",
        summary="SoBiRL as released: one-step gradients of the whole episode weighed by Q at its first step",
        level="formula",
        make=lambda target: _configuration(target, weight="q", name="SoBiRL (first Q)"),
    ),
    EstimatorEntry(
        name="sobirl_return",
        summary="SoBiRL, one-step gradients of the whole episode weighed by its return",
        level="formula",
        make=lambda target: _configuration(target, weight="return", name="SoBiRL (return)"),
    ),
    EstimatorEntry(
        name="sobirl_exact_gradient",
        summary="the score form: whole return times the sum of exact follower gradients",
        level="formula",
        make=lambda target: _configuration(target, weight="return", gradient="exact", name="SoBiRL (exact gradient)"),
    ),
    EstimatorEntry(
        name="sobirl_batch",
        summary="SoBiRL as published: averages over the visits in the batch",
        level="practical",
        make=lambda target: SoBiRL(
            target=target,
            weight="q",
            critic="monte_carlo",
            value_average="pairs",
            leader_average="start_visits",
            name="SoBiRL (batch)",
        ),
    ),
)
