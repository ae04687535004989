"""The leader's values in a Markov game: exact ones, those of published operators, and tables learnt along trajectories.

An operator says what the leader expects of the next state (all are backed up as `Q(s,l,a) = r_L + γ_L Σ_s' P v(s')`;
(4) is Bi-AC's, (46)-(49) of arXiv:2603.14867):

    expected     v(s) = Σ_{l,a} f g Q(s,l,a)                 the value under both players' policies                  (1)
    sampled      v(s) = Q(s, l, a) of the actions taken      the same in expectation                                 (2)
    modes        v(s) = Q(s, argmax f, argmax g)             as the published runs do                                (3)
    stackelberg  v(s) = max_l Q(s, l, a*(s, l))              a* the follower's most probable action                  (4)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np

from bilevelrl.estimators.estimator import Context
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.reference import MarkovGame
from bilevelrl.reference.arrays import (
    FloatArray,
    IntArray,
    check_indices,
    check_pairs,
    check_shape,
    check_steps_to_go,
)
from bilevelrl.reference.doors import Steps, checked
from bilevelrl.reference.errors import (
    EstimatorError,
    InvalidInputError,
    NotConvergedError,
    ShapeError,
    refusal,
)
from bilevelrl.reference.game import game_leader_action_values
from bilevelrl.reference.problem import Objective

__all__ = ["Baseline", "GameCritic", "JointCritic", "JointReading", "Operator", "learn_game_critic"]

Baseline: TypeAlias = Literal["state_value", "none", "action_dependent"]
"""What is subtracted from Q_L in a game's leader term; see `AlongTrajectories`."""

Operator: TypeAlias = Literal["expected", "sampled", "modes", "stackelberg"]


