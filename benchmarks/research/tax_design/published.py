"""What the released code of tax design does, as exact expectations on the cells of `bilevelrl.tasks.tax_design`.

Its follower is a network with a head for each of an action's four choices, and each head is trained as if it alone were
paid the whole reward. Where the network can be any table, head j ends at the fixed point of

    Q_j(s, a_j) = E[r_F(s, a) + γ E[V_j(s')] | a_j],  V_j = β log Σ exp(Q_j / β),  π = Π_j softmax(Q_j / β)     (1)

the other choices drawn as in its memory: from π, or with probability ε all at random. Its update of the taxes on goods
is HPGD's with one path's own returns, and of the income tax a score that leaves the follower as it is:

    E Σ_t γ^t [∇r_L + (G_t - V_G(s_t)) W_t / β]                                                                   (2)
    E Σ_t γ^t [∂r_L + clip(∂ log P(s_t | s_{t-1}, a_{t-1})) V_L(s_t)]                                             (3)

G_t and W_t are the returns of ∇r_F and r_L of the same path from t on, so that (2) needs the mean of their product

    M = g r_L + γ g E V_L(s') + γ r_L E V_G(s') + γ² E M(s')                                                      (4)

where g is ∇r_F, with -.1 for a good that is not bought at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.arrays import FloatArray, IntArray
from bilevelrl.reference.derivatives import log_sum_exp, softmax
from bilevelrl.reference.errors import NotConvergedError
from bilevelrl.tasks.paper.tax_design import TAX_ACTIONS, tax_actions

__all__ = ["World", "independent_heads", "published_update"]

EXPLORATION = 0.1
MISSING = -0.1
"""What stands for the derivative of the follower's reward by the tax on a good that is not bought."""

