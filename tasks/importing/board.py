"""Playing a game of PettingZoo from any of its states: which there are, and what each pair of actions does."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from bilevelrl.reference.errors import InvalidInputError, UnsupportedError, refusal

__all__ = ["TRIES", "Board", "Path", "Round", "Rounds"]

TRIES = 8
"""Further paths to a key that are played out to see whether the game goes on as by the first."""

Path: TypeAlias = tuple[int, tuple[tuple[int, int], ...]]
"""A seed, and the pairs of actions since."""


@dataclass(frozen=True, slots=True)
class Round:
    """What a pair of actions leads to; no state: the episode ends."""

    state: Hashable | None
    reward_leader: float
    reward_follower: float


Rounds: TypeAlias = dict[tuple[int, int], Round]


@dataclass(frozen=True, slots=True)
class Board:
    """An environment of its own that plays paths from the start."""

    environment: Any
    leader: str
    follower: str
    leader_actions: int
    actions: int
    in_turns: bool
    key: Callable[[Any], Hashable] | None
    name: str
    said: dict[str, Any] = field(default_factory=dict)
    """Observations and infos of the last call, which games in parallel hand out once."""

    @classmethod
    def of(cls, environment: Any, leader: str, key: Callable[[Any], Hashable] | None) -> Board:
        """Copy an environment and look at who plays in it."""
        metadata = getattr(environment, "metadata", None)
        name = str(metadata.get("name") if isinstance(metadata, Mapping) else None or type(environment).__name__)
        agents = list(getattr(environment, "possible_agents", ()))
        if len(agents) != 2:
            raise UnsupportedError(
                refusal("environment", f"{name} with agents {agents}", "two agents", "a leader and a follower")
            )
        if leader not in agents:
            raise InvalidInputError(refusal("leader", leader, f"one of {agents}", "name the agent that leads"))
        follower = next(agent for agent in agents if agent != leader)
        sizes = []
        for agent in (leader, follower):
            space = environment.action_space(agent)
            if type(space).__name__ != "Discrete" or int(getattr(space, "start", 0)) != 0:
                raise UnsupportedError(
                    refusal(f"action space of {agent}", space, "Discrete(n), from zero",
                            "number the actions; continuous actions of both are the kind LQRGame")
                )  # fmt: skip
            sizes.append(int(space.n))
        in_turns = callable(getattr(environment, "agent_iter", None))
        return cls(copy.deepcopy(environment), leader, follower, sizes[0], sizes[1], in_turns, key, name)

    def play(self, path: Path) -> Hashable:
        """Start, play the pairs and return the key of the state where they lead."""
        seed, pairs = path
        handed = self.environment.reset(seed=seed)
        if not self.in_turns:
            self.said["observations"], self.said["infos"] = handed
        for pair in pairs:
            self._round(pair)
        return self._key()

    def _key(self) -> Hashable:
        found = self._observed() if self.key is None else self.key(self.environment)
        try:
            hash(found)
        except TypeError:
            raise InvalidInputError(
                refusal("key", type(found).__name__, "something hashable", "return a tuple, or bytes of an array")
            ) from None
        if found != found:
            raise InvalidInputError(
                refusal("key", found, "a value that equals itself", "return no NaN: no state is met again")
            )
        return found

    def _observed(self) -> Hashable:
        """What both agents observe."""
        agents = (self.leader, self.follower)
        if self.in_turns:
            return tuple(_hashable(self.environment.observe(agent)) for agent in agents)
        return tuple(_hashable(self.said["observations"][agent]) for agent in agents)

    def rounds(self, path: Path) -> Rounds:
        """Play every pair that is allowed from where a path leads."""
        self.play(path)
        self._turn(self.leader)
        legal = self._legal(self.leader)
        if legal is not None and len(legal) < self.leader_actions:
            raise UnsupportedError(
                refusal(f"{self.name}: the leader's actions in {path[1]}", legal, f"all {self.leader_actions}",
                        "a policy f_θ(l|s) plays every action with some probability: let the others do nothing")
            )  # fmt: skip
        found = {}
        for leader_action in range(self.leader_actions):
            self.play(path)
            ended = self._leader_moves(leader_action)
            actions = range(self.actions) if ended else self._legal(self.follower) or range(self.actions)
            for action in actions:
                self.play(path)
                rewards, over = self._round((leader_action, action))
                paid = [float(rewards.get(agent, 0.0)) for agent in (self.leader, self.follower)]
                found[leader_action, action] = Round(None if over else self._key(), *paid)
        return found

    def _leader_moves(self, action: int) -> bool:
        """Play the leader's half of a round in turns; whether it ends the episode."""
        if not self.in_turns:
            return False
        self._turn(self.leader)
        self._step(action)
        return self._over(self.environment.terminations, self.environment.truncations)

    def _round(self, pair: tuple[int, int]) -> tuple[dict[str, float], bool]:
        """Play one move of each; return what they are paid, and whether that was the end."""
        leader_action, action = pair
        if not self.in_turns:
            handed = self._step({self.leader: leader_action, self.follower: action})
            self.said["observations"], paid, terminations, truncations, self.said["infos"] = handed
            return dict(paid), self._over(terminations, truncations)
        over = self._leader_moves(leader_action)
        paid = dict(self.environment.rewards)
        if not over:
            self._turn(self.follower)
            self._step(action)
            for agent, reward in self.environment.rewards.items():
                paid[agent] = paid.get(agent, 0.0) + reward
            over = self._over(self.environment.terminations, self.environment.truncations)
        return paid, over

    def _turn(self, agent: str) -> None:
        if self.in_turns and self.environment.agent_selection != agent:
            raise UnsupportedError(
                refusal(f"{self.name}: whose turn it is", self.environment.agent_selection, repr(agent),
                        "rounds of one move each, the leader's first; let the other agent lead")
            )  # fmt: skip

    def _step(self, action: Any) -> Any:
        before = [_position(generator) for generator in _generators(self.environment)]
        found = self.environment.step(action)
        if [_position(generator) for generator in _generators(self.environment)] != before:
            raise UnsupportedError(
                refusal(f"{self.name}: step({action})", "drew random numbers", "moves without chance",
                        "write its tables: the probabilities cannot be read off an environment")
            )  # fmt: skip
        return found

    def _over(self, terminations: Any, truncations: Any) -> bool:
        if any(truncations.values()):
            raise UnsupportedError(
                refusal(f"{self.name}: truncated", True, "a game without a time limit", "make it with a longer one: a "
                        "limit is no end; pass horizon= to what you ask of the problem")
            )  # fmt: skip
        ends = {agent: bool(terminations.get(agent, True)) for agent in (self.leader, self.follower)}
        if len(set(ends.values())) > 1:
            raise UnsupportedError(
                refusal(f"{self.name}: terminations", ends, "both or neither", "let the game end for both")
            )
        return all(ends.values())

    def _legal(self, agent: str) -> list[int] | None:
        """The actions that an agent may take now; None: nothing is said, all of them."""
        if self.in_turns:
            places = (self.environment.infos.get(agent), self.environment.observe(agent))
        else:
            places = (self.said["infos"].get(agent), self.said["observations"].get(agent))
        masks = [place["action_mask"] for place in places if isinstance(place, dict) and "action_mask" in place]
        mask = masks[0] if masks else None
        return None if mask is None else [int(action) for action in np.flatnonzero(mask)]


