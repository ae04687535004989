"""How the followers of many runs respond during training: exactly, or after too few sweeps.

All runs share one transition kernel and initial law; rewards are their own. Nothing mixes runs, not even a matrix
product over all of them, so a run's numbers do not depend on which others are trained beside it.

The exact follower is Newton's method with an inverse that is kept from iteration to iteration: while the policy moves
little, `V ← V + M (TV - V)` with an old `M = (I - γ_F P_π)⁻¹` contracts quickly, at the cost of a product instead of a
factorisation. A run whose residual does not shrink to a quarter gets a new inverse, which is Newton's step. Each state
is held against its own scale and its own rounding, as in `find_fixed_point`: a number that is large elsewhere ends
nothing early.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.sampling.compiled import compiled, expectation_loop, greatest_loop, normalise_loop
from bilevelrl.estimators.terms.batched import SeedBatch
from bilevelrl.reference import ConfigurableMDP, SparseTransition
from bilevelrl.reference.arrays import FloatArray, check_positive, store_floats
from bilevelrl.reference.doors import Count, NonNegative, checked
from bilevelrl.reference.errors import NotConvergedError, UnsupportedError
from bilevelrl.reference.tabular import state_scale

__all__ = ["Carried", "ExactFollower", "FollowerRule", "Rewards", "SharedDynamics", "SweepingFollower", "soft_maximum"]

Carried: TypeAlias = dict[str, FloatArray]
"""Named arrays (runs, ...) that a rule passes on from one outer iteration to the next."""

_SHRINKS = 0.25
_PATIENCE = 40
_TOGETHER = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewards:
    """Rewards of all runs: `follower` and `leader`, (runs, S, A), and the runs' parameters `thetas` (runs, N)."""

    thetas: FloatArray
    follower: FloatArray
    leader: FloatArray


