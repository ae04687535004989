"""Linear-quadratic games of many runs at once: stacked followers, and trajectories (runs, streams, ...).

Every run has a gain, a follower and a generator of its own, and nothing mixes runs. Under both policies the state is a
linear recursion, `x_{t+1} = F x_t + w_t`; actions follow from the states afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.sampling.linear_quadratic import gaussian_root
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.reference import LQRGame, solve_follower
from bilevelrl.reference.arrays import FloatArray, IntArray
from bilevelrl.reference.doors import Count, checked
from bilevelrl.reference.errors import ShapeError, UnsupportedError, refusal
from bilevelrl.reference.lqr import LQRFollower

__all__ = ["LQRGameBatch", "StackedFollowers", "check_linear_leader", "sample_games"]


def check_linear_leader(game: LQRGame) -> FloatArray:
    """Return Ω of a game whose θ is the leader's gain, flattened.

    Raises
    ------
    UnsupportedError
        If the game has a leader policy of its own.
    """
    if game.leader_policy is not None or game.leader_covariance is None:
        raise UnsupportedError(f"{game.name}: leader_policy: expected None, so that θ is the gain K, flattened")
    return game.leader_covariance


@dataclass(frozen=True, slots=True, kw_only=True)
class StackedFollowers:
    """Best responses (arXiv:2603.14867, Proposition 2) of several runs.

    Attributes
    ----------
    gains : (R, p, n)
        The leaders' K that they respond to.
    reaction : (R, m, n)
        G of `a ~ N(-G (A x + C l), Σ)`.
    covariance, curvature : (R, m, m)
        Σ and S.
    cost_seen : (R, n + p, n + p)
        `V_F(x, l) = -(x, l)' cost_seen (x, l) - offset_seen`.
    offset_seen : (R,)
    solutions : tuple of LQRFollower
        As they were solved.

    Examples
    --------
    >>> from bilevelrl.tasks import lqr_game
    >>> StackedFollowers.solve(lqr_game(), np.array([[-9.683, -10.25]])).reaction.round(5)
    array([[[0.0198 , 0.09461]]])
    """

    gains: FloatArray
    reaction: FloatArray
    covariance: FloatArray
    curvature: FloatArray
    cost_seen: FloatArray
    offset_seen: FloatArray
    solutions: tuple[LQRFollower, ...]

    @classmethod
    def solve(cls, game: LQRGame, thetas: FloatArray) -> StackedFollowers:
        """Solve the follower of each row of θ (R, N).

        Raises
        ------
        UnsupportedError
            If θ is not the gain.
        IllPosedError, NotConvergedError
            If a follower's problem has no solution; see `solve_follower`.
        """
        check_linear_leader(game)
        solutions = tuple(solve_follower(game, theta) for theta in thetas)
        n, p = game.dynamics_leader.shape
        seen = [solution.cost_to_go_seen for solution in solutions]
        return cls(
            gains=np.reshape(thetas, (len(thetas), p, n)).copy(),
            reaction=np.stack([solution.riccati.reaction for solution in solutions]),
            covariance=np.stack([solution.covariance for solution in solutions]),
            curvature=np.stack([solution.riccati.curvature for solution in solutions]),
            cost_seen=np.stack([matrix for matrix in seen if matrix is not None]),
            offset_seen=np.array([solution.offset_seen for solution in solutions]),
            solutions=solutions,
        )

    def value(self, state: FloatArray, leader_action: FloatArray, rows: slice = slice(None)) -> FloatArray:
        """Return V_F(x, l), (R, ...), at states (R, ..., n) and leader's actions (R, ..., p) of all runs or some."""
        joint = np.concatenate([state, leader_action], axis=-1)
        flat = joint.reshape(len(joint), -1, joint.shape[-1])
        cost = np.vecdot(flat @ self.cost_seen[rows], flat).reshape(joint.shape[:-1])
        worth: FloatArray = -cost - np.reshape(self.offset_seen[rows], (-1, *(1,) * (cost.ndim - 1)))
        return worth


