"""SARSA for the leader's action values: a table that is carried along and corrected by each batch.

One pass visits the transitions of a batch once, in a given order, and corrects in place

    Q(s_t, a_t) ← Q(s_t, a_t) + α [ r_L + γ_L Q(s_{t+1}, a_{t+1}) - Q(s_t, a_t) ].                                  (1)

Later updates see earlier ones, so the result depends on the order. After a termination the continuation is zero. Where
the observation stopped though the process goes on no a_{t+1} is recorded: the continuation is then the expectation of Q
under the follower's policy ("bootstrap"), or cut to zero as if the process had ended ("cut": what published experiments
run; it biases the values of every state near the end of a stream).

A critic that has learnt from a batch and is then used on it makes the benefit depend on the samples that it multiplies.
`updated` returns a new critic, so that an experiment chooses: estimate with the old one (delayed) or the new.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Self, TypeAlias

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.estimator import Context, LeaderCritic
from bilevelrl.estimators.sampling.compiled import compiled, sarsa_loop
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.sums.traces import continues
from bilevelrl.reference import TabularFollower
from bilevelrl.reference.arrays import BoolArray, FloatArray, IntArray, check_indices, check_pairs
from bilevelrl.reference.doors import Discount, checked
from bilevelrl.reference.errors import InvalidInputError, ShapeError, refusal

__all__ = ["SarsaCritic", "TruncationTreatment", "UpdateOrder", "learnt_from", "sarsa_pass"]

TruncationTreatment: TypeAlias = Literal["bootstrap", "cut"]
UpdateOrder: TypeAlias = Literal["random", "time"]


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class SarsaCritic:
    """Leader's values as a table learnt by SARSA.

    Parameters
    ----------
    table : (S, A)
        The current Q_L, carried from batch to batch; pairs that were never visited keep what they started with.
    policy : (S, A)
        The follower's policy, over which V_L(s) = Σ_a π(a|s) Q_L(s,a) averages.
    discount_leader : float
        γ_L.
    step_size : float
        α in (0, 1].
    truncation
        "bootstrap" or "cut": see the module.
    order
        "random": each pass visits the transitions in a uniformly random order; "time": stream after stream, each
        forward in time.

    Raises
    ------
    InvalidInputError, ShapeError
        If an argument is out of range or the shapes of table and policy differ.

    Examples
    --------
    >>> critic = SarsaCritic(table=np.zeros((2, 1)), policy=np.ones((2, 1)), discount_leader=0.5, order="time")
    >>> path = Trajectories(
    ...     state_t=np.array([[0, 1]]), action_t=np.array([[0, 0]]), state_tp1=np.array([[1, 2]]),
    ...     reward_leader_t=np.array([[1.0, 4.0]]), terminated=np.array([[False, True]]),
    ...     truncated=np.array([[False, False]]), time_in_episode=np.array([[0, 1]]),
    ...     valid=np.array([[True, True]]), behaviour_log_prob=np.zeros((1, 2)))
    >>> critic.updated(path).table.ravel()
    array([0.5, 2. ])
    """

    table: FloatArray
    policy: FloatArray
    discount_leader: Discount
    step_size: float = 0.5
    truncation: TruncationTreatment = "bootstrap"
    order: UpdateOrder = "random"

    def __post_init__(self) -> None:
        if np.ndim(self.table) != 2 or np.shape(self.table) != np.shape(self.policy):
            raise ShapeError(
                refusal(
                    "table.shape",
                    self.table.shape,
                    f"(S, A) = policy.shape = {self.policy.shape}",
                    "one entry per pair",
                )
            )
        _check_step_size(self.step_size)

    @classmethod
    @checked
    def start(
        cls,
        follower: TabularFollower,
        discount_leader: Discount,
        *,
        rng: Generator | None = None,
        step_size: float = 0.5,
        truncation: TruncationTreatment = "bootstrap",
        order: UpdateOrder = "random",
    ) -> Self:
        """Return a critic with an initial table drawn from N(0, 1), or of zeros without a generator.

        Examples
        --------
        >>> from bilevelrl.reference import solve_follower
        >>> from bilevelrl.tasks import random_mdp
        >>> follower = solve_follower(random_mdp(states=4, actions=2, parameters=3, seed=0), np.zeros(3))
        >>> SarsaCritic.start(follower, 0.9, rng=np.random.default_rng(0)).table.shape
        (4, 2)
        """
        shape = follower.policy.shape
        return cls(
            table=np.zeros(shape) if rng is None else rng.standard_normal(shape),
            policy=follower.policy,
            discount_leader=discount_leader,
            step_size=step_size,
            truncation=truncation,
            order=order,
        )

    def action_value(self, state: Any, action: Any, *, steps_to_go: Any = None) -> FloatArray:
        """Q_L(s, a) from the table, whatever the steps to go; zero at a terminal state."""
        padded = np.concatenate([self.table, np.zeros((1, self.table.shape[1]))])
        result: FloatArray = padded[check_pairs(("state", state, len(padded)), ("action", action, padded.shape[1]))]
        return result

    def value(self, state: Any, *, steps_to_go: Any = None) -> FloatArray:
        """V_L(s) = Σ_a π(a|s) Q_L(s,a); zero at a terminal state."""
        padded = np.append((self.policy * self.table).sum(axis=1), 0.0)
        result: FloatArray = padded[check_indices("state", state, len(padded))]
        return result

    def with_policy(self, policy: FloatArray) -> Self:
        """Return the same table under another follower's policy, at the start of the next outer iteration."""
        return replace(self, policy=policy)

    @checked
    def updated(
        self, trajectories: Trajectories, *, rng: Generator | None = None, order: IntArray | None = None
    ) -> SarsaCritic:
        """Return the critic after one pass over a batch.

        Parameters
        ----------
        trajectories
            The batch; padding is skipped.
        rng
            Draws the order where `self.order` is "random".
        order : (streams * steps,)
            Fixes the order instead: a permutation of the transitions, counted stream by stream.

        Raises
        ------
        InvalidInputError
            If a random order is asked for without a generator, or `order` is not a permutation.
        """
        if order is None and self.order == "random":
            if rng is None:
                raise InvalidInputError(
                    "rng=None: expected a numpy Generator for order='random'; pass rng=... or order='time'"
                )
            order = rng.permutation(trajectories.streams * trajectories.steps)
        table = sarsa_pass(
            self.table,
            trajectories,
            self.policy,
            discount_leader=self.discount_leader,
            step_size=self.step_size,
            truncation=self.truncation,
            order=order,
        )
        return replace(self, table=table)


