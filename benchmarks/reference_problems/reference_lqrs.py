"""Linear-quadratic problems for the reference data: the building, the LQR game, and random regulators."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from bilevelrl.reference import named_stream
from bilevelrl.reference.certified import ClosedForm, ClosedFormTable, Exact, FeatureBlock

__all__ = ["building_form", "lqr_cases", "lqr_game_form"]

BUILDING_OPTIMUM = (1.0, 0.0, 1.0, 1.0, 0.0, 0.78, 1.0, 1.0)
"""Insulation, then airflow, of four zones."""


def lqr_cases(entropy: int) -> Iterator[tuple[ClosedForm, str]]:
    """Yield (problem, summary)."""
    drawn = named_stream(entropy, "building").integers(-64, 65, 8) / 64.0
    yield building_form("building_start", theta=(0.0,) * 8), "the building at half insulation and airflow"
    yield building_form("building_random", theta=tuple(map(float, drawn))), "the building at random logits"
    yield (
        building_form("building_horizon_100", theta=(0.0,) * 8, horizon=100),
        "the building, episodes of 100 steps",
    )
    yield (
        building_form("building_optimum", theta=BUILDING_OPTIMUM, link="identity"),
        "the building in its own coordinates near the optimum, insulation (1, 0, 1, 1), airflow (0, .78, 1, 1)",
    )
    for name, gain in (
        ("start", (0.0, 0.0)),
        ("published", (-9.683, -10.25)),
        ("mixed", (-7.59, 0.9306)),
        ("optimum", (-9.9615, -10.0)),
    ):
        yield lqr_game_form(f"lqr_game_{name}", gain=gain), f"the LQR game at K = {gain}"
    yield (
        lqr_game_form("lqr_game_optimum_undiscounted", gain=(-9.9615, -10.0), discounted=False),
        "the LQR game near its optimum, undiscounted",
    )
    for name, gain in (("start", (0.0, 0.0)), ("half_way", (-7.0, 0.0)), ("edge", (-9.9615, -10.0))):
        yield (
            lqr_game_form(f"lqr_game_infinite_{name}", gain=gain, horizon=None),
            f"the LQR game at K = {gain}, infinite horizon",
        )
    for size, horizon in ((1, None), (2, None), (3, None), (3, 12)):
        name = f"lqr_random_{size}" + ("" if horizon is None else f"_horizon_{horizon}")
        yield _random(name, entropy, size=size, horizon=horizon), f"random regulator, {size} states, θ in every matrix"


def building_form(
    name: str, *, theta: tuple[float, ...], horizon: int | None = None, link: str = "sigmoid"
) -> ClosedForm:
    """Four zones exchange heat; θ is each zone's insulation, then the airflow at each of four walls, as logits.

    With `link="identity"` θ is insulation and airflow themselves.
    """
    leak = [Fraction(n, 100) for n in (4, 3, 6, 5)]
    walls = {(0, 1): (5, 0), (1, 0): (3, 0), (1, 2): (4, 1), (2, 1): (4, 1),
             (2, 3): (6, 2), (3, 2): (3, 2), (3, 0): (5, 3), (0, 3): (5, 3)}  # fmt: skip
    slope: list[tuple[int, int, Exact]] = [(5 * i, i, -e) for i, e in enumerate(leak)]
    for (i, j), (percent, wall) in walls.items():
        slope += [(4 * i + j, 4 + wall, Fraction(percent, 100)), (5 * i, 4 + wall, Fraction(-percent, 100))]
    return ClosedForm(
        kind="configurable_lqr",
        name=name,
        tables={
            "dynamics_state": ClosedFormTable(
                shape=(4, 4), base={5 * i: 1 + e for i, e in enumerate(leak)}, slope=tuple(slope)
            ),
            "dynamics_action": ClosedFormTable(
                shape=(4, 2), base={0: Fraction(1, 10), 2: Fraction(3, 5), 5: Fraction(11, 20), 7: Fraction(3, 10)}
            ),
            "cost_state_follower": _diagonal(8, 1, 5, 6),
            "cost_action_follower": _diagonal(Fraction(1, 100), Fraction(1, 100)),
            "noise_covariance": _diagonal(*(Fraction(1, 2500),) * 4),
            "cost_state_leader": ClosedFormTable(
                shape=(4, 4),
                base={4 * i + j: Fraction(3 if i == j else -1, 16) for i in range(4) for j in range(4)},
            ),
            "cost_action_leader": _diagonal(Fraction(1, 2), Fraction(1, 2)),
            "cost_constant_leader": ClosedFormTable(
                shape=(), quadratic=tuple((0, j, j, Fraction(1, 10)) for j in range(8))
            ),
            "initial_mean": ClosedFormTable(shape=(4,)),
            "initial_covariance": _diagonal(25, 25, 25, 25),
        },
        features=(FeatureBlock(link=link, length=8),),  # type: ignore[arg-type]
        theta=theta,
        discount_leader=Fraction(9, 10),
        discount_follower=Fraction(9, 10),
        temperature=Fraction(1, 10),
        horizon=horizon,
    )


def lqr_game_form(
    name: str, *, gain: tuple[float, float], discounted: bool = True, horizon: int | None = 100
) -> ClosedForm:
    """The leader's linear policy K pushes a point mass that the follower holds; it is paid near a target."""
    return ClosedForm(
        kind="lqr_game",
        name=name,
        tables={
            "dynamics_state": ClosedFormTable(shape=(2, 2), base={1: 1}),
            "dynamics_action": ClosedFormTable(shape=(2, 1), base={1: Fraction(1, 10)}),
            "dynamics_leader": ClosedFormTable(shape=(2, 1), base={0: Fraction(1, 10)}),
            "cost_state": _diagonal(1, 1),
            "cost_action": _diagonal(1),
            "gain": ClosedFormTable(shape=(1, 2), slope=((0, 0, 1), (1, 1, 1))),
            "covariance": _diagonal(Fraction(1, 10**6)),
            "target": ClosedFormTable(shape=(2,), base={0: Fraction(-4, 5)}),
            "width": _diagonal(Fraction(1, 25), Fraction(1, 10**4)),
            "initial_mean": ClosedFormTable(shape=(2,), base={0: 1}),
            "initial_covariance": ClosedFormTable(shape=(2, 2)),
        },
        features=(FeatureBlock(link="identity", length=2),),
        theta=gain,
        discount_leader=Fraction(99, 100),
        discount_follower=Fraction(19, 20),
        temperature=Fraction(1, 10),
        horizon=horizon,
        discounted=discounted,
    )


