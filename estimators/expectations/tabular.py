"""Exact expectations of estimators along trajectories, by dynamic programming over time.

No sampling and no enumeration: the law of the state moves forwards, and with it the expected trace

    E_k(s) = E[ e_{k-1} 1(s_k = s) ],      e_k = γ_F e_{k-1} + x_k,                                                  (1)

because the guiding term is `Σ_k e_k g_k` and x_k depends on step k only. Returns of the same suffix depend on what
comes after k as well; swapping sums once more splits them at k,

    γ_L^t R_t = Σ_{t≤j≤k} γ_L^j r_j + γ_L^{k+1} R_{k+1},                                                             (2)

into an impulse `c_k γ_L^k r_k` with `c_k = Σ_{t≤k} γ_F^{k-t}` and a future that depends on the path through s_{k+1}
only. The result is one weight per table entry, so an expectation costs one vector-Jacobian product per part.

Samples may be moved by another kernel K than the model's P: scores are then those of P, `∇P/P` weighted by K.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bilevelrl.estimators.critics.tables import ExactCritic
from bilevelrl.estimators.estimator import Context, Draw, LeaderCritic
from bilevelrl.estimators.sampling.tabular import TabularSimulator
from bilevelrl.estimators.terms.along_trajectories import AlongTrajectories
from bilevelrl.reference import SparseTransition, Tables
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import check_stream_steps
from bilevelrl.reference.errors import EstimatorError, SupportError, UnsupportedError
from bilevelrl.reference.problem import Part
from bilevelrl.reference.tabular import (
    ROW_SUM_TOLERANCE,
    DiscountedSystem,
    Transition,
    expected_next,
    policy_transition,
)

__all__ = ["Completion", "tabular_expected_parts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What is added to and taken from a guiding term whose suffixes are λ-returns.

    Attributes
    ----------
    trace_decay : float
        λ.
    gradients : (S, N)
        ∇V̂_F, which completes n-step sums.
    baseline : (S, N) or None
        Taken away at each state.
    """

    trace_decay: float
    gradients: FloatArray
    baseline: FloatArray | None = None


def tabular_expected_parts(
    estimator: AlongTrajectories, context: Context, *, horizon: int, guiding: bool, completion: Completion | None = None
) -> Mapping[Part, FloatArray]:
    """Answer `expected_parts` for configurable MDPs."""
    if estimator.draw is Draw.BATCH:
        raise EstimatorError(f"{estimator.name}: averages inside a batch are ratios; their bias can only be measured")
    horizon = check_stream_steps("horizon", horizon)
    simulator = context.simulator if context.simulator is not None else TabularSimulator()
    if not isinstance(simulator, TabularSimulator) or not simulator.single_episode:
        raise EstimatorError(f"{estimator.name}: expected one episode per stream; use single_episode=True")
    if simulator.step_limit is not None:
        horizon = min(horizon, simulator.step_limit)
    model = _Model.of(estimator, context, simulator, completion)
    weights = model.stopped() if estimator.stopping is not None else model.truncated(horizon)
    return model.gradients(weights, guiding)


