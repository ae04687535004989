"""Hypothesis strategies: configurable MDPs and Markov games drawn to break a solver, a route or an estimator.

Structure is drawn by hypothesis and shrinks towards the dull case: unequal discounts, temperatures over six decades,
one state, one action, one parameter, unreachable states, probabilities that are zero at every θ, absorbing, periodic
and slow chains, termination, rewards scaled or shifted by a million. The entries of the tables follow from one drawn
integer. Needs the extra `property`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import autograd.numpy as anp
import numpy as np
from hypothesis import strategies as st

from bilevelrl.reference import ConfigurableMDP, MarkovGame, SparseTransition, Tables
from bilevelrl.reference.arrays import BoolArray, FloatArray
from bilevelrl.reference.derivatives import sigmoid, softmax

__all__ = ["CHAINS", "Chain", "DrawnProblem", "configurable_mdps", "markov_games", "sparse_twin"]

Chain: TypeAlias = Literal["generic", "zeros", "absorbing", "periodic", "slow", "unreachable"]
"""Shapes of the transition graph; all but "generic" have probabilities that are zero at every θ."""

CHAINS: tuple[Chain, ...] = ("generic", "zeros", "absorbing", "periodic", "slow", "unreachable")

_TABLES = ("transition", "reward_follower", "reward_leader", "initial", "regulariser")


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnProblem:
    """A drawn problem, the point at which to look at it, and in words what is special about it.

    Attributes
    ----------
    problem : ConfigurableMDP or MarkovGame
        Everything that depends on θ is analytic in it.
    theta : (N,)
        The leader's parameter.
    features : str
        What was drawn, for the report of a failure.
    """

    problem: Any
    theta: FloatArray
    features: str

    def __repr__(self) -> str:
        return f"DrawnProblem({self.features}, theta={self.theta.tolist()})"


def sparse_twin(problem: ConfigurableMDP) -> ConfigurableMDP:
    """Return the same problem with its dense kernel listed as a `SparseTransition` of S successors per pair.

    Examples
    --------
    >>> from bilevelrl.reference import leader_objective
    >>> from bilevelrl.tasks import random_mdp
    >>> dense, theta = random_mdp(states=4, actions=2, parameters=3, seed=0), np.zeros(3)
    >>> abs(leader_objective(sparse_twin(dense), theta) - leader_objective(dense, theta)) < 1e-12
    True
    """

    def tables(theta: Any) -> Tables:
        dense = problem.tables(theta)
        successor = np.broadcast_to(np.arange(dense.states), dense.transition.shape).astype(np.int64)
        return Tables(
            transition=SparseTransition(successor=successor, probability=dense.transition),
            reward_follower=dense.reward_follower,
            reward_leader=dense.reward_leader,
            initial=dense.initial,
            regulariser=dense.regulariser,
        )

    return ConfigurableMDP(
        tables=tables,
        discount_leader=problem.discount_leader,
        discount_follower=problem.discount_follower,
        temperature=problem.temperature,
        theta_shape=problem.theta_shape,
        name=f"{problem.name}, sparse",
    )


@st.composite
def configurable_mdps(
    draw: st.DrawFn,
    *,
    max_states: int = 5,
    max_actions: int = 3,
    max_parameters: int = 3,
    temperatures: tuple[float, float] = (1e-4, 1e2),
    discounts: Sequence[float] = (0.0, 0.5, 0.9, 0.99),
    reward_scales: Sequence[float] = (1.0, 1e-3, 1e3, 1e6),
    reward_shifts: Sequence[float] = (0.0, 1e6, -1e6),
    chains: Sequence[Chain] = CHAINS,
    termination: bool = True,
) -> DrawnProblem:
    """Draw a tabular problem whose every table may depend on θ, and a θ.

    Parameters
    ----------
    max_states, max_actions, max_parameters
        Largest sizes; the smallest is one.
    temperatures
        Smallest and largest β; drawn evenly on the logarithm.
    discounts
        γ_L and γ_F are drawn from these separately.
    reward_scales, reward_shifts
        Each player's rewards are `scale · (numbers of order one) + shift`, drawn separately.
    chains
        Shapes of the transition graph to draw from.
    termination
        Whether rows may sum to less than one.

    Returns
    -------
    A strategy of `DrawnProblem`.

    Examples
    --------
    >>> from hypothesis import given, settings
    >>> from bilevelrl.reference import solve_follower
    >>> @settings(max_examples=5, database=None, deadline=None, derandomize=True)
    ... @given(configurable_mdps(max_states=3, temperatures=(0.1, 10.0)))
    ... def follower_is_solved(drawn):
    ...     assert solve_follower(drawn.problem, drawn.theta).status.succeeded
    >>> follower_is_solved()
    """
    states = draw(st.integers(1, max_states), label="states")
    actions = draw(st.integers(1, max_actions), label="actions")
    parameters = draw(st.integers(1, max_parameters), label="parameters")
    chain = draw(st.sampled_from(list(chains)), label="chain")
    low, high = np.log10(temperatures)
    temperature = float(10.0 ** draw(st.floats(low, high), label="log10 temperature"))
    discount_leader = draw(st.sampled_from(list(discounts)), label="discount_leader")
    discount_follower = draw(st.sampled_from(list(discounts)), label="discount_follower")
    scale_leader, scale_follower = (draw(st.sampled_from(list(reward_scales)), label="reward scale") for _ in range(2))
    shift_leader, shift_follower = (draw(st.sampled_from(list(reward_shifts)), label="reward shift") for _ in range(2))
    theta_in = draw(st.sets(st.sampled_from(_TABLES), min_size=1), label="theta enters")
    ending = draw(st.sampled_from(["never", "uneven", "at once"] if termination else ["never"]), label="termination")
    rng = np.random.default_rng(draw(st.integers(0, 2**16), label="entries"))
    theta = np.array(draw(st.lists(st.floats(-2.0, 2.0, width=16), min_size=parameters, max_size=parameters)))

    kernel = _kernel(chain, states, actions, parameters, ending, "transition" in theta_in, rng)
    base_leader, slope_leader = (
        rng.standard_normal((states, actions)),
        rng.standard_normal((states, actions, parameters)),
    )
    base_follower, slope_follower = rng.standard_normal((states, actions)), rng.standard_normal(slope_leader.shape)
    start, slope_start = rng.standard_normal(states), rng.standard_normal((states, parameters))
    reached = np.ones(states, dtype=np.bool_)
    if chain == "unreachable":
        reached[-1] = states == 1

    def tables(x: Any) -> Tables:
        bend = anp.sin(x)
        law_logits = start + (anp.dot(slope_start, x) if "initial" in theta_in else 0.0)
        return Tables(
            transition=kernel(x),
            reward_follower=shift_follower
            + scale_follower
            * (base_follower + (anp.dot(slope_follower, bend) if "reward_follower" in theta_in else 0.0)),
            reward_leader=shift_leader
            + scale_leader * (base_leader + (anp.dot(slope_leader, bend) if "reward_leader" in theta_in else 0.0)),
            initial=_masked(law_logits, reached),
            regulariser=anp.sum(bend * bend) if "regulariser" in theta_in else 0.0,
        )

    problem = ConfigurableMDP(
        tables=tables,
        discount_leader=discount_leader,
        discount_follower=discount_follower,
        temperature=temperature,
        theta_shape=(parameters,),
        name=f"drawn {chain} chain",
    )
    features = (
        f"{chain} chain, S={states}, A={actions}, N={parameters}, discount_leader={discount_leader}, "
        f"discount_follower={discount_follower}, temperature={temperature:.3g}, "
        f"leader {scale_leader:g}·r{shift_leader:+g}, follower {scale_follower:g}·r{shift_follower:+g}, "
        f"termination {ending}, theta in {sorted(theta_in)}"
    )
    return DrawnProblem(problem=problem, theta=theta, features=features)


@st.composite
def markov_games(
    draw: st.DrawFn,
    *,
    max_states: int = 4,
    max_leader_actions: int = 3,
    max_actions: int = 3,
    max_parameters: int = 3,
    temperatures: tuple[float, float] = (1e-4, 1e2),
    discounts: Sequence[float] = (0.0, 0.5, 0.9, 0.99),
    reward_scales: Sequence[float] = (1.0, 1e-3, 1e3),
    reward_shifts: Sequence[float] = (0.0, 1e6, -1e6),
    chains: Sequence[Chain] = CHAINS,
    termination: bool = True,
    sees_leader_action: Sequence[bool] = (True, False),
) -> DrawnProblem:
    """Draw a Markov game of either information structure, and a θ.

    The leader's logits are linear in sin θ, with the same θ in all states; every leader action keeps a positive
    probability.

    Parameters
    ----------
    max_states, max_leader_actions, max_actions, max_parameters
        Largest sizes; the smallest is one.
    temperatures, discounts, reward_scales, reward_shifts, chains, termination
        As in `configurable_mdps`.
    sees_leader_action
        Information structures to draw from.

    Returns
    -------
    A strategy of `DrawnProblem`.

    Examples
    --------
    >>> from hypothesis import given, settings
    >>> from bilevelrl.reference import solve_follower
    >>> @settings(max_examples=5, database=None, deadline=None, derandomize=True)
    ... @given(markov_games(max_states=3, temperatures=(0.1, 10.0)))
    ... def follower_is_solved(drawn):
    ...     assert solve_follower(drawn.problem, drawn.theta).status.succeeded
    >>> follower_is_solved()
    """
    states = draw(st.integers(1, max_states), label="states")
    leader_actions = draw(st.integers(1, max_leader_actions), label="leader actions")
    actions = draw(st.integers(1, max_actions), label="actions")
    parameters = draw(st.integers(1, max_parameters), label="parameters")
    chain = draw(st.sampled_from(list(chains)), label="chain")
    low, high = np.log10(temperatures)
    temperature = float(10.0 ** draw(st.floats(low, high), label="log10 temperature"))
    discount_leader = draw(st.sampled_from(list(discounts)), label="discount_leader")
    discount_follower = draw(st.sampled_from(list(discounts)), label="discount_follower")
    scales = [draw(st.sampled_from(list(reward_scales)), label="reward scale") for _ in range(2)]
    shifts = [draw(st.sampled_from(list(reward_shifts)), label="reward shift") for _ in range(2)]
    sees = draw(st.sampled_from(list(sees_leader_action)), label="sees")
    regularised = draw(st.booleans(), label="regularised")
    ending = draw(st.sampled_from(["never", "uneven", "at once"] if termination else ["never"]), label="termination")
    rng = np.random.default_rng(draw(st.integers(0, 2**16), label="entries"))
    theta = np.array(draw(st.lists(st.floats(-2.0, 2.0, width=16), min_size=parameters, max_size=parameters)))

    kernel = _kernel(chain, states, leader_actions * actions, 1, ending, False, rng)(theta)
    shape = (states, leader_actions, actions)
    reward_leader, reward_follower = (
        shift + scale * rng.standard_normal(shape) for scale, shift in zip(scales, shifts, strict=True)
    )
    start = rng.standard_exponential(states)
    if chain == "unreachable" and states > 1:
        start[-1] = 0.0
    logits, slope = rng.standard_normal(shape[:2]), rng.standard_normal((*shape[:2], parameters))
    game = MarkovGame(
        transition=kernel.reshape(*shape, states),
        reward_follower=reward_follower,
        reward_leader=reward_leader,
        initial=start / start.sum(),
        policy=lambda x: softmax(logits + anp.dot(slope, anp.sin(x))),
        follower_sees_leader_action=sees,
        discount_leader=discount_leader,
        discount_follower=discount_follower,
        temperature=temperature,
        regulariser=(lambda x: anp.sum(anp.sin(x) ** 2)) if regularised else None,
        theta_shape=(parameters,),
        name=f"drawn {chain} game",
    )
    features = (
        f"{chain} chain, S={states}, L={leader_actions}, A={actions}, N={parameters}, sees={sees}, "
        f"discount_leader={discount_leader}, discount_follower={discount_follower}, temperature={temperature:.3g}, "
        f"leader {scales[0]:g}·r{shifts[0]:+g}, follower {scales[1]:g}·r{shifts[1]:+g}, termination {ending}, "
        f"regularised={regularised}"
    )
    return DrawnProblem(problem=game, theta=theta, features=features)


def _masked(logits: Any, support: BoolArray) -> Any:
    """Softmax over the last axis, restricted to a support that does not depend on θ."""
    # The shift by a large constant instead of -inf keeps complex numbers and derivatives finite.
    weights = softmax(logits - 1e3 * ~support) * support
    return weights / anp.sum(weights, axis=-1, keepdims=True)


def _support(chain: Chain, states: int, actions: int, rng: np.random.Generator) -> BoolArray:
    """Which successors each pair has, (S, A, S)."""
    support = np.ones((states, actions, states), dtype=np.bool_)
    state = np.arange(states)
    if chain == "zeros":
        support = rng.random(support.shape) < 0.5
        support[state, :, rng.integers(states, size=states)] = True
    elif chain == "absorbing":
        support[-1] = state == states - 1
    elif chain == "periodic":
        support = np.broadcast_to(((state[:, None] + 1) % states == state)[:, None, :], support.shape).copy()
    elif chain == "slow":
        near = (state[:, None] == state) | (state[:, None] + 1 == state)
        support = np.broadcast_to(near[:, None, :], support.shape).copy()
    elif chain == "unreachable" and states > 1:
        support[:, :, -1] = False
    return support


def _kernel(
    chain: Chain,
    states: int,
    actions: int,
    parameters: int,
    ending: str,
    configurable: bool,
    rng: np.random.Generator,
) -> Callable[[Any], Any]:
    """Return θ → (S, A, S)."""
    support = _support(chain, states, actions, rng)
    logits = rng.standard_normal(support.shape)
    if chain == "slow":
        logits[np.arange(states), :, np.arange(states)] += 7.0  # one step in about a thousand
    slope = rng.standard_normal((*support.shape, parameters))
    survival_logit = rng.standard_normal((states, actions))
    survival_slope = rng.standard_normal((states, actions, parameters))

    def kernel(x: Any) -> Any:
        probability = _masked(logits + anp.dot(slope, x), support)
        if ending == "uneven":
            probability = probability * sigmoid(2.0 + survival_logit + anp.dot(survival_slope, x))[:, :, None]
        elif ending == "at once":
            probability = 0.0 * probability
        return probability

    if configurable:
        return kernel
    fixed = kernel(np.zeros(parameters))
    fixed.flags.writeable = False
    return lambda x: fixed
