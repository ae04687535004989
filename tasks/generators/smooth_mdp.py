"""Tables that depend smoothly on θ on a fixed support: what the generators of small problems are built from.

With fixed random arrays b and D per table (D = 0 where θ does not enter):

    r_F, r_L = tanh(b + D θ)                                  in (-1, 1)
    P        = survival · softmax(b + D θ) over the support,  survival = sigmoid(logit(1 - termination) + D θ)
    μ        = softmax(b + D θ) over the initial support
    ρ        = c·θ - |θ|²/20

Gradients are of order one at θ = 0 whatever the number of parameters; the support never changes with θ, so that scores
exist everywhere. Every table is drawn from a stream of its own: letting θ enter one table changes no other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import autograd.numpy as anp
import numpy as np

from bilevelrl.reference import ConfigurableMDP, Tables, named_stream
from bilevelrl.reference.arrays import BoolArray, FloatArray, check_shape
from bilevelrl.reference.derivatives import sigmoid, softmax
from bilevelrl.reference.doors import Count, Probability, Seed, checked
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError
from bilevelrl.reference.storage import remade
from bilevelrl.reference.tabular import TABLE_NAMES

__all__ = ["smooth_mdp"]

# A logit that no θ of practical size brings back: its exponential is exactly zero, and so are its derivatives.
_OUTSIDE_SUPPORT = -1e6


@dataclass(frozen=True, slots=True)
class _Logits:
    """b + D θ for one table."""

    base: FloatArray
    direction: FloatArray | None

    @classmethod
    def draw(cls, seed: int, names: tuple[str, str], shape: tuple[int, ...], parameters: int, varies: bool) -> _Logits:
        rng = named_stream(seed, *names)
        base = rng.standard_normal(shape)
        direction = rng.standard_normal((*shape, parameters))
        return cls(base, direction if varies else None)

    def on(self, support: BoolArray) -> _Logits:
        """The same on a support, and constant and negligible outside."""
        direction = None if self.direction is None else self.direction * support[..., None]
        return _Logits(np.where(support, self.base, _OUTSIDE_SUPPORT), direction)

    def __call__(self, theta: Any) -> Any:
        if self.direction is None:
            return self.base
        return self.base + anp.dot(self.direction, theta)


@remade
@checked
def smooth_mdp(
    *,
    name: str,
    seed: Seed,
    support: BoolArray,
    initial_support: BoolArray,
    parameters: Count,
    theta_in: str | Iterable[str] = TABLE_NAMES,
    temperature: float,
    discount_leader: float,
    discount_follower: float,
    termination: Probability = 0.0,
    rewarded: BoolArray | None = None,
) -> ConfigurableMDP:
    """Return a problem with random smooth tables on a given support; formulas in the module's text.

    Parameters
    ----------
    name
        Of the problem; also names its random streams.
    seed
        Root entropy of the tables.
    support : (S, A, S)
        Which transitions are possible. A row without any is a termination.
    initial_support : (S,)
        Where episodes may start.
    parameters
        N, the length of θ.
    theta_in
        Names of the tables that depend on θ, of `bilevelrl.reference.tabular.tables.TABLE_NAMES`.
    temperature, discount_leader, discount_follower
        β, γ_L and γ_F.
    termination
        Probability at θ = 0 that a step is the last, in every state; it moves with θ when the transitions do.
    rewarded : (S,), optional
        States outside earn nothing.

    Raises
    ------
    UnknownNameError
        If `theta_in` names no table.
    InvalidInputError
        If a size is below one, a probability outside [0, 1], or no start is possible.

    Examples
    --------
    >>> problem = smooth_mdp(
    ...     name="pair", seed=0, support=np.ones((2, 1, 2), dtype=bool), initial_support=np.array([True, False]),
    ...     parameters=2, temperature=1.0, discount_leader=0.5, discount_follower=0.9, termination=0.25)
    >>> problem.tables(np.zeros(2)).transition.sum(axis=2).ravel()
    array([0.75, 0.75])
    """
    varying = {theta_in} if isinstance(theta_in, str) else set(theta_in)
    for table in varying:
        if table not in TABLE_NAMES:
            raise UnknownNameError("theta_in", table, TABLE_NAMES)
    check_shape("support", support, (None, None, None), "(S, A, S)")
    states, actions, _ = support.shape
    check_shape("support", support, (states, actions, states), "(S, A, S)")
    check_shape("initial_support", initial_support, (states,), "one entry per state of support")
    if rewarded is not None:
        check_shape("rewarded", rewarded, (states,), "one entry per state of support")
    if not initial_support.any():
        raise InvalidInputError("initial_support: expected at least one state; an episode has to start somewhere")

    def draw(table: str, shape: tuple[int, ...], of: str) -> _Logits:
        return _Logits.draw(seed, (name, table), shape, parameters, of in varying)

    next_state = draw("transition", support.shape, "transition").on(support)
    survival = draw("survival", (states, actions), "transition")
    reward_follower = draw("reward_follower", (states, actions), "reward_follower")
    reward_leader = draw("reward_leader", (states, actions), "reward_leader")
    first_state = draw("initial", (states,), "initial").on(initial_support)
    slope = named_stream(seed, name, "regulariser").standard_normal(parameters)
    alive = support.any(axis=2, keepdims=True).astype(np.float64)
    earning = np.ones((states, 1)) if rewarded is None else np.asarray(rewarded, dtype=np.float64)[:, None]

    def transition(theta: Any) -> Any:
        probability = alive * softmax(next_state(theta))
        if termination == 0.0 or termination == 1.0:
            return (1.0 - termination) * probability
        moved = 0.0 if survival.direction is None else anp.dot(survival.direction, theta)
        stays = sigmoid(np.log1p(-termination) - np.log(termination) + moved + np.zeros((states, actions)))
        return probability * anp.reshape(stays, (states, actions, 1))

    origin = np.zeros(parameters)
    constant = transition(origin)
    constant.setflags(write=False)

    def tables(theta: Any) -> Tables:
        regulariser = 0.0
        if "regulariser" in varying:
            regulariser = anp.dot(slope, theta) - 0.05 * anp.dot(theta, theta)
        return Tables(
            transition=transition(theta) if "transition" in varying else constant,
            reward_follower=earning * anp.tanh(reward_follower(theta)),
            reward_leader=earning * anp.tanh(reward_leader(theta)),
            initial=softmax(first_state(theta)),
            regulariser=regulariser,
        )

    return ConfigurableMDP(
        tables=tables,
        discount_leader=discount_leader,
        discount_follower=discount_follower,
        temperature=temperature,
        theta_shape=(parameters,),
        name=name,
    )