@dataclass(frozen=True, slots=True)
class _Scores:
    """Expected weights of ∇log P: one per outcome listed in the kernel, and one per pair for every outcome alike."""

    outcome: FloatArray  # the kernel's layout, before the probability of the outcome
    pair: FloatArray  # (S, A); termination is an outcome too

    @classmethod
    def zeros(cls, kernel: Transition) -> _Scores:
        return cls(np.zeros(_layout(kernel).shape), np.zeros(kernel.shape[:2]))

    def add(self, kernel: Transition, visits: FloatArray, value: FloatArray) -> None:
        """Add visits of pairs (S, A) times values of successors (S,)."""
        ahead: FloatArray = value[kernel.successor] if isinstance(kernel, SparseTransition) else value
        np.add(self.outcome, visits[:, :, None] * ahead, out=self.outcome)

    def add_pair(self, weight: FloatArray) -> None:
        """Add weights (S, A) that no outcome changes."""
        np.add(self.pair, weight, out=self.pair)

    def cotangent(self, model: Transition, kernel: Transition) -> FloatArray:
        """Return the cotangent of the model's probabilities for samples moved by another kernel."""
        if kernel is model:
            return self.outcome  # scores sum to zero over the outcomes of a pair
        if isinstance(model, SparseTransition) and not np.array_equal(model.successor, kernel.successor):
            raise UnsupportedError("dynamics: expected a sparse kernel that lists the same successors as the problem's")
        own, moved = _layout(model), _layout(kernel)
        rest_own, rest_moved = 1.0 - own.sum(axis=2), 1.0 - moved.sum(axis=2)
        ending = rest_moved > ROW_SUM_TOLERANCE
        if (moved[own == 0.0] > 0.0).any() or (rest_own[ending] <= ROW_SUM_TOLERANCE).any():
            raise SupportError(
                "dynamics: samples reach outcomes of probability zero under the problem's kernel, where scores do not "
                "exist; use dynamics with the same support"
            )
        ratio = np.divide(moved, own, out=np.zeros_like(own), where=own > 0.0)
        ratio_end = np.divide(rest_moved, rest_own, out=np.zeros_like(rest_own), where=ending)
        weighted: FloatArray = (self.outcome + self.pair[:, :, None]) * ratio - (self.pair * ratio_end)[:, :, None]
        return weighted