@dataclass(frozen=True, slots=True, kw_only=True)
class LQRGameBatch:
    """Trajectories of several runs.

    Attributes
    ----------
    state_t : (R, M, T + 1, n)
        With the state after the last step, where every episode is truncated.
    leader_action_t : (R, M, T, p)
    action_t : (R, M, T, m)
    """

    state_t: FloatArray
    leader_action_t: FloatArray
    action_t: FloatArray

    @property
    def steps(self) -> int:
        """T."""
        return int(self.action_t.shape[2])

    def of_steps(self, at: tuple[IntArray, IntArray, IntArray]) -> LQRGameBatch:
        """Return steps (run, episode, time), (R, B) each, as episodes of one step."""
        run, episode, time = at
        states = np.stack([self.state_t[run, episode, time + ahead] for ahead in (0, 1)], axis=2)
        return LQRGameBatch(
            state_t=states, leader_action_t=self.leader_action_t[at][:, :, None], action_t=self.action_t[at][:, :, None]
        )

    def trajectories(self, game: LQRGame, run: int, weight_t: FloatArray) -> Trajectories:
        """Return one run's episodes with weights (M, T) of their steps, as estimators take them.

        Stored episodes may be of followers that are gone: the log-probability of their actions is not known (NaN).
        """
        shape, ended = weight_t.shape, np.zeros(weight_t.shape, dtype=np.bool_)
        ended[:, -1] = True
        return Trajectories(
            state_t=self.state_t[run, :, :-1],
            leader_action_t=self.leader_action_t[run],
            action_t=self.action_t[run],
            state_tp1=self.state_t[run, :, 1:],
            reward_leader_t=game.reward_leader(self.state_t[run, :, :-1]),
            terminated=np.zeros_like(ended),
            truncated=ended,
            time_in_episode=np.broadcast_to(np.arange(shape[1]), shape),
            valid=np.ones_like(ended),
            behaviour_log_prob=np.full(shape, np.nan),
            weight_t=weight_t,
        )


@checked
def sample_games(
    game: LQRGame,
    followers: StackedFollowers,
    *,
    streams: Count,
    steps: Count,
    rng: Sequence[Generator],
    exploring: bool = False,
) -> LQRGameBatch:
    """Draw episodes of each run from its own generator.

    Parameters
    ----------
    game, followers
        The game, and what the followers play; leaders play the gains that they respond to.
    streams, steps
        M episodes of T steps per run.
    rng
        One generator per run; it draws as many numbers whatever `exploring` says.
    exploring
        Leaders draw actions from N(0, I) instead of their policy, as the first phase of the published runs does.

    Raises
    ------
    ShapeError
        If there is not one generator per run.
    InvalidInputError
        If a size is not a positive integer.

    Examples
    --------
    >>> from bilevelrl.tasks import lqr_game
    >>> game = lqr_game()
    >>> followers = StackedFollowers.solve(game, np.zeros((3, 2)))
    >>> rng = [np.random.default_rng(seed) for seed in range(3)]
    >>> sample_games(game, followers, streams=4, steps=100, rng=rng).state_t.shape
    (3, 4, 101, 2)
    """
    runs = len(followers.gains)
    if len(rng) != runs:
        raise ShapeError(refusal("generators", len(rng), f"{runs}", "pass one per run"))
    omega = check_linear_leader(game)
    a, b, c = game.dynamics_state, game.dynamics_action, game.dynamics_leader
    (n, m), p = b.shape, c.shape[1]
    start_root = gaussian_root(game.initial_covariance)
    first = np.stack([game.initial_mean + one.standard_normal((streams, n)) @ start_root.T for one in rng])
    noise = np.stack([one.standard_normal((streams, steps, p + m)) for one in rng])
    disturbance = noise[..., :p] if exploring else noise[..., :p] @ gaussian_root(omega).T
    roots = np.stack([gaussian_root(covariance) for covariance in followers.covariance])
    tremble = (noise[..., p:].reshape(runs, -1, m) @ np.swapaxes(roots, 1, 2)).reshape(runs, streams, steps, m)
    gains = np.zeros_like(followers.gains) if exploring else followers.gains
    after = np.eye(n) - b @ followers.reaction
    loop_t = np.ascontiguousarray(np.swapaxes(after @ (a + c @ gains), 1, 2))
    pushed = disturbance.reshape(runs, -1, p) @ np.swapaxes(after @ c, 1, 2) + tremble.reshape(runs, -1, m) @ b.T
    pushed = np.ascontiguousarray(np.moveaxis(pushed.reshape(runs, streams, steps, n), 2, 0))
    states = np.empty((steps + 1, runs, streams, n))
    states[0] = first
    for t in range(steps):
        np.matmul(states[t], loop_t, out=states[t + 1])
        states[t + 1] += pushed[t]
    state_t = np.ascontiguousarray(np.moveaxis(states, 0, 2))
    visited = state_t[:, :, :-1].reshape(runs, -1, n)
    leader = visited @ np.swapaxes(gains, 1, 2) + disturbance.reshape(runs, -1, p)
    planned = visited @ a.T + leader @ c.T
    action = tremble.reshape(runs, -1, m) - planned @ np.swapaxes(followers.reaction, 1, 2)
    return LQRGameBatch(
        state_t=state_t,
        leader_action_t=leader.reshape(runs, streams, steps, p),
        action_t=action.reshape(runs, streams, steps, m),
    )