SCORE_LIMIT = 1.0
_STEP = 1e-100


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The tables of a household at one θ, and their derivatives by a complex step.

    Attributes
    ----------
    transition, transition_moved : (S, L, S)
        The different laws of s', and their derivatives by θ_3; no other entry of θ moves them.
    law : (A,)
        Which of them an action has.
    follower, leader : (S, A)
        Rewards.
    follower_moved, leader_moved : (4, S, A)
        Their derivatives.
    initial : (S,)
    temperature, discount : float
    """

    transition: FloatArray
    transition_moved: FloatArray
    law: IntArray
    follower: FloatArray
    leader: FloatArray
    follower_moved: FloatArray
    leader_moved: FloatArray
    initial: FloatArray
    temperature: float
    discount: float

    @classmethod
    def of(cls, problem: ConfigurableMDP, theta: FloatArray) -> World:
        """Return the world of a problem at θ."""
        tables = problem.tables_at(theta)
        moved = [problem.evaluate(theta + 1j * _STEP * unit) for unit in np.eye(theta.size)]
        hours, spending = tax_actions()
        _, first, law = np.unique([hours, spending.sum(axis=1)], axis=1, return_index=True, return_inverse=True)
        return cls(
            transition=np.asarray(tables.transition)[:, first],
            transition_moved=np.imag(moved[3].transition)[:, first] / _STEP,
            law=law,
            follower=np.asarray(tables.reward_follower),
            leader=np.asarray(tables.reward_leader),
            follower_moved=np.stack([np.imag(each.reward_follower) / _STEP for each in moved]),
            leader_moved=np.stack([np.imag(each.reward_leader) / _STEP for each in moved]),
            initial=np.asarray(tables.initial),
            temperature=problem.temperature,
            discount=problem.discount_leader,
        )

    def ahead(self, values: FloatArray) -> FloatArray:
        """Return E[V(s') | s, a], (..., S, A), of values (..., S)."""
        found: FloatArray = np.tensordot(values, self.transition, (-1, -1))[..., self.law]
        return found

    def kept(self, policy: FloatArray, discount: float) -> FloatArray:
        """Return I - γ P^π, (S, S)."""
        laws = np.zeros((policy.shape[0], self.transition.shape[1]))
        np.add.at(laws.T, self.law, policy.T)
        moves: FloatArray = np.einsum("sl,slt->st", laws, self.transition)
        return np.eye(policy.shape[0]) - discount * moves

    def values(self, policy: FloatArray, rewards: FloatArray, discount: float | None = None) -> FloatArray:
        """Return V of rewards (..., S, A) under a policy, (..., S)."""
        kept = self.kept(policy, self.discount if discount is None else discount)
        paid = (policy * rewards).sum(axis=-1)
        return np.asarray(np.linalg.solve(kept, paid.T).T)

    def soft_value(self, policy: FloatArray) -> FloatArray:
        """Return the follower's own value of a policy, entropy included, (S,)."""
        surprise = -np.log(policy, out=np.zeros_like(policy), where=policy > 0.0)
        return self.values(policy, self.follower + self.temperature * surprise)

    def product(self, policy: FloatArray, moved: FloatArray) -> FloatArray:
        """Return E[G W | s], (N, S): the returns of rewards moved (N, S, A) and of the leader's along one path."""
        gamma = self.discount
        ahead_leader = self.ahead(self.values(policy, self.leader))
        ahead_moved = self.ahead(self.values(policy, moved))
        joint = moved * self.leader + gamma * (moved * ahead_leader + self.leader * ahead_moved)
        return self.values(policy, joint, gamma**2)  # (4)

    def visits(self, policy: FloatArray) -> FloatArray:
        """Return Σ_t γ^t P(s_t = s), (S,)."""
        return np.asarray(np.linalg.solve(self.kept(policy, self.discount).T, self.initial), dtype=np.float64)


def independent_heads(
    world: World, *, step: float = 1.0, tolerance: float = 1e-9, sweeps: int = 5000, start: Sequence[FloatArray] = ()
) -> tuple[FloatArray, list[FloatArray]]:
    """Return the policy (S, A) of four heads at a fixed point (1), and the heads; from zero, or from others.

    There are several: where it ends depends on where it begins and on how far each sweep goes.

    Parameters
    ----------
    world
        What they live in.
    step
        In (0, 1]: how far heads go towards their targets in a sweep; full steps by default.
    tolerance, sweeps
        Largest distance from its target that a head may keep, and within how many sweeps.
    start
        Heads to begin with.

    Raises
    ------
    NotConvergedError
        If there is none within so many sweeps.

    Examples
    --------
    >>> from bilevelrl.tasks.paper.tax_design import household, tax_theta
    >>> world = World.of(household(temperature=0.3, cells=11), tax_theta())
    >>> policy, _ = independent_heads(world)
    >>> policy.shape, bool(np.allclose(policy.sum(axis=1), 1.0))
    ((11, 1250), True)
    """
    states = world.initial.size
    heads = list(start) or [np.zeros((states, size)) for size in TAX_ACTIONS]
    change = np.inf
    for _ in range(sweeps):
        drawn = EXPLORATION / np.prod(TAX_ACTIONS) + (1.0 - EXPLORATION) * _joint(heads, world.temperature)
        found = []
        for place, head in enumerate(heads):
            value = world.temperature * log_sum_exp(head / world.temperature)
            target = world.follower + world.discount * world.ahead(value)
            others = tuple(axis + 1 for axis in range(4) if axis != place)
            found.append((drawn * target.reshape(drawn.shape)).sum(axis=others) / drawn.sum(axis=others))
        change = max(float(np.abs(new - old).max()) for new, old in zip(found, heads, strict=True))
        heads = [old + step * (new - old) for old, new in zip(heads, found, strict=True)]
        if change <= tolerance:
            return _joint(heads, world.temperature).reshape(states, -1), heads
    raise NotConvergedError(f"heads still move by {change:.1e} after {sweeps} sweeps, expected {tolerance:g}")


def _joint(heads: Sequence[FloatArray], temperature: float) -> FloatArray:
    hours, *goods = (softmax(head / temperature) for head in heads)
    states = len(hours)
    found = hours
    for law in goods:
        found = (found[:, :, None] * law[:, None, :]).reshape(states, -1)
    return np.asarray(found).reshape(states, *TAX_ACTIONS)


def published_update(
    world: World, policy: FloatArray, *, missing: float = MISSING, limit: float = SCORE_LIMIT
) -> FloatArray:
    """Return the mean of the published update (2), (3) at a follower's policy (S, A), (4,).

    Parameters
    ----------
    world, policy
        Of the follower that plays.
    missing
        What stands for ∇r_F where a good is not bought; 0 is the derivative.
    limit
        Largest size of a score in (3).

    Examples
    --------
    >>> from bilevelrl.tasks.paper.tax_design import household, tax_theta
    >>> world = World.of(household(temperature=0.3, cells=11), tax_theta())
    >>> published_update(world, independent_heads(world)[0]).shape
    (4,)
    """
    gamma, visits = world.discount, world.visits(policy)
    _, spending = tax_actions()
    moved = np.where(spending.T[:, None, :] == 0.0, missing, world.follower_moved[:3])
    value_leader, value_moved = world.values(policy, world.leader), world.values(policy, moved)
    response = (world.product(policy, moved) - value_moved * value_leader) @ visits / world.temperature  # (2)
    score = np.divide(
        world.transition_moved, world.transition, out=np.zeros_like(world.transition), where=world.transition > 0.0
    )
    pushed = world.transition * np.clip(score, -limit, limit) @ value_leader
    income = gamma * visits @ (policy * pushed[:, world.law]).sum(axis=1)  # (3)
    direct = (policy * world.leader_moved).sum(axis=-1) @ visits
    found: FloatArray = direct + np.append(response, income)
    return found
