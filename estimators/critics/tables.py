"""The leader's values as estimators read them along trajectories: exact, given as a table, or sampled returns.

What an estimator of the guiding term needs is the benefit B = Q_L - V_L of each visited pair, and V_L ahead of it.
Reading one and the same suffix for B and for the gradient of the follower's values uses samples twice:
`E[B̂ ∇Q̂_F | s, a] ≠ B ∇Q_F`. Tables and independent suffixes do not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np

from bilevelrl.estimators.estimator import Context, LeaderCritic, SharedProblem
from bilevelrl.estimators.sampling.sample import sample_suffixes
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.sums.traces import backward_sum
from bilevelrl.reference import ConfigurableMDP, SparseTransition, Tables
from bilevelrl.reference.arrays import (
    BoolArray,
    FloatArray,
    IntArray,
    check_indices,
    check_pairs,
    check_shape,
    check_steps_to_go,
)
from bilevelrl.reference.doors import Horizon, checked, checked_record, like
from bilevelrl.reference.errors import InvalidInputError, ShapeError, refusal
from bilevelrl.reference.problem import Objective
from bilevelrl.reference.tabular import Transition, expected_next, leader_action_values

__all__ = [
    "CriticReading",
    "ExactCritic",
    "TableCritic",
    "expected_fresh_steps",
    "independent_reading",
    "monte_carlo_reading",
    "read_critic",
]


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True)
class ExactCritic:
    """Leader's exact values under the follower's policy, over an infinite horizon or by steps to go.

    Parameters
    ----------
    action_values
        (1, S, A), or (H + 1, S, A) by steps to go.
    values
        (1, S + 1), or (H + 1, S + 1) by steps to go; the last state is the end, worth 0.

    Examples
    --------
    >>> from bilevelrl.reference import solve_follower
    >>> from bilevelrl.tasks import random_mdp
    >>> problem = random_mdp(seed=0)
    >>> policy = solve_follower(problem, np.zeros(3)).policy
    >>> critic = ExactCritic.solve(problem, np.zeros(3), policy, horizon=2)
    >>> bool(critic.value(0, steps_to_go=0) == 0.0), bool(critic.value(problem.tables_at(np.zeros(3)).states) == 0.0)
    (True, True)
    """

    action_values: FloatArray
    values: FloatArray

    @classmethod
    @checked
    def solve(
        cls,
        problem: Annotated[Any, like(SharedProblem)],
        theta: FloatArray,
        policy: FloatArray,
        *,
        horizon: Horizon = None,
        discounted: bool = True,
        transition: Transition | None = None,
        reward: FloatArray | None = None,
    ) -> ExactCritic:
        """Compute V_L and Q_L = r_L + γ_L P V_L of a policy (S, A).

        Parameters
        ----------
        problem, theta
            Whose kernel, reward and discount.
        policy
            (S, A), the follower's.
        horizon
            None: infinite. Otherwise `V^(0) = 0, Q^(h) = r_L + γ_L P V^(h-1)` for h up to `horizon`.
        discounted
            False: γ_L replaced by 1; needs a horizon.
        transition, reward
            Another kernel, another reward (S, A) than the problem's.

        Raises
        ------
        IllPosedError
            If the return is undiscounted and the horizon infinite.
        """
        if not hasattr(problem, "tables_at"):  # a batch of seeds says itself why it has none
            raise InvalidInputError(
                refusal("problem", type(problem).__name__, "a ConfigurableMDP", "a tabular problem")
            )
        Objective(horizon, discounted)
        tables = problem.tables_at(theta)
        for name, given in (("policy", policy), ("reward", reward)):
            if given is not None:
                check_shape(name, given, (tables.states, tables.actions), "one entry per state and action")
        changed = replace(
            tables,
            transition=tables.transition if transition is None else transition,
            reward_leader=tables.reward_leader if reward is None else reward,
        )
        discount = float(problem.discount_leader) if discounted else 1.0
        if not isinstance(problem, ConfigurableMDP):
            return cls._of(changed, policy, horizon, discount)
        # Estimators ask for the same critic batch after batch.
        kernel = (
            [transition.successor, transition.probability] if isinstance(transition, SparseTransition) else [transition]
        )
        asked = tuple(None if each is None else np.asarray(each).tobytes() for each in (policy, reward, *kernel))
        return problem.derivatives.cache.once(
            ("critic", horizon, discounted, asked), theta, lambda: cls._of(changed, policy, horizon, discount)
        )

    @classmethod
    def _of(cls, tables: Tables, policy: FloatArray, horizon: int | None, discount: float) -> ExactCritic:
        if horizon is None:
            value, action_value, _ = leader_action_values(tables, policy, discount)
            return cls(action_values=action_value[None], values=np.append(value, 0.0)[None])
        action_values = np.zeros((horizon + 1, tables.states, tables.actions))
        values = np.zeros((horizon + 1, tables.states + 1))
        for h in range(1, horizon + 1):
            action_values[h] = tables.reward_leader + discount * expected_next(tables.transition, values[h - 1, :-1])
            values[h, :-1] = (policy * action_values[h]).sum(axis=1)
        return cls(action_values=action_values, values=values)

    @checked
    def action_value(self, state: Any, action: Any, *, steps_to_go: Any = None) -> FloatArray:
        """Return Q_L(s, a); `steps_to_go=None` is the longest horizon there is."""
        _, states, actions = self.action_values.shape
        pairs = check_pairs(("state", state, states), ("action", action, actions))
        result: FloatArray = self.action_values[self._row(steps_to_go, *pairs), *pairs]
        return result

    @checked
    def value(self, state: Any, *, steps_to_go: Any = None) -> FloatArray:
        """Return V_L(s), 0 at a terminal state (s = S)."""
        state = check_indices("state", state, self.values.shape[1])
        result: FloatArray = self.values[self._row(steps_to_go, state), state]
        return result

    def _row(self, steps_to_go: Any, *read: IntArray) -> Any:
        return check_steps_to_go(steps_to_go, self.values.shape[0] - 1, np.broadcast(*read).shape)


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class TableCritic:
    """A critic that is given: an independently learned or a perturbed table.

    Parameters
    ----------
    action_values
        (S, A), Q̂_L.
    policy
        (S, A); V̂_L(s) = Σ_a π(a|s) Q̂_L(s, a), so that the benefit keeps mean zero under π.

    Raises
    ------
    ShapeError
        If the shapes differ.
    InvalidInputError
        If a value is not finite.

    Examples
    --------
    >>> critic = TableCritic(action_values=np.array([[1.0, 3.0]]), policy=np.array([[0.5, 0.5]]))
    >>> critic.value(np.array([0, 1]))
    array([2., 0.])
    """

    action_values: FloatArray
    policy: FloatArray

    def __post_init__(self) -> None:
        if np.ndim(self.action_values) != 2 or np.shape(self.action_values) != np.shape(self.policy):
            raise ShapeError(
                refusal(
                    "TableCritic shapes",
                    (np.shape(self.action_values), np.shape(self.policy)),
                    "action_values and policy both (S, A)",
                    "give one value per state and action",
                )
            )
        if not np.isfinite(self.action_values).all():
            raise InvalidInputError("action_values: expected finite numbers; check where the table was learned")

    @checked
    def action_value(self, state: Any, action: Any, *, steps_to_go: Any = None) -> FloatArray:
        """Return Q̂_L(s, a), whatever the steps to go."""
        states, actions = self.action_values.shape
        result: FloatArray = self.action_values[check_pairs(("state", state, states), ("action", action, actions))]
        return result

    @checked
    def value(self, state: Any, *, steps_to_go: Any = None) -> FloatArray:
        """Return V̂_L(s), 0 at a terminal state (s = S)."""
        values = np.append((self.policy * self.action_values).sum(axis=1), 0.0)
        result: FloatArray = values[check_indices("state", state, len(values))]
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticReading:
    """Leader's values along trajectories, (streams, steps) each; entries at padding mean nothing.

    Attributes
    ----------
    benefit_t
        B(s_t, a_t), or what stands for it.
    value_t, value_tp1
        V_L at the state and at the next one, 0 after a termination.
    ahead_t
        γ_L Σ_s' P(s'|s_t, a_t) V_L(s') = Q_L - r_L: a function of the pair, the baseline of `value_tp1`.
    """

    benefit_t: FloatArray
    value_t: FloatArray
    value_tp1: FloatArray
    ahead_t: FloatArray


def read_critic(critic: LeaderCritic, trajectories: Trajectories, *, horizon: Horizon = None) -> CriticReading:
    """Read a critic at every step.

    Parameters
    ----------
    critic
        Any `LeaderCritic`.
    trajectories
        Where to read.
    horizon
        Of the target: `horizon - time_in_episode` steps are to go. None: an infinite horizon.
    """
    state_t, action_t = trajectories.state_t, trajectories.action_t
    to_go = None if horizon is None else np.maximum(horizon - trajectories.time_in_episode, 0)
    after = None if to_go is None else np.maximum(to_go - 1, 0)
    action_value_t = critic.action_value(state_t, action_t, steps_to_go=to_go)
    value_t = critic.value(state_t, steps_to_go=to_go)
    return CriticReading(
        benefit_t=action_value_t - value_t,
        value_t=value_t,
        value_tp1=critic.value(trajectories.state_tp1, steps_to_go=after),
        ahead_t=action_value_t - trajectories.reward_leader_t,
    )


def monte_carlo_reading(
    trajectories: Trajectories, baseline: CriticReading, *, discount: float, horizon: Horizon = None
) -> CriticReading:
    """Read the returns of the very same suffixes: `B̂_t = R_t - V_L(s_t)`, and R_t, R_{t+1} for the values.

    Correlated with the suffix that estimates the gradient of the follower's values: the guiding term is biased.
    The leader's own terms are not.

    Parameters
    ----------
    trajectories
        Where to read.
    baseline
        Supplies V_L(s_t).
    discount, horizon
        Of the leader's target; rewards from `horizon` on do not count.
    """
    return_t = _returns(trajectories, discount, horizon)
    return_tp1 = np.zeros_like(return_t)
    return_tp1[:, :-1] = return_t[:, 1:]
    # At an episode's last step the next column belongs to another episode, or is padding.
    return_tp1[:, :-1][~trajectories.valid[:, 1:] | (trajectories.time_in_episode[:, 1:] == 0)] = 0.0
    return CriticReading(
        benefit_t=return_t - baseline.value_t, value_t=return_t, value_tp1=return_tp1, ahead_t=baseline.ahead_t
    )


def independent_reading(
    trajectories: Trajectories, context: Context, baseline: CriticReading, *, target: Objective
) -> CriticReading:
    """Read returns of fresh suffixes: `B̂_t = R'_t - V_L(s_t)` with R' started anew at (s_t, a_t).

    Unbiased given the trajectories, for any V_L. Over an infinite horizon the fresh suffix is an undiscounted sum
    stopped at a geometric time. The leader's own terms read the baseline.

    Parameters
    ----------
    trajectories
        Where to read.
    context
        Supplies the simulator and the generator.
    baseline
        Supplies V_L.
    target
        Which return.

    Raises
    ------
    InvalidInputError
        If the context has no generator.
    """
    if context.rng is None:
        raise InvalidInputError("context.rng=None: expected a numpy Generator to draw fresh suffixes; pass rng=...")
    wanted = _paid(trajectories, target.horizon)
    count = int(wanted.sum())
    if target.horizon is None:
        lengths = context.rng.geometric(1.0 - context.problem.discount_leader, count)
    else:
        lengths = target.horizon - trajectories.time_in_episode[wanted]
    fresh = sample_suffixes(
        context.problem,
        context.theta,
        context.follower,
        state=trajectories.state_t[wanted],
        action=trajectories.action_t[wanted],
        steps=int(lengths.max()),
        lengths=lengths,
        rng=context.rng,
        simulator=context.simulator,
    )
    discount = 1.0 if target.horizon is None else target.discount(context.problem.discount_leader)
    benefit = np.zeros(wanted.shape)
    benefit[wanted] = _returns(fresh, discount, None)[:, 0] - baseline.value_t[wanted]
    return CriticReading(
        benefit_t=benefit, value_t=baseline.value_t, value_tp1=baseline.value_tp1, ahead_t=baseline.ahead_t
    )


def expected_fresh_steps(
    trajectories: Trajectories, context: Context, *, target: Objective, wanted: BoolArray | None = None
) -> float:
    """Return the expected number of steps that `independent_reading` takes: the return of a reward of one per step."""
    kernel = None if context.simulator is None else context.simulator.kernel(context.problem, context.theta)
    counting = ExactCritic.solve(
        context.problem,
        context.theta,
        context.follower.policy,
        horizon=target.horizon,
        # Over an infinite horizon the discount is the probability of going on.
        discounted=target.horizon is None,
        transition=kernel,
        reward=np.ones(context.follower.policy.shape),
    )
    wanted = _paid(trajectories, target.horizon) if wanted is None else wanted
    to_go = None if target.horizon is None else target.horizon - trajectories.time_in_episode[wanted]
    state, action = trajectories.state_t[wanted], trajectories.action_t[wanted]
    return float(counting.action_value(state, action, steps_to_go=to_go).sum())


def _paid(trajectories: Trajectories, horizon: Horizon) -> BoolArray:
    """Steps at which the leader of a target with this horizon is paid."""
    if horizon is None:
        return trajectories.valid
    inside: BoolArray = trajectories.valid & (trajectories.time_in_episode < horizon)
    return inside


def _returns(trajectories: Trajectories, discount: float, horizon: Horizon) -> FloatArray:
    reward = np.where(_paid(trajectories, horizon), trajectories.reward_leader_t, 0.0)
    return backward_sum(trajectories, reward, discount)
