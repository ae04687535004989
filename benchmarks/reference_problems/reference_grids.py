"""The reference problems on grids: corridors with tolls, and the paper's Four-Rooms."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from numpy.random import Generator

from bilevelrl.reference import named_stream
from bilevelrl.reference.certified import ClosedForm, ClosedFormTable, Exact, FeatureBlock
from bilevelrl.tasks.paper import FOUR_ROOMS_GRID, GOAL, SECOND_GOAL, START, TARGET

__all__ = ["grid_cases", "sixty_fourths"]


def grid_cases(entropy: int) -> Iterator[tuple[ClosedForm, str]]:
    """Yield (problem, summary)."""
    for states, slip in ((8, -4), (20, -4), (20, -10)):
        problem = _corridor(entropy, states, slip)
        yield problem, f"a corridor of {states} cells with tolls; moves slip with odds exp({slip})"
    for beta in ("0.001", "0.003", "0.005"):
        yield (
            _rooms(entropy, f"four_rooms_{beta}", beta=beta),
            f"Four-Rooms, planner's kernel, temperature {beta}, uniform shares",
        )
    for beta in ("0.001", "0.003", "0.005"):
        yield (
            _rooms(entropy, f"four_rooms_vertex_{beta}", beta=beta, shares=True),
            f"Four-Rooms in shares at the vertex of no penalty, temperature {beta}",
        )
    yield (
        _rooms(entropy, "four_rooms_paper_0.001", beta="0.001", intended=67),
        "Four-Rooms, the kernel of the paper's text",
    )
    yield _rooms(entropy, "four_rooms_second_goal_0.003", beta="0.003", goal=SECOND_GOAL), "Four-Rooms, the second goal"
    yield _rooms(entropy, "four_rooms_away_0.003", beta="0.003", away=True), "Four-Rooms at logits of order one half"


def sixty_fourths(rng: Generator, count: int, largest: int = 64) -> list[float]:
    """Return random multiples of 1/64, at most `largest` of them in size."""
    return [int(n) / 64.0 for n in rng.integers(-largest, largest + 1, count)]


def _corridor(entropy: int, states: int, slip: int) -> ClosedForm:
    kernel: dict[int, Exact] = {}
    moves: list[tuple[int, int, Exact]] = []
    for s in range(states):
        ends = (max(s - 1, 0), min(s + 1, states - 1))
        for a in (0, 1):
            row = (s * 2 + a) * states
            kernel[row + ends[a]] = 1
            moves += [(row + ends[a], states, -1), (row + ends[1 - a], states, 1)]
    pairs = range(2 * states)
    return ClosedForm(
        kind="configurable_mdp",
        name=f"mdp_corridor_{states}_{-slip}",
        tables={
            "transition": ClosedFormTable(shape=(states, 2, states), base=kernel, slope=tuple(moves)),
            "reward_follower": ClosedFormTable(
                shape=(states, 2), base={2 * states - 2: 1, 2 * states - 1: 1},
                slope=tuple((e, e // 2, -0.5) for e in pairs),
            ),
            "reward_leader": ClosedFormTable(
                shape=(states, 2), base={0: 0.5, 1: 0.5}, slope=tuple((e, e // 2, 0.5) for e in pairs)
            ),
            "initial": ClosedFormTable(shape=(states,), base={0: 1}),
        },
        features=(FeatureBlock(link="sigmoid", length=states + 1, offset=(*(0,) * states, slip)),),
        theta=tuple(sixty_fourths(named_stream(entropy, "corridor", str(states)), states + 1, 32)),
        discount_leader=Fraction(97, 100),
        discount_follower=Fraction(99, 100),
        temperature=Fraction(1, 2),
    )  # fmt: skip


def _rooms(
    entropy: int,
    name: str,
    *,
    beta: str,
    intended: int = 84,
    shares: bool = False,
    goal: tuple[int, int] = GOAL,
    away: bool = False,
) -> ClosedForm:
    """Weights 84 : 22 : 22 : 22 of the four directions (.56 intended), or 67 : 11 : 11 : 11."""
    grid, cells = FOUR_ROOMS_GRID, FOUR_ROOMS_GRID.states
    other = 22 if intended == 84 else 11
    at_goal, at_target = grid.index_of(goal), grid.index_of(TARGET)
    kernel: dict[int, Exact] = {}
    for s in range(cells):
        for a in range(4):
            for direction, successor in enumerate(grid.successor[s]) if s != at_goal else ():
                place = (s * 4 + a) * cells + int(successor)
                kernel[place] = kernel.get(place, 0) + (intended if direction == a else other)
    parameters = cells if shares else cells + 1
    rng = named_stream(entropy, name)
    return ClosedForm(
        kind="configurable_mdp",
        name=name,
        tables={
            "transition": ClosedFormTable(shape=(cells, 4, cells), base=kernel, link="normalise"),
            "reward_follower": ClosedFormTable(
                shape=(cells, 4),
                base={at_goal * 4 + a: 1 for a in range(4)},
                slope=tuple((s * 4 + a, s, Fraction(-1, 5)) for s in range(cells) if s != at_goal for a in range(4)),
            ),
            "reward_leader": ClosedFormTable(
                shape=(cells, 4),
                base={at_target * 4 + a: 1 for a in range(4)},
                slope=tuple((at_goal * 4 + a, s, -1) for a in range(4) for s in range(cells)),
            ),
            "initial": ClosedFormTable(shape=(cells,), base={grid.index_of(START): 1}),
        },
        features=(FeatureBlock(link="identity" if shares else "softmax", length=parameters),),
        theta=tuple(sixty_fourths(rng, parameters, 32)) if away else (0,) * parameters,
        discount_leader=Fraction(99, 100),
        discount_follower=Fraction(99, 100),
        temperature=Fraction(beta),
    )
