"""Problems at θ as environments of Gymnasium and PettingZoo; their rollouts have the problem's law.

In Gymnasium one agent acts, the follower: the leader's actions are drawn from its policy at θ, and its reward of the
step is in `info`. In PettingZoo both act, in turns, the leader first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from bilevelrl.reference import Problem
from bilevelrl.reference.doors import Horizon, as_is, checked
from bilevelrl.reference.errors import InvalidInputError, MissingExtraError, UnsupportedError, refusal
from bilevelrl.tasks.exporting.worlds import QuadraticWorld, TableWorld, World, world_of

if TYPE_CHECKING:
    import gymnasium
    import pettingzoo

__all__ = ["as_gymnasium", "as_pettingzoo"]

LEADER, FOLLOWER = "leader", "follower"


@checked
def as_gymnasium(
    problem: Annotated[Problem, as_is], theta: object, *, horizon: Horizon = None
) -> gymnasium.Env[Any, Any]:
    """Return the follower's decision process at θ as a `gymnasium.Env`.

    Parameters
    ----------
    problem
        Of any kind.
    theta
        Where, of the problem's shape.
    horizon
        Steps after which an episode is truncated; None: never. Truncation is never termination.

    Returns
    -------
    gymnasium.Env
        Tabular problems: the observation is the state s, or s · L + l for a follower that sees the leader's action l;
        after a termination it is their number. Linear-quadratic ones: x, or (x, l). The reward is the follower's (its
        entropy bonus is not in it). `info["reward_leader"]` is the leader's of the same step,
        `info["leader_action"]` its action in the state that is returned, `info["action_mask"]` what may be done there.

    Raises
    ------
    MissingExtraError
        If gymnasium is not installed.

    Examples
    --------
    >>> from bilevelrl.tasks import lqr_game
    >>> environment = as_gymnasium(lqr_game(), [-9.7, -10.3], horizon=2)
    >>> observation, info = environment.reset(seed=0)
    >>> observation.shape, environment.step(np.zeros(environment.action_space.shape))[3]
    ((3,), False)
    """
    try:
        import gymnasium
    except ImportError:
        raise MissingExtraError("as_gymnasium", "gymnasium", "gymnasium") from None
    world = world_of(problem, theta)
    seen = world.follower_sees and world.led

    class FollowerEnvironment(gymnasium.Env[Any, Any]):
        """One problem at one θ, played by a follower."""

        metadata = {"render_modes": []}  # noqa: RUF012 - gymnasium reads a plain dict here

        def __init__(self) -> None:
            self.observation_space, self.action_space = _space(world, seen), _action_space(world, FOLLOWER)
            self._state: Any = None
            self._led: Any = None
            self._time = 0

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
            super().reset(seed=seed)
            self._state, self._time = world.start(self.np_random), 0
            self._led = world.leads(self.np_random, self._state)
            return self._seen(), self._said(False)

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            if self._state is None:
                raise InvalidInputError("step: the episode has ended, or none was started; call reset first")
            found = world.step(self.np_random, self._state, self._led, action)
            self._state, paid, paid_leader, over = found
            self._time += 1
            self._led = None if over else world.leads(self.np_random, self._state)
            observed = self._seen()
            said = {"reward_leader": paid_leader, **self._said(over)}
            if over:
                self._state = None
            return observed, paid, over, not over and horizon is not None and self._time >= horizon, said

        def _seen(self) -> Any:
            return _observation(world, self._state, self._led if seen else None, seen=seen)

        def _said(self, over: bool) -> dict[str, Any]:
            said: dict[str, Any] = {} if over or not world.led else {"leader_action": self._led}
            if isinstance(world, TableWorld) and not world.playable.all() and not over:
                said["action_mask"] = world.playable[self._state, self._led or 0].astype(np.int8)
            return said

    return FollowerEnvironment()


@checked
def as_pettingzoo(
    problem: Annotated[Problem, as_is], theta: object, *, horizon: Horizon = None
) -> pettingzoo.AECEnv[str, Any, Any]:
    """Return a game as a PettingZoo environment in which both act in turns, the leader first.

    Parameters
    ----------
    problem
        A `MarkovGame` or an `LQRGame`.
    theta
        Where; of the environment only `infos["leader"]` depends on it, which tells what the leader's policy would do.
    horizon
        Rounds after which an episode is truncated; None: never.

    Returns
    -------
    pettingzoo.AECEnv
        Agents "leader" and "follower". The follower observes the leader's action of the round if the game lets it.
        Both are paid after the follower's move.

    Raises
    ------
    MissingExtraError
        If pettingzoo is not installed.
    UnsupportedError
        If the leader does not act: see `as_gymnasium`.
    """
    try:
        from pettingzoo import AECEnv
    except ImportError:
        raise MissingExtraError("as_pettingzoo", "pettingzoo", "pettingzoo") from None
    world = world_of(problem, theta)
    if not world.led:
        raise UnsupportedError(
            refusal("problem", type(problem).__name__, "a game, whose leader acts", "export it with as_gymnasium")
        )
    known = str(getattr(problem, "name", type(problem).__name__))
    spaces = {LEADER: _space(world, False), FOLLOWER: _space(world, world.follower_sees)}

    class GameEnvironment(AECEnv[str, Any, Any]):  # type: ignore[misc]
        """One game, played by both."""

        metadata = {"render_modes": [], "name": known, "is_parallelizable": False}  # noqa: RUF012

        def __init__(self) -> None:
            super().__init__()
            self.possible_agents = [LEADER, FOLLOWER]
            self.observation_spaces = spaces
            self.action_spaces = {agent: _action_space(world, agent) for agent in self.possible_agents}
            self.render_mode = None
            self._state: Any = None
            self._led: Any = None
            self._time = 0

        def observation_space(self, agent: str) -> Any:
            return self.observation_spaces[agent]

        def action_space(self, agent: str) -> Any:
            return self.action_spaces[agent]

        def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
            if seed is not None or not hasattr(self, "_rng"):
                self._rng = np.random.default_rng(seed)
            self.agents = list(self.possible_agents)
            self._state, self._led, self._time = world.start(self._rng), None, 0
            self.agent_selection = LEADER
            self.rewards, self._cumulative_rewards = (dict.fromkeys(self.agents, 0.0) for _ in range(2))
            self.terminations, self.truncations = (dict.fromkeys(self.agents, False) for _ in range(2))
            self.infos: dict[str, dict[str, Any]] = {agent: {} for agent in self.agents}
            self._tell()

        def observe(self, agent: str) -> Any:
            seen = agent == FOLLOWER and world.follower_sees
            return np.asarray(_observation(world, self._state, self._led if seen else None, seen=seen))[()]

        def step(self, action: Any) -> None:
            agent = self.agent_selection
            if self.terminations[agent] or self.truncations[agent]:
                self._was_dead_step(action)
                return
            self._cumulative_rewards[agent] = 0.0
            self._clear_rewards()
            if agent == LEADER:
                self._led, self.agent_selection = action, FOLLOWER
                self._tell()
                return
            self._state, paid, paid_leader, over = world.step(self._rng, self._state, self._led, action)
            self._time, self._led = self._time + 1, None
            self.rewards = {LEADER: paid_leader, FOLLOWER: paid}
            cut = not over and horizon is not None and self._time >= horizon
            self.terminations, self.truncations = dict.fromkeys(self.agents, over), dict.fromkeys(self.agents, cut)
            self.agent_selection = LEADER
            self._accumulate_rewards()
            if not over:
                self._tell()

        def _tell(self) -> None:
            if isinstance(world, TableWorld):
                self.infos[LEADER] = {"policy": world.policy[self._state].copy()}
                if not world.playable.all() and self._led is not None:
                    mask = world.playable[self._state, self._led]
                    self.infos[FOLLOWER] = {"action_mask": mask.astype(np.int8)}
            else:
                assert isinstance(world, QuadraticWorld)
                self.infos[LEADER] = {"mean": world.gain @ self._state, "covariance": world.covariance}

    return GameEnvironment()


def _space(world: World, seen: bool) -> Any:
    """What is observed, with one more for the end of tabular episodes."""
    from gymnasium import spaces

    if isinstance(world, TableWorld):
        states, leader_actions = world.policy.shape
        return spaces.Discrete((states * leader_actions if seen else states) + 1)
    assert isinstance(world, QuadraticWorld)
    states, leader_actions = world.dynamics_leader.shape
    return spaces.Box(-np.inf, np.inf, (states + leader_actions * seen,), np.float64)


def _action_space(world: World, agent: str) -> Any:
    from gymnasium import spaces

    if isinstance(world, TableWorld):
        return spaces.Discrete(world.outcomes.shape[1 if agent == LEADER else 2])
    assert isinstance(world, QuadraticWorld)
    matrix = world.dynamics_leader if agent == LEADER else world.dynamics_action
    return spaces.Box(-np.inf, np.inf, (matrix.shape[1],), np.float64)


def _observation(world: World, state: Any, led: Any, *, seen: bool) -> Any:
    """The state, with the leader's action where there is one to see; the end where there is none any more."""
    if isinstance(world, TableWorld):
        states, leader_actions = world.policy.shape
        if led is None:
            return states * leader_actions if seen else state
        return state * leader_actions + int(led)
    if led is None and seen:
        led = np.zeros(world.dynamics_leader.shape[1])  # type: ignore[attr-defined]
    return np.array(state) if led is None else np.concatenate([state, np.asarray(led, dtype=np.float64)])
