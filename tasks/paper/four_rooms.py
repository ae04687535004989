"""Four-Rooms: the leader taxes cells so that a shortest-path seeker passes through a target cell on its way.

A 13x13 map of four rooms with 104 free cells. The leader spreads a budget of penalties over the cells (and an unused
slot) by a softmax, `p = softmax(θ)`, θ ∈ R^105; a cell costs the follower `budget · p_s` per step:

    r_F(s) = 1[s = goal] - budget p_s 1[s ≠ goal]
    r_L(s) = 1[s = target] - coefficient · budget · (1 - p_unused) 1[s = goal]

The step that the follower takes in the goal is the last of its episode. No reward depends on the action, and θ does not
enter the dynamics. Two kernels are in use: the text of the paper has a failed move (probability .33) go in one of the
other three directions, .67 and .11 each; the released code plans, and reports the objective, with .56 and .1467 each.

Reference: Kudo et al. (2026), arXiv:2603.14867.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
from numpy.random import Generator

from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.arrays import FloatArray, check_positive
from bilevelrl.reference.contexts import Mixture
from bilevelrl.reference.doors import Count, checked
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError, refusal
from bilevelrl.reference.storage import remade
from bilevelrl.tasks.paper.penalties import LinearPenalties, Penalties, SoftmaxPenalties, penalised_grid
from bilevelrl.tasks.paper.room_grid import Cell, RoomGrid
from bilevelrl.tasks.registry import register_task

__all__ = [
    "FOUR_ROOMS_GRID",
    "FOUR_ROOMS_KERNELS",
    "FOUR_ROOMS_MARKS",
    "GOAL",
    "SECOND_GOAL",
    "START",
    "TARGET",
    "contextual_four_rooms",
    "four_rooms",
    "initial_theta",
]

FOUR_ROOMS_GRID = RoomGrid.from_text(
    """
xxxxxxxxxxxxx
x     x     x
x     x     x
x           x
x     x     x
x     x     x
xx xxxx     x
x     xxx xxx
x     x     x
x     x     x
x           x
x     x     x
xxxxxxxxxxxxx
"""
)
"""The map: 104 free cells."""

START: Cell = (4, 1)
GOAL: Cell = (1, 9)
SECOND_GOAL: Cell = (11, 11)
"""The other goal of HPGD's contextual version."""
TARGET: Cell = (8, 4)
BUDGET = 0.2
"""Sum of all penalties, the unused slot's included."""

FOUR_ROOMS_MARKS: Mapping[str, Cell] = MappingProxyType({"start": START, "goal": GOAL, "target": TARGET})
"""The cells that pictures name."""

FAILURE = 0.33
FOUR_ROOMS_KERNELS: Mapping[str, float] = MappingProxyType(
    {"planner": 1.0 - 4.0 * FAILURE / 3.0, "paper": 1.0 - FAILURE}
)
"""Probability of the intended move by the name of the kernel."""

Coordinates: TypeAlias = Literal["logits", "shares"]
COORDINATES: tuple[Coordinates, ...] = ("logits", "shares")


