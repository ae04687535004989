"""Hypothesis strategies in the shape of the scenarios: problems that end, envelopes, sparse ones, and the registry.

Problems that end can be enumerated without truncation, so that an unbiased estimator must be exact on every one drawn.
Structure shrinks towards one layer, one state, one action, one parameter, seed 0 and θ = 0. Needs the extra `property`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from bilevelrl.reference import ConfigurableMDP, Tables, solve_follower
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.tabular import TABLE_NAMES
from bilevelrl.tasks import Scenario, garnet, layered_mdp, scenarios
from bilevelrl.verification.testing.strategies import DrawnProblem

__all__ = ["drawn_scenarios", "envelope_mdps", "garnet_mdps", "layered_mdps"]


@st.composite
def layered_mdps(
    draw: st.DrawFn,
    *,
    max_layers: int = 3,
    max_width: int = 2,
    max_actions: int = 2,
    max_parameters: int = 3,
    temperatures: tuple[float, float] = (0.05, 20.0),
    discounts: Sequence[float] = (0.0, 0.5, 0.9, 0.99),
    theta_in: Sequence[str] = TABLE_NAMES,
) -> DrawnProblem:
    """Draw a problem whose every path ends after as many steps as it has layers (`features` tells the number).

    Parameters
    ----------
    max_layers, max_width, max_actions, max_parameters
        Largest sizes; the smallest is one. There are at most (width · actions)^layers paths.
    temperatures
        Smallest and largest β; drawn evenly on the logarithm.
    discounts
        γ_L and γ_F are drawn from these separately.
    theta_in
        θ enters a nonempty set of these tables.

    Returns
    -------
    A strategy of `DrawnProblem`.

    Examples
    --------
    >>> from hypothesis import find, settings
    >>> simplest = find(layered_mdps(), lambda drawn: True, settings=settings(database=None, derandomize=True))
    >>> simplest.problem.states_at(simplest.theta), simplest.theta.tolist()
    (1, [0.0])
    """
    layers = draw(st.integers(1, max_layers), label="layers")
    width = draw(st.integers(1, max_width), label="width")
    actions = draw(st.integers(1, max_actions), label="actions")
    problem, theta, features = _with_theta(
        draw,
        layered_mdp,
        {"layers": layers, "width": width, "actions": actions},
        max_parameters=max_parameters,
        temperatures=temperatures,
        discounts=discounts,
        theta_in=theta_in,
    )
    return DrawnProblem(problem=problem, theta=theta, features=f"{layers} layers of {width}, A={actions}, {features}")


@st.composite
def garnet_mdps(
    draw: st.DrawFn,
    *,
    max_states: int = 5,
    max_actions: int = 3,
    max_parameters: int = 3,
    temperatures: tuple[float, float] = (0.05, 20.0),
    discounts: Sequence[float] = (0.0, 0.5, 0.9, 0.99),
    theta_in: Sequence[str] = TABLE_NAMES,
) -> DrawnProblem:
    """Draw a Garnet problem: few successors per state and action, drawn at random and the same at every θ.

    Parameters
    ----------
    max_states, max_actions, max_parameters, temperatures, discounts, theta_in
        As in `layered_mdps`; the number of successors is drawn too.

    Returns
    -------
    A strategy of `DrawnProblem`.

    Examples
    --------
    >>> from hypothesis import find, settings
    >>> found = find(
    ...     garnet_mdps(), lambda drawn: drawn.problem.states_at(drawn.theta) > 1,
    ...     settings=settings(database=None, derandomize=True))
    >>> found.problem.states_at(found.theta)
    2
    """
    states = draw(st.integers(1, max_states), label="states")
    actions = draw(st.integers(1, max_actions), label="actions")
    branching = draw(st.integers(1, states), label="branching")
    problem, theta, features = _with_theta(
        draw,
        garnet,
        {"states": states, "actions": actions, "branching": branching},
        max_parameters=max_parameters,
        temperatures=temperatures,
        discounts=discounts,
        theta_in=theta_in,
    )
    described = f"S={states}, A={actions}, {branching} successors, {features}"
    return DrawnProblem(problem=problem, theta=theta, features=described)


@st.composite
def envelope_mdps(draw: st.DrawFn, *, with_entropy: bool = True) -> DrawnProblem:
    """Draw a problem in which the leader is paid r_F - β log π*_{θ0}, frozen at the drawn θ0, at equal discounts.

    There B = 0 and the response vanishes: J and the follower's own value agree to first order.

    Parameters
    ----------
    with_entropy
        False: r_L = r_F, without the entropy term. The response does not vanish then.

    Returns
    -------
    A strategy of `DrawnProblem`; its θ is θ0.

    Examples
    --------
    >>> from hypothesis import find, settings
    >>> drawn = find(envelope_mdps(), lambda drawn: True, settings=settings(database=None, derandomize=True))
    >>> drawn.problem.discount_leader == drawn.problem.discount_follower
    True
    """
    base = draw(layered_mdps(discounts=(0.5, 0.9), theta_in=("reward_follower", "transition", "initial")))
    inner: ConfigurableMDP = base.problem
    bonus: FloatArray = np.zeros(1)
    discount = inner.discount_follower
    if with_entropy:
        bonus = -inner.temperature * np.log(solve_follower(inner, base.theta).policy)

    def tables(x: Any) -> Tables:
        plain = inner.tables(x)
        return Tables(
            transition=plain.transition,
            reward_follower=plain.reward_follower,
            reward_leader=plain.reward_follower + bonus,
            initial=plain.initial,
        )

    problem = ConfigurableMDP(
        tables=tables,
        discount_leader=discount,
        discount_follower=discount,
        temperature=inner.temperature,
        theta_shape=inner.theta_shape,
        name=f"envelope of {inner.name}",
    )
    kind = "envelope" if with_entropy else "common reward without entropy"
    return DrawnProblem(problem=problem, theta=base.theta, features=f"{kind}, {base.features}")


def drawn_scenarios(*, tags: Sequence[str] = (), without: Sequence[str] = ()) -> st.SearchStrategy[Scenario]:
    """Draw one of the registered scenarios that have all of `tags` and none of `without`; shrinks to the first.

    Examples
    --------
    >>> from hypothesis import find, settings
    >>> find(drawn_scenarios(), lambda entry: True, settings=settings(database=None, derandomize=True)).name
    'bandit'
    """
    return st.sampled_from(scenarios(tags=tags, without=without))


def _with_theta(
    draw: st.DrawFn,
    make: Any,
    sizes: dict[str, int],
    *,
    max_parameters: int,
    temperatures: tuple[float, float],
    discounts: Sequence[float],
    theta_in: Sequence[str],
) -> tuple[ConfigurableMDP, FloatArray, str]:
    """Draw everything but the sizes of a generator's problem."""
    parameters = draw(st.integers(1, max_parameters), label="parameters")
    low, high = np.log10(temperatures)
    temperature = float(10.0 ** draw(st.floats(low, high), label="log10 temperature"))
    discount_leader = draw(st.sampled_from(list(discounts)), label="discount_leader")
    discount_follower = draw(st.sampled_from(list(discounts)), label="discount_follower")
    entered = draw(st.sets(st.sampled_from(list(theta_in)), min_size=1), label="theta enters")
    seed = draw(st.integers(0, 2**16), label="entries")
    theta = np.array(draw(st.lists(st.floats(-2.0, 2.0, width=16), min_size=parameters, max_size=parameters)))
    problem: ConfigurableMDP = make(
        **sizes,
        parameters=parameters,
        seed=seed,
        theta_in=tuple(sorted(entered)),
        temperature=temperature,
        discount_leader=discount_leader,
        discount_follower=discount_follower,
    )
    features = (
        f"N={parameters}, discount_leader={discount_leader}, discount_follower={discount_follower}, "
        f"temperature={temperature:.3g}, theta in {sorted(entered)}, seed={seed}"
    )
    return problem, theta, features
