"""What a problem of any kind does in one step at θ, for environments of other libraries: `world_of(problem, theta)`.

Nothing here is used to estimate anything: trajectories of the estimators have samplers of their own, in batches.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.random import Generator

from bilevelrl.reference import ConfigurableLQR, ConfigurableMDP, LQRGame, MarkovGame, Problem
from bilevelrl.reference.arrays import BoolArray, FloatArray
from bilevelrl.reference.errors import InvalidInputError, UnsupportedError, refusal
from bilevelrl.reference.tabular import to_dense

__all__ = ["QuadraticWorld", "TableWorld", "World", "world_of"]


class World(Protocol):
    """One step at a time: the leader acts where there is one to act, then the follower."""

    @property
    def follower_sees(self) -> bool:
        """Whether the follower knows the leader's action."""
        ...

    @property
    def led(self) -> bool:
        """Whether there is a leader who acts."""
        ...

    def start(self, rng: Generator) -> Any:
        """Draw the first state."""
        ...

    def leads(self, rng: Generator, state: Any) -> Any:
        """Draw the leader's action from its policy at θ; None where it has none."""
        ...

    def step(self, rng: Generator, state: Any, led: Any, action: Any) -> tuple[Any, float, float, bool]:
        """Return the next state, both rewards, the follower's first, and whether the episode ended."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TableWorld:
    """A tabular problem at θ; an MDP has one action of a leader who is not asked.

    Attributes
    ----------
    outcomes : (S, L, A, S + 1)
        Laws of the next state; index S is the end.
    reward_follower, reward_leader : (S, L, A)
        Of a step.
    initial : (S,)
        Law of the first state.
    policy : (S, L)
        f_θ.
    playable : (S, L, A)
        What the follower may do.
    follower_sees, led
        As of a `World`.
    """

    outcomes: FloatArray
    reward_follower: FloatArray
    reward_leader: FloatArray
    initial: FloatArray
    policy: FloatArray
    playable: BoolArray
    follower_sees: bool
    led: bool

    def start(self, rng: Generator) -> int:
        """Draw the first state."""
        return int(rng.choice(len(self.initial), p=self.initial))

    def leads(self, rng: Generator, state: int) -> int | None:
        """Draw the leader's action from f_θ(.|s)."""
        return int(rng.choice(self.policy.shape[1], p=self.policy[state])) if self.led else None

    def step(self, rng: Generator, state: int, led: int | None, action: int) -> tuple[int, float, float, bool]:
        """Return the next state, both rewards, and whether that is the end."""
        place = (state, led or 0, int(action))
        if not self.playable[place]:
            hint = "see info['action_mask']"
            raise InvalidInputError(refusal(f"action in state {state}", action, "one that can be taken there", hint))
        state_tp1 = int(rng.choice(self.outcomes.shape[3], p=self.outcomes[place]))
        over = state_tp1 == len(self.initial)
        return state_tp1, float(self.reward_follower[place]), float(self.reward_leader[place]), over


@dataclass(frozen=True, slots=True, kw_only=True)
class QuadraticWorld:
    """A linear-quadratic problem at θ: x' = A x + B a + C l + ξ; without a leader who acts, C is (n, 0).

    Attributes
    ----------
    dynamics_state, dynamics_action, dynamics_leader
        A (n, n), B (n, m), C (n, p).
    noise : (n, n)
        Covariance of ξ.
    cost_state, cost_action
        The follower's Q and R.
    initial_mean, initial_covariance
        Of the first state.
    gain, covariance
        The leader's K (p, n) and Ω (p, p).
    reward_leader
        (x, a) → the leader's reward of the step.
    """

    dynamics_state: FloatArray
    dynamics_action: FloatArray
    dynamics_leader: FloatArray
    noise: FloatArray
    cost_state: FloatArray
    cost_action: FloatArray
    initial_mean: FloatArray
    initial_covariance: FloatArray
    gain: FloatArray
    covariance: FloatArray
    reward_leader: Any
    follower_sees: bool = True

    @property
    def led(self) -> bool:
        """Whether there is a leader who acts."""
        return bool(self.gain.shape[0] > 0)

    def start(self, rng: Generator) -> FloatArray:
        """Draw x_0."""
        return rng.multivariate_normal(self.initial_mean, self.initial_covariance)

    def leads(self, rng: Generator, state: FloatArray) -> FloatArray | None:
        """Draw l ~ N(K x, Ω)."""
        return rng.multivariate_normal(self.gain @ state, self.covariance) if self.led else None

    def step(
        self, rng: Generator, state: FloatArray, led: FloatArray | None, action: Any
    ) -> tuple[FloatArray, float, float, bool]:
        """Return x', both rewards at (x, a); there is no end."""
        action = np.asarray(action, dtype=np.float64)
        paid = -float(state @ self.cost_state @ state + action @ self.cost_action @ action)
        state_tp1 = self.dynamics_state @ state + self.dynamics_action @ action
        if led is not None:
            state_tp1 = state_tp1 + self.dynamics_leader @ led
        if self.noise.any():
            state_tp1 = state_tp1 + rng.multivariate_normal(np.zeros(len(state)), self.noise)
        return state_tp1, paid, float(self.reward_leader(state, action)), False


