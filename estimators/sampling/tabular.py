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
from bilevelrl.estimators.sampling.linear_quadratic import LQRSimulator
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.sampling.walk import OwnUniforms, Record, SharedUniforms, Uniforms, Walk, record_to_batch
from bilevelrl.reference import ConfigurableLQR, ConfigurableMDP, LQRGame, MarkovGame, SparseTransition, Tables
from bilevelrl.reference.arrays import FloatArray, IntArray, check_array, check_indices, check_shape
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, ShapeError, StochasticityError, UnknownNameError, refusal
from bilevelrl.reference.tabular import ROW_SUM_TOLERANCE, Transition, check_rows

__all__ = [
    "TabularSimulator",
    "geometric_times",
    "sample_stopped_trajectories",
    "sample_suffixes",
    "sample_trajectories",
]

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
    _memory: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.step_limit is not None:
            _check_size("step_limit", self.step_limit)
        if self.restart not in ("initial", "uniform"):
            raise UnknownNameError("restart", self.restart, ("initial", "uniform"))

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
        streams: int,
        steps: int,
        rng: Generator | Sequence[Generator],
        first_state: IntArray | None = None,
        first_action: IntArray | None = None,
        lengths: IntArray | None = None,
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
        """
        _check_size("streams", streams)
        _check_size("steps", steps)
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
        policy = _policy_of(follower, tables.states, tables.actions, streams)
        if lengths is not None and not self.single_episode:
            raise InvalidInputError("lengths: expected None where episodes follow each other; use single_episode=True")
        limit = steps if self.single_episode else steps + 1
        if self.step_limit is not None:
            limit = min(limit, self.step_limit)
        last = np.full(streams, limit) if lengths is None else np.minimum(_indices("lengths", lengths, streams), limit)
        walk = Walk(
            states=tables.states,
            actions=tables.actions,
            moves=self._moves(self.kernel(problem, theta, tables)),
            policy=policy,
            starts=_start_draws(self.start_law(problem, theta, tables)),
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
            record, np.asarray(tables.reward_leader), policy, tables.states, first_action is not None
        )

    def _moves(self, kernel: Transition) -> Draws:
        """Compile a kernel, once for as long as its numbers stay the same."""
        sparse = isinstance(kernel, SparseTransition)
        numbers = [np.asarray(each) for each in ([kernel.successor, kernel.probability] if sparse else [kernel])]
        known = self._memory.get("kernel", [])
        if len(known) != len(numbers) or not all(map(np.array_equal, known, numbers)):
            self._memory.update(kernel=[each.copy() for each in numbers], moves=kernel_draws(kernel))
        compiled: Draws = self._memory["moves"]
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


@checked
def sample_trajectories(
    problem: ConfigurableMDP | MarkovGame | ConfigurableLQR | LQRGame,
    theta: Any,
    follower: Any,
    *,
    streams: int,
    steps: int,
    rng: Generator,
    simulator: TabularSimulator | LQRSimulator | None = None,
) -> Trajectories:
    """Draw a batch of trajectories of the follower's play.

    Parameters
    ----------
    problem, theta
        The problem and the leader's parameter.
    follower
        A solution with a `policy` (S, A), or a policy array (S, A), or (B, S, A): one for each of B groups of
        equally many consecutive streams. In a Markov game (S, L, A).
    streams, steps
        Number of streams and of time steps in each.
    rng
        Source of randomness.
    simulator
        How samples are made. None: the problem's own model, one episode per stream, horizon `steps`.

    Returns
    -------
    Trajectories

    Raises
    ------
    InvalidInputError
        If a size is not a positive integer or `rng` not a generator.
    ShapeError
        If the policy does not fit the problem.

    Examples
    --------
    >>> from bilevelrl.reference import Tables
    >>> def tables(theta):
    ...     return Tables(transition=np.full((2, 1, 2), 0.25), reward_follower=np.zeros((2, 1)),
    ...                   reward_leader=np.ones((2, 1)), initial=np.array([1.0, 0.0]))
    >>> problem = ConfigurableMDP(tables=tables, discount_leader=0.9, discount_follower=0.9, temperature=1.0)
    >>> batch = sample_trajectories(
    ...     problem, np.zeros(1), np.ones((2, 1)), streams=3, steps=4, rng=np.random.default_rng(0))
    >>> batch.streams, batch.steps, bool((batch.state_t[:, 0] == 0).all())
    (3, 4, True)
    """
    chosen: Any = _default_simulator(problem) if simulator is None else simulator
    if not callable(getattr(chosen, "sample", None)):
        raise InvalidInputError(
            refusal("simulator", simulator, "a simulator or None", "build one with TabularSimulator(...)")
        )
    batch: Trajectories = chosen.sample(problem, theta, follower, streams=streams, steps=steps, rng=rng)
    return batch


@checked
def sample_suffixes(
    problem: ConfigurableMDP,
    theta: Any,
    follower: Any,
    *,
    state: Any,
    steps: int,
    rng: Generator,
    action: Any = None,
    lengths: IntArray | None = None,
    simulator: TabularSimulator | None = None,
) -> Trajectories:
    """Draw fresh trajectories from given states, and given first actions: what an oracle with resets can do.

    Parameters
    ----------
    problem, theta, follower, rng
        As in `sample_trajectories`.
    state, action
        (streams,) integers: where each stream starts. `action=None`: the first action is the follower's too.
    steps
        Steps per stream; a stream ends earlier where the process terminates.
    lengths
        (streams,) integers in [1, steps]: observe so many steps of each stream only.
    simulator
        As in `sample_trajectories`; one episode per stream always.

    Returns
    -------
    Trajectories
        `behaviour_log_prob` is 0 at forced first actions: they were drawn with certainty.

    Raises
    ------
    InvalidInputError
        If a state or an action is outside the problem, or there is none.

    Examples
    --------
    >>> from bilevelrl.reference import Tables
    >>> def tables(theta):
    ...     return Tables(transition=np.full((2, 1, 2), 0.5), reward_follower=np.zeros((2, 1)),
    ...                   reward_leader=np.ones((2, 1)), initial=np.array([1.0, 0.0]))
    >>> problem = ConfigurableMDP(tables=tables, discount_leader=0.9, discount_follower=0.9, temperature=1.0)
    >>> fresh = sample_suffixes(
    ...     problem, np.zeros(1), np.ones((2, 1)), state=[1, 0, 1], steps=2, rng=np.random.default_rng(0))
    >>> fresh.state_t[:, 0]
    array([1, 0, 1])
    """
    chosen = TabularSimulator() if simulator is None else simulator
    if not chosen.single_episode:
        chosen = replace(chosen, single_episode=True)
    start = check_array("state", state, dtype=np.int64)
    check_shape("state", start, (None,), "one per stream")
    tables = problem.tables_at(theta)
    if action is not None:
        action = check_indices("action", action, tables.actions)
        check_shape("action", action, start.shape, "one per entry of state")
    if lengths is not None:
        check_shape("lengths", lengths, start.shape, "one per entry of state")
    return chosen.sample(
        problem,
        theta,
        follower,
        streams=start.size,
        steps=steps,
        rng=rng,
        first_state=check_indices("state", start, tables.states),
        first_action=action,
        lengths=lengths,
    )


@checked
def sample_stopped_trajectories(
    problem: ConfigurableMDP | MarkovGame | ConfigurableLQR | LQRGame,
    theta: Any,
    follower: Any,
    *,
    streams: int,
    rng: Generator,
    simulator: TabularSimulator | LQRSimulator | None = None,
) -> Trajectories:
    """Draw trajectories that stop at geometric times, so that infinite discounted sums have unbiased estimates.

    Each stream draws τ and κ on {0, 1, ...}, with Pr(τ ≥ t) = γ_L^t and Pr(κ ≥ k) = γ_F^k whatever the path, and is
    observed for τ + κ + 1 steps or to its termination. `Trajectories.stopping` holds (τ, κ).

    Parameters
    ----------
    problem, theta, follower, streams, rng
        As in `sample_trajectories`.
    simulator
        As in `sample_trajectories`; a step limit would bring the bias back and is refused.

    Returns
    -------
    Trajectories

    Raises
    ------
    InvalidInputError
        If the simulator has a step limit or several episodes per stream.

    Examples
    --------
    >>> from bilevelrl.reference import Tables
    >>> def tables(theta):
    ...     return Tables(transition=np.ones((1, 1, 1)), reward_follower=np.zeros((1, 1)),
    ...                   reward_leader=np.ones((1, 1)), initial=np.ones(1))
    >>> problem = ConfigurableMDP(tables=tables, discount_leader=0.9, discount_follower=0.5, temperature=1.0)
    >>> batch = sample_stopped_trajectories(
    ...     problem, np.zeros(1), np.ones((1, 1)), streams=5, rng=np.random.default_rng(0))
    >>> bool((batch.valid.sum(axis=1) == batch.stopping.sum(axis=1) + 1).all())
    True
    """
    chosen: Any = _default_simulator(problem) if simulator is None else simulator
    if chosen.step_limit is not None or not chosen.single_episode:
        raise InvalidInputError(
            f"simulator={chosen!r}: expected no step limit and one episode per stream; geometric times end the streams"
        )
    _check_size("streams", streams)
    stopping = geometric_times(problem, streams, rng)
    lengths = stopping.sum(axis=1) + 1
    longest = int(lengths.max())
    batch: Trajectories = chosen.sample(
        problem, theta, follower, streams=streams, steps=longest, rng=rng, lengths=lengths
    )
    return batch.with_stopping(stopping)


def geometric_times(
    problem: ConfigurableMDP | MarkovGame | ConfigurableLQR | LQRGame, streams: int, rng: Generator
) -> IntArray:
    """Return (streams, 2) independent times (τ, κ) on {0, 1, ...} with Pr(τ ≥ t) = γ_L^t and Pr(κ ≥ k) = γ_F^k.

    Examples
    --------
    >>> from bilevelrl.tasks import random_mdp
    >>> geometric_times(random_mdp(), 10_000, np.random.default_rng(0)).min(axis=0)
    array([0, 0])
    """
    # NumPy's geometric law counts trials and starts at 1.
    discounts = (problem.discount_leader, problem.discount_follower)
    return np.stack([rng.geometric(1.0 - discount, streams) - 1 for discount in discounts], axis=1)


def _default_simulator(problem: Any) -> TabularSimulator | LQRSimulator:
    return LQRSimulator() if isinstance(problem, ConfigurableLQR | LQRGame) else TabularSimulator()


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


def _check_size(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise InvalidInputError(refusal(name, value, "an integer >= 1", "ask for at least one"))


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
