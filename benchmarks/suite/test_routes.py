"""Every route on Four-Rooms and on small problems of each structure."""

from typing import Any

import numpy as np
import pytest

from bilevelrl.reference import HYPERGRADIENT_ROUTES, ConfigurableMDP, hypergradient, named_stream
from bilevelrl.reference.errors import TooLargeError
from bilevelrl.tasks import chain, four_rooms, garnet, random_mdp

PROBLEMS = {
    "four_rooms": (four_rooms(temperature=0.003), 105),
    "random 8x3": (random_mdp(states=8, actions=3, parameters=5, seed=0), 5),
    "garnet 50x4": (garnet(states=50, actions=4, branching=3, parameters=10, seed=0), 10),
    "chain": (chain(), None),
}
ROUTES = [name for name, route in HYPERGRADIENT_ROUTES.items() if ConfigurableMDP in route.kinds]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", PROBLEMS)
def test_route(benchmark: Any, name: str, route: str) -> None:
    problem, size = PROBLEMS[name]
    theta = 0.01 * named_stream(0, "routes", name).standard_normal(size or problem.theta_shape)
    benchmark.group = name
    try:
        found = benchmark.pedantic(
            hypergradient, (problem, theta), {"route": route, "bound": False}, rounds=2, warmup_rounds=1
        )
    except TooLargeError as refused:
        pytest.skip(str(refused))
    exact = hypergradient(problem, theta, bound=False).value
    benchmark.extra_info.update(
        states=problem.tables_at(theta).states,
        parameters=theta.size,
        distance_to_implicit=float(np.abs(found.value - exact).max()),
        **found.counters,
    )