def learnt_from(critic: LeaderCritic, trajectories: Trajectories, context: Context) -> LeaderCritic:
    """Return a critic after a pass over a batch; one that is not a `SarsaCritic` is copied into a table first."""
    if isinstance(critic, SarsaCritic):
        return critic.updated(trajectories, rng=context.rng)
    policy = context.follower.policy
    values = SarsaCritic(
        table=critic.action_value(*np.indices(policy.shape)),
        policy=policy,
        discount_leader=context.problem.discount_leader,
        order="time",
    )
    return values.updated(trajectories)


@checked
def sarsa_pass(
    table: FloatArray,
    trajectories: Trajectories,
    policy: FloatArray,
    *,
    discount_leader: Discount,
    step_size: float | FloatArray,
    truncation: TruncationTreatment = "bootstrap",
    order: IntArray | None = None,
) -> FloatArray:
    """Return the table after one in-place pass over a batch; the argument is not changed.

    Parameters
    ----------
    table : (S, A) or (B, S, A)
        One table, or one for each of B independent runs.
    trajectories
        Streams b·E … (b+1)·E - 1 belong to run b, with E = streams / B.
    policy : (S, A) or (B, S, A)
        The follower's, for continuations beyond a truncation.
    discount_leader, step_size, truncation
        As in `SarsaCritic`; the step size may be one for each run, (B,).
    order : (K,) or (B, K)
        Permutation of a run's K = E · steps transitions, counted stream by stream; None: stream after stream, forward
        in time.

    Returns
    -------
    (S, A) or (B, S, A)

    Raises
    ------
    InvalidInputError, ShapeError
        If an argument is out of range, the streams cannot be shared out, or `order` is not a permutation.

    References
    ----------
    Rummery & Niranjan (1994); as the critic of Kudo et al. (2026), arXiv:2603.14867, Section 6.
    """
    for each in np.ravel(step_size):
        _check_step_size(float(each))
    tables = np.array(table, dtype=np.float64, ndmin=3)
    runs = len(tables)
    if np.ndim(table) not in (2, 3) or trajectories.streams % runs:
        raise ShapeError(
            refusal(
                "table.shape",
                np.shape(table),
                f"(S, A), or (B, S, A) with B dividing {trajectories.streams}",
                "one table per run",
            )
        )
    _, states, actions = tables.shape
    try:
        trajectories.check_states(states, actions)
    except InvalidInputError as error:
        raise InvalidInputError(f"table of {states} states and {actions} actions: {error}") from error
    if np.shape(policy) not in ((states, actions), tables.shape):
        raise ShapeError(refusal("policy.shape", np.shape(policy), f"{(states, actions)}", "fit it to table"))
    if np.shape(step_size) not in ((), (runs,)):
        raise ShapeError(refusal("step_size.shape", np.shape(step_size), f"() or ({runs},)", "one per run"))
    policies = np.broadcast_to(policy, tables.shape)
    length = (trajectories.streams // runs) * trajectories.steps
    orders = _checked_order(order, runs, length)
    goes_on = np.zeros_like(trajectories.valid)  # the next action is recorded
    goes_on[:, :-1] = continues(trajectories)[:, 1:]
    next_action = np.full(np.shape(trajectories.action_t), -1)
    next_action[:, :-1] = np.asarray(trajectories.action_t)[:, 1:]
    next_action[~goes_on] = -1
    next_state = np.where(trajectories.valid & ~trajectories.terminated, trajectories.state_tp1, states)
    if truncation == "cut":
        next_state[~goes_on] = states

    def by_run(values: Any, kind: type) -> Any:
        return np.ascontiguousarray(np.asarray(values, dtype=kind).reshape(runs, length))

    padded = np.concatenate([tables, np.zeros((runs, 1, actions))], axis=1)
    run_pass = compiled(sarsa_loop) or _plain_pass
    run_pass(
        padded,
        np.concatenate([policies, np.zeros((runs, 1, actions))], axis=1),
        np.broadcast_to(np.asarray(step_size, dtype=np.float64), (runs,)).copy(),
        orders,
        by_run(trajectories.valid, np.bool_),
        by_run(trajectories.state_t, np.int64),
        by_run(trajectories.action_t, np.int64),
        by_run(np.where(trajectories.valid, trajectories.reward_leader_t, 0.0), np.float64),
        by_run(next_state, np.int64),
        by_run(next_action, np.int64),
        float(discount_leader),
    )
    return padded[:, :-1].reshape(np.shape(table))


def _plain_pass(
    tables: FloatArray,
    policy: FloatArray,
    step_sizes: FloatArray,
    order: IntArray,
    valid: BoolArray,
    state: IntArray,
    action: IntArray,
    reward: FloatArray,
    next_state: IntArray,
    next_action: IntArray,
    discount: float,
) -> None:
    """`sarsa_loop` over plain floats, which cost less than arrays of one number."""
    actions = tables.shape[2]
    for b in range(tables.shape[0]):
        values, rate = tables[b].ravel().tolist(), float(step_sizes[b])
        chosen = order[b][valid[b][order[b]]]
        columns = (state[b] * actions + action[b], reward[b], next_state[b], next_action[b])
        for here, earned, after, then in zip(*(column[chosen].tolist() for column in columns), strict=True):
            first, ahead = after * actions, 0.0
            if then >= 0:
                ahead = values[first + then]
            else:
                for p, q in zip(policy[b, after].tolist(), values[first : first + actions], strict=True):
                    ahead += p * q
            old = values[here]
            values[here] = old + rate * (earned + discount * ahead - old)  # (1)
        tables[b] = np.reshape(values, tables.shape[1:])


def _checked_order(order: IntArray | None, runs: int, length: int) -> IntArray:
    """Return orders (runs, length), refusing what is not a permutation."""
    identity = np.arange(length)
    if order is None:
        return np.tile(identity, (runs, 1))
    given = np.asarray(order)
    if given.shape not in ((length,), (runs, length)):
        raise ShapeError(refusal("order.shape", given.shape, f"({length},) or ({runs}, {length})", "permute all steps"))
    orders: IntArray = np.ascontiguousarray(np.broadcast_to(given, (runs, length)))
    inside = bool(((given >= 0) & (given < length)).all()) and np.issubdtype(given.dtype, np.integer)
    seen = np.zeros((runs, length), dtype=np.bool_)
    if inside:
        seen[np.arange(runs)[:, None], orders] = True
    if not seen.all():
        raise InvalidInputError(f"order: expected a permutation of 0 … {length - 1}; each transition is visited once")
    return orders


def _check_step_size(step_size: float) -> None:
    if not (np.isfinite(step_size) and 0.0 < step_size <= 1.0):
        raise InvalidInputError(refusal("step_size", step_size, "a number in (0, 1]", "0.5 is a usual choice"))
