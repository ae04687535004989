"""Imported worlds: what a follower lives in, without a θ, with what was understood of its ends.

An episode's end is missing probability: a row P(.|s, a) that sums to less than one ends the episode with the rest, and
everything afterwards is worth zero. What is paid on the way out is in the reward of the pair, which is the mean over
where it leads: r(s, a) = Σ_s' P(s'|s, a) r(s, a, s').
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from bilevelrl.reference import ConfigurableMDP, SparseTransition, Tables
from bilevelrl.reference.arrays import BoolArray, FloatArray, check_array, check_shape
from bilevelrl.reference.doors import Discount, Real, Temperature, checked
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError, refusal
from bilevelrl.reference.storage import remade
from bilevelrl.reference.tabular import Transition, check_rows, check_values, to_dense, transition_shape
from bilevelrl.tasks.importing.hooks import HOOKS, Configured, HookName

__all__ = ["Absorbing", "ImportedMDP", "Outcomes", "assemble"]

Absorbing: TypeAlias = Literal["end", "keep"]
Outcomes: TypeAlias = Mapping[tuple[int, int], Mapping[int, float]]  # {(s, a): {s': probability}}, without ends

SPARSE_SHARE = 0.25  # rows that list at most this share of the states are kept as lists of successors


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedMDP:
    """A follower's world as others wrote it, before a leader comes into it.

    Parameters
    ----------
    transition
        (S, A, S) array or `SparseTransition`; a row that sums to less than one ends the episode with the rest.
    reward
        (S, A), expected reward of a pair.
    initial
        (S,), distribution of the first state.
    action_mask
        Optional (S, A), True where an action can be taken.
    name
        Used in messages and tables.
    notes
        What was understood, one sentence each.

    Raises
    ------
    InvalidInputError
        If the tables do not fit together or hold what no MDP has.

    Examples
    --------
    >>> from bilevelrl.tasks import from_arrays
    >>> world = from_arrays(np.array([[[0.5], [1.0]]]), np.array([[1.0, 0.0]]), initial=[1.0], absorbing="keep")
    >>> problem = world.problem("action toll", discount_leader=0.9, discount_follower=0.9, temperature=0.1)
    >>> problem.theta_shape
    (2,)
    """

    transition: Transition
    reward: FloatArray
    initial: FloatArray
    action_mask: BoolArray | None = None
    name: str = "imported"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.transition, SparseTransition):
            object.__setattr__(self, "transition", _frozen(check_array("transition", self.transition)))
        shape = transition_shape(self.transition)
        for name, wanted in (("reward", shape[:2]), ("initial", shape[:1])):
            value = check_array(name, getattr(self, name))
            check_shape(name, value, wanted, f"fit it to transition {shape}")
            object.__setattr__(self, name, _frozen(value))
        check_values(self._base())

    @property
    def states(self) -> int:
        """Number of states S."""
        return int(self.reward.shape[0])

    @property
    def actions(self) -> int:
        """Number of the follower's actions A."""
        return int(self.reward.shape[1])

    def summary(self) -> str:
        """Return the sizes and what was understood of the source, one line each."""
        head = f"{self.name}: {self.states} states, {self.actions} actions"
        return "\n".join([head, *(f"- {note}" for note in self.notes)])

    @checked
    def problem(
        self,
        hook: HookName,
        *,
        reward_leader: object = None,
        earned: Real = 0.0,
        discount_leader: Discount,
        discount_follower: Discount,
        temperature: Temperature,
    ) -> ConfigurableMDP:
        """Return the bi-level problem in which θ enters by a named hook.

        Parameters
        ----------
        hook
            One of `HOOKS`: "state toll", "action toll", "pair toll" (θ is what the follower pays there, in units of its
            reward) or "slip" (θ is the logit of the probability that another action is played).
        reward_leader
            (S, A), or (S,) for a reward of the state; default: the world's own reward.
        earned
            The share of a toll that the leader is paid.
        discount_leader, discount_follower
            γ_L and γ_F.
        temperature
            β.

        Raises
        ------
        UnknownNameError
            If there is no such hook.
        InvalidInputError
            If the leader's reward does not fit, a number is out of range, or a share of no toll is to be earned.
        """
        if hook not in HOOKS:
            raise UnknownNameError("hook", hook, HOOKS)
        if hook == "slip" and earned != 0.0:
            raise InvalidInputError(refusal("earned", earned, "0 with 'slip', which has no toll", "leave it out"))
        configured = _configured(hook, self._base(reward_leader), earned)
        return ConfigurableMDP(
            tables=configured.tables,
            discount_leader=discount_leader,
            discount_follower=discount_follower,
            temperature=temperature,
            theta_shape=configured.theta_shape,
            tables_pullback=configured.pullback,
            name=f"{self.name}, {hook}",
        )

    def _base(self, reward_leader: object = None) -> Tables:
        leader = self.reward if reward_leader is None else check_array("reward_leader", reward_leader)
        if leader.ndim == 1:
            check_shape("reward_leader", leader, (self.states,), "one reward per state, or one per state and action")
            leader = leader[:, None] * np.ones((1, self.actions))
        return Tables(
            transition=self.transition, reward_follower=self.reward, reward_leader=leader, initial=self.initial,
            action_mask=self.action_mask,
        )  # fmt: skip


