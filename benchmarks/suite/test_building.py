"""One outer iteration on the building per seed: follower, 10,000 transitions, critics by least squares, direction."""

from typing import Any

import numpy as np
import pytest

from bilevelrl.benchmarks.paper.building.training import building_training


@pytest.mark.benchmark(group="building, training iteration")
@pytest.mark.parametrize("method", ["bc_hg", "naive_pgd", "hpgd_td", "policy_covariance"])
def test_outer_iteration(benchmark: Any, method: str) -> None:
    training = building_training(method=method, learning_rate=0.1, seeds=1)
    world, thetas = training.world([np.random.default_rng(0)]), training.start()

    def iteration() -> Any:
        world.prepare(thetas, 0)
        return world.direction(thetas, 0)

    direction = benchmark(iteration)
    assert np.isfinite(direction).all()
    benchmark.extra_info.update(transitions=training.streams * training.steps)
    if benchmark.stats is not None:
        benchmark.extra_info["milliseconds_per_seed"] = 1e3 * benchmark.stats.stats.median