def _hashable(value: Any) -> Hashable:
    if isinstance(value, dict):
        return tuple(sorted((str(name), _hashable(entry)) for name, entry in value.items()))
    if isinstance(value, (tuple, list)):
        return tuple(_hashable(entry) for entry in value)
    array = np.asarray(value)
    return array.item() if array.ndim == 0 else (array.shape, array.tobytes())


def _generators(value: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """Every random generator that an environment holds, and the two that all share."""
    if seen is None:
        seen = set()
        yield random
        yield np.random
    if id(value) in seen or isinstance(value, (str, bytes, int, float, np.ndarray, type)):
        return
    seen.add(id(value))
    if isinstance(value, (np.random.Generator, np.random.RandomState, random.Random)):
        yield value
        return
    inner: list[Any] = []
    if isinstance(value, dict):
        inner = list(value.values())
    elif isinstance(value, (list, tuple, set, frozenset)):
        inner = list(value)
    elif hasattr(value, "__dict__") and not isinstance(value, type(random)):
        inner = list(vars(value).values())
    for entry in inner:
        yield from _generators(entry, seen)


def _position(generator: Any) -> bytes:
    """Where a generator stands."""
    if isinstance(generator, np.random.Generator):
        return pickle.dumps(generator.bit_generator.state)
    if generator is np.random or isinstance(generator, np.random.RandomState):
        return pickle.dumps(generator.get_state(legacy=False))
    return pickle.dumps(generator.getstate())
