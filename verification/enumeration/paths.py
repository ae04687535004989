"""Every trajectory of a small problem, with its probability, in batches of bounded size.

A trajectory branches over actions with π(a|s) > 0 and successors with P(s'|s,a) > 0; where a row of the kernel sums to
less than one, the rest is one more branch, termination. Prefixes are expanded level by level with NumPy and split
whenever their children would exceed the batch size, so that memory stays bounded whatever the number of paths.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bilevelrl.estimators import Trajectories
from bilevelrl.reference import SparseTransition, Tables
from bilevelrl.reference.arrays import FloatArray, IntArray
from bilevelrl.reference.doors import check_stream_steps
from bilevelrl.reference.errors import ShapeError, refusal
from bilevelrl.reference.tabular import ROW_SUM_TOLERANCE, Transition

__all__ = ["PathLaw", "multiset_count"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PathLaw:
    """The law of streams of trajectories under a policy, as a list of branches per state.

    State S stands for "ended": its one branch leads back to itself with probability one. Where episodes follow each
    other, a branch that ends an episode also draws the first state of the next.

    Attributes
    ----------
    initial : (S,)
        Law of the first state.
    first : (S + 2,)
        The branches of state s are `first[s]:first[s + 1]`.
    action, state_tp1, next_state : (branches,)
        What a branch does; state_tp1 = S is termination; `next_state` is where the stream goes on.
    probability : (branches,)
        π(a|s) P(s'|s,a), or π(a|s) times the missing mass.
    reward_leader, log_policy : (S, A)
        What trajectories record beside states and actions.
    single_episode : bool
        False: episodes follow each other within a stream.
    """

    initial: FloatArray
    first: IntArray
    action: IntArray
    state_tp1: IntArray
    next_state: IntArray
    probability: FloatArray
    reward_leader: FloatArray
    log_policy: FloatArray
    single_episode: bool

    @classmethod
    def of(
        cls,
        tables: Tables,
        policy: FloatArray,
        *,
        kernel: Transition | None = None,
        initial: FloatArray | None = None,
        single_episode: bool = True,
    ) -> PathLaw:
        """Build the law from tables and a policy (S, A).

        Parameters
        ----------
        tables, policy
            The model, and who acts in it.
        kernel, initial
            Replace the tables' transitions and initial law, as a simulator may.
        single_episode
            False: after a termination the stream goes on with a new episode.

        Raises
        ------
        ShapeError
            If the policy does not fit the tables.
        """
        states, actions = tables.states, tables.actions
        if policy.shape != (states, actions):
            raise ShapeError(
                refusal("follower.policy.shape", policy.shape, f"{(states, actions)}", "solve the follower at this θ")
            )
        start = np.asarray(tables.initial if initial is None else initial, dtype=np.float64)
        state, action, state_tp1, probability = _branches(tables.transition if kernel is None else kernel, policy)
        next_state = state_tp1.copy()
        if not single_episode:
            begin = np.flatnonzero(start)
            copies = np.where(state_tp1 == states, begin.size, 1)
            state, action, state_tp1 = (np.repeat(values, copies) for values in (state, action, state_tp1))
            probability = np.repeat(probability, copies)
            ending = state_tp1 == states
            next_state = state_tp1.copy()
            next_state[ending] = np.tile(begin, ending.sum() // begin.size)
            probability[ending] *= start[next_state[ending]]
        counts = np.bincount(state, minlength=states)
        with np.errstate(divide="ignore"):
            log_policy = np.log(policy)
        return cls(
            initial=start,
            first=np.concatenate([[0], np.cumsum(np.append(counts, 1))]).astype(np.int64),
            action=np.append(action, 0),
            state_tp1=np.append(state_tp1, states),
            next_state=np.append(next_state, states),
            probability=np.append(probability, 1.0),
            reward_leader=np.asarray(tables.reward_leader, dtype=np.float64),
            log_policy=log_policy,
            single_episode=single_episode,
        )

    @property
    def states(self) -> int:
        """Number of states S; also the number that stands for "ended"."""
        return self.initial.size

    def count(self, horizon: int) -> int:
        """Return the number of trajectories of at most `horizon` steps, without making them.

        Examples
        --------
        >>> from bilevelrl.verification.enumeration.paths import PathLaw
        >>> tables = Tables(
        ...     transition=np.full((3, 2, 3), 1 / 3), reward_follower=np.zeros((3, 2)),
        ...     reward_leader=np.zeros((3, 2)), initial=np.array([1.0, 0.0, 0.0]))
        >>> PathLaw.of(tables, np.full((3, 2), 0.5)).count(5)
        7776
        """
        check_path_horizon(horizon)
        ahead = [1] * (self.states + 1)  # exact integers: these numbers overflow 64 bits quickly
        for _ in range(horizon):
            ahead = [
                sum(ahead[int(s)] for s in self.next_state[self.first[i] : self.first[i + 1]])
                for i in range(self.states + 1)
            ]
        return sum(ahead[int(s)] for s in np.flatnonzero(self.initial))

    def batches(self, horizon: int, *, largest: int) -> Iterator[tuple[Trajectories, FloatArray]]:
        """Yield batches of at most `largest` different trajectories with their probabilities, every trajectory once.

        Parameters
        ----------
        horizon
            Trajectories that have not ended by then are truncated.
        largest
            Number of streams of a batch; a single prefix may exceed it by its own branches.
        """
        check_path_horizon(horizon)
        begin = np.flatnonzero(self.initial)
        pending = [(begin, begin, np.zeros((begin.size, 0), dtype=np.int64), self.initial[begin])]
        while pending:
            start, now, taken, probability = pending.pop()
            if taken.shape[1] == horizon:
                yield self._trajectories(start, taken), probability
                continue
            width = self.first[now + 1] - self.first[now]
            pieces = _pieces(width, largest)
            if len(pieces) > 1:
                pending.extend((start[p], now[p], taken[p], probability[p]) for p in reversed(pieces))
                continue
            parent = np.repeat(np.arange(now.size), width)
            within = np.arange(parent.size) - np.repeat(np.cumsum(width) - width, width)
            branch = self.first[now][parent] + within
            pending.append(
                (
                    start[parent],
                    self.next_state[branch],
                    np.concatenate([taken[parent], branch[:, None]], axis=1),
                    probability[parent] * self.probability[branch],
                )
            )

    def _trajectories(self, start: IntArray, taken: IntArray) -> Trajectories:
        visited = np.concatenate([start[:, None], self.next_state[taken[:, :-1]]], axis=1)
        state_tp1 = self.state_tp1[taken]
        valid = visited != self.states
        # Padding looks like an ordinary visit of state 0: an estimator that ignores `valid` must not get away with it.
        state_t, action_t = np.where(valid, visited, 0), self.action[taken]
        ended = valid & (state_tp1 == self.states)
        truncated = np.zeros_like(valid)
        if self.single_episode:
            truncated[:, -1] = valid[:, -1] & ~ended[:, -1]
        steps = np.broadcast_to(np.arange(taken.shape[1]), taken.shape)
        begins = np.where(ended, steps + 1, 0)[:, :-1]
        since = np.maximum.accumulate(np.concatenate([np.zeros_like(start[:, None]), begins], axis=1), axis=1)
        return Trajectories(
            state_t=state_t,
            action_t=action_t,
            state_tp1=state_tp1,
            reward_leader_t=np.where(valid, self.reward_leader[state_t, action_t], 0.0),
            terminated=ended,
            truncated=truncated,
            time_in_episode=np.where(valid, steps - since, 0),
            valid=valid,
            behaviour_log_prob=np.where(valid, self.log_policy[state_t, action_t], 0.0),
        )


def _branches(kernel: Transition, policy: FloatArray) -> tuple[IntArray, IntArray, IntArray, FloatArray]:
    """Return state, action, state_tp1 and probability of everything that can happen, ordered by state."""
    if isinstance(kernel, SparseTransition):
        successor, rows = kernel.successor, np.asarray(kernel.probability)
    else:
        rows = np.asarray(kernel)
        successor = np.broadcast_to(np.arange(rows.shape[0]), rows.shape)
    states, actions, _ = rows.shape
    missing = 1.0 - rows.sum(axis=2, keepdims=True)
    missing[missing <= ROW_SUM_TOLERANCE] = 0.0  # the rounding of a row that sums to one, as for the sampler
    rows = np.concatenate([rows, missing], axis=2)
    successor = np.concatenate([successor, np.full((states, actions, 1), states)], axis=2)
    joint = policy[:, :, None] * rows
    state, action, column = np.nonzero(joint)
    return state, action, successor[state, action, column], joint[state, action, column]


def multiset_count(kinds: int, size: int) -> int:
    """Return the number of multisets of `size` elements out of `kinds` kinds: C(kinds + size - 1, size).

    Examples
    --------
    >>> multiset_count(64, 2)
    2080
    """
    total = 1
    for i in range(size):
        total = total * (kinds + i) // (i + 1)
    return total


def check_path_horizon(horizon: int, name: str = "horizon") -> int:
    """Return a horizon in [1, 1,000,000], or raise: paths of infinite length cannot be listed."""
    return check_stream_steps(name, horizon)


def _pieces(width: IntArray, largest: int) -> list[slice]:
    """Cut consecutive prefixes so that the children of each piece number at most `largest` (or the piece is one)."""
    total = np.cumsum(width)
    if total[-1] <= largest:
        return [slice(0, width.size)]
    pieces, begin = [], 0
    while begin < width.size:
        done = total[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(total, done + largest, side="right")))
        pieces.append(slice(begin, end))
        begin = end
    return pieces
