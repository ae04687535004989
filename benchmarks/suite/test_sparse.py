"""One exact hypergradient on grids of rooms with sparse kernels; the whole curve is `sparse_scaling`."""

from typing import Any

import numpy as np
import pytest

from bilevelrl.reference import hypergradient
from bilevelrl.tasks import grid_rooms


@pytest.mark.benchmark(group="grid_rooms")
@pytest.mark.parametrize("rooms", [4, 8, 14, 25])
def test_grid_rooms(benchmark: Any, rooms: int) -> None:
    problem = grid_rooms(rooms_per_side=rooms, room_size=7)
    theta = np.zeros(problem.theta_shape or 0)
    found = benchmark.pedantic(hypergradient, (problem, theta), {"bound": False}, rounds=3, warmup_rounds=1)
    benchmark.extra_info.update(states=theta.size, parameters=theta.size, residual=found.residual, **found.counters)
