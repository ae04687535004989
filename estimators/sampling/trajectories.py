"""Trajectories: what a sample-based estimator is allowed to look at.

Arrays of shape (streams, steps). `terminated` means that the process ended (nothing more is earned), `truncated` that
the observation stopped though the process goes on: the two are never the same thing. After a termination `state_tp1` is
the number of states, S, so that value tables padded by one zero can be read with it. Steps with `valid == False` are
padding and carry weight zero everywhere.

An episode is flagged where it ends, and nowhere else: the step before the first step of another, or before padding, is
terminated or truncated. Estimators that average over episodes count these flags. At the last step of all the array does
not tell, and the flag says which batch it is: streams of one episode are flagged `truncated` there unless they
terminated; where episodes follow each other in streams of a fixed length, the episode under way is not flagged and does
not count. A flag that is missing there changes what published BC-HG divides by, by 10 to 25 %.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from bilevelrl.reference.arrays import BoolArray, FloatArray, IntArray, check_rows_chosen
from bilevelrl.reference.doors import Count, Numbers, checked, checked_record
from bilevelrl.reference.errors import InvalidInputError, ShapeError, refusal

__all__ = ["Trajectories", "TransitionVisits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitionVisits:
    """Transitions to take derivatives at, arrays (streams, any number); entries of weight zero are never read."""

    state_t: Any
    action_t: Any
    state_tp1: Any
    leader_action_t: Any = None


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectories:
    """A batch of visited transitions.

    Parameters
    ----------
    state_t, action_t, state_tp1
        (streams, steps) integers, or (streams, steps, dimension) floats for continuous problems.
    leader_action_t
        The same for the leader's actions in Markov games, else None.
    reward_leader_t
        (streams, steps), what the leader received.
    terminated, truncated
        (streams, steps) booleans: the process ended / the observation of an unfinished process stopped here.
    time_in_episode
        (streams, steps) integers, 0 at the first step of each episode.
    valid
        (streams, steps) booleans; False marks padding.
    behaviour_log_prob
        (streams, steps), log-probability of the follower's action when it was drawn.
    stopping
        (streams, 2) integers (τ, κ) of streams that stopped at geometric times, else None.
    batch_index
        (streams,) integers: which of several independent batches a stream belongs to, all of as many streams; what is
        averaged or counted inside a batch stays inside it. None: all streams are one batch.
    weight_t
        (streams, steps): how much the leader counts a step in place of γ_L^t, as minibatches of drawn steps do. None:
        γ_L^t.

    Raises
    ------
    ShapeError
        If shapes differ.
    InvalidInputError
        If the batch is empty, a valid reward or weight is not finite, a step is both terminated and truncated, an
        episode goes on after a flag or ends without one, does not count its steps from 0 by one, or does not go on in
        the state that it had reached, or `state_tp1` says other than `terminated` whether the process ended.
    """

    state_t: Numbers
    action_t: Numbers
    state_tp1: Numbers
    reward_leader_t: FloatArray
    terminated: BoolArray
    truncated: BoolArray
    time_in_episode: IntArray
    valid: BoolArray
    behaviour_log_prob: FloatArray
    leader_action_t: Numbers | None = None
    stopping: IntArray | None = None
    batch_index: IntArray | None = None
    weight_t: FloatArray | None = None

    def __post_init__(self) -> None:
        shape = np.shape(self.reward_leader_t)
        if len(shape) != 2 or shape[0] < 1 or shape[1] < 1:
            raise InvalidInputError(
                refusal("reward_leader_t.shape", shape, "(streams, steps) with both >= 1", "sample at least one step")
            )
        for entry in fields(self):
            value = getattr(self, entry.name)
            wanted = {"stopping": (shape[0], 2), "batch_index": shape[:1]}.get(entry.name, shape)
            if value is not None and np.shape(value)[:2] != wanted:
                raise ShapeError(
                    refusal(f"{entry.name}.shape", np.shape(value), f"{wanted} in front", "as reward_leader_t has")
                )
        if bool(np.any(self.terminated & self.truncated)):
            raise InvalidInputError(
                "terminated and truncated at the same step: expected at most one; truncation is not termination"
            )
        if not np.isfinite(self.reward_leader_t[self.valid]).all():
            raise InvalidInputError("reward_leader_t: expected finite rewards at valid steps; check the simulator")
        if self.weight_t is not None and not np.isfinite(self.weight_t[self.valid]).all():
            raise InvalidInputError("weight_t: expected finite weights at valid steps; count how often each was drawn")
        if np.ndim(self.state_tp1) == 2 and self.state_tp1.dtype.kind == "i":
            self._check_ends(int(self.state_tp1.max(initial=-1, where=self.valid & self.terminated)))
        self._check_flags()
        if self.weight_t is None:  # the steps of a minibatch do not follow each other
            self._check_order()

    def _check_order(self) -> None:
        """Refuse episodes that do not count their steps from 0 by one, or whose states do not follow each other."""
        time, first = self.time_in_episode, self.valid & (self.time_in_episode > 0)
        expected = np.zeros(np.shape(time), dtype=np.int64)
        expected[:, 1:] = time[:, :-1] + 1
        wrong = first & (time != expected)
        if wrong.any():
            stream, step = (int(i) for i in np.argwhere(wrong)[0])
            raise InvalidInputError(
                refusal(f"time_in_episode[{stream}, {step}]", int(time[stream, step]),
                        f"0, where an episode begins, or {int(expected[stream, step])}, where it goes on",
                        "count each episode's steps 0, 1, 2 ...")
            )  # fmt: skip
        if np.shape(self.state_t) != np.shape(self.state_tp1) or self.state_t.dtype.kind != self.state_tp1.dtype.kind:
            return  # states of two kinds are refused where the kind of problem is known
        apart = self.state_t[:, 1:] != self.state_tp1[:, :-1]
        apart = first[:, 1:] & (apart if apart.ndim == 2 else apart.any(axis=2))
        if apart.any():
            stream, step = (int(i) for i in np.argwhere(apart)[0])
            raise InvalidInputError(
                refusal(f"state_t[{stream}, {step + 1}]", self.state_t[stream, step + 1].tolist(),
                        f"state_tp1[{stream}, {step}], {self.state_tp1[stream, step].tolist()}, where it goes on",
                        "keep each stream's steps in their order")
            )  # fmt: skip

    def _check_flags(self) -> None:
        """Refuse episodes that end without a flag, or go on after one."""
        goes_on = self.valid[:, 1:] & (self.time_in_episode[:, 1:] > 0)
        wrong = self.valid[:, :-1] & ((self.terminated | self.truncated)[:, :-1] == goes_on)
        if wrong.any():
            stream, step = (int(i) for i in np.argwhere(wrong)[0])
            if goes_on[stream, step]:
                name = "terminated" if self.terminated[stream, step] else "truncated"
                expected = f"False where time_in_episode[{stream}, {step + 1}] says that the episode goes on"
            else:
                name, expected = "truncated", "True, or `terminated`, where another episode or padding follows"
            value = bool(getattr(self, name)[stream, step])
            remedy = "flag each episode's last step alone, where `time_in_episode` goes on no further"
            raise InvalidInputError(refusal(f"{name}[{stream}, {step}]", value, expected, remedy))

    def _check_ends(self, states: int) -> None:
        """Refuse a `state_tp1` other than S where the process ended, and S elsewhere; -1 where nothing ended."""
        ended = self.state_tp1 == states
        wrong = self.valid & (ended != self.terminated)
        if wrong.any():
            stream, step = (int(i) for i in np.argwhere(wrong)[0])
            value, flag = int(self.state_tp1[stream, step]), bool(self.terminated[stream, step])
            expected = "the number of states S" if flag else f"a state, not states={states},"
            raise InvalidInputError(
                refusal(
                    f"state_tp1[{stream}, {step}]",
                    value,
                    f"{expected} where `terminated` is {flag}",
                    "S says that the process ended: set `terminated`, or give the state that was reached",
                )
            )

    @property
    def streams(self) -> int:
        """Number of streams M."""
        return int(np.shape(self.reward_leader_t)[0])

    @property
    def steps(self) -> int:
        """Number of steps T per stream."""
        return int(np.shape(self.reward_leader_t)[1])

    @property
    def episode_starts(self) -> BoolArray:
        """(streams, steps): the first step of each episode."""
        starts: BoolArray = self.valid & (self.time_in_episode == 0)
        return starts

    @property
    def streams_per_batch(self) -> int:
        """Number of streams of each batch."""
        return self.streams if self.batch_index is None else self.streams // (int(self.batch_index.max()) + 1)

    @checked
    def count_in_batch(self, steps: BoolArray) -> int | IntArray:
        """Return how many of the marked steps there are in a batch, at least 1; (streams, 1) where there are several.

        Parameters
        ----------
        steps
            (streams, steps) booleans.
        """
        if self.batch_index is None:
            return max(1, int(steps.sum()))
        counts = np.bincount(self.batch_index, weights=steps.sum(axis=1)).astype(np.int64)
        counted: IntArray = np.maximum(counts, 1)[self.batch_index][:, None]
        return counted

    @checked
    def select(self, streams: Any) -> Trajectories:
        """Return some of the streams (an index array or slice over the first axis)."""
        streams = check_rows_chosen("streams", streams, self.streams)
        chosen: dict[str, Any] = {}
        for name in _FIELDS:
            value = getattr(self, name)
            chosen[name] = None if value is None else value[streams]
        if not len(chosen["reward_leader_t"]):
            return Trajectories(**chosen)  # refuses it
        return self.changed(**chosen)

    def changed(self, **changes: Any) -> Trajectories:
        """Return the batch with other arrays, which the caller knows to be valid: nothing is checked again."""
        made = object.__new__(Trajectories)
        for name in _FIELDS:
            object.__setattr__(made, name, changes[name] if name in changes else getattr(self, name))
        return made

    @checked
    def with_stopping(self, stopping: IntArray) -> Trajectories:
        """Return the same trajectories with geometric times (τ, κ), (streams, 2)."""
        return replace(self, stopping=stopping)

    @checked
    def check_states(self, states: Count, actions: Count, leader_actions: Count | None = None) -> None:
        """Refuse states or actions outside a tabular problem, and a `state_tp1` of S but where the process ended.

        Raises
        ------
        InvalidInputError
            Naming the stream, the step and the value.
        """
        if np.shape(self.state_tp1) == self.valid.shape:
            self._check_ends(states)
        limits = [("state_t", states), ("action_t", actions), ("state_tp1", states + 1)]
        if leader_actions is not None and self.leader_action_t is not None:
            limits.append(("leader_action_t", leader_actions))
        for name, limit in limits:
            values = np.asarray(getattr(self, name))
            if values.dtype.kind not in "iu":
                raise InvalidInputError(refusal(f"{name}.dtype", str(values.dtype), "integers", "number states from 0"))
            wrong = self.valid & ((values < 0) | (values >= limit))
            if wrong.any():
                stream, step = (int(i) for i in np.argwhere(wrong)[0])
                raise InvalidInputError(
                    refusal(
                        f"{name}[{stream}, {step}]",
                        int(values[stream, step]),
                        f"an integer in [0, {limit})",
                        "number states from 0; a terminal state_tp1 is S",
                    )
                )


_FIELDS = tuple(entry.name for entry in fields(Trajectories))
