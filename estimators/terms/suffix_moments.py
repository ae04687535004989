"""Exact mean and covariance of sums along fresh suffixes, by dynamic programming.

For `G = Σ_k γ^k x_k`, cut after a number of steps or not, the recursions over one more step in front are

    m_Q(s,a) = E[ x + γ m_V(s') ],                                                                                   (1)
    M_Q(s,a) = E[ x xᵀ + γ (x m_V(s')ᵀ + m_V(s') xᵀ) + γ² M_V(s') ],                                                 (2)

with m_V and M_V their averages over the policy. A sum without discount that stops at a geometric time has γ in place of
γ² in front of M_V. They let exact checks integrate fresh samples out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilevelrl.estimators.estimator import Context
from bilevelrl.estimators.sampling.trajectories import Trajectories, TransitionVisits
from bilevelrl.estimators.terms.fresh_suffixes import weighted_steps
from bilevelrl.estimators.terms.tabular import Scores
from bilevelrl.reference import SparseTransition
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import UnsupportedError
from bilevelrl.reference.tabular import ROW_SUM_TOLERANCE, to_dense

__all__ = [
    "SuffixMoments",
    "expected_suffix_steps",
    "gradient_sum_means",
    "gradient_sum_moments",
    "return_moments",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SuffixMoments:
    """First two moments of sums along fresh suffixes from each pair and from each state.

    Attributes
    ----------
    pair_mean : (S, A, N)
    pair_covariance : (S, A, N, N)
    state_mean : (S, N)
    state_covariance : (S, N, N)
    """

    pair_mean: FloatArray
    pair_covariance: FloatArray
    state_mean: FloatArray
    state_covariance: FloatArray

    def of_guiding_term(
        self, trajectories: Trajectories, weight: FloatArray, benefit: FloatArray, variance: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return mean (M, N) and covariance (M, N, N) of Σ_t w_t B_t (x_Q - x_V)(s_t, a_t), given the path.

        `benefit` and `variance` are those of B_t (M, T), which is independent of the suffixes.
        """
        state, action = np.where(trajectories.valid, trajectories.state_t, 0), trajectories.action_t
        difference = self.pair_mean[state, action] - self.state_mean[state]
        mean: FloatArray = np.einsum("mt,mt,mtn->mn", weight, benefit, difference)
        spread = self.pair_covariance[state, action] + self.state_covariance[state]
        covariance = np.einsum("mt,mtij->mij", weight**2 * (benefit**2 + variance), spread)
        covariance += np.einsum("mt,mti,mtj->mij", weight**2 * variance, difference, difference)
        return mean, covariance


def gradient_sum_means(context: Context, *, steps: int | None, scores: Scores) -> tuple[FloatArray, FloatArray]:
    """Return the means (S, A, N) and (S, N) of the sums that `fresh_gradient_sums` draws from pairs and from states.

    Parameters
    ----------
    context
        A tabular problem with a dense kernel, the follower and the simulator.
    steps
        Length of a suffix; None: stopped at a geometric time.
    scores
        As in `weighted_steps`.
    """
    recursion = _Recursion.of(context, _derivative_per_step(context, scores), context.problem.discount_follower, steps)
    return recursion.means()


def gradient_sum_moments(context: Context, *, steps: int | None, scores: Scores) -> SuffixMoments:
    """Return mean and covariance of the same sums; memory grows with S A N².

    Parameters
    ----------
    context, steps, scores
        As in `gradient_sum_means`.
    """
    x = _derivative_per_step(context, scores)
    return _Recursion.of(context, x, context.problem.discount_follower, steps).moments()


def return_moments(context: Context, *, steps: int | None, discount: float) -> SuffixMoments:
    """Return mean and covariance (N = 1) of the leader's return along a fresh suffix of `steps` steps, or stopped."""
    reward = np.asarray(context.problem.tables_at(context.theta).reward_leader)
    return _Recursion.of(context, _at_every_successor(reward[:, :, None]), discount, steps).moments()


def expected_suffix_steps(context: Context, *, steps: int | None, discount: float) -> tuple[FloatArray, FloatArray]:
    """Return the expected number of steps of a suffix from each pair (S, A) and from each state (S,).

    Parameters
    ----------
    context
        Problem, follower and simulator.
    steps, discount
        Length of a suffix; None: stopped at a geometric time with `Pr(κ ≥ k) = discount^k`.
    """
    each_counts = _at_every_successor(np.ones((*context.follower.policy.shape, 1)))
    pair, state = _Recursion.of(context, each_counts, discount if steps is None else 1.0, steps).means()
    return pair[..., 0], state[..., 0]


def _at_every_successor(pairs: FloatArray) -> FloatArray:
    """Return (S, A, S + 1, N) from (S, A, N), without copying."""
    states, actions, count = pairs.shape
    return np.broadcast_to(pairs[:, :, None, :], (states, actions, states + 1, count))


