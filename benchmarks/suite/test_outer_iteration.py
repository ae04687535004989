"""One outer iteration (follower to 1e-10, 100 steps, BC-HG) per seed, batched over seeds."""

from typing import Any

import numpy as np
import pytest

from bilevelrl.benchmarks.speed.outer_iteration import STEPS, TOLERANCE, outer_iteration


@pytest.mark.benchmark(group="outer iteration")
@pytest.mark.parametrize("seeds", [1, 10, 32, 100])
def test_together(benchmark: Any, seeds: int) -> None:
    iteration = outer_iteration(seeds)
    found = benchmark(iteration.together)
    assert np.isfinite(found.mean).all()
    benchmark.extra_info.update(seeds=seeds, steps=STEPS, tolerance=TOLERANCE)
    if benchmark.stats is not None:
        benchmark.extra_info["milliseconds_per_seed"] = 1e3 * benchmark.stats.stats.median / seeds


@pytest.mark.benchmark(group="outer iteration")
def test_one_by_one(benchmark: Any) -> None:
    iteration = outer_iteration(10)
    benchmark(iteration.one_by_one)
    benchmark.extra_info.update(seeds=10, steps=STEPS, tolerance=TOLERANCE)
