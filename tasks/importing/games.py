"""Two-player games of PettingZoo, tabulated by playing every pair of actions from every state that can be reached.

A state is what two ends of play have in common, by its `key`; the same key has to mean the same game, which is tried: a
key that is reached by further paths is played out there too, and must do the same. Only games without chance are
tabulated. Chance is not guessed from repeated outcomes, but seen: a step after which a random generator stands
elsewhere has drawn. States are reached by playing their path again from the start, because many environments do not
survive `copy.deepcopy`.
"""

from __future__ import annotations

import copy
import pickle
import random
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from bilevelrl.reference import MarkovGame, TabularSoftmaxPolicy
from bilevelrl.reference.arrays import BoolArray, FloatArray, Traced
from bilevelrl.reference.doors import Count, Discount, Temperature, checked
from bilevelrl.reference.errors import InvalidInputError, TooLargeError, UnsupportedError, refusal

__all__ = ["ImportedGame", "from_pettingzoo"]

TRIES = 8
"""Further paths to a key that are played out to see whether the game goes on as by the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedGame:
    """A two-player game as others wrote it, before θ and discounts come into it.

    Attributes
    ----------
    transition : (S, L, A, S)
        A row that sums to zero ends the episode.
    reward_leader, reward_follower : (S, L, A)
        What is paid for a round.
    initial : (S,)
        Law of the first state.
    action_mask : (S, L, A) or (S, A), or None
        Where the follower may do what, as `MarkovGame` takes it.
    follower_sees_leader_action : bool
        The information structure.
    keys : (S,) of anything
        What each state was recognised by.
    name : str
        Used in messages.
    """

    transition: FloatArray
    reward_leader: FloatArray
    reward_follower: FloatArray
    initial: FloatArray
    action_mask: BoolArray | None
    follower_sees_leader_action: bool
    keys: tuple[Hashable, ...]
    name: str

    def summary(self) -> str:
        """Return the sizes and how rounds end, one line each."""
        states, leader_actions, actions = self.reward_leader.shape
        ends = int((self.transition.sum(axis=3) == 0.0).sum())
        return "\n".join(
            (
                f"{self.name}: {states} states, {leader_actions} actions of the leader, {actions} of the follower",
                f"- rounds that end the episode: {ends} of {states * leader_actions * actions}",
                f"- the follower {'sees' if self.follower_sees_leader_action else 'does not see'} the leader's action",
            )
        )

    @checked
    def problem(
        self,
        *,
        discount_leader: Discount,
        discount_follower: Discount,
        temperature: Temperature,
        policy: Callable[[Traced], Traced] | None = None,
    ) -> MarkovGame:
        """Return the game in which θ is the leader's policy, by default one logit per state and further action.

        Parameters
        ----------
        discount_leader, discount_follower
            γ_L and γ_F.
        temperature
            β.
        policy
            θ → f_θ(l|s), (S, L); default: `TabularSoftmaxPolicy`.
        """
        states, leader_actions, _ = self.reward_leader.shape
        played = policy or TabularSoftmaxPolicy(states=states, leader_actions=leader_actions)
        return MarkovGame(
            transition=self.transition,
            reward_follower=self.reward_follower,
            reward_leader=self.reward_leader,
            initial=self.initial,
            policy=played,
            follower_sees_leader_action=self.follower_sees_leader_action,
            discount_leader=discount_leader,
            discount_follower=discount_follower,
            temperature=temperature,
            action_mask=self.action_mask,
            theta_shape=(played.parameters,) if isinstance(played, TabularSoftmaxPolicy) else None,
            name=self.name,
        )


@checked
def from_pettingzoo(
    environment: Any,
    *,
    leader: str,
    follower_sees_leader_action: bool,
    key: Callable[..., Hashable] | None = None,
    seeds: Sequence[int] = (0,),
    most_states: Count = 500,
) -> ImportedGame:
    """Return the game that two agents of a PettingZoo environment play, as tables.

    Parameters
    ----------
    environment
        Two agents with `Discrete` actions, in parallel or in turns; in turns the leader moves first, and a round is one
        move of each. A copy is played; the environment itself is not changed.
    leader
        Name of the agent that leads; the other one follows.
    follower_sees_leader_action
        Whether the follower knows the leader's move of the same round.
    key
        Environment → what identifies its state, hashable; default: the observations of both agents.
    seeds
        Of `reset`; the game starts evenly in the states that they lead to.
    most_states
        Where to give up.

    Returns
    -------
    ImportedGame
        Its `problem` takes discounts and temperature.

    Raises
    ------
    InvalidInputError
        If there is no such agent, or the seeds are none.
    UnsupportedError
        If there are not two agents with `Discrete` actions that take turns, leader first; if chance moves, an agent
        leaves alone, the leader's actions are masked, or a time limit cuts the game; if two paths to one key go on
        differently.
    TooLargeError
        If there are more states.

    Examples
    --------
    A race to the third step, which the leader, who may take two at once, wins where it likes:

    >>> import gymnasium
    >>> class Race:
    ...     possible_agents = ("fast", "slow")
    ...     def action_space(self, agent):
    ...         return gymnasium.spaces.Discrete(3 if agent == "fast" else 2)
    ...     def reset(self, seed=None):
    ...         self.at = {"fast": 0, "slow": 0}
    ...         return dict(self.at), {"fast": {}, "slow": {}}
    ...     def step(self, actions):
    ...         self.at = {agent: min(3, self.at[agent] + actions[agent]) for agent in self.at}
    ...         won = {agent: float(self.at[agent] == 3) for agent in self.at}
    ...         over, infos = dict.fromkeys(self.at, any(won.values())), {"fast": {}, "slow": {}}
    ...         return dict(self.at), won, over, dict.fromkeys(self.at, False), infos
    >>> print(from_pettingzoo(Race(), leader="fast", follower_sees_leader_action=False).summary())
    Race: 9 states, 3 actions of the leader, 2 of the follower
    - rounds that end the episode: 24 of 54
    - the follower does not see the leader's action
    """
    board = _Board.of(environment, leader, key)
    if not seeds or any(isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) for seed in seeds):
        raise InvalidInputError(refusal("seeds", seeds, "one or more integers", "write (0,)"))
    paths: dict[Hashable, _Path] = {}
    rounds: dict[Hashable, _Rounds] = {}
    starts = [board.play((seed, ())) for seed in seeds]
    if len(seeds) == 1 and any(board.play((seed, ())) != starts[0] for seed in range(1, 9)):
        raise UnsupportedError(
            refusal("seeds", tuple(seeds), "a start that does not depend on the seed, or several seeds",
                    "name seeds; the game starts evenly in the states that they lead to")
        )  # fmt: skip
    waiting: deque[tuple[Hashable, _Path]] = deque()
    waiting.extend((start, (int(seed), ())) for start, seed in zip(starts, seeds, strict=True))
    tries: Counter[Hashable] = Counter()
    while waiting:
        state, path = waiting.popleft()
        if state in paths and (path == paths[state] or tries[state] == TRIES):
            continue
        found = board.rounds(path)
        if state in paths:
            tries[state] += 1
            _hold(board.name, state, rounds[state], found)
            continue
        paths[state], rounds[state] = path, found
        if len(paths) > most_states:
            raise TooLargeError(
                refusal(f"states of {board.name}", f"more than {most_states}", "fewer", "pass a larger most_states, "
                        "or a key that leaves out what does not matter: counters of moves, the history")
            )  # fmt: skip
        waiting.extend((r.state, (path[0], (*path[1], pair))) for pair, r in found.items() if r.state is not None)
    return _tables(board, follower_sees_leader_action, tuple(paths), rounds, starts)


_Path: TypeAlias = tuple[int, tuple[tuple[int, int], ...]]
"""A seed, and the pairs of actions since."""


@dataclass(frozen=True, slots=True)
class _Round:
    """What a pair of actions leads to; no state: the episode ends."""

    state: Hashable | None
    reward_leader: float
    reward_follower: float


_Rounds: TypeAlias = dict[tuple[int, int], _Round]


def _hold(name: str, state: Hashable, first: _Rounds, second: _Rounds) -> None:
    """Refuse a key from which two paths go on differently."""
    if first != second:
        pair = next((p for p in first if first[p] != second.get(p)), next(iter(second)))
        raise UnsupportedError(
            refusal(f"{name}: actions {pair} in state {state!r}", f"{first.get(pair)} by one path, {second.get(pair)} "
                    "by another", "one outcome", "pass key=, with all that the game goes on from")
        )  # fmt: skip


def _tables(
    board: _Board,
    sees: bool,
    keys: tuple[Hashable, ...],
    rounds: dict[Hashable, _Rounds],
    starts: Sequence[Hashable],
) -> ImportedGame:
    number = {state: s for s, state in enumerate(keys)}
    shape = (len(keys), board.leader_actions, board.actions)
    transition, paid = np.zeros((*shape, len(keys))), {"leader": np.zeros(shape), "follower": np.zeros(shape)}
    playable = np.zeros(shape, dtype=bool)
    for state, outcomes in rounds.items():
        for (leader_action, action), found in outcomes.items():
            place = (number[state], leader_action, action)
            playable[place] = True
            paid["leader"][place], paid["follower"][place] = found.reward_leader, found.reward_follower
            if found.state is not None:
                transition[(*place, number[found.state])] = 1.0
    mask: BoolArray | None = None if playable.all() else playable if sees else playable[:, 0]
    if mask is not None and not sees and not (playable == playable[:, :1]).all():
        raise UnsupportedError(
            refusal(f"{board.name}: masks of the follower", "others for other actions of the leader",
                    "masks that a follower can know", "pass follower_sees_leader_action=True if it sees them")
        )  # fmt: skip
    initial = np.zeros(len(keys))
    np.add.at(initial, [number[start] for start in starts], 1.0 / len(starts))
    return ImportedGame(
        transition=transition, reward_leader=paid["leader"], reward_follower=paid["follower"], initial=initial,
        action_mask=mask, follower_sees_leader_action=sees, keys=keys, name=board.name,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Board:
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
    def of(cls, environment: Any, leader: str, key: Callable[[Any], Hashable] | None) -> _Board:
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

    def play(self, path: _Path) -> Hashable:
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

    def rounds(self, path: _Path) -> _Rounds:
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
                found[leader_action, action] = _Round(None if over else self._key(), *paid)
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
