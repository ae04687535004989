"""The reference problems in closed form: from easy to cruel, every number exact.

Numbers drawn at random are multiples of 1/64, so that a double holds them and a reader sees all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.random import Generator

from bilevelrl.benchmarks.reference_problems.reference_games import game_cases
from bilevelrl.benchmarks.reference_problems.reference_grids import grid_cases, sixty_fourths
from bilevelrl.benchmarks.reference_problems.reference_lqrs import lqr_cases
from bilevelrl.reference import named_stream
from bilevelrl.reference.arrays import BoolArray
from bilevelrl.reference.certified import ClosedForm, ClosedFormTable, Exact, FeatureBlock

__all__ = ["ENTROPY", "ReferenceCase", "reference_cases"]

ENTROPY = 20260314
"""Root of all random numbers in the data."""

ALL = ("transition", "reward_follower", "reward_leader", "initial", "regulariser")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceCase:
    """A problem to certify.

    Attributes
    ----------
    problem : ClosedForm
        It, under its name.
    summary : str
        One line for the data file.
    """

    problem: ClosedForm
    summary: str


def reference_cases() -> Iterator[ReferenceCase]:
    """Yield all problems.

    Examples
    --------
    >>> len({case.problem.name for case in reference_cases()}) >= 50
    True
    """
    for problem, summary in [
        *_temperatures(), *_discounts(), *_structures(), *_single_tables(), *_horizons(), *_scales(), *_ties(),
        *_forks(), *_slow_chains(), *grid_cases(ENTROPY), *game_cases(ENTROPY), *lqr_cases(ENTROPY),
    ]:  # fmt: skip
        yield ReferenceCase(problem=problem, summary=summary)


_Case = tuple[ClosedForm, str]


def _affine(
    rng: Generator, shape: tuple[int, ...], parameters: int, *, link: str, varies: bool, largest: int = 64,
    support: Iterable[int] | None = None, scale: Exact | tuple[Exact, ...] = 1,
) -> ClosedFormTable:  # fmt: skip
    size = math.prod(shape)
    base = sixty_fourths(rng, size, largest)
    slope = sixty_fourths(rng, size * parameters, 48)
    chosen = sorted(range(size) if support is None else support)
    return ClosedFormTable(
        shape=shape,
        base={place: base[place] for place in chosen},
        slope=tuple((e, j, slope[e * parameters + j]) for e in chosen for j in range(parameters)) if varies else (),
        link=link,  # type: ignore[arg-type]
        support=None if support is None else tuple(chosen),
        scale=scale,
    )


def _random(
    name: str, *, states: int = 5, actions: int = 3, parameters: int = 4, theta_in: Iterable[str] = ALL,
    temperature: Exact = 0.5, discount_leader: Exact = 0.875, discount_follower: Exact = 0.90625,
    support: BoolArray | None = None, survival: tuple[Exact, ...] | Exact = 1,
    reward_scale: Exact = 1, horizon: int | None = None, discounted: bool = True,
) -> ClosedForm:  # fmt: skip
    def draw(table: str) -> Generator:
        return named_stream(ENTROPY, name, table)

    shape = (states, actions)
    reached = None if support is None else [int(e) for e in np.flatnonzero(support)]
    varying = set(theta_in)
    tables = {
        "transition": _affine(
            draw("transition"), (*shape, states), parameters, link="softmax", varies="transition" in varying,
            largest=128, support=reached, scale=survival,
        ),
        **{
            reward: _affine(draw(reward), shape, parameters, link="tanh", varies=reward in varying, scale=reward_scale)
            for reward in ("reward_follower", "reward_leader")
        },
        "initial": _affine(draw("initial"), (states,), parameters, link="softmax", varies="initial" in varying),
    }  # fmt: skip
    if "regulariser" in varying:
        slope = sixty_fourths(draw("regulariser"), parameters)
        tables["regulariser"] = ClosedFormTable(
            shape=(),
            slope=tuple((0, j, number) for j, number in enumerate(slope)),
            quadratic=tuple((0, j, j, -0.0625) for j in range(parameters)),
        )
    return ClosedForm(
        kind="configurable_mdp",
        name=name,
        tables=tables,
        features=(FeatureBlock(link="identity", length=parameters),),
        theta=tuple(sixty_fourths(draw("theta"), parameters, 32)),
        discount_leader=discount_leader,
        discount_follower=discount_follower,
        temperature=temperature,
        horizon=horizon,
        discounted=discounted,
    )


def _temperatures() -> Iterator[_Case]:
    for temperature in ("1e-4", "1e-3", "1e-2", "1e-1", "1", "10", "100"):
        beta = Fraction(temperature)
        yield (
            _random(f"mdp_temperature_{float(beta):g}", temperature=beta),
            f"dense random problem, θ in every table, temperature {temperature}",
        )


def _discounts() -> Iterator[_Case]:
    for discount in ("0.5", "0.9", "0.99", "0.999", "0.9999"):
        gamma = Fraction(discount)
        yield (
            _random(f"mdp_discount_{discount}", discount_leader=gamma, discount_follower=gamma),
            f"dense random problem, both discounts {discount}",
        )
    for leader, follower in (("0.9999", "0.5"), ("0.5", "0.9999"), ("0", "0.99"), ("0.99", "0")):
        yield (
            _random(
                f"mdp_discounts_{leader}_{follower}",
                discount_leader=Fraction(leader),
                discount_follower=Fraction(follower),
            ),
            f"dense random problem, leader's discount {leader}, follower's {follower}",
        )
    for beta in ("1e-4", "100"):
        yield (
            _random(
                f"mdp_slow_temperature_{float(Fraction(beta)):g}",
                temperature=Fraction(beta),
                discount_leader=Fraction(9999, 10000),
                discount_follower=Fraction(9999, 10000),
            ),
            f"dense random problem, both discounts 0.9999, temperature {beta}",
        )


def _structures() -> Iterator[_Case]:
    yield _random("mdp_one_state", states=1, parameters=2), "one state: a bandit with a soft follower"
    yield _random("mdp_one_action", actions=1), "one action: there is no response"
    yield _random("mdp_one_parameter", parameters=1), "one parameter"
    order = named_stream(ENTROPY, "sparse").random((10, 3, 10)).argsort(axis=2)
    yield (
        _random("mdp_sparse", states=10, parameters=5, support=order < 3),
        "three successors for each state and action",
    )
    layer = np.repeat(np.arange(3), 2)
    onward = np.repeat((layer[None, :] == layer[:, None] + 1)[:, None, :], 2, axis=1)
    yield (
        _random("mdp_layered", states=6, actions=2, parameters=3, support=onward),
        "three layers of two states: every episode ends after three steps",
    )
    survival = tuple(Fraction(n, 8) for n in (7, 6, 8, 4, 7, 8, 8, 6, 5, 7, 3, 8, 8, 7, 8))
    yield _random("mdp_terminating", survival=survival), "rows that sum to less than one: episodes may end"
    yield (
        _random("mdp_terminating_slow", survival=Fraction(4095, 4096), discount_leader=Fraction(999, 1000),
                discount_follower=Fraction(999, 1000)),
        "episodes end with probability 1/4096 per step, both discounts 0.999",
    )  # fmt: skip


def _single_tables() -> Iterator[_Case]:
    for table in ALL:
        yield _random(f"mdp_theta_in_{table}", theta_in=(table,)), f"θ enters {table} only"


def _horizons() -> Iterator[_Case]:
    for horizon, discounted in ((1, True), (5, True), (50, True), (20, False), (200, False)):
        weights = "discounted" if discounted else "undiscounted"
        yield (
            _random(f"mdp_horizon_{horizon}_{weights}", horizon=horizon, discounted=discounted),
            f"episodes of {horizon} steps, {weights} leader's return",
        )


def _scales() -> Iterator[_Case]:
    for scale, beta in ((10**6, Fraction(1)), (10**6, Fraction(1, 10**4)), (Fraction(1, 10**6), Fraction(1, 10**7))):
        yield (
            _random(f"mdp_rewards_{float(scale):g}_temperature_{float(beta):g}", reward_scale=scale, temperature=beta),
            f"rewards of order {float(scale):g}, temperature {float(beta):g}",
        )


def _ties() -> Iterator[_Case]:
    """The follower is indifferent between two actions at θ and at no θ near it: the response is of order 1/β."""
    for beta in ("1e-2", "1e-4"):
        name = f"mdp_tie_temperature_{float(Fraction(beta)):g}"
        drawn = _random(name, actions=2, temperature=Fraction(beta), parameters=3)
        tables = dict(drawn.tables)
        for table in ("transition", "reward_follower"):
            width = 5 if table == "transition" else 1
            base = {
                (s * 2 + a) * width + t: drawn.tables[table].base[s * 2 * width + t]
                for s in range(5) for a in range(2) for t in range(width)
            }  # fmt: skip
            entry = drawn.tables[table]
            tables[table] = ClosedFormTable(
                shape=entry.shape, base=base, slope=entry.slope, link=entry.link, scale=entry.scale
            )
        yield (
            ClosedForm(
                kind=drawn.kind, name=name, tables=tables, features=drawn.features, theta=(0,) * 3,
                discount_leader=drawn.discount_leader, discount_follower=drawn.discount_follower,
                temperature=drawn.temperature,
            ),
            f"the follower is indifferent at θ, temperature {beta}",
        )  # fmt: skip


def _forks() -> Iterator[_Case]:
    """Two roads of almost the same worth for ever after: last bits of either, times horizon / β, move the choice."""
    for beta, gamma, scale in (
        ("1e-2", "0.99", 1),
        ("1e-4", "0.99", 1),
        ("1e-4", "0.9999", 1),
        ("1e-4", "0.9999", 1000),
        ("1e-3", "0.9999", 10**6),
    ):
        temperature, discount = Fraction(beta), Fraction(gamma)
        name = f"mdp_fork_{float(temperature):g}_{gamma}_{scale}"
        worth = 45 * scale / 64  # per step, on both roads: states 1 and 2, never left
        advantage = math.ldexp(1.0, round(math.log2(float(temperature * (1 - discount)))))
        yield (
            ClosedForm(
                kind="configurable_mdp",
                name=name,
                tables={
                    "transition": ClosedFormTable(shape=(3, 2, 3), base={1: 1, 5: 1, 7: 1, 10: 1, 14: 1, 17: 1}),
                    "reward_follower": ClosedFormTable(
                        shape=(3, 2), base={2: worth, 3: worth, 4: worth, 5: worth},
                        slope=((0, 2, 0.5), (2, 0, 1), (3, 0, 1), (4, 1, 1), (5, 1, 1)),
                    ),
                    "reward_leader": ClosedFormTable(shape=(3, 2), base={2: 1, 3: 1, 4: -0.5, 5: 0.25}),
                    "initial": ClosedFormTable(shape=(3,), base={0: 1}),
                },
                features=(FeatureBlock(link="identity", length=3),),
                theta=(advantage, 0, 0.25 * float(temperature)),
                discount_leader=Fraction(9, 10),
                discount_follower=discount,
                temperature=temperature,
            ),
            f"two roads of almost equal worth {worth:g} per step, temperature {beta}, follower's discount {gamma}",
        )  # fmt: skip


def _slow_chains() -> Iterator[_Case]:
    """A ring of six states that the follower goes round; it fails to move with a tiny probability, moved by θ."""
    states, actions = 6, 2
    for exponent in (7, 14, 28):
        for beta in (Fraction(1), Fraction(1, 1000)):
            name = f"mdp_near_periodic_{exponent}_temperature_{float(beta):g}"
            rng = named_stream(ENTROPY, name)
            kernel: dict[int, Exact] = {}
            moves: list[tuple[int, int, Exact]] = []
            for s in range(states):
                for a in range(actions):
                    row = (s * actions + a) * states
                    onward, stay = row + (s + 1) % states, row + s
                    kernel[onward] = 1
                    moves += [(onward, 2 + a, -1), (stay, 2 + a, 1)]
            rewards = {
                table: ClosedFormTable(
                    shape=(states, actions),
                    base=dict(enumerate(sixty_fourths(rng, states * actions))),
                    slope=tuple(
                        (e, j, n) for e in range(states * actions) for j, n in enumerate(sixty_fourths(rng, 2, 48))
                    ),
                )
                for table in ("reward_follower", "reward_leader")
            }
            yield (
                ClosedForm(
                    kind="configurable_mdp",
                    name=name,
                    tables={
                        "transition": ClosedFormTable(shape=(states, actions, states), base=kernel, slope=tuple(moves)),
                        **rewards,
                        "initial": ClosedFormTable(shape=(states,), base={0: 1}),
                    },
                    features=(
                        FeatureBlock(link="identity", length=2),
                        FeatureBlock(link="sigmoid", length=2, offset=(-exponent, -exponent + 1)),
                    ),
                    theta=(0.25, -0.125, 0.5, 0.0),
                    discount_leader=Fraction(9999, 10000),
                    discount_follower=Fraction(9999, 10000),
                    temperature=beta,
                ),
                f"a ring that is left with probability of order exp(-{exponent}), temperature {float(beta):g}",
            )