def _random(name: str, entropy: int, *, size: int, horizon: int | None) -> ClosedForm:
    rng = named_stream(entropy, name)
    controls, parameters = max(1, size - 1), 3

    def draw(count: int, denominator: int) -> list[float]:
        return [int(n) / denominator for n in rng.integers(-64, 65, count)]

    def free(rows: int, columns: int, denominator: int) -> ClosedFormTable:
        return ClosedFormTable(
            shape=(rows, columns),
            base=dict(enumerate(draw(rows * columns, denominator))),
            slope=tuple((e, j, n) for e in range(rows * columns) for j, n in enumerate(draw(parameters, 512))),
        )

    def positive(count: int, denominator: int) -> ClosedFormTable:
        """Diagonally dominant at every θ in [-1, 1]: symmetric, with symmetric slopes."""
        base: dict[int, Exact] = {}
        slope: list[tuple[int, int, Exact]] = []
        for i in range(count):
            for k in range(i + 1):
                number = draw(1, 8 * 64)[0] if i != k else 1.0 + abs(draw(1, 64)[0])
                moves = draw(parameters, 16 * 64)
                for place in {i * count + k, k * count + i}:
                    base[place] = number / denominator
                    slope += [(place, j, n / denominator) for j, n in enumerate(moves)]
        return ClosedFormTable(shape=(count, count), base=base, slope=tuple(slope))

    return ClosedForm(
        kind="configurable_lqr",
        name=name,
        tables={
            "dynamics_state": free(size, size, 64),
            "dynamics_action": free(size, controls, 64),
            "cost_state_follower": positive(size, 1),
            "cost_action_follower": positive(controls, 1),
            "noise_covariance": positive(size, 16),
            "cost_state_leader": positive(size, 2),
            "cost_action_leader": positive(controls, 4),
            "cost_constant_leader": ClosedFormTable(
                shape=(),
                slope=tuple((0, j, n) for j, n in enumerate(draw(parameters, 64))),
                quadratic=((0, 0, 1, 0.5),),
            ),
            "initial_mean": ClosedFormTable(
                shape=(size,),
                base=dict(enumerate(draw(size, 64))),
                slope=tuple((e, j, n) for e in range(size) for j, n in enumerate(draw(parameters, 64))),
            ),
            "initial_covariance": positive(size, 4),
            "regulariser": ClosedFormTable(shape=(), quadratic=tuple((0, j, j, -0.125) for j in range(parameters))),
        },
        features=(FeatureBlock(link="identity", length=parameters),),
        theta=tuple(draw(parameters, 256)),
        discount_leader=Fraction(4, 5),
        discount_follower=Fraction(9, 10),
        temperature=Fraction(1, 4),
        horizon=horizon,
    )


def _diagonal(*entries: Exact) -> ClosedFormTable:
    count = len(entries)
    return ClosedFormTable(shape=(count, count), base={i * (count + 1): e for i, e in enumerate(entries)})
