"""Where θ enters an imported world: tolls on states, actions or pairs, and how often an action goes astray.

Tolls θ, in units of the reward, are paid by the follower, and a share of them is earned by the leader:

    r_F(s, a; θ) = r(s, a) - toll(s, a; θ)                                    (1)
    r_L(s, a; θ) = r_L(s, a) + earned · toll(s, a; θ)                         (2)
    toll(s, a; θ) = θ_s, θ_a or θ_sa                                          (3)

With slip σ the action is replaced by one drawn evenly from those that can be taken, before it is paid and played:

    σ = 1 / (1 + e^-θ)                                                        (4)
    P(s'|s, a; θ) = (1 - σ) P(s'|s, a) + σ mean_b P(s'|s, b)                  (5)
    r(s, a; θ)    = (1 - σ) r(s, a)    + σ mean_b r(s, b), for both players   (6)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Protocol, TypeAlias

import autograd.numpy as anp
import numpy as np

from bilevelrl.reference import SparseTransition, Tables
from bilevelrl.reference.arrays import FloatArray, Traced

__all__ = ["HOOKS", "Configured", "Hook", "HookName"]

HookName: TypeAlias = Literal["state toll", "action toll", "pair toll", "slip"]
Pullback: TypeAlias = Callable[[FloatArray, Mapping[str, FloatArray]], FloatArray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Configured:
    """A world's tables as functions of θ.

    Attributes
    ----------
    tables
        θ → `Tables`.
    theta_shape
        Shape of θ.
    pullback
        (θ, cotangents of the tables) → gradient, or None where it is left to automatic differentiation.
    """

    tables: Callable[[Traced], Tables]
    theta_shape: tuple[int, ...]
    pullback: Pullback | None = None


class Hook(Protocol):
    """One way for θ to enter."""

    def __call__(self, base: Tables, earned: float) -> Configured:
        """Return the world's tables as functions of θ, given those without it and the leader's share of a toll."""
        ...


@dataclass(frozen=True, slots=True)
class Toll:
    """A toll of its own for every state, action or pair: θ has the axes of the rewards that it is kept apart for."""

    by_state: bool
    by_action: bool

    def __call__(self, base: Tables, earned: float) -> Configured:
        """Return the tables of (1) to (3), whose derivative sums cotangents over the axes that share a toll."""
        sizes = np.shape(base.reward_follower)
        shape = tuple(size for size, own in zip(sizes, (self.by_state, self.by_action), strict=True) if own)
        broadcast = tuple(size if own else 1 for size, own in zip(sizes, (self.by_state, self.by_action), strict=True))
        shared = tuple(axis for axis, own in enumerate((self.by_state, self.by_action)) if not own)

        def tables(theta: Traced) -> Tables:
            toll = anp.reshape(theta, broadcast) * np.ones(sizes)  # (3)
            return Tables(
                transition=base.transition,
                reward_follower=base.reward_follower - toll,  # (1)
                reward_leader=base.reward_leader + earned * toll,  # (2)
                initial=base.initial,
                action_mask=base.action_mask,
            )

        def pullback(_: FloatArray, cotangents: Mapping[str, FloatArray]) -> FloatArray:
            of_toll = np.zeros(sizes)
            if "reward_follower" in cotangents:
                of_toll -= cotangents["reward_follower"]
            if "reward_leader" in cotangents:
                of_toll += earned * cotangents["reward_leader"]
            result: FloatArray = of_toll.sum(axis=shared).ravel()
            return result

        return Configured(tables=tables, theta_shape=shape, pullback=pullback)


def slip(base: Tables, earned: float) -> Configured:
    """Return the tables of (4) to (6); θ is one number, the logit of the probability that an action goes astray."""
    del earned
    states, actions = np.shape(base.reward_follower)
    playable = np.ones((states, actions)) if base.action_mask is None else np.asarray(base.action_mask, dtype=float)
    evenly = playable / playable.sum(axis=1, keepdims=True)
    kernel = base.transition
    if isinstance(kernel, SparseTransition):
        width = actions * kernel.successor.shape[2]
        everyone = np.broadcast_to(kernel.successor.reshape(states, 1, width), (states, actions, width))
        successor = np.concatenate([kernel.successor, everyone], axis=2)
        astray = np.broadcast_to((evenly[:, :, None] * kernel.probability).reshape(states, 1, width), everyone.shape)
    else:
        astray = np.einsum("sb,sbt->st", evenly, kernel)[:, None, :] * np.ones((1, actions, 1))
    means = {
        name: np.sum(evenly * getattr(base, name), axis=1, keepdims=True) * np.ones((1, actions))
        for name in ("reward_follower", "reward_leader")
    }

    def tables(theta: Traced) -> Tables:
        share = 1.0 / (1.0 + anp.exp(-theta[0]))  # (4)
        if isinstance(kernel, SparseTransition):
            mixed = anp.concatenate([(1.0 - share) * kernel.probability, share * astray], axis=2)  # (5)
            transition: Traced = SparseTransition(successor=successor, probability=mixed)
        else:
            transition = (1.0 - share) * kernel + share * astray  # (5)
        rewards = {name: (1.0 - share) * getattr(base, name) + share * mean for name, mean in means.items()}  # (6)
        return Tables(transition=transition, initial=base.initial, action_mask=base.action_mask, **rewards)

    return Configured(tables=tables, theta_shape=(1,))


HOOKS: Mapping[HookName, Hook] = MappingProxyType(
    {
        "state toll": Toll(by_state=True, by_action=False),
        "action toll": Toll(by_state=False, by_action=True),
        "pair toll": Toll(by_state=True, by_action=True),
        "slip": slip,
    }
)
"""Where θ may enter, by name."""