@dataclass(slots=True, kw_only=True)
class _Weights:
    """Expected weights of everything that estimates are linear in."""

    initial: FloatArray  # (S,), of ∇log μ, times the probability of the state
    direct: FloatArray  # (S, A), of ∇r_L
    transition: _Scores
    response: FloatArray  # (S, A), of ∇r_F
    response_transition: _Scores
    ended: FloatArray  # (S,), of the critic of ∇V_F where λ-returns end
    centred: FloatArray  # (S,), of baselines: zero where benefits are centred


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """Everything that the expectation depends on, as tables."""

    estimator: AlongTrajectories
    context: Context
    tables: Tables
    kernel: Transition  # moves the samples
    start: FloatArray
    critic: LeaderCritic
    sampled: ExactCritic | None  # what fresh suffixes are worth in expectation
    discount: float
    scored: bool  # whether the kernel depends on θ
    completion: Completion | None

    @classmethod
    def of(
        cls,
        estimator: AlongTrajectories,
        context: Context,
        simulator: TabularSimulator,
        completion: Completion | None = None,
    ) -> _Model:
        problem, theta, target = context.problem, context.theta, estimator.target
        tables = problem.tables_at(theta)
        kernel = tables.transition if simulator.dynamics is None else simulator.kernel(problem, theta)
        sampled = None
        if estimator.critic == "independent":
            sampled = ExactCritic.solve(
                problem,
                theta,
                context.follower.policy,
                horizon=target.horizon,
                discounted=target.discounted,
                transition=kernel,
            )
        return cls(
            estimator=estimator,
            context=context,
            tables=tables,
            kernel=kernel,
            start=simulator.start_law(problem, theta),
            critic=estimator.leader_critic(context),
            sampled=sampled,
            discount=target.discount(problem.discount_leader),
            scored="transition" in problem.varying(theta),
            completion=completion,
        )

    def truncated(self, horizon: int) -> _Weights:
        """Streams of `horizon` steps."""
        policy = self.context.follower.policy
        decay = 1.0 if self.completion is None else self.completion.trace_decay
        discount_follower = decay * self.context.problem.discount_follower
        limit = self.estimator.target.horizon
        paid = [float(limit is None or t < limit) for t in range(horizon)]
        same_suffix = self.estimator.critic == "monte_carlo"
        returns = self._returns(paid) if same_suffix else None
        law = self.start
        window: int | None = getattr(self.estimator, "suffix_steps", None)
        fresh = np.zeros((0, law.size))  # what is carried, by its age, where suffixes are cut
        chain = policy_transition(self.kernel, policy) if window is not None else np.zeros((0, 0))
        weights = self._start(self._values(0) if returns is None else returns[0])
        carried = np.zeros(law.size)  # E[e_{k-1} 1(s_k = s)]
        counted = 0.0  # c_k, over the steps at which the leader is paid
        for k in range(horizon):
            visits = law[:, None] * policy
            pay = self.discount**k * paid[k]
            self._leader_step(weights, pay * visits, k, self._values(k + 1) if returns is None else returns[k + 1])
            if returns is None:
                impulse = pay * self._benefit(k)
            else:
                counted = discount_follower * counted + paid[k]
                impulse = pay * (counted * self.tables.reward_leader - self._values(k)[:, None])
                self._respond_to_future(weights, counted * self.discount ** (k + 1) * visits, returns[k + 1])
            trace = discount_follower * carried[:, None] * policy + visits * impulse
            self._respond(weights, trace)
            carried = _push(self.kernel, trace)  # (1)
            if window is not None:
                newest = _push(self.kernel, visits * impulse)
                fresh = np.vstack([newest, discount_follower * np.asarray(fresh @ chain)])[: window - 1]
                carried = fresh.sum(axis=0)
            law = _push(self.kernel, visits)
            if self.completion is not None:
                # Every n-step sum that ends here, and the last of them with all the weight that is left.
                weights.ended += (1.0 - decay if k + 1 < horizon else 1.0) * carried
                weights.centred += (visits * impulse).sum(axis=1)
        return weights

    def stopped(self) -> _Weights:
        """Geometric times: the discounted sums over an infinite horizon."""
        policy, problem = self.context.follower.policy, self.context.problem
        chain = policy_transition(self.kernel, policy)
        weights = self._start(self._values(0))
        occupancy = DiscountedSystem.factorise(chain, problem.discount_leader).solve_transposed(self.start)
        visits = occupancy[:, None] * policy
        self._leader_step(weights, visits, 0, self._values(1))
        impulses = visits * self._benefit(0)
        carried = DiscountedSystem.factorise(chain, problem.discount_follower).solve_transposed(
            _push(self.kernel, impulses)
        )
        self._respond(weights, problem.discount_follower * carried[:, None] * policy + impulses)
        return weights

    def gradients(self, weights: _Weights, guiding: bool) -> dict[Part, FloatArray]:
        """Return one vector-Jacobian product per part."""
        problem, theta = self.context.problem, self.context.theta
        varying = problem.varying(theta)
        own = self.tables.transition
        initial = np.asarray(self.tables.initial)
        if "initial" in varying and (self.start[initial == 0.0] > 0.0).any():
            raise SupportError("restart: episodes start where the initial law is zero, where its score does not exist")
        score = np.divide(weights.initial, initial, out=np.zeros_like(weights.initial), where=initial > 0.0)
        cotangents: dict[Part, dict[str, FloatArray]] = {
            "initial": {"initial": score},
            "direct": {"reward_leader": weights.direct},
            "transition": {},
        }
        if self.scored:
            cotangents["transition"] = {"transition": weights.transition.cotangent(own, self.kernel)}
        if guiding:
            cotangents["response"] = {"reward_follower": weights.response}
            if self.scored:
                moved = weights.response_transition.cotangent(own, self.kernel)
                cotangents["response"]["transition"] = moved
        parts = {part: problem.vector_jacobian(theta, entries) for part, entries in cotangents.items()}
        parts["regulariser"] = problem.regulariser_gradient(theta)
        if guiding and self.completion is not None:
            ended = problem.discount_follower * weights.ended / problem.temperature
            parts["response"] = parts["response"] + ended @ self.completion.gradients
            if self.completion.baseline is not None:
                centred = weights.centred / problem.temperature
                parts["response"] = parts["response"] - centred @ self.completion.baseline
        return parts

    def _start(self, value: FloatArray) -> _Weights:
        shape = self.kernel.shape[:2]
        return _Weights(
            initial=self.start * value,
            direct=np.zeros(shape),
            transition=_Scores.zeros(self.kernel),
            response=np.zeros(shape),
            response_transition=_Scores.zeros(self.kernel),
            ended=np.zeros(shape[0]),
            centred=np.zeros(shape[0]),
        )

    def _leader_step(self, weights: _Weights, visits: FloatArray, k: int, value_ahead: FloatArray) -> None:
        weights.direct += visits
        if not self.scored:
            return
        weights.transition.add(self.kernel, self.discount * visits, value_ahead)
        if self.estimator.scores == "td_error":
            weights.transition.add_pair(-visits * (self._action_values(k) - self.tables.reward_leader))

    def _respond(self, weights: _Weights, trace: FloatArray) -> None:
        """Add the guiding term of an expected trace (S, A)."""
        problem, follower = self.context.problem, self.context.follower
        trace = trace / problem.temperature
        weights.response += trace
        if not self.scored:
            return
        weights.response_transition.add(self.kernel, problem.discount_follower * trace, follower.value)
        if self.estimator.scores == "td_error":
            weights.response_transition.add_pair(-trace * (follower.action_value - self.tables.reward_follower))

    def _respond_to_future(self, weights: _Weights, visits: FloatArray, returns: FloatArray) -> None:
        """Add the guiding term of traces that a return from the successor on, R_{k+1} in (2), is part of."""
        problem, follower = self.context.problem, self.context.follower
        visits = visits / problem.temperature
        weights.response += visits * expected_next(self.kernel, returns)
        if not self.scored:
            return
        scores = weights.response_transition
        scores.add(self.kernel, problem.discount_follower * visits, returns * follower.value)
        if self.estimator.scores == "td_error":
            scores.add(self.kernel, -visits * (follower.action_value - self.tables.reward_follower), returns)

    def _returns(self, paid: list[float]) -> FloatArray:
        """Return (steps + 1, S): what is still observed of the leader's return from each step on."""
        policy = self.context.follower.policy
        returns = np.zeros((len(paid) + 1, self.tables.states))
        for k in range(len(paid) - 1, -1, -1):
            ahead = self.discount * expected_next(self.kernel, returns[k + 1])
            returns[k] = (policy * (paid[k] * self.tables.reward_leader + ahead)).sum(axis=1)
        return returns

    def _to_go(self, k: int) -> int | None:
        limit = self.estimator.target.horizon
        return None if limit is None else max(limit - k, 0)

    def _values(self, k: int) -> FloatArray:
        value: FloatArray = self.critic.value(np.arange(self.tables.states), steps_to_go=self._to_go(k))
        return value

    def _action_values(self, k: int, critic: LeaderCritic | None = None) -> FloatArray:
        pairs = np.indices((self.tables.states, self.tables.actions))
        return (critic or self.critic).action_value(*pairs, steps_to_go=self._to_go(k))

    def _benefit(self, k: int) -> FloatArray:
        return self._action_values(k, self.sampled) - self._values(k)[:, None]


def _layout(kernel: Transition) -> FloatArray:
    probability: FloatArray = np.asarray(kernel.probability if isinstance(kernel, SparseTransition) else kernel)
    return probability


def _push(kernel: Transition, visits: FloatArray) -> FloatArray:
    """Return Σ_{s,a} visits(s, a) K(s'|s, a), shape (S,)."""
    states = kernel.shape[0]
    if isinstance(kernel, SparseTransition):
        moved = visits[:, :, None] * kernel.probability
        arrived: FloatArray = np.bincount(kernel.successor.ravel(), moved.ravel(), states).astype(np.float64)
        return arrived
    result: FloatArray = visits.ravel() @ np.reshape(kernel, (-1, states))
    return result