@runtime_checkable
class JointCritic(Protocol):
    """Leader's values in a game as estimators read them at visits (state, leader action, action)."""

    def benefit_t(self, visits: Any, steps_to_go: Any = None) -> FloatArray:
        """Return the benefit of the follower's action, (streams, steps)."""
        ...

    def advantage_t(self, visits: Any, steps_to_go: Any = None, *, baseline: Baseline) -> FloatArray:
        """Return Q_L minus a baseline, (streams, steps); see `AlongTrajectories`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class JointReading:
    """A critic at the visits of a batch; what nobody asks for is not computed."""

    critic: JointCritic
    batch: Trajectories
    steps_to_go: Any
    baseline: Baseline

    @property
    def benefit_t(self) -> FloatArray:
        """B, (streams, steps)."""
        return self.critic.benefit_t(self.batch, self.steps_to_go)

    @property
    def advantage_t(self) -> FloatArray:
        """Q_L minus the baseline, (streams, steps)."""
        return self.critic.advantage_t(self.batch, self.steps_to_go, baseline=self.baseline)


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class GameCritic:
    """The leader's action values in a Markov game, and what follows from them under the players' policies.

    Parameters
    ----------
    action_values : (1, S, L, A), or (H + 1, S, L, A) by steps to go
        Q_L, right or wrong.
    policy : (S, L)
        f, over which values average.
    response : (S, L, A)
        g, the same.
    sees_leader_action
        The information structure, which decides what the benefit of a follower's action is.

    Raises
    ------
    ShapeError
        If the shapes do not fit together.
    InvalidInputError
        If a value is not finite.

    Examples
    --------
    >>> from bilevelrl.reference import solve_follower
    >>> from bilevelrl.tasks import toy_game_theta, toy_markov_game
    >>> game, theta = toy_markov_game(), toy_game_theta(0.3)
    >>> critic = GameCritic.solve(game, theta, solve_follower(game, theta))
    >>> round(float(critic.value(0)), 4)
    28.8165
    """

    action_values: FloatArray
    policy: FloatArray
    response: FloatArray
    sees_leader_action: bool

    def __post_init__(self) -> None:
        check_shape("response", self.response, (None, None, None), "pass g(a|s,l), (S, L, A)")
        shape = self.response.shape
        if np.ndim(self.action_values) != 4 or np.shape(self.action_values)[1:] != shape:
            raise ShapeError(
                refusal(
                    "action_values.shape",
                    np.shape(self.action_values),
                    f"(K, *{shape}), as response has",
                    "add an axis",
                )
            )
        if np.shape(self.policy) != shape[:2]:
            raise ShapeError(refusal("policy.shape", np.shape(self.policy), f"(S, L) = {shape[:2]}", "pass f(l|s)"))
        if not np.isfinite(self.action_values).all():
            raise InvalidInputError("action_values: expected finite numbers; check where the table was learnt")

    @classmethod
    @checked
    def solve(
        cls,
        game: MarkovGame,
        theta: FloatArray,
        follower: Any,
        *,
        operator: Operator = "expected",
        target: Objective | None = None,
    ) -> GameCritic:
        """Return the fixed point of an operator, or its values by steps to go of the target's horizon.

        Raises
        ------
        UnknownNameError
            If the operator does not exist.
        IllPosedError
            If the return is undiscounted and the horizon infinite.
        """
        if not isinstance(getattr(follower, "policy", None), np.ndarray):
            raise InvalidInputError(refusal("follower", follower, "a response with its policy", "use solve_follower"))
        target = target if target is not None else Objective()
        policy = game.policy_at(theta)
        if operator in ("expected", "sampled"):
            _, table = game_leader_action_values(
                game, policy, follower.policy, horizon=target.horizon, discounted=target.discounted
            )
        elif target.horizon is None:
            table = _greedy_fixed_point(game, policy, follower.policy, operator)[None]
        else:
            discount = game.discount_leader if target.discounted else 1.0
            table = np.zeros((target.horizon + 1, *game.reward_leader.shape))
            for h in range(1, target.horizon + 1):
                value = _next_value(table[h - 1], policy, follower.policy, operator) if h > 1 else np.zeros(game.states)
                table[h] = game.reward_leader + discount * game.transition @ value
        return cls(
            action_values=table,
            policy=policy,
            response=follower.policy,
            sees_leader_action=bool(game.follower_sees_leader_action),
        )

    @checked
    def action_value(
        self, state: Any, action: Any, *, leader_action: Any = None, steps_to_go: Any = None
    ) -> FloatArray:
        """Return Q_L(s, l, a); `steps_to_go=None` is the longest horizon there is."""
        _, states, leader_actions, actions = self.action_values.shape
        pairs = check_pairs(
            ("state", state, states), ("leader_action", leader_action, leader_actions), ("action", action, actions)
        )
        result: FloatArray = self.action_values[self._row(steps_to_go, *pairs), *pairs]
        return result

    @checked
    def value(self, state: Any, *, steps_to_go: Any = None) -> FloatArray:
        """Return Σ_{l,a} f g Q_L(s, l, a), 0 at a terminal state (s = S)."""
        values = np.einsum("sl,sla,ksla->ks", self.policy, self.response, self.action_values)
        at = check_indices("state", state, values.shape[1] + 1)
        result: FloatArray = np.hstack([values, np.zeros((values.shape[0], 1))])[self._row(steps_to_go, at), at]
        return result

    def benefits(self) -> FloatArray:
        """Return the benefit of the follower's action, (K, S, L, A): Q_L minus its mean under g.

        For a follower that does not see the leader's action both are averaged over f first, and do not depend on l.
        """
        seen = self.action_values
        if not self.sees_leader_action:
            seen = np.broadcast_to(np.einsum("sl,ksla->ksa", self.policy, seen)[:, :, None], seen.shape)
        result: FloatArray = seen - np.vecdot(self.response, seen)[..., None]
        return result

    @checked
    def benefit_t(self, visits: Trajectories, steps_to_go: Any = None) -> FloatArray:
        """Return the benefit at visits, (streams, steps); padding reads anything."""
        return self._at(self.benefits(), visits, steps_to_go)

    @checked
    def advantage_t(self, visits: Trajectories, steps_to_go: Any = None, *, baseline: Baseline) -> FloatArray:
        """Return Q_L minus a baseline at visits, (streams, steps); padding reads anything."""
        return self._at(self.action_values - self.baselines(baseline), visits, steps_to_go)

    def _at(self, table: FloatArray, visits: Trajectories, steps_to_go: Any) -> FloatArray:
        if visits.leader_action_t is None:
            raise EstimatorError("leader_action_t=None: expected the leader's actions; sample them anew")
        state = np.where(visits.valid, visits.state_t, 0)
        result: FloatArray = table[self._row(steps_to_go, state), state, visits.leader_action_t, visits.action_t]
        return result

    @checked
    def baselines(self, kind: str) -> FloatArray:
        """Return what is subtracted from Q_L in the leader's own term, (K, S, L, A): see `AlongTrajectories`."""
        if kind == "none":
            return np.zeros_like(self.action_values)
        if kind == "state_value":
            joint = self.policy[:, :, None] * self.response
            values = (joint * self.action_values).sum(axis=(2, 3), keepdims=True)
        else:
            values = np.einsum("sl,ksla->ksa", self.policy, self.action_values)[:, :, None]
        result: FloatArray = np.broadcast_to(values, self.action_values.shape)
        return result

    @checked
    def rows(self, steps_to_go: Any) -> Any:
        """Return the row of each number of steps to go, clipped to the longest there is."""
        return self._row(steps_to_go)

    def _row(self, steps_to_go: Any, *read: IntArray) -> Any:
        shape = np.broadcast(*read).shape if read else None
        return check_steps_to_go(steps_to_go, self.action_values.shape[0] - 1, shape)


def _next_value(table: FloatArray, policy: FloatArray, response: FloatArray, operator: str) -> FloatArray:
    """What the leader expects of each state, (S,), by an operator other than "sampled"."""
    states = np.arange(table.shape[0])
    if operator == "expected":
        result: FloatArray = np.einsum("sl,sla,sla->s", policy, response, table)  # (1)
        return result
    likely = response.argmax(axis=2)
    if operator == "modes":
        leader_action = policy.argmax(axis=1)
        chosen: FloatArray = table[states, leader_action, likely[states, leader_action]]  # (3)
        return chosen
    answered = np.take_along_axis(table, likely[:, :, None], axis=2)[:, :, 0]
    best: FloatArray = answered.max(axis=1)  # (4)
    return best


