"""Where trajectories come from: a vectorised sampler of tabular problems.

Two kinds of streams
--------------------
*One episode per stream* (the default): the stream starts from the initial law, its horizon is `steps`, what follows a
termination is padding, and a stream that has not ended is flagged `truncated` at its last step. Streams are then
independent and identically distributed: what formulas are about.

*Several episodes per stream* (`single_episode=False`): after a termination, or a truncation by `step_limit`, the same
stream starts a new episode at once. The batch simply stops; the last step of an unfinished episode carries no flag.
This is what experiments run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.sampling.draws import Draws, kernel_draws
from bilevelrl.estimators.sampling.joint_actions import JointProcess, joint_mdp
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.sampling.walk import OwnUniforms, Record, SharedUniforms, Uniforms, Walk, record_to_batch
from bilevelrl.reference import ConfigurableMDP, MarkovGame, SparseTransition, Tables
from bilevelrl.reference.arrays import FloatArray, IntArray, check_array
from bilevelrl.reference.doors import Count, check_count, checked
from bilevelrl.reference.errors import InvalidInputError, ShapeError, StochasticityError, refusal
from bilevelrl.reference.tabular import ROW_SUM_TOLERANCE, Transition, check_rows

__all__ = ["TabularSimulator"]

Restart: TypeAlias = Literal["initial", "uniform"]


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class TabularSimulator:
    """How samples are made, where that differs from the problem's own model.

    Parameters
    ----------
    dynamics
        A problem whose transition kernel moves the samples; None: the problem's own. Another one than the follower
        planned with is a mismatch, a cause of bias of its own. Rewards and the initial law stay the problem's.
    step_limit
        Episodes are truncated (never terminated) after so many steps; None: no limit.
    restart
        Where episodes start: "initial", the problem's initial law, or "uniform" over all states.
    single_episode
        True: one episode per stream, padded after its end. False: episodes follow each other.

    Raises
    ------
    InvalidInputError
        If the step limit is not a positive integer, or the restart unknown.

    Examples
    --------
    >>> TabularSimulator(step_limit=200, single_episode=False).restart
    'initial'
    """

    dynamics: ConfigurableMDP | MarkovGame | None = None
    step_limit: int | None = None
    restart: Restart = "initial"
    single_episode: bool = True
    _cache: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.step_limit is not None:
            check_count("step_limit", self.step_limit)

    @checked
    def kernel(self, problem: ConfigurableMDP, theta: FloatArray, tables: Tables | None = None) -> Transition:
        """Return the transition kernel that moves the samples; `tables` are the problem's, where they are known.

        Raises
        ------
        ShapeError
            If the dynamics have other states or actions than the problem.
        """
        own = (problem.tables_at(theta) if tables is None else tables).transition
        if self.dynamics is None:
            return own
        assert isinstance(self.dynamics, ConfigurableMDP)  # `sample` has seen to it
        other = self.dynamics.tables_at(theta).transition
        if other.shape != own.shape:
            raise ShapeError(
                refusal("dynamics transition shape", other.shape, f"{own.shape}", "use the same states and actions")
            )
        return other

    @checked
    def start_law(self, problem: ConfigurableMDP, theta: FloatArray, tables: Tables | None = None) -> FloatArray:
        """Return the law of an episode's first state, shape (S,); `tables` are the problem's, where they are known."""
        tables = problem.tables_at(theta) if tables is None else tables
        if self.restart == "uniform":
            return np.full(tables.states, 1.0 / tables.states)
        law: FloatArray = np.asarray(tables.initial, dtype=np.float64)
        return law

    @checked
    def sample(
        self,
        problem: ConfigurableMDP | MarkovGame,
        theta: Any,
        follower: Any,
        *,
        streams: Count,
        steps: Count,
        rng: Generator | Sequence[Generator],
        first_state: IntArray | None = None,
        first_action: IntArray | None = None,
        lengths: IntArray | None = None,
        policy_by_time: bool = False,
    ) -> Trajectories:
        """Draw trajectories; `sample_trajectories` and its companions are the calls to use.

        Parameters
        ----------
        problem, theta, follower, streams, steps, rng
            As in `sample_trajectories`. Several generators each draw for as many consecutive streams, which then do not
            depend on what else is in the batch.
        first_state, first_action
            (streams,) integers: start there instead of drawing. In a Markov game the first action is the players' joint
            one, leader_action · A + action.
        lengths
            (streams,) integers in [1, steps]: observe so many steps of each stream (one episode per stream only);
            columns in which no stream is left are dropped.
        policy_by_time
            The follower is a policy (T, S, A): one for each step of an episode, at least as many as it may have.
        """
        uniforms = _uniforms(rng, streams, steps)
        theta = problem.check_theta(theta)
        if isinstance(problem, MarkovGame):
            joint = JointProcess.of(problem, theta, follower)
            moved = self
            if isinstance(self.dynamics, MarkovGame):
                moved = replace(self, dynamics=joint_mdp(self.dynamics))
            batch = moved.sample(
                joint.process,
                theta,
                joint.policy,
                streams=streams,
                steps=steps,
                rng=rng,
                first_state=first_state,
                first_action=first_action,
                lengths=lengths,
            )
            return joint.split(batch)
        tables = problem.tables_at(theta)
        policy = _policy_of(follower, tables.states, tables.actions, 0 if policy_by_time else streams)
        if lengths is not None and not self.single_episode:
            raise InvalidInputError("lengths: expected None where episodes follow each other; use single_episode=True")
        limit = steps if self.single_episode else steps + 1
        if self.step_limit is not None:
            limit = min(limit, self.step_limit)
        if policy_by_time and (policy.ndim != 3 or len(policy) < min(limit, steps)):
            expected = f"{(min(limit, steps), tables.states, tables.actions)}, a policy for each step"
            raise ShapeError(refusal("follower policy shape", policy.shape, expected, "or policy_by_time=False"))
        last = np.full(streams, limit) if lengths is None else np.minimum(_indices("lengths", lengths, streams), limit)
        walk = Walk(
            states=tables.states,
            actions=tables.actions,
            moves=self._moves(self.kernel(problem, theta, tables)),
            policy=policy,
            starts=_start_draws(self.start_law(problem, theta, tables)),
            by_time=policy_by_time,
        )
        start = None if first_state is None else _indices("first_state", first_state, streams, tables.states)
        action = None if first_action is None else _indices("first_action", first_action, streams, tables.actions)
        if self.single_episode:
            record = Record.empty(streams, steps, tables.states)
            used = walk.single(record, last, start, action, uniforms)
            if lengths is not None:
                record = record.first(used)  # lengths are random: most columns may be padding
        else:
            record = walk.repeated(streams, steps, limit, start, action, uniforms)
        return record_to_batch(
            record,
            np.asarray(tables.reward_leader),
            policy,
            tables.states,
            first_action is not None,
            by_time=policy_by_time,
        )

    def _moves(self, kernel: Transition) -> Draws:
        """Compile a kernel, once for as long as its numbers stay the same."""
        sparse = isinstance(kernel, SparseTransition)
        numbers = [np.asarray(each) for each in ([kernel.successor, kernel.probability] if sparse else [kernel])]
        known = self._cache.get("kernel", [])
        if len(known) != len(numbers) or not all(map(np.array_equal, known, numbers)):
            self._cache.update(kernel=[each.copy() for each in numbers], moves=kernel_draws(kernel))
        compiled: Draws = self._cache["moves"]
        return compiled


def _start_draws(law: FloatArray) -> Draws:
    possible = np.flatnonzero(law > 0.0)
    return Draws.build(law[None, possible], possible[None, :])


def _uniforms(rng: Generator | Sequence[Generator], streams: int, steps: int) -> Uniforms:
    if isinstance(rng, Generator):
        return SharedUniforms(rng)
    generators = list(rng) if isinstance(rng, Sequence) else []
    if not generators or not all(isinstance(each, Generator) for each in generators):
        raise InvalidInputError(
            refusal("rng", rng, "a numpy.random.Generator, or a sequence of them", "use named_stream(entropy, ...)")
        )
    if streams % len(generators):
        raise InvalidInputError(
            refusal("streams", streams, f"a multiple of {len(generators)} generators", "share the streams out evenly")
        )
    return OwnUniforms(generators, streams, steps)


def _policy_of(follower: Any, states: int, actions: int, streams: int) -> FloatArray:
    policy: FloatArray = check_array("follower.policy", getattr(follower, "policy", follower), finite=False)
    blocks = policy.shape[0] if policy.ndim == 3 else 1
    if policy.shape[-2:] != (states, actions) or policy.ndim not in (2, 3) or blocks < 1 or streams % blocks:
        raise ShapeError(
            refusal(
                "follower policy shape",
                policy.shape,
                f"{(states, actions)}, or (B, {states}, {actions}) with B dividing {streams} streams",
                "solve the follower of this problem",
            )
        )
    check_rows("policy", policy, "normalise each row over the actions")
    if np.abs(policy.sum(axis=-1) - 1.0).max() > ROW_SUM_TOLERANCE:
        raise StochasticityError("follower policy: expected rows that sum to one; normalise each row over the actions")
    return policy


def _indices(name: str, values: Any, streams: int, limit: int | None = None) -> IntArray:
    """Return one integer per stream: in [0, limit), or at least 1 without a limit."""
    array: IntArray = check_array(name, values, dtype=np.int64)
    if array.shape != (streams,) or not np.issubdtype(array.dtype, np.integer):
        raise ShapeError(
            refusal(name, f"{array.dtype}{array.shape}", f"integers ({streams},)", "one for each of `streams`")
        )
    low, high = (1, np.iinfo(np.int64).max) if limit is None else (0, limit)
    wrong = (array < low) | (array >= high)
    if wrong.any():
        stream = int(np.argmax(wrong))
        raise InvalidInputError(
            refusal(f"{name}[{stream}]", int(array[stream]), f"an integer in [{low}, {high})", "stay in the problem")
        )
    return array.astype(np.int64)