@functools.singledispatch
def world_of(problem: Problem, theta: object) -> World:
    """Return what a problem does in one step at θ.

    Raises
    ------
    UnsupportedError
        If it is of no kind that has an export.

    Examples
    --------
    >>> from bilevelrl.tasks import random_mdp
    >>> world_of(random_mdp(), np.zeros(3)).led
    False
    """
    raise UnsupportedError(
        refusal("problem", type(problem).__name__, "a ConfigurableMDP, MarkovGame, ConfigurableLQR or LQRGame",
                "write it as one of the kinds")
    )  # fmt: skip


@world_of.register
def _(problem: ConfigurableMDP, theta: object) -> TableWorld:
    tables = problem.tables_at(problem.check_theta(theta))
    mask = np.ones(np.shape(tables.reward_follower), dtype=bool)
    if tables.action_mask is not None:
        mask = np.asarray(tables.action_mask, dtype=bool)
    kernel = np.asarray(to_dense(tables.transition))[:, None]
    rewards = [np.asarray(table)[:, None] for table in (tables.reward_follower, tables.reward_leader)]
    initial = np.asarray(tables.initial)
    alone = np.ones((len(initial), 1))
    return _table_world(kernel, rewards, initial, alone, mask[:, None], sees=False, led=False)


@world_of.register
def _(problem: MarkovGame, theta: object) -> TableWorld:
    at = problem.at(problem.check_theta(theta))
    mask = np.ones(problem.reward_follower.shape, dtype=bool)
    if problem.action_mask is not None:
        given = np.asarray(problem.action_mask, dtype=bool)
        mask = mask & (given if given.ndim == 3 else given[:, None])
    rewards = [problem.reward_follower, problem.reward_leader]
    sees = problem.follower_sees_leader_action
    policy = np.asarray(at.policy)
    return _table_world(problem.transition, rewards, problem.initial, policy, mask, sees=sees, led=True)


def _table_world(
    kernel: FloatArray, rewards: list[FloatArray], initial: FloatArray, policy: FloatArray, playable: BoolArray,
    *, sees: bool, led: bool,
) -> TableWorld:  # fmt: skip
    ends = np.maximum(1.0 - kernel.sum(axis=3), 0.0)
    outcomes = np.concatenate([kernel, ends[..., None]], axis=3)
    return TableWorld(
        outcomes=outcomes / outcomes.sum(axis=3, keepdims=True),
        reward_follower=rewards[0],
        reward_leader=rewards[1],
        initial=initial / initial.sum(),
        policy=policy / policy.sum(axis=1, keepdims=True),
        playable=playable,
        follower_sees=sees,
        led=led,
    )


@world_of.register
def _(problem: ConfigurableLQR, theta: object) -> QuadraticWorld:
    matrices = problem.at(problem.check_theta(theta)).values
    read = {name: np.asarray(value) for name, value in matrices.differentiable().items()}
    states = len(read["initial_mean"])
    return QuadraticWorld(
        dynamics_state=read["dynamics_state"],
        dynamics_action=read["dynamics_action"],
        dynamics_leader=np.zeros((states, 0)),
        noise=read["noise_covariance"],
        cost_state=read["cost_state_follower"],
        cost_action=read["cost_action_follower"],
        initial_mean=read["initial_mean"],
        initial_covariance=read["initial_covariance"],
        gain=np.zeros((0, states)),
        covariance=np.zeros((0, 0)),
        reward_leader=matrices.reward_leader,
    )


@world_of.register
def _(problem: LQRGame, theta: object) -> QuadraticWorld:
    policy = problem.policy_at(problem.check_theta(theta))
    inverse = np.linalg.inv(problem.width)

    def reward(state: FloatArray, action: FloatArray) -> float:
        off = state - problem.target
        return float(np.exp(-0.5 * off @ inverse @ off))

    return QuadraticWorld(
        dynamics_state=problem.dynamics_state,
        dynamics_action=problem.dynamics_action,
        dynamics_leader=problem.dynamics_leader,
        noise=np.zeros_like(problem.dynamics_state),
        cost_state=problem.cost_state,
        cost_action=problem.cost_action,
        initial_mean=problem.initial_mean,
        initial_covariance=problem.initial_covariance,
        gain=np.asarray(policy.gain),
        covariance=np.asarray(policy.covariance),
        reward_leader=reward,
    )