def _greedy_fixed_point(game: MarkovGame, policy: FloatArray, response: FloatArray, operator: str) -> FloatArray:
    """The fixed point of "modes" or "stackelberg" by policy iteration: finitely many deterministic policies."""
    states, discount = np.arange(game.states), game.discount_leader
    likely = response.argmax(axis=2)
    leader_action = policy.argmax(axis=1)
    while True:
        chosen = (states, leader_action, likely[states, leader_action])
        system = np.eye(game.states) - discount * game.transition[chosen]
        value = np.linalg.solve(system, game.reward_leader[chosen])
        table: FloatArray = game.reward_leader + discount * game.transition @ value
        if operator == "modes":
            return table
        answered = np.take_along_axis(table, likely[:, :, None], axis=2)[:, :, 0]
        gain = answered.max(axis=1) - answered[states, leader_action]
        # A tie broken by rounding must not make the iteration go on for ever.
        better = gain > 1e-12 * max(1.0, float(np.abs(answered).max()))
        if not better.any():
            return table
        leader_action = np.where(better, answered.argmax(axis=1), leader_action)


@checked
def learn_game_critic(
    trajectories: Trajectories,
    context: Context,
    *,
    operator: Operator = "expected",
    initial: FloatArray | None = None,
    step_size: float = 0.5,
    passes: Steps = 1,
) -> GameCritic:
    """Learn the leader's action values from transitions, by temporal differences in a table.

    Transition after transition, forward in time, `Q(s,l,a) += α (r_L + γ_L v(s') - Q(s,l,a))` with v by the operator.
    A truncated step bootstraps; a terminated one does not. "sampled" (SARSA) leaves out each stream's last step, whose
    next actions were not seen.

    Parameters
    ----------
    trajectories, context
        The transitions; game, θ and follower.
    operator
        What the next state is worth: see the module.
    initial : (S, L, A)
        The table to go on from; zeros by default.
    step_size
        α in (0, 1].
    passes
        How often the batch is gone through.

    Returns
    -------
    GameCritic
        Its `action_values[0]` is the table to carry on.

    Raises
    ------
    UnknownNameError, InvalidInputError, NotConvergedError
        If an argument is out of range, or the values overflow.

    Examples
    --------
    >>> from bilevelrl.estimators import sample_trajectories
    >>> from bilevelrl.reference import solve_follower
    >>> from bilevelrl.tasks import toy_markov_game
    >>> game, theta = toy_markov_game(), np.zeros(3)
    >>> context = Context(problem=game, theta=theta, follower=solve_follower(game, theta))
    >>> batch = sample_trajectories(
    ...     game, theta, context.follower, streams=2, steps=50, rng=np.random.default_rng(0))
    >>> learn_game_critic(batch, context).action_values.shape
    (1, 3, 2, 3)
    """
    if not 0.0 < step_size <= 1.0:
        raise InvalidInputError(refusal("step_size", step_size, "a number in (0, 1]", "0.1 is a common choice"))
    game, response = context.problem, context.follower.policy
    policy = game.policy_at(context.theta)
    table = np.zeros(response.shape) if initial is None else np.array(initial, dtype=np.float64)
    if table.shape != response.shape:
        raise ShapeError(refusal("initial.shape", table.shape, f"(S, L, A) = {response.shape}", "carry on this game's"))
    discount = game.discount_leader
    state, leader_action = np.asarray(trajectories.state_t), np.asarray(trajectories.leader_action_t)
    action, state_tp1 = np.asarray(trajectories.action_t), np.asarray(trajectories.state_tp1)
    for _ in range(passes):
        for stream, step in np.argwhere(trajectories.valid):
            here = (state[stream, step], leader_action[stream, step], action[stream, step])
            following = 0.0
            if not trajectories.terminated[stream, step]:
                arrived = state_tp1[stream, step]
                if operator == "sampled":
                    after = step + 1
                    last = after == trajectories.steps or not trajectories.valid[stream, after]
                    if last or trajectories.truncated[stream, step]:
                        continue
                    following = table[arrived, leader_action[stream, after], action[stream, after]]  # (2)
                else:
                    at = slice(arrived, arrived + 1)
                    following = _next_value(table[at], policy[at], response[at], operator)[0]
            target = trajectories.reward_leader_t[stream, step] + discount * following
            table[here] += step_size * (target - table[here])
    if not np.isfinite(table).all():
        raise NotConvergedError("learn_game_critic: values overflow; take a smaller step size")
    return GameCritic(
        action_values=table[None],
        policy=policy,
        response=response,
        sees_leader_action=bool(game.follower_sees_leader_action),
    )