@remade
def _configured(hook: HookName, base: Tables, earned: float) -> Configured:
    """What a hook makes of tables; it pickles as the two."""
    return HOOKS[hook](base, earned)


def assemble(
    outcomes: Outcomes,
    reward: FloatArray,
    initial: FloatArray,
    *,
    absorbing: Absorbing | None,
    playable: BoolArray | None = None,
    name: str,
    notes: Sequence[str] = (),
) -> ImportedMDP:
    """Return the world of given outcomes, checked.

    Parameters
    ----------
    outcomes
        {(state, action): {next state: probability}}; what is missing from one ends the episode.
    reward : (S, A)
        Expected reward of a pair.
    initial : (S,)
        Distribution of the first state.
    absorbing
        Whether a state that no action leaves and that pays nothing ends the episode when it is entered ("end"), or is
        lived in for ever ("keep"). None refuses where there is one.
    playable : (S, A), optional
        True where an action can be taken.
    name, notes
        Of the world.

    Raises
    ------
    InvalidInputError
        If a state is absorbing and nothing is said of it, or the tables are no tables.
    """
    states, actions = reward.shape
    check_rows("initial", initial, "divide it by its sum")
    table = {pair: dict(row) for pair, row in outcomes.items()}
    stay = _absorbing_states(table, reward, playable)
    said = list(notes)
    if stay and absorbing is None:
        shown = ", ".join(map(str, stay[:5])) + (" …" if len(stay) > 5 else "")
        raise InvalidInputError(
            refusal("absorbing", None, f"'end' or 'keep': no action leaves state {shown} and nothing is paid there",
                    "choose 'end' where the episode is over there, 'keep' where the follower lives on and earns its "
                    "entropy at every step")
        )  # fmt: skip
    if stay and absorbing == "end":
        over = set(stay)
        table = {pair: {s: p for s, p in row.items() if s not in over} for pair, row in table.items()}
        if initial[stay].any():
            raise InvalidInputError(
                refusal("absorbing", absorbing, "episodes that do not start where they end", "choose another initial")
            )
    if stay:
        verb = "end the episode" if absorbing == "end" else "are lived in for ever, and the entropy there is earned"
        said.append(f"absorbing states, {len(stay)}: {verb}")
    kernel = _kernel(table, states, actions)
    mask = None if playable is None or playable.all() else playable
    world = ImportedMDP(
        transition=kernel, reward=reward, initial=initial, action_mask=mask, name=name, notes=tuple(said)
    )
    return replace(world, notes=(*world.notes, *_reach(world)))


def _absorbing_states(table: Outcomes, reward: FloatArray, playable: BoolArray | None) -> list[int]:
    """The states that every action that can be taken leads back to for certain and for nothing."""
    states, actions = reward.shape
    can = np.ones((states, actions), dtype=bool) if playable is None else playable
    found = []
    for state in range(states):
        rows = [table.get((state, action), {}) for action in range(actions) if can[state, action]]
        stays = all(set(row) == {state} and abs(row[state] - 1.0) <= 1e-12 for row in rows)
        if stays and not reward[state][can[state]].any():
            found.append(state)
    return found


def _kernel(table: Outcomes, states: int, actions: int) -> Transition:
    width = max((len(row) for row in table.values()), default=1)
    successor = np.zeros((states, actions, max(width, 1)), dtype=np.int64)
    probability = np.zeros(successor.shape)
    for (state, action), row in table.items():
        successor[state, action, : len(row)] = list(row)
        probability[state, action, : len(row)] = list(row.values())
    kernel = SparseTransition(successor=successor, probability=_frozen(probability))
    return kernel if width <= SPARSE_SHARE * states else _frozen(kernel.to_dense())


def _frozen(array: FloatArray) -> FloatArray:
    """A read-only array: what stays the same at every θ is checked once."""
    array = np.array(array, dtype=np.float64)
    array.setflags(write=False)
    return array


def _reach(world: ImportedMDP) -> tuple[str, ...]:
    """What there is to say of states that no episode visits, and of whether episodes end."""
    kernel = to_dense(world.transition) if world.states <= 2000 else None
    if kernel is None:
        return ()
    if world.action_mask is not None:
        kernel = np.where(world.action_mask[:, :, None], kernel, 0.0)
    leads = kernel.max(axis=1) > 0.0
    reached = world.initial > 0.0
    while True:
        grown = reached | leads[reached].any(axis=0)
        if (grown == reached).all():
            break
        reached = grown
    lost = int((~reached).sum())
    return (f"states that no episode visits, {lost}: they have no say",) if lost else ()
