"""Tables of the gradient of the follower's values, exact or learnt, as λ-returns and baselines read them.

    ∇V_F(s) = Σ_a π(a|s) ∇Q_F(s,a),      ∇Q_F(s,a) = E[ x + γ_F ∇V_F(s') ],                                          (1)
    x = ∇r_F(s,a) + γ_F V_F(s') ∇log P(s'|s,a),                                                                      (2)

so ∇V_F is the expected discounted sum of x, as V is that of rewards, and it is learnt as V is: one row of N numbers per
state. Where θ enters as a reward of each state the table is the follower's successor representation.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from bilevelrl.estimators.estimator import Context
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.sums.lambda_returns import lambda_pass
from bilevelrl.estimators.sums.single_transitions import single_derivatives
from bilevelrl.reference import ConfigurableMDP, SparseTransition
from bilevelrl.reference.arrays import FloatArray, check_indices
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, ShapeError, UnsupportedError, refusal
from bilevelrl.reference.tabular import DiscountedSystem, expected_next, policy_transition

__all__ = [
    "GradientTable",
    "expected_ahead",
    "expected_follower_steps",
    "follower_steps",
    "kernel_slope",
    "reward_slope",
    "solved_once",
]

T = TypeVar("T")


def check_rows_of_states(name: str, table: FloatArray) -> None:
    """Refuse what is no matrix of finite numbers with one row per state."""
    if np.ndim(table) != 2:
        raise ShapeError(refusal(f"{name}.shape", np.shape(table), "(S, N)", "one row per state"))
    if not np.isfinite(table).all():
        raise InvalidInputError(f"{name}: expected finite numbers; check where they were learnt")


def rows_at(table: FloatArray, state: Any) -> FloatArray:
    """Return rows of a table (S, N) at states of any shape, (..., N); 0 at a terminal state (s = S)."""
    state = check_indices("state", state, len(table) + 1)
    result: FloatArray = np.concatenate([table, np.zeros((1, table.shape[1]))])[state]
    return result


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class GradientTable:
    """∇V_F as a table, a critic for `Context.follower_gradient`.

    Parameters
    ----------
    gradients : (S, N)
        ∇V̂_F of each state; a terminal state has 0.

    Raises
    ------
    ShapeError, InvalidInputError
        If it is not a matrix of finite numbers.

    Examples
    --------
    >>> from bilevelrl.reference import solve_follower
    >>> from bilevelrl.tasks import random_mdp
    >>> problem, theta = random_mdp(states=4, actions=2, parameters=3, seed=0), np.zeros(3)
    >>> context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    >>> step = np.array([1e-6, 0.0, 0.0])
    >>> above, below = (solve_follower(problem, theta + sign * step).value for sign in (1, -1))
    >>> exact = GradientTable.solve(context).value(np.arange(4))[:, 0]
    >>> bool(np.allclose(exact, (above - below) / 2e-6, rtol=1e-7))
    True
    """

    gradients: FloatArray

    def __post_init__(self) -> None:
        check_rows_of_states("gradients", self.gradients)

    @classmethod
    @checked
    def zeros(cls, context: Context) -> GradientTable:
        """Return the table before anything was learnt."""
        return cls(gradients=np.zeros((context.follower.policy.shape[0], context.theta.size)))

    @classmethod
    @checked
    def solve(cls, context: Context) -> GradientTable:
        """Return the exact table under the follower's policy and the problem's own kernel (arXiv:2603.14867, (6)).

        Raises
        ------
        UnsupportedError
            If the problem is not a configurable MDP.
        """

        def solved() -> GradientTable:
            steps = expected_follower_steps(context)
            kernel, policy = context.problem.tables_at(context.theta).transition, context.follower.policy
            system = DiscountedSystem.factorise(policy_transition(kernel, policy), context.problem.discount_follower)
            return cls(gradients=np.asarray(system.solve(np.einsum("sa,san->sn", policy, steps))))  # (1)

        return solved_once(context, ("∇V_F",), solved)

    @checked
    def value(self, state: Any) -> FloatArray:
        """Return ∇V̂_F at states of any shape (..., N); 0 at a terminal state (s = S)."""
        return rows_at(self.gradients, state)

    @checked
    def updated(
        self, trajectories: Trajectories, context: Context, *, step_size: float = 0.5, trace_decay: float = 0.0
    ) -> GradientTable:
        """Return the table after one pass of TD(λ) over a batch, backwards in time.

        Parameters
        ----------
        trajectories
            The batch; padding is skipped, truncated ends bootstrap.
        context
            Problem, θ and follower, which make up x.
        step_size
            In (0, 1].
        trace_decay
            λ in [0, 1].

        Raises
        ------
        InvalidInputError
            If step size or λ is out of range.
        """
        states = self.gradients.shape[0]
        after = np.where(trajectories.valid, trajectories.state_tp1, states)
        alive = after < states
        learnt = lambda_pass(
            self.gradients,
            trajectories,
            place=np.asarray(trajectories.state_t),
            increments=follower_steps(context, trajectories),
            ahead_place=np.where(alive, after, 0)[..., None],
            ahead_weight=alive[..., None].astype(np.float64),
            discount=context.problem.discount_follower,
            trace_decay=trace_decay,
            step_size=step_size,
        )
        return replace(self, gradients=learnt)


def solved_once(context: Context, what: tuple[Hashable, ...], solve: Callable[[], T]) -> T:
    """Return what is solved for one follower, as it was solved before where the problem keeps what is asked at θ."""
    if not isinstance(context.problem, ConfigurableMDP):
        return solve()
    follower = context.follower.policy.tobytes(), context.follower.value.tobytes()
    return context.problem.derivatives.cache.once((*what, *follower), context.theta, solve)


def follower_steps(context: Context, trajectories: Trajectories) -> FloatArray:
    """Return x at every step, (streams, steps, N); 0 at padding."""
    steps = single_derivatives(context, trajectories, "reward_follower")
    if "transition" in context.problem.varying(context.theta):
        ahead = context.problem.discount_follower * context.follower.value_at(trajectories.state_tp1)
        steps = steps + ahead[..., None] * single_derivatives(context, trajectories, "log_transition")  # (2)
    return np.where(trajectories.valid[..., None], steps, 0.0)


def expected_follower_steps(context: Context) -> FloatArray:
    """Return E[x | s, a] = ∇r_F + γ_F Σ_s' ∇P V_F(s'), (S, A, N).

    Raises
    ------
    UnsupportedError
        If the problem is not a configurable MDP.

    Examples
    --------
    >>> from bilevelrl.reference import solve_follower
    >>> from bilevelrl.tasks import random_mdp
    >>> problem, theta = random_mdp(states=4, actions=2, parameters=3, seed=0), np.zeros(3)
    >>> expected_follower_steps(Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))).shape
    (4, 2, 3)
    """
    reward = reward_slope(context, "reward_follower")
    return reward + kernel_slope(context, context.problem.discount_follower * context.follower.value)  # (2)


def reward_slope(context: Context, reward: str) -> FloatArray:
    """Return the gradient of a reward table, (S, A, N).

    Raises
    ------
    UnsupportedError
        If the problem is not a configurable MDP.
    """
    if not isinstance(context.problem, ConfigurableMDP):
        kind = type(context.problem).__name__
        raise UnsupportedError(f"problem of type {kind}: expected a ConfigurableMDP; tables of gradients need tables")
    zeros = np.zeros((*context.follower.policy.shape, context.theta.size))
    result: FloatArray = zeros + context.problem.jacobian(context.theta).get(reward, 0.0)
    return result


def kernel_slope(context: Context, value: FloatArray) -> FloatArray:
    """Return Σ_s' ∇P(s'|s,a) value(s'), (S, A, N)."""
    moved = context.problem.jacobian(context.theta).get("transition")
    if moved is None:
        return np.zeros((*context.follower.policy.shape, context.theta.size))
    kernel = context.problem.tables_at(context.theta).transition
    if isinstance(kernel, SparseTransition):
        sparse: FloatArray = np.einsum("sakn,sak->san", moved, value[kernel.successor])
        return sparse
    result: FloatArray = np.einsum("satn,t->san", moved, value)
    return result


def expected_ahead(context: Context, values: FloatArray) -> FloatArray:
    """Return Σ_s' P(s'|s,a) values(s'), (S, A, N) for values (S, N)."""
    result: FloatArray = expected_next(context.problem.tables_at(context.theta).transition, values)
    return result
