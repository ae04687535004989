"""Two-player games of PettingZoo, tabulated by playing every pair of actions from every state that can be reached.

A state is what two ends of play have in common, by its `key`; the same key has to mean the same game, which is tried: a
key that is reached by further paths is played out there too, and must do the same. Only games without chance are
tabulated. Chance is not guessed from repeated outcomes, but seen: a step after which a random generator stands
elsewhere has drawn. States are reached by playing their path again from the start, because many environments do not
survive `copy.deepcopy`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bilevelrl.reference import MarkovGame, TabularSoftmaxPolicy
from bilevelrl.reference.arrays import BoolArray, FloatArray, Traced
from bilevelrl.reference.doors import Count, Discount, Temperature, checked
from bilevelrl.reference.errors import InvalidInputError, TooLargeError, UnsupportedError, refusal
from bilevelrl.tasks.importing.board import TRIES, Board, Path, Rounds

__all__ = ["ImportedGame", "from_pettingzoo"]


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
    board = Board.of(environment, leader, key)
    if not seeds or any(isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) for seed in seeds):
        raise InvalidInputError(refusal("seeds", seeds, "one or more integers", "write (0,)"))
    paths: dict[Hashable, Path] = {}
    rounds: dict[Hashable, Rounds] = {}
    starts = [board.play((seed, ())) for seed in seeds]
    if len(seeds) == 1 and any(board.play((seed, ())) != starts[0] for seed in range(1, 9)):
        raise UnsupportedError(
            refusal("seeds", tuple(seeds), "a start that does not depend on the seed, or several seeds",
                    "name seeds; the game starts evenly in the states that they lead to")
        )  # fmt: skip
    waiting: deque[tuple[Hashable, Path]] = deque()
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


def _hold(name: str, state: Hashable, first: Rounds, second: Rounds) -> None:
    """Refuse a key from which two paths go on differently."""
    if first != second:
        pair = next((p for p in first if first[p] != second.get(p)), next(iter(second)))
        raise UnsupportedError(
            refusal(f"{name}: actions {pair} in state {state!r}", f"{first.get(pair)} by one path, {second.get(pair)} "
                    "by another", "one outcome", "pass key=, with all that the game goes on from")
        )  # fmt: skip


def _tables(
    board: Board,
    sees: bool,
    keys: tuple[Hashable, ...],
    rounds: dict[Hashable, Rounds],
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
