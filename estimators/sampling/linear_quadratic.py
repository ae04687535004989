"""Trajectories of linear-quadratic problems: all streams advance together, one matrix product per step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.special
from numpy.random import Generator

from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.reference import ConfigurableLQR, LQRGame
from bilevelrl.reference.arrays import BoolArray, FloatArray, IntArray, check_shape
from bilevelrl.reference.doors import Count, Horizon, Positive, checked
from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.reference.lqr import LQRFollower

__all__ = ["LQRSimulator", "gaussian_root"]


def gaussian_root(covariance: FloatArray) -> FloatArray:
    """Return L with L L' = covariance, also for singular ones.

    Examples
    --------
    >>> gaussian_root(np.zeros((1, 1)))
    array([[0.]])
    """
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)), dtype=np.float64)


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class LQRSimulator:
    """How samples of linear-quadratic problems are made.

    Parameters
    ----------
    state_limit
        Means of the next state are clipped to ±state_limit in every coordinate, as the published building does; None:
        never. The planner's model knows nothing of it: a mismatch.
    truncated_noise
        Also redraw the disturbance's law so that the next state stays within the limit (needs a diagonal W).
    step_limit
        Episodes are truncated after so many steps; None: no limit.
    single_episode
        True: one episode per stream. False: a new one starts after `step_limit` steps.

    Raises
    ------
    InvalidInputError
        If a limit is not positive, or several episodes have no step limit.

    Examples
    --------
    >>> from bilevelrl.reference import solve_follower
    >>> from bilevelrl.tasks import building_thermal_control
    >>> problem, theta = building_thermal_control(), np.zeros(8)
    >>> batch = LQRSimulator().sample(
    ...     problem, theta, solve_follower(problem, theta), streams=2, steps=3, rng=np.random.default_rng(0))
    >>> batch.state_t.shape, batch.action_t.shape, batch.reward_leader_t.shape
    ((2, 3, 4), (2, 3, 2), (2, 3))
    """

    state_limit: Positive | None = None
    truncated_noise: bool = False
    step_limit: Horizon = None
    single_episode: bool = True

    def __post_init__(self) -> None:
        if self.truncated_noise and self.state_limit is None:
            raise InvalidInputError("truncated_noise=True: expected a state_limit to truncate at; pass one")
        if not self.single_episode and self.step_limit is None:
            raise InvalidInputError("single_episode=False: expected a step_limit; episodes do not end by themselves")

    @checked
    def sample(
        self,
        problem: ConfigurableLQR | LQRGame,
        theta: Any,
        follower: Any,
        *,
        streams: Count,
        steps: Count,
        rng: Generator,
        lengths: IntArray | None = None,
    ) -> Trajectories:
        """Draw a batch; `lengths` (streams,) pads each stream after so many steps.

        Raises
        ------
        InvalidInputError
            If a size is not a positive integer or `rng` not a generator.
        """
        if self.single_episode and self.step_limit is not None:
            steps = min(steps, self.step_limit)
        walk = _Walk.of(problem, problem.check_theta(theta), self)
        n, m = walk.dynamics_action.shape
        if not isinstance(follower, LQRFollower):
            remedy = "solve the follower of this problem"
            raise InvalidInputError(refusal("follower", type(follower).__name__, "an LQRFollower", remedy))
        check_shape("follower.gain", follower.gain, (m, n), "solve the follower of this problem")
        if lengths is not None:
            check_shape("lengths", lengths, (streams,), "one for each of `streams`")
            if lengths.min() < 1:
                raise InvalidInputError(refusal("lengths", lengths.tolist(), "integers >= 1", "observe a step"))
        state_t, state_tp1 = np.empty((streams, steps, n)), np.empty((streams, steps, n))
        action_t = np.empty((streams, steps, m))
        leader_t = None if walk.leader is None else np.empty((streams, steps, walk.leader.gain.shape[0]))
        action_root = gaussian_root(follower.covariance)
        time = np.arange(steps) % self.step_limit if self.step_limit is not None else np.arange(steps)
        state = np.empty((streams, n))
        for t in range(steps):
            if time[t] == 0:
                state = walk.start(streams, rng)
            state_t[:, t] = state
            seen = None
            if leader_t is not None:
                seen = leader_t[:, t] = walk.lead(state, rng)
            action = follower.mean(state, seen) + rng.standard_normal((streams, m)) @ action_root.T
            action_t[:, t] = action
            state = state_tp1[:, t] = walk.step(state, action, seen, rng)
        valid: BoolArray = np.ones((streams, steps), dtype=np.bool_)
        if lengths is not None:
            valid = np.arange(steps) < lengths[:, None]
        ended = np.zeros_like(valid)
        ended[:, (time == (self.step_limit or -1) - 1)] = True
        if self.single_episode:
            ended[np.arange(streams), valid.sum(axis=1) - 1] = True
        return Trajectories(
            state_t=state_t,
            action_t=action_t,
            leader_action_t=leader_t,
            state_tp1=state_tp1,
            reward_leader_t=walk.reward(state_t, action_t),
            terminated=np.zeros_like(valid),
            truncated=ended & valid,
            time_in_episode=np.broadcast_to(time, (streams, steps)).copy(),
            valid=valid,
            behaviour_log_prob=follower.log_prob(state_t, action_t, leader_t),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Walk:
    """One step of either kind of problem."""

    dynamics_state: FloatArray
    dynamics_action: FloatArray
    initial_mean: FloatArray
    initial_root: FloatArray
    noise_root: FloatArray
    leader: Any
    leader_root: FloatArray
    dynamics_leader: FloatArray
    reward: Any
    limits: LQRSimulator

    @classmethod
    def of(cls, problem: ConfigurableLQR | LQRGame, theta: FloatArray, limits: LQRSimulator) -> _Walk:
        nothing = np.zeros((0, 0))
        if isinstance(problem, LQRGame):
            policy = problem.policy_at(theta)
            return cls(
                dynamics_state=problem.dynamics_state,
                dynamics_action=problem.dynamics_action,
                initial_mean=problem.initial_mean,
                initial_root=gaussian_root(problem.initial_covariance),
                noise_root=nothing,
                leader=policy,
                leader_root=gaussian_root(policy.covariance),
                dynamics_leader=problem.dynamics_leader,
                reward=lambda state, action: problem.reward_leader(state),
                limits=limits,
            )
        matrices = problem.matrices_at(theta)
        if limits.truncated_noise and np.any(matrices.noise_covariance * (1.0 - np.eye(matrices.states))):
            raise InvalidInputError("truncated_noise=True: expected a diagonal noise_covariance")
        return cls(
            dynamics_state=matrices.dynamics_state,
            dynamics_action=matrices.dynamics_action,
            initial_mean=matrices.initial_mean,
            initial_root=gaussian_root(matrices.initial_covariance),
            noise_root=gaussian_root(matrices.noise_covariance),
            leader=None,
            leader_root=nothing,
            dynamics_leader=nothing,
            reward=matrices.reward_leader,
            limits=limits,
        )

    def start(self, streams: int, rng: Generator) -> FloatArray:
        """Draw first states."""
        result: FloatArray = (
            self.initial_mean + rng.standard_normal((streams, len(self.initial_mean))) @ self.initial_root.T
        )
        return result

    def lead(self, state: FloatArray, rng: Generator) -> FloatArray:
        """Draw the leader's actions."""
        mean = state @ self.leader.gain.T
        result: FloatArray = mean + rng.standard_normal(mean.shape) @ self.leader_root.T
        return result

    def step(self, state: FloatArray, action: FloatArray, leader_action: Any, rng: Generator) -> FloatArray:
        """Draw next states."""
        mean: FloatArray = state @ self.dynamics_state.T + action @ self.dynamics_action.T
        if leader_action is not None:
            return np.asarray(mean + leader_action @ self.dynamics_leader.T)
        limit = self.limits.state_limit
        if limit is not None:
            mean = np.clip(mean, -limit, limit)
        if self.limits.truncated_noise and limit is not None:
            deviation = np.sqrt(np.maximum(np.sum(self.noise_root**2, axis=1), 1e-300))
            low, high = (scipy.special.ndtr((bound - mean) / deviation) for bound in (-limit, limit))
            return np.asarray(mean + deviation * scipy.special.ndtri(low + rng.random(mean.shape) * (high - low)))
        return np.asarray(mean + rng.standard_normal(mean.shape) @ self.noise_root.T)