class SharedDynamics:
    """A problem's kernel, compiled for expectations over successors that do not mix runs.

    Parameters
    ----------
    problem
        With a dense kernel, and with θ in the rewards (and the regulariser) only.
    theta
        Any parameter.
    shared
        False: of this θ alone, which may then enter the kernel and the initial law.

    Raises
    ------
    UnsupportedError
        If the kernel is sparse, or shared though θ enters it or the initial law.

    Examples
    --------
    >>> from bilevelrl.tasks import four_rooms
    >>> dynamics = SharedDynamics(four_rooms(), np.zeros(105))
    >>> dynamics.expected(np.ones((3, 104))).shape
    (3, 104, 4)
    """

    def __init__(self, problem: ConfigurableMDP, theta: FloatArray, *, shared: bool = True) -> None:
        moved = problem.varying(theta) & {"transition", "initial"}
        if moved and shared:
            raise UnsupportedError(f"{problem.name}: θ enters {sorted(moved)}: expected dynamics shared by all runs")
        tables = problem.tables_at(theta)
        if isinstance(tables.transition, SparseTransition):
            raise UnsupportedError(f"{problem.name}: expected a dense kernel to train runs together")
        self.problem = problem
        self.masked = tables.action_mask is not None and not tables.action_mask.all()
        self.kernel: FloatArray = np.asarray(tables.transition)
        self.initial: FloatArray = np.asarray(tables.initial)
        self.states, self.actions, _ = self.kernel.shape
        count = max(1, int((self.kernel > 0.0).sum(axis=2).max()))  # a kernel of zeros ends every path
        order = np.argsort(self.kernel <= 0.0, axis=2, kind="stable")[:, :, :count]
        # Successor by successor, (count, S, A).
        self._successor = np.ascontiguousarray(np.moveaxis(order, 2, 0))
        self._probability = np.ascontiguousarray(np.moveaxis(np.take_along_axis(self.kernel, order, axis=2), 2, 0))

    def refuse_mask(self, name: str) -> None:
        """Refuse a follower whose learning tries every action.

        Raises
        ------
        UnsupportedError
            If some action cannot be taken.
        """
        if self.masked:
            raise UnsupportedError(
                f"{name}: it starts from tables in which every action is played, and {self.problem.name} has an "
                "action_mask; use ExactFollower"
            )

    def rewards(self, thetas: FloatArray) -> Rewards:
        """Return the rewards of each run."""
        follower, leader = self.problem.rewards(thetas)
        if not (np.isfinite(follower).all() and np.isfinite(leader).all()):
            for theta in thetas:
                self.problem.tables_at(theta)  # names the entry
        return Rewards(thetas=thetas, follower=follower, leader=leader)

    def expected(self, value: FloatArray) -> FloatArray:
        """Return Σ_s' P(s'|s,a) value(s'), (runs, S, A), of values (runs, S)."""
        # One successor after the other: sums of fixed order, whatever the number of runs.
        total: FloatArray = self._probability[0] * np.take(value, self._successor[0], axis=1)
        for probability, successor in zip(self._probability[1:], self._successor[1:], strict=True):
            ahead = np.take(value, successor, axis=1)
            ahead *= probability
            total += ahead
        return total

    def systems(self, policy: FloatArray, discount: float) -> FloatArray:
        """Return I - discount · P_π of each run, (runs, S, S)."""
        system = np.zeros((policy.shape[0], self.states, self.states))
        rows = np.arange(self.states)
        for a in range(self.actions):
            for probability, successor in zip(self._probability, self._successor, strict=True):
                # Rows are distinct, so that each entry is added to once per pass.
                system[:, rows, successor[:, a]] -= discount * policy[:, :, a] * probability[:, a]
        system[:, rows, rows] += 1.0
        return system

    def pushed(self, weight: FloatArray) -> FloatArray:
        """Return Σ_{s,a} weight(s,a) P(s'|s,a), (runs, S), of weights (runs, S, A)."""
        runs = weight.shape[0]
        index = np.arange(runs)[:, None, None, None] * self.states + self._successor
        flow = weight[:, None] * self._probability
        total: Any = np.bincount(index.ravel(), weights=flow.ravel(), minlength=runs * self.states)
        reached: FloatArray = total.reshape(runs, self.states)
        return reached

    def soft_backup(self, reward: FloatArray, value: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the soft Bellman backup of values: (value, action_value, policy)."""
        fast = compiled(expectation_loop)
        if fast is None:
            action_value = reward + self.problem.discount_follower * self.expected(value)
        else:
            action_value = np.empty(reward.shape)
            given = (np.ascontiguousarray(reward), np.ascontiguousarray(value))
            fast(self._probability, self._successor, *given, float(self.problem.discount_follower), action_value)
        backed_up, policy = soft_maximum(action_value, self.problem.temperature)
        return backed_up, action_value, policy

    def rounding(self, reward: FloatArray, value: FloatArray, policy: FloatArray) -> FloatArray:
        """Return what rounding leaves of one backup's change, (runs, S): of what each state averages over."""
        size = np.abs(reward) + self.problem.discount_follower * self.expected(np.abs(value))
        scale = state_scale(np.abs(value), self.problem.temperature)
        unit = (self._successor.shape[0] + self.actions + 8) * float(np.finfo(np.float64).eps)
        level: FloatArray = unit * (np.vecdot(policy, size) + scale)
        return level

    def followers(self, rewards: Rewards, value: FloatArray, action_value: FloatArray, policy: FloatArray) -> SeedBatch:
        """Return the responses as a batch to sample and estimate from."""
        return SeedBatch(
            problem=self.problem,
            thetas=rewards.thetas,
            value=value,
            action_value=action_value,
            policy=policy,
            rewards_leader=rewards.leader,
        )


def soft_maximum(action_value: FloatArray, temperature: float) -> tuple[FloatArray, FloatArray]:
    """Return β log Σ_a exp(Q/β) and the policy softmax(Q/β) over the last axis."""
    greatest, normalise = compiled(greatest_loop), compiled(normalise_loop)
    if greatest is not None and normalise is not None:
        rows = np.ascontiguousarray(action_value).reshape(-1, action_value.shape[-1])
        weights, largest, total = np.empty(rows.shape), np.empty(rows.shape[0]), np.empty(rows.shape[0])
        greatest(rows, float(temperature), largest, weights)
        normalise(np.exp(weights, out=weights), total)
        values: FloatArray = largest + temperature * np.log(total)
        return values.reshape(action_value.shape[:-1]), weights.reshape(action_value.shape)
    actions = range(1, action_value.shape[-1])
    # Action by action: reductions over a short last axis are slow.
    largest = action_value[..., 0].copy()
    for a in actions:
        np.maximum(largest, action_value[..., a], out=largest)
    weights = np.exp((action_value - largest[..., None]) / temperature)
    total = weights[..., 0].copy()
    for a in actions:
        total += weights[..., a]
    return largest + temperature * np.log(total), weights / total[..., None]


class FollowerRule(Protocol):
    """How followers respond to the leaders of all runs."""

    def respond(
        self, dynamics: SharedDynamics, rewards: Rewards, carried: Carried, generators: Sequence[Generator]
    ) -> tuple[SeedBatch, Carried]:
        """Return the played responses and what to carry on; `carried` is empty at the first outer iteration."""
        ...


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class ExactFollower:
    """The best response, continued from the previous one.

    Parameters
    ----------
    tolerance
        Largest error of V_F, state by state, relative to its size there or to β.
    max_iterations
        Before giving up.

    Raises
    ------
    InvalidInputError
        If one is out of range.

    Examples
    --------
    >>> from bilevelrl.tasks import four_rooms
    >>> dynamics = SharedDynamics(four_rooms(), np.zeros(105))
    >>> played, carried = ExactFollower().respond(dynamics, dynamics.rewards(np.zeros((2, 105))), {}, [])
    >>> played.policy.shape, sorted(carried)
    ((2, 104, 4), ['inverse', 'value'])
    """

    tolerance: float = 1e-9
    max_iterations: Count = 200

    def __post_init__(self) -> None:
        store_floats(self)
        check_positive("tolerance", self.tolerance, "1e-9 is enough for temperatures of 1e-3")

    def respond(
        self, dynamics: SharedDynamics, rewards: Rewards, carried: Carried, generators: Sequence[Generator] = ()
    ) -> tuple[SeedBatch, Carried]:
        """Return the best responses.

        Raises
        ------
        NotConvergedError
            If a run's follower does not converge.
        """
        runs, states = rewards.follower.shape[:2]
        value = carried["value"].copy() if carried else np.zeros((runs, states))
        # Refreshed in place: to copy the largest array there is would cost as much as to use it.
        inverse = carried["inverse"] if carried else np.zeros((runs, states, states))
        action_value, policy = np.empty(rewards.follower.shape), np.empty(rewards.follower.shape)
        # Few at a time, so that their inverses stay in the processor's cache from one step to the next.
        for first in range(0, runs, _TOGETHER):
            part = slice(first, first + _TOGETHER)
            arrays = (value[part], inverse[part], action_value[part], policy[part])
            self._solve(dynamics, rewards.follower[part], *arrays, first=first, known=bool(carried))
        return dynamics.followers(rewards, value, action_value, policy), {"value": value, "inverse": inverse}

    def _solve(
        self,
        dynamics: SharedDynamics,
        reward: FloatArray,
        value: FloatArray,
        inverse: FloatArray,
        action_value: FloatArray,
        policy: FloatArray,
        *,
        first: int,
        known: bool,
    ) -> None:
        """Solve some runs in place; each leaves when its own residual is small."""
        discount = dynamics.problem.discount_follower
        rows = np.arange(reward.shape[0])
        # A run without an inverse gets one at its first step.
        before = np.full(rows.size, np.inf if known else 0.0)
        for iteration in range(self.max_iterations):
            backed_up, found, played = dynamics.soft_backup(reward[rows], value[rows])
            change = backed_up - value[rows]
            residual = (np.abs(change) / state_scale(backed_up, dynamics.problem.temperature)).max(axis=1)
            finished = residual <= self.tolerance * (1.0 - discount)
            stuck = ~finished & (residual > _SHRINKS * before[rows])
            if stuck.any():
                level = dynamics.rounding(reward[rows[stuck]], value[rows[stuck]], played[stuck])
                finished[stuck] = (np.abs(change[stuck]) <= level).all(axis=1)
            if finished.any():
                ended = rows[finished]
                value[ended], action_value[ended] = backed_up[finished], found[finished]
                policy[ended] = played[finished]
                rows, change, residual = rows[~finished], change[~finished], residual[~finished]
                if not rows.size:
                    return
                played = played[~finished]
            stale = residual > _SHRINKS * before[rows]
            if iteration >= _PATIENCE:
                stale[:] = True  # soft policy iteration, which cannot cycle
            if stale.any():
                inverse[rows[stale]] = np.linalg.inv(dynamics.systems(played[stale], discount))
            for place, row in enumerate(
                rows
            ):  # one product each: to gather the inverses would cost more than to use them
                value[row] += inverse[row] @ change[place]
            before[rows] = residual
        worst = int(np.argmax(residual))
        raise NotConvergedError(
            f"follower of run {first + int(rows[worst])}: residual {residual[worst]:.3g} of its size after "
            f"{self.max_iterations} iterations; check the temperature and the rewards, or raise max_iterations"
        )


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class SweepingFollower:
    """Modified soft policy iteration that stops early: what a follower with too little time plays.

    Its table Q counts the entropy of its own state. Each iteration fixes π = softmax(Q/β) and sweeps
    `Q ← r_F + β H(π) + γ_F P Σ_a π Q`; the follower plays softmax(Q/β).

    Parameters
    ----------
    iterations, sweeps
        Policy iterations, and sweeps in each.
    carry
        True: continue from the previous outer iteration's table. False: start anew each time.
    noise
        Standard deviation of the entries of a new table; 0: zeros.

    Raises
    ------
    InvalidInputError
        If one is out of range.

    References
    ----------
    Kudo et al. (2026), arXiv:2603.14867: the solver of its experiments, 100 iterations of 5 sweeps from zeros.
    """

    iterations: Count = 100
    sweeps: Count = 5
    carry: bool = False
    noise: NonNegative = 0.0

    def respond(
        self, dynamics: SharedDynamics, rewards: Rewards, carried: Carried, generators: Sequence[Generator]
    ) -> tuple[SeedBatch, Carried]:
        """Return what the followers play after the allowed sweeps."""
        dynamics.refuse_mask("SweepingFollower")
        beta, discount = dynamics.problem.temperature, dynamics.problem.discount_follower
        shape = rewards.follower.shape
        if self.carry and carried:
            table = carried["table"]
        elif self.noise > 0.0:
            table = self.noise * np.stack([rng.standard_normal(shape[1:]) for rng in generators])
        else:
            table = np.zeros(shape)
        for _ in range(self.iterations):
            _, policy = soft_maximum(table, beta)
            entropy = -np.where(policy > 0.0, policy * np.log(np.maximum(policy, 1e-300)), 0.0).sum(axis=2)
            earned = rewards.follower + beta * entropy[:, :, None]
            for _ in range(self.sweeps):
                table = earned + discount * dynamics.expected((policy * table).sum(axis=2))
        _, played = soft_maximum(table, beta)
        entropy = -np.where(played > 0.0, played * np.log(np.maximum(played, 1e-300)), 0.0).sum(axis=2)
        value = (played * table).sum(axis=2)
        action_value = table - beta * entropy[:, :, None]
        return dynamics.followers(rewards, value, action_value, played), ({"table": table} if self.carry else {})