def _derivative_per_step(context: Context, scores: Scores) -> FloatArray:
    """Return x = ∇r_F + (weight of the score) ∇log P, (S, A, S + 1, N), the last successor being the end."""
    problem, theta = context.problem, context.theta
    tables, jacobian = problem.tables_at(theta), problem.jacobian(theta)
    if isinstance(tables.transition, SparseTransition):
        raise UnsupportedError("moments of fresh suffixes: expected a dense kernel; enumerate small problems only")
    states, actions = tables.states, tables.actions
    x = _at_every_successor(jacobian.get("reward_follower", np.zeros((states, actions, theta.size))))
    if "transition" not in jacobian:
        return x
    state_t, action_t, state_tp1 = np.indices((states, actions, states + 1))
    everything = TransitionVisits(state_t=state_t, action_t=action_t, state_tp1=state_tp1)
    factor = weighted_steps(context, everything, np.ones(state_t.shape), scores)["log_transition"]
    kernel, moved = _with_end(np.asarray(tables.transition)), jacobian["transition"]
    moved = np.concatenate([moved, -moved.sum(axis=2, keepdims=True)], axis=2)
    # Rows that sum to one end with a probability that is only rounding.
    possible = kernel > ROW_SUM_TOLERANCE * (state_tp1 == states)
    scored: FloatArray = np.where(possible, factor / np.where(possible, kernel, 1.0), 0.0)[..., None] * moved
    return x + scored


def _with_end(kernel: FloatArray) -> FloatArray:
    """Append the probability of ending, (S, A, S + 1)."""
    return np.concatenate([kernel, 1.0 - kernel.sum(axis=2, keepdims=True)], axis=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recursion:
    """One step in front of sums of x (S, A, S + 1, N) under the kernel that moves the samples."""

    kernel: FloatArray
    policy: FloatArray
    x: FloatArray
    first: FloatArray  # E[x | s, a]
    discount: float
    steps: int | None

    @classmethod
    def of(cls, context: Context, x: FloatArray, discount: float, steps: int | None) -> _Recursion:
        problem, theta, simulator = context.problem, context.theta, context.simulator
        chosen = problem.tables_at(theta).transition if simulator is None else simulator.kernel(problem, theta)
        kernel = np.asarray(to_dense(chosen))
        first = np.einsum("sat,satn->san", _with_end(kernel), x)
        return cls(kernel=kernel, policy=context.follower.policy, x=x, first=first, discount=discount, steps=steps)

    def average(self, pairs: FloatArray) -> FloatArray:
        """Average over the policy."""
        result: FloatArray = np.einsum("sa,sa...->s...", self.policy, pairs)
        return result

    def matrix(self) -> FloatArray:
        """I - γ P_π."""
        chain = np.einsum("sa,sat->st", self.policy, self.kernel)
        result: FloatArray = np.eye(chain.shape[0]) - self.discount * chain
        return result

    def pair_mean(self, ahead: FloatArray) -> FloatArray:
        """Mean from each pair, given that from each state one step later."""
        result: FloatArray = self.first + self.discount * np.tensordot(self.kernel, ahead, axes=1)  # (1)
        return result

    def state_means(self) -> list[FloatArray]:
        """Means from each state with 0, 1, … steps to go up to one before the last; only the last one if stopped."""
        if self.steps is None:
            stopped: FloatArray = np.linalg.solve(self.matrix(), self.average(self.first)).astype(np.float64)
            return [stopped]
        means = [np.zeros((self.kernel.shape[0], self.x.shape[-1]))]
        for _ in range(self.steps - 1):
            means.append(self.average(self.pair_mean(means[-1])))
        return means

    def means(self) -> tuple[FloatArray, FloatArray]:
        """Means from each pair and from each state."""
        pair = self.pair_mean(self.state_means()[-1])
        return pair, self.average(pair)

    def moments(self) -> SuffixMoments:
        """Means and covariances."""
        means = self.state_means()
        square = np.einsum("sat,satn,satm->sanm", _with_end(self.kernel), self.x, self.x, optimize=True)

        def without_later(ahead: FloatArray) -> FloatArray:
            crossed = np.einsum("sat,satn,tm->sanm", self.kernel, self.x[:, :, :-1], ahead, optimize=True)
            result: FloatArray = square + self.discount * (crossed + np.swapaxes(crossed, -1, -2))
            return result

        if self.steps is None:
            later_discount = self.discount
            here = self.average(without_later(means[-1]))
            flat = here.reshape(len(here), here[0].size)
            second = np.linalg.solve(self.matrix(), flat).reshape(here.shape)
        else:
            later_discount = self.discount**2
            second = np.zeros((self.kernel.shape[0], *square.shape[2:]))
            for ahead in means[:-1]:
                second = self.average(without_later(ahead) + later_discount * np.tensordot(self.kernel, second, axes=1))
        pair_second = without_later(means[-1]) + later_discount * np.tensordot(self.kernel, second, axes=1)  # (2)
        pair_mean = self.pair_mean(means[-1])
        state_mean, state_second = self.average(pair_mean), self.average(pair_second)
        return SuffixMoments(
            pair_mean=pair_mean,
            pair_covariance=pair_second - pair_mean[..., :, None] * pair_mean[..., None, :],
            state_mean=state_mean,
            state_covariance=state_second - state_mean[..., :, None] * state_mean[..., None, :],
        )
