"""Advancing many streams of a tabular problem together, one NumPy step per time step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.sampling.compiled import compiled, episode_loop, walk_loop
from bilevelrl.estimators.sampling.draws import Draws, policy_draws
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.reference.arrays import BoolArray, FloatArray, IntArray

# Numbers drawn ahead of a compiled walk; those that are not needed are put back.
NUMBERS_AHEAD = 2**18
# Steps of all streams below which a walk does not wait for the compiler to be imported.
WORTH_COMPILING = 1024

__all__ = ["OwnUniforms", "Record", "SharedUniforms", "Uniforms", "Walk", "record_to_batch"]


class Uniforms(Protocol):
    """Where a walk gets its uniform numbers from."""

    def start(self, stream: IntArray) -> FloatArray:
        """Return one number per stream that starts an episode."""
        ...

    def step(self, stream: IntArray) -> FloatArray:
        """Return (2, streams): for the action and for the move of the next step."""
        ...


class SharedUniforms:
    """One generator for all streams: each number depends on what other streams needed before."""

    def __init__(self, rng: Generator) -> None:
        self._rng = rng

    def start(self, stream: IntArray) -> FloatArray:
        """Return one number per stream that starts an episode."""
        return self._rng.random(stream.size)

    def step(self, stream: IntArray) -> FloatArray:
        """Return (2, streams): for the action and for the move of the next step."""
        return self._rng.random((2, stream.size))

    def ahead(self, count: int, use: Callable[[FloatArray], int]) -> None:
        """Hand out `count` numbers at once; those that are not used, as `use` tells, are drawn again by the next."""
        before = self._rng.bit_generator.state
        used = use(self._rng.random(count))
        if used < count:
            self._rng.bit_generator.state = before
            self._rng.random(used)


class OwnUniforms:
    """One generator for each group of equally many streams: a group's numbers do not depend on the other groups.

    Each group draws one block at once, three numbers for every step of every stream, whether they are needed or not.
    """

    def __init__(self, generators: Sequence[Generator], streams: int, steps: int) -> None:
        #: (groups, steps + 1, 3, streams of a group): for the action, for the move, and for the start of an episode.
        self.block = np.empty((len(generators), steps + 1, 3, streams // len(generators)))
        for rng, own in zip(generators, self.block, strict=True):
            rng.random(out=own)
        self._by_step: FloatArray | None = None
        self._time = 0

    def _numbers(self) -> FloatArray:
        if self._by_step is None:
            self._by_step = np.moveaxis(self.block, 0, 2).reshape(self.block.shape[1], 3, -1)
        numbers: FloatArray = self._by_step[self._time]
        return numbers

    def start(self, stream: IntArray) -> FloatArray:
        """Return one number per stream that starts an episode."""
        numbers: FloatArray = self._numbers()[2, stream]
        return numbers

    def step(self, stream: IntArray) -> FloatArray:
        """Return (2, streams): for the action and for the move of the next step."""
        numbers = self._numbers()[:2][:, stream]
        self._time += 1
        return numbers


@dataclass(frozen=True, slots=True)
class Record:
    """What a walk writes down, time first so that each step is contiguous; padding is state S."""

    state_t: IntArray
    action_t: IntArray
    state_tp1: IntArray
    time: IntArray
    cut: BoolArray

    def first(self, steps: int) -> Record:
        """Return the first steps only."""
        return Record(*(getattr(self, entry.name)[:steps] for entry in fields(self)))

    @classmethod
    def empty(cls, streams: int, steps: int, states: int) -> Record:
        """Return a record of padding only."""
        shape = (steps, streams)
        return cls(
            np.full(shape, states, dtype=np.int64),
            np.zeros(shape, dtype=np.int64),
            np.full(shape, states, dtype=np.int64),
            np.zeros(shape, dtype=np.int64),
            np.zeros(shape, dtype=np.bool_),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """One step of all streams at a time; state S is absorbing and stands for what comes after the end.

    `policy` is (S, A), or (B, S, A): each of equally many consecutive streams, or with `by_time` each of a step.
    """

    states: int
    actions: int
    moves: Draws
    policy: FloatArray
    starts: Draws
    by_time: bool = False

    def _choices(self, streams: int) -> tuple[Draws, IntArray]:
        """Return rows of choices, and the first row of each stream."""
        if self.policy.ndim == 2 or self.by_time:
            return policy_draws(self.policy), np.zeros(streams, dtype=np.int64)
        per_policy = streams // self.policy.shape[0]
        return policy_draws(self.policy), np.arange(streams) // per_policy * (self.states + 1)

    def _start(self, stream: IntArray, rng: Uniforms) -> IntArray:
        return self.starts.draw(np.zeros(stream.size, dtype=np.int64), rng.start(stream))

    def _step(
        self,
        state: IntArray,
        stream: IntArray,
        choices: tuple[Draws, IntArray],
        action: IntArray | None,
        rng: Uniforms,
        time: IntArray | int,
    ) -> tuple[IntArray, IntArray]:
        uniform = rng.step(stream)
        if action is None:
            draws, first_row = choices
            later = time * (self.states + 1) if self.by_time else 0
            action = draws.draw(first_row[stream] + later + state, uniform[0])
        return action, self.moves.draw(state * self.actions + action, uniform[1])

    def single(
        self, record: Record, last: IntArray, start: IntArray | None, action: IntArray | None, rng: Uniforms
    ) -> int:
        """One episode per stream, observed for `last` steps at most; returns after how many steps all had ended."""
        steps, streams = record.time.shape
        # Longest first: the streams still observed are then a contiguous front.
        order = np.argsort(-last, kind="stable")
        observed = last[order]
        state = (self._start(np.arange(streams), rng) if start is None else start)[order]
        used: int = min(steps, int(observed[0]))
        fronts = np.searchsorted(-observed, -np.arange(used), side="left")
        large = fronts.sum() >= WORTH_COMPILING and isinstance(rng, SharedUniforms) and not self.by_time
        walk = self._fast if large and compiled(episode_loop) is not None else self._single
        used = walk(record, fronts, order, state, action, rng)
        record.time[:used] = np.arange(used)[:, None]
        ended = record.state_tp1 == self.states
        record.cut[last - 1, np.arange(streams)] = ~ended[last - 1, np.arange(streams)]
        return used

    def _single(
        self, record: Record, fronts: IntArray, order: IntArray, state: IntArray, action: IntArray | None, rng: Uniforms
    ) -> int:
        choices = self._choices(order.size)
        for t, front in enumerate(fronts):
            state = state[:front]
            if (state == self.states).all():
                return t
            chosen = order[:front]
            forced = action[chosen] if action is not None and t == 0 else None
            action_t, state_tp1 = self._step(state, chosen, choices, forced, rng, t)
            record.state_t[t, chosen] = state
            record.action_t[t, chosen] = action_t
            record.state_tp1[t, chosen] = state_tp1
            state = state_tp1
        return int(fronts.size)

    def _fast(
        self, record: Record, fronts: IntArray, order: IntArray, state: IntArray, action: IntArray | None, rng: Any
    ) -> int:
        """As `_single`, compiled: the same numbers for the same steps."""
        fast: Any = compiled(episode_loop)
        choices, first_row = self._choices(order.size)
        moves, state, forced = self.moves, state.astype(np.int64), np.zeros(0, dtype=np.int64)
        if action is not None:
            forced = action.astype(np.int64)
        t, size = 0, max(1, NUMBERS_AHEAD // (2 * order.size))
        while t < fronts.size:
            front, taken = fronts[t : t + size], np.zeros(1, dtype=np.int64)

            def use(uniforms: FloatArray, t: int = t, front: IntArray = front, taken: IntArray = taken) -> int:
                fast(
                    uniforms,
                    front,
                    t,
                    order,
                    forced,
                    choices.threshold,
                    choices.outcome,
                    choices.width,
                    first_row,
                    moves.threshold,
                    moves.outcome,
                    moves.width,
                    self.states,
                    self.actions,
                    state,
                    record.state_t,
                    record.action_t,
                    record.state_tp1,
                    taken,
                )
                return 2 * int(front[: taken[0]].sum())

            rng.ahead(2 * int(front.sum()), use)
            t += int(taken[0])
            if taken[0] < front.size:
                break
        return t

    def repeated(
        self, streams: int, steps: int, limit: int, start: IntArray | None, action: IntArray | None, rng: Uniforms
    ) -> Record:
        """Episodes of at most `limit` steps, one after the other."""
        fast = compiled(walk_loop)
        if fast is not None and isinstance(rng, OwnUniforms) and not self.by_time:
            none = np.zeros(0, dtype=np.int64)
            state_t, action_t, state_tp1, time = np.empty((4, streams, steps), dtype=np.int64)
            cut = np.empty((streams, steps), dtype=np.bool_)
            moves, starts = self.moves, self.starts
            fast(
                rng.block,
                np.ascontiguousarray(self.policy.reshape(-1, self.states, self.actions)),
                moves.threshold,
                moves.outcome,
                moves.width,
                starts.threshold,
                starts.outcome,
                starts.width,
                self.states,
                limit,
                none if start is None else start.astype(np.int64),
                none if action is None else action.astype(np.int64),
                state_t,
                action_t,
                state_tp1,
                time,
                cut,
            )
            return Record(state_t.T, action_t.T, state_tp1.T, time.T, cut.T)
        record = Record.empty(streams, steps, self.states)
        self._repeated(record, limit, start, action, rng)
        return record

    def _repeated(
        self, record: Record, limit: int, start: IntArray | None, action: IntArray | None, rng: Uniforms
    ) -> None:
        steps, streams = record.time.shape
        stream = np.arange(streams)
        choices = self._choices(streams)
        state = self._start(stream, rng) if start is None else start
        time = np.zeros(streams, dtype=np.int64)
        for t in range(steps):
            action_t, state_tp1 = self._step(state, stream, choices, action if t == 0 else None, rng, time)
            record.state_t[t], record.action_t[t], record.state_tp1[t], record.time[t] = (
                state,
                action_t,
                state_tp1,
                time,
            )
            ended = state_tp1 == self.states
            record.cut[t] = ~ended & (time + 1 >= limit)
            over = np.flatnonzero(ended | record.cut[t])
            state, time = state_tp1, time + 1
            if over.size:
                state[over] = self._start(over, rng)
                time[over] = 0


def record_to_batch(
    record: Record,
    reward_leader: FloatArray,
    policy: FloatArray,
    states: int,
    first_action_is_forced: bool,
    *,
    by_time: bool = False,
) -> Trajectories:
    """Turn a record into a batch; arrays are views with the streams first."""
    state_t, action_t = record.state_t.T, record.action_t.T
    valid = state_t != states
    # Padding reads some state that exists.
    state_t = np.where(valid, state_t, 0)
    with np.errstate(divide="ignore"):
        log_policy = np.log(policy)
    if by_time:
        log_prob = log_policy[record.time.T, state_t, action_t]
    elif policy.ndim == 3:
        own = np.arange(state_t.shape[0]) // (state_t.shape[0] // policy.shape[0])
        log_prob = log_policy[own[:, None], state_t, action_t]
    else:
        log_prob = log_policy[state_t, action_t]
    log_prob = np.where(valid, log_prob, 0.0)
    if first_action_is_forced:
        log_prob[:, 0] = 0.0
    state_tp1 = record.state_tp1.T
    return Trajectories(
        state_t=state_t,
        action_t=action_t,
        state_tp1=state_tp1,
        reward_leader_t=np.where(valid, reward_leader[state_t, action_t], 0.0),
        terminated=valid & (state_tp1 == states),
        truncated=valid & record.cut.T,
        time_in_episode=record.time.T,
        valid=valid,
        behaviour_log_prob=log_prob,
    )
