"""One exact hypergradient of Four-Rooms against the LAPACK solves that it needs and against reverse mode."""

from typing import Any

import numpy as np
import pytest

from bilevelrl.benchmarks.speed.cases import WarmFourRooms, reverse_mode, warm_four_rooms
from bilevelrl.benchmarks.speed.timing import take_turns

SWEEPS = 1000


@pytest.fixture(scope="module")
def warm() -> WarmFourRooms:
    return warm_four_rooms()


def describe(benchmark: Any, warm: WarmFourRooms) -> None:
    exact = warm.gradient()
    benchmark.extra_info.update(states=104, parameters=warm.theta.size, residual=exact.residual, **exact.counters)


@pytest.mark.benchmark(group="four_rooms hypergradient")
def test_hypergradient(benchmark: Any, warm: WarmFourRooms) -> None:
    describe(benchmark, warm)
    timings = take_turns({"gradient": warm.gradient, "bare": warm.bare_solves()}, rounds=200)
    benchmark.extra_info["times_the_bare_solves"] = timings["gradient"].cpu / timings["bare"].cpu
    benchmark(warm.gradient)


@pytest.mark.benchmark(group="four_rooms hypergradient")
def test_bare_lapack_solves(benchmark: Any, warm: WarmFourRooms) -> None:
    describe(benchmark, warm)
    benchmark(warm.bare_solves())


@pytest.mark.benchmark(group="four_rooms hypergradient")
def test_one_numpy_solve_per_system(benchmark: Any, warm: WarmFourRooms) -> None:
    describe(benchmark, warm)
    benchmark(warm.separate_solves())


@pytest.mark.benchmark(group="four_rooms hypergradient")
def test_reverse_mode(benchmark: Any, warm: WarmFourRooms) -> None:
    found = benchmark.pedantic(reverse_mode, (warm.problem, warm.theta), {"sweeps": SWEEPS}, rounds=3, warmup_rounds=0)
    exact = warm.gradient().value
    benchmark.extra_info.update(sweeps=SWEEPS, distance_to_exact=float(np.abs(found - exact).max()))