@register_task("four_rooms", "the paper's Four-Rooms: penalties on 104 cells lead the follower through a target cell")
@remade
@checked
def four_rooms(
    *,
    temperature: float = 0.001,
    kernel: str = "planner",
    start: Cell = START,
    goal: Cell = GOAL,
    target: Cell = TARGET,
    coefficient: float = 5.0,
    budget: float = BUDGET,
    coordinates: Coordinates = "logits",
    discount_leader: float = 0.99,
    discount_follower: float = 0.99,
) -> ConfigurableMDP:
    """Return the Four-Rooms problem.

    Parameters
    ----------
    temperature
        β; the paper uses .001, .003 and .005.
    kernel
        "planner" (.56 intended, .1467 each other move) or "paper" (.67, .11): see the module's text.
    start, goal, target
        Free cells (row, column).
    coefficient
        What the leader pays, at the goal, per unit of penalty laid out.
    budget
        Sum of all penalties, the unused slot's included, in units of the follower's reward.
    coordinates
        "logits": θ ∈ R^105, one logit per cell in state order and the unused slot's. "shares": θ ∈ R^104 is p itself,
        feasible where θ ≥ 0 and Σ θ ≤ 1. Logits never reach a vertex of that set, and their gradient vanishes towards
        it; the one in shares tells whether the vertex is a local maximum.
    discount_leader, discount_follower
        γ_L and γ_F.

    Returns
    -------
    ConfigurableMDP
        Derivatives in closed form.

    Raises
    ------
    UnknownNameError
        If there is no such kernel, or no such coordinates.
    InvalidInputError
        If a cell is a wall, or a number out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevelrl.reference import hypergradient
    >>> exact = hypergradient(four_rooms(temperature=0.005), np.zeros(105))
    >>> round(exact.objective, 6), round(float(np.linalg.norm(exact.value)), 6)
    (-0.667413, 0.00921)
    """
    if kernel not in FOUR_ROOMS_KERNELS:
        raise UnknownNameError("kernel", kernel, FOUR_ROOMS_KERNELS)
    if coordinates not in COORDINATES:
        raise UnknownNameError("coordinates", coordinates, COORDINATES)
    grid = FOUR_ROOMS_GRID
    at_start, at_goal, at_target = (
        grid.indicator(cell, name=name) for cell, name in ((start, "start"), (goal, "goal"), (target, "target"))
    )
    transition = grid.kernel(FOUR_ROOMS_KERNELS[kernel], terminal=(goal,)).to_dense()
    transition.setflags(write=False)  # the same read-only array at every θ is checked once
    penalties: Penalties
    if coordinates == "logits":
        penalties = SoftmaxPenalties(cells=grid.states, budget=budget)
    else:
        penalties = LinearPenalties(cells=grid.states, scale=budget)
    return penalised_grid(
        transition=transition,
        penalties=penalties,
        initial=at_start,
        goals=at_goal,
        targets=at_target,
        cost=coefficient,
        temperature=temperature,
        discount_leader=discount_leader,
        discount_follower=discount_follower,
        name=f"four_rooms({kernel}, temperature={temperature:g})",
    )


@register_task(
    "contextual_four_rooms", "HPGD's Four-Rooms: the follower's goal is one of two, each with probability 1/2"
)
@checked
def contextual_four_rooms(
    *,
    temperature: float = 0.001,
    coefficient: float = 5.0,
    kernel: str = "planner",
    goals: tuple[Cell, ...] = (GOAL, SECOND_GOAL),
) -> Mixture:
    """Return Four-Rooms with a goal per context, all of them equally likely; what is not listed is as in `four_rooms`.

    Parameters
    ----------
    temperature
        β; published: .001, .003 and .005.
    coefficient
        What the leader pays, at the goal, per unit of penalty laid out; published: 1 to 5, of which 1, 3 and 5 are
        shown.
    kernel
        In which followers plan, and the leader is paid.
    goals
        A free cell for each context.

    Returns
    -------
    Mixture

    Raises
    ------
    InvalidInputError
        As `four_rooms`, or if there is no goal.

    References
    ----------
    Thoma et al. (2024), arXiv:2406.01575 (HPGD), Section 5.1.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevelrl.reference import hypergradient
    >>> found = hypergradient(contextual_four_rooms(temperature=0.003, coefficient=1.0), np.zeros(105))
    >>> [round(own.objective, 4) for own in found.contexts], round(found.objective, 4)
    ([-0.1443, 0.5443], 0.2)
    """
    if not goals:
        raise InvalidInputError(refusal("goals", goals, "at least one free cell", "name each follower's goal"))
    contexts = [
        four_rooms(temperature=temperature, kernel=kernel, goal=goal, coefficient=coefficient) for goal in goals
    ]
    weights = np.full(len(contexts), 1.0 / max(len(contexts), 1))
    name = f"contextual_four_rooms({kernel}, temperature={temperature:g}, coefficient={coefficient:g})"
    return Mixture(contexts=contexts, weights=weights, name=name)


@checked
def initial_theta(rng: Generator, *, scale: float = 0.01, size: Count = FOUR_ROOMS_GRID.states + 1) -> FloatArray:
    """Draw the leader's starting point, independent N(0, scale²), as in the paper's experiments.

    Examples
    --------
    >>> from bilevelrl.reference import named_stream
    >>> initial_theta(named_stream(0, "start")).shape
    (105,)
    """
    check_positive("scale", scale, "for an exact start use zeros")
    return scale * rng.standard_normal(size)
